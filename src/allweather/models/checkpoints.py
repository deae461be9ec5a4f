"""Checkpoints as data, never code: safe reading, official nestings undone, every key accounted for."""

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from allweather.errors import AllWeatherError
from allweather.models.matlab import read_matlab
from allweather.models.segmenter import Provenance

NESTINGS = (
    "state_dict", "model_state", "model_state_dict", "model", "net", "network", "dannet_state_dict",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "network.")
_HEADER_LIMIT = 100 << 20  # bytes; safetensors' own limit
_SIZE_LIMIT = 16 << 30  # bytes; several times the largest network for segmentation


Translate = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def load_weights(
    network: nn.Module,
    path: Path,
    *,
    name: str,
    drop: Iterable[str] = (),
    sha256: str | None = None,
    translate: Translate | None = None,
) -> Provenance:
    """Loads the checkpoint at `path` into `network`; every key must be used or dropped by rule.

    Args:
        name: the network's, for messages.
        drop: fnmatch patterns of keys that only training needs.
        sha256: expected digest; None accepts any.
        translate: gives tensors under a publisher's names the network's; left out where the names fit already.

    Raises:
        AllWeatherError: for an unreadable file, one that carries code, or one of another network or class count;
            the message names the first missing and unexpected keys. The network is unchanged then.
    """
    digest = _digest(path)
    if sha256 is not None and digest != sha256.lower():
        raise AllWeatherError(f"{path}: expected sha256 {sha256.lower()}, the file has {digest}. Fetch it again.")
    tensors, nesting = _unnest(read_checkpoint(path), path)
    expected = network.state_dict()
    tensors, prefix = _strip(tensors, expected)
    if translate and not tensors.keys() <= expected.keys():
        tensors = translate(tensors)
    patterns = tuple(drop)
    dropped = tuple(key for key in tensors if key not in expected and _matches(key, patterns))
    kept = {key: value for key, value in tensors.items() if key not in dropped}
    _compare(kept, expected, path, name)
    network.load_state_dict({**{key: expected[key] for key in expected if _is_counter(key)}, **kept})
    return Provenance(path.name, digest, nesting, prefix, dropped)


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], Provenance]:
    """The tensors of a checkpoint, out of their nesting and without a wrapper's prefix, and where they came from.

    Raises:
        AllWeatherError: as `read_checkpoint`.
    """
    tensors, nesting = _unnest(read_checkpoint(path), path)
    tensors, prefix = _strip(tensors, {})
    return tensors, Provenance(path.name, _digest(path), nesting, prefix)


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """What the file holds, tensors on the CPU; no code in it is run.

    Raises:
        AllWeatherError: when it cannot be read as safetensors, as a torch checkpoint of plain data, or as a MatConvNet
            network (`.mat`).
    """
    if not path.is_file():
        raise AllWeatherError(f"no checkpoint at {path}. Expected a .pth, .pt, .tar or .safetensors file.")
    with path.open("rb") as file:
        head = file.read(512)
    if path.stat().st_size > _SIZE_LIMIT:
        raise AllWeatherError(
            f"{path} has {path.stat().st_size:,} bytes; expected at most {_SIZE_LIMIT:,}. Export the state dict alone."
        )
    if not head:
        raise AllWeatherError(f"{path} is empty. Fetch the checkpoint again.")
    if head.lstrip()[:1] == b"<":
        raise AllWeatherError(f"{path} is a web page, not a checkpoint: the download was refused. Fetch it again.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, head)
    if path.suffix == ".mat":
        return read_matlab(path)
    return _read_torch(path)


def convert(
    path: Path,
    network: nn.Module,
    out: Path,
    *,
    name: str,
    drop: Iterable[str] = (),
    translate: Translate | None = None,
) -> Provenance:
    """Writes the checkpoint at `path`, checked against `network`, as safetensors with its provenance inside.

    Raises:
        AllWeatherError: as `load_weights`, or when `out` cannot be written.
    """
    provenance = load_weights(network, path, name=name, drop=drop, translate=translate)
    metadata = {"model": name, "source_file": provenance.file, "source_sha256": provenance.sha256}
    metadata |= {"dropped": json.dumps(provenance.dropped), "nesting": provenance.nesting, "prefix": provenance.prefix}
    tensors = {key: value.contiguous().clone() for key, value in network.state_dict().items()}
    temporary = out.with_name(out.name + ".partial")
    try:
        save_file(tensors, temporary, metadata=metadata)
        temporary.replace(out)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise AllWeatherError(f"cannot write {out}: {error}.") from error
    return provenance


def _read_safetensors(path: Path, head: bytes) -> dict[str, Tensor]:
    claimed, size = int.from_bytes(head[:8], "little"), path.stat().st_size
    if claimed > min(size - 8, _HEADER_LIMIT):
        raise AllWeatherError(
            f"{path}: the header claims {claimed:,} bytes and the file has {size:,}. It is truncated or no safetensors."
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise AllWeatherError(f"{path}: not a readable safetensors file ({error}). Fetch it again.") from error


def _read_torch(path: Path) -> Mapping[str, Any]:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what fails to load says so
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AllWeatherError(_not_data(path, str(error))) from error
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AllWeatherError(f"{path}: not a readable torch checkpoint ({reason}). Fetch it again.") from error
    if not isinstance(loaded, Mapping):
        raise AllWeatherError(f"{path}: expected a mapping of names to tensors, found {type(loaded).__name__}.")
    return loaded


def _check_archive(path: Path) -> None:
    """Refuses an archive that would unpack to more than it holds: torch stores its members uncompressed."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise AllWeatherError(f"{path}: a damaged archive ({error}). Fetch it again.") from error
    size = path.stat().st_size
    if unpacked > size:
        raise AllWeatherError(f"{path}: {size:,} bytes that claim to unpack to {unpacked:,}; not a torch checkpoint.")


def _not_data(path: Path, reason: str) -> str:
    if "Unsupported" in reason or "global" in reason.lower():
        line = next((line.strip() for line in reason.splitlines() if "GLOBAL" in line), "a pickled object")
        return (
            f"{path} holds code or objects beside tensors, which is refused ({line[:120]}). Export its state dict: "
            "torch.save(model.state_dict(), …) or safetensors."
        )
    return f"{path}: not a readable torch checkpoint ({reason.splitlines()[0][:120]}). Fetch it again."


def _unnest(loaded: Mapping[str, Any], path: Path) -> tuple[dict[str, Tensor], str]:
    """The innermost mapping of names to tensors and the keys that led to it."""
    trail: list[str] = []
    while key := next((key for key in NESTINGS if isinstance(loaded.get(key), Mapping)), None):
        trail.append(key)
        loaded = loaded[key]
    tensors = {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    others = [str(name) for name in loaded if name not in tensors]
    if not tensors or (others and not trail):
        raise AllWeatherError(
            f"{path}: expected a state dict, or one under any of {', '.join(NESTINGS)}; found the keys "
            f"{', '.join(map(str, list(loaded)[:6])) or 'none'}."
        )
    return tensors, "/".join(trail)


def _strip(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Keys without the prefix that a wrapper put before all of them."""
    cut = ""
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), None):
        if all(key in expected for key in tensors):
            break
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        cut += prefix
    return tensors, cut


