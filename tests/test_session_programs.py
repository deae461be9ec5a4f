"""Sessions of networks that are programs: TorchScript and torch.export."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from tiny import CLASSES, TinyNetwork, frames
from torch import nn

from allweather import Segmenter, Session, methods
from allweather.errors import AllWeatherError
from allweather.session import Guard

IMAGE = frames(1)[0]


def exported() -> nn.Module:
    torch.manual_seed(0)
    return torch.export.export(TinyNetwork(nn.BatchNorm2d).eval(), (IMAGE[None],)).module()


def test_statistics_of_an_exported_program_cannot_be_replaced_and_that_is_said() -> None:
    model = Segmenter.wrap(exported(), classes=CLASSES)
    with pytest.raises(AllWeatherError, match="norm replaces BatchNorm statistics, and GraphModule has none"):
        Session(model, "norm")


def test_the_scales_of_an_exported_program_are_adapted() -> None:
    model = Segmenter.wrap(exported(), classes=CLASSES)
    source = Session(model, "source")(IMAGE).logits
    for name in ("tent", "mall-sample"):
        method = methods.make(name, settings={"views": "plain"}, model=model)
        result = Session(model, method, guard=Guard(enabled=False))(IMAGE)
        assert result.iterations and not torch.equal(result.logits, source)


@pytest.mark.parametrize("form", [torch.jit.script, lambda network: torch.jit.trace(network, IMAGE[None])])
@pytest.mark.parametrize("way", [copy.deepcopy, pickle.dumps])
def test_a_session_of_torchscript_is_not_copied_to_one_that_never_learns(
    form: Callable[[nn.Module], nn.Module], way: Callable[[Session], object]
) -> None:
    torch.manual_seed(0)
    session = Session(
        Segmenter.wrap(form(TinyNetwork(nn.BatchNorm2d).eval()), classes=CLASSES), methods.Tent(episodic=False)
    )
    session(IMAGE)
    with pytest.raises(AllWeatherError, match="TorchScript network cannot be copied or pickled"):
        way(session)
