"""The tables of a report that say how its figures came about: time, networks, frames in their order, settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from allweather.report.collect import Group
from allweather.report.published import MILLISECONDS
from allweather.report.table import Cell, Table
from allweather.runs.summary import seconds_of_updates, updates_of
from allweather.scoring.means import mean_of


def timing_table(groups: Sequence[Group]) -> Table:
    """Seconds, updates and memory; the form of the paper's Tables 2 and 3, whose milliseconds stand beside."""
    rows: list[list[Cell]] = []
    machines = {group.records[0]["versions"]["machine"] for group in groups}
    per_update = {(group.setting, group.label): _milliseconds(group) for group in groups}
    for group in groups:
        seconds, paper = group.per_image("seconds"), MILLISECONDS.get((group.model, group.method))
        tent = next((v for (s, label), v in per_update.items() if s == group.setting and label == "tent" and v), None)
        own = per_update[group.setting, group.label]
        same = group.records[0]["run"]["batch"] == 12 and _size(group) == "1024x512"
        rows.append(
            [
                f"{group.network}, {group.where}, {group.how}{group.scored}", group.label,
                mean_of(seconds),
                mean_of(group.per_image("iterations")), own, own / tent if own and tent else None,
                mean_of(record.get("peak_memory_mib") for record in group.records),
                None if paper is None else f"{paper}{'' if same else '†'}",
                group.records[0]["versions"]["machine"] if len(machines) > 1 else None,
            ]
        )  # fmt: skip
    columns = ("network, stream", "method", "s per image", "updates", "ms per update", "× tent", "peak MiB",
               "published ms", "machine")  # fmt: skip
    alone = f" Machine: {next(iter(machines))}." if len(machines) == 1 else ""
    note = (
        "ms per update: of a whole batch, prediction included; runs may have shared the machine with others."
        f"{alone} Published: Tables 2 and 3, batch 12, 1024×512, hardware not stated; † ours at another size or batch."
    )
    return Table("Time and memory", columns, rows, note, grouped=True, stacked=True)


def provenance_tables(groups: Sequence[Group]) -> list[Table]:
    """What a reader needs to repeat the figures: networks, frames, settings, versions."""
    return [_networks(groups), _frames(groups), _settings(groups), _versions(groups)]


def _networks(groups: Sequence[Group]) -> Table:
    rows = _unique(
        [group.network, record["model"]["weights"] or "those that come along", record["model"]["sha256"] or "–"]
        for group in groups
        for record in group.records
    )
    return Table("Networks", ("network", "weights", "sha256"), rows, stacked=True)


def _frames(groups: Sequence[Group]) -> Table:
    rows = _unique(
        [
            group.where, record["frames"], f"{record['run']['order']}, seed {record['run']['seed']}",
            record["order_hash"][:16], _resolution(record), len(record["failures"]) or None,
        ]
        for group in groups
        for record in group.records
    )  # fmt: skip
    columns = ("stream", "frames", "order", "sha256 of the order", "sizes", "unread")
    note = "Sizes: as stored → seen by the network → scored. Unread: frames that could not be read or scored."
    return Table("Frames and their order", columns, rows, note, grouped=True, stacked=True)


def _resolution(record: Mapping[str, Any]) -> str | None:
    found = record.get("resolution")
    if found is None:
        return None
    return " → ".join(", ".join(found[kind][:2]) + (" …" if len(found[kind]) > 2 else "")
                      for kind in ("stored", "input", "scored")).replace("x", "×")  # fmt: skip


def _settings(groups: Sequence[Group]) -> Table:
    """Every setting of method and guard; runs of one method that differ in any are rows of their own."""
    rows = _unique(
        [
            group.label, f"{record['prediction']}, {record.get('views', 1)} view",
            _spelt(record["session"]["method"], "name"), _spelt(record["session"]["guard"]),
        ]
        for group in groups
        for record in group.records
        if "session" in record
    )  # fmt: skip
    return Table("Settings", ("method", "prediction", "fields", "guard"), rows, stacked=True)


def _versions(groups: Sequence[Group]) -> Table:
    rows = _unique(
        [", ".join(f"{key} {value}" for key, value in record["versions"].items()), str(record.get("finished", ""))[:10]]
        for group in groups
        for record in group.records
    )
    return Table("Versions", ("software and machine", "finished"), rows)


def _unique(rows: Iterable[list[Cell]]) -> list[list[Cell]]:
    return list({repr(row): row for row in rows}.values())


def _spelt(settings: Mapping[str, Any], *without: str) -> str:
    return "; ".join(f"{key} {_short(value)}" for key, value in settings.items() if key not in without)


def _short(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _milliseconds(group: Group) -> float | None:
    """Of one update of a batch; None where none was made, or a record does not tell how many, or in which seconds."""
    told = [(updates_of(record), seconds_of_updates(record)) for record in group.records]
    known = [(updates, seconds) for updates, seconds in told if updates is not None and seconds is not None]
    updates, seconds = (sum(numbers) for numbers in zip((0.0, 0.0), *known, strict=True))
    return 1000 * seconds / updates if updates and len(known) == len(told) else None


def _size(group: Group) -> str | None:
    size: str | None = group.records[0]["run"]["model"].get("size")
    return size or (None if group.scoring == "native" else group.scoring)
