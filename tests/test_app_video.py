"""`adapt` on videos and its choice of outputs: the same labels as of a folder, films that play, and every bad video."""

import json
import resource
import signal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import clip, cut, scene, sound_only
from command_line import MODEL, Done, allweather, in_a_process, pixels
from PIL import Image

from allweather.app.output import Output
from allweather.app.reel import Reel
from allweather.data.scenes import render
from allweather.runs.record_file import read_adapted

SIZE = (96, 64)
LOSSLESS = {"codec": "libx264rgb", "pixel_format": "rgb24", "options": {"qp": "0"}}


def drive(count: int) -> list[np.ndarray]:
    return [(render(seed, "fog", SIZE).rgb * 255).astype(np.uint8) for seed in range(count)]


def adapted(inputs: Path, out: Path, *more: object, method: str = "mall-domain") -> Done:
    return allweather("adapt", inputs, *MODEL, "--method", method, "--out", out, *more)


def film(path: Path) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def rate(path: Path) -> float:
    with av.open(path) as container:
        return float(container.streams.video[0].average_rate)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return tmp_path / "a.mkv"


@pytest.mark.parametrize("size", [(), ("--size", "64x48")], ids=["native", "resampled"])
def test_a_folder_and_the_same_frames_as_a_lossless_video_give_equal_labels(tmp_path: Path, size: tuple[str, ...]):
    frames = drive(4)
    (tmp_path / "images").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"images/{index:06d}.png")
    kinds = ("--write", "labels,confidence", *size)
    for inputs in (tmp_path / "images", clip(tmp_path / "clip.mkv", frames, **LOSSLESS)):
        adapted(inputs, tmp_path / f"of-{inputs.name}", *kinds).ok()
    for kind in ("labels", "confidence"):
        written = sorted((tmp_path / "of-images" / kind).iterdir())
        assert [path.name for path in written] == [f"{index:06d}.png" for index in range(4)]
        for path in written:
            assert path.read_bytes() == (tmp_path / "of-clip.mkv" / kind / path.name).read_bytes()


def test_a_video_gives_a_film_of_input_source_and_adapted(tmp_path: Path, out: Path):
    frames = scene(5)
    adapted(clip(tmp_path / "clip.mp4", frames, rate=12, **LOSSLESS), out).ok()
    assert {path.name for path in out.glob("[!.]*")} == {"overlay.mp4", "record.json", "record.jsonl"}
    shown = film(out / "overlay.mp4")
    assert len(shown) == 5 and rate(out / "overlay.mp4") == 12
    height, width = shown[0].shape[:2]
    assert height % 2 == width % 2 == 0 and width >= 3 * 64 and height >= 48
    assert np.abs(shown[2][-48:, :64].astype(int) - frames[2]).mean() < 10  # the input, but for the encoder's loss
    source, now = shown[2][-48:, 66:130].astype(int), shown[2][-48:, -64:].astype(int)
    assert np.abs(source - frames[2]).mean() > 20 and np.abs(now - frames[2]).mean() > 20
    record = read_adapted(out / "record.json")
    assert list(record["images"]) == [f"00000{index}" for index in range(5)]
    assert record["video"]["file"] == "clip.mp4" and record["video"]["rate"] == 12


@pytest.mark.parametrize("panel", ["input", "source", "adapted"])
def test_a_film_may_show_one_of_them_at_a_rate_of_choice(tmp_path: Path, out: Path, panel: str):
    place = out / "overlay.mp4"
    clip(tmp_path / "clip.mkv", drive(3), **LOSSLESS)
    adapted(tmp_path / "clip.mkv", out, "--panels", panel, "--film-rate", "5").ok()
    assert film(place)[0].shape == (64, 96, 3) and rate(place) == 5
    like_input = np.abs(film(place)[1].astype(int) - drive(3)[1]).mean()
    assert (like_input < 10) == (panel == "input")


