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
_ANY: tuple[Size, ...] = ((251, 187), (320, 224), (773, 520))  # width, height; the first is exported, all are checked
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


@torch.no_grad()
def make_program(model: Segmenter, size: Size | None) -> Program:
    """The segmenter as a program of torch.export, whose predictions are the segmenter's.

    Args:
        model: in ordinary layers, on the CPU.
        size: (width, height) to fix the graph to; None leaves it open.

    Raises:
        NetworkError: for a network of TorchScript, one whose Python decides by what a picture shows, or is of one size
            only, or whose program predicts otherwise.
    """
    _check_python(model)
    model._checked = True  # looking at values is not for a graph
    sizes = _ANY if size is None else (size,)
    examples = [picture(each) for each in sizes]
    graph: nn.Module = model
    if size is None:
        graph = Graph(model, examples[0]).eval()
    exported = _exported(graph, examples[0], size, model.name)
    checks = tuple((example, model(example)) for example in examples)
    for example, expected in checks:
        try:
            found = exported.module()(example)
        except (RuntimeError, AssertionError) as error:
            raise _differs(model.name, error, size) from error
        if what := disagreement(found, expected):
            raise _differs(model.name, what, size)
    return Program(exported, size, checks)


def _check_python(model: Segmenter) -> None:
    """Refuses TorchScript, compiled already, of which torch.export makes nothing."""
    compiled = ((name, module) for name, module in model.named_modules() if isinstance(module, ScriptModule))
    if found := next(compiled, None):
        part = found[0].removeprefix("network").removeprefix(".")
        raise NetworkError(
            f"{model.name} cannot become a graph: {f'its {part}' if part else 'it'} is TorchScript, compiled already. "
            "Adapt the Python module that was scripted or traced, or write NAME.safetensors, which needs no graph."
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
    what = str(error)
    where = _line(error)
    at = f" at {where}" if where else ""
    other = "or write NAME.safetensors, which needs no graph"
    if "data-dependent" in what or "GuardOnDataDependent" in type(error).__name__:
        return NetworkError(
            f"{name} cannot become a graph: its Python decides by what the picture shows{at}. A graph has no such "
            f"branches: write torch.where(condition, a, b) or torch.cond in its place, {other}."
        )
    if size is None:
        return NetworkError(
            f"{name} cannot become a graph of any size{at} ({_kind_and_line(error)}). Fix the size of the pictures, "
            f"size=(width, height) or --size WIDTHxHEIGHT, {other}."
        )
    return NetworkError(f"{name} cannot become a graph{at} ({_kind_and_line(error)}). Change that line, {other}.")


def _differs(name: str, reason: object, size: Size | None) -> NetworkError:
    said = _kind_and_line(reason) if isinstance(reason, BaseException) else reason
    if size is not None:
        return NetworkError(
            f"{name}: the graph predicts otherwise than the network ({said}), as where a forward pass depends on those "
            "before it. Write NAME.safetensors, which needs no graph."
        )
    return NetworkError(
        f"{name}: the graph is not right for every size of picture ({said}). Fix the size, size=(width, height) or "
        "--size WIDTHxHEIGHT, or write NAME.safetensors, which needs no graph."
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
