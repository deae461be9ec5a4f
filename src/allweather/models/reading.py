"""Checkpoint files of every format as plain data: nothing in them is run, and none takes more memory than its size."""

import io
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from allweather.errors import CheckpointError, first_line
from allweather.models.matlab import read_matlab
from allweather.models.pickles import Contents, inspect, stand_ins
from allweather.models.recognised import ARCHIVE, is_safetensors, no_weights

_HEADER_LIMIT = 100 << 20  # bytes; safetensors' own limit
_SIZE_LIMIT = 16 << 30  # bytes; several times the largest network for segmentation
_PIECE = 1 << 20  # bytes
_SCRIPTED = "__torch__."  # opens the names of what TorchScript compiled
_COMPILED = "/code/__torch__"  # in the paths of TorchScript's sources, which are stored compressed
_LEGACY_PICKLES = 5  # that open a checkpoint of torch before 1.6: magic, version, system, content, keys of storages
_DAMAGE = (
    OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError,
    MemoryError, RecursionError, OverflowError, NotImplementedError, zipfile.BadZipFile, pickle.UnpicklingError,
)  # fmt: skip  # what readers raise on bytes that are not what they expect


def read_checkpoint(path: Path) -> Mapping[Any, Any]:
    """What the file holds, tensors on the CPU; no code in it is run.

    Raises:
        AllWeatherError: when it cannot be read as safetensors, as a torch checkpoint of plain data, or as a MatConvNet
            network (`.mat`).
    """
    check_size(path)
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path} is empty. Fetch the checkpoint again.")
    if head.lstrip()[:1] == b"<":
        raise CheckpointError(f"{path} is a web page, not a checkpoint: the download was refused. Fetch it again.")
    suffix = path.suffix.lower()
    if suffix == ".mat":
        return read_matlab(path)
    if said := no_weights(path):
        raise CheckpointError(f"{path} is {said}.")
    if suffix == ".safetensors" or is_safetensors(head):
        return _read_safetensors(path, head)
    return _read_torch(path)


def check_size(path: Path) -> None:
    """Refuses what is no file, or one larger than any network for segmentation, before anything reads it.

    Raises:
        AllWeatherError: in both cases.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}. Expected a .pth, .pt, .tar or .safetensors file.")
    size = path.stat().st_size
    if size > _SIZE_LIMIT:
        raise CheckpointError(
            f"{path} has {size:,} bytes; expected at most {_SIZE_LIMIT:,}. Export the state dict alone."
        )


def check_sums(path: Path) -> None:
    """Refuses a zip archive of torch of which a member is not what was written; torch reads it without a look.

    Raises:
        CheckpointError: naming the member.
    """
    if not _is_archive(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for member in filter(lambda member: member.CRC, archive.infolist()):
                with archive.open(member) as file:
                    while file.read(_PIECE):  # the sum is compared at the end
                        pass
    except _DAMAGE as error:
        raise CheckpointError(_unreadable(path, "torch checkpoint", error)) from error


def _is_archive(path: Path) -> bool:
    """Whether torch takes the file for a zip archive: by its first bytes, where `zipfile.is_zipfile` asks its last."""
    with path.open("rb") as file:
        return file.read(len(ARCHIVE)) == ARCHIVE


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A member to read; without a look at its sum where that is 0, as torch writes it when told to leave sums out."""
    if member.CRC:
        return archive.open(member)
    del member.CRC
    with archive.open(member) as file:
        return io.BytesIO(file.read())  # without a sum the file itself cannot seek


def _read_safetensors(path: Path, head: bytes) -> dict[str, Tensor]:
    claimed, size = int.from_bytes(head[:8], "little"), path.stat().st_size
    if claimed > min(size - 8, _HEADER_LIMIT):
        raise CheckpointError(
            f"{path}: the header claims {claimed:,} bytes and the file has {size:,}. It is truncated or no safetensors."
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, *_DAMAGE) as error:
        raise CheckpointError(_unreadable(path, "safetensors file", error)) from error


def _read_torch(path: Path) -> Mapping[Any, Any]:
    try:
        names, strange = _contents(path)
        if strange is None:
            with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins(names)):
                warnings.simplefilter("ignore")  # about pickle protocols; what fails to load says so
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its opcodes are whole, yet not all of them build plain data
        raise CheckpointError(_refused(path, _reason(error))) from error
    except _DAMAGE as error:
        raise CheckpointError(_unreadable(path, "torch checkpoint", error)) from error
    if strange is not None:
        raise CheckpointError(_refused(path, strange))
    check_sums(path)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: expected a mapping of names to tensors, found {type(loaded).__name__}.")
    return loaded


def _contents(path: Path) -> tuple[set[str], str | None]:
    """The names in the checkpoint's pickles, and the first thing that is no plain data."""
    names: set[str] = set()
    for found in _pickles(path):
        names |= found.names
        if found.objection:
            return names, found.objection
    return names, None


def _pickles(path: Path) -> Iterator[Contents]:
    """Each pickle of the file; torch stores an archive's members uncompressed."""
    if not _is_archive(path):
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                yield inspect(file)
        return
    with zipfile.ZipFile(path) as archive:
        if any(_COMPILED in member.filename for member in archive.infolist()):
            yield Contents(frozenset(), _SCRIPTED)
        unpacked, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
        if unpacked > size:
            raise ValueError(f"{size:,} bytes that claim to unpack to {unpacked:,}")
        for member in archive.infolist():
            if member.filename.lower().endswith("data.pkl"):  # torch looks it up in either case
                with _opened(archive, member) as file:
                    yield inspect(file)


def _refused(path: Path, what: str) -> str:
    if what.startswith(_SCRIPTED):
        return (
            f"{path} is a TorchScript program, not a checkpoint. Load it yourself, torch.jit.load(FILE), and pass what "
            "that gives to Segmenter.wrap; for the command line, return it from a function of a file: --model "
            "mynets.py:build."
        )
    return (
        f"{path} holds code or objects beside tensors, which is refused ({what[:120]}). Export its state dict: "
        "torch.save(model.state_dict(), …) or safetensors."
    )


def _reason(error: pickle.UnpicklingError) -> str:
    """What torch's reader stumbled over, without its advice to run the file."""
    lines = str(error).splitlines()
    said = next((line for line in lines if "WeightsUnpickler error: " in line), lines[0] if lines else "")
    return said.partition("WeightsUnpickler error: ")[2] or said


def _unreadable(path: Path, kind: str, error: Exception) -> str:
    return f"{path}: not a readable {kind} ({first_line(error)}). Fetch it again."
