"""Programs of torch.export, torch.fx or TorchScript, and what in them goes on training whatever eval() says."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.jit import ScriptModule

_SWITCHED = re.compile(r"\w*(dropout|norm|attention|rrelu|lstm|gru|rnn)\w*")  # operations that training changes
_DRAWS = re.compile(r"rand(_like)?|bernoulli_?|uniform_")
_SWITCHES = ("training", "train", "use_input_stats")  # arguments by which it does
_SHARES = ("p", "dropout", "dropout_p")
_AT_RUN_TIME = "a value of the call"  # such as `training=self.training` in a script, which eval() turns


@dataclass(frozen=True)
class _Step:
    """An operation of a program: its name, the values that its arguments are fixed to, and the modules it was in."""

    name: str
    given: Mapping[str, Any]
    within: str

    @property
    def trains(self) -> bool:
        """Whether it does what only training needs."""
        if _DRAWS.fullmatch(self.name):
            return re.search("drop|stochastic", self.within.lower()) is not None
        if any(self.given.get(share, 1) == 0 for share in _SHARES):  # nothing is dropped
            return False
        if "norm" in self.name and self.given.get("running_mean") is None:  # it has no statistics but the batch's
            return False
        if switches := [self.given[switch] for switch in _SWITCHES if switch in self.given]:
            return any(switch is True for switch in switches)
        return isinstance(self.given.get("dropout_p"), int | float)


def training_step(network: nn.Module) -> str | None:
    """The name of an operation that goes on as in training, in a network or a part that was made in that mode.

    Dropout of a share of 0 and norms without running statistics are the same in both modes. Python is not looked at.
    """
    for module in outer_modules(network):
        steps: Iterator[_Step] = iter(())
        if isinstance(module, ScriptModule) and hasattr(module, "inlined_graph"):  # a list of modules has none
            graph = module.inlined_graph  # kept: its nodes do not outlive it
            steps = _scripted(graph)
        elif isinstance(module, fx.GraphModule):
            steps = _traced(module)
        for step in steps:
            if step.trains:
                return step.name
    return None


def is_exported_program(made: object) -> bool:
    """Whether it is what torch.export gives, whose `module()` is a network; its class takes long to import."""
    return type(made).__module__.startswith("torch.export") and type(made).__name__ == "ExportedProgram"


def outer_modules(module: nn.Module) -> Iterator[nn.Module]:
    """All modules but those within TorchScript, whose modes follow the outermost and take microseconds to read."""
    yield module
    if not isinstance(module, ScriptModule):
        for part in module.children():
            yield from outer_modules(part)


def _traced(program: fx.GraphModule) -> Iterator[_Step]:
    for node in program.graph.nodes:
        name = _name(node.target)
        if node.op not in ("call_function", "call_method") or not _matters(name):
            continue
        arguments = node.normalized_arguments(program, normalize_to_only_use_kwargs=True)
        yield _Step(name, arguments.kwargs if arguments else {}, str(node.meta.get("nn_module_stack", "")))


def _scripted(block: Any) -> Iterator[_Step]:
    """The operations of a graph or block, and of the blocks within."""
    for node in block.nodes():
        space, _, name = node.kind().partition("::")
        if space == "aten" and _matters(name):
            arguments = torch._C.parse_schema(node.schema()).arguments
            given = {each.name: _constant(value) for each, value in zip(arguments, node.inputs(), strict=True)}
            yield _Step(name, given, node.scopeName())
        for inner in node.blocks():
            yield from _scripted(inner)


def _constant(value: Any) -> Any:
    constant = value.toIValue()
    return _AT_RUN_TIME if constant is None and value.type().kind() != "NoneType" else constant


def _matters(name: str) -> bool:
    return (_SWITCHED.fullmatch(name) or _DRAWS.fullmatch(name)) is not None


def _name(target: Any) -> str:
    """Of an operation of torch without its overload, a function or a method."""
    return str(getattr(target, "__name__", target)).partition(".")[0]
