"""Bootstrap intervals over images: of one mIoU, and of the difference of two methods over one set of classes."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from allweather.errors import InputError, check_known
from allweather.scoring.confusion import ratio
from allweather.values import check_number

Convention = Literal["truth", "official"]


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile interval (Efron, 1979), in the figure's own unit.

    `low` and `high` are NaN where fewer than two frames were scored: one says nothing of how much others differ.
    """

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """What a bootstrap needs of each image, N×C per class.

    Attributes:
        intersection: right pixels.
        union: pixels true or predicted.
        truth: whether the class has a true pixel in the image; None where that was not recorded.
        frames: N numbers, equal where images are one frame that came again, which is no further evidence; None where
            each is another.
    """

    intersection: np.ndarray
    union: np.ndarray
    truth: np.ndarray | None = None
    frames: np.ndarray | None = None

    def __post_init__(self) -> None:
        arrays = [self.intersection, self.union, *([] if self.truth is None else [self.truth])]
        if not all(isinstance(array, np.ndarray) for array in arrays):
            raise InputError(
                f"expected counts as arrays N×C, got {', '.join(type(array).__name__ for array in arrays)}."
            )
        if len({array.shape for array in arrays}) > 1 or self.union.ndim != 2 or not len(self.union):
            shapes = " and ".join(str(array.shape) for array in arrays)
            raise InputError(f"expected counts N×C of at least one image, got {shapes}.")
        if self.truth is not None and self.truth.dtype != bool:
            raise InputError(f"expected truth as booleans, got {self.truth.dtype}.")
        if self.frames is not None and self.frames.shape != self.union.shape[:1]:
            shape = self.frames.shape
            raise InputError(f"expected a frame's number for each of {len(self.union)} images, got {shape}.")
        if not ((self.intersection >= 0) & (self.intersection <= self.union)).all():
            raise InputError("expected as many right pixels as true or predicted ones at most, and none below 0.")

    def classes(self, weights: np.ndarray) -> np.ndarray:
        """The classes in the truth of R resamples, R×C booleans; weights R×N say how often each image counts.

        Where the truth was not recorded: the classes true or predicted.
        """
        return (weights @ self.held.astype(np.int64)) > 0

    @property
    def held(self) -> np.ndarray:
        """The classes in the truth of each image, N×C; those true or predicted where the truth was not recorded."""
        return self.union > 0 if self.truth is None else self.truth

    def mean_iou(self, weights: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
        """mIoU in [0, 1] of R resamples; weights R×N say how often each image counts.

        Args:
            classes: R×C booleans, what each mean is over; the official choice, true or predicted, where None.
        """
        iou = ratio(weights @ self.intersection, weights @ self.union)
        counted = ~np.isnan(iou) if classes is None else classes & ~np.isnan(iou)
        return ratio(np.where(counted, iou, 0).sum(1), counted.sum(1))


def image_differences(first: ImageCounts, second: ImageCounts) -> np.ndarray:
    """N: each image's mIoU by `second` minus that by `first`, in [0, 1], over the classes in its truth; NaN without."""
    both = first.held & second.held
    change = ratio(second.intersection, second.union) - ratio(first.intersection, first.union)
    return ratio(np.where(both, change, 0).sum(1), both.sum(1))


def counts_of(record: Mapping[str, Any], names: Sequence[str]) -> ImageCounts:
    """The counts of a record's images, in the order of `names`.

    Records that do not say what each image's truth holds are read without the classes that their whole truth has not.
    Frames of a sequence that came several times are known by their parts.
    """
    frames = frames_of(names, _firsts(record))
    by_name = {image["name"]: image for image in record["images"]}
    images = [by_name[name] for name in names]
    intersection, union = (np.array([image[key] for image in images]) for key in ("intersection", "union"))
    if any("only_predicted" not in image for image in images):
        return ImageCounts(intersection, union * _in_truth(record, union.shape[1]), frames=frames)
    truth = union > 0
    for row, image in zip(truth, images, strict=True):
        row[image["only_predicted"]] = False
    return ImageCounts(intersection, union, truth, frames)


def frames_of(names: Sequence[str], firsts: Mapping[str, str]) -> np.ndarray:
    """N numbers, equal for images of a sequence that are one frame: PART/NAME in parts that have the same frames.

    Args:
        names: of the images.
        firsts: each part of the sequence with the first one that has its frames; none where the images are no sequence.
    """
    known: dict[str, int] = {}
    return np.array([known.setdefault(_when_first(name, firsts), len(known)) for name in names])


def _when_first(name: str, firsts: Mapping[str, str]) -> str:
    beginnings = [name[: end.start()] for end in re.finditer("/", name)]
    part = next((each for each in reversed(beginnings) if each in firsts), None)
    return name if part is None else f"{firsts[part]}{name[len(part) :]}"


def _firsts(record: Mapping[str, Any]) -> dict[str, str]:
    """The parts as `frames_of` takes them.

    Older records do not say which have the same frames: those that are PIECE in another round, and PIECE-2, PIECE-3, …
    in any where the sequence names a piece twice.
    """
    parts, played = record.get("parts", {}), record.get("run", {}).get("stream", {}).get("sequence")
    numbered = parts if played is None or len(set(played)) < len(played) else ()
    return {part: figures.get("first") or _guessed(part, numbered) for part, figures in parts.items()}


def _guessed(part: str, numbered: Collection[str]) -> str:
    again = re.fullmatch(r"(.+)-\d+", part)
    return (again[1] if again and again[1] in numbered else part).partition("/")[2]


def bootstrap(
    counts: ImageCounts,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    *,
    convention: Convention = "truth",
) -> Interval:
    """mIoU in [0, 1] over all images together, with its interval over images.

    Args:
        level: the share of resamples within the interval, between 0 and 1.
        convention: `truth`, over the classes in the truth of each resample; or `official`, over those true or
            predicted in it.

    Raises:
        SettingsError: for a level, a number of resamples, a seed or a convention that makes no sense.
    """
    _check(convention, level, resamples, seed)

    def mean(weights: np.ndarray) -> np.ndarray:
        return counts.mean_iou(weights, counts.classes(weights) if convention == "truth" else None)

    return _estimated(mean, counts, level, resamples, seed)


def paired_difference(
    first: ImageCounts,
    second: ImageCounts,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    *,
    convention: Convention = "truth",
) -> Interval:
    """mIoU of `second` minus that of `first`; every resample takes the same images of both.

    Args:
        convention: `truth`, both means over one set of classes, those in the truth of the resample; or `official`,
            each mean over the classes true or predicted by its own method.

    Raises:
        AllWeatherError: when they do not hold the same number of images and classes, and as `bootstrap`.
    """
    _check(convention, level, resamples, seed)
    if first.union.shape != second.union.shape:
        raise InputError(
            f"a paired difference needs the same images and classes, got {first.union.shape} and {second.union.shape}."
        )

    def difference(weights: np.ndarray) -> np.ndarray:
        both = first.classes(weights) & second.classes(weights) if convention == "truth" else None
        return second.mean_iou(weights, both) - first.mean_iou(weights, both)

    return _estimated(difference, first, level, resamples, seed)


def _in_truth(record: Mapping[str, Any], classes: int) -> np.ndarray:
    """Whether each class is in the truth of the whole record; all of them where it holds no confusion matrix."""
    return np.array(record["confusion"]).sum(1) > 0 if "confusion" in record else np.ones(classes, bool)


def _check(convention: str, level: float, resamples: int, seed: int) -> None:
    check_known("convention", convention, get_args(Convention))
    check_number("level", level, above=0, below=1)
    check_number("resamples", resamples, whole=True, low=1)
    check_number("seed", seed, whole=True, low=0)


def _resample(counts: ImageCounts, resamples: int, seed: int) -> np.ndarray | None:
    """How often each image counts, R×N: all images of a frame as often as the frame was drawn; None of one frame."""
    _, frames = np.unique(np.arange(len(counts.union)) if counts.frames is None else counts.frames, return_inverse=True)
    number = int(frames.max()) + 1
    if number < 2:
        return None
    return np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), resamples)[:, frames]


def _estimated(
    figure: Callable[[np.ndarray], np.ndarray], counts: ImageCounts, level: float, resamples: int, seed: int
) -> Interval:
    """A figure, R of weights R×N, over all images, with its interval over resamples of them."""
    value, drawn = float(figure(np.ones((1, len(counts.union))))[0]), _resample(counts, resamples, seed)
    if drawn is None:
        return Interval(value, np.nan, np.nan, level)
    low, high = np.nanquantile(figure(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)
