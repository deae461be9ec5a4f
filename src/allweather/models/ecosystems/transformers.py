"""Semantic segmentation networks of Hugging Face transformers, from a hub name or a local folder."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from allweather.classes import CITYSCAPES, ClassSet, numbered
from allweather.errors import NetworkError
from allweather.models.checkpoints import load_weights
from allweather.models.ecosystems.extras import optional
from allweather.models.segmenter import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, Segmenter

MASK_MODELS = ("mask2former", "maskformer", "oneformer")
TASK = "the task is semantic"  # what OneFormer is told
TASK_LENGTH = 77  # tokens


class Logits(nn.Module):
    """A transformers network that is called with pixel values and gives logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=pixels).logits
        return logits


class MaskLogits(nn.Module):
    """A network that gives masks with classes, as one that gives logits per pixel: B×3×H×W to B×C×h×w.

    The score of a class at a pixel is Σ over the queries of P(class | query), no-object left out, times the mask's
    sigmoid (Cheng et al., MaskFormer, NeurIPS 2021, section 3.4). The logarithm is returned, so that a softmax over the
    classes normalises the scores and the largest stays the largest.

    Args:
        task: token ids 1×77 of the sentence that OneFormer is told; None for networks that are told nothing.
    """

    task: Tensor | None

    def __init__(self, network: nn.Module, task: Tensor | None = None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("task", task, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        told = {} if self.task is None else {"task_inputs": self.task.expand(len(pixels), -1)}
        output = self.network(pixel_values=pixels, **told)
        classes = output.class_queries_logits.softmax(2)[..., :-1]
        scores = torch.einsum("bqc,bqhw->bchw", classes, output.masks_queries_logits.sigmoid())
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()


def load(name: str, weights: Path | None, classes: ClassSet | None) -> Segmenter:
    """`name` as `from_pretrained` takes it: a folder with config.json and safetensors, or a hub name.

    With `weights` only the configuration is taken from there, and the state dict from the file.

    Raises:
        AllWeatherError: when transformers is missing, the network cannot be loaded, or it is no segmentation network.
    """
    library = optional("transformers", "transformers")
    provenance = None
    try:
        config = library.AutoConfig.from_pretrained(name)
        masks = config.model_type in MASK_MODELS
        auto = library.AutoModelForUniversalSegmentation if masks else library.AutoModelForSemanticSegmentation
        if weights is None:
            network = auto.from_pretrained(name, use_safetensors=True)
        else:
            network = auto.from_config(config)
            provenance = load_weights(network, weights, name=f"transformers:{name}")
        task = _task(library, name) if config.model_type == "oneformer" else None
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise NetworkError(
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
        MaskLogits(network, task) if masks else Logits(network),
        classes=classes or _classes(network.config),
        preprocessing=preprocessing,
        name=f"transformers:{name}",
        provenance=provenance,
    ).eval()


def _task(library: Any, name: str) -> Tensor:
    tokenizer = library.AutoTokenizer.from_pretrained(name)
    ids = tokenizer(TASK, padding="max_length", max_length=TASK_LENGTH, truncation=True)["input_ids"]
    return torch.tensor([ids])


def _classes(config: Any) -> ClassSet:
    if config.num_labels == len(CITYSCAPES):
        return CITYSCAPES
    return numbered(tuple(str(config.id2label[index]) for index in range(config.num_labels)))


def _processor_settings(config: Any, name: str) -> dict[str, Any]:
    """What preprocessor_config.json of a local folder says; empty where there is none."""
    file = Path(config.name_or_path or name) / "preprocessor_config.json"
    loaded: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return loaded
