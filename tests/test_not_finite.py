"""A frame that the network gives no finite numbers for is a failure with a name, and no labels of it are written."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import allweather
from PIL import Image
from serving import encoded

from allweather import CITYSCAPES, Frame, Segmenter, Session, methods
from allweather.errors import NotFiniteError
from allweather.pictures.enlarge import classify, confidence_at, labels_at
from allweather.runs.record_file import read_record

pytestmark = pytest.mark.usefixtures("own_imports")
NET = """
import torch
from torch import nn

class Blinded(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 19, 1))

    def forward(self, x):
        logits = self.inner(x)
        glare = (x.amin((1, 2, 3)) > 1.5)[:, None, None, None]
        return torch.where(glare, logits * torch.nan, logits)

def build() -> nn.Module:
    return Blinded()
"""
NAMES = ("a", "b", "c")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network that glare blinds, three frames of which the second glares, and their labels."""
    (tmp_path / "net.py").write_text(NET)
    random = np.random.default_rng(0)
    for kind in ("frames", "labels"):
        (tmp_path / kind).mkdir()
    for name in NAMES:
        low = 240 if name == "b" else 0
        Image.fromarray(random.integers(low, 256, (32, 48, 3), np.uint8)).save(tmp_path / f"frames/{name}.png")
        Image.fromarray(random.integers(0, 19, (32, 48), np.uint8)).save(tmp_path / f"labels/{name}.png")
    return tmp_path


def adapt(folder: Path, *options: object) -> tuple[int, str, dict[str, dict]]:
    """Status, what was said, and the record's last line of each frame."""
    model = ("--model", f"{folder}/net.py:build", "--classes", "cityscapes")
    done = allweather("adapt", folder / "frames", *model, "--out", folder / "out", *options)
    assert done.returncode < 2, done.stderr
    lines = map(json.loads, (folder / "out/record.jsonl").read_text().splitlines())
    return done.returncode, done.stderr, {line["name"].rpartition("/")[2]: line for line in lines}


def written(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "out").rglob("*") if path.suffix in (".png", ".jpg")}


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "tent"),
        ("--method", "norm"),
        ("--method", "tent", "--set", "episodic=false", "--batch", "3"),
        ("--method", "tent", "--set", "episodic=false", "--protocol", "transductive"),
        ("--method", "source", "--write", "confidence"),
        pytest.param(("--method", "tent", "--workers", "2"), marks=pytest.mark.slow),
    ],
    ids=["tent", "norm", "batch", "transductive", "confidence", "workers"],
)
@pytest.mark.usefixtures("warm_workers")
def test_adapt_names_it_and_does_the_rest(folder: Path, options: tuple[str, ...]):
    for again in ((), ("--resume",)):
        status, said, lines = adapt(folder, *options, *again)
        assert status == 1, said
        assert "b: the network gives no finite numbers for it" in said
        assert "1 images have no prediction" in said
        assert "no finite numbers" in lines["b"]["failure"]
        assert all("failure" not in lines[name] for name in ("a", "c"))
        assert written(folder) == {"a", "c"}


def test_a_film_leaves_it_out(folder: Path):
    pytest.importorskip("av", reason="the extra video")
    status, said, _ = adapt(folder, "--method", "norm", "--write", "video")
    assert status == 1, said
    from allweather.data import Video

    assert sum(1 for _ in Video(folder / "out/overlay.mp4")) == 2


def test_losses_that_are_not_finite_are_null(folder: Path):
    (folder / "own.py").write_text(
        """
from dataclasses import dataclass
from typing import ClassVar
from allweather.methods.gradient import GradientMethod
from allweather.methods.method import Objective

@dataclass(frozen=True, kw_only=True)
class Lost(GradientMethod):
    name: ClassVar[str] = "lost"
    source: ClassVar[str] = "the tests"

    def objective(self, model, state, batch):
        logits = model(batch.images)
        return Objective(logits, logits.mean() * float("nan"))
"""
    )
    (folder / "frames/b.png").unlink()
    for again in ((), ("--resume",)):
        status, said, lines = adapt(folder, "--method", f"{folder}/own.py:Lost", *again)
        assert status == 0, said
        assert [lines[name]["losses"] for name in ("a", "c")] == [[None], [None]]
        assert lines["a"]["decision"] == "skipped"


PLAN = """
[[models]]
name = "net.py:build"
classes = "cityscapes"

[[streams]]
name = "own"
images = "frames"
labels = "labels"

[[methods]]
name = "norm"
"""


