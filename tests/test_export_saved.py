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
from refusals import refusal
from safetensors.torch import load_file
from tiny import equal_in, frames, other_weights, tiny

from allweather import Guard, Session, apply_delta, load_model, load_stream, methods
from allweather.data.scenes import render
from allweather.errors import CheckpointError, SettingsError
from allweather.methods.method import Method
from allweather.methods.own import find_method
from allweather.models.segmenter import Preprocessing
from allweather.session import Shift
from allweather.session.saved import open_saved
from allweather.session.storage import read_saved, save_session, tell_names

MINE = """from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar
from allweather.methods.option import option
from allweather.methods.tent import Tent

Kind = Enum("Kind", ["SOFT", "HARD"])

@dataclass(frozen=True, kw_only=True)
class Mine(Tent):
    name: ClassVar[str] = "mine"
    source: ClassVar[str] = "me"
    seed: int = option(3, "of the crops")
    kind: Kind = option(Kind.SOFT, "of the crops")
    bank: Path | None = option(None, "of crops", path=True)
"""
OPTIONS: dict[str, Any] = {
    "plain": {},
    "guard": {"guard": Guard(max_drift=0.3, mixing="stream"), "seed": 3},
    "no guard": {"guard": False, "precision": "bf16"},
    "shift": {"adapt_when": "shift", "shift": Shift(threshold=0.1)},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_a_session_of_any_method_is_known_from_its_file(name: str, path: Path):
    saved = Session(tiny(), methods.make(name), seed=2)
    for image in frames(2):
        saved(image)
    saved.save(path)
    again = open_saved(path, tiny())
    assert again.settings() == saved.settings()
    assert torch.equal(again.predict(PICTURE), saved.predict(PICTURE))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_and_so_are_guard_precision_and_shift(options: Any, path: Path):
    saved = Session(tiny(), methods.make("cotta", settings={"scales": (0.5,)}), **options)
    saved(PICTURE)
    saved.save(path)
    assert open_saved(path, tiny()).settings() == saved.settings()


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
    one: Method, other: Method, first: dict[str, Any], second: dict[str, Any], path: Path
):
    saved = Session(tiny(), one, **first)
    saved(PICTURE)
    saved.save(path)
    Session(tiny(), other, **second).load(path)
    again = open_saved(path, tiny())
    assert torch.equal(again.predict(PICTURE), saved.predict(PICTURE))


def test_files_from_before_have_whole_numbers_as_they_were_given(path: Path):
    saved = Session(tiny(), methods.Norm(share=1))
    saved.save(path)
    assert read_saved(path)[1]["share"] == "1.0"
    open_saved(edited(path, {"share": "1"}), tiny())
    with refusal(r"saved with share=1, this session has share=0\.5", CheckpointError):
        Session(tiny(), methods.Norm(share=0.5)).load(path)


def mine(folder: Path) -> str:
    (folder / "mine.py").write_text(MINE)
    return f"{folder / 'mine.py'}:Mine"


def test_a_field_of_ones_own_method_may_be_called_seed(tmp_path: Path, path: Path):
    method = mine(tmp_path)
    saved = Session(tiny(), find_method(method, methods.METHODS)(seed=7), seed=5)
    saved.save(path)
    again = open_saved(path, tiny(), method)
    assert again.settings() == saved.settings() and again.seed == 5


def test_fields_of_ones_own_method_may_be_paths_and_names_of_an_enum(tmp_path: Path, path: Path):
    method = mine(tmp_path)
    made = methods.make(method, settings={"kind": "HARD", "bank": "crops.pt"})
    saved = Session(tiny(), made)
    assert (
        json.loads(json.dumps(saved.settings()))["method"] | {"kind": "HARD", "bank": "crops.pt"}
        == (saved.settings()["method"])
    )
    assert json.dumps(methods.describe_fields(type(made))).count("SOFT") == 2
    saved.save(path)
    assert open_saved(path, tiny(), method).method == made


def edited(path: Path, settings: dict[str, str]) -> Path:
    """A saved session with other settings in its file."""
    tensors, identity = read_saved(path)
    save_session(path, tensors, identity | settings)
    return path


