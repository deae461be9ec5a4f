"""Whether a record is what its run would give today: the same run, settings, guard, weights and data."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from allweather import methods
from allweather.data.labelled import LabelledStream
from allweather.methods.method import Method
from allweather.methods.settings import path_fields
from allweather.models.segmenter import Segmenter
from allweather.runs.plan import LATER, PlannedRun
from allweather.runs.record import named_files
from allweather.runs.summary import per_image
from allweather.runs.variables import make_method


def outdated(record: Mapping[str, Any], entry: PlannedRun, model: Segmenter) -> list[str]:
    """What the record was made with that differs today, as dotted keys; a preset's values may have changed since.

    Settings that only one side knows do not count: a field that is new leaves old records as they are, unless its
    default does what nothing did before (`option(absent=…)`). Nor does the guard where nothing was updated, for then it
    had nothing to judge.
    """
    method = make_method(entry.method, model)
    weights = model.provenance
    updated = any(per_image(record, "iterations"))
    guard = {"guard": asdict(entry.method.limits())} if updated or not method.episodic else {}
    moved = path_fields(type(method))  # what a plan says of those is in its run; here they are as found from somewhere
    settings = {name: value for name, value in methods.settings_of(method).items() if name not in moved}
    now = {
        "session": {"method": settings, **guard, **named_files(method)},
        "model": {"sha256": weights and weights.sha256} if record["model"].get("sha256") else {},
    }
    return _differing(_filled(record, method), json.loads(json.dumps(now)), "")


def other_data(record: Mapping[str, Any], labelled: LabelledStream, data_hash: str | None) -> list[str]:
    """What a record says of its data that differs today, as keys; older records say nothing of the files.

    Args:
        labelled: the frames in the run's order.
        data_hash: of its files.
    """
    stream = labelled.stream
    now = {"frames": len(stream), "order_hash": stream.order_hash, "data_hash": data_hash}
    return _differing(record, now, "")


def other_code(record: Mapping[str, Any], entry: PlannedRun) -> list[str]:
    """Which code of the user's own differs from a record's, as dotted keys with its name; nothing for another run's."""
    before, now = record.get("run", {}), json.loads(json.dumps(entry.content))
    differing = [part for part in LATER if before.get(part, {}).get("code") != now[part].get("code")]
    if before != {**now, **{part: _with_code_of(now[part], before.get(part, {})) for part in differing}}:
        return []
    return [f"run.{part}.code ({now[part]['name']})" for part in differing]


def _with_code_of(part: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    bare = {key: value for key, value in part.items() if key != "code"}
    return {**bare, "code": other["code"]} if "code" in other else bare


def _filled(record: Mapping[str, Any], method: Method) -> dict[str, Any]:
    """The record with the values that fields had in effect before there were such fields."""
    session = record.get("session", {})
    entries = getattr(method, "__dataclass_fields__", {}).values()
    absent = {entry.name: entry.metadata["absent"] for entry in entries if entry.metadata.get("absent") is not None}
    return {**record, "session": {**session, "method": {**absent, **session.get("method", {})}}}


def _differing(before: Any, now: Any, key: str) -> list[str]:
    """As dotted keys, down to single settings."""
    if key.count(".") < 2 and isinstance(before, Mapping) and isinstance(now, Mapping):
        shared = [name for name in now if name in before]
        return [found for name in shared for found in _differing(before[name], now[name], f"{key}.{name}".strip("."))]
    return [] if before == now else [key]
