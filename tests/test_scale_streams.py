"""How inputs become streams, and what is said of inputs that are none."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from clips import clip, scene
from PIL import Image
from refusals import refusal

from allweather import ImageError, load_stream
from allweather.app.spread import Spread
from allweather.scale.engines import open_pool
from allweather.scale.ranked import share
from allweather.scale.ranks import Ranks
from allweather.scale.streams import joined, split
from allweather.scale.workers import Workers, parse_workers


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (int(path.stem[-1]), 0, 0)).save(path)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    pictures(tmp_path / "left", "f10.png", "f2.png", "deep/f1.png")
    pictures(tmp_path / "right", "f3.png")
    return tmp_path


def names(inputs: list[Path], by: str) -> dict[str, list[str]]:
    return {source.name: source.names for source in split(inputs, by)}


def test_each_input_is_a_stream_in_its_natural_order(tree: Path):
    found = names([tree / "left", tree / "right"], "folder")
    assert found == {"left": ["left/deep/f1", "left/f2", "left/f10"], "right": ["right/f3"]}
    stream = joined(split([tree / "left", tree / "right"]), (20, 16))
    assert [frame.name for frame in stream] == [*found["left"], *found["right"]]
    assert [round(255 * float(frame.image[0, 0, 0])) for frame in stream] == [1, 2, 0, 3]


def test_what_is_left_out_of_a_folder_is_told(tree: Path):
    (tree / "left/a.mp4").touch()
    with pytest.warns(UserWarning, match=r"left out of the folders: 1 × \.mp4"):
        Spread(Workers(1), "folder", 1, 1).open([tree / "left"], None, None, None)


def test_a_pattern_and_a_list_name_streams(tree: Path):
    cameras = pictures(tree / "all", "cam1_0.png", "cam2_0.png", "cam1_1.png")
    assert names([cameras], "(cam[0-9]+)_.*") == {"cam1": ["cam1/cam1_0", "cam1/cam1_1"], "cam2": ["cam2/cam2_0"]}
    (tree / "manifest.csv").write_text("stream,path\nb,right/f3.png\na,left/f10.png\nb,left/f2.png\na,../f10.png\n")
    found, up = names([], str(tree / "manifest.csv")), tree.parent.name
    assert found == {"b": ["b/f3", "b/f2"], "a": ["a/left/f10", f"a/{up}/f10"]}


def test_a_video_is_a_stream(tree: Path):
    pytest.importorskip("av")
    clip(tree / "drive.mkv", scene(5, (32, 32)))
    (source,) = split([tree / "drive.mkv"])
    assert source.names == [f"drive/{number:06d}" for number in range(5)] and source.is_video
    alone = load_stream("video", tree / "drive.mkv")
    for one, other in zip(source.part(2).open(None), list(alone)[2:], strict=True):
        assert one.name == f"drive/{other.name}" and torch.equal(one.image, other.image)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_where_no_file_is_the_frame_says_why_however_streams_are_told_apart(tree: Path):
    os.mkfifo(tree / "right/f4.png")
    (tree / "list.csv").write_text("stream,path\nright,right/f4.png\nright,right/none.png\n")
    ways = [([tree / "right"], "folder"), ([tree / "right"], "(f).*"), ([], str(tree / "list.csv"))]
    sources = [split(inputs, by)[0] for inputs, by in ways]
    for source in (*sources, share([sources[0], *split([tree / "left"])], Ranks(0, 1))):
        name = next(name for name in source.names if name.endswith("f4"))
        with refusal(r"f4.png: not a readable image \(it is a device or a pipe", ImageError):
            source.open(None).read(name)
    with refusal(r"none.png", ImageError):
        sources[-1].open(None).read("right/none")


def test_a_frame_that_was_given_up_cannot_be_read(tree: Path):
    stream = split([tree / "right"])[0].open(None, {"right/f3": "it ends workers"})
    with refusal("right/f3: it ends workers", ImageError):
        stream.read("right/f3")


def write(name: str, text: str) -> Callable[[Path], Any]:
    def make(tree: Path) -> Any:
        (tree / name).write_text(text)
        return [], str(tree / name)

    return make


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no input": (lambda tree: ([], "folder"), "no input: expected folders"),
    "no such folder": (lambda tree: ([tree / "none"], "folder"), "no such input"),
    "an empty stream": (lambda tree: ([pictures(tree / "left"), _empty(tree)], "folder"), "no image in .*empty"),
    "a file": (lambda tree: ([tree / "right/f3.png"], "folder"), "is a file: expected folders and videos"),
    "two of one name": (
        lambda tree: ([tree / "left", pictures(tree / "other/left", "f1.png")], "folder"),
        "two streams would be named 'left': .* manifest.csv",
    ),
    "a bad pattern": (lambda tree: ([tree / "left"], "(f"), "not a regular expression"),
    "no group": (lambda tree: ([tree / "left"], "f.*"), "a pattern with a group"),
    "no match": (lambda tree: ([tree / "left"], "(g).*"), "frame 'deep/f1' does not match"),
    "no list": (lambda tree: ([], str(tree / "none.csv")), "cannot read the list"),
    "a list and more": (lambda tree: ([tree], str(tree / "m.csv")), "leave out the other inputs"),
    "no columns": (write("m.csv", "camera,file\na,b\n"), "expected a first line stream,path"),
    "no rows": (write("m.csv", "stream,path\n"), "lists no frame"),
    "half a row": (write("m.csv", "stream,path\na,\n"), "line 2: expected a stream and a path, got a,"),
    "a frame twice": (write("m.csv", "stream,path\na,y/x.png\na,y/x.jpg\n"), "line 3: stream 'a' has a frame 'x'"),
    "a folder": (write("m.csv", "stream,path\na,left\n"), "line 2: expected a picture, got left"),
    "a film": (write("m.csv", "stream,path\na,x.mp4\n"), "line 2: expected a picture, got x.mp4"),
    "no folder's name": (write("m.csv", "stream,path\na/b,x.png\n"), "'a/b' cannot be a stream's name"),
}  # fmt: skip


def _empty(tree: Path) -> Path:
    (tree / "empty").mkdir()
    return tree / "empty"


@pytest.mark.parametrize("case", BAD)
def test_inputs_that_are_no_streams(case: str, tree: Path):
    make, said = BAD[case]
    inputs, by = make(tree)
    with refusal(said):
        split(inputs, by)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "99999"])
def test_a_number_of_workers_that_is_none(text: str):
    with refusal("expected a number of 1 to 1024, or auto"):
        parse_workers(text, None, 1)
    assert parse_workers("auto", "local", 2) == Workers(None, 2, "local")


def test_no_more_processes_start_than_there_are_jobs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("allweather.scale.engines.ProcessPool", lambda task, workers: workers)
    assert open_pool(None, Workers(9), "cpu", 2) == 2
