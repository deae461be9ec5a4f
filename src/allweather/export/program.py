"""torch.export of a segmenter: the program, checked against the network, or the line of code that stands in the way."""

import linecache
import traceback
import warnings
from dataclasses import dataclass
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
_FURTHER: tuple[Size, ...] = ((512, 512), (3840, 2160), (2160, 3840))  # a program of open size must accept these
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


@dataclass(frozen=True, eq=False)
class Program:
    """An exported program, and pictures with the network's own logits to check files against.

    Attributes:
        exported: takes an image 1×3×H×W in [0, 1].
        size: (width, height) that it is fixed to; None where both are open.
        checks: pictures 1×3×H×W and the logits 1×C×H×W that the network gives for them.
    """

    exported: ExportedProgram
    size: Size | None
    checks: tuple[tuple[Tensor, Tensor], ...]

    def sides(self) -> str:
        """The sides that it takes, in words."""
        if self.size:
            return f"width {self.size[0]}, height {self.size[1]}"
        return ", ".join(f"{axis} {low} to {high}" for axis, low, high in _sides(self.exported)).replace("int_oo", "∞")


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
    if not size:
        _check_open(exported, model.name)
    return Program(exported, size, tuple(checks))


def _sides(exported: ExportedProgram) -> list[tuple[str, Any, Any]]:
    """Height and width, each with its least and largest."""
    image = next(node for node in exported.graph.nodes if node.name == exported.graph_signature.user_inputs[0])
    ranges = (exported.range_constraints[side.node.expr] for side in image.meta["val"].shape[2:])
    return [(axis, each.lower, each.upper) for axis, each in zip(("height", "width"), ranges, strict=True)]


def _check_open(exported: ExportedProgram, name: str) -> None:
    """Refuses a program of some sizes alone, as where Python decides by them; ONNX would not say so."""
    for axis, _, high in _sides(exported):
        if high < _FURTHER[-1][1]:
            raise _differs(name, f"for a {axis} to {high} alone", None)
    guards: Any = getattr(exported.module(), "_guards_fn", None)  # not in older torch
    for width, height in _FURTHER if guards else ():
        try:
            guards(torch.empty(1, 3, height, width, device="meta"))
        except AssertionError as error:
            raise _differs(name, error, None) from error


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