@pytest.mark.usefixtures("own_imports")
@pytest.mark.parametrize("place", ["own_views.py:turned", "FOLDER/own_views.py:turned", "own_views:turned"])
def test_a_session_runs_no_code_unless_it_is_named_beside_it(
    place: str, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    view = "def turned(network, images):\n    return network(images.flip(2)).flip(2)\n"
    (tmp_path / "own_views.py").write_text("open('ran', 'w').close()\n" + view)
    place = place.replace("FOLDER", str(tmp_path))
    Session(tiny(), methods.Norm()).save(path)
    edited(path, {"views": f"['plain', '{place}']"})
    with refusal(rf"a.safetensors names code: views=plain,{place}\. .*--set views=plain,", SettingsError):
        open_saved(path, tiny())
    with refusal("names code", SettingsError):
        open_saved(path, tiny(), "norm", {"share": "0.3"})
    with refusal("was saved with views=", CheckpointError):
        open_saved(path, tiny(), settings={"views": "plain"})
    assert not (tmp_path / "ran").exists()
    opened = open_saved(path, tiny(), settings={"views": f"plain,{place}"})
    assert len(opened.method.looks) == 2 and (tmp_path / "ran").exists()
    edited(path, {"name": place})
    (tmp_path / "ran").unlink()
    with refusal("a method of your own", SettingsError):
        open_saved(path, tiny(), settings={"views": "plain"})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("seed", ["abc", "9" * 5000, "1" + "0" * 30, "None", "0.5"])
def test_a_seed_that_is_none_is_said(seed: str, path: Path):
    Session(tiny(), methods.Norm()).save(path)
    with refusal("seed: expected", SettingsError):
        open_saved(edited(path, {"seed": seed}), tiny())


def test_what_does_not_belong_together_is_refused(path: Path):
    session_of(tiny()).save(path)
    with refusal("is a session of tiny-batchnorm, this network is tiny-layernorm", CheckpointError):
        open_saved(path, tiny("layernorm"))
    with refusal("was saved with weights=", CheckpointError):
        open_saved(path, other_weights())
    with refusal("was adapted by mall-domain, not by norm", SettingsError):
        open_saved(path, tiny(), "norm")


@pytest.mark.parametrize("loaded", ["load", "open_saved"])
def test_a_network_goes_by_another_name_where_all_else_is_equal(
    loaded: str, path: Path, caplog: pytest.LogCaptureFixture
):
    tell_names.cache_clear()
    model = tiny()
    saved = session_of(model)
    saved.save(path)
    model.name = "nets.py:build"
    for _ in range(2):
        session = open_saved(path, model) if loaded == "open_saved" else Session(model, saved.method, guard=False)
        session.load(path)
        assert torch.equal(session.predict(PICTURE), saved.predict(PICTURE))
    assert caplog.text.count("a session of tiny-batchnorm is taken for one of nets.py:build") == 1
    model.preprocessing = Preprocessing(bgr=True)
    with refusal(r"preprocessing\.bgr=False", CheckpointError):
        open_saved(path, model)


def test_a_session_of_another_version_says_so(path: Path):
    session_of(tiny()).save(path)
    with refusal(r"saved by another version of allweather: its format is 3, this one rea", CheckpointError):
        open_saved(edited(path, {"format": "3", "weights": "0"}), tiny())


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two frames, and the session that `adapt` saved of them."""
    folder = tmp_path_factory.mktemp("adapted")
    (folder / "frames").mkdir()
    for seed in range(2):
        Image.fromarray((render(seed, "fog", (96, 64)).rgb * 255).astype(np.uint8)).save(folder / f"frames/{seed}.png")
    saved = ("--out", folder / "out", "--save-session", folder / "session.safetensors")
    allweather("adapt", folder / "frames", *MODEL, *saved).ok()
    return folder


def export(folder: Path, *arguments: object) -> Done:
    return allweather("export", folder / "session.safetensors", *MODEL, *arguments)


def test_the_verb_writes_a_state_dict_of_the_stream_and_a_delta(adapted: Path, tmp_path: Path, path: Path):
    said = export(adapted, "--out", path).said()
    assert "mall-domain on demo:streetnet" in said and "checked" not in said
    network = load_model("demo:streetnet").network
    network.load_state_dict(load_file(path), strict=True)
    assert read_about(path)["record"]["batches averaged"] == 2
    export(adapted, "--out", tmp_path / "b.delta.safetensors", "--frames", adapted / "frames").ok()
    assert read_about(tmp_path / "b.delta.safetensors")["statistics"] == "stream"
    apply_delta(load_model("demo:streetnet"), tmp_path / "b.delta.safetensors")


def statistics_at(folder: Path, size: tuple[int, int] | None) -> dict[str, torch.Tensor]:
    opened = open_saved(folder / "session.safetensors", load_model("demo:streetnet"))
    return opened.network("stream", load_stream("folder", folder / "frames", size)).state_dict()


@pytest.mark.parametrize(
    ("given", "size", "told"),
    [((), None, "2 at 96×64"), (("--frames-size", "48x32"), (48, 32), "2 at 48×32"),
     (("--frames-size", "native"), None, "2 at 96×64")],
)  # fmt: skip
def test_statistics_are_of_frames_at_the_size_asked_for_and_it_is_told(
    given: tuple[str, ...], size: tuple[int, int] | None, told: str, adapted: Path, path: Path
):
    said = export(adapted, "--out", path, "--frames", adapted / "frames", *given).said()
    assert f"statistics of 2 frames: {told}" in said
    written, expected = load_file(path), statistics_at(adapted, size)
    assert equal_in(expected, written)


@pytest.mark.parametrize(
    ("given", "told", "graph"),
    [(("--frames-size", "48x32"), "48×32", None), (("--size", "64x32"), "64×32", (64, 32)),
     (("--size", "64x32", "--frames-size", "48x32"), "48×32", (64, 32))],
)  # fmt: skip
def test_the_size_of_frames_and_that_of_a_graph_are_two(
    given: tuple[str, ...],
    told: str,
    graph: tuple[int, int] | None,
    adapted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[Any] = []
    monkeypatch.setattr("allweather.export.write.write", lambda deployment, path, size, opset: asked.append(size))
    said = export(adapted, "--out", tmp_path / "a.pt2", "--frames", adapted / "frames", *given).said()
    assert f"statistics of 2 frames: 2 at {told}" in said
    assert asked == [graph] and "checked" in said


def test_a_session_of_a_device_that_is_not_here_is_exported_from_the_cpu(adapted: Path, tmp_path: Path):
    export(adapted, "--out", tmp_path / "here.safetensors").ok()
    tensors, identity = read_saved(adapted / "session.safetensors")
    tensors["counters.random"] = torch.zeros(16, dtype=torch.uint8)  # as a GPU's are
    save_session(tmp_path / "session.safetensors", tensors, identity | {"device": "xpu"})
    said = export(tmp_path, "--out", tmp_path / "there.safetensors").said()
    assert "was adapted on xpu, which is not here: exported from the CPU" in said
    here, there = (load_file(tmp_path / f"{name}.safetensors") for name in ("here", "there"))
    assert all(torch.equal(here[name], there[name]) for name in here)
    with refusal("was saved with device=xpu", CheckpointError):
        open_saved(tmp_path / "session.safetensors", load_model("demo:streetnet"))


@pytest.mark.usefixtures("own_imports")
def test_the_verb_runs_a_view_of_ones_own_where_it_is_named(adapted: Path, tmp_path: Path, path: Path):
    (tmp_path / "own.py").write_text("def turned(network, images):\n    return network(images.flip(2)).flip(2)\n")
    shutil.copy(adapted / "session.safetensors", tmp_path)
    edited(tmp_path / "session.safetensors", {"views": f"['plain', '{tmp_path}/own.py:turned']"})
    said = export(tmp_path, "--out", path).said(2)
    assert "names code" in said and "your own code" not in said
    told = export(tmp_path, "--out", path, "--set", f"views=plain,{tmp_path}/own.py:turned").said()
    assert "own.py, your own code" in told


@pytest.mark.slow
def test_the_verb_writes_a_program(adapted: Path, tmp_path: Path):
    export(adapted, "--out", tmp_path / "a.pt2", "--size", "96x64").ok()
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
        (("--out", "a.safetensors", "--frames", ".", "--size", "99x99"), "That of --frames is --frames-size 99x99"),
        (("--out", "a.safetensors", "--frames", ".", "--frames-size", "9"), "expected WIDTHxHEIGHT"),
        (("--out", "a.safetensors", "--frames-size", "99x99"), "--frames-size: expected --frames"),
        (("--out", "a.safetensors", "--model", "espnetv2:0.5", "--random-weights"), "is a session of demo:streetnet"),
    ],
)
def test_mistakes_end_with_status_2_and_nothing_written(
    arguments: tuple[str, ...], said: str, adapted: Path, here: Path
):
    assert said in export(adapted, *arguments).said(2)
    assert not list(here.iterdir())


def test_a_file_that_is_no_session_is_named(tmp_path: Path, path: Path):
    path.write_text("nothing")
    assert "cannot read a session from" in allweather("export", path, *MODEL, "--out", tmp_path / "b.pt2").said(2)
