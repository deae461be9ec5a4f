"""Records grouped by what they measured."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from allweather.methods import METHODS, describe_fields, make
from allweather.report.apart import names_of, scored_at
from allweather.report.derived import miou_of, with_derived_figures
from allweather.report.refusals import mark, of_records
from allweather.runs.decisions import STREAM_PASSES, Counts
from allweather.runs.summary import Record, image_count, interval_of, is_summary, paired, per_image, same_truth
from allweather.scoring.intervals import (
    ImageCounts,
    Interval,
    counts_of,
    image_differences,
)
from allweather.scoring.means import mean_of

VIEWS = {"views", "mirror"}  # the fields that name them, today and before
FREE_RUNNING = 1000  # patience from which early stopping counts as switched off


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed and order only.

    Attributes:
        stream, model, method, preset, scoring: what was run, as the plan names it.
        where, network, how: stream, network and protocol for people, with all that tells settings apart: other labels
            under the stream's name too.
        fields, guard, adapt_when: the method's fields and the guard's that the plan sets, and when it adapts.
        records: of the runs, at least one.
        label: the method as tables show it, the same for equal settings only.
        on_curve: whether runs of it with other numbers of iterations, or until the rule stops them, are there too.
        scored: the scoring in words where others are there too.
    """

    stream: str
    model: str
    method: str
    preset: str
    scoring: str
    where: str
    network: str
    how: str
    fields: tuple[tuple[str, Any], ...]
    guard: tuple[tuple[str, Any], ...]
    adapt_when: str
    records: tuple[Record, ...]
    label: str = ""
    on_curve: bool = False
    scored: str = ""

    @property
    def setting(self) -> tuple[str, str, str, str]:
        """What must be equal for two methods to be compared."""
        return self.where, self.network, self.how, self.scoring

    @property
    def place(self) -> str:
        return f"{self.where}, {self.network}, {self.how}{self.scored}"

    @property
    def first(self) -> str:
        """Said where the first of several runs stands alone."""
        return f", run 1 of {len(self.records)}" if len(self.records) > 1 else ""

    @property
    def given(self) -> str:
        """Stream and network, as the records have them whole."""
        run = self.records[0]["run"]
        return json.dumps([run["stream"], run["model"]], sort_keys=True)

    @property
    def in_passes(self) -> bool:
        """Whether frames were learnt from in passes over the stream; their updates are then sums over these."""
        return any(STREAM_PASSES in record for record in self.records)

    @property
    def thinned(self) -> bool:
        """Whether only a part of the stream's frames was taken."""
        return int(self.records[0]["run"]["stream"].get("every", 1)) > 1

    @property
    def series(self) -> str:
        """The method and its fields, but for how many iterations it makes."""
        return self._spelt([])

    @property
    def short(self) -> str:
        """The method without how its rule is set, which other settings may share."""
        if (most := self._whole("iterations")) is None:
            return self.series
        updates = f"{most} update{'s' if most > 1 else ''}"
        return self._spelt([updates if self._fixed is not None else f"stopped, at most {most}"])

    def _spelt(self, first: list[str]) -> str:
        preset = "" if self.preset == "recommended" or self.method == "source" else f" ({_preset(self)})"
        shown = [f"{k} {_short(v)}" for k, v in self.fields if not k.startswith("stop_") and k != "iterations"]
        shown += [f"guard {k} {_short(v)}" for k, v in self.guard]
        shown = first + shown + self.older + (["only on a shift"] if self.adapt_when == "shift" else [])
        return f"{self.method}{preset}{': ' if shown else ''}{', '.join(shown)}"

    @property
    def views(self) -> tuple[str, ...]:
        """What the predictions were the mean over, as the first record says."""
        views = self.settings.get("views")
        if isinstance(views, list):
            return tuple(views)
        return ("plain", "mirror") if self.settings.get("mirror") else ("plain",)  # as older records say it

    @property
    def older(self) -> list[str]:
        """How the records predict otherwise than the preset does today, where the plan leaves that to the preset."""
        settings = self.settings
        if self.method not in METHODS:
            return []
        today, named, found = make(self.method, self.preset), dict(self.fields).keys(), []
        if settings.keys() & VIEWS and not named & VIEWS and self.views != today.views:
            found.append(f"views {','.join(self.views)}")
        for entry in fields(today) if settings else ():  # type: ignore[arg-type]  # a method is a dataclass
            known = entry.name in settings.keys() | named
            if not known and entry.metadata.get("before") and getattr(today, entry.name) != entry.metadata["absent"]:
                found.append(entry.metadata["before"])
        return found

    @property
    def is_source(self) -> bool:
        """Whether it is the network as it came; with fields, such as views, it is a method like others."""
        return self.method == "source" and not self.fields and self.adapt_when == "always"

    @property
    def ruled(self) -> bool:
        """Whether the method has a rule that can end its iterations."""
        known = describe_fields(METHODS[self.method]).keys() if self.method in METHODS else set()
        return any(name.startswith("stop_") for name in known | self.settings.keys())

    @property
    def settings(self) -> Mapping[str, Any]:
        """All fields of the method as the first record has them; none in records of before they were recorded."""
        found: Mapping[str, Any] = self.records[0].get("session", {}).get("method", {})
        return found

    @property
    def free_iterations(self) -> int | None:
        """Iterations per batch of a point of a curve; None of what stands on its own."""
        return self._fixed if self.on_curve else None

    @property
    def on_its_own(self) -> bool:
        """Whether tables show it on its own; points of a curve are shown by the curve alone."""
        return self.free_iterations is None

    @property
    def _fixed(self) -> int | None:
        """Iterations per batch where the plan sets them and nothing ends them early."""
        most, patience = self._whole("iterations"), self._whole("stop_patience")
        free = most == 1 or not self.ruled or (patience is not None and patience >= FREE_RUNNING)
        return most if free else None

    def _whole(self, field: str) -> int | None:
        """A whole number among the fields that the plan sets."""
        value = dict(self.fields).get(field)
        return value if isinstance(value, int) else None

    @property
    def decisions(self) -> list[Counts]:
        """How many frames met each kind of decision, for each run."""
        return of_records(self.records)

    @property
    def marked(self) -> str:
        """The label, with a mark where the runs measure the guard more than the method."""
        return mark(self.label, self.decisions)

    def mean(self, figure: str) -> float:
        """Mean of a figure over the runs; NaN where a run has none.

        `mIoU` is over the classes in the truth, so that methods compare; the official one is `official_miou`.
        """
        values = [miou_of(record) if figure == "mIoU" else record["figures"].get(figure) for record in self.records]
        return float(np.mean([np.nan if value is None else value for value in values]))

    @property
    def spread(self) -> float | None:
        """Standard deviation of mIoU over the runs, in points; None for a single one."""
        if len(self.records) < 2:
            return None
        return float(np.std([miou_of(record) for record in self.records], ddof=1))

    @property
    def official_miou(self) -> float:
        """Mean over the runs of mIoU in % over the classes true or predicted, which may differ between methods."""
        return float(np.mean([record["figures"]["mIoU"] for record in self.records]))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval over images of `mean("mIoU")`, in %, mean over the runs."""
        found = [interval_of(record) for record in self.records]
        low, high = (100 * float(np.mean([ends[side] for ends in found])) for side in (0, 1))
        return low, high

    def per_image(self, key: str) -> list[float]:
        """The number under `key` of every image of every run that has it."""
        return [value for record in self.records for value in per_image(record, key)]

    @property
    def seconds(self) -> float:
        """Seconds per image, mean over the runs."""
        return float(np.mean([record["seconds"] / image_count(record) for record in self.records]))

    @property
    def pieces(self) -> list[str]:
        """The pieces of the runs' sequence, such as 01/fog, in their order; none for a single stream."""
        return list(self.records[0].get("parts", ()))

    def piece(self, part: str, figure: str = "mIoU") -> float | None:
        """A figure of one piece of the runs' sequence, in %, the mean over runs; None where none has it.

        Args:
            part: the piece, such as 01/fog.
            figure: its name in a record.
        """
        return mean_of(record.get("parts", {}).get(part, {}).get(figure) for record in self.records)


