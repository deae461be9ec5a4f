"""Loading weights: official nestings and prefixes undone, every key accounted for, and the same as safetensors."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from allweather.errors import AllWeatherError, CheckpointError
from allweather.models.reading import read_checkpoint
from allweather.models.segmenter import Provenance

NESTINGS = (
    "state_dict", "model_state", "model_state_dict", "model", "net", "network", "dannet_state_dict",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "network.", "Scale.")
_DEEPEST = 4  # nestings
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

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
    """Loads the checkpoint at `path` into `network`.

    Args, Raises: see `fitting_tensors`; the network is unchanged where it raises.
    """
    tensors, provenance = fitting_tensors(network, path, name=name, drop=drop, sha256=sha256, translate=translate)
    kept = network.state_dict()
    network.load_state_dict({**{key: kept[key] for key in kept if _is_counter(key)}, **tensors})
    return provenance


def fitting_tensors(
    network: nn.Module,
    path: Path,
    *,
    name: str,
    drop: Iterable[str] = (),
    sha256: str | None = None,
    translate: Translate | None = None,
) -> tuple[dict[str, Tensor], Provenance]:
    """The tensors of the checkpoint at `path` under the keys of `network`; every key is used or dropped by rule.

    Args:
        network: may lie on the meta device.
        name: the network's, for messages.
        drop: fnmatch patterns of keys that only training needs.
        sha256: expected digest; None accepts any.
        translate: gives tensors under a publisher's names the network's; left out where the names fit already.

    Raises:
        AllWeatherError: for an unreadable file, one that carries code, or one of another network or class count;
            the message names the first missing and unexpected keys.
    """
    digest = check_digest(path, sha256)
    tensors, nesting = _unnest(read_checkpoint(path), path)
    expected = network.state_dict()
    tensors, prefix = _strip(tensors, expected)
    if translate and not tensors.keys() <= expected.keys():
        tensors = translate(tensors)
    patterns = tuple(drop)
    dropped = tuple(key for key in tensors if key not in expected and _matches(key, patterns))
    kept = {key: value for key, value in tensors.items() if key not in dropped}
    _compare(kept, expected, path, name)
    return kept, Provenance(path.name, digest, nesting, prefix, dropped)


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], Provenance]:
    """The tensors of a checkpoint, out of their nesting and without a wrapper's prefix, and where they came from.

    Raises:
        AllWeatherError: as `read_checkpoint`.
    """
    tensors, nesting = _unnest(read_checkpoint(path), path)
    tensors, prefix = _strip(tensors, {})
    return tensors, Provenance(path.name, check_digest(path), nesting, prefix)


def write_tensors(tensors: Mapping[str, Tensor], out: Path, *, name: str, provenance: Provenance) -> None:
    """Writes tensors as safetensors, whole or not at all, with the network's name and the provenance inside.

    Raises:
        AllWeatherError: when `out` cannot be written.
    """
    metadata = {"format": "pt", "model": name, "source_file": provenance.file, "source_sha256": provenance.sha256}
    metadata |= {"dropped": json.dumps(provenance.dropped), "nesting": provenance.nesting, "prefix": provenance.prefix}
    apart = {key: value.detach().contiguous().clone() for key, value in tensors.items()}  # two keys may share one
    temporary = out.with_name(out.name + ".partial")
    try:
        save_file(apart, temporary, metadata=metadata)
        temporary.replace(out)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise AllWeatherError(f"cannot write {out}: {error}. Choose a file in a folder that exists.") from error


def check_digest(path: Path, expected: str | None = None) -> str:
    """The file's sha256.

    Raises:
        AllWeatherError: when there is no such file, or its digest is not the expected one.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}. Expected a .pth, .pt, .tar or .safetensors file.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected.lower():
        raise CheckpointError(f"{path}: expected sha256 {expected.lower()}, the file has {digest}. Fetch it again.")
    return digest


def _unnest(loaded: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], str]:
    """The innermost mapping of names to tensors and the keys that led to it."""
    trail: list[str] = []
    while key := next((key for key in NESTINGS if isinstance(loaded.get(key), Mapping)), None):
        trail.append(key)
        loaded = loaded[key]
        if len(trail) > _DEEPEST:
            raise CheckpointError(f"{path}: mappings within mappings ({'/'.join(trail)}…), and no state dict in them.")
    others = [name for name, value in loaded.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others or not loaded:
        raise CheckpointError(
            f"{path}: expected a state dict, or one under any of {', '.join(NESTINGS)}; found "
            f"{', '.join(repr(name)[:60] for name in others[:6]) or 'no keys'} beside or instead of tensors."
        )
    return dict(loaded), "/".join(trail)


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
        raise CheckpointError(
            f"{path} is not a checkpoint of {name}: {len(missing)} keys missing (first: {_first(missing)}), "
            f"{len(unexpected)} unexpected (first: {_first(unexpected)}). Name the network it belongs to."
        )
    differing = [key for key, value in found.items() if value.shape != expected[key].shape]
    if differing:
        raise CheckpointError(f"{path}: {_shapes(differing, found, expected, name)}")
    for key, value in found.items():
        _check_numbers(key, value, expected[key].dtype, path)


def _check_numbers(key: str, value: Tensor, wanted: torch.dtype, path: Path) -> None:
    plain = value.layout is torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not plain or (value.dtype not in _DTYPES if wanted.is_floating_point else value.is_floating_point()):
        kind = value.dtype if plain else f"{value.dtype}, {value.layout}, on {value.device.type}"
        raise CheckpointError(f"{path}: {key} is {kind}; expected a dense tensor that fits {wanted}. Convert it first.")
    if wanted.is_floating_point and not value.to(wanted).isfinite().all():
        raise CheckpointError(f"{path}: {key} holds NaN or infinite values; the checkpoint is damaged.")


def _shapes(keys: list[str], found: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> str:
    """What differs; a few tensors that differ in their first size alone are heads of another class count."""
    came, wanted = tuple(found[keys[0]].shape), tuple(expected[keys[0]].shape)
    message = f"{name} expects {keys[0]} of shape {wanted}, the file has {came}"
    heads = all(found[key].ndim and found[key].shape[1:] == expected[key].shape[1:] for key in keys)
    if len(keys) <= 8 and heads and expected[keys[0]].ndim:
        return f"{message}: it is trained for {came[0]} classes, the network has {wanted[0]}."
    return f"{message} ({len(keys)} tensors differ). Name the network it belongs to."


def _is_counter(key: str) -> bool:
    # old checkpoints lack them, and nothing but a momentum of None reads them
    return key.endswith("num_batches_tracked")


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _first(keys: list[str]) -> str:
    return keys[0][:120] if keys else "none"
