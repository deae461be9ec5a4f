"""The command line as a user meets it: what it writes, what it says, its statuses, and every kind of bad input."""

import hashlib
import io
import json
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ENVIRONMENT, MODEL, Done, allweather, hear_interrupts, in_a_process, pixels
from PIL import Image
from rich.console import Console
from rich.text import Text

from allweather import CITYSCAPES, Guard
from allweather.app.console import table
from allweather.data.scenes import render
from allweather.models.catalogue import find_entry
from allweather.runs.decisions import spell
from allweather.runs.record_file import read_adapted


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small scenes and their labels, painted once."""
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for seed in range(3):
        scene = render(seed, "fog", (96, 64))
        Image.fromarray((scene.rgb * 255).astype(np.uint8)).save(folder / f"images/frame{seed}.png")
        Image.fromarray(scene.labels).save(folder / f"labels/frame{seed}.png")
    return folder


@pytest.fixture
def frames(scenes: Path, tmp_path: Path) -> Path:
    """Scenes and labels of a test's own."""
    shutil.copytree(scenes, tmp_path, dirs_exist_ok=True)
    return tmp_path


def adapt(frames: Path, *options: object, out: str = "out") -> Done:
    """Adapts to the images of `frames` into its folder `out`."""
    return allweather("adapt", frames / "images", *MODEL, *options, "--out", frames / out)


def test_adapt_writes_what_it_promises_and_score_reads_it(frames: Path):
    out = frames / "out"
    adapt(frames, "--method", "mall-sample", "--size", "128x64").ok()
    for seed in range(3):
        labels = pixels(out / f"labels/frame{seed}.png")
        assert labels.shape == (64, 96)
        assert labels.dtype == np.uint8
        assert labels.max() < len(CITYSCAPES)
        colors = pixels(out / f"color/frame{seed}.png")
        assert (colors == np.array(CITYSCAPES.colors, np.uint8)[labels]).all()
        assert pixels(out / f"overlay/frame{seed}.jpg").shape == (64, 96, 3)
    record = read_adapted(out / "record.json")
    assert record["model"]["sha256"]
    assert record["session"]["method"]["name"] == "mall-sample"
    assert record["frames"] == 3
    assert len(record["order_hash"]) == 64
    entry = record["images"]["frame0"]
    assert {"iterations", "losses", "decision", "seconds", "stop"} <= entry.keys()
    summary = json.loads(allweather("score", out / "labels", frames / "labels", "--json").ok().stdout)
    assert summary["images"] == 3
    assert 0 < summary["mIoU"] <= 100
    assert "mIoU" in allweather("score", out / "labels", frames / "labels").stdout


def test_perfect_labels_score_a_hundred(frames: Path):
    summary = json.loads(allweather("score", frames / "labels", frames / "labels", "--json").stdout)
    assert summary["mIoU"] == 100
    assert summary["pixel_accuracy"] == 100


@pytest.mark.parametrize("protocol", ["online", "transductive"])
@pytest.mark.parametrize("method", ["source", "norm", "tent", "mall-sample", "mall-domain"])
def test_every_method_under_both_protocols(frames: Path, method: str, protocol: str):
    adapt(frames, "--method", method, "--protocol", protocol, "--batch", 2, out="o").ok()
    assert len(list((frames / "o/labels").glob("*.png"))) == 3


def test_adapt_tells_what_passes_over_the_stream_did(frames: Path):
    options = ("--method", "tent", "--set", "episodic=false", "--set", "lr=1.0", "--protocol", "transductive")
    done = adapt(frames, *options)
    record = read_adapted(frames / "out/record.json")
    passes, decisions = record["totals"]["stream_passes"], record["totals"]["decisions"]
    assert len(passes) > 1 and sum(decisions.values()) == 3 * len(passes) > decisions["accepted"]
    for image in record["images"].values():
        assert len(image["stream_passes"]) == len(passes) and image["seconds"] > 0 and image["stop"]
    assert done.stderr.rstrip().endswith(spell(decisions))
    kept = json.loads((frames / "out/record.jsonl").read_text().splitlines()[0])
    (frames / "out/record.jsonl").write_text(json.dumps(kept) + "\n")
    adapt(frames, *options, "--resume").ok()
    again = read_adapted(frames / "out/record.json")
    assert again["totals"]["decisions"] == decisions and again["images"].keys() == record["images"].keys()


