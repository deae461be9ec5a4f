"""Other views of the same images (mirrored, resized, recoloured) and their predictions on the images' own grid."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional

from allweather.errors import NetworkError, NotFiniteError, SettingsError, first_line, unknown
from allweather.methods.losses import pixel_entropy
from allweather.methods.option import option, spell
from allweather.plugins import FAULTS, Kind, find_place, load_own

Network = Callable[[Tensor], Tensor]
OwnView = Callable[[Network, Tensor], Tensor]
Views: TypeAlias = tuple[OwnView | str, ...]

NAMES = (
    "plain",
    "mirror",
    "gamma",
    "source",
    "gamma-mirror",
    "source-mirror",
    "x1.5",
    "mirror-x1.5",
    "gamma-mirror-x1.5",
    "relit",
    "relit-mirror-x1.5-fit",
    "grey-x1.2",
)
OR_OWN = ", or FILE.py:FUNCTION"  # of the help of the field; not everybody may name one
_OWN = Kind("view", "allweather.views", SettingsError)
_SCALE = re.compile(r"x(\d+(?:\.\d+)?)")
_SCALES = (0.25, 4.0)
_LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709
_BRIGHTNESS = 0.33  # mean luminance after gamma: real night frames gain there, at .45 one lost 54 points (lab notes)
_WARMTH = 1.5  # red over blue: by night under lamps 1.7 to 3.1, by day, at dusk and white-balanced at most 1.3
_UNFIT = 1.1  # of entropies, above which a scale does not fit (lab notes)
_HALVINGS = 16  # of the search for the exponent, which ends within 1e-4 of it


@dataclass(frozen=True)
class View:
    """One way to look at images before they are predicted, and the way back onto their grid.

    Attributes:
        mirror: left and right exchanged.
        gamma: each image to the power that brings its mean luminance (Rec. 709) to 0.33.
        grey: each image grey and as bright as it is where lamps light the scene: in the mean over its pixels over 1.5
            times as red as blue, and darker than 0.33. Colors by lamplight are none that a network learnt. The name
            `relit` is this and gamma where no lamps are.
        scale: the image's sides times this.
        fit: where the network is less sure of the scaled image than of the image and of this view of it unscaled, by
            mean entropies over 1.1 times as high, that unscaled view takes its place; each image of a batch by itself.
        source: seen by the source network under its own BatchNorm statistics, not by the adapted one.
        own: a function of the user's own, (network, images B×3×H×W) to logits B×C×H×W on the images' grid.
    """

    mirror: bool = False
    gamma: bool = False
    grey: bool = False
    scale: float = 1.0
    fit: bool = False
    source: bool = False
    own: OwnView | None = field(default=None, hash=False)  # an instance that compares may have no hash

    @property
    def passes(self) -> float:
        """What it costs, in forward passes over the images as they are; 1 of a function, which is not known.

        One that is to fit costs a pass more where the scaled prediction is less sure than the plain one.
        """
        return self.scale**2

    def of(self, images: Tensor, antialias: bool = True) -> Tensor:
        """The images B×3×H×W in [0, 1] as they are looked at; reduced ones smoothed before if `antialias`."""
        seen = brightened(images) if self.gamma else images
        seen = torch.where(lamplit(images), luminance(images.clamp(0, 1)), seen) if self.grey else seen
        seen = resized(seen, self.scale, antialias)
        return seen.flip(3) if self.mirror else seen

    def back(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Logits of the view on a grid of `size`, height and width."""
        logits = logits.flip(3) if self.mirror else logits
        return (
            logits if logits.shape[2:] == tuple(size) else functional.interpolate(logits, tuple(size), mode="bilinear")
        )


PLAIN, MIRROR = View(), View(mirror=True)
SOURCE, SOURCE_MIRROR = View(source=True), View(source=True, mirror=True)


def unscaled(view: View) -> View:
    """The same view at the images' own size."""
    return replace(view, scale=1.0, fit=False)


