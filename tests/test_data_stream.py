"""Streams: natural order, unique names, an order that is part of the data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allweather.data import load_stream, open_files
from allweather.data.folder import natural_key
from allweather.errors import AllWeatherError
from allweather.rgb import ImageError


def paint(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path)
    return path


def test_order_is_natural_and_reaches_the_bottom(tmp_path: Path) -> None:
    for name in ("f10.png", "f2.JPG", "b/f1.png", "note.txt"):
        paint(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    stream = load_stream("folder", tmp_path)
    assert stream.names == ("b/f1", "f2", "f10") and len(stream) == 3
    assert [frame.name for frame in stream] == list(stream.names)


def test_a_frame_has_the_size_asked_for_and_remembers_its_own(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", (20, 10))
    (frame,) = open_files([tmp_path], (8, 6))
    assert frame.image.shape == (3, 6, 8) and frame.size == (20, 10) and frame.path == tmp_path / "a.png"


def test_inputs_come_in_the_order_given(tmp_path: Path) -> None:
    late, early = paint(tmp_path / "z" / "1.png"), paint(tmp_path / "a" / "2.png")
    assert open_files([late, early.parent]).names == ("1", "2")


def test_same_stem_in_two_formats_stays_two_frames(tmp_path: Path) -> None:
    paint(tmp_path / "a.png"), paint(tmp_path / "a.jpg")
    assert len(set(open_files([tmp_path]).names)) == 2


def test_the_hash_follows_names_and_order(tmp_path: Path) -> None:
    for name in "abc":
        paint(tmp_path / f"{name}.png")
    stream = open_files([tmp_path])
    assert stream.order_hash == open_files([tmp_path]).order_hash
    turned = stream.reordered([2, 1, 0])
    assert turned.names == ("c", "b", "a") and turned.order_hash != stream.order_hash


def test_two_inputs_with_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AllWeatherError, match="share the name 'a'"):
        open_files([paint(tmp_path / "x" / "a.png"), paint(tmp_path / "y" / "a.png")])


def test_a_corrupt_frame_raises_where_it_stands(tmp_path: Path) -> None:
    paint(tmp_path / "a.png"), paint(tmp_path / "c.png")
    (tmp_path / "b.png").write_bytes(b"")
    stream = open_files([tmp_path])
    assert stream.read("a") and stream.read("c")
    with pytest.raises(ImageError, match="it is empty"):
        stream.read("b")


@pytest.mark.parametrize(("path", "said"), [("gone", "no such input"), (".", "no image in")])
def test_nothing_to_read_is_said(tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(AllWeatherError, match=said):
        open_files([tmp_path / path])


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(AllWeatherError, match=r"unknown kind of stream 'folders'\. Did you mean 'folder'"):
        load_stream("folders", ".")


def test_digits_sort_by_value() -> None:
    assert sorted(["a10", "a9", "10", "b1", "a09b"], key=natural_key) == sorted(
        ["10", "a9", "a09b", "a10", "b1"], key=natural_key
    )
    assert natural_key("a9") < natural_key("a10") < natural_key("b1")
