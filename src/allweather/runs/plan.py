"""Plans: a grid of models × methods × streams × seeds × orders × protocols, written as TOML."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from allweather import methods
from allweather.data.datasets import DATASETS
from allweather.data.datasets.own import OWN_DATASETS
from allweather.data.toml_file import read_toml
from allweather.data.truth import LabelsAs
from allweather.errors import SettingsError, check_known
from allweather.methods import METHODS
from allweather.methods.own import ADAPTATIONS, find_method
from allweather.methods.settings import parse_fields, path_fields, paths_in
from allweather.models.catalogue import is_own
from allweather.models.own import NETWORKS
from allweather.plugins import code_digest, names_code
from allweather.runs.evaluate import Protocol
from allweather.runs.plan_checks import SCENES, check_device, check_pieces, check_seeds, size_of_network
from allweather.runs.plan_sections import FIELDS, Named, build, read_section
from allweather.session import AdaptWhen, Guard, Precision
from allweather.session.guard import guard_of
from allweather.sizes import check_size

ORDERS = ("natural", "reversed", "shuffled")  # shuffled by the run's seed
NATIVE = "native"  # sizes: each frame's, each label's own
SCORINGS = (NATIVE, "1024x512")
SECTIONS = ("models", "streams", "methods", "run")
LONGEST = 230  # characters of a file's name before its digest; with that, a lock's name is one that file systems take
PIECE = "{}"  # in folders of a sequence, where the piece's name goes
# what runs did not always say, and what it was then; left out where it is that, so that old records stay
LATER: Mapping[str, Mapping[str, Any]] = {
    "model": {"arguments": {}, "classes": None, "mean": (), "std": (), "code": ""},
    "stream": {"code": "", "labels_as": None},
    "method": {"adapt_when": "always", "guard": {}, "code": ""},
}


@dataclass(frozen=True)
class ModelSpec(Named):
    """A network of a plan: its name, checkpoint (variables like ${ROOT} allowed) and input size.

    Attributes:
        name: `scheme:name`, or one of the user's own as `mynets.py:build`.
        size: WIDTHxHEIGHT to which frames are resampled, or `native`, which keeps each one's own. None is the size that
            they are scored at; a plan that is read has that of the network's authors there where they have one.
        arguments: of the user's own factory.
        classes: the class set's name, or a file of classes of one's own, for libraries' and own networks.
        mean, std: three numbers each, for own networks.
    """

    name: str
    weights: str | None = None
    size: str | None = None
    arguments: FIELDS = field(default_factory=dict)
    classes: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        pixels(self.size)
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, 3):
                raise SettingsError(f"model '{self.name}' {key}: expected three numbers, got {list(values)}.")

    def digest(self) -> str:
        own = code_digest(self.located(self.name), NETWORKS) if is_own(self.name) else ""
        return _joined(own, _digest_of_classes(self))

    def filled(self) -> Self:
        published = size_of_network(self.located(self.name))  # which knows the name, or says so
        return replace(self, size=self.size or published)


@dataclass(frozen=True)
class StreamSpec(Named):
    """Frames with labels: a split of a dataset, a folder of images and one of labels, or a sequence of such pieces.

    Attributes:
        name: `dataset` or `dataset:split`, where the dataset may be your own (`mydata.py:MyDataset:split`);
            `scenes:WEATHER` for procedural scenes; or any name beside `images` and `labels`.
        root: the dataset's folder; may contain variables such as ${ROOT}.
        images, labels: folders whose files share names. `images` may be a video; its labels are named after the numbers
            of its frames, 000000.png being the first.
        classes: name of the class set in `labels`, or a file of classes of one's own.
        every: takes only each n-th frame, from 1.
        sequence: pieces that follow each other without a reset: `dataset:split` below `root`, `scenes:WEATHER`, or what
            replaces `{}` in `images` and `labels`.
        rounds: how many times the sequence is played.
        labels_as: as `score --labels-as`, of the files in `labels`.
    """

    name: str
    root: str | None = None
    images: str | None = None
    labels: str | None = None
    classes: str = "cityscapes"
    every: int = 1
    sequence: tuple[str, ...] = ()
    rounds: int = 1
    labels_as: LabelsAs | None = None
    needs: ClassVar = {"classes": "labels", "rounds": "sequence"}

    def __post_init__(self) -> None:
        folders = self.images is not None and self.labels is not None
        ways = (self.root is not None) + folders + self.procedural
        if ways != 1 or (self.images is None) != (self.labels is None) or (self.labels_as and not folders):
            raise SettingsError(
                f"stream '{self.name}': expected either root, or both images and labels, and labels_as only there."
            )
        if self.every < 1 or self.rounds < 1:
            raise SettingsError(f"stream '{self.name}': every and rounds are at least 1.")
        if folders and any(bool(self.sequence) != (PIECE in f"{path}") for path in (self.images, self.labels)):
            raise SettingsError(f"stream '{self.name}': {PIECE} stands in images and labels of a sequence, only there.")

    def digest(self) -> str:
        pieces = () if self.root is None else self.sequence or (self.name,)
        own = [piece for piece in pieces if piece.partition(":")[0] not in DATASETS]
        codes = dict.fromkeys(code_digest(self.located(piece), OWN_DATASETS) for piece in own)
        return _joined(*codes, _digest_of_classes(self))

    @property
    def procedural(self) -> bool:
        """Whether its frames are rendered."""
        return all(piece.startswith(SCENES) for piece in self.sequence or (self.name,))


@dataclass(frozen=True)
class MethodSpec(Named):
    """A method with preset and fields; `seeds` and `orders` take the place of the plan's where given.

    Attributes:
        name: of the table, or one's own as `mymethod.py:MyMethod`.
        adapt_when: `always`, or `shift`: frames that the source network knows are predicted by it, unadapted.
        guard: limits of the collapse guard, as `{ enabled = false }`.
    """

    name: str
    preset: str = "recommended"
    fields: FIELDS = field(default_factory=dict)
    adapt_when: str = "always"
    guard: FIELDS = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    orders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _known("order", self.orders, ORDERS)
        _known("adapt_when", (self.adapt_when,), get_args(AdaptWhen))
        check_seeds(self.seeds)
        self.limits()
        if names_code(self.fields.get("views")):
            raise SettingsError(
                f"method '{self.name}' views: a plan's records cannot say what a function of your own is. Write a "
                "method of your own that has it, whose file's digest is in every record."
            )

    def digest(self) -> str:
        return "" if self.name in METHODS else code_digest(self.located(self.name), ADAPTATIONS)

    def named(self) -> dict[str, Any]:
        """The fields that name files or folders, each with its value."""
        method = find_method(self.located(self.name), METHODS)
        names = path_fields(method)
        return parse_fields(method, {name: self.fields[name] for name in self.fields if name in names}, self.name)

    def paths(self) -> list[tuple[str, str]]:
        """The same, each with what it names."""
        return [(name, path) for name, value in self.named().items() for path in paths_in(value)]

    def places(self) -> list[str]:
        return [*super().places(), *self._found(path for _, path in self.paths())]

    def limits(self) -> Guard:
        """The guard of its sessions.

        Raises:
            SettingsError: for what is no field of a guard, or a value that it does not take.
        """
        return guard_of(self.guard)


@dataclass(frozen=True)
class RunSpec:
    """What all runs of a plan share, and the axes that are not models, streams or methods."""

    seeds: tuple[int, ...] = (0,)
    orders: tuple[str, ...] = ("natural",)
    protocol: tuple[str, ...] = ("online",)
    batch: int = 1
    scoring: str = NATIVE
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        _known("order", self.orders, ORDERS)
        _known("protocol", self.protocol, get_args(Protocol))
        _known("scoring", (self.scoring,), SCORINGS)
        _known("precision", (self.precision,), get_args(Precision))
        check_seeds(self.seeds)
        check_device(self.device)
        if self.batch < 1:
            raise SettingsError(f"[run] batch: expected at least 1, got {self.batch}.")


@dataclass(frozen=True)
class PlannedRun:
    """One cell of the grid; its record's file name follows from what it is."""

    model: ModelSpec
    stream: StreamSpec
    method: MethodSpec
    protocol: str
    order: str
    seed: int
    batch: int
    scoring: str
    device: str
    precision: str

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "PlannedRun":
        """The run that a record names; in which folder its plan was, no record says."""
        model, stream, method = ({**content[part], "folder": ""} for part in ("model", "stream", "method"))
        model |= {key: tuple(model.get(key, ())) for key in ("mean", "std")}
        stream["sequence"] = tuple(stream["sequence"])
        method |= {"seeds": (), "orders": ()}
        specs = ModelSpec(**model), StreamSpec(**stream), MethodSpec(**method)
        return cls(*specs, **{name: content[name] for name in ("protocol", "order", "seed", "batch", "scoring")},
                   device=content["device"], precision=content["precision"])  # fmt: skip

    def with_code(self) -> "PlannedRun":
        """With the digests of the user's own code as it is now, where it is of no plan that was read."""
        parts = {key: getattr(self, key) for key in LATER}
        told = {
            key: replace(part, code=code) for key, part in parts.items() if not part.code and (code := part.digest())
        }
        return replace(self, **told) if told else self

    def check_code(self) -> None:
        """Raises SettingsError where code of the user's own is not what it was when the plan was read."""
        for part in (self.model, self.stream, self.method):
            if part.digest() != part.code:
                raise SettingsError(f"{part.name}: its code has changed since the plan was read. Start again.")

    @property
    def content(self) -> dict[str, Any]:
        """Everything that defines the run, ready for JSON; variables in paths unresolved."""
        content = asdict(self)
        for part, keys in LATER.items():
            del content[part]["folder"]
            for key, before in keys.items():
                if content[part][key] == before:
                    del content[part][key]
        return content

    @property
    def identity(self) -> str:
        """sha256 of everything that defines the run, the same on every machine."""
        return _digest(self.content)

    @property
    def title(self) -> str:
        """For people: model, stream, method and what else differs."""
        given = "".join(f" {name}={value}" for name, value in self.model.arguments.items())
        parts = (self.model.name + given, self.stream.name, f"{self.method.name}/{self.method.preset}", self.protocol)
        return f"{' · '.join(parts)} · {self.order} · seed {self.seed}"

    @property
    def file(self) -> str:
        """The record's file name, which stays when code of the user's own changes: the record is then made again."""
        plain = re.sub(r"[^a-z0-9.]+", "-", self.title.lower()).strip("-")
        content = self.content
        for part in LATER:
            content[part].pop("code", None)
        return f"{plain[:LONGEST]}-{_digest(content)[:8]}.json"


