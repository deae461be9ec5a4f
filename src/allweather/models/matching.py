"""Which tensors of a checkpoint are a network's: found by the network's own keys, wherever wrappers put them."""

import re
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

MARKERS = ("_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_module")
WRAPPERS = ("module", "model", "net", "network")
STATES = ("state_dict", "model_state", "model_state_dict", "weights", "params", "dannet_state_dict", "Scale")
NEUTRAL = frozenset((*MARKERS, *WRAPPERS, *STATES))  # words that do not say whose weights follow
AVERAGE = re.compile(r"(^|_)(ema|swa|averaged?)(_|$)")  # words for a moving average of the weights
TRAINING = re.compile(r"(^|_)(loss|losses|criterion|criteria|metrics?)(_|$)")
COUNTERS = frozenset(("n_averaged", "num_updates", "updates", "steps", "decay"))  # of moving averages
LEVELS = (frozenset[str](), frozenset(MARKERS), frozenset((*MARKERS, "module")), frozenset((*MARKERS, *WRAPPERS)))
DEEPEST = 6  # mappings within mappings


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor of the file.

    Attributes:
        trail: the keys that lead to the mapping that holds it.
        key: its key there.
        versions: what the mapping says of the modules that wrote it, by their place in it.
    """

    trail: tuple[str, ...]
    key: str
    value: Tensor
    versions: Mapping[str, Any] = field(default_factory=dict)

    def words(self, removed: frozenset[str] = LEVELS[0]) -> list[str]:
        """All keys that lead to it, cut at the dots, without the `removed` words."""
        return [word for word in ".".join((*self.trail, self.key)).split(".") if word not in removed]


@dataclass
class Weights:
    """The tensors that match the network's keys below one place of the file.

    Attributes:
        place: the words in front of the network's keys, nesting and prefix alike.
        removed: the words that were cut out of the file's keys, wherever they stood.
        tensors: by the network's key.
        clash: whether two different tensors claim one key.
    """

    place: tuple[str, ...]
    removed: frozenset[str] = LEVELS[0]
    tensors: dict[str, Stored] = field(default_factory=dict)
    clash: bool = False

    @property
    def rank(self) -> int:
        """0 where the place does not say whose weights they are, 2 for a moving average, else 1."""
        return rank(self.place)

    def add(self, key: str, stored: Stored) -> None:
        """Takes the tensor for the network's `key`; of two equal ones the first."""
        first = self.tensors.setdefault(key, stored)
        self.clash |= not _equal(first.value, stored.value)

    def fits(self, expected: Mapping[str, Tensor]) -> bool:
        """Whether every shape is the network's."""
        return all(stored.value.shape == expected[key].shape for key, stored in self.tensors.items())

    def equals(self, other: "Weights") -> bool:
        """Whether the other holds the same numbers."""
        return all(
            _equal(one.value, other.tensors[key].value) for key, one in self.tensors.items() if key in other.tensors
        )

    def holds(self, stored: Stored) -> bool:
        """Whether the tensor lies below this place."""
        return _below(stored.words(self.removed), self.place)


def stored_tensors(loaded: Mapping[Any, Any]) -> list[Stored]:
    """Every tensor under a name, in the file's order, whatever mappings it lies in; each mapping is entered once."""
    return list(_walk(loaded, (), set()))


def complete_sets(stored: list[Stored], expected: Mapping[str, Tensor]) -> tuple[list[Weights], Weights]:
    """The places of the file that hold every tensor of the network, and the one that comes nearest to it.

    Wrappers' words are cut out of the file's keys and the network's, as few as it takes.
    """
    required = {key for key in expected if not is_counter(key)}
    whole: dict[frozenset[int], Weights] = {}
    nearest = Weights(())
    for removed in _levels(stored, expected):
        for head in dict.fromkeys(((), _common_head(expected))):
            names = {_cut(key, removed, head): key for key in expected}
            if len(names) < len(expected):
                continue  # two of the network's keys would become one
            for weights in _places(stored, names, removed):
                overlap, best = (len(one.tensors.keys() & required) for one in (weights, nearest))
                nearest = weights if (overlap, -weights.rank) > (best, -nearest.rank) else nearest
                if overlap == len(required) and not weights.clash:
                    whole.setdefault(frozenset(id(weights.tensors[key]) for key in required), weights)
    return list(whole.values()), nearest


def preferred(sets: list[Weights], expected: Mapping[str, Tensor]) -> list[Weights]:
    """The sets that can be meant: of the network's shapes, plain ones before moving averages, equal ones once."""
    fitting = [weights for weights in sets if weights.fits(expected)] or sets
    lowest = min(weights.rank for weights in fitting)
    first, *others = [weights for weights in fitting if weights.rank == lowest]
    return [first, *(other for other in others if not first.equals(other))]


def leftovers(chosen: Weights, stored: list[Stored]) -> dict[str, Stored]:
    """The tensors beside the network's in the same mappings: by their name within the network, or within the file."""
    trails = {one.trail for one in chosen.tensors.values()}
    used = {id(one) for one in chosen.tensors.values()}
    return {_name(one, chosen): one for one in stored if one.trail in trails and id(one) not in used}


def only_for_training(name: str, one: Stored, expected: Iterable[str]) -> bool:
    """Whether a tensor beside the network's is a loss's, a moving average's or a counter's.

    A layer may bear the word for an average, as efficient multi-scale attention does: averages are of the network's own
    tensors.

    Args:
        expected: the network's keys.
    """
    words = name.split(".")
    if (words[-1] in COUNTERS and one.value.numel() == 1) or any(TRAINING.search(word) for word in words):
        return True
    if not any(AVERAGE.search(word) for word in words):
        return False
    rest = [word for word in words if not AVERAGE.search(word)]
    return one.value.numel() == 1 or _bare(rest) in {_bare(key.split(".")) for key in expected}


