"""The command line over many streams: Ctrl-C, torchrun with a rank that is killed, plans over workers, and mistakes."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ENVIRONMENT, MODEL, allweather, hear_interrupts
from many import paint, same
from PIL import Image

from allweather.data.json_lines import read_json_lines
from allweather.scale.conduct import Conducted, Conductor

COUNTS = {"fog": 6, "snow": 9}
ADAPT = [sys.executable, "-m", "allweather", "adapt"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "allweather", "adapt"]
MARK = "ALLWEATHER_TEST_RUN"  # by which the processes of a command are known
MARKS: dict[subprocess.Popen[str], str] = {}
SLOWLY = ("--size", "208x144")  # so that a signal meets it at work


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return paint(tmp_path_factory.mktemp("streams"), COUNTS)


def start(command: list[str], *arguments: object) -> subprocess.Popen[str]:
    mark = secrets.token_hex(8)
    process = subprocess.Popen(
        [*command, *map(str, (*arguments, *MODEL, "--write", "labels"))], env=ENVIRONMENT | {MARK: mark}, text=True,
        stderr=subprocess.PIPE, preexec_fn=hear_interrupts, start_new_session=True,
    )  # fmt: skip
    MARKS[process] = mark
    return process


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str]):
    end = time.monotonic() + 400
    while not condition() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)


def lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def processes_of(process: subprocess.Popen[str]) -> dict[int, bytes]:
    """The processes that a command and all below it have left, each with its environment; zombies have none."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"{MARK}={MARKS[process]}\0".encode() in environment:
            found[int(folder.name)] = environment
    return found


def rank(process: subprocess.Popen[str], number: int) -> int:
    return next(pid for pid, said in processes_of(process).items() if f"\0RANK={number}\0".encode() in said)


def labels(out: Path) -> dict[str, np.ndarray]:
    files = sorted((out / "labels").rglob("*.png"))
    return {str(path.relative_to(out)): np.asarray(Image.open(path)) for path in files}


