"""Loading weights: official nestings and prefixes undone, every key accounted for, and the same as safetensors."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from allweather.errors import AllWeatherError, CheckpointError, NetworkError
from allweather.finite import FLOATS, all_finite
from allweather.models.matching import (
    Stored,
    Weights,
    complete_sets,
    cut_words,
    is_counter,
    leftovers,
    only_for_training,
    preferred,
    state_of,
    stored_tensors,
    unwrapped,
)
from allweather.models.reading import check_size, read_checkpoint
from allweather.models.recognised import JOIN_PARTS
from allweather.models.segmenter import Provenance
from allweather.plugins import FAULTS
from allweather.writing import whole

LOG = logging.getLogger(__name__)

_PART = re.compile(r"-0*(\d+)-of-0*(\d+)\.")  # in the names of files that hold one checkpoint together
Translate = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def load_weights(
    network: nn.Module,
    path: Path,
    *,
    name: str,
    drop: Iterable[str] = (),
    translate: Translate | None = None,
) -> Provenance:
    """Loads the checkpoint at `path` into `network`.

    Args, Raises: see `fitting_tensors`; the network is unchanged where it raises.
    """
    own: dict[str, Tensor] = {}

    def as_it_loads(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own.update(_as_it_loads(network, found))
        return own

    tensors, provenance = fitting_tensors(network, path, name=name, drop=drop, translate=translate or as_it_loads)
    kept: Any = network.state_dict()
    LOG.info("%s: weights of %s, sha256 %s", name, path, provenance.sha256)
    if dropped := provenance.dropped:
        LOG.info("%s: left out of %s: %s", name, path, ", ".join(dropped[:6]) + (", …" if len(dropped) > 6 else ""))
    state: Any = tensors
    state.update({key: kept[key] for key in kept if key not in state})  # counters
    if own:  # they are of the modules' versions already
        state._metadata = kept._metadata
    network.load_state_dict(state)
    return provenance


def _as_it_loads(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the network's own loading makes of tensors under other names; nothing where it refuses or leaves any."""
    try:
        copy = deepcopy(network)
        floats = [value for value in copy.state_dict().values() if value.is_floating_point() and value.numel()]
        for value in floats:
            value.fill_(torch.nan)  # to see what the file gives
        nn.Module.load_state_dict(copy, tensors)  # strictly, which one of its own need not be
        state = copy.state_dict()
        left = any(value.is_floating_point() and value.numel() and value.isnan().all() for value in state.values())
        return {} if left else state
    except FAULTS:
        return {}


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
    stored, expected = _stored(path), _tensors(network, name)
    sets, nearest = complete_sets(stored, expected)
    whence: tuple[str, str] | None = None
    shared = {} if sets else _shared(expected, stored)
    if shared:  # safetensors keeps tensors that several names share under one of them
        sets, nearest = complete_sets(stored, {key: value for key, value in expected.items() if key not in shared})
    if not sets and translate:
        tensors, whence = unwrapped(stored)
        if made := translate(tensors):
            stored = [Stored((), key, value) for key, value in made.items()]
            sets, nearest = complete_sets(stored, expected)
    if not sets:
        raise _foreign(stored, nearest, expected, path, name)
    chosen = _chosen(sets, expected, path, name)
    dropped = _dropped(chosen, sets, stored, tuple(drop), path, name)
    kept = state_of(chosen.tensors)
    kept |= {key: kept[other] for key, other in shared.items() if other in kept}
    _compare(kept, expected, path, name)
    nesting, prefix = whence or _whence(chosen)
    return kept, Provenance(path.name, digest, nesting, prefix, dropped)


def _tensors(network: nn.Module, name: str) -> dict[str, Tensor]:
    """The network's parameters and buffers by key.

    Raises:
        NetworkError: where its state is more than tensors.
    """
    found: dict[str, Tensor] = network.state_dict()
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise NetworkError(
                f"{name}: {key} is {type(value).__name__}, no tensor, and a checkpoint is data. Load such weights in "
                "what makes the network, with load_state_dict."
            )
    return found


