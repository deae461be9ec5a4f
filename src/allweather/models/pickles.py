"""What a pickle would build, told by its opcodes without building anything: code, or data that swells."""

import pickletools
from collections.abc import Callable
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import IO, Any

# settings and scores that official checkpoints hold beside tensors: read as `Ignored`, their modules never imported
METADATA = (
    "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct", "numpy.dtype", "numpy.ndarray", "argparse.Namespace",
    "mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr",
)  # fmt: skip
ENCODE = "_codecs.encode"
PLAIN = ("collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.complex", ENCODE)
TRANSFORMS = ("hex_codec", "base64_codec", "quopri_codec", "uu_codec", "bz2_codec", "zlib_codec")  # bytes to bytes


class Ignored:
    """Takes whatever a pickle hands to an object and keeps nothing."""

    def __new__(cls, *_: object) -> "Ignored":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [  # for torch.serialization.safe_globals
    (type(name, (Ignored,), {}), name) for name in METADATA
]


def objection(pickle: IO[bytes]) -> str | None:
    """What in the pickle at the file's position is no plain data, or None; the position ends behind the pickle.

    Raises:
        ValueError: when there is no whole pickle.
    """
    names: list[str] = []
    texts: set[str] = set()
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name == "GLOBAL":
            names.append(str(argument).replace(" ", ".").replace("__builtin__.", "builtins."))
        elif isinstance(argument, str):
            texts.add(argument)
    strange = next((name for name in names if not _is_plain(name)), None)
    if strange is None and ENCODE in names:  # each of these over the one before doubles the bytes again
        strange = next((f"{ENCODE} by {text}" for text in texts if _is_transform(text)), None)
    return strange


def _is_plain(name: str) -> bool:
    # torch itself refuses what is neither a tensor's part nor its type
    return name in PLAIN or name in METADATA or name.startswith("torch.")


def _is_transform(text: str) -> bool:
    if len(text) > 20 or not text.isascii():
        return False
    name = normalize_encoding(text.lower())
    return aliases.get(name, name) in TRANSFORMS