@dataclass(frozen=True)
class Plan:
    """The grid, in the order in which it runs."""

    runs: tuple[PlannedRun, ...]


def read_plan(path: Path | str) -> Plan:
    """The plan in a TOML file with `[[models]]`, `[[streams]]`, `[[methods]]` and `[run]`.

    In place of tables a section may name plans that have them: `models = ["one.toml", "other.toml"]`, from its folder.

    Raises:
        AllWeatherError: when it cannot be read, or a key, value or name in it is wrong.
    """
    path = Path(path)
    content = read_toml(path, "plan")
    for key in content:
        check_known("section of a plan", key, SECTIONS)
    models = read_section(path, content, "models", ModelSpec)
    streams = read_section(path, content, "streams", StreamSpec)
    chosen, shared = read_section(path, content, "methods", MethodSpec), content.get("run", {})
    if not isinstance(shared, dict):
        raise SettingsError(f"run: expected one table [run], got {shared!r:.60}.")
    run = build(RunSpec, shared, "[run]")
    for stream in streams:
        if stream.images is None:
            pieces = stream.sequence or (stream.name,)
            check_pieces(map(stream.located, pieces), procedural=stream.procedural)
    for spec in chosen:
        methods.make(spec.located(spec.name), spec.preset, spec.fields)  # a misspelt field must not wait for the run
    return Plan(tuple(_expand(models, streams, chosen, run)))