def test_bench_lists_it_among_the_failures(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    (folder / "plan.toml").write_text(PLAN)
    allweather("bench", folder / "plan.toml", "--out", folder / "runs").said(1)
    (path,) = (folder / "runs").glob("*.json")
    record = read_record(path)
    assert "b: the network gives no finite numbers" in record["failures"]["b"]
    assert [image["name"] for image in record["images"]] == ["a", "c"]


def test_the_cut_before_is_unknown_where_only_adaptation_gives_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    spoilt = "    made = Blinded()\n    made.inner[1].running_var.fill_(-1)\n    return made"
    (folder / "net.py").write_text(NET.replace("    return Blinded()", spoilt))
    (folder / "plan.toml").write_text(PLAN.replace('"norm"', '"tent"\npreset = "paper"'))
    allweather("bench", folder / "plan.toml", "--out", folder / "runs").said(1)
    record = read_record(next((folder / "runs").glob("*.json")))
    assert record["figures"]["ncut_before"] is None and record["figures"]["ncut"] > 0


def test_live_tells_of_it_and_shows_the_rest(folder: Path):
    model = ("--model", f"{folder}/net.py:build", "--classes", "cityscapes", "--method", "norm")
    record = folder / "live.jsonl"
    said = allweather(
        "live", folder / "frames", *model, "--every-frame", "--learner", "thread", "--record", record,
    ).said(1)  # fmt: skip
    assert "2 frames predicted, 0 dropped" in said
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["name"] for line in lines if line["kind"] == "frame"] == ["a", "c"]
    (event,) = [line for line in lines if line["kind"] == "event"]
    assert event["event"] == "not-finite" and "b: the network gives no finite numbers" in event["text"]
    assert lines[-1]["arrived"] == 3 and lines[-1]["dropped"] == 0


def blinded() -> Segmenter:
    made: dict = {}
    exec(NET, made)
    return Segmenter.wrap(made["build"]().eval(), classes=CITYSCAPES, name="blinded")


@pytest.mark.parametrize("answer", ["png", "json"])
def test_the_endpoint_answers_with_an_error(folder: Path, answer: str):
    pytest.importorskip("gradio", reason="the extra web")
    from fastapi.testclient import TestClient

    from allweather.serve import application

    with TestClient(application(blinded()), base_url="http://localhost") as client:
        status = {}
        for name in NAMES:
            content = encoded(np.asarray(Image.open(folder / f"frames/{name}.png")))
            data = {"method": "tent", "answer": answer, "stream": "one", "set": "episodic=false"}
            said = client.post("/v1/predict", files={"image": ("x.png", content)}, data=data)
            status[name] = said.status_code
            assert name != "b" or "finite" in said.json()["error"]
    assert status == {"a": 200, "b": 422, "c": 200}


def test_losses_in_an_answer_are_null_where_they_are_not_finite():
    pytest.importorskip("gradio", reason="the extra web")
    from allweather.serve.answers import facts

    result = replace(Session(blinded(), "source")(torch.rand(3, 16, 16)), losses=(0.5, float("nan")))
    assert json.loads(json.dumps(facts(result), allow_nan=False))["losses"] == [0.5, None]


def test_the_page_says_which_picture(folder: Path):
    pytest.importorskip("gradio", reason="the extra web")
    from allweather.serve.networks import as_network
    from allweather.serve.uploads import Held
    from allweather.serve.visitor import Visitor

    visitor, pixels = Visitor(), np.asarray(Image.open(folder / "frames/b.png"))
    visitor.hold([Held("b.png", pixels, (48, 32))])
    visitor.prepare(as_network(blinded(), None), methods.Tent())
    with pytest.raises(NotFiniteError, match=r"b\.png: the network gives no finite numbers"):
        visitor._step(0)
    assert visitor.shown is None and not visitor.kept and not visitor.points


def test_a_film_shows_black_where_only_the_source_is_not_finite(tmp_path: Path):
    pytest.importorskip("av", reason="the extra video")
    from allweather.app.drawn import Drawn
    from allweather.app.reel import Reel

    frame = Frame("a", torch.full((3, 32, 48), 0.5), (48, 32))
    reel = Reel(tmp_path / "x.mp4", ("input", "source"), Fraction(10))
    shown = reel.picture(Drawn(frame, torch.rand(19, 32, 48), CITYSCAPES), torch.full((19, 32, 48), torch.nan))
    input_panel, source_panel = shown[-32:, :48], shown[-32:, -48:]
    assert input_panel[-8:].min() > 100 and source_panel[-8:].max() == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_no_class_is_made_up(value: float, tmp_path: Path):
    logits = torch.zeros(3, 4, 6)
    logits[1, 2, 3] = value
    for draw in (labels_at, confidence_at):
        with pytest.raises(NotFiniteError, match="expected a prediction of finite logits"):
            draw(logits, (12, 8))
    with pytest.raises(NotFiniteError):
        classify(logits, (8, 12))


def test_a_result_is_neither_drawn_nor_saved(folder: Path):
    result = Session(blinded(), "norm")(folder / "frames/b.png")
    assert result.labels.shape == (32, 48)  # what the session gives stays as it is
    for kind in ("labels", "color", "overlay"):
        with pytest.raises(NotFiniteError):
            result.save(folder / f"{kind}.png", kind)
    with pytest.raises(NotFiniteError):
        result.overlay()
    assert not list(folder.glob("*.png"))
