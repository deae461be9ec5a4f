"""Pictures unlike those that networks know: pixels that are not square, as of DVD and some cameras, and HDR."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import VideoFrame as Decoded

ALIKE = 0.02  # by which two shapes may differ and count as one
HDR = {16: "PQ", 18: "HLG"}  # transfer functions, by FFmpeg's numbers


def shown_size(frame: Decoded, aspect: Fraction | None) -> tuple[int, int]:
    """(width, height) of a frame, upright, where each pixel's width is `aspect` times its height; no side is shrunk."""
    width, height = frame.width, frame.height
    if aspect and aspect > 1:
        width = round(width * aspect)
    elif aspect:
        height = round(height / aspect)
    return (height, width) if frame.rotation % 180 else (width, height)


def squeezed(label: str, stored: tuple[int, int], shown: tuple[int, int], asked: tuple[int, int] | None) -> str | None:
    """What to say of frames that are resampled to a size of another shape than they are to be shown in; else None.

    Args:
        label: what the video is called.
        stored: (width, height) of its frames.
        shown: as `shown_size` gives it.
        asked: (width, height) that frames are resampled to; None keeps their own.
    """
    given = asked or stored
    same = abs(given[0] * shown[1] / (given[1] * shown[0]) - 1) <= ALIKE
    square = abs(stored[0] * shown[1] / (stored[1] * shown[0]) - 1) <= ALIKE
    if same or square:
        return None
    width, height = shown
    return (
        f"{label}: its pixels are not square: frames of {stored[0]}×{stored[1]} are to be shown as {width}×{height}. "
        f"The network sees them squeezed: give it that shape, --size {width}x{height} or size=({width}, {height}). "
        "What is drawn keeps the stored shape."
    )


def bright(label: str, frame: Decoded) -> str | None:
    """What to say of an HDR video, from a frame of it, which is read as if it were not; else None."""
    name = HDR.get(frame.color_trc)
    return name and (
        f"{label}: it is HDR (transfer function {name}) but read as ordinary video, in wrong colors. Convert it first: "
        "ffmpeg -i IN -vf zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,"
        "zscale=t=bt709:m=bt709:r=tv,format=yuv420p OUT"
    )