def _compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, name: str) -> None:
    missing = [key for key in expected if key not in found and not _is_counter(key)]
    unexpected = [key for key in found if key not in expected]
    if missing or unexpected:
        raise AllWeatherError(
            f"{path} is not a checkpoint of {name}: {len(missing)} keys missing (first: {_first(missing)}), "
            f"{len(unexpected)} unexpected (first: {_first(unexpected)}). Name the network it belongs to."
        )
    differing = [key for key, value in found.items() if value.shape != expected[key].shape]
    if differing:
        raise AllWeatherError(f"{path}: {_shapes(differing, found, expected, name)}")
    for key, value in found.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise AllWeatherError(f"{path}: {key} holds NaN or infinite values; the checkpoint is damaged.")


def _shapes(keys: list[str], found: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> str:
    """What differs; a few tensors that differ in their first size alone are heads of another class count."""
    came, wanted = tuple(found[keys[0]].shape), tuple(expected[keys[0]].shape)
    message = f"{name} expects {keys[0]} of shape {wanted}, the file has {came}"
    if len(keys) <= 8 and all(found[key].shape[1:] == expected[key].shape[1:] for key in keys):
        return f"{message}: it is trained for {came[0]} classes, the network has {wanted[0]}."
    return f"{message} ({len(keys)} tensors differ). Name the network it belongs to."


def _is_counter(key: str) -> bool:
    # old checkpoints lack them, and nothing but a momentum of None reads them
    return key.endswith("num_batches_tracked")


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _first(keys: list[str]) -> str:
    return keys[0] if keys else "none"


def _digest(path: Path) -> str:
    if not path.is_file():
        raise AllWeatherError(f"no checkpoint at {path}. Expected a .pth, .pt, .tar or .safetensors file.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