def _bare(words: Iterable[str]) -> str:
    """A key without wrappers' words and dots, which some averages leave out."""
    return "".join(word for word in words if word not in NEUTRAL)


def unwrapped(stored: list[Stored]) -> tuple[dict[str, Tensor], tuple[str, str]]:
    """The likeliest state dict where no network tells, with its nesting and the prefix that was cut."""
    trails: dict[tuple[str, ...], list[Stored]] = defaultdict(list)
    for one in stored:
        trails[one.trail].append(one)
    trail = min(trails, key=lambda trail: (rank(trail), -len(trails[trail])))
    plain = [one.key for one in trails[trail] if not any(AVERAGE.search(word) for word in one.key.split("."))]
    kept = [one for one in trails[trail] if not only_for_training(one.key, one, plain)] or trails[trail]
    names = {_cut(one.key, frozenset(MARKERS)): one for one in kept}
    names = names if len(names) == len(kept) else {one.key: one for one in kept}
    head = _neutral_words(names)
    names = {".".join(key.split(".")[head:]): one for key, one in names.items()}
    return state_of(names), ("/".join(trail), cut_words([(one.key, name) for name, one in names.items()]))


def state_of(tensors: Mapping[str, Stored]) -> dict[str, Tensor]:
    """The tensors; as torch has it, `_metadata` says which version of each module wrote them, where the file does."""
    state: Any = OrderedDict((key, one.value) for key, one in tensors.items())
    state._metadata = {}
    for key, one in tensors.items():
        inner, outer = f".{key}", f".{one.key}"
        while inner and inner.rpartition(".")[2] == outer.rpartition(".")[2]:
            inner, outer = inner.rpartition(".")[0], outer.rpartition(".")[0]
            said = one.versions.get(outer[1:])
            if isinstance(said, Mapping) and isinstance(said.get("version"), int):
                state._metadata[inner[1:]] = {"version": said["version"]}
    return state


def cut_words(pairs: list[tuple[str, str]]) -> str:
    """What was cut from the file's keys to give the network's, as a dotted prefix: the most that any key lost."""
    lost = [_lost(key.split("."), name.split(".")) for key, name in pairs]
    return "".join(f"{word}." for word in max(lost, key=len, default=[]))


def rank(words: tuple[str, ...]) -> int:
    """0 for words that do not say whose weights follow, 2 where one speaks of a moving average, else 1."""
    if any(AVERAGE.search(word) for word in words):
        return 2
    return 0 if NEUTRAL.issuperset(words) else 1


def is_counter(key: str) -> bool:
    """Whether it counts BatchNorm's batches: old checkpoints lack it, and nothing but a momentum of None reads it."""
    return key.endswith("num_batches_tracked")


def _walk(loaded: Mapping[Any, Any], trail: tuple[str, ...], entered: set[int]) -> Iterator[Stored]:
    entered.add(id(loaded))
    versions = getattr(loaded, "_metadata", None)
    for key, value in loaded.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            yield Stored(trail, key, value, versions if isinstance(versions, Mapping) else {})
        elif isinstance(key, str) and isinstance(value, Mapping) and len(trail) < DEEPEST and id(value) not in entered:
            yield from _walk(value, (*trail, key), entered)


def _levels(stored: list[Stored], expected: Mapping[str, Tensor]) -> list[frozenset[str]]:
    """The sets of words to cut out, those left out that no key has."""
    present = {word for one in stored for word in one.words()} | {word for key in expected for word in key.split(".")}
    return list(dict.fromkeys(removed & present for removed in LEVELS))


def _places(stored: list[Stored], names: Mapping[str, str], removed: frozenset[str]) -> list[Weights]:
    """What matches any of the network's `names` (without removed words, to its keys), by what stands in front of it."""
    places: dict[tuple[str, ...], Weights] = {}
    for one in stored:
        words = one.words(removed)
        for start in range(len(words)):
            if key := names.get(".".join(words[start:])):
                place = tuple(words[:start])
                places.setdefault(place, Weights(place, removed)).add(key, one)
    return list(places.values())


def _common_head(keys: Iterable[str]) -> tuple[str, ...]:
    """The words that all keys open with."""
    columns = zip(*(key.split(".")[:-1] for key in keys), strict=False)
    head: list[str] = []
    for words in columns:
        if len(set(words)) > 1:
            break
        head.append(words[0])
    return tuple(head)


def _neutral_words(keys: Iterable[str]) -> int:
    """How many words all keys open with that do not say whose weights follow."""
    head = _common_head(keys)
    return next((count for count, word in enumerate(head) if word not in NEUTRAL), len(head))


def _cut(key: str, removed: frozenset[str], head: tuple[str, ...] = ()) -> str:
    return ".".join(word for word in key.split(".")[len(head) :] if word not in removed)


def _name(one: Stored, chosen: Weights) -> str:
    words = one.words(chosen.removed)
    return ".".join(words[len(chosen.place) :]) if _below(words, chosen.place) else one.key


def _below(words: list[str], place: tuple[str, ...]) -> bool:
    return tuple(words[: len(place)]) == place


def _lost(words: list[str], kept: list[str]) -> list[str]:
    """The words without those kept, which are matched from the end."""
    rest = list(kept)
    lost: list[str] = []
    for word in reversed(words):
        if rest and rest[-1] == word:
            rest.pop()
        else:
            lost.insert(0, word)
    return lost


def _equal(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    alike = one.shape == other.shape and one.dtype == other.dtype and one.layout == other.layout == torch.strided
    return alike and one.device == other.device and one.device.type != "meta" and torch.equal(one, other)
