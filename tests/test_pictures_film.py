"""Films: sizes, rates and colors as asked for; they play whatever ended them; panels side by side."""

import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import noise, scene

import allweather as aw
from allweather.data import Video
from allweather.pictures.film import Film
from allweather.pictures.panels import side_by_side


@pytest.fixture(params=[".mp4", ".mov", ".mkv"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"a{request.param}"


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def film(path: Path, frames: list[np.ndarray], rate: Fraction | float = 10, times: Iterable[float] = ()) -> Path:
    height, width = frames[0].shape[:2]
    with Film(path, rate, width, height) as open_film:
        for pixels, seconds in zip_longest(frames, times):
            open_film.write(pixels, seconds)
    return path


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (2, 2), (1, 1), (7, 300)])
def test_a_film_has_every_frame_at_an_even_size(path: Path, size: tuple[int, int]):
    frames = scene(12, size)
    video = Video(film(path.parent / "deep" / path.name, frames))
    given = list(video)
    assert (video.width, video.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert len(given) == 12 and video.damage is None and given[-1].seconds == pytest.approx(1.1)
    if min(size) > 40:
        errors = [
            np.abs(one.pixels[: size[1], : size[0]].astype(float) - pixels).mean()
            for one, pixels in zip(given, frames, strict=True)
        ]
        assert max(errors) < 5
        *_, last, twice = given[0].pixels.astype(int).swapaxes(0, 1)
        assert size[0] % 2 == 0 or np.abs(last - twice).mean() < 3


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), 25, 12.5, 7, 29.97, Fraction(1, 2), 240])
def test_the_rate_is_kept(rate: Fraction | float, tmp_path: Path):
    video = Video(film(tmp_path / "a.mp4", scene(6), rate))
    assert video.rate == Fraction(rate).limit_denominator(1001) and video.frames == 6
    assert [one.seconds for one in video] == pytest.approx([index / float(rate) for index in range(6)], abs=1e-4)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 25, 29.97, 7.3, Fraction(359645, 11988)])
def test_a_build_without_h264_writes_what_it_can(path: Path, rate: Fraction | float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("allweather.pictures.film.ENCODERS", ("no such encoder", "mpeg4"))
    frames = scene(12)
    given = list(Video(film(path, frames, rate)))
    assert [one.seconds for one in given] == pytest.approx([index / float(rate) for index in range(12)], abs=2e-3)
    assert max(np.abs(one.pixels.astype(float) - pixels).mean() for one, pixels in zip(given, frames, strict=True)) < 8


def test_a_build_without_any_encoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("allweather.pictures.film.ENCODERS", ("no such encoder",))
    with pytest.raises(aw.MissingLibraryError, match=r"none of the encoders no such encoder.*allweather\[video\]"):
        Film(tmp_path / "a.mp4", 25, 64, 48)
    assert list(tmp_path.iterdir()) == []


def test_colors_are_kept(tmp_path: Path):
    for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 30, 90), (0, 0, 0), (255, 255, 255)):
        (given,) = Video(film(tmp_path / "a.mp4", [np.full((48, 64, 3), color, np.uint8)]))
        assert np.abs(given.pixels.astype(int) - color).max() <= 4


def test_frames_may_have_times_of_their_own(path: Path):
    times = [0.0, 0.04, 0.5, 0.5, 2.0]  # the fourth cannot be shown with the third
    assert [one.seconds for one in Video(film(path, scene(5), 25, times))] == pytest.approx(times, abs=2e-3)


def test_what_is_on_the_disk_plays_at_any_time(path: Path):
    frames, copy = noise(120), path.with_stem("copy")
    with Film(path, 25, 64, 48) as open_film:
        for pixels in frames:
            open_film.write(pixels)
        copy.write_bytes(path.read_bytes())  # what a killed process leaves
    assert 75 <= len(list(Video(copy))) < 120
    assert len(list(Video(path))) == 120


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[3])
from clips import noise
from allweather.pictures import Film
film = Film(sys.argv[1], 10, 64, 48)
for pixels in noise(int(sys.argv[2])):
    film.write(pixels)
