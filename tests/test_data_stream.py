"""Streams: natural order, unique names, an order that is part of the data."""

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import MODEL, allweather
from PIL import Image
from refusals import refusal

import allweather as aw
from allweather import Frame, ImageError, InputError, load_stream
from allweather.app.drawn import picture_of
from allweather.data import open_files
from allweather.data.folder import natural_key, tell_others
from allweather.data.labelled import labelled_scenes
from allweather.runs.overlap import Ahead


def paint(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path)
    return path


def test_order_is_natural_and_reaches_the_bottom(tmp_path: Path):
    for name in ("f10.png", "f2.JPG", "b/f1.png", "note.txt"):
        paint(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    stream = load_stream("folder", tmp_path)
    assert stream.names == ("b/f1", "f2", "f10") and len(stream) == 3
    assert [frame.name for frame in stream] == list(stream.names)


def test_a_frame_has_the_size_asked_for_and_remembers_its_own(tmp_path: Path):
    paint(tmp_path / "a.png", (20, 10))
    (frame,) = open_files([tmp_path], (8, 6))
    assert frame.image.shape == (3, 6, 8) and frame.size == (20, 10) and frame.path == tmp_path / "a.png"


def test_inputs_come_in_the_order_given(tmp_path: Path):
    late, early = paint(tmp_path / "z/1.png"), paint(tmp_path / "a/2.png")
    assert open_files([late, early.parent]).names == ("1", "2")


TWINS = {  # files, and the names of their frames
    ("a.png", "a.jpg", "b.png", "c.d.png"): ("a_jpg", "a_png", "b", "c.d"),
    ("x/a.png", "x/a.PNG", "y/a.png"): ("x/a_PNG", "x/a_png", "y/a"),
    ("a.png", "a.jpg", "a_png.bmp"): ("a_jpg", "a_png_png", "a_png"),
    ("a.png", "a.jpg", "a.bmp"): ("a_bmp", "a_jpg", "a_png"),
}


@pytest.mark.parametrize("files", TWINS)
@pytest.mark.parametrize("given", ["folder", "files"])
def test_the_same_stem_twice_renames_only_the_twins(tmp_path: Path, files: tuple[str, ...], given: str):
    paths = [paint(tmp_path / name) for name in sorted(files)]
    if given == "files" and "x/a.png" in files:
        paths = paths[:2]  # y/a.png would be a second 'a'
    stream = open_files(paths if given == "files" else [tmp_path])
    expected = TWINS[files]
    if given == "folder":
        assert stream.names == expected
    else:
        assert sorted(stream.names) == sorted(name.removeprefix("x/") for name in expected[: len(paths)])
    assert all(stream.read(name).path is not None for name in stream.names)


def test_hidden_files_are_no_frames(tmp_path: Path):
    for name in ("a.png", "._a.png", ".hidden.jpg", ".ipynb_checkpoints/a-checkpoint.png", "day/.cache/b.png"):
        paint(tmp_path / name)
    assert open_files([tmp_path]).names == ("a",)
    assert open_files([tmp_path / ".ipynb_checkpoints"]).names == ("a-checkpoint",)  # who names it means it
    (tmp_path / "a.png").unlink()
    with refusal(r"no image in .*hidden files are left out\)\.$"):
        open_files([tmp_path])
    with refusal("no input: expected at least one folder"):
        open_files([])


def test_pictures_and_videos_that_are_left_out_are_told(tmp_path: Path):
    for name in ("a.png", "notes.txt", "._c.mp4"):
        paint(tmp_path / "quiet" / name) if name == "a.png" else (tmp_path / "quiet" / name).touch()
    for name in ("b.jfif", "c.mp4", "deep/d.MP4", "deep/e.gif"):
        (tmp_path / "loud" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "loud" / name).touch()
    tell_others([tmp_path / "quiet"])  # a warning would be an error
    with refusal(r"found 1 × \.gif, 1 × \.jfif, 2 × \.mp4\. Name a video itself", InputError):
        open_files([tmp_path / "loud"])
    paint(tmp_path / "loud/a.png")
    with pytest.warns(UserWarning, match=r"left out of the folders: 1 × \.gif, 1 × \.jfif, 2 × \.mp4\."):
        tell_others([tmp_path / "quiet", tmp_path / "loud"])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = allweather("adapt", tmp_path / "loud", *MODEL, "--method", "source", "--out", tmp_path / "out")
    assert "warning: left out of the folders: 1 × .gif" in done.said()


def test_links_are_followed_and_loops_are_not(tmp_path: Path):
    paint(tmp_path / "elsewhere/night/b.png")
    frames = paint(tmp_path / "frames/a.png").parent
    (frames / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (frames / "file.png").symlink_to(frames / "a.png")
    (frames / "itself").symlink_to(frames, target_is_directory=True)
    (tmp_path / "elsewhere/night/back").symlink_to(frames, target_is_directory=True)
    assert open_files([frames]).names == ("a", "file", "linked/night/b")
    (tmp_path / "way").symlink_to(frames, target_is_directory=True)
    assert open_files([tmp_path / "way"]).names == ("a", "file", "linked/night/b")


@pytest.mark.parametrize("name", ["b.png", "night", "b.JPG"])
@pytest.mark.parametrize("given", ["folder", "itself"])
def test_a_broken_link_is_named_where_it_stands(tmp_path: Path, name: str, given: str):
    paint(tmp_path / "a.png")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    stream = open_files([tmp_path] if given == "folder" else [tmp_path / "a.png", tmp_path / name])
    assert stream.names == ("a", Path(name).stem)
    with refusal(rf"{name}: not a readable image \(a broken link to .*gone\)", ImageError):
        stream.read(Path(name).stem)


def test_a_broken_link_to_no_picture_is_nothing(tmp_path: Path):
    paint(tmp_path / "a.png")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "gone.txt")
    assert open_files([tmp_path]).names == ("a",)


def test_a_pipe_with_an_images_name_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "a.png")
    with refusal("a device or a pipe", ImageError):
        open_files([tmp_path]).read("a")