def group_records(records: Iterable[Record]) -> list[Group]:
    """Records by everything but seed and order, in a stable order: methods as the catalogue has them.

    Figures that follow from a record's confusion matrix are computed anew, so that old records have the newest too.
    """
    gathered: dict[str, list[Record]] = {}
    for record in map(with_derived_figures, records):
        run = {key: value for key, value in record["run"].items() if key not in ("seed", "order")}
        gathered.setdefault(json.dumps(run, sort_keys=True), []).append(record)
    runs = [found[0]["run"] for found in gathered.values()]
    places = names_of([run["stream"] for run in runs], _where)
    networks = names_of([run["model"] for run in runs], _network)
    groups = [
        _group(tuple(found), place, network)
        for found, place, network in zip(gathered.values(), places, networks, strict=True)
    ]
    return sorted(_labelled(groups), key=_place)


def _labelled(groups: Sequence[Group]) -> list[Group]:
    """The groups with labels that tell settings apart, and what is part of a curve marked as such."""
    runs = Counter((group.setting, group.series) for group in groups if group.ruled and group._whole("iterations"))
    marked = [replace(group, on_curve=group.ruled and runs[group.setting, group.series] > 1) for group in groups]
    if len({group.scoring for group in groups}) > 1:
        marked = [replace(group, scored=f", scored at {scored_at(group.scoring)}") for group in marked]
    hidden: dict[str, set[str]] = {}
    for group in marked:
        hidden.setdefault(group.short, set()).update(dict(group.fields))
    labels = names_of([_told(group, hidden[group.short]) for group in marked], lambda spec: str(spec["label"]))
    return [replace(group, label=label) for group, label in zip(marked, labels, strict=True)]


