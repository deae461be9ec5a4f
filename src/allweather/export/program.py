"""torch.export of a segmenter: the program, checked against the network, or the line of code that stands in the way."""

import linecache
import re
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.jit import ScriptModule

from allweather.errors import AllWeatherError, NetworkError, first_line
from allweather.export.agreement import disagreement, picture
from allweather.export.graph import Graph
from allweather.models.segmenter import Segmenter
from allweather.plugins import FAULTS

Size = tuple[int, int]
SIZE = "size=(width, height), --size WIDTHxHEIGHT"
_ELSE = "write NAME.safetensors, which needs no graph."
_ANY: tuple[Size, ...] = ((251, 187), (320, 224), (520, 773))  # width, height; the first is exported, all are checked
_SMALL, _LARGE = 256, 3840  # a program of open size must accept all sides between
_USUAL = (375, 480, 512, 640, 720, 1080, 1242, 1280, 1920, 2160, _LARGE)
_AXES = ("height", "width")
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


@dataclass(frozen=True, eq=False)
class Program:
    """An exported program, and pictures with the network's own logits to check files against.

    Attributes:
        exported: takes an image 1×3×H×W in [0, 1].
        size: (width, height) that it is fixed to; None where both are open.
        sides: that it takes, in words.
        checks: pictures 1×3×H×W and the logits 1×C×H×W that the network gives for them.
    """

    exported: ExportedProgram
    size: Size | None
    sides: str
    checks: tuple[tuple[Tensor, Tensor], ...]


@torch.no_grad()
def make_program(model: Segmenter, size: Size | None) -> Program:
    """The segmenter as a program of torch.export, whose predictions are the segmenter's.

    Args:
        model: in ordinary layers, on the CPU.
        size: (width, height) to fix the graph to; None leaves it open.

    Raises:
        NetworkError: for a network of TorchScript, one whose Python decides by what a picture shows or by its size, or
            that takes one size only, or whose program predicts otherwise.
    """
    _check_python(model)
    model._checked = True  # looking at values is not for a graph
    examples = [picture(each) for each in ((size,) if size else _ANY)]
    checks, example = [], examples[0]
    try:
        graph = model if size else Graph(model, example).eval()
        exported = _exported(graph, example, size, model.name)
        for example in examples:
            checks.append((example, model(example)))
    except AllWeatherError:
        raise
    except FAULTS as error:
        raise NetworkError(
            f"{model.name} takes no picture of {example.shape[3]}×{example.shape[2]} ({_kind_and_line(error)}). "
            f"Fix a size that it takes ({SIZE}), or, where that is any multiple, Segmenter.wrap(…, size_multiple=32)."
        ) from error
    for example, expected in checks:
        try:
            found = exported.module()(example)
        except (RuntimeError, AssertionError) as error:
            raise _differs(model.name, error, size) from error
        if what := disagreement(found, expected):
            raise _differs(model.name, what, size)
    sides = f"width {size[0]}, height {size[1]}" if size else _open_sides(exported, model.name)
    return Program(exported, size, sides, tuple(checks))


def _open_sides(exported: ExportedProgram, name: str) -> str:
    """The sides that a program of open size takes; refuses one of some sizes alone, as where Python decides by them.

    Neither the ranges of its sides nor a file of ONNX holds all guards under which torch.export made it: so they are
    tried, at usual sides and about each number that they name.
    """
    image = next(node for node in exported.graph.nodes if node.name == exported.graph_signature.user_inputs[0])
    ranges = [exported.range_constraints[side.node.expr] for side in image.meta["val"].shape[2:]]
    for axis, each in zip(_AXES, ranges, strict=True):
        if each.upper < _LARGE:
            raise _differs(name, f"for a {axis} to {each.upper} alone", None)
    guards = getattr(exported.module(), "_guards_fn", lambda image: None)  # not in older torch
    written = {int(number) for number in re.findall(r"\d+", " ".join(getattr(exported, "_guards_code", None) or ()))}
    about = {side + off for number in written for side in (number, isqrt(number)) for off in (-1, 0, 1)}
    least = [_least(guards, int(each.lower), turned) for each, turned in zip(ranges, (False, True), strict=True)]
    tried = [
        {side for side in {low, *_USUAL, *about} if low <= side <= min(each.upper, 2 * _LARGE)}
        for low, each in zip(least, ranges, strict=True)
    ]
    for height, width in product(*map(sorted, tried)):
        if failed := _fails(guards, height, width):
            raise _differs(name, failed, None) from failed
    said = (f"{axis} {low} to {each.upper}" for axis, low, each in zip(_AXES, least, ranges, strict=True))
    return ", ".join(said).replace("int_oo", "∞")


