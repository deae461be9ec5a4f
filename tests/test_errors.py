"""Errors that programs can tell apart: the tree as it is printed, and one mistake of each kind."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import allweather as aw
from allweather import errors, methods
from allweather.app.opening import open_network
from allweather.errors import ImageError, optional
from allweather.rgb import read_rgb


def test_the_printed_tree_is_the_real_one() -> None:
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


def gives(classes: int) -> aw.Segmenter:
    return aw.Segmenter.wrap(nn.Conv2d(3, classes, 1))


SCORES = torch.rand(1, 3, 4, 4)
MISTAKES: list[tuple[Callable[[], object], type[aw.AllWeatherError]]] = [
    (lambda: gives(19)(torch.rand(3, 8, 8)), aw.InputError),
    (lambda: aw.load_stream("folder", "no/such/place"), aw.InputError),
    (lambda: read_rgb(Path("no/such.png")), ImageError),
    (lambda: aw.normalized_cut(SCORES, SCORES * torch.nan, sigma_rgb=1, sigma_xy=1), errors.NotFiniteError),
    (lambda: aw.load_model("espnetv2:2.0", "no/such.pth"), aw.CheckpointError),
    (lambda: gives(5)(torch.rand(1, 3, 8, 8)), aw.NetworkError),
    (lambda: aw.load_model("espnetv2:3.0"), aw.SettingsError),
    (lambda: methods.make("tent", "papers"), aw.SettingsError),
    (lambda: aw.load_stream("acdc:val/fogg", "acdc"), aw.SettingsError),
    (lambda: optional("no_library_of_that_name", "smp"), aw.MissingLibraryError),
]


@pytest.mark.parametrize(("mistake", "kind"), MISTAKES, ids=lambda value: getattr(value, "__name__", None))
def test_a_mistake_is_of_its_kind(mistake: Callable[[], object], kind: type[aw.AllWeatherError]) -> None:
    with pytest.raises(aw.AllWeatherError) as caught:
        mistake()
    assert type(caught.value) is kind


def test_a_librarys_first_line_has_no_colors_of_a_terminal() -> None:
    assert errors.first_line(ValueError("\x1b[96mThis is step 2/3\x1b[0m of it.\nmore")) == "This is step 2/3 of it"


def test_an_error_without_text_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(aw.Segmenter, "to", silent)
    with pytest.raises(aw.SettingsError, match=r"--device cpu: AssertionError\. Choose another device, such as cpu\.$"):
        open_network("demo:streetnet", None)


@pytest.mark.parametrize("name", ["onlin", None, ["online"], {"online"}, torch.zeros(2).numpy()])
def test_what_is_no_known_name_is_named_whatever_it_is(name: object) -> None:
    errors.check_known("protocol", "online", ("online", "transductive"))
    with pytest.raises(aw.SettingsError, match=re.escape(f"unknown protocol '{name}'.")):
        errors.check_known("protocol", name, ("online", "transductive"))
