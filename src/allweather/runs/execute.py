"""Running a plan: one record per run, written whole, resumed by record, safe from several processes at once."""

import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import filelock
import numpy as np

from allweather.classes import largest_value
from allweather.data.images import encode_json, spell_json
from allweather.data.labelled import LabelledStream
from allweather.data.labels import mapping_between
from allweather.errors import AllWeatherError, InputError, RandomWeightsWarning, SettingsError
from allweather.models import load_model
from allweather.models.placing import place
from allweather.models.segmenter import Segmenter
from allweather.pictures.writing import write_image
from allweather.runs.evaluate import Protocol, run
from allweather.runs.faults import is_full, why
from allweather.runs.holding import lock_beside
from allweather.runs.memory import peak_memory, reset_peak
from allweather.runs.places import resolve
from allweather.runs.plan import ModelSpec, Plan, PlannedRun, StreamSpec
from allweather.runs.record import provenance
from allweather.runs.record_file import read_record
from allweather.runs.scorer import Scorer
from allweather.runs.stale import other_code, other_data, outdated
from allweather.runs.streams import in_order, list_stream, open_stream
from allweather.runs.variables import make_method
from allweather.session import AdaptWhen, Precision, Session
from allweather.session.snapshot import left_as_it_came
from allweather.writing import place_below, real, unwritable, whole_folder, write_bytes

LOG = logging.getLogger(__name__)
Tick = Callable[[PlannedRun, int, int], None]  # the run, frames done, frames in all
Finished = Callable[[PlannedRun, Mapping[str, Any]], None]  # the run and its record


@dataclass
class Executed:
    """What became of a plan's runs, by record file name.

    Attributes:
        done: runs finished now; `kept` those whose record was there already.
        elsewhere: runs that another process is at.
        outdated: of those done, the ones whose record was there, and which of its settings have changed since.
        failed: why a run could not be made; it has no record and is tried again next time.
        lost: of those done and kept, the frames that could not be read or scored, each with the reason.
    """

    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    outdated: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, dict[str, str]] = field(default_factory=dict)

    def note_lost(self, entry: PlannedRun, record: Mapping[str, Any]) -> None:
        """Takes down which frames a record's figures are without."""
        if record["failures"]:
            self.lost[entry.file] = dict(record["failures"])


def execute(
    plan: Plan,
    out: Path | str,
    tick: Tick = lambda entry, done, total: None,
    finished: Finished = lambda entry, record: None,
    *,
    keep_labels: bool = False,
    network: "LoadedNetwork | None" = None,
) -> Executed:
    """Makes every record of the plan that is not in `out` yet; a run that cannot be made does not stop the others.

    A record whose settings, weights, data or own code are no longer what its run would use today is made again.

    Args:
        tick: called after every frame.
        finished: called after every record that is written.
        keep_labels: the predictions are written too, as PNG files in a folder beside each record, whole or not at
            all; where there is such a folder, a record that is made again fills it again.
        network: keeps what is loaded for a later call too. Only who calls again can say whether the process is still
            fit for it, so that what is raised and is no AllWeatherError then goes on its way.

    Raises:
        AllWeatherError: when `out` cannot be written.
    """
    out, result, last = Path(out), Executed(), network is None
    network = network or LoadedNetwork()
    _make_folder(out)
    for entry in (planned.with_code() for planned in plan.runs):
        path, labels = out / entry.file, labels_folder(out / entry.file)
        try:
            with lock_beside(path).acquire(timeout=0):
                record = _record_at(path)
                try:
                    same = record.get("identity") == entry.identity
                    changed = network.changed(record, entry) if same else other_code(record, entry)
                    if same and not changed and (not keep_labels or _holds_all(labels, record)):
                        result.kept.append(entry.file)
                        result.note_lost(entry, record)
                        continue
                    keep = keep_labels or labels.is_dir()  # another record's predictions must not stand beside this one
                    with whole_folder(labels) as folder:
                        made = make_record(entry, tick, folder if keep else None, network.of(entry))
                        content = encode_json(spell_json(made))  # what JSON cannot hold fails this run alone
                except Exception as error:  # whatever code of the user's own raises
                    if is_full(error) or not (last or isinstance(error, AllWeatherError)):
                        raise
                    result.failed[entry.file] = why(entry.file, error)
                    continue
                write_bytes(path, content, durable=True)
                result.note_lost(entry, made)
                finished(entry, made)
                result.done.append(entry.file)
                if changed:
                    result.outdated[entry.file] = changed
        except filelock.Timeout:
            result.elsewhere.append(entry.file)
    return result


class LoadedNetwork:
    """The network of the run at hand, loaded once for all runs in a row that share it; sessions work on copies.

    Likewise the list of a stream's frames, for records that are there.
    """

    def __init__(self) -> None:
        self._key: tuple[ModelSpec, str, str] | None = None
        self._model: Segmenter | None = None
        self._listed: tuple[tuple[StreamSpec, str], LabelledStream, str | None] | None = None

    def of(self, entry: PlannedRun) -> Segmenter:
        key = entry.model, entry.model.folder, entry.device  # models of one spelling differ from folder to folder
        if self._model is None or self._key != key:
            self._model = None  # two networks at once may not fit
            self._model, self._key = open_model(entry), key
        return self._model

    def changed(self, record: Mapping[str, Any], entry: PlannedRun) -> list[str]:
        """What is no longer as the record says; nothing that cannot be known, for want of the weights or the data."""
        changed: list[str] = []
        with suppress(AllWeatherError):
            changed += outdated(record, entry, self.of(entry))
        with suppress(AllWeatherError, OSError):
            listed, data_hash = self._list(entry.stream)
            changed += other_data(record, in_order(listed, entry), data_hash)
        return changed

    def _list(self, spec: StreamSpec) -> tuple[LabelledStream, str | None]:
        key = spec, spec.folder
        if self._listed is None or self._listed[0] != key:
            listed = list_stream(spec)
            self._listed = key, listed, listed.data_hash()
        return self._listed[1:]


