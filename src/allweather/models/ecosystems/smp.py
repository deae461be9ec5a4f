"""Networks of segmentation-models-pytorch with any of its encoders, from its hub repositories too."""

import json
import warnings
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from allweather.classes import CITYSCAPES, ClassSet, numbered
from allweather.errors import NetworkError, RandomWeightsWarning, SettingsError, first_line, optional, unknown
from allweather.models.checkpoints import load_weights
from allweather.models.digest import digest
from allweather.models.ecosystems.albumentations import pixel_values
from allweather.models.ecosystems.reading import reading
from allweather.models.ecosystems.sizes import Sizes
from allweather.models.segmenter import Preprocessing, Provenance, Segmenter

HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
DUAL_PATH = {"mean": (124 / 255, 117 / 255, 104 / 255), "std": (1 / (0.0167 * 255),) * 3}
ON_IMAGENET = ("imagenet", "imagenet+5k", "noisy-student", "ssl", "swsl", "instagram")  # weights on its pixel values
OTHER_INPUTS = {"inception": HALVES, "xception": HALVES, "dpn": DUAL_PATH}  # encoders not trained on ImageNet's values
OTHER_FILE = "checkpoint_path"  # what timm takes for a file to read


class Sized(nn.Module):
    """A network of smp that tells which sizes it takes."""

    def __init__(self, network: nn.Module, sizes: Sizes) -> None:
        super().__init__()
        self.network = network
        self.sizes = sizes

    def forward(self, images: Tensor) -> Tensor:
        return self.sizes.call(self.network, images)


def load(name: str, weights: Path | None, classes: ClassSet | None) -> Segmenter:
    """`ARCHITECTURE/ENCODER`, such as `deeplabv3plus/resnet50` or `unet/tu-mobilenetv4_conv_small`.

    Or a folder that `save_pretrained` wrote, or a hub name such as `smp-hub/segformer-b2-1024x1024-city-160k`; these
    bring their parameters, and their pixel values where the evaluation transform lies beside them. With `weights` only
    the configuration is taken from there. Their files hold no class names: 19 outputs are taken for Cityscapes', with a
    warning, unless `classes` says what they are.

    Raises:
        AllWeatherError: when the library is missing, knows no such network, or the checkpoint does not fit.
    """
    library = optional("segmentation_models_pytorch", "smp")
    label = f"smp:{name}"
    architecture, separator, encoder = name.partition("/")
    own = architecture.lower() in library.MODEL_ARCHITECTURES_MAPPING and separator and not Path(name).is_dir()
    with reading(name, partial(_failed, name)):
        if own:
            classes = classes or CITYSCAPES
            network = _build(library, architecture, encoder, len(classes))
            probabilities = False
            values: dict[str, Any] = _encoder_values(library, encoder, "imagenet")
        else:
            config = _config(library, name)
            probabilities = _gives_probabilities(config, label)
            classes = _classes(config, classes, label)
            network = _pretrained(library, config, name, weights)
            values = pixel_values(_file(name, "albumentations_config_eval.json"), label) or _encoder_values(
                library, config.get("encoder_name", ""), config.get("encoder_weights") or "imagenet"
            )
    stride = _stride(network)
    model = Segmenter(
        Sized(network, Sizes(label, _own_size(network), max(stride, 16))),
        classes=classes,
        preprocessing=Preprocessing(**values, size_multiple=stride),
        name=label,
        probabilities=probabilities,
    ).eval()
    if weights is not None:
        model.provenance = load_weights(network, weights, name=label)
    elif own:
        warnings.warn(RandomWeightsWarning(label), stacklevel=3)
    else:
        model.provenance = Provenance(label, digest(network.state_dict()))
    return model


def _build(library: Any, architecture: str, encoder: str, classes: int) -> nn.Module:
    known = library.encoders.get_encoder_names()
    if encoder not in known and not encoder.startswith(("tu-", "timm-")):
        raise unknown("encoder of smp", encoder, [*known, "tu- and any network of timm"])
    network: nn.Module = library.create_model(architecture, encoder, encoder_weights=None, classes=classes)
    return network


def _config(library: Any, name: str) -> dict[str, Any]:
    """config.json of a folder or hub repository.

    Raises:
        SettingsError: when `name` is neither, nor ARCHITECTURE/ENCODER.
        NetworkError: when config.json is not one of smp's, or has the library read more than this folder or repository.
    """
    file = _file(name, "config.json")
    if file is None:
        raise _no_such(name, list(library.MODEL_ARCHITECTURES_MAPPING))
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise NetworkError(f"smp:{name}: its config.json is damaged ({error}). Fetch it again.") from error
    made = config.get("_model_class") if isinstance(config, dict) else None
    if made not in [architecture.__name__ for architecture in library.MODEL_ARCHITECTURES_MAPPING.values()]:
        raise NetworkError(
            f"smp:{name}: its config.json is not one of segmentation-models-pytorch (_model_class is {made!r:.60}). "
            f"For a network of transformers: transformers:{name}"
        )
    encoder = config.get("encoder_name", "")
    if not isinstance(encoder, str) or ":" in encoder or OTHER_FILE in config:
        named = config.get(OTHER_FILE, encoder)
        raise NetworkError(
            f"smp:{name}: its config.json names {named!r:.60}; expected an encoder by its name in smp or timm, and no "
            "other file or repository. Build that network yourself and wrap it: Segmenter.wrap."
        )
    return config


