"""From the class names that a network brings to a class set: outputs reordered, or joined where several mean one."""

import re
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from allweather.classes import CLASS_SETS, ClassSet, numbered, recognise, sources
from allweather.errors import SettingsError

NAMELESS = re.compile(r"(label|class)?[ _-]?\d+", re.IGNORECASE)  # what libraries call classes that nobody named
BELOW = 20.0  # how far under the lowest logit a class lies that the network does not have


@dataclass(frozen=True)
class Selection:
    """Which outputs of a network make each class of a set.

    Attributes:
        sources: indices of outputs, one tuple per class; empty for a class that the network does not have.
    """

    sources: tuple[tuple[int, ...], ...]

    def logits(self, given: Tensor) -> Tensor:
        """B×C'×h×w logits to B×C×h×w: the probabilities of outputs that mean one class add up.

        A class without a source is never the largest: it lies `BELOW` under the pixel's lowest logit.
        """
        if all(len(indices) == 1 for indices in self.sources):
            return given[:, [index for (index,) in self.sources]]
        lowest = given.detach().amin(1) - BELOW
        return torch.stack([given[:, list(i)].logsumexp(1) if i else lowest for i in self.sources], 1)

    def probabilities(self, given: Tensor) -> Tensor:
        """B×Q×C' probabilities of queries to B×Q×C: added up in the same way, 0 for a class without a source."""
        none = given.new_zeros(given.shape[:2])
        return torch.stack([given[..., list(i)].sum(-1) if i else none for i in self.sources], -1)


def choose(names: tuple[str, ...], wanted: ClassSet | None, network: str) -> tuple[ClassSet, Selection | None]:
    """The class set of a network whose outputs are called `names`, and how its outputs make it (None: as they are).

    Without `wanted`, names that are exactly a known set's, in any order, are that set in its own order; any others are
    a set of their own. With `wanted`, outputs are matched by name, and a warning tells what has no counterpart. Outputs
    that nobody named (`LABEL_0`, …) are taken to be in the order of `wanted`.

    Raises:
        SettingsError: when nameless outputs are not as many as `wanted` has classes, or no name is one of its.
    """
    if all(NAMELESS.fullmatch(name) for name in names):
        return _nameless(names, wanted, network), None
    target = wanted or recognise(names)
    if target is None:
        _tell_of_more(names, network)
        return numbered(names), None
    found = sources(names, target)
    if not any(found):
        raise SettingsError(
            f"{network}: none of its classes is one of '{target.name}': it has {_some(names)}; "
            f"expected names such as {_some(target.names)}. Leave out the class set, or name its classes in its "
            "configuration."
        )
    _tell_of_gaps(names, target, found, network)
    return target, None if found == tuple((i,) for i in range(len(names))) else Selection(found)


def _nameless(names: tuple[str, ...], wanted: ClassSet | None, network: str) -> ClassSet:
    """`wanted` where it has as many classes; without it, a set of its own."""
    if wanted is None:
        alike = [known.name for known in CLASS_SETS.values() if len(known) == len(names)]
        if alike:
            warnings.warn(
                f"{network} does not name its {len(names)} classes, so they are not taken for those of '{alike[0]}'; "
                f"if they are, in that order, say so: classes={alike[0]}",
                stacklevel=4,
            )
        return numbered(names)
    if len(wanted) != len(names):
        raise SettingsError(
            f"{network} has {len(names)} classes without names, '{wanted.name}' has {len(wanted)}: expected as many. "
            "Leave out the class set, or name the network's classes in its configuration."
        )
    return wanted


def _tell_of_more(names: tuple[str, ...], network: str) -> None:
    """A warning where a known set is a part of what the network knows."""
    for known in CLASS_SETS.values():
        if recognise(tuple(names[i] for (i, *_) in filter(None, sources(names, known)))) == known:
            warnings.warn(
                f"{network} knows {len(names)} classes, all of '{known.name}' among them; its labels are its own. For "
                f"those of '{known.name}' alone: classes={known.name}",
                stacklevel=4,
            )


def _tell_of_gaps(names: tuple[str, ...], target: ClassSet, found: tuple[tuple[int, ...], ...], network: str) -> None:
    absent = [name for name, indices in zip(target.names, found, strict=True) if not indices]
    used = {index for indices in found for index in indices}
    unused = tuple(name for index, name in enumerate(names) if index not in used)
    told = [f"it never predicts {_some(absent)}"] if absent else []
    told += [f"its own {_some(unused)} are left out"] if unused else []
    if told:
        warnings.warn(f"{network} is mapped to '{target.name}' by name: {'; '.join(told)}", stacklevel=4)


def _some(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:6]) or "none"
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