os._exit(0)
"""


@pytest.mark.parametrize("frames", [12, 25])
def test_a_process_that_ends_loses_at_most_a_second_and_a_frame(path: Path, frames: int):
    subprocess.run([sys.executable, "-c", KILLED, path, str(frames), Path(__file__).parent], check=True)
    assert frames - 10 - 1 <= len(list(Video(path))) <= frames


def test_any_player_starts_it_at_zero_and_shows_its_last_frame(path: Path):
    times = [0.0, 0.3, 0.6, 0.9, 1.2]
    with av.open(film(path, scene(5), 10, times)) as container:
        (stream,) = container.streams.video
        shown = [float(packet.pts * packet.time_base) for packet in container.demux(stream) if packet.pts is not None]
        # FFmpeg tells no start of so short an .mkv without B-frames
        assert not container.start_time and not stream.start_time and (path.suffix == ".mkv" or stream.start_time == 0)
        assert shown == pytest.approx(times, abs=2e-3) and container.duration / 1e6 >= times[-1]


def test_after_an_error_in_the_middle_all_frames_are_there(path: Path):
    def interrupted():
        with Film(path, 25, 64, 48) as open_film:
            for pixels in scene(30):
                open_film.write(pixels)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    video = Video(path)
    assert len(list(video)) == 30 and video.damage is None


@pytest.mark.parametrize("size", [200_000, 350_000])
def test_on_a_full_disk_the_film_made_so_far_plays(path: Path, size: int):
    with pytest.raises(aw.AllWeatherError, match=rf"{path.name}: .*What was written before plays"), disk_of(size):
        film(path, noise(200), 25)
    video = Video(path)
    assert len(list(video)) >= 20 and video.damage is None
    assert size / 3 < path.stat().st_size <= size


def test_where_only_the_end_does_not_fit_everything_plays(path: Path):
    frames = noise(50)
    whole = film(path.with_stem("whole"), frames, 25).stat().st_size
    with pytest.raises(aw.AllWeatherError, match="cannot write"), disk_of(whole - 300):
        film(path, frames, 25)
    assert len(list(Video(path))) >= 25


def test_a_disk_that_holds_nothing_leaves_nothing(path: Path):
    with pytest.raises(aw.AllWeatherError, match="Nothing that plays was written yet"), disk_of(100):
        film(path, noise(60))
    assert list(path.parent.iterdir()) == []


def test_no_frame_no_file_and_no_frame_after_the_end(tmp_path: Path):
    with Film(tmp_path / "a.mp4", 25, 64, 48) as open_film:
        pass
    assert list(tmp_path.iterdir()) == []
    open_film.close()
    with pytest.raises(aw.AllWeatherError, match="the film is closed"):
        open_film.write(scene(1)[0])


GOOD = {"path": "a.mp4", "rate": 25, "width": 64, "height": 48}
MISTAKES: dict[str, tuple[dict[str, Any], type[aw.AllWeatherError], str]] = {
    "suffix": ({"path": "a.avi"}, aw.SettingsError, r"expected a video's name ending in \.mp4, .*\.mkv"),
    "no rate": ({"rate": 0}, aw.SettingsError, "a rate above 0 frames per second, got 0"),
    "endless rate": ({"rate": float("inf")}, aw.SettingsError, "got inf"),
    "no rate at all": ({"rate": float("nan")}, aw.SettingsError, "got nan"),
    "width": ({"width": 0}, aw.SettingsError, "at least 1, got 0×48"),
    "folder": ({"path": "file/a.mp4"}, aw.AllWeatherError, "cannot write .*Name another place"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake: str, tmp_path: Path):
    settings, kind, message = MISTAKES[mistake]
    (tmp_path / "file").write_text("")
    arguments = GOOD | settings
    with pytest.raises(kind, match=message):
        Film(tmp_path / arguments.pop("path"), **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "pixels", [np.zeros((48, 64), np.uint8), np.zeros((64, 48, 3), np.uint8), np.zeros((48, 64, 3), np.float32)]
)
def test_pixels_of_another_kind_are_refused_and_the_film_goes_on(pixels: np.ndarray, tmp_path: Path):
    with Film(tmp_path / "a.mp4", 25, 64, 48) as open_film:
        with pytest.raises(aw.InputError, match=r"expected pixels of shape \(48, 64, 3\) and type uint8, got"):
            open_film.write(pixels)
        open_film.write(scene(1)[0])
    assert len(list(Video(tmp_path / "a.mp4"))) == 1


def test_panels_stand_side_by_side_under_their_captions():
    left, right = scene(1, (64, 48))[0], noise(1, (80, 48))[0]
    plain, drawn = side_by_side([left, right], ["", ""]), side_by_side([left, right], ["input", "adapted"])
    gap = plain.shape[1] - 64 - 80
    assert plain.shape[0] == 48 and 0 < gap < 10
    assert (plain[:, :64] == left).all() and (plain[:, 64 + gap :] == right).all()
    bar = drawn[: drawn.shape[0] - 48]
    assert (drawn[len(bar) :] == plain).all() and 10 < len(bar) < 30
    halves = bar[:, :64].max(), bar[:, 64 + gap :].max()
    assert min(halves) > 200  # letters in both
    assert not (bar == side_by_side([left, right], ["input", "source"])[: len(bar)]).all()


def test_a_long_caption_ends_with_its_picture():
    pictures = [np.zeros((48, 64, 3), np.uint8)] * 2
    paper, long = side_by_side(pictures, [" ", " "]), side_by_side(pictures, ["what it saw " * 9, " "])
    written = (paper != long).any(axis=(0, 2))
    assert written[:64].any() and not written[60:].any()


@pytest.mark.parametrize(
    ("pictures", "captions", "message"),
    [
        ([], [], "got 0 and 0"),
        ([np.zeros((4, 4, 3), np.uint8)], ["a", "b"], "got 1 and 2"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], ["", ""], r"\(4, 4, 3\) uint8, \(5, 4, 3\)"),
        ([np.zeros((4, 4, 3), np.float32)], [""], "float32"),
        ([np.zeros((4, 4), np.uint8)], [""], r"\(4, 4\)"),
    ],
)
def test_panels_that_do_not_fit_are_refused(pictures: list[np.ndarray], captions: list[str], message: str):
    with pytest.raises(aw.InputError, match=message):
        side_by_side(pictures, captions)
