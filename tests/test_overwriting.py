"""No verb and no function writes over what it reads, or puts a file of another kind in the place of one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import MODEL, allweather
from PIL import Image
from tiny import frames, tiny
from torch import nn

from allweather import AllWeatherError, Segmenter, Session, SettingsError, load_model, methods
from allweather.models.catalogue import convert, find_entry
from allweather.report import write_report
from allweather.scale.fleet import merge
from allweather.submit import submit
from allweather.writing import check_apart

SAME = ("--from-session", "s.safetensors", "--save-session", "s.safetensors")


def saved(path: Path, seed: int = 0) -> Path:
    session = Session(tiny(), methods.MallDomain())
    session(frames(1, seed)[0])
    session.save(path)
    return path


def weights(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(load_model("demo:streetnet").network.state_dict(), path)
    return path


CASES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "convert": ("w.safetensors", lambda w: convert("demo:streetnet", w, w)),
    "convert by another way": (
        "w.safetensors",
        lambda w: convert("demo:streetnet", w, w.parent / ".." / w.parent.name / w.name),
    ),
    "convert to a .pth": ("w.pth", lambda w: convert("demo:streetnet", w, w)),
    "convert a network of two files": (
        "a_light.safetensors",
        lambda w: convert("dannet:deeplab", w, w.with_name("a.safetensors")),
    ),
    "save over weights": ("w.pth", saved),
    "merge": ("a", lambda a: merge([a, saved(a.with_name("b"), 1)], a)),
    "merge over weights": ("w.pth", lambda w: merge([saved(w.with_name("a")), saved(w.with_name("b"), 1)], w)),
    "export over a session": ("a.safetensors", lambda a: Session(tiny(), "norm").export(a)),
    "convert into its folder": ("model.safetensors", lambda w: convert(f"smp:{w.parent}", w.with_name("x"), w)),
    "export into its folder": (
        "model.safetensors",
        lambda w: Session(Segmenter(nn.Conv2d(3, 19, 1), name=f"smp:{w.parent}"), "source").export(w),
    ),
    "report": ("run.json", lambda record: write_report(record.parent, record)),
    "submit": ("labels.png", lambda path: submit("acdc", path.parent, path)),
}


@pytest.mark.parametrize("case", CASES)
def test_functions_refuse(case: str, tmp_path: Path):
    name, call = CASES[case]
    path = tmp_path / name
    if name.startswith("a") and not name.startswith("a_"):
        saved(path)
    else:
        path.write_bytes(b"of before")
    before = path.read_bytes()
    with pytest.raises(AllWeatherError, match="Name "):
        call(path)
    assert path.read_bytes() == before


def test_an_export_does_not_replace_the_networks_checkpoint(tmp_path: Path):
    packaged, path = find_entry("demo:streetnet").packaged, tmp_path / "w.safetensors"
    path.write_bytes(packaged.read_bytes())
    session = Session(load_model("demo:streetnet", path), "source")
    with pytest.raises(SettingsError, match="is the checkpoint of demo:streetnet"):
        session.export(path, statistics="image")
    assert path.read_bytes() == packaged.read_bytes()
    session.export(tmp_path / "other.safetensors", statistics="image")
    session.export(tmp_path / "other.safetensors", statistics="image")  # an export may be written again


def test_a_session_is_saved_again_under_its_name(tmp_path: Path):
    (tmp_path / "a").touch()
    first = saved(tmp_path / "a").read_bytes()
    assert first and saved(tmp_path / "a", seed=1).read_bytes() != first


def test_links_are_seen_through(tmp_path: Path):
    path = tmp_path / "a"
    path.touch()
    (tmp_path / "soft").symlink_to(path)
    os.link(path, tmp_path / "hard")
    for name in ("soft", "hard"):
        with pytest.raises(SettingsError, match="would replace"):
            check_apart(tmp_path / name, (None, path))
    check_apart(tmp_path / "b", (None, path))


@pytest.fixture
def lab(here: Path) -> Path:
    """The working folder, with weights, a session and two frames."""
    weights(here / "w.pth")
    saved(here / "s.safetensors")
    weights(here / "net/model.safetensors")
    (here / "data/color").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (32, 32)).save(here / f"data/color/{name}.png")
    return here


COMMANDS = {
    "convert": (("convert", "w.pth", *MODEL, "--out", "w.pth"), "w.pth"),
    "export": (("export", "s.safetensors", *MODEL, "--out", "s.safetensors"), "s.safetensors"),
    "export into a network's folder": (
        ("export", "s.safetensors", "--model", "transformers:net", "--out", "net/model.safetensors"),
        "net/model.safetensors",
    ),
    "merge": (("merge", "s.safetensors", "w.pth", "--out", "s.safetensors"), "s.safetensors"),
    "a session over weights": (
        ("adapt", "data/color", *MODEL, "--weights", "w.pth", "--save-session", "w.pth", "--out", "o"),
        "w.pth",
    ),
    "a session over a frame": (
        ("adapt", "data/color", *MODEL, "--save-session", "data/color/a.png", "--out", "o"),
        "data/color/a.png",
    ),
    "a session over the one before": (("adapt", "data/color", *MODEL, *SAME, "--out", "o"), "s.safetensors"),
    "results over the frames": (("adapt", "data/color", *MODEL, "--out", "data"), "data/color/a.png"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_verbs_refuse(case: str, lab: Path):
    command, kept = COMMANDS[case]
    before = (lab / kept).read_bytes()
    done = allweather(*command)
    assert (done.returncode == 2 and "replace" in done.stderr) or "a conversion writes safetensors" in done.stderr
    assert (lab / kept).read_bytes() == before and not (lab / "o").exists()
