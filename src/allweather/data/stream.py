"""Frames in an order: what adaptation sees of a dataset, which is images and never a label."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from PIL import Image
from torch import Tensor

from allweather.errors import ImageError, InputError
from allweather.rgb import to_unit

if TYPE_CHECKING:
    from allweather.data.video import Video


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a stream.

    Attributes:
        name: unique within the stream; outputs are named after it.
        image: 3×H×W float32, RGB in [0, 1], at the size asked for.
        size: (width, height) of the image as it is stored.
        path: the file, where there is one.
        picture: H×W×3 uint8, the image as it is stored, where that is another size; None where it is `image`, or not
            kept.
    """

    name: str
    image: Tensor
    size: tuple[int, int]
    path: Path | None = None
    picture: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, name: str, picture: Image.Image | np.ndarray, size: tuple[int, int] | None, path: Path | None = None
    ) -> Self:
        """The frame of a picture.

        Args:
            name, path: as of the frame.
            picture: RGB of 8 bits, or H×W×3 uint8.
            size: (width, height) that it is resampled to; None keeps its own.

        Raises:
            InputError: for a picture of another kind, such as grey or 16 bits.
        """
        if isinstance(picture, np.ndarray):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
                raise InputError(
                    f"frame {name!r}: expected H×W×3 uint8, RGB, got {picture.dtype} of shape {picture.shape}. "
                    "Make it so: of grey three equal channels, of 16 bits the upper eight."
                )
            stored = Image.fromarray(picture)
        elif (stored := picture).mode != "RGB":
            raise InputError(f"frame {name!r}: expected a picture of mode RGB, got {picture.mode}: convert('RGB').")
        image = to_unit(stored, size)
        resampled = tuple(image.shape[:0:-1]) != stored.size
        return cls(name, image, stored.size, path, np.asarray(picture) if resampled else None)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels at both sizes."""
        return self.image.nbytes + (0 if self.picture is None else self.picture.nbytes)


class Stream:
    """Frames in a defined order, read one at a time; an unreadable one raises where it stands.

    Args:
        names: of the frames, in order.
        read: gives the frame of a name.
        order: indices into `names` in the order of play; as given where None.

    Attributes:
        video: the file that all frames are of; None where there is none.
        damage: what is missing at its end; None where nothing is.
        seconds: when each frame is shown, counted from the first, by name; None where all are at the video's rate.
    """

    video: "Video | None" = None
    damage: str | None = None
    seconds: Mapping[str, float] | None = None

    def __init__(self, names: Sequence[str], read: Callable[[str], Frame], order: Sequence[int] | None = None) -> None:
        self._read = read
        self.names = tuple(names if order is None else (names[index] for index in order))
        self._known = frozenset(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Frame]:
        return map(self.read, self.names)  # goes on after a frame that raised

    def read(self, name: str) -> Frame:
        """The frame of that name.

        Raises:
            ImageError: when it cannot be read, or no frame of this stream has the name.
        """
        if name not in self._known:
            raise no_frame(name, self.names)
        return self._read(name)

    def reordered(self, order: Sequence[int]) -> "Stream":
        """The same frames, the i-th being today's `order[i]`-th."""
        return Stream(self.names, self._read, order)

    @property
    def order_hash(self) -> str:
        """sha256 of the names in order: two runs with the same hash saw frames of the same names in the same order.

        A name that is not UTF-8 counts with the bytes it has on the disk.
        """
        return hashlib.sha256("\n".join(self.names).encode(errors="surrogateescape")).hexdigest()


def no_frame(name: object, names: Collection[str], what: str = "frame of this stream") -> ImageError:
    """The error for a `name` that is not among the `names` of a stream."""
    shown = [repr(each) for each, _ in zip(names, range(3), strict=False)]
    known = f"{', '.join(shown)}{', …' if len(names) > len(shown) else ''}" if shown else "none"
    return ImageError(f"no {what} is named {name!r:.200}. Its {len(names)} names: {known}.")