@pytest.mark.parametrize("spread", [(), ("--streams-by", "folder")], ids=["one stream", "streams"])
def test_adapt_takes_the_guard_of_the_command_line(frames: Path, spread: tuple[str, ...]):
    hot = ("--method", "tent", "--set", "lr=0.5", *spread)
    decided = {}
    for name, guard in (("kept", ()), ("off", ("--guard", "enabled=false", "--guard", "max_drift=0.5"))):
        adapt(frames, *hot, *guard, out=name).ok()
        record = json.loads((frames / name / "record.json").read_text())
        assert record["session"]["guard"] == asdict(Guard() if name == "kept" else Guard(enabled=False, max_drift=0.5))
        decided[name] = record["totals"]["decisions"]
    assert decided["kept"]["accepted"] < decided["off"]["accepted"] == 3


def test_adapt_refuses_a_checkpoint_of_another_digest(frames: Path):
    weights = Path(str(files("allweather") / "models/weights/streetnet.safetensors"))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    options = ("--weights", weights, "--method", "source", "--sha256")
    assert f"expected sha256 {'0' * 64}, the file has {digest}" in adapt(frames, *options, "0" * 64).said(2)
    assert not (frames / "out").exists()
    adapt(frames, *options, digest.upper()).ok()


def spoil(folder: Path) -> list[str]:
    """Adds files that are no images; gives their names."""
    whole = (folder / "frame0.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    return ["truncated", "empty", "text"]


def test_unreadable_images_are_named_and_skipped(frames: Path):
    bad = spoil(frames / "images")
    said = adapt(frames, "--method", "source").said(1)
    assert all(name in said for name in bad)
    assert sorted(p.stem for p in (frames / "out/labels").iterdir()) == ["frame0", "frame1", "frame2"]
    record = read_adapted(frames / "out/record.json")
    assert sorted(record["failures"]) == sorted(bad)


def test_odd_but_readable_images_are_adapted(frames: Path):
    folder = frames / "odd"
    folder.mkdir()
    grey = (np.random.default_rng(0).random((40, 56)) * 65535).astype(np.uint16)
    Image.fromarray(grey).save(folder / "sixteen.png")
    Image.fromarray((grey // 256).astype(np.uint8)).save(folder / "grey.png")
    Image.new("RGBA", (30, 20), (10, 200, 30, 128)).save(folder / "alpha.png")
    Image.new("RGB", (1, 1), "red").save(folder / "one.png")
    Image.new("P", (33, 17)).save(folder / "palette.png")
    allweather("adapt", folder, *MODEL, "--method", "mall-domain", "--out", frames / "out").ok()
    assert pixels(frames / "out/labels/one.png").shape == (1, 1)
    assert len(list((frames / "out/labels").iterdir())) == 5


@pytest.mark.parametrize("out", ["images", "images/deep/out"])
def test_results_do_not_become_the_next_runs_frames(frames: Path, out: str):
    assert "Choose an --out beside it" in adapt(frames, out=out).said(2)
    assert {path.suffix for path in (frames / "images").iterdir()} == {".png"}
    sources = ("--method", "eata", "--set", f"source_images={frames}")
    assert "beside it" in allweather("adapt", frames / "images", *MODEL, *sources, "--out", frames / "out").said(2)


@pytest.mark.parametrize(
    "options", [("--film-rate", "5"), ("--panels", "input"), ("--threads", "4"), ("--save-every", "3")]
)
def test_options_that_would_do_nothing_are_refused(frames: Path, options: tuple[str, ...]):
    said = adapt(frames, *options).said(2)
    assert options[0] in said and "leave them out" in said
    assert not (frames / "out").exists()


def test_a_stream_of_dim_pictures_is_warned_of_once(frames: Path):
    for number in range(3):
        Image.fromarray(np.full((20, 30), 100 * number, np.uint16)).save(frames / f"images/frame{number}.png")
    said = in_a_process("adapt", frames / "images", *MODEL, "--method", "source", "--out", frames / "out").said()
    assert said.count("warning: a picture of 16 bits") == 1 and "rgb.py" not in said


def test_pictures_of_several_pages_are_warned_of_once(frames: Path):
    for number in range(3):
        page = Image.new("RGB", (40, 30), (80 * number, 0, 0))
        page.save(frames / f"images/scan{number}.tiff", save_all=True, append_images=[page, page])
    said = in_a_process("adapt", frames / "images", *MODEL, "--method", "tent", "--out", frames / "out").said()
    assert said.count("warning: of a picture with several pages") == 1 and "rgb.py" not in said


MISTAKES = [
    (("--method", "malldomain"), "Did you mean 'mall-domain'"),
    (("--preset", "papers"), "Did you mean 'paper'"),
    (("--set", "learning_rate=1"), "unknown field of mall-domain 'learning_rate'"),
    (("--set", "lr=fast"), "expected number, got 'fast'"),
    (("--set", "lr"), "expected FIELD=VALUE"),
    (("--guard", "maxdrift=1"), "unknown field of Guard 'maxdrift'. Did you mean 'max_drift'"),
    (("--guard", "every=0"), "Guard.every"),
    (("--guard", "off"), "--guard: expected FIELD=VALUE"),
    (("--size", "big"), "expected WIDTHxHEIGHT"),
    (("--size", "0x10"), "expected WIDTHxHEIGHT"),
    (("--weights", "missing.pth"), "no checkpoint at missing.pth"),
    (("--device", "tpu"), "--device tpu"),
    (("--device", "meta"), "--device meta"),
    (("--protocol", "offline"), "offline"),
    (("--seed", "99999999999999999999999"), "seed: expected an integer of"),
    (("--workers", "1", "--threads", "99999999999999999999999"), "equal to 1024"),
]


@pytest.mark.parametrize(("extra", "message"), MISTAKES, ids=[" ".join(extra) for extra, _ in MISTAKES])
def test_mistakes_end_with_two_and_say_what_to_do(frames: Path, extra: tuple[str, ...], message: str):
    assert message in adapt(frames, *extra).said(2)
    assert not (frames / "out/labels").exists()


def test_wrong_models_and_inputs(frames: Path):
    (frames / "nothing").mkdir()
    out = ("--out", frames / "out")
    cases = [
        ((frames / "images", "--model", "demo:streetnt", *out), "Did you mean 'demo:streetnet'"),
        ((frames / "images", "--model", "streetnet", *out), "Perhaps demo:streetnet"),
        ((frames / "nothing", *MODEL, *out), "no image in"),
        ((frames / "absent", *MODEL, *out), "no such input"),
        ((*MODEL, *out), "INPUT is missing: expected folders of images"),
        (("http://127.0.0.1:1/clip.mp4", *MODEL, *out), "`allweather live` adapts to those"),
        (("rtsp://127.0.0.1:1/a", *MODEL, *out), "`allweather live` adapts to those"),
        (("camera:0", *MODEL, *out), "`allweather live` adapts to those"),
    ]
    for arguments, message in cases:
        assert message in allweather("adapt", *arguments).said(2)


def test_foreign_and_hostile_checkpoints_end_with_two(frames: Path):
    weights = frames / "other.pth"
    torch.save({"state_dict": {"module.x": torch.ones(2)}}, weights)
    assert "is not a checkpoint of demo:streetnet" in adapt(frames, "--weights", weights).said(2)
    torch.save({"a": print}, weights)
    assert "refused" in adapt(frames, "--weights", weights).said(2)


def test_scoring_mistakes(frames: Path):
    Image.fromarray(np.full((64, 96), 77, np.uint8)).save(frames / "labels/frame1.png")
    assert "unexpected label values 77" in allweather("score", frames / "labels", frames / "labels").said(1)
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(frames / "labels/frame1.png")
    other = frames / "other"
    other.mkdir()
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(other / "frame1.png")
    assert "96×64" in allweather("score", other, frames / "labels").said(1)
    allweather("score", frames / "absent", frames / "labels").said(2)
    said = allweather("score", frames / "labels", frames / "labels", "--mapping", "camvid").said(2)
    assert "Did you mean 'camvid11'" in said


def test_a_finished_folder_is_not_overwritten_and_resume_does_the_rest(frames: Path):
    out = frames / "out"
    adapt(frames, "--method", "mall-domain").ok()
    whole = {path.name: path.read_bytes() for path in (out / "labels").iterdir()}
    assert "--resume" in adapt(frames, "--method", "mall-domain").said(2)
    (out / "labels/frame2.png").unlink()
    kept = (out / "labels/frame0.png").stat().st_mtime_ns
    adapt(frames, "--method", "mall-domain", "--resume").ok()
    assert {path.name: path.read_bytes() for path in (out / "labels").iterdir()} == whole
    assert (out / "labels/frame0.png").stat().st_mtime_ns == kept
    assert "another run" in adapt(frames, "--method", "mall-domain", "--resume", "--set", "lr=1e-5").said(2)


def resumed(frames: Path) -> tuple[Path, Any]:
    """A finished folder of `adapt`, and the command that resumes it."""
    adapt(frames, "--method", "norm").ok()
    return frames / "out", lambda *more: adapt(frames, "--method", "norm", "--resume", *more)


def test_a_folder_is_not_filled_from_two_sizes_or_two_beginnings(frames: Path):
    record, begun = frames / "out/record.json", frames / "begun.session"
    sized = ("--method", "norm", "--size", "96x64")
    adapt(frames, *sized, "--save-session", begun).ok()
    assert "is of another run: size was " in adapt(frames, "--method", "norm", "--size", "48x32", "--resume").said(2)
    header = json.loads(record.read_text())
    assert header.pop("size") == [96, 64]
    record.write_text(json.dumps(header))  # as earlier versions wrote it
    adapt(frames, *sized, "--resume").ok()
    adapt(frames, *sized, "--from-session", begun, out="on").ok()
    assert "is of another run: from_session was " in adapt(frames, *sized, "--resume", out="on").said(2)


@pytest.mark.parametrize("place", ["labels/frame1.png", "color/frame1.png", "overlay/frame1.jpg"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2]], ids=["empty", "cut"])
def test_a_picture_that_is_empty_or_cut_is_not_done(frames: Path, place: str, damage: Any):
    out, resume = resumed(frames)
    whole = (out / place).read_bytes()
    (out / place).write_bytes(damage(whole))
    assert "resuming: 2 of 3 images are done" in resume().said()
    assert (out / place).read_bytes() == whole


def test_the_record_grows_line_by_line_and_a_cut_line_is_not_done(frames: Path):
    out, resume = resumed(frames)
    header, lines = (out / "record.json").read_text(), (out / "record.jsonl").read_text()
    assert "frame0" not in header and [json.loads(line)["name"] for line in lines.splitlines()] == [
        "frame0", "frame1", "frame2",
    ]  # fmt: skip
    (out / "record.jsonl").write_text(lines[:-9])
    assert "resuming: 2 of 3 images are done" in resume().stderr
    assert (out / "record.json").read_text() == header
    timeless = [re.sub(r'"seconds": [\d.]+', "", text) for text in (lines, (out / "record.jsonl").read_text())]
    assert timeless[0] == timeless[1]
    (out / "record.jsonl").write_text('{"name": "frame0"}\nnothing\n')
    assert "record.jsonl, line 2: expected a JSON object" in resume().said(2)


def test_confidence_that_was_not_written_before_is_written_on_resuming(frames: Path):
    out, resume = resumed(frames)
    resume("--confidence").ok()
    assert len(list((out / "confidence").iterdir())) == 3


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("[]", "images: expected an object, got a list"),
        ("null", "images: expected an object, got None"),
        ('"x"', "images: expected an object, got 'x'"),
        ('{"frame0": 3}', "images.frame0: expected an object, got 3"),
        ('{"frame0": {"decision": "forgiven"}}', "expected a decision that begins with"),
        ("[" * 100_000, "is not a readable record"),
    ],
)
def test_a_damaged_record_is_not_resumed(frames: Path, images: str, said: str):
    out, resume = resumed(frames)
    record = json.loads((out / "record.json").read_text())
    (out / "record.json").write_text(json.dumps(record)[:-1] + f', "images": {images}}}')
    (out / "record.jsonl").unlink()
    told = resume().said(2)
    assert said in told and "Traceback" not in told


