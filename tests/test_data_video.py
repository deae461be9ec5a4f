"""Videos: lossless ones bit for bit, any codec, turned, of variable rate, cut off, damaged, and what is none."""

import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import SIZE, clip, covered, cut, jpegs, noise, scene, sound_only, spoil, unknown_codec
from PIL import Image

import allweather as aw
from allweather import ImageError, load_stream
from allweather.data import Video, VideoStream
from allweather.data.video import suffixes
from allweather.rgb import TURNS as TURNED

LOSSLESS = [
    ("a.mkv", "ffv1", "bgr0", {}),
    ("a.avi", "ffv1", "bgr0", {}),
    ("a.mkv", "libx264rgb", "rgb24", {"qp": "0"}),
    ("a.mp4", "libx264rgb", "bgr24", {"qp": "0"}),
    ("a.mov", "png", "rgb24", {}),
    ("a.avi", "rawvideo", "bgr24", {}),
]
LOSSY = [
    ("a.mp4", "libx264", "yuv420p"),
    ("a.mkv", "libx265", "yuv444p"),
    ("a.webm", "libvpx-vp9", "yuv420p"),
    ("a.mkv", "libsvtav1", "yuv420p10le"),
    ("a.avi", "mpeg4", "yuv420p"),
    ("a.avi", "mjpeg", "yuvj420p"),
    ("a.mov", "prores", "yuv422p10le"),
    ("a.ts", "libx264", "yuv420p"),
]


def stored(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir()
    for index, pixels in enumerate(frames):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize(("name", "codec", "pixel_format", "options"), LOSSLESS)
@pytest.mark.parametrize("size", [None, (32, 24)])
def test_a_lossless_video_is_its_frames_bit_for_bit(
    name: str, codec: str, pixel_format: str, options: dict[str, str], size: tuple[int, int] | None, tmp_path: Path
):
    frames = noise(4, (66, 48))
    path = clip(tmp_path / name, frames, codec, pixel_format, options=options)
    given = list(Video(path))
    assert all((one.pixels == pixels).all() for one, pixels in zip(given, frames, strict=True))
    assert [one.index for one in given] == [0, 1, 2, 3]
    folder, video = load_stream("folder", stored(tmp_path / "frames", frames), size), load_stream("video", path, size)
    for one, other in zip(video, folder, strict=True):
        assert torch.equal(one.image, other.image) and one.size == other.size == (66, 48) and one.path == path
        assert (one.picture is None) is (size is None) and (size is None or (one.picture == other.picture).all())


@pytest.mark.parametrize(("name", "codec", "pixel_format"), LOSSY)
def test_any_codec_is_near_its_frames(name: str, codec: str, pixel_format: str, tmp_path: Path):
    frames = scene(12)
    video = Video(clip(tmp_path / name, frames, codec, pixel_format))
    given = list(video)
    assert (video.rate, video.width, video.height, video.damage) == (10, *SIZE, None)
    assert video.frames in (None, 12) and len(given) == 12
    assert [one.seconds for one in given] == pytest.approx([index / 10 for index in range(12)], abs=1e-3)
    errors = [np.abs(one.pixels.astype(float) - pixels).mean() for one, pixels in zip(given, frames, strict=True)]
    assert max(errors) < 12
    assert np.abs(given[0].pixels.astype(float) - frames[6]).mean() > 1.5 * max(errors)


@pytest.mark.parametrize("space", [(1, 1), (1, 2), (5, 1), (5, 2)], ids=["709", "709 full", "601", "601 full"])
def test_colors_are_those_that_the_file_names(space: tuple[int, int], tmp_path: Path):
    for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 30, 90)):
        frames = [np.full((32, 32, 3), color, np.uint8)]
        (given,) = Video(clip(tmp_path / "a.mp4", frames, options={"qp": "1"}, space=space))
        assert (
            np.abs(given.pixels.astype(int) - color).max() <= space[1]
        )  # the full range is narrower where it is coded


