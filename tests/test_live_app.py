"""`allweather live` as a user meets it: what it writes and says, its statuses, Ctrl-C, and bad input in one line."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ENVIRONMENT, MODEL, allweather, hear_interrupts
from PIL import Image

from allweather.app import live as app
from allweather.data import Video
from allweather.data.json_lines import read_json_lines
from allweather.data.scenes import render
from allweather.live.frame import LiveFrame
from allweather.live.sources import Source
from allweather.pictures.film import Film

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc")
QUICK = (*MODEL, "--size", "96x64", "--learner", "thread")


def scene(seed: int, size: tuple[int, int]) -> np.ndarray:
    return (render(seed, "rain", size).rgb * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of rain, 128×64."""
    path = tmp_path_factory.mktemp("clips") / "rain.mp4"
    with Film(path, 20, 128, 64) as film:
        for seed in range(12):
            film.write(scene(seed, (128, 64)))
    return path


def test_a_clip_becomes_a_clip_and_a_record(clip: Path, tmp_path: Path):
    out, record = tmp_path / "live.mp4", tmp_path / "live.jsonl"
    guard = ("--guard", "every=1")
    done = allweather("live", clip, *QUICK, *guard, "--every-frame", "--out", out, "--record", record).ok()
    assert "12 frames predicted, 0 dropped, learnt from" in done.stderr and done.stdout == ""
    film = Video(out)
    assert (film.width, film.height, sum(1 for _ in film)) == (128, 64, 12)
    assert float(film.rate) == 20  # the clip's, whatever predicting it took
    lines = read_json_lines(record)
    assert [line["kind"] for line in lines] == ["run", *["frame"] * 12, "end"]
    assert lines[0]["model"] == "demo:streetnet" and lines[0]["learner"] == "thread"
    assert "live.mp4 exists already. Choose another --out" in allweather("live", clip, *QUICK, "--out", out).said(2)


def test_what_waits_for_predictions_keeps_its_times(clip: Path, tmp_path: Path):
    uneven, out = tmp_path / "uneven.mkv", tmp_path / "live.mp4"
    times = [0.0, 0.12, 0.24, 0.5]
    with Film(uneven, 25, 128, 64) as film:
        for frame, seconds in zip(Video(clip), times, strict=False):
            film.write(frame.pixels, seconds)
    allweather("live", uneven, *QUICK, "--every-frame", "--method", "source", "--out", out).ok()
    assert [frame.seconds for frame in Video(out)] == pytest.approx(times, abs=2e-3)


@pytest.mark.parametrize(
    ("method", "given", "views"),
    [
        ("mall-domain", {}, "plain,grey"),
        ("mall-domain", {"surest": "False"}, "plain"),
        ("mall-sample", {}, "plain"),
        ("own.py:Own", {}, "plain"),
    ],
)
def test_one_view_is_predicted_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, given: dict[str, str], views: str
):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(
        "from dataclasses import dataclass\nfrom allweather.methods import Method\n"
        "from allweather.methods.views import views_option\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Own(Method):\n    name = source = 'own'\n    episodic = False\n"
        "    views: tuple[str, ...] = views_option('plain', 'mirror')\n    begin = objective = None\n"
    )
    assert app._one_view(method, "recommended", given)["views"] == views


def test_waiting_predicts_what_adapt_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    frames = tmp_path / "frames"
    frames.mkdir()
    for seed in range(3):
        by_lamps = scene(seed, (96, 64)) * [0.5, 0.4, 0.2]
        Image.fromarray(by_lamps.astype(np.uint8)).save(frames / f"{seed}.png")
    one_view = ("--set", "views=plain,grey", "--set", "surest=true")  # as live predicts by itself
    adapted = allweather("adapt", frames, *MODEL, *one_view, "--size", "96x64", "--out", tmp_path / "adapted")
    shown: dict[str, np.ndarray] = {}
    draw = LiveFrame.overlay

    def overlay(frame: LiveFrame) -> np.ndarray:
        shown[frame.name] = frame.result.labels.numpy()
        return draw(frame)

    monkeypatch.setattr(LiveFrame, "overlay", overlay)
    record, film = tmp_path / "live.jsonl", tmp_path / "live.mp4"
    live = allweather("live", frames, *QUICK, "--wait", "--adapt-every", "1", "--record", record, "--out", film)
    assert adapted.returncode == live.returncode == 0, live.stderr
    losses = {line["name"]: line["losses"] for line in read_json_lines(record) if line["kind"] == "frame"}
    written = (tmp_path / "adapted").glob("record.json*")
    text = "".join(path.read_text() for path in written)
    assert losses.keys() == shown.keys() == {"0", "1", "2"} and all(losses.values())
    assert all(str(loss) in text for found in losses.values() for loss in found)
    for name, labels in shown.items():
        assert np.array_equal(labels, np.asarray(Image.open(tmp_path / "adapted" / "labels" / f"{name}.png")))


