"""Semantic segmentation networks of Hugging Face transformers, from a hub name or a local folder."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from allweather.classes import CITYSCAPES, ClassSet, numbered
from allweather.errors import AllWeatherError
from allweather.models.ecosystems.extras import optional
from allweather.models.segmenter import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, Segmenter


class Logits(nn.Module):
    """A transformers network that is called with pixel values and gives logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=pixels).logits
        return logits


def load(name: str, weights: Path | None, classes: ClassSet | None) -> Segmenter:
    """`name` as `from_pretrained` takes it: a folder with config.json and safetensors, or a hub name.

    Raises:
        AllWeatherError: when transformers is missing, the network cannot be loaded, or it is no segmentation network.
    """
    library = optional("transformers", "transformers")
    if weights is not None:
        raise AllWeatherError(
            f"transformers:{name} brings its own weights; got {weights} too. Name the folder that holds them instead."
        )
    try:
        network = library.AutoModelForSemanticSegmentation.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise AllWeatherError(
            f"transformers cannot load '{name}': {reason} Expected a hub name, or a folder with config.json and "
            "model.safetensors of a semantic segmentation network."
        ) from error
    processing = _processor_settings(network.config, name)
    preprocessing = Preprocessing(
        mean=tuple(processing.get("image_mean", IMAGENET_MEAN)),
        std=tuple(processing.get("image_std", IMAGENET_STD)),
        size_multiple=32,
    )
    return Segmenter(
        Logits(network),
        classes=classes or _classes(network.config),
        preprocessing=preprocessing,
        name=f"transformers:{name}",
    ).eval()


def _classes(config: Any) -> ClassSet:
    if config.num_labels == len(CITYSCAPES):
        return CITYSCAPES
    return numbered(tuple(str(config.id2label[index]) for index in range(config.num_labels)))


def _processor_settings(config: Any, name: str) -> dict[str, Any]:
    """What preprocessor_config.json of a local folder says; empty where there is none."""
    file = Path(config.name_or_path or name) / "preprocessor_config.json"
    loaded: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return loaded
