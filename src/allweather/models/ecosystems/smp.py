"""Networks of segmentation-models-pytorch with any of its encoders, timm's among them."""

import json
import warnings
from pathlib import Path
from typing import Any

from allweather.classes import CITYSCAPES, ClassSet
from allweather.errors import NetworkError, RandomWeightsWarning, SettingsError
from allweather.models.checkpoints import load_weights
from allweather.models.ecosystems.extras import optional
from allweather.models.segmenter import Preprocessing, Segmenter

SIZE_MULTIPLE = 32  # smp's encoders halve five times


def load(name: str, weights: Path | None, classes: ClassSet | None) -> Segmenter:
    """`ARCHITECTURE/ENCODER`, such as `deeplabv3plus/resnet50` or `unet/tu-mobilenetv4_conv_small`.

    Or a folder that `save_pretrained` wrote.

    Raises:
        AllWeatherError: when the library is missing, knows no such network, or the checkpoint does not fit.
    """
    library = optional("segmentation_models_pytorch", "smp")
    classes = classes or CITYSCAPES
    folder = (Path(name) / "config.json").is_file()
    architecture, separator, encoder = name.partition("/")
    if not folder and not (separator and encoder):
        raise SettingsError(
            f"smp:{name}: expected ARCHITECTURE/ENCODER, e.g. smp:deeplabv3plus/resnet50, or a folder with config.json."
        )
    try:
        network = (
            library.from_pretrained(name)
            if folder
            else library.create_model(architecture, encoder, encoder_weights=None, classes=len(classes))
        )
    except (KeyError, ValueError, RuntimeError, OSError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise NetworkError(f"segmentation-models-pytorch cannot make '{name}': {reason}") from error
    if folder:
        encoder = json.loads((Path(name) / "config.json").read_text()).get("encoder_name", "")
    model = Segmenter(network, classes=classes, preprocessing=_preprocessing(encoder), name=f"smp:{name}").eval()
    if weights is not None:
        model.provenance = load_weights(network, weights, name=model.name)
    elif not folder:
        warnings.warn(RandomWeightsWarning(f"smp:{name}"), stacklevel=3)
    return model


def _preprocessing(encoder: str) -> Preprocessing:
    """ImageNet's, or what timm knows of its encoder; of its own, smp would have to ask a hub."""
    config: Any = None
    if encoder.startswith("tu-"):
        config = optional("timm", "smp").get_pretrained_cfg(encoder.removeprefix("tu-"), allow_unregistered=True)
    if config is None:
        return Preprocessing(size_multiple=SIZE_MULTIPLE)
    return Preprocessing(mean=tuple(config.mean), std=tuple(config.std), size_multiple=SIZE_MULTIPLE)