def _shared(expected: Mapping[str, Tensor], stored: list[Stored]) -> dict[str, str]:
    """Names that share their tensor with another of the network and are not in the file, each with one that is."""
    alike: dict[tuple[int, torch.Size], list[str]] = {}
    for key, value in expected.items():
        if not value.is_meta and value.numel():
            alike.setdefault((value.data_ptr(), value.shape), []).append(key)
    found: dict[str, str] = {}
    for keys in alike.values():
        if len(keys) > 1:  # few are: the file's names are looked through for these alone
            there = [key for key in keys if any(one.key == key or one.key.endswith(f".{key}") for one in stored)]
            found |= {key: there[0] for key in keys if there and key not in there}
    return found


def taken_tensors(network: nn.Module, path: Path, *, name: str) -> dict[str, Tensor]:
    """The tensors of the file that `load_weights` gave to `network`, as they are, under names that it takes again.

    Raises:
        AllWeatherError: as `fitting_tensors`.
    """
    stored, expected = _stored(path), _tensors(network, name)
    sets, _ = complete_sets(stored, expected)
    if not sets:  # under a publisher's names, which the network's library translates
        return unwrapped(stored)[0]
    return {key: one.value for key, one in _chosen(sets, expected, path, name).tensors.items()}


def write_tensors(tensors: Mapping[str, Tensor], out: Path, *, name: str, provenance: Provenance) -> None:
    """Writes tensors as safetensors, whole or not at all, with the network's name and the provenance inside; missing
    folders are made.

    Raises:
        AllWeatherError: when `out` cannot be written.
    """
    metadata = {"format": "pt", "model": name, "source_file": provenance.file, "source_sha256": provenance.sha256}
    metadata |= {"dropped": json.dumps(provenance.dropped), "nesting": provenance.nesting, "prefix": provenance.prefix}
    apart = {key: value.detach().contiguous().clone() for key, value in tensors.items()}  # two keys may share one
    try:
        with whole(out, durable=True) as temporary:
            save_file(apart, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise AllWeatherError(f"cannot write {out}: {error}. Make room or choose another file.") from error


def check_digest(path: Path, expected: str | None = None) -> str:
    """The file's sha256.

    Raises:
        AllWeatherError: when there is no such file, or its digest is not the expected one.
    """
    check_size(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected.lower():
        raise CheckpointError(f"{path}: expected sha256 {expected.lower()}, the file has {digest}. Fetch it again.")
    return digest


def _stored(path: Path) -> list[Stored]:
    """Every named tensor of the file; refuses one without."""
    loaded = read_checkpoint(path)
    stored = stored_tensors(loaded)
    if not stored:
        raise CheckpointError(
            f"{path}: expected a state dict, names to tensors, on its own or within other mappings; found no tensor "
            f"under a name, only {', '.join(repr(key)[:60] for key in list(loaded)[:6]) or 'an empty mapping'}."
        )
    return stored


def _chosen(sets: list[Weights], expected: Mapping[str, Tensor], path: Path, name: str) -> Weights:
    """The only set that can be meant."""
    first, *others = preferred(sets, expected)
    if others:
        places = " and ".join(_place(weights) for weights in (first, *others))
        raise CheckpointError(
            f"{path} holds {1 + len(others)} different complete sets of weights of {name}, under {places}. Save the "
            "one you mean on its own, as a state dict."
        )
    return first


def _dropped(
    chosen: Weights, sets: list[Weights], stored: list[Stored], patterns: tuple[str, ...], path: Path, name: str
) -> tuple[str, ...]:
    """What lies beside the chosen tensors and has a reason to; copies in mappings of their own by the place alone.

    All that lies outside the set's place belongs to what held the network in training.
    """
    beside = leftovers(chosen, stored)
    dropped = [
        key
        for key, one in beside.items()
        if not chosen.holds(one)
        or _matches(key, patterns)
        or only_for_training(key, one, chosen.tensors)
        or _is_copy(one, chosen, sets)
    ]
    if unexpected := [key for key in beside if key not in dropped]:
        raise CheckpointError(
            f"{path} has every key of {name}, and {len(unexpected)} unexpected among them (first: "
            f"{_first(unexpected)}). Name the network that has those too, or save the state dict without them."
        )
    return (*dropped, *(_place(other) for other in sets if not _in_same_mapping(other, chosen)))


def _place(weights: Weights) -> str:
    return ".".join(weights.place) or "no prefix"


def _is_copy(one: Stored, chosen: Weights, sets: list[Weights]) -> bool:
    """Whether the tensor lies below another complete set of the network's weights."""
    return any(other.holds(one) and not _contains(other, chosen) for other in sets if other is not chosen)


def _contains(outer: Weights, inner: Weights) -> bool:
    return all(outer.holds(one) for one in inner.tensors.values())


def _in_same_mapping(one: Weights, other: Weights) -> bool:
    return bool({stored.trail for stored in one.tensors.values()} & {stored.trail for stored in other.tensors.values()})


def _whence(weights: Weights) -> tuple[str, str]:
    """Nesting and prefix of the tensors."""
    trails = dict.fromkeys("/".join(one.trail) for one in weights.tensors.values())
    return ", ".join(trails), cut_words([(one.key, key) for key, one in weights.tensors.items()])


def _foreign(
    stored: list[Stored], nearest: Weights, expected: Mapping[str, Tensor], path: Path, name: str
) -> CheckpointError:
    """The error for a file without a complete set of the network's weights."""
    if nearest.clash:
        return CheckpointError(
            f"{path}: two different tensors could be {name}'s, e.g. {next(iter(nearest.tensors))}. Save one state dict."
        )
    if (part := _PART.search(path.name)) and part[2] != "1":
        lacks = sum(key not in nearest.tensors and not is_counter(key) for key in expected)
        return CheckpointError(f"{path} is part {part[1]} of {part[2]} and lacks {lacks} keys of {name}. {JOIN_PARTS}.")
    if 2 * len(nearest.tensors) > len(expected):
        found, beside = set(nearest.tensors), list(leftovers(nearest, stored))
    else:
        found = set(unwrapped(stored)[0])
        beside = [key for key in unwrapped(stored)[0] if key not in expected]
    missing = [key for key in expected if key not in found and not is_counter(key)]
    return CheckpointError(
        f"{path} is not a checkpoint of {name}: {len(missing)} keys missing (first: {_first(missing)}), "
        f"{len(beside)} unexpected (first: {_first(beside)}). Name the network it belongs to."
    )


def _compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, name: str) -> None:
    differing = [key for key, value in found.items() if value.shape != expected[key].shape]
    if differing:
        raise CheckpointError(f"{path}: {_shapes(differing, found, expected, name)}")
    for key, value in found.items():
        _check_numbers(key, value, expected[key], path)


def _as_infinite(value: Tensor, own: Tensor) -> bool:
    """Whether the infinite numbers are the network's own by design, as in the mask of an attention; NaN never is."""
    if own.is_meta or value.isnan().any():
        return False
    return torch.equal(value.isposinf(), own.isposinf()) and torch.equal(value.isneginf(), own.isneginf())


def _check_numbers(key: str, value: Tensor, own: Tensor, path: Path) -> None:
    wanted = own.dtype
    plain = value.layout is torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not plain or (value.dtype not in FLOATS if wanted.is_floating_point else value.is_floating_point()):
        kind = value.dtype if plain else f"{value.dtype}, {value.layout}, on {value.device.type}"
        raise CheckpointError(f"{path}: {key} is {kind}; expected a dense tensor that fits {wanted}. Convert it first.")
    made = value.to(wanted)
    if wanted.is_floating_point and not all_finite(made) and not _as_infinite(made, own):
        raise CheckpointError(f"{path}: {key} holds NaN or infinite values; the checkpoint is damaged.")


def _shapes(keys: list[str], found: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> str:
    """What differs; a few tensors that differ in their first size alone are heads of another class count."""
    came, wanted = tuple(found[keys[0]].shape), tuple(expected[keys[0]].shape)
    message = f"{name} expects {keys[0]} of shape {wanted}, the file has {came}"
    heads = all(found[key].ndim and found[key].shape[1:] == expected[key].shape[1:] for key in keys)
    if len(keys) <= 8 and heads and expected[keys[0]].ndim:
        return (
            f"{message}: it is trained for {came[0]} classes, the network has {wanted[0]}. Where this network takes "
            "others, name them (--classes FILE.toml). One of your own (--model FILE.py:NAME) makes as many in its "
            "factory (--model-arg) and has them named too; void's, the last, are Segmenter.wrap(…, extra_logits=1)."
        )
    return (
        f"{message} ({len(keys)} tensors differ). Name the network it belongs to; one of your own may take another "
        "width or number of classes (--model-arg)."
    )


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _first(keys: list[str]) -> str:
    return keys[0][:120] if keys else "none"