def _joined(*digests: str) -> str:
    return "+".join(filter(None, digests))


def _digest_of_classes(spec: Named) -> str:
    """Of what a file of one's own says; '' for a name that is known."""
    found = spec.class_set()
    return "" if found is None or found.name == vars(spec)["classes"] else _digest(asdict(found))


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def pixels(size: str | None) -> tuple[int, int] | None:
    """(width, height) from WIDTHxHEIGHT; None from None and `native`.

    Raises:
        AllWeatherError: for anything else.
    """
    if size is None or size == NATIVE:
        return None
    match = re.fullmatch(r"([1-9]\d{,9})x([1-9]\d{,9})", size)
    if not match:
        raise SettingsError(f"size: expected WIDTHxHEIGHT or {NATIVE}, got '{size}'.")
    return check_size((int(match[1]), int(match[2])))


def _expand(
    models: list[ModelSpec], streams: list[StreamSpec], chosen: list[MethodSpec], run: RunSpec
) -> list[PlannedRun]:
    shared = run.batch, run.scoring, run.device, run.precision
    made = [
        PlannedRun(model, stream, replace(method, seeds=(), orders=()), protocol, order, seed, *shared)
        for model, stream, method in product(models, streams, chosen)
        for protocol, order, seed in product(run.protocol, method.orders or run.orders, method.seeds or run.seeds)
    ]
    unique = {entry.file: entry for entry in made}
    return list(unique.values())


def _known(kind: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        check_known(kind, name, known)
