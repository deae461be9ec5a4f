"""What a pickle would build, told by its opcodes without building anything: code, or data that swells."""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import IO, Any

_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
# settings, dates and scores that checkpoints hold beside tensors: read as stand-ins, their modules never imported
OBJECTS = (
    "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct", "numpy.dtype", "numpy.ndarray", "argparse.Namespace",
    "types.SimpleNamespace", "typing.Any", "uuid.UUID", "decimal.Decimal", "fractions.Fraction",
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in ("getattr", "frozenset", "slice", "range")),
    *(f"builtins.{name}" for name in ("list", "dict", "tuple", "int", "float", "str", "bool")),  # default factories
    "mmengine.logging.history_buffer.HistoryBuffer",
)  # fmt: skip
DICTIONARIES = (
    "collections.defaultdict", "addict.addict.Dict", "easydict.EasyDict", "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode", "detectron2.config.config.CfgNode", "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict", "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict", "pytorch_lightning.utilities.parsing.AttributeDict",
)  # fmt: skip
LISTS = ("collections.deque",)
SETTINGS = ("omegaconf.",)  # libraries that hold nothing but settings
ENCODE = "_codecs.encode"
PLAIN = ("collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.complex", ENCODE)
TRANSFORMS = ("hex_codec", "base64_codec", "quopri_codec", "uu_codec", "bz2_codec", "zlib_codec")  # bytes to bytes

StandIn = Callable[..., Any] | tuple[Callable[..., Any], str]


class Ignored:
    """Takes whatever a pickle hands to an object and keeps nothing."""

    def __new__(cls, *_: object) -> "Ignored":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


@dataclass(frozen=True)
class Contents:
    """What a pickle names.

    Attributes:
        names: of the classes and functions that it refers to.
        objection: the first thing that is no plain data, or None.
    """

    names: frozenset[str]
    objection: str | None


def inspect(pickle: IO[bytes]) -> Contents:
    """What the pickle at the file's position names; the position ends behind the pickle.

    Raises:
        ValueError: when there is no whole pickle.
    """
    names: list[str] = []
    texts: set[str] = set()
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name == "GLOBAL":
            names.append(_today(*str(argument).split(" ", 1)))
        elif isinstance(argument, str):
            texts.add(argument)
    strange = next((name for name in names if not _is_plain(name)), None)
    if strange is None and ENCODE in names:  # each of these over the one before doubles the bytes again
        strange = next((f"{ENCODE} by {text}" for text in texts if _is_transform(text)), None)
    return Contents(frozenset(names), strange)


def stand_ins(names: Iterable[str]) -> list[StandIn]:
    """What is built instead of each of the `names` that only hold metadata, for torch.serialization.safe_globals."""
    return [(_stand_in(name), name) for name in sorted(names) if _is_metadata(name)]


def _today(module: str, name: str) -> str:
    """The dotted name, as Python 3 has it, of what an old protocol names as Python 2 had it."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _stand_in(name: str) -> Callable[..., Any]:
    # torch's reader fills exact lists and dictionaries alone, so that is what such a class gives
    made: type = OrderedDict if name in DICTIONARIES else list if name in LISTS else Ignored
    if made is Ignored:
        return type(name, (Ignored,), {})
    return type(name, (), {"__new__": lambda _, *__: made()})


def _is_plain(name: str) -> bool:
    # torch itself refuses what is neither a tensor's part nor its type
    return name in PLAIN or name.startswith("torch.") or _is_metadata(name)


def _is_metadata(name: str) -> bool:
    return name in OBJECTS or name in DICTIONARIES or name in LISTS or name.startswith(SETTINGS)


def _is_transform(text: str) -> bool:
    if len(text) > 20 or not text.isascii():
        return False
    name = normalize_encoding(text.lower())
    return aliases.get(name, name) in TRANSFORMS
