"""The door of this room: a deployment written as the kind of file that the suffix names."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch._export.serde.serialize import SerializeError

from allweather.errors import NetworkError, SettingsError, first_line
from allweather.export.agreement import disagreement
from allweather.export.delta import ABOUT, write_delta, write_state
from allweather.export.deployment import Deployment
from allweather.export.files import finished, kind_of
from allweather.export.graph import INPUT, OUTPUT
from allweather.export.onnx import check_opset, write_onnx
from allweather.export.program import SIZE, Program, Size, make_program
from allweather.sizes import check_asked
from allweather.writing import check_place

GRAPHS = (".pt2", ".onnx")
OPSET = 18


def check(path: Path, size: Size | None, opset: int | None) -> str:
    """The kind of file; refuses what does not go together before any work.

    Raises:
        AllWeatherError: for another suffix, a setting that this kind of file does not have, or a size that is none.
    """
    kind = kind_of(path)
    check_asked(size)
    check_place(path)
    if size is not None and kind not in GRAPHS:
        raise SettingsError(f"{path}: only a graph (.pt2, .onnx) has a size. Leave `size` out.")
    if opset is not None and kind != ".onnx":
        raise SettingsError(f"{path}: only .onnx has an opset. Leave `opset` out.")
    if kind == ".onnx":
        check_opset(OPSET if opset is None else opset)
    return kind


def write(deployment: Deployment, path: Path, size: Size | None = None, opset: int | None = None) -> None:
    """Writes the file whole or not at all; graphs are run and compared with the network first.

    Args:
        size: (width, height) to fix a graph to.
        opset: of ONNX; `OPSET` where None.

    Raises:
        AllWeatherError: for an unknown suffix, a network that cannot become such a file, or one that cannot be written.
    """
    kind = check(path, size, opset)
    if kind not in GRAPHS:
        (write_delta if kind.startswith(".delta") else write_state)(deployment, path)
        return
    program = make_program(deployment.model, size)
    facts = {**deployment.facts(), **interface(deployment, program)}
    name = deployment.model.name
    if kind == ".onnx":
        write_onnx(program, path, facts, name, OPSET if opset is None else opset)
    else:
        _write_program(program, path, facts, name)


def interface(deployment: Deployment, program: Program) -> dict[str, Any]:
    """What a graph takes and gives, in words and numbers."""
    window = deployment.model.window
    cut = {"note": f"seen whole; the session cuts sides beyond {window.size}"} if window and not program.size else {}
    return {
        "input": {
            INPUT: "float32 1×3×H×W, RGB in [0, 1]",
            "size": program.sides,
            **cut,
        },
        "output": {OUTPUT: f"float32 1×{len(deployment.model.classes)}×H×W"},
        "preprocessing": "inside the graph: normalisation, padding to a multiple, and enlarging of the logits",
    }


def _write_program(program: Program, path: Path, facts: Mapping[str, Any], name: str) -> None:
    buffer = io.BytesIO()
    try:
        torch.export.save(program.exported, buffer, extra_files={f"{ABOUT}.json": json.dumps(facts)})
    except SerializeError as error:
        raise NetworkError(
            f"{name} cannot be written as .pt2: {first_line(error)}. Sizes are kept in whole numbers alone: write "
            f"(side + 1) // 2 for math.ceil(side / 2), fix the size ({SIZE}), or write NAME.onnx."
        ) from error
    with finished(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
        with temporary.open("rb") as written:
            loaded = torch.export.load(written).module()
        for image, expected in program.checks[:1]:
            if what := disagreement(loaded(image), expected):
                raise NetworkError(f"{path} was refused and removed: read back, {what} ({name}).")