def views_option(*default: str) -> Any:
    """The field `views` of a method: what its prediction is the mean over."""
    text = f"predict the mean over these views of the image: {', '.join(NAMES)}, other scales x0.5{OR_OWN}"
    return option(default or ("plain",), text)


def parse_views(names: Sequence[OwnView | str]) -> tuple[View, ...]:
    """The views of these names, in their order.

    Raises:
        SettingsError: for an unknown name, a view given twice, and without `plain`, which the guard judges.
    """
    views = tuple(_parse(name) for name in names)
    if PLAIN not in views:
        raise SettingsError(
            f"views: expected plain among them, which the guard judges; got {spell(tuple(names)) or 'none'}."
        )
    for number, view in enumerate(views):
        if view in views[:number]:
            raise SettingsError(f"views: {spell(names[number])} is named twice.")
    return views


def passes_of(views: Iterable[View]) -> float:
    """What a prediction over these views costs, in forward passes over the images as they are."""
    return sum(view.passes for view in views)


def most_passes_of(views: Sequence[View]) -> float:
    """The same where no scaled view that is to fit does: each view unscaled that is not among them costs one more."""
    return passes_of(views) + len({unscaled(view) for view in views if view.fit}.difference(views))


def _parse(name: OwnView | str) -> View:
    if not isinstance(name, str):
        return View(own=name)
    if place := find_place(name):
        return View(own=_function(place.label, load_own(place, _OWN)))
    view = View()
    for word in name.split("-"):
        fields = _word(word, name)
        if any(getattr(view, field) != getattr(View(), field) for field in fields):
            raise unknown("view", name, NAMES)
        view = View(**{**vars(view), **fields})
    if view.fit and view.scale == 1:
        raise SettingsError(f"views: {name}: fit asks whether a scale fits: expected one, as in x1.5-fit, got none.")
    return view


def _word(word: str, name: str) -> dict[str, Any]:
    if word in ("mirror", "gamma", "grey", "fit", "source"):
        return {word: True}
    if word == "relit":
        return {"gamma": True, "grey": True}
    if word == "plain" and name == "plain":
        return {}
    match = _SCALE.fullmatch(word)
    if match is None:
        raise unknown("view", name, NAMES)
    scale, (low, high) = float(match[1]), _SCALES
    if not low <= scale <= high or scale == 1:
        raise SettingsError(f"views: {name}: expected a scale of {low:g} to {high:g} other than 1, got {scale:g}.")
    return {"scale": scale}


def _function(label: str, found: Any) -> OwnView:
    if not callable(found):
        raise SettingsError(f"{label}: expected a function (network, images) that gives logits, got {found!r:.80}.")
    return cast(OwnView, found)