def test_every_kind_of_decision_is_recorded_and_told(frames: Path):
    Image.new("RGB", (96, 64), "gray").save(frames / "images/still.png")
    done = adapt(frames, "--method", "tent")
    record = read_adapted(frames / "out/record.json")
    assert "4 of 4 images" in done.stderr and done.stderr.rstrip().endswith(", 1 skipped")
    assert record["images"]["still"]["decision"] == "skipped"
    assert record["images"]["still"]["reason"] == "the image is constant"
    assert record.pop("totals")["decisions"] == {
        "accepted": 3, "shrunk": 0, "rolled-back": 0, "reset": 0, "resting": 0, "skipped": 1,
    }  # fmt: skip
    record["format"] = 1  # as version 0.1 wrote it, to be resumed by this one
    record["images"]["still"] = {"decision": "skipped: resting after a reset"}
    (frames / "out/record.json").write_text(json.dumps(record))
    (frames / "out/record.jsonl").unlink()
    assert adapt(frames, "--method", "tent", "--resume").stderr.rstrip().endswith(", 1 resting")


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(frames: Path):
    scene = render(0, "fog", (96, 64)).rgb
    for index in range(3, 200):
        Image.fromarray((scene * 255).astype(np.uint8)).save(frames / f"images/frame{index}.png")
    out = frames / "out"
    command = [sys.executable, "-m", "allweather", "adapt", str(frames / "images"), *MODEL, "--out", str(out)]

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=hear_interrupts)
    while process.poll() is None and len(list((out / "labels").glob("*.png"))) < 2:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "--resume" in stderr
    done = read_adapted(out / "record.json")["images"]
    written = list((out / "labels").iterdir())
    assert 2 <= len(done) < 200
    assert all(pixels(path).shape == (64, 96) for path in written)
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
def test_a_disk_that_is_full_loses_nothing(frames: Path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    said = in_a_process(
        "adapt", frames / "images", *MODEL, "--method", "source", "--out", frames / "out", preexec_fn=small_files
    ).said(2)
    assert "cannot write" in said
    assert "--resume" in said
    assert not list((frames / "out").rglob("*.partial"))


@pytest.mark.parametrize("out", ["out", "out/deep"])
def test_an_output_that_is_a_file_is_refused_before_a_network_is_loaded(frames: Path, out: str):
    (frames / "out").write_text("in the way")
    said = allweather("adapt", frames / "images", "--model", "no:such", "--out", frames / out).said(2)
    assert "cannot write" in said and "'out' is a file" in said and "no:such" not in said


@pytest.mark.parametrize("kind", [pytest.param("models", marks=pytest.mark.slow), "methods", "datasets"])
def test_lists_for_people_and_for_programs(kind: str):
    rows = json.loads(allweather("list", kind, "--json").stdout)
    assert rows
    assert all(row["name"] for row in rows)
    assert str(rows[0]["name"])[:8] in allweather("list", kind).stdout


def test_the_doctor_examines():
    facts = json.loads(allweather("doctor", "--json").stdout)
    assert facts["torch"] == torch.__version__
    assert "of the definition" in facts["operator"]


@pytest.mark.parametrize(
    "verb", ["", "demo", "adapt", "score", "bench", "compare", "submit", "convert", "list", "doctor"]
)
def test_every_help_ends_with_a_line_that_parses(verb: str):
    words = shlex.split(allweather(*filter(None, [verb]), "--help").ok().stdout.rpartition("Example:")[2])
    assert words[0] == "allweather"
    known = allweather(words[1], "--help").stdout
    assert all(word in known for word in words[2:] if word.startswith("--"))


PLAN = """
[[models]]
name = "demo:streetnet"
[[streams]]
name = "scenes"
images = "{0}/images"
labels = "{0}/labels"
[[methods]]
name = "source"
[[methods]]
name = "norm"
"""


def test_names_in_tables_are_no_markup():
    console = Console(file=io.StringIO(), width=80)
    console.print(table("cam [day]", ("class [wet]", "IoU"), [("lane [/]", Text("1.0", "bold")), ("[red]", "2.0")]))
    shown = console.file.getvalue()
    assert all(name in shown for name in ("cam [day]", "class [wet]", "lane [/]", "[red]", "1.0"))


def test_a_plan_makes_records_that_compare(frames: Path):
    (frames / "plan.toml").write_text(PLAN.format(frames))
    command = ("bench", frames / "plan.toml", "--out", frames / "runs")
    said = allweather(*command).said()
    first, second = sorted((frames / "runs").glob("*.json"))
    for place, record in enumerate((second, first), 1):  # norm comes before source by name, after it in the plan
        score = json.loads(record.read_text())["figures"]["mIoU"]
        assert re.search(rf"{place} of 2: demo:streetnet · scenes · .*: {score:.2f} mIoU, \d+ s", said)
    assert "2 were there" in allweather(*command).stderr
    found = json.loads(allweather("compare", first, second, "--json").stdout)
    assert any("method" in key for key in found["settings"])
    told = allweather("compare", first, second).stdout
    assert f"A: {first}\nB: {second}\n" in told
    assert [line.split() for line in told.splitlines() if line.startswith("figure ")] == [
        ["figure", "A", "B", "difference"]
    ]
    alike = allweather("compare", first, first).stdout
    assert "settings: nothing differs\nfigures: nothing differs\n" in alike and "difference" not in alike
    allweather("bench", frames / "absent.toml", "--out", frames / "runs").said(2)


def test_a_checkpoint_is_converted_and_loads(frames: Path):
    packaged = find_entry("demo:streetnet").packaged
    out = frames / "converted.safetensors"
    allweather("convert", packaged, *MODEL, "--out", out).ok()
    adapt(frames, "--weights", out, "--method", "source", out="o").ok()


def test_datasets_and_submissions_say_what_they_looked_for(frames: Path):
    assert "looked for" in allweather("data", "check", "acdc", "--root", frames).said(2)
    assert "Did you mean 'acdc'" in allweather("data", "check", "acdcc", "--root", frames).stderr
    allweather("submit", "acdc", frames, "--out", frames / "acdc.zip").said(2)
    assert not (frames / "acdc.zip").exists()


@pytest.mark.slow
def test_the_demo_draws_a_picture_and_gains(tmp_path: Path):
    figures = json.loads(allweather("demo", "--out", tmp_path, "--frames", 2, "--json").ok().stdout)
    assert figures["mall-domain"]["adverse"] >= figures["source"]["adverse"] + 5
    assert figures["mall-domain"]["clear"] >= figures["source"]["clear"] - 0.5
    assert pixels(tmp_path / "panels.png").shape[1] > 1000
