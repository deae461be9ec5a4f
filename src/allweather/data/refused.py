"""Why a video file cannot be opened or decoded, as its first and last bytes show."""

import re
from pathlib import Path

from allweather.pictures.growing import boxes

ENDS = 1 << 20  # bytes at either end of a file in which it names its codec
CODEC = re.compile(rb"stsd.{12}([ -~]{4})|(V_[A-Z0-9_/]{2,30})", re.S)  # in MP4 and MOV, in Matroska


def why_unopened(path: Path, error: Exception) -> str:
    """Why PyAV could not open a file that is there and not empty."""
    kinds = {kind for kind, _, whole in boxes(path) if whole}
    if b"ftyp" in kinds and b"moov" not in kinds:
        return (
            "its index is missing, for the recording was cut off before it was written; record .mkv or fragmented "
            ".mp4, which need none"
        )
    if isinstance(error, EOFError):
        return "it ends before its first frame"
    return "of no known format" if isinstance(error, ValueError) else getattr(error, "strerror", None) or str(error)


def codec_name(path: Path) -> str:
    """The codec's name as the file spells it, in quotes after a space; empty where it is not found."""
    with path.open("rb") as file:
        ends = file.read(ENDS)
        file.seek(max(len(ends), path.stat().st_size - ENDS))
        ends += file.read()
    found = CODEC.search(ends)
    return f" '{(found[1] or found[2]).decode('ascii').strip()}'" if found else ""