def test_a_folder_with_a_broken_picture_ends_with_one(tmp_path: Path):
    frames = tmp_path / "frames"
    frames.mkdir()
    Image.fromarray(scene(0, (96, 64))).save(frames / "0.png")
    (frames / "1.png").write_bytes(b"")
    said = allweather("live", frames, *QUICK, "--every-frame").said(1)
    assert "1.png: not a readable image (it is empty)" in said
    assert "1 frames predicted" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.mp4"], "no such source: none.mp4. Expected a video file, a folder of images, camera:0"),
        (["camera:9"], "camera:9: no such camera"),
        (["http://127.0.0.1:9/street"], "http://127.0.0.1:9/street: cannot be opened (Connection refused)"),
        (["ftp://host/clip"], "expected an address that begins with rtsp"),
        (["CLIP", "--budget", "40"], "--budget: expected a time above 0 with its unit, such as 40ms or 0.5s; got '40'"),
        (["CLIP", "--adapt-every", "0"], "--adapt-every: expected a whole number above 0 or auto, got '0'"),
        (["CLIP", "--stall", "no"], "--stall: expected a time above 0"),
        (["CLIP", "--rate", "0"], "live: expected a rate above 0, got 0.0"),
        (["CLIP", "--method", "mall-sample"], "its prediction has to wait"),
        (["CLIP", "--out", "live.txt"], "expected a video's name ending in .mp4"),
        pytest.param(["CLIP", "--out", "/proc/live.mp4"], "cannot write /proc/live.mp4", marks=LINUX),
    ],
)
def test_a_mistake_is_one_line_and_status_two(clip: Path, arguments: list[str], said: str, tmp_path: Path):
    given = [str(clip) if word == "CLIP" else word for word in arguments]
    told = allweather("live", *given, *QUICK, "--record", tmp_path / "r.jsonl").said(2)
    assert said in told
    assert "Traceback" not in told and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "same.mp4", "--record", "same.mp4"], "--out and --record are both same.mp4: the film would replace"),
        (["--out", "same.mp4", "--record", "deep/../same.mp4"], "--out and --record are both same.mp4"),
        (["--record", "-"], "--record -: expected a file's name"),
    ],
)
def test_files_that_cannot_hold_what_is_written_are_refused(clip: Path, arguments: list[str], said: str, here: Path):
    assert said in allweather("live", clip, *QUICK, *arguments).said(2)
    assert list(here.iterdir()) == []


def test_help_ends_with_a_line_that_runs():
    last = re.sub(r"\s+", " ", allweather("live", "--help").ok().stdout).strip()
    assert last.endswith("Example: allweather live drive.mp4 --model demo:streetnet --budget 100ms --out adapted.mp4")


def test_ctrl_c_while_the_learner_starts_is_not_lost(clip: Path, tmp_path: Path):
    record = tmp_path / "live.jsonl"
    command = [
        sys.executable, "-m", "allweather", "live", clip, *MODEL, "--size", "96x64", "--rate", "0.1",
        "--record", record,
    ]  # fmt: skip
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=hear_interrupts)
    while not record.exists() and running.poll() is None:
        time.sleep(0.001)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 130 and "Traceback" not in said, said
    assert read_json_lines(record)[-1]["why"] == "interrupted"


def test_sigterm_ends_a_file_with_a_whole_record(clip: Path, tmp_path: Path):
    record, out = tmp_path / "live.jsonl", tmp_path / "live.mp4"
    command = [
        sys.executable, "-m", "allweather", "live", clip, *MODEL, "--size", "96x64", "--rate", "0.5",
        "--record", record, "--out", out,
    ]  # fmt: skip
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=hear_interrupts)
    while running.poll() is None and not (record.exists() and record.read_text().count('"kind": "frame"') > 1):
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 143 and "Traceback" not in said, said
    assert "frames predicted" in said
    lines = read_json_lines(record)
    assert lines[-1]["kind"] == "end" and lines[-1]["why"] == "interrupted"
    assert sum(line["kind"] == "frame" for line in lines) == lines[-1]["predicted"] >= 1
    assert lines[-1]["predicted"] - sum(1 for _ in Video(out)) in (0, 1)  # the last one may not have been drawn


@pytest.mark.parametrize(("endless", "status"), [(True, 0), (False, 130)])
def test_ctrl_c_is_how_a_camera_ends(
    clip: Path, endless: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = app.open_source

    def opened(*arguments: Any) -> Source:
        source = plain(*arguments)
        source.endless = endless
        return source

    def interrupt(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "open_source", opened)
    monkeypatch.setattr(app, "_figures", interrupt)
    assert "1 frames predicted" in allweather("live", clip, *QUICK, "--record", tmp_path / "live.jsonl").said(status)
    assert read_json_lines(tmp_path / "live.jsonl")[-1]["why"] == "interrupted"


@pytest.mark.usefixtures("hears_interrupts")
def test_ctrl_c_while_a_film_begins_leaves_none(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Interrupted(Film):
        def _add_stream(self) -> Any:
            signal.raise_signal(signal.SIGINT)  # its file is there already
            return super()._add_stream()

    monkeypatch.setattr(app, "Film", Interrupted)
    allweather("live", clip, *QUICK, "--out", tmp_path / "live.mp4").said(130)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_drawn_is_the_frame_as_it_came(clip: Path, tmp_path: Path):
    out = tmp_path / "live.mkv"
    allweather("live", clip, *QUICK, "--every-frame", "--out", out, "--method", "source").ok()
    drawn, given = next(iter(Video(out))).pixels, next(iter(Video(clip))).pixels
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    assert np.corrcoef(drawn.mean(2).ravel(), given.mean(2).ravel())[0, 1] > 0.4
    assert abs(drawn.astype(int) - given).mean() > 10
