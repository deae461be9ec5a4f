"""EATA: ETA, held near the source network wherever images of the source domain say that it matters."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from allweather.errors import ImageError, InputError, SettingsError
from allweather.methods.eta import Eta
from allweather.methods.method import Batch, Objective, State
from allweather.methods.option import Need, option
from allweather.methods.parameters import values_of
from allweather.models.gradients import gradients_of
from allweather.models.placing import device_of
from allweather.models.segmenter import Segmenter
from allweather.rgb import EXTENSIONS, read_rgb

_IMAGES = Need("source_images", lambda method: method.source_images is not None)


@dataclass(frozen=True, kw_only=True)
class Eata(Eta):
    """ETA's loss + penalty · Σ_i ω_i (θ_i − θ_i^source)², ω_i = mean over source images of (∂CE(f(x), ŷ)/∂θ_i)².

    ŷ is the network's own class, so no labels are needed; here there is one per pixel, and an image's cross-entropy
    is the mean over its pixels, where the paper has one class per image. The images are read in the size they are
    stored in, which should be that of the stream. Without `source_images` nothing is held, which is ETA, and a
    warning says so.
    """

    name: ClassVar[str] = "eata"
    source: ClassVar[str] = "Niu et al., Efficient test-time model adaptation without forgetting, ICML 2022"
    presets: ClassVar = {"paper": {**Eta.presets["paper"], "source_count": 2000}}

    episodic: bool = option(False, "return to the source network after each batch")
    report_after: bool = option(False, "report the prediction made after the last update, not the one before it")
    source_images: str | None = option(
        None, "folder of images of the source domain, with its subfolders; none: the method is eta", path=EXTENSIONS
    )
    source_count: int = option(
        64, "maximum number of source images, spread evenly over the sorted names", low=1, needs=_IMAGES
    )
    penalty: float = option(
        2000.0, "weight of the penalty for leaving the source, times each parameter's importance", low=0, needs=_IMAGES
    )

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        if self.source_images is None:
            warnings.warn(
                "eata: without source_images nothing is held near the source network, as in eta. Give a folder of "
                "images of the source domain (source_images=FOLDER), or choose eta.",
                stacklevel=2,
            )
            return state
        state.origin = values_of(state.parameters)
        importance = self._importance(model, state, Path(self.source_images))
        state.memory |= {f"importance.{name}": value for name, value in importance.items()}
        return state

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        found = super().objective(model, state, batch)
        if found.loss is None or self.source_images is None:
            return found
        away = [
            (state.memory[f"importance.{name}"] * (parameter - state.origin[name]).square()).sum()
            for name, parameter in state.parameters.items()
        ]
        return replace(found, loss=found.loss + self.penalty * torch.stack(away).sum())

    def _importance(self, model: Segmenter, state: State, folder: Path) -> dict[str, Tensor]:
        """The diagonal of the Fisher matrix over the folder's images, one tensor per parameter."""
        parameters = state.parameters
        total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        paths = _spread(_images_below(folder), self.source_count)
        device = device_of(model)
        for path in paths:
            logits = model(_image(path).to(device)).float()
            loss = functional.cross_entropy(logits, logits.detach().max(1).indices)
            for name, gradient in gradients_of(loss, model, parameters).items():
                total[name] += gradient.square()
        return {name: value / len(paths) for name, value in total.items()}


def _images_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SettingsError(f"eata.source_images: expected a folder of images, got '{folder}', which is none.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not paths:
        raise SettingsError(f"eata.source_images: no image lies below '{folder}'. Give the source domain's folder.")
    return paths


def _spread(paths: list[Path], count: int) -> list[Path]:
    """At most `count` of the paths, evenly spaced."""
    taken = min(count, len(paths))
    return [paths[index * len(paths) // taken] for index in range(taken)]


def _image(path: Path) -> Tensor:
    """1×3×H×W, RGB in [0, 1]."""
    try:
        return read_rgb(path)[0][None]
    except ImageError as error:
        raise InputError(f"eata.source_images: {error}") from error
