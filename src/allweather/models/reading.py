"""Checkpoint files of every format as plain data: nothing in them is run, and none takes more memory than its size."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from allweather.errors import CheckpointError
from allweather.models.matlab import read_matlab
from allweather.models.pickles import STAND_INS, objection

_HEADER_LIMIT = 100 << 20  # bytes; safetensors' own limit
_SIZE_LIMIT = 16 << 30  # bytes; several times the largest network for segmentation
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
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}. Expected a .pth, .pt, .tar or .safetensors file.")
    with path.open("rb") as file:
        head = file.read(512)
    size = path.stat().st_size
    if size > _SIZE_LIMIT:
        raise CheckpointError(
            f"{path} has {size:,} bytes; expected at most {_SIZE_LIMIT:,}. Export the state dict alone."
        )
    if not head:
        raise CheckpointError(f"{path} is empty. Fetch the checkpoint again.")
    if head.lstrip()[:1] == b"<":
        raise CheckpointError(f"{path} is a web page, not a checkpoint: the download was refused. Fetch it again.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, head)
    if path.suffix == ".mat":
        return read_matlab(path)
    return _read_torch(path)


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
        strange = _objection(path)
        if strange is None:
            with warnings.catch_warnings(), torch.serialization.safe_globals(STAND_INS):
                warnings.simplefilter("ignore")  # about pickle protocols; what fails to load says so
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise CheckpointError(_unreadable(path, "torch checkpoint", error)) from error
    if strange is not None:
        raise CheckpointError(
            f"{path} holds code or objects beside tensors, which is refused ({strange[:120]}). Export its state dict: "
            "torch.save(model.state_dict(), …) or safetensors."
        )
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: expected a mapping of names to tensors, found {type(loaded).__name__}.")
    return loaded


def _objection(path: Path) -> str | None:
    """What in the checkpoint is no plain data; torch stores an archive's members uncompressed."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return next((found for _ in range(_LEGACY_PICKLES) if (found := objection(file))), None)
    with zipfile.ZipFile(path) as archive:
        unpacked, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
        if unpacked > size:
            raise ValueError(f"{size:,} bytes that claim to unpack to {unpacked:,}")
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                with archive.open(name) as file:
                    if found := objection(file):
                        return found
    return None


def _unreadable(path: Path, kind: str, error: Exception) -> str:
    reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return f"{path}: not a readable {kind} ({reason}). Fetch it again."
