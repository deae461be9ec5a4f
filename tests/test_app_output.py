"""Outputs in unusual places, and a real network on real frames from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import ENVIRONMENT, MODEL, Done, allweather
from PIL import Image
from reference_fixtures import assets

import allweather as aw
from allweather import rgb
from allweather.app import demo
from allweather.runs.record_file import read_adapted


def test_an_output_folder_may_have_any_name(tmp_path: Path):
    Image.new("RGB", (48, 32), "gray").save(tmp_path / "a.png")
    out = tmp_path / "night[/x] [bold]"
    done = allweather("adapt", tmp_path / "a.png", *MODEL, "--method", "source", "--out", out)
    assert "night[/x] [bold]" in done.said()
    assert (out / "labels/a.png").exists()


def test_confidence_is_written_as_servers_want_it(tmp_path: Path):
    Image.new("RGB", (48, 32), "gray").save(tmp_path / "a.png")
    common = ("adapt", tmp_path / "a.png", *MODEL, "--method", "norm", "--out", tmp_path / "out")
    allweather(*common, "--confidence").ok()
    written = np.asarray(Image.open(tmp_path / "out/confidence/a.png"))
    assert written.shape == (32, 48)
    assert written.dtype == np.uint16
    assert 65535 / 19 <= written.min() <= written.max() <= 65535
    assert len(np.unique(written)) > 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("form", [("--json",), ()], ids=["json", "table"])
def test_a_standard_output_that_is_full_ends_with_two(form: tuple[str, ...]):
    command = [sys.executable, "-m", "allweather", "list", "methods", *form]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: standard output")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_standard_output_without_our_letters_is_written_all_the_same(encoding: str):
    command = [sys.executable, "-m", "allweather", "list", "methods"]
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"mall-domain" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="a shell's way to close a stream")
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed_are_no_mistake(closed: str):
    script = f'"{sys.executable}" -m allweather list datasets {closed}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_demo_looks_at_its_folder_before_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(demo, "load_model", lambda name: pytest.fail("it began to work"))
    said = allweather("demo", "--out", tmp_path / "file").said(2)
    assert f"cannot write {tmp_path / 'file'}" in said
    assert "Name another place" in said and "--resume" not in said
    assert "equal to 0" in allweather("demo", "--out", tmp_path / "o", "--seed=-300").said(2)


def test_the_demo_prints_its_table_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*arguments: object):
        raise aw.AllWeatherError("cannot write")

    monkeypatch.setattr(demo, "write_json", full)
    monkeypatch.setattr(demo, "METHODS", ("source",))
    done = allweather("demo", "--out", tmp_path, "--frames", 1)
    assert done.returncode == 2 and "mIoU in %" in done.stdout


REAL = {"source": 47.85, "norm": 51.15}  # mIoU in % over every tenth frame


@pytest.mark.parametrize("method", REAL)
def test_a_real_network_on_real_dusk(tmp_path: Path, method: str):
    dusk = assets() / "camvid/dusk"
    weights = assets() / "weights/espnetv2/espnetv2_s_2.0_city_512x256.pth"
    frames = sorted((dusk / "images").iterdir())[::10]
    allweather(
        "adapt", *frames, "--model", "espnetv2:2.0", "--weights", weights, "--size", "480x352", "--method", method,
        "--out", tmp_path / "out",
    ).ok()  # fmt: skip
    scored = allweather("score", tmp_path / "out/labels", dusk / "labels", "--mapping", "cityscapes-camvid11", "--json")
    summary = json.loads(scored.stdout)
    assert summary["images"] == len(frames)
    assert summary["mIoU"] == pytest.approx(REAL[method], abs=0.3)


def paint(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (48, 32), "gray").save(path)
    return path


def adapted(folder: Path, *options: object) -> tuple[Done, dict, set[str]]:
    """The finished command on a folder of frames, its record, and the label files it wrote."""
    out = folder.parent / "out"
    done = allweather("adapt", folder, *MODEL, "--method", "source", "--out", out, *options)
    labels = {path.relative_to(out / "labels").as_posix() for path in (out / "labels").rglob("*") if path.is_file()}
    return done, read_adapted(out / "record.json"), labels


def test_a_frame_too_wide_for_its_overlay_fails_alone(tmp_path: Path):
    frames = paint(tmp_path / "frames/a.png").parent
    paint(frames / "c.png")
    Image.new("RGB", (66_000, 4)).save(frames / "b.png")
    for options in ((), ("--resume",)):
        done, record, labels = adapted(frames, "--size", "32x32", *options)
        assert "overlay/b.jpg: a JPEG has at most 65500 pixels a side, this picture 66000×4" in done.said(1)
        assert set(record["failures"]) == {"b"} and set(record["images"]) == {"a", "c"}
        assert labels >= {"a.png", "c.png"}
    out = tmp_path / "again"
    allweather("adapt", frames, *MODEL, "--size", "32x32", "--out", out, "--write", "labels,color").ok()
    assert read_adapted(out / "record.json")["images"].keys() == {"a", "b", "c"}


def test_links_are_followed_and_broken_ones_are_failures(tmp_path: Path):
    frames = paint(tmp_path / "frames/a.png").parent
    paint(tmp_path / "elsewhere/b.png")
    (frames / "night").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (frames / "c.png").symlink_to(tmp_path / "gone.png")
    done, record, labels = adapted(frames)
    assert labels == {"a.png", "night/b.png"}
    assert "c.png: not a readable image (a broken link to" in done.said(1)
    assert set(record["failures"]) == {"c"}


def test_names_that_are_not_utf8_are_written_and_recorded_as_they_are(tmp_path: Path):
    frames = paint(tmp_path / "frames/a.png").parent
    for name in (b"caf\xe9.png", b"bad\xff.png"):
        paint(frames / "x.png").rename(os.fsdecode(os.fsencode(frames) + b"/" + name))
    Path(os.fsdecode(os.fsencode(frames) + b"/bad\xff.png")).write_bytes(b"")
    done, record, labels = adapted(frames)
    assert sorted(map(os.fsencode, labels)) == [b"a.png", b"caf\xe9.png"]
    assert sorted(map(os.fsencode, record["images"])) == [b"a", b"caf\xe9"]
    assert rb"\udce9" in (tmp_path / "out/record.jsonl").read_bytes()
    assert r"bad\xff.png: not a readable image (it is empty)" in done.said(1)
    again = allweather("adapt", frames, *MODEL, "--method", "source", "--out", tmp_path / "out", "--resume")
    assert "resuming: 2 of 3" in again.stderr
    scored = allweather("score", tmp_path / "out/labels", tmp_path / "out/labels", "--json").ok()
    assert json.loads(scored.stdout)["images"] == 2


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
def test_a_terminal_takes_any_name(encoding: str):
    names = ["ü", os.fsdecode(b"caf\xe9")]
    code = f"from allweather.app import console; console.print_json({names!r}); console.warn({names[1]!r})"
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert json.loads(done.stdout) == names
    assert rb"caf\xe9" in done.stderr


def test_only_twins_are_renamed_and_score_follows(tmp_path: Path):
    frames = paint(tmp_path / "frames/a.png").parent
    for name in ("a.jpg", "b.c.png", "d.png"):
        paint(frames / name)
    done, _, labels = adapted(frames)
    done.ok()
    assert labels == {"a_jpg.png", "a_png.png", "b.c.png", "d.png"}
    (tmp_path / "truth").mkdir()
    for name in ("a", "b.c", "d"):
        Image.new("L", (48, 32)).save(tmp_path / f"truth/{name}.png")
    summary = json.loads(allweather("score", tmp_path / "out/labels", tmp_path / "truth", "--json").ok().stdout)
    assert (summary["images"], summary["labels"], summary["failed"]) == (4, 3, {})


def test_the_picture_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    frames, decoded = paint(tmp_path / "frames/a.png").parent, []
    opened = rgb.open_image
    monkeypatch.setattr(rgb, "open_image", lambda path: decoded.append(path) or opened(path))
    adapted(frames, "--size", "32x32")[0].ok()
    assert decoded == [frames / "a.png"]
    assert np.asarray(Image.open(tmp_path / "out/overlay/a.jpg")).shape == (32, 48, 3)