def moments(path: Path) -> list[float]:
    with av.open(path) as container:
        return [frame.time for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_film_keeps_the_times_of_a_variable_rate(tmp_path: Path, name: str):
    times = (0, 40, 80, 500, 520, 1500, 1510, 3000)
    path, kinds = clip(tmp_path / name, drive(8), times=times), ("--panels", "input")
    own, even = adapted(path, tmp_path / "own", *kinds), adapted(path, tmp_path / "even", *kinds, "--film-rate", "5")
    assert own.returncode == even.returncode == 0, own.stderr + even.stderr
    assert moments(tmp_path / "own/overlay.mp4") == pytest.approx([time / 1000 for time in times], abs=2e-3)
    assert moments(tmp_path / "even/overlay.mp4") == pytest.approx([index / 5 for index in range(8)], abs=2e-3)
    assert read_adapted(tmp_path / "own/record.json")["film"]["times"] == "the video's"
    assert read_adapted(tmp_path / "even/record.json")["film"] == {"panels": ["input"], "rate": 5.0}


@pytest.mark.parametrize("seconds", [{"1": 0.5, "2": 0.7, "17": 2.0}, None], ids=["variable", "constant"])
def test_a_film_of_what_is_left_of_a_video_begins_at_once_and_keeps_gaps(
    tmp_path: Path, seconds: dict[str, float] | None
):
    reel = Reel(tmp_path / "a.mp4", ("input",), Fraction(10), seconds, numbered=True)
    for name in ("1", "2", "17"):  # "0" and others could not be decoded
        reel.add(name, drive(1)[0])
    reel.close()
    assert moments(tmp_path / "a.mp4") == pytest.approx([0, 0.2, 1.5] if seconds else [0, 0.1, 1.6])


def test_pixels_that_are_not_square_are_warned_of_once(tmp_path: Path, out: Path):
    path = clip(tmp_path / "a.mkv", drive(3), aspect=Fraction(4, 3))
    said = in_a_process("adapt", path, *MODEL, "--method", "source", "--out", out).said()
    assert said.count("warning:") == 1 and "--size 128x64 " in said
    assert "not square" not in adapted(path, tmp_path / "right", "--size", "128x64", method="source").said()


def test_every_kind_of_output_of_images_of_two_sizes(tmp_path: Path, out: Path):
    (tmp_path / "images").mkdir()
    for index, size in enumerate([(96, 64), (50, 70)]):
        Image.fromarray(drive(1)[0]).resize(size).save(tmp_path / f"images/{index}.png")
    adapted(tmp_path / "images", out, "--write", "video, overlay,confidence,labels,color", method="norm").ok()
    for name, shape in (("0", (64, 96)), ("1", (70, 50))):
        for place in (f"labels/{name}.png", f"confidence/{name}.png"):
            assert pixels(out / place).shape == shape
        for place in (f"color/{name}.png", f"overlay/{name}.jpg"):
            assert pixels(out / place).shape == (*shape, 3)
    assert len(film(out / "overlay.mp4")) == 2 and rate(out / "overlay.mp4") == 10


WRONG = [
    (("--write", "labels,colour"), "unknown output 'colour'. Did you mean 'color'? Known: color, confidence, labels"),
    (("--write", ","), "--write: expected some of labels, color, overlay, confidence, video"),
    (("--panels", "inputs"), "unknown panel 'inputs'. Did you mean 'input'"),
    (("--panels", ""), "--panels: expected some of input, source, adapted"),
    (("--film-rate", "0"), "--film-rate: expected frames per second of 0.001 to 1000, got 0"),
    (("--save-session", "."), "cannot write .: it is a folder. Name another place"),
    (("--save-session", "clip.mkv/a"), "cannot write clip.mkv/a"),
    (("--save-session", "out"), "--save-session out: the results go there"),
    (("--save-session", "out/labels/a"), "the results go there. Name a file of its own, such as out/adapted.session"),
    (("--save-session", "out/record.json"), "the results go there"),
    (("--from-session", "absent"), "cannot read a session from absent"),
    (("--from-session", "clip.mkv"), "cannot read a session from clip.mkv"),
    (
        ("clip.mkv",),
        "expected it as the only INPUT, got 2. Run each alone, or each as a stream of its own: --streams-by folder",
    ),
]


@pytest.mark.parametrize(("extra", "said"), WRONG, ids=[" ".join(extra) for extra, _ in WRONG])
def test_mistakes_are_named_before_any_work(here: Path, extra: tuple[str, ...], said: str):
    assert said in adapted(clip(Path("clip.mkv"), scene(2)), Path("out"), *extra).said(2) and not Path("out").exists()


@pytest.mark.parametrize("kind", ["absent", "empty", "text", "sound", "cut short"])
def test_a_video_without_a_frame_is_refused_by_name(tmp_path: Path, out: Path, kind: str):
    path, said = tmp_path / "a.mp4", "not a readable video"
    if kind == "absent":
        said = "no such input"
    elif kind == "sound":
        sound_only(path)
    else:
        path.write_bytes(
            {"empty": b"", "text": b"nothing" * 9, "cut short": clip(path, scene(9)).read_bytes()[:700]}[kind]
        )
    told = adapted(path, out).said(2)
    assert said in told and "a.mp4" in told


def test_of_a_video_cut_off_what_can_be_decoded_is_written(video: Path, out: Path):
    path = cut(clip(video, drive(12), options={"g": "1"}), 0.6)
    assert "the file ends early" in adapted(path, out, "--write", "labels,video", method="source").said(1)
    record = read_adapted(out / "record.json")
    assert "ends early" in record["totals"]["damage"] and 3 < len(record["images"]) < 12
    assert len(film(out / "overlay.mp4")) == len(record["images"])


def test_a_film_that_was_left_out_for_a_while_is_whole_or_begins_anew(video: Path, out: Path):
    clip(video, drive(3), **LOSSLESS)
    filmed, plain = ("--write", "labels,video", "--resume"), ("--write", "labels", "--resume")
    adapted(video, out, *filmed).ok()
    header = json.loads((out / "record.json").read_text())
    adapted(video, out, *plain).ok()
    assert json.loads((out / "record.json").read_text()) == header, "the film is whole, and the header still says how"
    (out / "labels/000001.png").unlink()
    adapted(video, out, *plain).ok()
    assert "all frames are predicted again" in adapted(video, out, *filmed).stderr, "who knows of what the film is"


def test_an_interrupted_film_begins_anew_and_a_whole_one_is_left_alone(tmp_path: Path, video: Path, out: Path):
    clip(video, drive(3), **LOSSLESS)
    more = ("--write", "labels,video")
    adapted(video, out, *more).ok()
    whole = (out / "overlay.mp4").read_bytes()
    assert "3 of 3 images are done" in adapted(video, out, *more, "--resume").stderr
    assert (out / "overlay.mp4").read_bytes() == whole
    for other in (("--panels", "input"), ("--film-rate", "3")):
        assert "is of another run: film." in adapted(video, out, *more, *other, "--resume").said(2)
    header = json.loads((out / "record.json").read_text())
    del header["totals"]
    (out / "record.json").write_text(json.dumps(header))  # as an interruption leaves it
    (out / "overlay.mp4").write_bytes(whole[:900])
    assert "all frames are predicted again" in adapted(video, out, *more, "--resume").said()
    assert len(film(out / "overlay.mp4")) == len((out / "record.jsonl").read_text().splitlines()) == 3
    said = adapted(clip(tmp_path / "b.mkv", drive(3)), out, *more, "--resume").said(2)
    assert "is of another run: video.bytes was " in said


def test_a_failure_is_tried_again_beside_a_whole_film_which_stays(tmp_path: Path):
    folder, out, more = tmp_path / "in", tmp_path / "out", ("--write", "labels,video", "--resume")
    folder.mkdir()
    for name, frame in zip("ab", drive(2), strict=True):
        Image.fromarray(frame).save(folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"no picture")
    adapted(folder, out, *more, method="norm").said(1)
    files = [out / name for name in ("overlay.mp4", "record.json", "record.jsonl")]
    before = [path.read_bytes() for path in files]
    said = adapted(folder, out, *more, method="norm").said(1)
    assert "2 of 3 images are done" in said and "c.png" in said
    Output.open(out, json.loads(before[1]), list("abc"), True, ("labels", "video")).close()  # an interruption
    assert [path.read_bytes() for path in files] == before
    Image.fromarray(drive(3)[2]).save(folder / "c.png")
    told = adapted(folder, out, *more, method="norm").said()
    assert "overlay.mp4 lacks c" in told and len(film(out / "overlay.mp4")) == 2
    assert read_adapted(out / "record.json")["images"].keys() == {"a", "b", "c"}
    assert "all frames are predicted again" in adapted(folder, out, *more, method="norm").said()
    assert len(film(out / "overlay.mp4")) == 3 and "lacks" not in adapted(folder, out, *more, method="norm").stderr


def test_of_a_disk_that_is_full_while_encoding_the_film_made_so_far_plays(video: Path, out: Path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    noise = list(np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), np.uint8))
    clip(video, noise, **LOSSLESS)
    said = in_a_process("adapt", video, *MODEL, "--method", "source", "--out", out, preexec_fn=small_files).said(2)
    assert "cannot write" in said and "overlay.mp4" in said
    assert 0 < len(film(out / "overlay.mp4")) < 60