def test_a_folder_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paint(tmp_path / "a.png"), paint(tmp_path / "shut/b.png")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    stream = open_files([tmp_path])
    assert stream.names == ("a", "shut")
    with refusal(r"shut: .*cannot be opened \(Permission denied\)", ImageError):
        stream.read("shut")


def test_a_name_that_is_not_utf8_is_a_name(tmp_path: Path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    paint(tmp_path / "a.png").rename(Path(os.fsdecode(raw)))
    stream = open_files([tmp_path])
    assert os.fsencode(stream.names[0]) == b"caf\xe9"
    assert stream.order_hash == hashlib.sha256(b"caf\xe9").hexdigest()
    assert stream.read(stream.names[0]).size == (8, 6)


def test_the_stored_picture_comes_along_where_it_was_resampled(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    resampled, native = open_files([tmp_path], (4, 3)).read("a"), open_files([tmp_path], (8, 6)).read("a")
    assert (resampled.picture == pixels).all() and native.picture is None
    assert (picture_of(resampled) == pixels).all() and (picture_of(native) == pixels).all()


def test_the_hash_follows_names_and_order(tmp_path: Path):
    for name in "abc":
        paint(tmp_path / f"{name}.png")
    stream = open_files([tmp_path])
    assert stream.order_hash == open_files([tmp_path]).order_hash
    turned = stream.reordered([2, 1, 0])
    assert turned.names == ("c", "b", "a") and turned.order_hash != stream.order_hash


def test_two_inputs_with_one_name_are_refused(tmp_path: Path):
    with refusal("share the name 'a'"):
        open_files([paint(tmp_path / "x/a.png"), paint(tmp_path / "y/a.png")])


def test_a_corrupt_frame_raises_where_it_stands(tmp_path: Path):
    paint(tmp_path / "a.png"), paint(tmp_path / "c.png")
    (tmp_path / "b.png").write_bytes(b"")
    stream = open_files([tmp_path])
    assert stream.read("a") and stream.read("c")
    with refusal("it is empty", ImageError):
        stream.read("b")


@pytest.mark.parametrize(("path", "said"), [("gone", "no such input"), (".", "no image in")])
def test_nothing_to_read_is_said(tmp_path: Path, path: str, said: str):
    with refusal(said):
        open_files([tmp_path / path])


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((4, 6), np.uint8), r"uint8 of shape \(4, 6\)"),
        (np.zeros((4, 6, 1), np.uint8), r"uint8 of shape \(4, 6, 1\)"),
        (np.zeros((4, 6, 4), np.uint8), r"uint8 of shape \(4, 6, 4\)"),
        (np.zeros((4, 6, 3), np.uint16), "uint16 of shape"),
        (np.zeros((4, 6, 3)), "float64 of shape"),
        (np.zeros((0, 6, 3), np.uint8), r"uint8 of shape \(0, 6, 3\)"),
        (Image.new("L", (6, 4)), "of mode RGB, got L"),
        (Image.new("RGBA", (6, 4)), "of mode RGB, got RGBA"),
    ],
)
def test_a_picture_of_another_kind_makes_no_frame(picture: Any, said: str):
    with refusal(f"frame 'a': expected .*{said}", InputError):
        Frame.of("a", picture, None)


@pytest.mark.parametrize("name", ["c", "2", "", 3, None])
def test_a_name_that_no_frame_has_is_said(tmp_path: Path, name: Any):
    for each in ("0", "1"):
        paint(tmp_path / f"{each}.png")
    folder, scenes = open_files([tmp_path]), labelled_scenes("fog", range(2))
    with Ahead(folder, 1) as ahead:
        for stream in (folder, scenes.stream, ahead):
            with refusal(r"no frame of this stream is named .*Its 2 names: '0', '1'\.", ImageError):
                stream.read(name)
    with refusal(r"no frame with a truth is named .*Its 2 names: '0', '1'\.", ImageError):
        scenes.truth(name)
    with refusal(r"Its 1 names: '1'\.", ImageError):
        folder.reordered([1]).read("0")


def test_of_many_names_some_are_said():
    with pytest.raises(aw.ImageError, match=r"Its 9 names: '0', '1', '2', …\."):
        labelled_scenes("fog", range(9)).stream.read("9")


def test_an_unknown_kind_is_named():
    with refusal(r"unknown kind of stream 'folders'\. Did you mean 'folder'"):
        load_stream("folders", ".")
    with refusal(r"unknown kind of stream 'vidoe'\. Did you mean 'video'"):
        load_stream("vidoe", "clip.mp4")


def test_digits_sort_by_value():
    assert sorted(["a10", "a9", "10", "b1", "a09b"], key=natural_key) == sorted(
        ["10", "a9", "a09b", "a10", "b1"], key=natural_key
    )
    assert natural_key("m²") == [(0, "m²")]  # a digit, but no number
    assert natural_key("a9") < natural_key("a10") < natural_key("b1")
