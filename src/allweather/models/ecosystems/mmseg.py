"""Whole mmsegmentation configurations, built by its maintained fork (onedl-mmsegmentation)."""

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from allweather.classes import CITYSCAPES, ClassSet
from allweather.errors import NetworkError, RandomWeightsWarning, SettingsError, first_line, optional
from allweather.models.checkpoints import load_weights
from allweather.models.segmenter import Preprocessing, Segmenter, Window
from allweather.plugins import tell_run


class Logits(nn.Module):
    """An mmseg segmentor that is called with normalised images and gives the decode head's logits."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        size = images.shape[2:]
        logits: Tensor = self.network.encode_decode(images, [{"img_shape": size, "ori_shape": size}] * len(images))
        return logits


def load(name: str, weights: Path | None, classes: ClassSet | None) -> Segmenter:
    """`name` as the path of a config file, or the name of one that the package ships.

    Raises:
        AllWeatherError: when the library is missing, there is no such config, its windows are oblong, or the
            checkpoint does not fit.
    """
    optional("mmcv", "mmseg")
    library = optional("mmseg", "mmseg")
    config = optional("mmengine.config", "mmseg").Config.fromfile(_file(name, library))
    pre = config.model.get("data_preprocessor") or getattr(config, "img_norm_cfg", {})  # the latter before mmseg 1.0
    window = _window(config.model.get("test_cfg", {}), name)
    _without_downloads(config.model)
    optional("mmseg.utils", "mmseg").register_all_modules(init_default_scope=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about losses, which are not used
            network = optional("mmseg.registry", "mmseg").MODELS.build(config.model)
    except (KeyError, TypeError, ValueError, ImportError, AttributeError) as error:
        raise NetworkError(
            f"mmseg cannot build {name}: {first_line(error)}. Look at its configuration, or build it yourself: "
            "Segmenter.wrap."
        ) from error
    model = Segmenter(
        Logits(network),
        classes=classes or CITYSCAPES,
        preprocessing=_preprocessing(pre, network),
        name=f"mmseg:{Path(name).stem}",
        window=window,
    ).eval()
    if weights is None:
        warnings.warn(RandomWeightsWarning(model.name), stacklevel=3)
        return model
    model.provenance = load_weights(network, weights, name=model.name)
    return model


def _file(name: str, library: Any) -> str:
    """The config's path: itself, which is said to run, or found among those of the package."""
    if Path(name).is_file():
        tell_run(name)
        return name
    shipped = Path(library.__file__).parent / ".mim" / "configs"
    found = sorted(shipped.rglob(f"{Path(name).stem}.py"))
    if not found:
        raise SettingsError(f"mmseg:{name}: no such file, and no config of that name under {shipped}.")
    return str(found[0])


def _window(test: Any, name: str) -> Window | None:
    """The windows that slide at test time, which are square here."""
    if test.get("mode") != "slide":
        return None
    sides = {
        key: (side, side) if isinstance(side := test[key], int) else tuple(side) for key in ("crop_size", "stride")
    }
    if oblong := [f"{key} = {each}" for key, each in sides.items() if len(set(each)) > 1]:
        raise NetworkError(
            f"mmseg:{name} slides windows over its pictures, {' and '.join(oblong)} (height, width); expected square "
            "ones. In a copy of the configuration, write square ones into model.test_cfg, or mode='whole'."
        )
    return Window(sides["crop_size"][0], sides["stride"][0])


def _without_downloads(model: Any) -> None:
    """No ImageNet weights are fetched, and norms are those of one process."""
    model.pretrained = None
    for part in (model, model.get("backbone", {}), *_heads(model)):
        if part.get("init_cfg", {}) and part["init_cfg"].get("type") == "Pretrained":
            part["init_cfg"] = None
        if part.get("norm_cfg"):
            part["norm_cfg"]["type"] = part["norm_cfg"]["type"].replace("SyncBN", "BN")


def _heads(model: Any) -> list[Any]:
    heads: list[Any] = []
    for name in ("decode_head", "auxiliary_head"):
        head = model.get(name)
        heads += head if isinstance(head, list) else [head] if head else []
    return heads


def _preprocessing(settings: Any, network: Any) -> Preprocessing:
    """mmseg reads BGR bytes, and swaps channels and normalises only where told; its means are of what comes out."""
    return Preprocessing(
        mean=tuple(settings.get("mean") or (0.0,) * 3),
        std=tuple(settings.get("std") or (1.0,) * 3),
        value_range=255.0,
        bgr=not any(settings.get(key) for key in ("bgr_to_rgb", "rgb_to_bgr", "to_rgb")),
        size_multiple=32,
        align_corners=bool(network.align_corners),
    )
