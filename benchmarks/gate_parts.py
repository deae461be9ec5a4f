"""What the gates of the normalized cut are made of: late features, affinities, what a frame hands on, a moved bias."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather import Affinity, NetworkError, Segmenter, methods
from allweather.methods.losses import diversity, mean_entropy
from allweather.methods.mall import Mall
from allweather.methods.normalization import adopt_statistics, own_statistics
from allweather.methods.vector_scaling import step_down
from allweather.models.copying import independent_copy

DIRECTIONS = 8  # of the features, by principal components
PAIRS = 2000  # of pixels, for the median distance
WIDTHS = (0.15, 0.3, 0.6)  # of an affinity in features, relative to the median distance
RANK = 96  # of an affinity, at most
OFF = 1e4  # a width in color that leaves the color out
RADIUS = 4  # of the window around a pixel, in pixels of a quarter of the input's size
NEAR, COLOR = 3.0, 20.0  # widths of the affinity inside it: in those pixels; between frames on the 0..255 scale
STEPS = 5  # on the bias of a single image
WITHOUT_CUT, CUT_ALONE = "without the cut", "cut alone"
LOSSES = ("MALL", WITHOUT_CUT, CUT_ALONE)


class Looker:
    """A network under mixed statistics, or under its own, with the features that its last classifier sees."""

    def __init__(self, model: Segmenter) -> None:
        self.model = independent_copy(model)
        adopt_statistics(self.model, "mixed", None)
        self._features: Tensor | None = None
        outputs = len(model.classes) + model.extra_logits
        for module in self.model.network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.out_channels == outputs:
                module.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    @torch.no_grad()
    def look(self, image: Tensor, own: bool = False) -> tuple[Tensor, Tensor]:
        """Logits C×H×W of an image 3×H×W, and features F×h×w in front of the last convolution that gives C channels.

        Raises:
            NetworkError: where no such convolution ran.
        """
        self._features = None
        with own_statistics(self.model) if own else nullcontext():
            logits = self.model(image[None])[0]
        if self._features is None:
            raise NetworkError(f"{self.model.name}: no convolution gives one channel per class, so what are features?")
        return logits, self._features[0].float()


@dataclass(frozen=True)
class Basis:
    """Standardised features and their principal directions, taken from one image."""

    mean: Tensor
    scale: Tensor
    directions: Tensor
    unit: bool = False

    @classmethod
    def of(cls, features: Tensor, unit: bool = False) -> "Basis":
        """From features F×h×w; `unit` gives each pixel's features the length 1 before the directions are sought."""
        mean = features.mean((1, 2), keepdim=True)
        scale = features.std((1, 2), keepdim=True).clamp_min(1e-6)
        flat = _standard(features, mean, scale, unit).flatten(1)
        _, vectors = torch.linalg.eigh(flat @ flat.T / flat.shape[1])
        return cls(mean, scale, vectors[:, -DIRECTIONS:].T, unit)

    def __call__(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Features F×h×w in at most 8 directions, on a grid of `size`, in units of their median distance."""
        found = torch.einsum("kf,fhw->khw", self.directions, _standard(features, self.mean, self.scale, self.unit))
        return resized(found / median_distance(found), size)


def _standard(features: Tensor, mean: Tensor, scale: Tensor, unit: bool) -> Tensor:
    standard = (features - mean) / scale
    return functional.normalize(standard, dim=0) if unit else standard


def median_distance(features: Tensor) -> Tensor:
    """Of pairs of pixels drawn at random from K×h×w, above 0."""
    flat = features.flatten(1)
    pairs = torch.randint(flat.shape[1], (2, PAIRS), generator=torch.Generator().manual_seed(0))
    return (flat[:, pairs[0]] - flat[:, pairs[1]]).norm(dim=0).median().clamp_min(1e-6)


def resized(values: Tensor, size: Sequence[int]) -> Tensor:
    """Values K×h×w on a grid of `size`, smoothed where it is coarser."""
    if values.shape[1:] == tuple(size):
        return values
    return functional.interpolate(values[None], tuple(size), mode="bilinear", antialias=True)[0]


def part(size: Sequence[int], share: float) -> list[int]:
    """Height and width times a share."""
    return [max(1, int(side * share)) for side in size]


Apply = Callable[[Tensor], Tensor]  # probabilities C×h×w to D⁻¹ A P


def affinities(looker: Looker, image: Tensor, mixed: Tensor, truth: np.ndarray) -> Iterator[tuple[str, float, Apply]]:
    """Affinities of an image 3×H×W, each with the share of H and W it works at, and what it does to probabilities.

    By color, by features of either statistics and by true regions, wide (half size, 100 pixels of the input) and near
    (a quarter of the size, a window of 9 pixels there).

    Args:
        mixed: the features under mixed statistics.
        truth: H'×W' classes; those are the regions, and the only affinity that sees them is named so.
    """
    size = part(image.shape[1:], 0.5)
    small = resized(image, size)[None]

    def wide(features: Tensor | None = None, width: float = 1.0, color: float = OFF) -> Apply:
        made = Affinity.from_image(
            small, sigma_rgb=color, sigma_xy=100 * 0.5, max_rank=RANK, warn_above=1.0,
            features=None if features is None else features[None], sigma_features=width,
        )  # fmt: skip
        return lambda probabilities: applied(made, probabilities)

    source = looker.look(image, own=True)[1]
    basis = Basis.of(source)
    own = basis(source, size)
    yield "color", 0.5, wide(color=15.0)
    yield "own 0.15", 0.5, wide(own, 0.15)
    yield "own 0.3", 0.5, wide(own, 0.3)
    yield "true regions", 0.5, wide(_regions(truth, size), 0.1)
    size = part(image.shape[1:], 0.25)
    color = resized(image, size) * (255 / 15)
    found = {f"own {width:g}": basis(source, size) / width for width in WIDTHS}
    found["own 0.3, length 1"] = Basis.of(source, unit=True)(source, size) / 0.3
    found["own 0.3 and color"] = torch.cat([color, found["own 0.3"]])
    found["mixed 0.3"] = Basis.of(mixed)(mixed, size) / 0.3
    for name, near in {"color": color, **found}.items():
        yield f"{name}, near", 0.25, lambda probabilities, near=near: carried(near, near, probabilities)[0]


def _regions(truth: np.ndarray, size: Sequence[int]) -> Tensor:
    """One-hot classes of the truth and of what counts for nothing, K×h×w."""
    labels = torch.from_numpy(truth.astype(np.int64) + 1)[None, None].float()
    small = functional.interpolate(labels, tuple(size), mode="nearest")[0, 0].long()
    return functional.one_hot(small).movedim(2, 0).float()


def applied(affinity: Affinity, probabilities: Tensor) -> Tensor:
    """D⁻¹ A P for probabilities C×h×w on the affinity's grid."""
    return affinity.apply(probabilities[None])[0] / affinity.degree.clamp_min(1e-6)


def carried(now: Tensor, before: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """What the frame before hands on to each pixel: the mean of its values over a window, weighted by likeness.

    Args:
        now, before: K×h×w, colors and features in units of their widths, of both frames.
        values: C×h×w of the frame before.

    Returns:
        C×h×w, and the summed weight, h×w: near 0 where nothing is alike.
    """
    side = 2 * RADIUS + 1
    far = functional.pad(before, [RADIUS] * 4, value=float("inf"))
    held = functional.pad(values, [RADIUS] * 4)
    height, width = now.shape[1:]
    total, weights = torch.zeros_like(values), now.new_zeros(height, width)
    for y in range(side):
        for x in range(side):
            rows, columns = slice(y, y + height), slice(x, x + width)
            away = ((y - RADIUS) ** 2 + (x - RADIUS) ** 2) / NEAR**2
            weight = (-((now - far[:, rows, columns]).square().sum(0) + away) / 2).exp()
            total.addcmul_(weight.expand_as(total), held[:, rows, columns])
            weights += weight
    return total / weights.clamp_min(1e-12), weights


class Bias:
    """A number per class that is added to fixed logits, and its descent by MALL's loss or by a part of it."""

    def __init__(self, classes: int, lr: float, loss: str) -> None:
        self.value, self.loss = nn.Parameter(torch.zeros(classes)), loss
        self.optimizer = torch.optim.Adam([self.value], lr=lr)

    def step(self, method: Mall, logits: Tensor, affinity: Affinity) -> Tensor:
        """One step on logits C×h×w at the loss's size; the bias after it, C×1×1."""
        moved = logits[None] + self.shift
        probabilities = moved.softmax(1)
        loss = moved.new_zeros(())
        if self.loss != CUT_ALONE:
            loss = loss + mean_entropy(moved) - method.diversity_weight * diversity(probabilities)
        if self.loss != WITHOUT_CUT:
            loss = loss + method.ncut_weight * affinity.normalized_cut(probabilities)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return self.shift.detach().clone()

    @property
    def shift(self) -> Tensor:
        """The bias, C×1×1."""
        return self.value[:, None, None]


@dataclass(frozen=True)
class Scaling:
    """One way to move gains and biases of a class: what is looked at, how far a step goes, and what is kept of it."""

    rate: float
    memory: float = 0.0
    share: float = 0.125  # of the input's size
    sigma_xy: float = 50.0
    loss: str = CUT_ALONE
    gain: bool = True

    @property
    def sight(self) -> tuple[float, float]:
        """What `look` depends on."""
        return self.share, self.sigma_xy

    def look(self, model: Segmenter, image: Tensor, logits: Tensor) -> tuple[Tensor, Affinity]:
        """Logits 1×C×h×w and the affinity of an image 3×H×W on their grid."""
        settings = {"scale": self.share, "sigma_xy": self.sigma_xy, "rank": SCALING_RANK}
        method = methods.make("mall-sample", settings=settings, model=model)
        assert isinstance(method, Mall)
        small = resized(logits, part(image.shape[1:], self.share))[None]
        return small, method.affinity(image[None], small.softmax(1))

    def step(self, moved: Tensor, logits: Tensor, affinity: Affinity) -> Tensor:
        """Gains and biases 2×C×1×1 after an image."""

        def loss(after: Tensor) -> Tensor:
            if self.loss == CUT_ALONE:
                return affinity.normalized_cut(after.softmax(1))
            return mean_entropy(after) - 0.5 * diversity(after.softmax(1))

        found = step_down(self.memory * moved, logits, loss, self.rate)
        return found if self.gain else torch.stack([torch.zeros_like(found[0]), found[1]])


SCALING_RANK = 48
SCALINGS = {
    "0.1": Scaling(0.1),
    "0.2": Scaling(0.2),
    "0.3": Scaling(0.3),
    "0.4": Scaling(0.4),
    "0.2, bias alone": Scaling(0.2, gain=False),
    "0.2, a quarter of the size": Scaling(0.2, share=0.25),
    "0.1, keeping 0.9": Scaling(0.1, 0.9),
    "0.2, keeping 0.8": Scaling(0.2, 0.8),
    "0.3, keeping 0.8": Scaling(0.3, 0.8),
    "0.2, keeping 0.8, σ 100": Scaling(0.2, 0.8, sigma_xy=100.0),
    "0.2, keeping 0.8, bias alone": Scaling(0.2, 0.8, gain=False),
    "entropy and diversity 0.2": Scaling(0.2, loss=WITHOUT_CUT),
    "entropy and diversity 0.2, keeping 0.8": Scaling(0.2, 0.8, loss=WITHOUT_CUT),
}


def drift_fields(weight: float) -> dict[str, Any]:
    """MALL-domain without what holds it: a high rate along the stream, one view, the cut at this weight."""
    steps = {"lr": 1e-3, "relative": False, "anchor": 0.0, "lookahead": 0.0}
    return steps | {"views": ("plain",), "ncut_weight": weight, "vector_rate": 0.0}
