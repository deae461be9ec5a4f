"""Saved sessions opened by their files alone, and the verb that exports them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import MODEL, Done, allweather
from exported import PICTURE, read_about, session_of
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import frames, tiny

from allweather import Guard, Session, apply_delta, load_model, methods
from allweather.data.scenes import render
from allweather.errors import CheckpointError, SettingsError
from allweather.methods.method import Method
from allweather.methods.own import find_method
from allweather.session import Shift
from allweather.session.saved import open_saved

MINE = """from dataclasses import dataclass
from typing import ClassVar
from allweather.methods.option import option
from allweather.methods.tent import Tent

@dataclass(frozen=True, kw_only=True)
class Mine(Tent):
    name: ClassVar[str] = "mine"
    source: ClassVar[str] = "me"
    seed: int = option(3, "of the crops")
"""
OPTIONS: dict[str, Any] = {
    "plain": {},
    "guard": {"guard": Guard(max_drift=0.3, mixing="stream"), "seed": 3},
    "no guard": {"guard": False, "precision": "bf16"},
    "shift": {"adapt_when": "shift", "shift": Shift(threshold=0.1)},
}


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_a_session_of_any_method_is_known_from_its_file(name: str, tmp_path: Path) -> None:
    saved = Session(tiny("batchnorm"), methods.make(name), seed=2)
    for image in frames(2):
        saved(image)
    saved.save(tmp_path / "a.safetensors")
    again = open_saved(tmp_path / "a.safetensors", tiny("batchnorm"))
    assert again.settings() == saved.settings()
    assert torch.equal(again.predict(PICTURE), saved.predict(PICTURE))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_and_so_are_guard_precision_and_shift(options: Any, tmp_path: Path) -> None:
    saved = Session(tiny("batchnorm"), methods.make("cotta", settings={"scales": (0.5,)}), **options)
    saved(PICTURE)
    saved.save(tmp_path / "a.safetensors")
    assert open_saved(tmp_path / "a.safetensors", tiny("batchnorm")).settings() == saved.settings()


SPELLINGS: dict[str, tuple[Method, Method, dict[str, Any], dict[str, Any]]] = {
    "method": (methods.MallDomain(vector_rate=0), methods.MallDomain(vector_rate=0.0), {}, {}),
    "share": (methods.Norm(share=1), methods.Norm(share=1.0), {}, {}),
    "guard": (
        methods.Norm(),
        methods.Norm(),
        {"guard": Guard(max_disagreement=1)},
        {"guard": Guard(max_disagreement=1.0)},
    ),
    "NumPy": (
        methods.MallDomain(class_weights=tuple(np.ones(3)), lr=np.float64(1e-3)),
        methods.MallDomain(class_weights=(1, 1.0, 1), lr=1e-3),
        {"adapt_when": "shift", "shift": Shift(threshold=0)},
        {"adapt_when": "shift", "shift": Shift(threshold=np.float64(0))},
    ),
}


@pytest.mark.parametrize(("one", "other", "first", "second"), SPELLINGS.values(), ids=SPELLINGS)
def test_equal_settings_are_equal_however_they_were_given(
    one: Method, other: Method, first: dict[str, Any], second: dict[str, Any], tmp_path: Path
) -> None:
    saved = Session(tiny("batchnorm"), one, **first)
    saved(PICTURE)
    saved.save(tmp_path / "a.safetensors")
    Session(tiny("batchnorm"), other, **second).load(tmp_path / "a.safetensors")
    again = open_saved(tmp_path / "a.safetensors", tiny("batchnorm"))
    assert torch.equal(again.predict(PICTURE), saved.predict(PICTURE))


def test_files_from_before_have_whole_numbers_as_they_were_given(tmp_path: Path) -> None:
    saved = Session(tiny("batchnorm"), methods.Norm(share=1))
    saved.save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        session = file.metadata()["allweather.session"]
        metadata = file.metadata() | {"allweather.session": session.replace('"share": "1.0"', '"share": "1"')}
    assert metadata["allweather.session"] != session
    save_file(load_file(tmp_path / "a.safetensors"), tmp_path / "old.safetensors", metadata)
    open_saved(tmp_path / "old.safetensors", tiny("batchnorm"))
    with pytest.raises(CheckpointError, match=r"saved with share=1, this session has share=0\.5"):
        Session(tiny("batchnorm"), methods.Norm(share=0.5)).load(tmp_path / "old.safetensors")


def test_a_field_of_ones_own_method_may_be_called_seed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    method = f"{tmp_path / 'mine.py'}:Mine"
    saved = Session(tiny("batchnorm"), find_method(method, methods.METHODS)(seed=7), seed=5)  # type: ignore[call-arg]
    saved.save(tmp_path / "a.safetensors")
    again = open_saved(tmp_path / "a.safetensors", tiny("batchnorm"), method)
    assert again.settings() == saved.settings() and again.seed == 5


def edited(path: Path, settings: dict[str, str]) -> Path:
    """A saved session with other settings in its file; its tensors, and so its digest, are the same."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    identity = json.loads(metadata["allweather.session"]) | settings
    save_file(load_file(path), path, metadata | {"allweather.session": json.dumps(identity)})
    return path


