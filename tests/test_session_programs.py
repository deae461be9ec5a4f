"""Sessions of networks that are programs: TorchScript and torch.export."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from refusals import refusal
from tiny import CLASSES, TinyNetwork, frames
from torch import nn

from allweather import Segmenter, Session, load_model, methods
from allweather.errors import NetworkError, SettingsError
from allweather.live import Live
from allweather.session import Guard

IMAGE = frames(1)[0]


def exported() -> nn.Module:
    torch.manual_seed(0)
    return torch.export.export(TinyNetwork(nn.BatchNorm2d).eval(), (IMAGE[None],)).module()


def test_statistics_of_an_exported_program_cannot_be_replaced_and_that_is_said():
    model = Segmenter.wrap(exported(), classes=CLASSES)
    with refusal("norm replaces BatchNorm statistics, and GraphModule has none", NetworkError):
        Session(model, "norm")


def test_the_scales_of_an_exported_program_are_adapted():
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
):
    torch.manual_seed(0)
    session = Session(
        Segmenter.wrap(form(TinyNetwork(nn.BatchNorm2d).eval()), classes=CLASSES), methods.Tent(episodic=False)
    )
    session(IMAGE)
    with refusal("TorchScript network cannot be copied or pickled"):
        way(session)


@pytest.mark.parametrize("around", [lambda program: program, lambda program: nn.Sequential(nn.Identity(), program)])
def test_an_exported_program_keeps_its_mode_and_all_around_it_changes(
    around: Callable[[nn.Module], nn.Module],
):
    beside = nn.Dropout()
    model = Segmenter(around(exported()), classes=CLASSES, enhancer=beside)
    for training in (False, True):
        assert model.train(training) is model and model.training is beside.training is training
    assert torch.equal(Session(model.eval(), "source")(IMAGE).logits, Session(model.train(), "source")(IMAGE).logits)


@pytest.mark.parametrize("made", ["program()", "Segmenter.wrap(program(), classes=CITYSCAPES)"])
def test_an_exported_program_in_a_file_is_a_network_of_ones_own(made: str, tmp_path: Path):
    program = torch.export.export(nn.Conv2d(3, 19, 1).eval(), (IMAGE[None],))
    torch.export.save(program, tmp_path / "a.pt2")
    (tmp_path / "nets.py").write_text(
        "import torch\nfrom allweather import CITYSCAPES, Segmenter\n"
        f"def program(): return torch.export.load({str(tmp_path / 'a.pt2')!r}).module()\ndef build(): return {made}\n"
    )
    model = load_model(f"{tmp_path}/nets.py:build")
    assert not model.training and torch.equal(model(IMAGE[None]), Segmenter.wrap(program.module())(IMAGE[None]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_live_takes_turns_with_torchscript_and_says_how(tmp_path: Path):
    Image.new("RGB", (48, 32)).save(tmp_path / "0.png")
    scripted = torch.jit.script(TinyNetwork(nn.BatchNorm2d).eval())
    session = Session(Segmenter.wrap(scripted, classes=CLASSES), methods.Tent(episodic=False))
    with refusal(r"TorchScript network cannot be copied.*Take turns: wait=True, --wait", SettingsError):
        list(Live(tmp_path, session))
    assert len(list(Live(tmp_path, session, wait=True))) == 1


class Refusing(nn.Conv2d):
    """Raises in the mode that it is asked for; `train` is its own."""

    def train(self, mode: bool = True) -> "Refusing":
        raise NotImplementedError("one mode alone")


def test_a_train_of_ones_own_that_raises_is_told_as_what_fails(tmp_path: Path):
    with refusal(r"own train\(False\) fails: .*NotImplementedError: one mode alone", NetworkError):
        Session(Segmenter.wrap(Refusing(3, 19, 1)), "source")
    (tmp_path / "nets.py").write_text(
        "from test_session_programs import Refusing\ndef build(): return Refusing(3, 19, 1)\n"
    )
    with refusal(r"nets\.py:build cannot be used as a network: .*one mode alone", NetworkError):
        load_model(f"{tmp_path}/nets.py:build")