@torch.no_grad()
def brightened(images: Tensor) -> Tensor:
    """Each image B×3×H×W to the power that brings its mean luminance to 0.33, found by bisection over 1/8 to 8.

    The exponent is sought on every fourth pixel of every fourth row.
    """
    images = images.clamp(0, 1)
    few = images[:, :, ::4, ::4]
    low, high = images.new_full((len(images), 1, 1, 1), -3.0), images.new_full((len(images), 1, 1, 1), 3.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        bright = luminance(few**2**middle).mean((2, 3), keepdim=True) > _BRIGHTNESS
        low, high = torch.where(bright, middle, low), torch.where(bright, high, middle)
    return images**2 ** ((low + high) / 2)


def lamplit(images: Tensor) -> Tensor:
    """Whether lamps light the scene: B×1×1×1 of images B×3×H×W, by every fourth pixel of every fourth row."""
    few = images[:, :, ::4, ::4].clamp(0, 1)
    red, _, blue = few.mean((2, 3), keepdim=True).split(1, 1)
    return (red > _WARMTH * blue) & (luminance(few).mean((2, 3), keepdim=True) < _BRIGHTNESS)


def luminance(images: Tensor) -> Tensor:
    """Rec. 709, of values as they are stored: B×3×H×W → B×1×H×W."""
    return (images.new_tensor(_LUMA).view(1, 3, 1, 1) * images).sum(1, keepdim=True)


@torch.no_grad()
def where_it_fits(view: View, seen: Mapping[View, Tensor], look: Callable[[View], Tensor]) -> Tensor:
    """Logits B×C×H×W of a scaled view that is to `fit`: of each image that it does not fit, those of it unscaled.

    Args:
        view: one of `seen`.
        seen: logits of views of the same images, PLAIN among them.
        look: gives those of another view; asked only where the scaled one is less sure than PLAIN.
    """
    logits = seen[view]
    mean = _mean_entropy(logits)
    unfit = mean > _UNFIT * _mean_entropy(seen[PLAIN])
    if not unfit.any():
        return logits
    other = look(unscaled(view))
    return torch.where(unfit & (mean > _UNFIT * _mean_entropy(other)), other, logits)


def _mean_entropy(logits: Tensor) -> Tensor:
    """Of each image, over its pixels: B×C×H×W → B×1×1×1."""
    return pixel_entropy(logits).mean((1, 2)).view(-1, 1, 1, 1)


def resized(images: Tensor, scale: float, antialias: bool = True) -> Tensor:
    """Images B×3×H×W enlarged or reduced by `scale`; reduced ones smoothed before if `antialias`."""
    if scale == 1.0:
        return images
    size = [max(1, int(side * scale)) for side in images.shape[2:]]
    return functional.interpolate(images, size, mode="bilinear", antialias=antialias and scale < 1.0)


@contextmanager
def size_told(images: Tensor, scale: float, option: str, advice: str) -> Iterator[None]:
    """Inside, a network may refuse images B×3×h×w that are not of their own size, but `scale` times it.

    Raises:
        SettingsError: where it does, for the option that asked for that size, with what to do.
    """
    try:
        yield
    except FAULTS as error:
        others = NotFiniteError | SettingsError | NetworkError | torch.OutOfMemoryError | MemoryError
        if scale == 1 or isinstance(error, others):
            raise
        height, width = images.shape[2:]
        raise SettingsError(
            f"{option}: the network does not take the image at x{scale:g}, {width}x{height} ({first_line(error)}); "
            f"{advice}."
        ) from error


def view_logits(
    network: Network, images: Tensor, scale: float = 1.0, mirror: bool = False, antialias: bool = True
) -> Tensor:
    """Logits of a view, brought back to the images' grid: B×C×H×W.

    Raises:
        SettingsError: for a scale that the network refuses.
    """
    view = View(mirror=mirror, scale=scale)
    seen = view.of(images, antialias)
    with size_told(seen, scale, "scales", "scales=1.0 leaves the images their size"):
        return view.back(network(seen), images.shape[2:])


def mean_probabilities(network: Network, images: Tensor, scales: Sequence[float], antialias: bool = True) -> Tensor:
    """The mean of the views' softmax, B×C×H×W: every scale, and its mirror image."""
    views = [(scale, flipped) for scale in scales for flipped in (False, True)]
    return mean_softmax(view_logits(network, images, *view, antialias) for view in views)


@torch.no_grad()
def mean_softmax(logits: Iterable[Tensor]) -> Tensor:
    """The mean of the probabilities of logits B×C×H×W, of which one at a time is asked for; at least one."""
    probabilities = (each.float().softmax(1) for each in logits)
    total, count = next(probabilities), 1
    for each in probabilities:
        total, count = total.add_(each), count + 1
    return total.div_(count)


def recoloured(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Images B×3×H×W in [0, 1], each with brightness, contrast and gamma at random within ±`strength`; still there."""
    drawn = torch.rand(3, len(images), 1, 1, 1, generator=generator, dtype=images.dtype, device=generator.device)
    brightness, contrast, gamma = (1 + strength * (2 * drawn - 1)).to(images.device)
    mean = images.mean((1, 2, 3), keepdim=True)
    changed = ((images * brightness - mean) * contrast + mean).clamp(1e-4, 1)
    return changed**gamma