def _holds_all(labels: Path, record: Mapping[str, Any]) -> bool:
    """Whether the predictions of a record's frames are there; a summary does not name its frames."""
    return labels.is_dir() and all((labels / f"{image['name']}.png").is_file() for image in record.get("images", ()))


def labels_folder(record: Path) -> Path:
    """Where the predictions of a record's frames lie, if they were kept."""
    return record.with_suffix("")


def make_record(
    entry: PlannedRun,
    tick: Tick = lambda entry, done, total: None,
    labels: Path | None = None,
    model: Segmenter | None = None,
) -> dict[str, Any]:
    """Runs one cell of the grid; the record says all that is needed to repeat it.

    Args:
        labels: folder for the predictions, H×W indices of the truth's classes as PNG files, of 16 bits where there are
            more than 256; None writes none.
        model: the run's network, if it is loaded already; it is not changed.

    Raises:
        AllWeatherError: when model, stream, method or their classes do not fit, or no frame can be read.
    """
    entry = entry.with_code()
    model = model or open_model(entry)
    reset_peak(entry.device)
    session, labelled = open_session(entry, model), open_stream(entry)
    entry.check_code()  # it has been read by now
    data_hash = labelled.data_hash()
    mapping = mapping_between(model.classes, labelled.classes)
    kind = np.uint8 if largest_value(len(mapping.truth)) < 256 else np.uint16  # one for all of a run's files
    keep = None if labels is None else partial(_write_labels, labels, kind)
    scorer = Scorer(mapping, labelled, model, keep)
    protocol = cast(Protocol, entry.protocol)
    outcomes = run(session, labelled.stream, protocol, entry.batch)
    with left_as_it_came(model):  # other runs begin from it
        for done, outcome in enumerate(outcomes, 1):
            scorer.add(outcome)
            tick(entry, done, len(labelled.stream))
    if not scorer.matrix.counts.any():
        reason = next(iter(scorer.failures.values()), "every pixel of every label is to be ignored")
        raise InputError(f"{entry.title}: no pixel could be scored; {reason}")
    return {
        **_head(entry, session, labelled, protocol),
        **({} if data_hash is None else {"data_hash": data_hash}),
        **scorer.content(),
        "peak_memory_mib": peak_memory(entry.device),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write_labels(folder: Path, kind: type[np.unsignedinteger[Any]], name: str, predicted: np.ndarray) -> None:
    path = place_below(folder, f"{name}.png")
    _make_folder(path.parent)
    write_image(path, predicted.astype(kind))


def open_model(entry: PlannedRun) -> Segmenter:
    """The run's network on its device.

    Raises:
        AllWeatherError: when it cannot be loaded.
    """
    spec = entry.model
    with warnings.catch_warnings():
        warnings.simplefilter("error", RandomWeightsWarning)
        try:
            model = load_model(
                spec.located(spec.name),
                None if spec.weights is None else resolve(spec.weights, spec.folder),
                **chosen_options(spec),
            )
        except RandomWeightsWarning as warning:
            raise SettingsError(f"{warning}; a plan needs weights for every network.") from warning
    return place(model, entry.device, "device")


def chosen_options(spec: ModelSpec) -> dict[str, Any]:
    """What a plan says of a network beside its name and weights, as `load_model` takes it."""
    options = {
        "classes": spec.class_set(),
        "mean": spec.mean,
        "std": spec.std,
        "arguments": spec.arguments,
    }
    return {key: value for key, value in options.items() if value}


def open_session(entry: PlannedRun, model: Segmenter) -> Session:
    """A fresh session of the run, on a copy of the network.

    Raises:
        AllWeatherError: when the method cannot work on the network.
    """
    method = make_method(entry.method, model)
    precision, when = cast(Precision, entry.precision), cast(AdaptWhen, entry.method.adapt_when)
    guard = entry.method.limits()
    return Session(model, method, seed=entry.seed, precision=precision, adapt_when=when, guard=guard)


def _head(entry: PlannedRun, session: Session, labelled: LabelledStream, protocol: Protocol) -> dict[str, Any]:
    continual = protocol == "transductive" and not session.method.episodic
    after = "after the update" if session.method.report_after else "before the update"
    return {
        "identity": entry.identity,
        "run": entry.content,
        **provenance(session, labelled.stream, protocol, entry.batch),
        "views": len(session.method.looks),
        "passes": session.method.passes,  # of one prediction
        "prediction": "after the last pass" if continual else after,
    }


def _record_at(path: Path) -> dict[str, Any]:
    """The record that is there if it is whole, of whichever run; empty otherwise."""
    try:
        return read_record(path) if path.exists() else {}
    except AllWeatherError as error:
        LOG.warning("%s It is made again.", error)
        return {}


def _make_folder(out: Path) -> None:
    try:
        real(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from error
