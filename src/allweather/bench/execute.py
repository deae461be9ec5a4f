"""Running a plan: one record per run, written whole, resumed by record, safe from several processes at once."""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import filelock
import numpy as np
import torch

from allweather import methods
from allweather.bench.evaluate import Protocol, run
from allweather.bench.plan import Plan, Run
from allweather.bench.record import provenance
from allweather.bench.sources import Source, open_source, resolve
from allweather.bench.tally import Tally
from allweather.data.images import write_image, write_json
from allweather.data.labels import mapping_between
from allweather.errors import AllWeatherError
from allweather.models import load_model
from allweather.session import Precision, Session

Tick = Callable[[Run, int, int], None]  # the run, frames done, frames in all


@dataclass
class Executed:
    """What became of a plan's runs, by record file name.

    Attributes:
        done: runs finished now; `kept` those whose record was there already.
        elsewhere: runs that another process is at.
        failed: why a run could not be made; it has no record and is tried again next time.
    """

    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def execute(
    plan: Plan, out: Path, tick: Tick = lambda entry, done, total: None, *, keep_labels: bool = False
) -> Executed:
    """Makes every record of the plan that is not in `out` yet; a run that cannot be made does not stop the others.

    Args:
        keep_labels: the predictions are written too, as PNG files in a folder beside each record.

    Raises:
        AllWeatherError: when `out` cannot be written.
    """
    result = Executed()
    _make_folder(out)
    for entry in plan.runs:
        path = out / entry.file
        lock = filelock.FileLock(out / f".{entry.file}.lock")
        try:
            with lock.acquire(timeout=0):
                if _is_complete(path, entry) and (labels_folder(path).is_dir() or not keep_labels):
                    result.kept.append(entry.file)
                    continue
                try:
                    record = make_record(entry, tick, labels_folder(path) if keep_labels else None)
                except AllWeatherError as error:
                    result.failed[entry.file] = str(error)
                    continue
                write_json(path, record)
                result.done.append(entry.file)
        except filelock.Timeout:
            result.elsewhere.append(entry.file)
    return result


def labels_folder(record: Path) -> Path:
    """Where the predictions of a record's frames lie, if they were kept."""
    return record.with_suffix("")


def make_record(entry: Run, tick: Tick = lambda entry, done, total: None, labels: Path | None = None) -> dict[str, Any]:
    """Runs one cell of the grid; the record says all that is needed to repeat it.

    Args:
        labels: folder for the predictions, H×W indices of the truth's classes as PNG files; None writes none.

    Raises:
        AllWeatherError: when model, stream, method or their classes do not fit, or no frame can be read.
    """
    session, source = open_session(entry), open_source(entry)
    mapping = mapping_between(session.model.classes, source.classes)
    tally = Tally(mapping, source) if labels is None else Tally(mapping, source, partial(_write_labels, labels))
    protocol = cast(Protocol, entry.protocol)
    outcomes = run(session, source.stream, protocol, entry.batch)
    for done, outcome in enumerate(outcomes, 1):
        tally.add(outcome)
        tick(entry, done, len(source.stream))
    if not tally.matrix.counts.any():
        raise AllWeatherError(f"{entry.title}: no pixel could be scored; {next(iter(tally.failures.values()), '')}")
    return {
        **_head(entry, session, source, protocol),
        **tally.content(),
        "peak_memory_mib": _peak_memory(entry.device),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write_labels(folder: Path, name: str, predicted: np.ndarray) -> None:
    path = folder / f"{name}.png"
    _make_folder(path.parent)
    write_image(path, predicted.astype(np.uint8))


def open_session(entry: Run) -> Session:
    """A fresh session of the run.

    Raises:
        AllWeatherError: when the network cannot be loaded or the method cannot work on it.
    """
    spec = entry.model
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            model = load_model(spec.name, None if spec.weights is None else resolve(spec.weights))
        except UserWarning as warning:
            raise AllWeatherError(f"{warning}; a plan needs weights for every network.") from warning
    method = methods.make(entry.method.name, entry.method.preset, entry.method.fields, model=model)
    precision = cast(Precision, entry.precision)
    return Session(model.to(torch.device(entry.device)), method, seed=entry.seed, precision=precision)


def read_record(path: Path) -> dict[str, Any]:
    """A record.

    Raises:
        AllWeatherError: when the file is none.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AllWeatherError(f"{path} is not a readable record ({error}).") from error
    if not isinstance(content, dict) or "figures" not in content:
        raise AllWeatherError(f"{path} is not a record: expected one that `allweather bench` wrote.")
    return content


def _head(entry: Run, session: Session, source: Source, protocol: Protocol) -> dict[str, Any]:
    continual = protocol == "transductive" and not session.method.episodic
    after = "after the update" if session.method.report_after else "before the update"
    return {
        "identity": entry.identity,
        "run": asdict(entry),
        **provenance(session, source.stream, protocol, entry.batch),
        "views": 1,
        "prediction": "after the last pass" if continual else after,
    }


def _is_complete(path: Path, entry: Run) -> bool:
    try:
        return path.exists() and read_record(path).get("identity") == entry.identity
    except AllWeatherError:
        return False


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AllWeatherError(f"cannot write records to {out}: {error.strerror or error}.") from error


def _peak_memory(device: str) -> float | None:
    """MiB on the device, or of the whole process on the CPU; None where the system does not tell."""
    if device.startswith("cuda"):
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource
    except ImportError:  # no such module on Windows
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)