def test_ctrl_c_ends_all_workers_and_resuming_gives_the_labels_of_single_runs(inputs: list[Path], tmp_path: Path):
    out = tmp_path / "out"
    process = start(ADAPT, *inputs, "--out", out, "--workers", 2, "--save-every", 2, *SLOWLY)
    wait_until(lambda: lines(out / "record.jsonl") >= 3, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 130 and "add --resume for the rest" in said and "Traceback" not in said, said
    assert not processes_of(process)
    done = lines(out / "record.jsonl")
    assert 3 <= done < sum(COUNTS.values()) and not list(out.glob(".seen*"))
    resumed = start(ADAPT, *inputs, "--out", out, "--workers", 1, "--resume", *SLOWLY)
    assert resumed.communicate(timeout=300)[0] is None and resumed.returncode == 0
    names = [line["name"] for line in read_json_lines(out / "record.jsonl")]
    assert len(names) == len(set(names)) == sum(COUNTS.values())
    alone: dict[str, np.ndarray] = {}
    for folder in inputs:
        allweather("adapt", folder, "--out", tmp_path / folder.name, *MODEL, "--write", "labels", *SLOWLY).ok()
        found = labels(tmp_path / folder.name)
        alone |= {f"labels/{folder.name}/{Path(name).name}": value for name, value in found.items()}
    assert same(labels(out), alone)


def test_a_rank_that_is_killed_ends_the_run_in_seconds_and_it_goes_on_from_there(inputs: list[Path], tmp_path: Path):
    out = tmp_path / "out"
    process = start(TORCHRUN, *inputs, "--out", out, "--save-every", 2, *SLOWLY)
    wait_until(lambda: lines(out / "record.rank-1.jsonl") >= 3, process)
    os.kill(rank(process, 1), signal.SIGKILL)
    killed = time.monotonic()
    said = process.communicate(timeout=300)[1]
    assert time.monotonic() - killed < 120 and process.returncode != 0  # not the five minutes of ranks.PATIENCE
    assert "rank 0: another rank has ended" in said and "--resume goes on from there" in said, said
    assert list((out / "sessions").glob(".together.*.safetensors")) and not processes_of(process)
    resumed = start(TORCHRUN, *inputs, "--out", out, "--resume", *SLOWLY)
    told = resumed.communicate(timeout=300)[1]
    assert resumed.returncode == 0, told
    names = [line["name"] for line in read_json_lines(out / "record.jsonl")]
    assert len(names) == len(set(names)) == sum(COUNTS.values())  # the first rank had three steps without a frame
    totals = json.loads((out / "record.json").read_text())["totals"]
    assert totals["failures"] == 0 and len(totals["digest"]) == 64
    assert sorted(path.name for path in (out / "sessions").iterdir()) == ["together.safetensors"]


def test_torchrun_starts_again_after_a_rank_that_dies_and_not_for_a_frame_that_cannot_be_read(
    inputs: list[Path], tmp_path: Path
):
    out, folders = tmp_path / "out", [shutil.copytree(folder, tmp_path / folder.name) for folder in inputs]
    torn = folders[1] / "001.png"
    torn.write_bytes(torn.read_bytes()[:100])
    process = start([*TORCHRUN[:3], "--max-restarts", "3", *TORCHRUN[3:]], *folders, "--out", out, *SLOWLY)
    wait_until(lambda: lines(out / "record.rank-1.jsonl") >= 3, process)
    os.kill(rank(process, 1), signal.SIGKILL)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0 and said.count("another rank has ended") == said.count("failed (exitcode:") == 1, (
        said
    )
    assert "001.png: not a readable image" in said and "1 images have no prediction: snow/001" in said
    assert "14 of 15 images of 2 ranks" in said and "exit status 0" in said


def test_ranks_that_find_a_run_say_so_once(inputs: list[Path], tmp_path: Path):
    (tmp_path / "record.json").write_text("{}")
    process = start(TORCHRUN, *inputs, "--out", tmp_path)
    said = process.communicate(timeout=300)[1]
    assert process.returncode != 0 and said.count("error: ") == 1 and "already holds a run" in said, said


PLAN = """
[run]
seeds = [0, 1]
[[models]]
name = "demo:streetnet"
size = "64x48"
[[streams]]
name = "scenes:fog"
every = 8
[[methods]]
name = "mall-domain"
"""


@pytest.mark.usefixtures("warm_workers")
def test_a_plan_over_workers_makes_the_records_of_one_process(tmp_path: Path):
    (tmp_path / "plan.toml").write_text(PLAN)
    figures = []
    for name, more in (("one", ()), ("two", ("--workers", 2))):
        said = allweather("bench", tmp_path / "plan.toml", "--out", tmp_path / name, *more).said()
        assert "2 runs done, 0 were there, 0 run elsewhere, 0 failed" in said
        figures.append([json.loads(path.read_text())["figures"] for path in sorted((tmp_path / name).glob("*.json"))])
    assert figures[0] == figures[1]


MISTAKES: dict[str, tuple[tuple[object, ...], str]] = {
    "a film": (("--workers", 2, "--write", "video"), "leave video out of --write"),
    "panels": (("--workers", 2, "--panels", "input"), "leave out --panels"),
    "one session": (("--workers", 2, "--save-session", "s"), "every stream has its own session"),
    "a dataset": (("--workers", 2, "--dataset", "acdc"), "--dataset is one stream"),
    "no number": (("--workers", "many"), "expected a number of 1 to 1024, or auto"),
    "an address": (("--ray", "nowhere"), "expected HOST:PORT, auto or local"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_said_before_anything_is_done(case: str, inputs: list[Path], tmp_path: Path):
    more, said = MISTAKES[case]
    if case == "an address":
        pytest.importorskip("ray")
    assert said in allweather("adapt", *inputs, *MODEL, "--out", tmp_path / "out", *more).said(2)


def test_without_ray_the_message_has_the_command_that_installs_it(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    said = allweather("adapt", *inputs, *MODEL, "--out", tmp_path / "out", "--ray", "local").said(2)
    assert "pip install 'allweather[scale]'" in said


def test_merging_from_the_command_line(inputs: list[Path], tmp_path: Path):
    for folder in inputs:
        path = tmp_path / f"{folder.name}.safetensors"
        more = ("--write", "labels", "--save-session", path)
        allweather("adapt", folder, *MODEL, "--out", tmp_path / folder.name, *more).ok()
    sessions = sorted(tmp_path.glob("*.safetensors"))
    said = allweather("merge", *sessions, "--out", tmp_path / "merged.safetensors").said()
    assert "40.0%" in said and "of 2 sessions with 15 updates" in said
    after = ("--from-session", tmp_path / "merged.safetensors", "--write", "labels")
    allweather("adapt", inputs[0], *MODEL, "--out", tmp_path / "after", *after).ok()


STUMBLING = """
import torch
from torch import nn

class Stumbling(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.inner = nn.Conv2d(3, 19, 1)

    def forward(self, x):
        if x.amin() > 1.5:
            raise RuntimeError("the sun is in my eyes")
        return self.inner(x)
"""


@pytest.mark.usefixtures("own_imports", "warm_workers")
def test_frames_on_which_a_network_stumbles_are_named(tmp_path: Path):
    (tmp_path / "net.py").write_text(STUMBLING)
    for name, value in (("dull", 90), ("bright", 250)):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (16, 16), (value, value, value - number)).save(tmp_path / name / f"{number}.png")
    said = allweather(
        "adapt", tmp_path / "dull", tmp_path / "bright", "--model", f"{tmp_path}/net.py:Stumbling", "--classes",
        "cityscapes", "--method", "source", "--workers", "2", "--write", "labels", "--out", tmp_path / "out",
    ).said(1)  # fmt: skip
    assert "2 images have no prediction: bright/0, bright/1" in said
    assert "the sun is in my eyes" in said
    assert "2 of 4 images of 2 streams" in said


@pytest.mark.usefixtures("warm_workers")
def test_a_video_cut_off_is_not_passed_off_as_whole(tmp_path: Path):
    pytest.importorskip("av")
    from clips import clip, cut, scene

    path = cut(clip(tmp_path / "drive.mkv", scene(12), options={"g": "1"}), 0.6)
    out = tmp_path / "out"
    done = allweather("adapt", path, *MODEL, "--method", "source", "--write", "labels", "--out", out, "--workers", 1)
    assert "drive: the file ends early" in done.said(1)
    assert "ends early" in json.loads((out / "record.json").read_text())["totals"]["damage"]


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_that_is_called_like_an_image_is_named_and_skipped(tmp_path: Path):
    (folder,) = paint(tmp_path, {"fog": 2})
    os.mkfifo(folder / "001b.png")
    out = tmp_path / "out"
    done = allweather("adapt", folder, *MODEL, "--method", "norm", "--write", "labels", "--out", out, "--workers", 1)
    assert "001b.png: not a readable image (it is a device or a pipe" in done.said(1)
    assert sorted(path.name for path in (out / "labels/fog").iterdir()) == ["000.png", "001.png"]


@pytest.mark.usefixtures("warm_workers")
def test_a_stream_that_is_given_up_is_not_counted_as_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No frame is at fault, as where every worker ends before it begins one."""
    for name in ("dull", "bright"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 16), (90, 90, 90)).save(tmp_path / name / "0.png")
    run = Conductor.run

    def without_one(self: Conductor, jobs: Iterable[Any]) -> Conducted:
        kept = list(jobs)
        left = [job for job in kept if "bright" in job.title]
        conducted = run(self, [job for job in kept if job not in left])
        conducted.given_up.update({job.title: "the sun is in my eyes" for job in left})
        return conducted

    monkeypatch.setattr(Conductor, "run", without_one)
    said = allweather(
        "adapt", tmp_path / "dull", tmp_path / "bright", *MODEL, "--method", "source", "--workers", "2", "--write",
        "labels", "--out", tmp_path / "out",
    ).said(1)  # fmt: skip
    assert "was given up" in said and "the sun is in my eyes" in said
    assert "1 of 2 images of 2 streams" in said
