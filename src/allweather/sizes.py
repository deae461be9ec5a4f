"""The size that pictures are asked for at, (width, height) in pixels: checked where it enters, before any work."""

from numbers import Integral
from typing import Any

from allweather.errors import SettingsError

LARGEST = 65500  # the longest side of a JPEG that libjpeg writes


def check_size(size: Any) -> tuple[int, int]:
    """The size as two plain integers.

    Raises:
        SettingsError: for anything but two whole numbers of 1 to 65500.
    """
    sides = tuple(size) if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or not all(_is_side(side) for side in sides):
        raise SettingsError(
            f"size: expected (width, height) in pixels, two whole numbers of 1 to {LARGEST} such as (480, 352); got "
            f"{size!r:.60}."
        )
    return int(sides[0]), int(sides[1])


def check_asked(size: Any) -> tuple[int, int] | None:
    """The same of a size that may be left out; None where it is.

    Raises:
        SettingsError: as `check_size`.
    """
    return None if size is None else check_size(size)


def _is_side(side: Any) -> bool:
    return isinstance(side, Integral) and not isinstance(side, bool) and 1 <= int(side) <= LARGEST
