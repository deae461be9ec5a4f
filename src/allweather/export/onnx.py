"""An ONNX file of a program, checked with ONNX Runtime before it takes its name."""

import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allweather.errors import NetworkError, SettingsError, first_line, optional
from allweather.export.agreement import disagreement
from allweather.export.delta import ABOUT
from allweather.export.files import finished
from allweather.export.graph import INPUT, OUTPUT
from allweather.export.pooling import DECOMPOSITIONS
from allweather.export.program import SIZE, Program
from allweather.plugins import FAULTS

OPSETS = range(18, 24)


def check_opset(opset: int) -> None:
    """Refuses an opset that the exporter does not write, before any work.

    Raises:
        SettingsError: for another one.
        MissingLibraryError: when the libraries of extra `onnx` are not installed.
    """
    if opset not in OPSETS:
        raise SettingsError(f"opset: expected {OPSETS[0]} to {OPSETS[-1]}, got {opset}.")
    for library in ("onnx", "onnxscript", "onnxruntime"):
        optional(library, "onnx")


def write_onnx(program: Program, path: Path, facts: Mapping[str, Any], name: str, opset: int) -> None:
    """Writes the program; the file exists only where ONNX Runtime predicts from it what the network does.

    Raises:
        AllWeatherError: when it cannot be written.
        NetworkError: for an operation that ONNX lacks, and where the predictions disagree.
    """
    made = _converted(program, name, opset)
    made.producer_name = "allweather"
    entry = made.metadata_props.add()
    entry.key, entry.value = ABOUT, json.dumps({**facts, "opset": opset})
    with finished(path) as temporary:
        temporary.write_bytes(made.SerializeToString())
        for image, expected in program.checks:
            if what := disagreement(_run(temporary, image, name), expected):
                size = f"{image.shape[3]}×{image.shape[2]}"
                raise NetworkError(
                    f"{path} was refused and removed: in ONNX Runtime {what} ({name}, a picture of {size}). Fix the "
                    f"pictures' size ({SIZE}), try another opset, or write NAME.pt2."
                )


def _converted(program: Program, name: str, opset: int) -> Any:
    """The model as onnx's ModelProto, its opset the one asked for."""
    open_sizes = {INPUT: {2: "height", 3: "width"}} if program.size is None else None
    try:
        with _quietly():
            exported = program.exported.run_decompositions(DECOMPOSITIONS)
            made = torch.onnx.export(
                exported, dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT],
                opset_version=opset, dynamic_shapes=open_sizes,
            )  # fmt: skip
    except FAULTS as error:  # torch's kinds have no base in common
        raise _unwritten(name, error, program.size is None) from error
    proto = made.model_proto  # type: ignore[union-attr]
    written = {entry.domain: entry.version for entry in proto.opset_import}
    if written.get("") != opset:
        raise NetworkError(f"{name}: its operations cannot be written for opset {opset}, {written['']} is needed.")
    if foreign := sorted(set(written) - {"", "pkg.onnxscript.torch_lib", "pkg.onnxscript.torch_lib.common"}):
        raise NetworkError(f"{name}: its graph has operations of {', '.join(foreign)}, which no runtime knows.")
    return proto


def _unwritten(name: str, error: BaseException, any_size: bool) -> NetworkError:
    """Why the exporter failed: the operation that ONNX lacks, by its report, else what went wrong first."""
    found = re.search(r"(?:OpOverload\(op='|operator |function for )<?'?(?:OpOverload\(op=')?([\w.:]+)", str(error))
    failed = f"{name} cannot be written as ONNX:"
    if found is not None:
        return NetworkError(f"{failed} no standard operation of ONNX does {found[1]}. Write NAME.pt2.")
    while error.__cause__ is not None:
        error = error.__cause__
    other = f"Fix the pictures' size ({SIZE}), take a newer torch, or write" if any_size else "Write"
    return NetworkError(f"{failed} {first_line(error)}. {other} NAME.pt2.")


def _run(path: Path, image: Tensor, name: str) -> Tensor:
    """What ONNX Runtime gives for an image, on the CPU."""
    runtime = optional("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (logits,) = session.run([OUTPUT], {INPUT: image.numpy()})
    except _failures(runtime) as error:
        raise NetworkError(f"{name}: ONNX Runtime cannot run the file: {first_line(error)}. Write NAME.pt2.") from error
    return torch.from_numpy(np.asarray(logits))


def _failures(runtime: Any) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its own errors have no base in common."""
    known = vars(runtime.capi.onnxruntime_pybind11_state).values()
    own = (kind for kind in known if isinstance(kind, type) and issubclass(kind, Exception))
    return RuntimeError, ValueError, *own


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter without its remarks; what matters of them is raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