def _told(group: Group, names: Iterable[str]) -> dict[str, Any]:
    """What a setting is: its label and code of the user's own, and fields by name, as set or as in effect."""
    code, given = group.records[0]["run"]["method"].get("code", ""), dict(group.fields)
    return {"label": group.short, "code": code, **{name: given.get(name, group.settings.get(name)) for name in names}}


def _group(records: tuple[Record, ...], where: str, network: str) -> Group:
    run = records[0]["run"]
    model, stream, method = run["model"], run["stream"], run["method"]
    extras = (
        f"batch {run['batch']}" if run["batch"] > 1 else "",
        run.get("precision", "float32").removeprefix("float32"),
        run.get("device", "cpu").removeprefix("cpu"),
    )
    return Group(
        stream=stream["name"],
        model=model["name"],
        method=method["name"],
        preset=method["preset"],
        scoring=run["scoring"],
        where=where,
        network=network,
        how=", ".join([run["protocol"], *filter(None, extras)]),
        fields=tuple(sorted(method["fields"].items(), key=lambda item: item[0])),
        guard=tuple(sorted(method.get("guard", {}).items())),
        adapt_when=method.get("adapt_when", "always"),
        records=records,
    )


def _where(stream: Mapping[str, Any]) -> str:
    every = stream.get("every", 1)
    return f"{stream['name']}" + (f", one frame in {every}" if every > 1 else "")


def _network(model: Mapping[str, Any]) -> str:
    given = ", ".join(f"{name} {_short(value)}" for name, value in model.get("arguments", {}).items())
    return (
        model["name"]
        + (f" ({given})" if given else "")
        + (f" at {model['size'].replace('x', '×')}" if model.get("size") else "")
    )


def _place(group: Group) -> tuple[Any, ...]:
    known = list(METHODS)
    method = known.index(group.method) if group.method in known else len(known)
    ruled, fixed = group.on_its_own, group.free_iterations or 0
    set_by_plan = (*group.fields, *group.guard)
    return group.setting, method, group.preset != "recommended", ruled, fixed, bool(set_by_plan), repr(set_by_plan)


def source_of(group: Group, groups: Iterable[Group]) -> Group | None:
    """The unadapted network on the same frames and labels; under another protocol it is the same."""
    kin = [other for other in groups if other.is_source and other.given == group.given]
    same = [other for other in kin if other.scoring == group.scoring]
    return next((other for other in same if other.how == group.how), same[0] if same else None)


def against(group: Group, source: Group) -> Interval | None:
    """Paired difference to the source in [0, 1], averaged over the runs; None where images differ."""
    found = [paired(source.records[0], record) for record in group.records]
    intervals = [interval for interval in found if interval is not None]
    if len(intervals) < len(found):
        return None
    value, low, high = (float(np.mean([getattr(i, key) for i in intervals])) for key in ("value", "low", "high"))
    return Interval(value, low, high, intervals[0].level)


def changes(group: Group, source: Group) -> list[tuple[str, float]]:
    """Each image's mIoU minus the source's, in points, mean over the runs, the worst first.

    Both over one set of classes, those in the image's truth; images without any are left out. Nothing where only
    summaries of the records are at hand.
    """
    if any(is_summary(record) for record in (source.records[0], *group.records)):
        return []
    before = {image["name"] for image in source.records[0]["images"]}
    gathered: dict[str, list[float]] = {}
    for record in group.records:
        names = [image["name"] for image in record["images"] if image["name"] in before]
        both = _counts(source.records[0], record, names)
        if both is None:
            continue
        for name, change in zip(names, image_differences(*both), strict=True):
            if not np.isnan(change):
                gathered.setdefault(name, []).append(100 * float(change))
    return sorted(((name, float(np.mean(values))) for name, values in gathered.items()), key=lambda item: item[1])


def _counts(source: Record, record: Record, names: Sequence[str]) -> tuple[ImageCounts, ImageCounts] | None:
    """Both records' counts over these images; None without an image, or where the labels are others."""
    if not names or len(source["figures"]["IoU"]) != len(record["figures"]["IoU"]) or not same_truth(source, record):
        return None
    return counts_of(source, names), counts_of(record, names)


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_short(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _preset(group: Group) -> str:
    """A preset as tables show it; a `paper` that is not all the authors' says so."""
    method = METHODS.get(group.method) if group.preset == "paper" else None
    return f"{group.preset}, reconstructed" if method is not None and method.reconstruction else group.preset