def _least(guards: Callable[[Tensor], Any], low: int, turned: bool) -> int:
    """The least height, or width, from which no guard fails for being small."""
    sides = range(_SMALL, low - 1, -1)
    return next((side + 1 for side in sides if _fails(guards, *((773, side) if turned else (side, 773)))), low)


def _fails(guards: Callable[[Tensor], Any], height: int, width: int) -> AssertionError | None:
    try:
        guards(torch.empty(1, 3, height, width, device="meta"))
    except AssertionError as error:
        return error
    return None


def _check_python(model: Segmenter) -> None:
    """Refuses TorchScript, compiled already, of which torch.export makes nothing."""
    compiled = ((name, module) for name, module in model.named_modules() if isinstance(module, ScriptModule))
    if found := next(compiled, None):
        part = found[0].removeprefix("network").removeprefix(".")
        raise NetworkError(
            f"{model.name} cannot become a graph: {f'its {part}' if part else 'it'} is TorchScript, compiled already. "
            f"Adapt the Python module that was scripted or traced, or {_ELSE}"
        )


def _exported(graph: nn.Module, example: Tensor, size: Size | None, name: str) -> ExportedProgram:
    shapes: Any = None if size else ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(graph, (example,), dynamic_shapes=shapes, strict=False)
    except AllWeatherError:
        raise
    except FAULTS as error:  # of the network's code too; torch's own kinds have no base in common
        raise _not_a_graph(name, error, size) from error


def _not_a_graph(name: str, error: BaseException, size: Size | None) -> NetworkError:
    """Which line of whose code a graph cannot hold, and what to do."""
    what, where = str(error), _line(error)
    at = f" at {where}" if where else ""
    if "data-dependent" in what or "GuardOnDataDependent" in type(error).__name__:
        return NetworkError(
            f"{name} cannot become a graph: its Python decides by what the picture shows{at}. A graph has no such "
            f"branches: write torch.where(condition, a, b) or torch.cond in its place, or {_ELSE}"
        )
    if size is None:
        return NetworkError(
            f"{name} cannot become a graph of any size{at} ({_kind_and_line(error)}). Fix the size of "
            f"the pictures ({SIZE}), or {_ELSE}"
        )
    return NetworkError(f"{name} cannot become a graph{at} ({_kind_and_line(error)}). Change that line, or {_ELSE}")


def _differs(name: str, reason: object, size: Size | None) -> NetworkError:
    said = _kind_and_line(reason) if isinstance(reason, BaseException) else reason
    if size is not None:
        return NetworkError(
            f"{name}: the graph predicts otherwise than the network ({said}), as where a pass depends on earlier ones. "
            f"Fix that, or {_ELSE}"
        )
    return NetworkError(
        f"{name}: the graph is not right for every size of picture ({said}). Fix the size ({SIZE}), or {_ELSE}"
    )


def _line(error: BaseException) -> str:
    """The last line of code, neither torch's nor this package's machinery, that was running."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not _is_machinery(frame.filename)]
    if not outside:
        return ""
    frame = outside[-1]
    code = linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{Path(frame.filename).name}:{frame.lineno}, `{code}`"


def _is_machinery(file: str) -> bool:
    own_networks = str(Path(__file__).parents[1] / "models" / "nets")
    return file.startswith("<") or (file.startswith(_LIBRARIES) and not file.startswith(own_networks))


def _kind_and_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
