"""Errors that programs can tell apart: the tree as it is printed, and one mistake of each kind."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import allweather as aw
from allweather import classes, errors, methods
from allweather.app.opening import open_network
from allweather.errors import ImageError, optional
from allweather.rgb import read_rgb

PACKAGE = Path(aw.__file__).parent
ADAPTING = [path for room in ("methods", "session", "ncut") for path in sorted((PACKAGE / room).rglob("*.py"))]


@pytest.mark.parametrize("path", ADAPTING, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_adapting_refuses_has_a_kind(path: Path):
    assert not re.search(r"raise (AllWeatherError|NotImplementedError)\b", path.read_text())


def test_the_printed_tree_is_the_real_one():
    printed = re.findall(r"^([│├└─ ]*)(\w+Error)  ", inspect.getdoc(errors) or "", re.M)
    classes = vars(errors)
    above = {0: "Exception"}
    for branch, name in printed:
        depth = len(branch) // 4
        assert classes[name].__bases__[0].__name__ == (above[depth] if depth else "Exception")
        above[depth + 1] = name
    raised = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    defined = {value.__name__ for value in raised if not issubclass(value, Warning)}
    assert {name for _, name in printed} == defined


def gives(classes: int, bias: bool = True) -> aw.Segmenter:
    return aw.Segmenter.wrap(nn.Conv2d(3, classes, 1, bias=bias))


SCORES = torch.rand(1, 3, 4, 4)


def unlike() -> aw.Segmenter:
    """A network with norm layers alone."""
    return aw.Segmenter.wrap(nn.LayerNorm(8), classes=classes.CITYSCAPES)


REFUSED: list[Callable[[], object]] = [  # a value that a setting does not allow, or this network does not
    lambda: methods.Tent(lr=-1.0),
    lambda: methods.Tent(lr="x"),
    lambda: methods.Tent(share=0.2, bn="source"),
    lambda: methods.Tent(episodic=True, report_after=False),
    lambda: methods.Tent(views=("plain", "sideways")),
    lambda: methods.Tent(views=()),
    lambda: methods.Norm(share=2.0),
    lambda: aw.Guard(every=0),
    lambda: aw.Guard(mixing="x"),
    lambda: aw.session.Shift(threshold=2.0),
    lambda: aw.session.Shift(layers="x"),
    lambda: aw.Session(gives(19), methods.Tent(parameters="zzz")),
    lambda: aw.Session(gives(19), "tent"),
    lambda: aw.Session(gives(19, bias=False), methods.Tent(parameters="logit-bias")),
    lambda: aw.Session(gives(19), methods.Tent(parameters="all", bn="source")),
    lambda: aw.Session(gives(19), methods.Source(), adapt_when="shift", shift=aw.session.Shift(reference="source")),
    lambda: aw.Session(gives(19), methods.MallSample(parameters="all", class_weights=(1.0,)))(torch.rand(3, 8, 8)),
    lambda: aw.Session(gives(19), methods.make("eata", settings={"parameters": "all", "source_images": "no/such"})),
]

MISTAKES: list[tuple[Callable[[], object], type[aw.AllWeatherError]]] = [
    (lambda: gives(19)(torch.rand(3, 8, 8)), aw.InputError),
    (lambda: aw.load_stream("folder", "no/such/place"), aw.InputError),
    (lambda: read_rgb(Path("no/such.png")), ImageError),
    (lambda: aw.normalized_cut(SCORES, SCORES * torch.nan, sigma_rgb=1, sigma_xy=1), errors.NotFiniteError),
    (lambda: aw.load_model("espnetv2:2.0", "no/such.pth"), aw.CheckpointError),
    (lambda: gives(5)(torch.rand(1, 3, 8, 8)), aw.NetworkError),
    (lambda: aw.load_model("espnetv2:3.0"), aw.SettingsError),
    (lambda: methods.make("tent", "papers"), aw.SettingsError),
    (lambda: methods.make("tent", settings=["lr=0.001"]), aw.SettingsError),  # type: ignore[arg-type]
    *((lambda made=made: made(), aw.SettingsError) for made in REFUSED),
    (lambda: aw.Session(gives(19), "norm"), aw.NetworkError),
    (lambda: aw.Session(unlike(), "tent", adapt_when="shift"), aw.NetworkError),
    (lambda: aw.load_stream("acdc:val/fogg", "acdc"), aw.SettingsError),
    (lambda: optional("no_library_of_that_name", "smp"), aw.MissingLibraryError),
]


@pytest.mark.parametrize(("mistake", "kind"), MISTAKES, ids=lambda value: getattr(value, "__name__", None))
def test_a_mistake_is_of_its_kind(mistake: Callable[[], object], kind: type[aw.AllWeatherError]):
    with pytest.raises(aw.AllWeatherError) as caught:
        mistake()
    assert type(caught.value) is kind


def test_a_librarys_first_line_has_no_colors_of_a_terminal():
    assert errors.first_line(ValueError("\x1b[96mThis is step 2/3\x1b[0m of it.\nmore")) == "This is step 2/3 of it"


def test_an_error_without_text_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch):
    def silent(*_: object):
        raise AssertionError

    monkeypatch.setattr(aw.Segmenter, "to", silent)
    with pytest.raises(aw.SettingsError, match=r"--device cpu: AssertionError\. Choose another device, such as cpu\.$"):
        open_network("demo:streetnet", None)


@pytest.mark.parametrize("name", ["onlin", None, ["online"], {"online"}, torch.zeros(2).numpy()])
def test_what_is_no_known_name_is_named_whatever_it_is(name: object):
    errors.check_known("protocol", "online", ("online", "transductive"))
    with pytest.raises(aw.SettingsError, match=re.escape(f"unknown protocol '{name}'.")):
        errors.check_known("protocol", name, ("online", "transductive"))
