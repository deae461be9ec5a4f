"""Programs made in training mode stay in it and are refused; those of evaluation mode are networks."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import CLASSES
from torch import Tensor, fx, nn
from torch.nn import functional

from allweather import NetworkError, Segmenter

IMAGES = torch.rand(2, 3, 8, 12)


class DropPath(nn.Module):
    """Stochastic depth, as libraries write it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rand(len(x), 1, 1, 1).add(0.9).floor() if self.training else x


class Functional(nn.Module):
    """What acts by a function of torch, told whether it trains."""

    def __init__(self, act: Callable[[Tensor, bool], Tensor]):
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x, self.training)


def attention(x: Tensor, training: bool) -> Tensor:
    return functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5 if training else 0.0)


def normalised(x: Tensor, training: bool) -> Tensor:
    return functional.batch_norm(x, torch.zeros(3), torch.ones(3), training=training)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.5),
    "channel dropout": lambda: nn.Dropout2d(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.5),
    "BatchNorm": lambda: nn.BatchNorm2d(3),
    "InstanceNorm": lambda: nn.InstanceNorm2d(3, track_running_stats=True),
    "RReLU": nn.RReLU,
    "stochastic depth": DropPath,
    "functional dropout": lambda: Functional(lambda x, training: functional.dropout(x, 0.5, training)),
    "functional BatchNorm": lambda: Functional(normalised),
    "attention": lambda: Functional(attention),
}
UNTOUCHED: dict[str, Callable[[], nn.Module]] = {  # by the mode
    "dropout of nothing": lambda: nn.Dropout(0.0),
    "the batch's statistics": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "the picture's statistics": lambda: nn.InstanceNorm2d(3),
    "noise of its own": lambda: Functional(lambda x, _: x + torch.rand(x.shape)),
}
PROGRAMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "exported": lambda network: torch.export.export(network, (IMAGES,)).module(),
    "exported, in core operations": lambda network: (
        torch.export.export(network, (IMAGES,)).run_decompositions().module()
    ),
    "traced": lambda network: torch.jit.trace(network, IMAGES, check_trace=False),
}


def network_of(layer: nn.Module, name: str = "drop_path") -> nn.Module:
    return nn.Sequential(OrderedDict([("conv", nn.Conv2d(3, 3, 1)), (name, layer)]))


def wrapped(network: nn.Module) -> Segmenter:
    return Segmenter.wrap(network, classes=CLASSES)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("form", PROGRAMS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_program_made_in_training_mode_is_refused_and_one_of_evaluation_mode_is_not(layer: str, form: str):
    network, make = network_of(LAYERS[layer]()), PROGRAMS[form]
    trained = make(network.train())
    for given in (trained, nn.Sequential(trained)):
        with pytest.raises(NetworkError, match=r"in training mode: its \w+ goes on.*Call network\.eval\(\) before"):
            wrapped(given)
    program = wrapped(nn.Sequential(make(network.eval()))).eval()
    assert torch.equal(program(IMAGES), program(IMAGES))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("form", PROGRAMS)
@pytest.mark.parametrize("layer", UNTOUCHED)
def test_what_the_mode_does_not_change_is_no_training(layer: str, form: str):
    network = network_of(UNTOUCHED[layer](), "last")
    for made in (network.train(), network.eval()):
        wrapped(PROGRAMS[form](made))


@pytest.mark.parametrize("act", [normalised, lambda x, training: functional.dropout(x, 0.5, training)])
def test_functions_in_a_graph_of_fx_stay_in_the_mode_that_they_were_traced_in(act: Any):
    network = network_of(Functional(act))
    with pytest.raises(NetworkError, match="in training mode"):
        wrapped(fx.symbolic_trace(network.train()))
    wrapped(fx.symbolic_trace(network.eval()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("layer", [nn.Dropout, lambda: nn.BatchNorm2d(3), nn.RReLU, nn.Identity])
@pytest.mark.parametrize("form", [torch.jit.script, fx.symbolic_trace, lambda network: network])
def test_programs_that_eval_turns_may_come_in_training_mode(layer: Any, form: Any):
    program = wrapped(form(network_of(layer()).train())).eval()
    assert torch.equal(program(IMAGES), program(IMAGES))


def test_dropout_that_is_meant_can_be_given_in_python():
    network = network_of(Functional(lambda x, _: functional.dropout(x)))
    assert not torch.equal(wrapped(network)(IMAGES), wrapped(network)(IMAGES))
    with pytest.raises(NetworkError, match="Where it is meant, give the network itself, in Python"):
        wrapped(torch.export.export(network.eval(), (IMAGES,)).module())
