"""The Segmenter contract: a network that takes RGB in [0, 1] and gives logits at the input's size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather.classes import CITYSCAPES, ClassSet
from allweather.errors import InputError, NetworkError, SettingsError
from allweather.models.inputs import check_images, check_network, check_pixels, unwrapped
from allweather.models.mode import set_mode
from allweather.models.outputs import Output, check_filled, check_scale, find_logits, log_of, masks_classes, unmasked
from allweather.models.scaling import resampled, scaled
from allweather.plugins import told_as
from allweather.values import check_flag, check_number, check_numbers

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ADAPTERS = "allweather.models.ecosystems."  # what gives a library's network the form of a Segmenter's
_LARGEST = 1.5  # of a mean or standard deviation of values in [0, 1]


@dataclass(frozen=True)
class Preprocessing:
    """What a checkpoint expects of its input, and how its output returns to the input's size.

    A pixel value v in [0, 1] reaches the network as (v · value_range − mean) / std, channels in RGB order unless `bgr`.

    Attributes:
        mean, std: per channel, in the order that the network sees, on the scale of `value_range`.
        value_range: 1 for networks trained on [0, 1], 255 for those trained on bytes.
        bgr: whether the network sees blue first.
        size_multiple: height and width are padded to a multiple of this, by repeating edge pixels.
        input_scale: factor by which the image is resampled before the network.
        align_corners: of the upsampling of logits, as the checkpoint's authors do it.
        probabilities: whether the authors upsample the softmax; logits are then its logarithm.
        logit_weights: factors of the logits before the upsampling, one per class.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    value_range: float = 1.0
    bgr: bool = False
    size_multiple: int = 1
    input_scale: float = 1.0
    align_corners: bool = False
    probabilities: bool = False
    logit_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("bgr", "align_corners", "probabilities"):
            check_flag(name, getattr(self, name))
        for name in ("value_range", "input_scale"):
            check_number(name, getattr(self, name), above=0)
        check_number("size_multiple", self.size_multiple, whole=True, low=1)
        check_numbers("mean", self.mean, 3)
        check_numbers("std", self.std, 3, above=0)
        check_numbers("logit_weights", self.logit_weights)
        if self.value_range <= 1 and max(map(abs, (*self.mean, *self.std))) > _LARGEST:
            raise SettingsError(
                f"expected mean and std on the [0, 1] scale, got mean={self.mean}, std={self.std}: divide both by "
                "255. A network of values 0..255, or BGR, is Segmenter.wrap(…, value_range=255, bgr=True), out of a "
                "factory on the command line (--model FILE.py:NAME)."
            )

    def apply(self, images: Tensor) -> Tensor:
        """RGB images B×3×H×W in [0, 1] to what the network expects, padded to `size_multiple`."""
        images = resampled(images, self.input_scale)
        if self.bgr:
            images = images.flip(1)
        mean = images.new_tensor(self.mean).view(1, 3, 1, 1)
        std = images.new_tensor(self.std).view(1, 3, 1, 1)
        images = (images * self.value_range - mean) / std
        bottom, right = (-size % self.size_multiple for size in images.shape[-2:])
        return functional.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images

    def restore(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Network logits B×C×h×w of a padded input back to B×C×`size`, padding cut off."""
        if self.logit_weights:
            logits = logits * logits.new_tensor(self.logit_weights).view(1, -1, 1, 1)
        if not self.probabilities:
            return self._enlarged(logits, size)
        return log_of(self._enlarged(logits.softmax(1), size))

    def _enlarged(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        seen = [scaled(side, self.input_scale) for side in size]
        padded = [side + -side % self.size_multiple for side in seen]
        if list(logits.shape[-2:]) != padded:
            logits = self._resample(logits, padded)
        if padded != seen:
            logits = logits[..., : seen[0], : seen[1]]
        return logits if seen == list(size) else self._resample(logits, list(size))

    def _resample(self, logits: Tensor, size: list[int]) -> Tensor:
        return functional.interpolate(logits, size, mode="bilinear", align_corners=self.align_corners)


@dataclass(frozen=True)
class Window:
    """Square windows that slide over images larger than one; logits are averaged where they overlap.

    Attributes:
        size, stride: in pixels of the image; a larger stride would leave pixels that no window sees.
    """

    size: int
    stride: int

    def __post_init__(self) -> None:
        check_number("Window.size", self.size, whole=True, low=1)
        check_number("Window.stride", self.stride, whole=True, low=1, high=self.size)

    def starts(self, length: int) -> list[int]:
        """Where windows begin along a side of `length` pixels; the last one ends with the side."""
        last = max(0, length - self.size)
        return [min(start, last) for start in range(0, last + self.stride, self.stride)] if last else [0]


@dataclass(frozen=True)
class Provenance:
    """Where a network's weights came from.

    Attributes:
        file: the checkpoint's file name, or the network's name.
        sha256: of the file, or of the tensors.
        nesting: keys that led to the state dict, joined by '/'; empty for a raw one.
        prefix: the words that wrappers put into the keys, in front or within; the most that any key lost.
        dropped: keys left out by rule (training's parts, moving averages, other copies, all outside the place of the
            network's), and the places of whole copies in mappings of their own.
    """

    file: str
    sha256: str
    nesting: str = ""
    prefix: str = ""
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdaptationFacts:
    """What is known about adapting one network.

    Attributes:
        bn_share: the recommended share of the test image's statistics in BatchNorm prior mixing, in [0, 1].
        recommended: fields of a method, by method name, that replace the method's defaults for this network.
        frozen_affine: its authors train with BatchNorm's weights and biases fixed; adaptation moves them all the same.
    """

    bn_share: float = 0.05
    frozen_affine: bool = False
    recommended: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number("AdaptationFacts.bn_share", self.bn_share, low=0, high=1)
        check_flag("AdaptationFacts.frozen_affine", self.frozen_affine)


class Segmenter(nn.Module):
    """A segmentation network with its preprocessing and class names.

    Calling it maps RGB images B×3×H×W in [0, 1] to logits B×C×H×W, with C = `len(classes)`, in the images' dtype
    (under autocast, in the network's). See `Segmenter.wrap` for a network of your own.

    Args:
        network: a module that returns logits B×C'×h×w, or a tuple, list, mapping or object that holds them.
        classes: the class set, in the order of the logits.
        preprocessing: what the network expects of its input.
        extra_logits: number of trailing logits that are no class (void); they are dropped.
        name: name in messages and records.
        facts: what is known about adapting this network.
        provenance: the checkpoint that the weights came from, if any.
        window: how larger images are cut into windows; None never cuts.
        enhancer: a network whose output is added to the preprocessed input; it does not adapt.
        output: which entry of the network's output holds the logits: an index, a key, an attribute, or a function. None
            takes `out` or `logits`, else the only entry of the right shape.
        probabilities: True where the network returns probabilities (a softmax); their logarithm is taken. An
            undeclared softmax is refused at the first call, and there is a warning of what could be a sigmoid's.

    Raises:
        NetworkError: for classes that are no `ClassSet` or fewer than two, and a network that is none, or a Segmenter
            already; SettingsError for logit weights that are not one per class.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: ClassSet = CITYSCAPES,
        preprocessing: Preprocessing | None = None,
        extra_logits: int = 0,
        name: str = "network",
        facts: AdaptationFacts | None = None,
        provenance: Provenance | None = None,
        window: Window | None = None,
        enhancer: nn.Module | None = None,
        output: Output | None = None,
        probabilities: bool = False,
    ) -> None:
        super().__init__()
        check_network(network, Segmenter)
        check_number("extra_logits", extra_logits, whole=True, low=0)
        check_flag("probabilities", probabilities)
        if not isinstance(classes, ClassSet):
            raise NetworkError(
                f"{name}: expected classes as a ClassSet, such as allweather.CITYSCAPES, got {classes!r:.80}."
            )
        if len(classes) < 2:
            raise NetworkError(
                f"{name}: expected logits of two classes at least, got '{classes.name}' of {len(classes)}: with one, "
                "every pixel is of it. A network of foreground alone can give two logits, 0 and its own."
            )
        self.network = network
        self.window = window
        self.enhancer = enhancer
        self.classes = classes
        self.preprocessing = preprocessing or Preprocessing()
        if weights := self.preprocessing.logit_weights:
            check_numbers("logit_weights", weights, len(classes))
        self.extra_logits = extra_logits
        self.name = name
        self.facts = facts or AdaptationFacts()
        self.provenance = provenance
        self.output = output
        self.probabilities = probabilities
        self._checked = self._masks = False  # whether a first output was looked at; whether it had -inf, or nearly

    @classmethod
    def wrap(
        cls,
        network: nn.Module,
        *,
        classes: ClassSet = CITYSCAPES,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        value_range: float = 1.0,
        bgr: bool = False,
        size_multiple: int = 1,
        align_corners: bool = False,
        extra_logits: int = 0,
        name: str | None = None,
        output: Output | None = None,
        probabilities: bool = False,
    ) -> "Segmenter":
        """A network of your own as a Segmenter.

        Args:
            network: any `nn.Module` that returns logits B×C×h×w, at any size.
            classes: the class set, in the order of the logits; a `ClassSet`.
            mean, std: three numbers, in the channel order that the network sees, on the scale of `value_range`;
                ImageNet's where both are None, in that order too.
            value_range: 1 for a network trained on values in [0, 1], 255 for one trained on bytes.
            bgr: whether the network sees blue first.
            size_multiple: height and width are padded to a multiple of this, by repeating edge pixels.
            align_corners: of the upsampling of logits to the image's size.
            extra_logits: number of trailing logits that are no class.
            name: name in messages and records; the name of the class where None.
            output: which entry of the network's output holds the logits; see `Segmenter`.
            probabilities: True where the network returns a softmax; it is upsampled before its logarithm is taken.

        Raises:
            AllWeatherError: for what is no module, a Segmenter in any form, and a mean or std that is not on the scale
                of `value_range`.

        Example:
            >>> import allweather as aw, torch
            >>> network = torch.nn.Conv2d(3, 19, 1)
            >>> model = aw.Segmenter.wrap(network, classes=aw.CITYSCAPES, mean=(0.5,) * 3, std=(0.25,) * 3)
            >>> model(torch.rand(1, 3, 8, 16)).shape
            torch.Size([1, 19, 8, 16])
        """
        check_number("value_range", value_range, above=0)
        preprocessing = Preprocessing(
            mean=_scaled("mean", mean, IMAGENET_MEAN, value_range, bgr),
            std=_scaled("std", std, IMAGENET_STD, value_range, bgr),
            value_range=value_range,
            bgr=bgr,
            size_multiple=size_multiple,
            align_corners=align_corners,
            probabilities=probabilities,
        )
        if (mean is None) != (std is None):
            alone, missing = ("mean", "std") if std is None else ("std", "mean")
            raise SettingsError(f"got {alone} without {missing}: expected both, or neither for ImageNet's.")
        small = mean is not None and 0 < max(preprocessing.mean) <= 1
        if value_range > _LARGEST and small and max(preprocessing.std) <= 1:
            raise SettingsError(
                f"expected mean and std on the scale 0..{value_range:g}, got mean={preprocessing.mean}, "
                f"std={preprocessing.std}: multiply by {value_range:g}, or leave value_range out."
            )
        return cls(
            network,
            classes=classes,
            preprocessing=preprocessing,
            extra_logits=extra_logits,
            name=name or str(getattr(network, "original_name", type(network).__name__)),
            output=output,
            probabilities=probabilities,
        )

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; a network that torch.export wrote keeps its own."""
        self.training = mode
        for part in self.children():
            set_mode(part, mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """RGB images B×3×H×W in [0, 1], floats, to logits B×C×H×W.

        Values are looked at in the first call alone, so that no later one waits for the device; a Session looks at all.

        Raises:
            AllWeatherError: for another shape or type, first images of another range, or an output without the expected
                class count.
        """
        check_images(images, self.name)
        if not torch.compiler.is_compiling():
            if not images.numel():
                raise InputError(f"{self.name}: expected images with pixels, got none in {tuple(images.shape)}.")
            if not self._checked:
                check_pixels(images, self.name)
        if self.window and max(images.shape[-2:]) > self.window.size:
            return self._slide(images, self.window)
        return self._whole(images)

    def _slide(self, images: Tensor, window: Window) -> Tensor:
        """The mean of the logits of all windows that see a pixel."""
        total: Tensor | None = None
        seen = images.new_zeros(1, 1, *images.shape[-2:])
        for top in window.starts(images.shape[-2]):
            for left in window.starts(images.shape[-1]):
                rows, columns = slice(top, top + window.size), slice(left, left + window.size)
                part = self._whole(images[..., rows, columns])
                margins = (left, images.shape[-1] - left - part.shape[-1], top, images.shape[-2] - top - part.shape[-2])
                padded = functional.pad(part, margins)
                total = padded if total is None else total + padded
                seen[..., rows, columns] += 1
        return cast(Tensor, total) / seen

    def _whole(self, images: Tensor) -> Tensor:
        precision = images.dtype if torch.compiler.is_compiling() else _precision(self.network, images.dtype)
        seen = self.preprocessing.apply(images).to(precision)
        if self.enhancer is not None:
            seen = seen + self.enhancer(seen)
        if torch.compiler.is_compiling():
            returned = self.network(seen)
        else:
            with told_as(f"the network {self.name}"):
                returned = self.network(seen)
        return self.preprocessing.restore(self._logits(returned, images), (images.shape[-2], images.shape[-1]))

    def _logits(self, returned: Any, images: Tensor) -> Tensor:
        """The logits of the classes within whatever the network returned, in the images' dtype outside autocast."""
        logits = find_logits(returned, self.output, len(self.classes) + self.extra_logits, self.name)
        if not torch.compiler.is_compiling():
            check_filled(logits, self.name)
            if not self._checked:
                check_scale(logits.detach(), self.probabilities, self.name)
                self._checked, self._masks = True, masks_classes(logits)
        if logits.dtype != images.dtype and not torch.is_autocast_enabled(images.device.type):
            logits = logits.to(images.dtype)
        logits = logits[:, : len(self.classes)] if self.extra_logits else logits
        return log_of(logits) if self.probabilities else unmasked(logits) if self._masks else logits


def own_network(model: Segmenter) -> nn.Module:
    """The user's own network within a segmenter: without the form that an adapter or a wrapper gave it."""
    network = unwrapped(model.network)
    while type(network).__module__.startswith(_ADAPTERS):
        network = unwrapped(cast(nn.Module, network.network))
    return network


def own_place(model: Segmenter) -> tuple[nn.Module, str]:
    """The user's own network, and the prefix of its keys in the segmenter's state dict."""
    network, prefix = model.network, "network."
    while type(network).__module__.startswith(_ADAPTERS):
        network, prefix = cast(nn.Module, network.network), prefix + "network."
    return network, prefix


def _precision(network: nn.Module, otherwise: torch.dtype) -> torch.dtype:
    """In which the network computes: that of its parameters."""
    return next((tensor.dtype for tensor in network.parameters() if tensor.is_floating_point()), otherwise)


def _scaled(
    what: str, given: Sequence[float] | None, imagenet: tuple[float, float, float], value_range: float, bgr: bool
) -> tuple[float, float, float]:
    """The numbers given, or ImageNet's on the scale and in the order that the network sees."""
    if given is None:
        return cast(tuple[float, float, float], tuple(v * value_range for v in (imagenet[::-1] if bgr else imagenet)))
    try:
        return cast(tuple[float, float, float], tuple(float(value) for value in given))
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{what}: expected three numbers, one per channel, got {given!r}.") from error