@pytest.mark.usefixtures("own_imports")
@pytest.mark.parametrize("place", ["own_views.py:turned", "FOLDER/own_views.py:turned", "own_views:turned"])
def test_a_session_runs_no_code_unless_it_is_named_beside_it(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    view = "def turned(network, images):\n    return network(images.flip(2)).flip(2)\n"
    (tmp_path / "own_views.py").write_text("open('ran', 'w').close()\n" + view)
    place = place.replace("FOLDER", str(tmp_path))
    path = tmp_path / "a.safetensors"
    Session(tiny("batchnorm"), methods.Norm()).save(path)
    edited(path, {"views": f"['plain', '{place}']"})
    with pytest.raises(SettingsError, match=rf"a.safetensors names code: views=plain,{place}\. .*--set views=plain,"):
        open_saved(path, tiny("batchnorm"))
    with pytest.raises(SettingsError, match="names code"):
        open_saved(path, tiny("batchnorm"), "norm", {"share": "0.3"})
    with pytest.raises(CheckpointError, match="was saved with views="):
        open_saved(path, tiny("batchnorm"), settings={"views": "plain"})
    assert not (tmp_path / "ran").exists()
    opened = open_saved(path, tiny("batchnorm"), settings={"views": f"plain,{place}"})
    assert len(opened.method.looks) == 2 and (tmp_path / "ran").exists()
    edited(path, {"name": place})
    (tmp_path / "ran").unlink()
    with pytest.raises(SettingsError, match="a method of your own"):
        open_saved(path, tiny("batchnorm"), settings={"views": "plain"})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("seed", ["abc", "9" * 5000, "1" + "0" * 30, "None", "0.5"])
def test_a_seed_that_is_none_is_said(seed: str, tmp_path: Path) -> None:
    Session(tiny("batchnorm"), methods.Norm()).save(tmp_path / "a.safetensors")
    with pytest.raises(SettingsError, match="seed: expected"):
        open_saved(edited(tmp_path / "a.safetensors", {"seed": seed}), tiny("batchnorm"))


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    session_of(tiny("batchnorm")).save(path)
    with pytest.raises(CheckpointError, match="is a session of tiny-batchnorm, this network is tiny-layernorm"):
        open_saved(path, tiny("layernorm"))
    other = tiny("batchnorm")
    with torch.no_grad():
        other.network.head[3].bias[0] += 1e-3  # type: ignore[union-attr,index]
    with pytest.raises(CheckpointError, match="was saved with weights="):
        open_saved(path, other)
    with pytest.raises(SettingsError, match="was adapted by mall-domain, not by norm"):
        open_saved(path, tiny("batchnorm"), "norm")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two frames, and the session that `adapt` saved of them."""
    folder = tmp_path_factory.mktemp("adapted")
    (folder / "frames").mkdir()
    for seed in range(2):
        Image.fromarray((render(seed, "fog", (96, 64)).rgb * 255).astype(np.uint8)).save(
            folder / "frames" / f"{seed}.png"
        )
    saved = ("--out", folder / "out", "--save-session", folder / "session.safetensors")
    assert allweather("adapt", folder / "frames", *MODEL, *saved).returncode == 0
    return folder


def export(folder: Path, *arguments: object) -> Done:
    return allweather("export", folder / "session.safetensors", *MODEL, *arguments)


def test_the_verb_writes_a_state_dict_of_the_stream_and_a_delta(adapted: Path, tmp_path: Path) -> None:
    done = export(adapted, "--out", tmp_path / "a.safetensors")
    assert done.returncode == 0 and "mall-domain on demo:streetnet" in done.stderr
    network = load_model("demo:streetnet").network
    network.load_state_dict(load_file(tmp_path / "a.safetensors"), strict=True)
    assert read_about(tmp_path / "a.safetensors")["record"]["batches averaged"] == 2
    done = export(adapted, "--out", tmp_path / "b.delta.safetensors", "--frames", adapted / "frames")
    assert done.returncode == 0 and read_about(tmp_path / "b.delta.safetensors")["statistics"] == "stream"
    apply_delta(load_model("demo:streetnet"), tmp_path / "b.delta.safetensors")


@pytest.mark.usefixtures("own_imports")
def test_the_verb_runs_a_view_of_ones_own_where_it_is_named(adapted: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def turned(network, images):\n    return network(images.flip(2)).flip(2)\n")
    shutil.copy(adapted / "session.safetensors", tmp_path)
    edited(tmp_path / "session.safetensors", {"views": f"['plain', '{tmp_path}/own.py:turned']"})
    done = export(tmp_path, "--out", tmp_path / "a.safetensors")
    assert done.returncode == 2 and "names code" in done.stderr and "your own code" not in done.stderr
    done = export(tmp_path, "--out", tmp_path / "a.safetensors", "--set", f"views=plain,{tmp_path}/own.py:turned")
    assert done.returncode == 0 and "own.py, your own code" in done.stderr, done.stderr


@pytest.mark.slow
def test_the_verb_writes_a_program(adapted: Path, tmp_path: Path) -> None:
    assert export(adapted, "--out", tmp_path / "a.pt2", "--size", "96x64").returncode == 0
    session = open_saved(adapted / "session.safetensors", load_model("demo:streetnet"))
    image = torch.from_numpy(render(5, "night", (96, 64)).rgb).float().permute(2, 0, 1)
    found = torch.export.load(tmp_path / "a.pt2").module()(image[None])[0]
    plain = session.method.predict(session.model, session.state, image[None])[0]
    assert (found.argmax(0) == plain.argmax(0)).float().mean() >= 0.999


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "a.trt"), "expected one of NAME.delta.safetensors"),
        (("--out", "a.safetensors", "--statistics", "image", "--frames", "."), "only --statistics stream averages"),
        (("--out", "a.pt2", "--opset", "18"), "only .onnx has an opset"),
        (("--out", "a.pt2", "--size", "9"), "expected WIDTHxHEIGHT"),
        (("--out", "a.safetensors", "--model", "espnetv2:0.5", "--random-weights"), "is a session of demo:streetnet"),
    ],
)
def test_mistakes_end_with_status_2_and_nothing_written(
    arguments: tuple[str, ...], said: str, adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = export(adapted, *arguments)
    assert done.returncode == 2 and said in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_session_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("nothing")
    done = allweather("export", tmp_path / "a.safetensors", *MODEL, "--out", tmp_path / "b.pt2")
    assert done.returncode == 2 and "cannot read a session from" in done.stderr
