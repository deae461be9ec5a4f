"""Records: one result with all that is needed to repeat it, one JSON file."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from allweather.classes import CLASS_SETS
from allweather.data.labelled import hash_of
from allweather.data.stream import Stream
from allweather.finite import or_none
from allweather.methods.method import Method
from allweather.methods.settings import path_fields, paths_in
from allweather.models.segmenter import Segmenter
from allweather.runs.decisions import describe
from allweather.session import Result, Session

FORMAT = 2  # 1: a decision is one text, "rolled back: …", and only two kinds are counted


def provenance(session: Session, stream: Stream, protocol: str, batch: int) -> dict[str, Any]:
    """What made a result: settings, versions, weights, and the frames in their order."""
    return {
        "format": FORMAT,
        "model": describe_model(session.model),
        "session": session.settings() | named_files(session.method),
        "protocol": protocol,
        "batch": batch,
        "frames": len(stream),
        "order_hash": stream.order_hash,
        "versions": versions(),
    }


def named_files(method: Method) -> dict[str, Any]:
    """`files`: of each field that names a file or folder, sha256 of names and sizes; nothing where none is set."""
    ends = path_fields(type(method))
    named = {field: map(Path, paths_in(getattr(method, field))) for field in sorted(ends)}
    found = {field: [file for path in paths for file in (path, *path.rglob("*"))] for field, paths in named.items()}
    told = {
        field: hash_of(file for file in files if file.is_file() and file.name.lower().endswith(ends[field]))
        for field, files in found.items()
    }
    told = {field: found for field, found in told.items() if found}
    return {"files": told} if told else {}


def describe_model(model: Segmenter) -> dict[str, Any]:
    """The network's name, classes and weights; classes of one's own name by name."""
    weights = model.provenance
    known = CLASS_SETS.get(model.classes.name) == model.classes
    return {
        "name": model.name,
        "classes": model.classes.name,
        **({} if known else {"class_names": list(model.classes.names)}),
        "bn_share": model.facts.bn_share,
        "weights": None if weights is None else weights.file,
        "sha256": None if weights is None else weights.sha256,
    }


def describe_result(result: Result) -> dict[str, Any]:
    """What became of one image of a batch: updates, why they ended, the decision, and its share of the seconds."""
    images = result.logits.shape[0] if result.logits.ndim == 4 else 1
    return {
        "iterations": result.iterations,
        "stop": result.stop,
        **describe(result.decision),
        "seconds": round(result.seconds / images, 4),
    }


def watched_ends(result: Result) -> dict[str, list[float | None]]:
    """The watched loss at the first and the last iteration, `watched`; nothing where none was watched."""
    if not result.watched:
        return {}
    return {"watched": or_none(round(result.watched[end], 6) for end in (0, -1))}


def versions() -> dict[str, str]:
    """Versions of all that can change a number."""
    return {
        "allweather": version("allweather"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