def _no_such(name: str, architectures: list[str]) -> SettingsError:
    architecture, slash, _ = name.partition("/")
    if architecture in architectures and not slash:
        return SettingsError(
            f"smp:{name} names no encoder. Expected ARCHITECTURE/ENCODER, such as smp:{name}/resnet18."
        )
    return SettingsError(
        f"smp:{name} is no ARCHITECTURE/ENCODER ({unknown('architecture', architecture, architectures)}), no folder "
        "with config.json, and no repository of the hub that can be reached or is in its cache."
    )


def _file(name: str, file: str) -> Path | None:
    """A file of a folder or hub repository; None where it has none, or cannot be asked."""
    if (Path(name) / file).is_file():
        return Path(name) / file
    if Path(name).exists() or name.count("/") != 1:
        return None
    hub = optional("huggingface_hub", "smp")
    try:
        return Path(hub.hf_hub_download(name, file))
    except (OSError, ValueError):
        return None


def _pretrained(library: Any, config: dict[str, Any], name: str, weights: Path | None) -> nn.Module:
    """The network that a configuration describes, with its own weights unless others come."""
    if weights is None:
        with redirect_stdout(StringIO()):
            loaded: nn.Module = library.from_pretrained(name, encoder_weights=None)  # the whole network's come next
        return loaded
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    network: nn.Module = getattr(library, config["_model_class"])(**{**settings, "encoder_weights": None})
    return network


def _failed(name: str, error: Exception) -> NetworkError:
    return NetworkError(
        f"segmentation-models-pytorch cannot make '{name}': {first_line(error)}. Look at its configuration, or build "
        "the network yourself: Segmenter.wrap."
    )


def _classes(config: dict[str, Any], wanted: ClassSet | None, label: str) -> ClassSet:
    count = config.get("classes", 1)
    if type(count) is not int or count < 1:
        raise NetworkError(f"{label} has {count!r:.60} as 'classes' in config.json; expected a whole number from 1.")
    if wanted is not None and len(wanted) != count:
        raise SettingsError(f"{label} gives {count} classes, '{wanted.name}' has {len(wanted)}: expected as many.")
    if wanted is None and count == len(CITYSCAPES):
        warnings.warn(
            f"{label} does not name its {count} classes; they are taken for Cityscapes', in trainIds' order. Say so "
            "with classes=cityscapes, or name another set",
            stacklevel=4,
        )
        return CITYSCAPES
    return wanted or numbered(tuple(f"class {index}" for index in range(count)))


def _gives_probabilities(config: dict[str, Any], label: str) -> bool:
    """Whether the network ends in a softmax.

    Raises:
        NetworkError: for another activation or number of channels than a network of pictures and classes has.
    """
    if config.get("in_channels", 3) != 3:
        raise NetworkError(f"{label} takes {config['in_channels']} channels; expected a network of RGB pictures, 3.")
    activation = config.get("activation")
    if activation not in (None, "identity", "logsoftmax", "softmax", "softmax2d"):
        raise NetworkError(
            f"{label} ends in the activation {activation!r}; expected logits of classes that exclude each other, or "
            "their softmax. Set activation to null in its config.json where it was trained on those."
        )
    return activation in ("softmax", "softmax2d")


def _encoder_values(library: Any, encoder: str, pretrained: str) -> dict[str, Any]:
    """How the encoder's own training made pixel values: what timm knows, what smp's hub says, or ImageNet's.

    smp keeps its encoders' settings on the hub; they are read where they are in the cache, and not fetched. Weights of
    a training that is not known here are warned of.
    """
    if encoder.startswith("tu-"):
        config = optional("timm", "smp").get_pretrained_cfg(encoder.removeprefix("tu-"), allow_unregistered=True)
        return {} if config is None else {"mean": tuple(config.mean), "std": tuple(config.std)}
    settings = library.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get(pretrained)
    cached = settings and optional("huggingface_hub", "smp").try_to_load_from_cache(
        settings["repo_id"], "config.json", revision=settings["revision"]
    )
    if isinstance(cached, str):
        found = library.encoders.get_preprocessing_params(encoder, pretrained)
        return {
            "mean": tuple(found["mean"]),
            "std": tuple(found["std"]),
            "value_range": float(found["input_range"][1]),
            "bgr": found["input_space"] == "BGR",
        }
    found = HALVES if pretrained == "advprop" else {}
    if not found and pretrained not in ON_IMAGENET:
        warnings.warn(
            f"smp: how {encoder}'s weights '{pretrained}' were trained is not known here; pixel values are taken for "
            "ImageNet's. Fetch the encoder once with segmentation_models_pytorch, which says it in the hub's cache",
            stacklevel=4,
        )
    return next((values for part, values in OTHER_INPUTS.items() if encoder.startswith(part)), found)


def _stride(network: Any) -> int:
    """To what images are padded: what the network divides by; 1 where it takes any size."""
    return int(network.encoder.output_stride) if network.requires_divisible_input_shape else 1


def _own_size(network: nn.Module) -> tuple[int, int] | None:
    """(height, width) of the patches that a vision transformer's position embedding is for."""
    found = (getattr(module, "img_size", None) for module in network.modules())
    return next(((int(size[0]), int(size[1])) for size in found if isinstance(size, tuple) and len(size) == 2), None)