ONE = 1 << 16
TURNS = {  # x' = a·x + c·y, y' = b·x + d·y as (a, b, c, d)
    "as it is": (1, 0, 0, 1), "a quarter right": (0, 1, -1, 0), "upside down": (-1, 0, 0, -1),
    "a quarter left": (0, -1, 1, 0), "mirrored": (-1, 0, 0, 1), "mirrored down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0), "transposed across": (0, -1, -1, 0),
}  # fmt: skip


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_is_turned_as_it_says(turn: str, suffix: str, tmp_path: Path):
    a, b, c, d = TURNS[turn]
    (frame,) = frames = scene(1)
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    video = Video(clip(tmp_path / f"a{suffix}", frames, "libx264rgb", "rgb24", options={"qp": "0"}, matrix=matrix))
    height, width = frame.shape[:2]
    expected = np.zeros((height, width, 3) if a else (width, height, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            across, down = a * x + c * y, b * x + d * y
            expected[down - (b + d < 0), across - (a + c < 0)] = frame[y, x]  # −1 is the last
    (given,) = video
    assert (video.height, video.width) == expected.shape[:2] and (given.pixels == expected).all()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", [".mjpeg", ".mkv", ".avi", ".mov"])
def test_jpegs_are_turned_as_their_exif_says(turn: int, suffix: str, tmp_path: Path):
    frames = scene(3)
    (plain, *_) = Video(jpegs(tmp_path / f"plain{suffix}", frames))
    path = jpegs(tmp_path / f"a{suffix}", frames, turn)
    still = Image.fromarray(plain.pixels)
    expected = np.asarray(still.transpose(TURNED[turn]) if turn > 1 else still)
    given, stream = list(Video(path)), load_stream("video", path)
    assert len(given) == len(stream) == 3 and (given[0].pixels == expected).all()
    assert stream.read("000000").size == expected.shape[1::-1]


def test_a_turn_that_is_no_right_angle_is_refused(tmp_path: Path):
    half = round(ONE / 2**0.5)
    path = clip(tmp_path / "a.mp4", scene(1), matrix=[half, -half, 0, half, half, 0, 0, 0, 1 << 30])
    with pytest.raises(ImageError, match="turned by 45°; expected a multiple of 90°"):
        Video(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_keeps_its_times(suffix: str, tmp_path: Path):
    times = [0, 40, 80, 500, 520, 1900]
    video = Video(clip(tmp_path / f"a{suffix}", scene(6), times=times))
    assert [one.seconds for one in video] == pytest.approx([time / 1000 for time in times], abs=1e-3)
    assert video.damage is None


UNEVEN = {"a.mkv": (0, 40, 80, 500, 520, 1900), "a.mp4": (0, 40, 80, 500, 520, 1900), "late.mkv": (700, 740, 800)}


@pytest.mark.parametrize("name", UNEVEN)
def test_a_stream_says_when_its_frames_are_shown(name: str, tmp_path: Path):
    times = UNEVEN[name]
    stream = VideoStream(clip(tmp_path / name, scene(len(times)), times=times))
    assert tuple(stream.seconds) == stream.names
    assert list(stream.seconds.values()) == pytest.approx([(time - times[0]) / 1000 for time in times], abs=1e-3)


@pytest.mark.parametrize("rate", [10, 24, Fraction(30000, 1001)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".h264", ".avi"])
def test_an_even_rate_needs_no_times(rate: Fraction | int, suffix: str, tmp_path: Path):
    stream = VideoStream(clip(tmp_path / f"a{suffix}", scene(40), rate=rate))
    *_, last = stream.video
    assert stream.seconds is None and last.seconds == pytest.approx(39 / float(stream.video.rate), abs=0.011)


def test_frames_are_counted_without_their_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("allweather.data.video.upright", None)
    assert len(VideoStream(clip(tmp_path / "a.h264", scene(5)))) == 5


def test_each_frame_is_asked_once_how_it_is_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video, asked = Video(clip(tmp_path / "a.mkv", scene(3))), []
    monkeypatch.setattr("allweather.data.decoding._display_matrix", asked.append)
    assert len(list(video)) == len(asked) == 3


SHAPES = {  # a pixel's width by its height and whether it is turned, and the shape it is to be shown in
    "wide": (Fraction(2), False, (128, 48)),
    "tall": (Fraction(1, 2), False, (64, 96)),
    "pal": (Fraction(16, 11), False, (93, 48)),
    "turned": (Fraction(2), True, (48, 128)),
    "square": (Fraction(1), False, (64, 48)),
    "not said": (None, False, (64, 48)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_that_are_not_square_are_told_once(shape: str, tmp_path: Path, recwarn: pytest.WarningsRecorder):
    aspect, turned, shown = SHAPES[shape]
    matrix = [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30] if turned else None
    path = clip(tmp_path / "a.mp4", scene(3), aspect=aspect, matrix=matrix)
    assert Video(path).shown == shown and not recwarn.list
    list(load_stream("video", path, (2 * shown[0], 2 * shown[1])))
    stream = load_stream("video", path)
    assert not recwarn.list, "nothing was squeezed yet"
    list(stream)
    told = [str(each.message) for each in recwarn.list]
    assert [f"--size {shown[0]}x{shown[1]} " in each for each in told] == [True] * (shape not in ("square", "not said"))


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (1, None)])
def test_hdr_is_told_once(transfer: int, name: str | None, tmp_path: Path, recwarn: pytest.WarningsRecorder):
    stream = load_stream("video", clip(tmp_path / "a.mp4", scene(3), transfer=transfer))
    assert not recwarn.list and bool(Video(tmp_path / "a.mp4").hdr) == bool(name)
    list(stream)
    assert [f"transfer function {name}" in str(each.message) for each in recwarn.list] == [True] * bool(name)


def test_frames_that_an_avi_leaves_out_are_no_missing_end(tmp_path: Path):
    path = clip(tmp_path / "a.avi", scene(6), "mpeg4", times=[0, 100, 200, 500, 600, 900])
    video = Video(path)
    assert len(list(video)) == 6 and video.damage is VideoStream(path).damage is None
    video = Video(cut(path, 0.6))
    assert list(video) and "ends early" in (video.damage or "")


def hidden(path: Path) -> Path:
    """VP8 with a packet, its fourth, that is not shown."""
    with av.open(clip(path.with_name("plain.webm"), scene(8), "libvpx")) as given, av.open(path, "w") as file:
        stream = file.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(each for each in given.demux(video=0) if each.size):
            content = bytearray(bytes(packet))
            content[0] &= 0xEF
            for one in [av.Packet(bytes(content)), packet] if number == 3 else [packet]:
                one.pts, one.dts, one.time_base, one.stream = packet.pts, packet.dts, packet.time_base, stream
                file.mux(one)
    return path


def joined(path: Path, *later: int, size: tuple[int, int] = SIZE) -> Path:
    """Transport streams in one file, whose times, in milliseconds, begin at 0 and `later`."""
    parts = [
        clip(path, frames, times=range(begin, begin + 1200, 100), options={"g": "4"}).read_bytes()
        for begin, frames in ((0, scene(12)), *((begin, scene(12, size)[::-1]) for begin in later))
    ]
    return written(path.parent, b"".join(parts), path.name)


def middle(path: Path) -> Path:
    """A transport stream without its first packets, the first picture's among them."""
    return written(path.parent, clip(path, scene(12), options={"g": "4"}).read_bytes()[8 * 188 :], path.name)


BEGUN = "the first 3 frames are left out: the picture to begin with"
NUMBERED: dict[str, tuple[Callable[[Path], Path], int, str | None]] = {  # its frames, its damage
    "hidden": (lambda folder: hidden(folder / "a.webm"), 8, None),
    "joined, equal times": (lambda folder: joined(folder / "a.ts", 0), 24, None),
    "joined, overlapping": (lambda folder: joined(folder / "a.ts", 5), 24, None),
    "joined, smaller": (lambda folder: joined(folder / "a.ts", 0, size=(32, 24)), 12, "frame 12 is 32×24 instead"),
    "middle": (lambda folder: middle(folder / "a.ts"), 8, BEGUN),
    "reordered late": (lambda folder: clip(folder / "a.avi", noise(12) + scene(16), options={"bf": "2"}), 28, None),
}


@pytest.mark.parametrize("kind", NUMBERED)
def test_a_stream_has_the_frames_of_the_video(kind: str, tmp_path: Path):
    make, count, damage = NUMBERED[kind]
    video = Video(make(tmp_path))
    given, stream = list(video), VideoStream(video.path)
    assert len(given) == len(stream) == count and stream.damage == video.damage
    assert str(video.damage).startswith(str(damage))
    near = 0.21 if "late" in kind else 0.011
    assert [one.seconds for one in given] == pytest.approx([index / 10 for index in range(count)], abs=near)
    for number in (*range(count), count // 2, 0):
        picture = np.round(stream.read(f"{number:06d}").image.permute(1, 2, 0).numpy() * 255)
        assert (picture == given[number].pixels).all()


def test_time_goes_on_where_recordings_overlap_after_a_pause(tmp_path: Path):
    path = joined(tmp_path / "a.ts", 5200, 6000)  # the first begins at 200
    expected = pytest.approx([*np.arange(12) / 10, *(5 + np.arange(24) / 10)], abs=0.011)
    assert [one.seconds for one in Video(path)] == expected
    assert list((VideoStream(path).seconds or {}).values()) == expected


def test_a_cover_is_no_video(tmp_path: Path):
    video = Video(covered(tmp_path / "a.mp4", scene(3)))
    assert (video.width, video.height) == SIZE and len(list(video)) == 3


def test_sound_that_goes_on_is_no_missing_end(tmp_path: Path):
    for name in ("a.mkv", "a.mp4"):
        video = Video(clip(tmp_path / name, scene(10), sound=4))
        assert len(list(video)) == 10 and video.damage is None


def png(folder: Path, count: int) -> Path:
    """A video whose codec checks every frame."""
    return clip(folder / "a.mov", noise(count), "png", "rgb24")


def silent(folder: Path) -> Path:
    """A video of 30 frames whose second complete picture of three is zeros: what refers to it is left out unsaid."""
    path = clip(folder / "a.mp4", scene(30), options={"g": "10", "bf": "0"})
    with av.open(path) as file:
        key = [bytes(packet) for packet in file.demux(video=0) if packet.size][10]
    path.write_bytes(path.read_bytes().replace(key, key[:4] + bytes(len(key) - 4)))
    return path


def second(path: Path) -> Path:
    """A file whose first track of pictures is empty."""
    with av.open(path, "w") as file:
        tracks = [file.add_stream("libx264", rate=10) for _ in range(2)]
        for track in tracks:
            track.width, track.height = SIZE
        for pixels in scene(5):
            file.mux(tracks[1].encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(tracks[1].encode(None))
    return path


def test_an_empty_track_before_the_pictures_is_passed_over(tmp_path: Path):
    video = Video(second(tmp_path / "a.mkv"))
    assert len(list(video)) == len(VideoStream(video.path)) == 5 and video.damage is None


FASTSTART, PIECES = {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}
FAULTS: dict[str, tuple[Callable[[Path], Path], str, range]] = {  # how it is made, its word, how many frames are left
    "cut mkv": (lambda folder: cut(clip(folder / "a.mkv", noise(30)), 0.6), r"1\.\d\d of 3\.00 seconds", range(12, 20)),
    "cut mp4": (
        lambda folder: cut(clip(folder / "a.mp4", noise(30), container=FASTSTART), 0.6),
        r"ends early: 1\d of 30 frames",
        range(12, 20),
    ),
    "cut avi": (
        lambda folder: cut(clip(folder / "a.avi", noise(30), "ffv1", "bgr0"), 0.6),
        "of 30 frames",
        range(12, 20),
    ),
    "cut pieces": (
        lambda folder: cut(clip(folder / "a.mp4", noise(30), container=PIECES), 0.6),
        "early",
        range(12, 20),
    ),
    "spoiled avi": (
        lambda folder: spoil(clip(folder / "a.avi", noise(30), "mpeg4"), 0.5),
        "damaged and left out, ",
        range(25, 30),
    ),
    "silent": (silent, "damaged", range(20, 29)),
    "spoiled mov": (
        lambda folder: spoil(png(folder, 30), 0.5),
        "1 frame is damaged and left out, after 1[45] whole ones",
        range(29, 30),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_can_be_decoded_is_given_and_the_rest_is_said(fault: str, tmp_path: Path):
    make, word, left = FAULTS[fault]
    video = Video(make(tmp_path))
    assert video.damage is None
    given = list(video)
    assert fault != "silent" or (video.damage or "").startswith(f"{30 - len(given)} ")
    assert len(given) in left and [one.index for one in given] == list(range(len(given)))
    assert re.search(word, video.damage)
    assert len(list(islice(video, 3))) == 3 and video.damage is None  # left before its end: nothing is known


def test_a_change_of_size_ends_it_by_name(tmp_path: Path):
    path = tmp_path / "a.mjpeg"
    content = BytesIO()
    for size in [(64, 48)] * 3 + [(32, 24)] * 2:
        Image.fromarray(scene(1, size)[0]).save(content, "JPEG")
    path.write_bytes(content.getvalue())
    video = Video(path)
    assert len(list(video)) == 3
    assert video.damage == (
        "frame 3 is 32×24 instead of 64×48; cut the video there, or encode it at one size. It and all after it are "
        "left out"
    )
    stream = load_stream("video", path)
    assert len(stream) == 5 and stream.read("000002").size == (64, 48)
    with pytest.raises(ImageError, match=r"a\.mjpeg: frame 3 is 32×24 instead of 64×48"):
        stream.read("000003")


def written(folder: Path, content: bytes, name: str = "a.mp4") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.mp4")
    return folder / "a.mp4"


def pages(folder: Path) -> Path:
    first, *others = map(Image.fromarray, scene(3))
    first.save(folder / "a.tiff", save_all=True, append_images=others)
    return folder / "a.tiff"


NONE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "not there": (lambda folder: folder / "a.mp4", "No such file"),
    "a folder": (lambda folder: folder, "it is a folder"),
    "a pipe": (pipe, "a device or a pipe"),
    "zero bytes": (lambda folder: written(folder, b""), "it is empty"),
    "text": (lambda folder: written(folder, b"hello\n" * 99), "of no known format"),
    "a playlist": (lambda folder: written(folder, b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n"), "of no known"),
    "a playlist by name": (
        lambda folder: written(folder, b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n", "a.m3u8"),
        "of no known",
    ),
    "sound alone": (lambda folder: sound_only(folder / "a.mp4"), "there is no video in it, only audio"),
    "no frame, mp4": (lambda folder: clip(folder / "a.mp4", []), "there is nothing in it"),
    "no frame, mkv": (lambda folder: clip(folder / "a.mkv", []), "it ends before its first frame"),
    "no frame, avi": (lambda folder: clip(folder / "a.avi", [], "mpeg4"), "there is no frame in it"),
    "no index": (lambda folder: cut(clip(folder / "a.mp4", noise(9)), 0.6), "its index is missing.*record .mkv"),
    "no such codec": (lambda folder: unknown_codec(folder / "a.mp4"), "no decoder for its codec 'zzz1'; convert it"),
    "pages": (pages, "it is a TIFF picture, of several pages perhaps; save each"),
    "nothing whole": (lambda folder: spoil(png(folder, 1), 0.5), "no frame in it can be decoded"),
}


@pytest.mark.parametrize("kind", NONE)
@pytest.mark.parametrize("opened", [Video, partial(load_stream, "video")], ids=["Video", "stream"])
def test_what_is_no_video_is_refused_on_opening(kind: str, opened: Callable[[Path], Any], tmp_path: Path):
    make, word = NONE[kind]
    path = make(tmp_path)
    with pytest.raises(ImageError, match=rf"not a readable video \(.*{word}") as caught:
        opened(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["a:b.mp4", "caf\udce9.mp4", "100%d.mp4", "ä b.mkv", "http:a.mp4"])
def test_a_name_is_only_a_name(name: str, here: Path):
    clip(here / "plain.mkv", scene(2)).rename(here / name)
    assert len(list(Video(name))) == len(list(Video(here / name))) == 2


@pytest.mark.parametrize("stand_in", [None, SimpleNamespace(__version__="17.1.0")], ids=["missing", "too old"])
def test_without_pyav_the_extra_is_named(stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", stand_in)
    with pytest.raises(aw.MissingLibraryError, match=r"pip install (--upgrade )?'allweather\[video\]'"):
        load_stream("video", tmp_path / "a.mp4")


def test_a_raw_stream_without_times_has_the_usual_rate(tmp_path: Path):
    video = Video(clip(tmp_path / "a.h264", scene(5), options={"bf": "0"}))
    assert video.frames is None and video.rate == Fraction(25)
    assert [one.seconds for one in video] == pytest.approx([index / 25 for index in range(5)])
    assert len(load_stream("video", tmp_path / "a.h264")) == 5


ANY_ORDER = {
    "h264": ("a.mp4", "libx264", "yuv420p", {"g": "8", "bf": "2"}),
    "mpeg4": ("a.avi", "mpeg4", "yuv420p", {"g": "8"}),
    "vp9": ("a.webm", "libvpx-vp9", "yuv420p", {}),
    "no index": ("a.ts", "libx264", "yuv420p", {"g": "8", "bf": "2"}),
    "no times": ("a.h264", "libx264", "yuv420p", {"g": "8"}),
}


@pytest.mark.parametrize("kind", ANY_ORDER)
def test_a_stream_gives_each_frame_in_any_order(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("allweather.data.video_stream.NEAR", 3)
    name, codec, pixel_format, options = ANY_ORDER[kind]
    path = clip(tmp_path / name, scene(24), codec, pixel_format, options=options)
    whole = [torch.from_numpy(one.pixels).permute(2, 0, 1).float() / 255 for one in Video(path)]
    stream = load_stream("video", path)
    assert stream.names[:2] == ("000000", "000001") and len(stream) == len(whole) == 24
    for order in (range(24), range(23, -1, -1), np.random.default_rng(0).permutation(24).tolist()):
        turned = stream.reordered(list(order))
        assert all(torch.equal(frame.image, whole[index]) for frame, index in zip(turned, order, strict=True))


def test_a_damaged_frame_raises_where_it_stands_and_the_stream_goes_on(tmp_path: Path):
    path = png(tmp_path, 12)
    whole = list(Video(path))
    stream = load_stream("video", spoil(path, 0.5))
    frames, lost = iter(stream), []
    for index in range(12):
        try:
            frame = next(frames)
        except ImageError as error:
            lost.append(str(error))
            continue
        assert (np.round(frame.image.permute(1, 2, 0).numpy() * 255) == whole[index].pixels).all()
    assert lost in ([f"{path}: frame {index} cannot be decoded."] for index in (5, 6))


def test_a_stream_says_what_is_missing_at_its_end(tmp_path: Path):
    path = clip(tmp_path / "a.mkv", noise(30))
    stream = load_stream("video", path)
    assert stream.damage is None
    assert "ends early" in load_stream("video", cut(path, 0.6)).damage


def test_suffixes_are_lower_case_and_no_pictures():
    assert {".mp4", ".mkv", ".avi", ".mov", ".webm"} <= set(suffixes)
    assert all(suffix == suffix.lower() and suffix not in aw.rgb.EXTENSIONS for suffix in suffixes)


class Read(torch.utils.data.Dataset[torch.Tensor]):
    """Frames of a stream by their numbers."""

    def __init__(self, stream: aw.data.Stream, order: list[int]):
        self.stream, self.order = stream, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.stream.read(self.stream.names[self.order[index]]).image


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("before", [[], [0], [7, 8]], ids=str)
@pytest.mark.parametrize("order", [list(range(40)), [30, 5, 39, 0]], ids=["in order", "any order"])
def test_a_forked_worker_reads_what_this_process_does(before: list[int], order: list[int], tmp_path: Path):
    stream = load_stream("video", clip(tmp_path / "a.mp4", scene(40), options={"g": "10"}))
    for number in before:
        stream.read(stream.names[number])
    loader = torch.utils.data.DataLoader(
        Read(stream, order), batch_size=None, num_workers=1, timeout=30, multiprocessing_context="fork"
    )
    given = list(loader)
    assert all(torch.equal(image, Read(stream, order)[index]) for index, image in enumerate(given))
    assert len(given) == len(order) and [frame.name for frame in stream] == list(stream.names)