def test_a_session_that_was_kept_goes_on_as_if_nothing_had_stopped(tmp_path: Path):
    frames, kept = drive(4), tmp_path / "deep/kept.safetensors"
    for name, part in (("all", frames), ("first", frames[:2]), ("last", frames[2:])):
        clip(tmp_path / f"{name}.mkv", part, **LOSSLESS)
    more = ("--write", "labels", "--set", "lr=1e-3")
    adapted(tmp_path / "all.mkv", tmp_path / "all", *more).ok()
    adapted(tmp_path / "first.mkv", tmp_path / "first", *more, "--save-session", kept).ok()
    adapted(tmp_path / "last.mkv", tmp_path / "last", *more, "--from-session", kept).ok()
    adapted(tmp_path / "last.mkv", tmp_path / "fresh", *more).ok()
    labels = {path.parent.parent.name + path.name: path.read_bytes() for path in tmp_path.glob("*/labels/*")}
    assert [labels[f"last00000{i}.png"] for i in (0, 1)] == [labels[f"all00000{i}.png"] for i in (2, 3)]
    assert labels["fresh000001.png"] != labels["last000001.png"]
    assert read_adapted(tmp_path / "last/record.json")["from_session"]["file"] == kept.name
    said = adapted(tmp_path / "last.mkv", tmp_path / "other", "--from-session", kept, method="tent").said(2)
    assert "this session has" in said
