"""Any picture (file, PIL image, array, tensor, or a list of them) as RGB floats in [0, 1], or one clear refusal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from allweather.errors import InputError
from allweather.finite import extremes
from allweather.rgb import check_unit_range, read_rgb, rgb_of, to_unit
from allweather.sizes import check_asked

Picture: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
EXPECTED = "a path, a PIL image, an H×W×3 uint8 array, or RGB floats in [0, 1] of 3×H×W or B×3×H×W"


def as_images(value: Picture | Sequence[Picture]) -> tuple[Tensor, bool]:
    """One picture or many, as a batch.

    Args:
        value: a path; a PIL image (grey becomes three equal channels, transparency is dropped); a uint8 array or
            tensor, H×W×3 or 3×H×W; a float array or tensor in [0, 1] of the same shapes; a batch of those, with one
            more dimension in front; or a list of single pictures of one size. Channels are RGB: BGR cannot be
            recognised. A shape that can be read in two ways, such as 3×H×3, has channels first in a tensor, which is
            PyTorch's order; such an array is refused.

    Returns:
        B×3×H×W float32, RGB in [0, 1], on the tensor's device; and whether a single picture came. Numbers that are not
        finite pass.

    Raises:
        ImageError: for a file that cannot be read.
        InputError: for another type, number of channels or range, an array's shape that can be read in two ways, no
            pixel, or pictures of several sizes.
    """
    if isinstance(value, list | tuple):
        return _many(value), False
    pixels = _channels_first(_tensor(value), array=isinstance(value, np.ndarray))
    if not pixels.numel():
        raise InputError(f"expected at least one image of at least one pixel, got shape {tuple(pixels.shape)}.")
    single = pixels.ndim == 3
    return _in_unit_range(pixels[None] if single else pixels), single


def read_image(picture: Picture, size: tuple[int, int] | None = None) -> Tensor:
    """One picture as 3×H×W float32, RGB in [0, 1]: what a session and a network take.

    Args:
        picture: a path, a PIL image, or an array or tensor as `as_images` takes them.
        size: (width, height) to resample to (bilinear, antialiased when it shrinks); None keeps the picture's own.

    Raises:
        ImageError: for a file that cannot be read.
        InputError: for anything that is not one RGB picture.
        SettingsError: for a size that is none.
    """
    size = check_asked(size)
    if isinstance(picture, str | Path):
        return read_rgb(Path(picture), size)[0]
    if isinstance(picture, Image.Image):
        return to_unit(rgb_of(picture), size)
    images, single = as_images(picture)
    if not single:
        raise InputError(
            f"expected one picture, got a batch of {len(images)}. A session takes it, session(batch); of a "
            "DataLoader, batch_size=None gives single ones."
        )
    return images[0] if size is None else resample(images[0], size)


def resample(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture 3×H×W at (width, height), bilinear, antialiased when it shrinks; itself where it has that size."""
    if (image.shape[2], image.shape[1]) == size:
        return image
    return functional.interpolate(image[None], (size[1], size[0]), mode="bilinear", antialias=True)[0]


def pixels_of(image: Tensor) -> np.ndarray:
    """A picture 3×H×W of floats in [0, 1] as bytes H×W×3, rounded; what lies outside becomes the nearest byte."""
    return (image.detach() * 255).round_().clamp_(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def _many(values: Sequence[Picture]) -> Tensor:
    if not values:
        raise InputError("expected at least one image of at least one pixel, got an empty list.")
    read = [as_images(value) for value in values]
    if not all(single for _, single in read):
        raise InputError("expected a list of single pictures, got a batch inside it. Pass the batch itself.")
    sizes = {f"{image.shape[3]}×{image.shape[2]}" for image, _ in read}
    if len(sizes) > 1:
        raise InputError(f"expected pictures of one size in one batch, got {', '.join(sorted(sizes))}.")
    return torch.cat([image for image, _ in read])


def _tensor(value: Any) -> Tensor:
    """Pixels as a tensor in whatever layout they came."""
    if isinstance(value, str | Path):
        return read_rgb(Path(value))[0]
    if isinstance(value, Image.Image):
        return torch.from_numpy(np.array(rgb_of(value))).movedim(-1, 0)
    if isinstance(value, np.ndarray):
        return _from_array(value)
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta:
            kind = "a tensor on meta, which has no values" if value.is_meta else f"one of layout {value.layout}"
            raise InputError(f"expected {EXPECTED}; got {kind}.")
        return value
    inner = f" Pass its `.image`: {type(value).__name__} is no picture itself." if hasattr(value, "image") else ""
    raise InputError(f"expected {EXPECTED}, or a list of pictures; got {type(value).__name__}.{inner}")


def _from_array(array: np.ndarray) -> Tensor:
    if np.ma.is_masked(array):
        raise InputError(f"expected {EXPECTED}; got an array with masked values. Fill them first: array.filled(0).")
    if array.dtype.kind not in "uifb" or array.dtype.itemsize > 8:
        raise InputError(f"expected {EXPECTED}; got an array of {array.dtype}.")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.array(native) if _borrowed(native) else native)


def _borrowed(array: np.ndarray) -> bool:
    """Whether torch could not or should not share the memory: read-only, or strides that run backwards."""
    return not array.flags.writeable or any(stride < 0 for stride in array.strides)


def _channels_first(pixels: Tensor, *, array: bool) -> Tensor:
    """3×H×W or B×3×H×W of what came with channels first or last, as an array or not."""
    shape = tuple(pixels.shape)
    if pixels.ndim not in (3, 4):
        grey = " A grey picture needs three equal channels: np.stack([grey] * 3, -1)." if pixels.ndim == 2 else ""
        raise InputError(f"expected {EXPECTED}; got shape {shape}.{grey}")
    first, last = shape[-3] == 3, shape[-1] == 3
    if first and last and array:
        raise InputError(
            f"shape {shape} can be read with channels first or last. Pass a tensor with channels first, or a PIL image."
        )
    if not first and not last:
        raise InputError(f"expected three channels (RGB): {EXPECTED}; got shape {shape}.{_channel_hint(shape)}")
    return pixels if first else pixels.movedim(-1, -3)


def _channel_hint(shape: tuple[int, ...]) -> str:
    if 4 in (shape[-1], shape[-3]):
        taken = "picture[..., :3]" if shape[-1] == 4 else "picture[..., :3, :, :]"
        return f" Four channels are RGB with transparency: keep three of them, {taken}."
    if 1 in (shape[-1], shape[-3]):
        return " One channel is a grey picture: repeat it three times."
    return ""


def _in_unit_range(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 255
    if not images.is_floating_point():
        deep = " Divide 16-bit values by 65535." if "16" in str(images.dtype) else ""
        raise InputError(
            f"expected uint8, or floats in [0, 1]; got {images.dtype}, whose range cannot be known.{deep} Convert "
            "bytes with .astype(np.uint8) or .to(torch.uint8)."
        )
    check_unit_range(*extremes(images), bytes_too=True)
    return images.to(torch.float32)
