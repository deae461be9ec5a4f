"""Sessions of a fleet merged: the moved parameters of networks of one base, averaged by how much each has learnt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allweather.errors import CheckpointError, SettingsError
from allweather.models.digest import digest
from allweather.session.storage import read_saved, same, save_session, tell_names
from allweather.writing import check_apart

MAY_DIFFER = ("seed",)  # the rest of what sessions say of themselves is one thing for all
PARAMETERS, BUFFERS, MEMORY, OWN, COUNTERS = "parameters.", "buffers.", "memory.", "own.", "counters."
AVERAGED = (PARAMETERS, "output.")


@dataclass(frozen=True)
class Merged:
    """What became of a merge.

    Attributes:
        weights: each session's share, 0..1, by file.
        updates: accepted updates of all sessions together.
        parameters: how many tensors were averaged.
        apart: root mean square distance of the sessions' parameters from their average, as a share of its length.
    """

    weights: dict[str, float]
    updates: int
    parameters: int
    apart: float


def merge(paths: Sequence[Path], out: Path) -> Merged:
    """Writes a session that begins where the average of others stands: fresh optimizer, guard and random numbers.

    Each session counts by the updates that its guard has let stand. What the sessions gathered of their streams'
    BatchNorm statistics is left out.

    Args:
        paths: at least two files of `Session.save`, of the same network, weights, method and settings.
        out: the file to write; missing folders are made.

    Raises:
        CheckpointError: for a file that is none or damaged, one of another base or with other settings, and for
            sessions that hold more than moved parameters.
        SettingsError: for fewer than two files, a session that is given twice, be it as a copy, or an `out` that is one
            of them.
    """
    if len(paths) < 2:
        raise SettingsError(f"merge: expected at least two sessions, got {len(paths)}.")
    if len({path.resolve() for path in paths}) < len(paths):
        raise SettingsError("merge: a session is given twice, and would count twice. Name each once.")
    check_apart(out, paths)
    found = {path: read_saved(path) for path in paths}
    identity = _common({path: about for path, (_, about) in found.items()})
    tensors = {path: held for path, (held, _) in found.items()}
    for path, held in tensors.items():
        _check_held(path, held)
    updates = {path: int(held[f"{COUNTERS}updates"]) for path, held in tensors.items()}
    total = sum(updates.values())
    if not total:
        raise CheckpointError("merge: none of these sessions has made an update that stood: there is nothing to merge.")
    _check_once({path: held for path, held in tensors.items() if updates[path]})
    shares = {path: number / total for path, number in updates.items()}
    averaged = _average(tensors, shares)
    save_session(out, _begun(averaged, tensors[paths[0]], max(updates.values())), identity)
    named = {str(path): share for path, share in shares.items()}
    return Merged(named, total, len(averaged), _apart(tensors, averaged, shares))


def _common(identities: Mapping[Path, Mapping[str, str]]) -> Mapping[str, str]:
    """What all sessions say of themselves; the first one's where they may differ."""
    (first, base), *others = identities.items()
    for path, identity in others:
        for key in sorted(base.keys() | identity.keys()):
            if key not in MAY_DIFFER and not same(key, base, identity):
                what = "another base" if key in ("network", "weights") else f"{key}={identity.get(key)}"
                raise CheckpointError(
                    f"{path} is of {what}, {first} of {key}={base.get(key)}. Only sessions of one network, its "
                    "weights and settings can be averaged."
                )
        tell_names(identity.get("network", ""), base.get("network", ""))
        base = {**identity, **base}  # what an older file does not say
    return base


def _check_held(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuses sessions of which an average of parameters would be no state."""
    if f"{COUNTERS}updates" not in tensors:
        raise CheckpointError(f"{path} is damaged, or of another version: it does not say how many updates it made.")
    more = [name for name in tensors if name.startswith((BUFFERS, MEMORY, OWN))]
    if more:
        what = "statistics of its stream" if more[0].startswith((BUFFERS, OWN)) else "memory of its method"
        raise CheckpointError(
            f"{path} holds {what} ({more[0]}): their average is of no stream that there is. Merge sessions of a method "
            "that moves parameters alone, such as mall-domain."
        )
    if not any(name.startswith(PARAMETERS) for name in tensors):
        raise CheckpointError(f"{path} has moved no parameter: there is nothing to merge.")


def _check_once(tensors: Mapping[Path, Mapping[str, Tensor]]) -> None:
    """Refuses a session that is there under two names: all that it holds is equal, random numbers and guard too."""
    seen: dict[str, Path] = {}
    for path, held in tensors.items():
        first = seen.setdefault(digest(held), path)
        if first is not path:
            raise SettingsError(
                f"merge: {first} and {path} hold one session, which would count twice. Name one of them."
            )


def _average(tensors: Mapping[Path, Mapping[str, Tensor]], shares: Mapping[Path, float]) -> dict[str, Tensor]:
    """The weighted mean of the moved parameters, made in double precision."""
    first = next(iter(tensors.values()))
    made = {}
    for name in (name for name in first if name.startswith(AVERAGED)):
        parts = {path: held.get(name) for path, held in tensors.items()}
        for path, part in parts.items():
            if part is None or part.shape != first[name].shape:
                raise CheckpointError(f"{path} is damaged: expected {name} of shape {tuple(first[name].shape)}.")
        weighted = [shares[path] * part.double() for path, part in parts.items() if part is not None]
        made[name] = torch.stack(weighted).sum(0).to(first[name].dtype)
    return made


def _begun(averaged: Mapping[str, Tensor], first: Mapping[str, Tensor], updates: int) -> dict[str, Tensor]:
    """The tensors of a session that stands there and remembers nothing; its guard falls back to the average."""
    good = {f"{COUNTERS}guard.good.{name}": tensor for name, tensor in averaged.items()}
    shift = {
        f"{COUNTERS}shift.seen": torch.tensor(0),
        f"{COUNTERS}shift.level": torch.tensor(-1.0, dtype=torch.float64),
    }
    return {
        **averaged,
        **good,
        **{name: tensor for name, tensor in shift.items() if name in first},
        f"{COUNTERS}guard.updates": torch.tensor(updates),
        f"{COUNTERS}guard.counts": torch.tensor([1, 0, 0, 0, 0]),
        f"{COUNTERS}guard.thumbnail": torch.empty(0),
        f"{COUNTERS}guard.strikes": torch.empty(0, dtype=torch.int64),
        f"{COUNTERS}guard.usual": torch.empty(0, dtype=torch.float64),
        f"{COUNTERS}batches": torch.tensor(0),
        f"{COUNTERS}updates": torch.tensor(updates),
        f"{COUNTERS}random": first[f"{COUNTERS}random"],
    }


def _apart(
    tensors: Mapping[Path, Mapping[str, Tensor]], averaged: Mapping[str, Tensor], shares: Mapping[Path, float]
) -> float:
    """How far the sessions lie from their average, relative to its size."""

    def flat(held: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([held[name].double().reshape(-1) for name in averaged])

    middle = flat(averaged)
    spread = sum(share * float((flat(tensors[path]) - middle).square().sum()) for path, share in shares.items())
    return float(spread**0.5 / middle.norm().clamp_min(1e-12))
