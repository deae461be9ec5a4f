"""A size that is none is refused in the same words wherever it enters, before anything is read, written or started."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import allweather as aw
from allweather.data.labelled import labelled_scenes
from allweather.data.scenes import render, scene_stream
from allweather.runs.plan import pixels
from allweather.serve.networks import given
from allweather.sizes import LARGEST, check_asked, check_size

BAD: tuple[Any, ...] = (
    (0, 3), (-1, 5), (10,), (10, 20, 3), "480x352", (48.5, 32), (True, 3), (LARGEST + 1, 3), (10**30, 3), 5, (), "",
    {3, 4}, torch.tensor([4, 3]),
)  # fmt: skip
FRAME = np.zeros((6, 8, 3), np.uint8)


def session() -> aw.Session:
    return aw.Session(aw.Segmenter.wrap(nn.Conv2d(3, 19, 1)), "source")


ENTRIES: dict[str, Callable[[Path, Any], object]] = {
    "read_image of a path": lambda folder, size: aw.read_image(folder / "a.png", size),
    "read_image of a PIL image": lambda folder, size: aw.read_image(Image.fromarray(FRAME), size),
    "read_image of an array": lambda folder, size: aw.read_image(FRAME, size),
    "a folder's stream": lambda folder, size: aw.load_stream("folder", folder, size),
    "a video's stream": lambda folder, size: aw.load_stream("video", folder / "a.mp4", size),
    "a dataset's stream": lambda folder, size: aw.load_stream("cityscapes", folder, size),
    "scenes": lambda folder, size: scene_stream("fog", range(1), size),
    "a scene": lambda folder, size: render(0, "fog", size),
    "labelled scenes": lambda folder, size: labelled_scenes("fog", range(1), size),
    "truth": lambda folder, size: labelled_scenes("fog", range(1)).scored_at(size),
    "Result.save": lambda folder, size: session()(FRAME).save(folder / "b.png", size=size),
    "export": lambda folder, size: session().export(folder / "b.pt2", size=size),
    "Live": lambda folder, size: aw.Live(folder, session(), size=size),
    "a server": lambda folder, size: given(session().model, size),
}


@pytest.mark.parametrize("size", BAD, ids=lambda size: repr(size)[:24])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_size_that_is_none_is_refused_where_it_enters(tmp_path: Path, entry: str, size: Any):
    Image.fromarray(FRAME).save(tmp_path / "a.png")
    with pytest.raises(aw.SettingsError, match=r"size: expected \(width, height\) in pixels.*got"):
        ENTRIES[entry](tmp_path, size)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("size", [(4, 3), [4, 3], (np.int64(4), np.int32(3)), (1, LARGEST)], ids=str)
def test_whole_numbers_of_any_make_are_a_size(size: Any):
    found = check_size(size)
    assert found == tuple(size) and all(type(side) is int for side in found)
    assert check_asked(size) == found and check_asked(None) is None


@pytest.mark.parametrize("text", ["0x3", "65536x3", "3x99999999999999999999", "9" * 5000 + "x3", "4 x 3", ""])
def test_a_plans_size_has_the_same_bounds(text: str):
    with pytest.raises(aw.SettingsError, match="size: expected"):
        pixels(text)
