"""Every kind of file that the package writes appears whole or not at all."""

import errno
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refusal

from allweather.data.images import write_json
from allweather.data.json_lines import JsonLines
from allweather.live.record import Record
from allweather.models.checkpoints import write_tensors
from allweather.models.segmenter import Provenance
from allweather.pictures.growing import GrowingFile
from allweather.pictures.writing import write_image
from allweather.session.storage import save_session
from allweather.writing import check_folder, check_place, unwritable, whole, whole_folder, write_bytes

TENSORS = {"a": torch.ones(3)}
WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: write_bytes(path, b"new"),
    "json": lambda path: write_json(path, {"new": 1}),
    "image": lambda path: write_image(path, np.zeros((2, 3), np.uint8)),
    "session": lambda path: save_session(path, TENSORS, {}),
    "checkpoint": lambda path: write_tensors(TENSORS, path, name="tiny", provenance=Provenance("w.pth", "0")),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    path = tmp_path / "out.png"
    old = b"" if kind == "session" else b"old"  # a session replaces nothing else that has content
    path.write_bytes(old)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with refusal(r"cannot write .*out\.png: .*No space left"):
            WRITERS[kind](path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]
    WRITERS[kind](path)
    assert path.read_bytes() != old and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", WRITERS)
def test_missing_folders_are_made_and_a_file_in_their_place_is_said(tmp_path: Path, kind: str):
    WRITERS[kind](tmp_path / "deep/er/out.png")
    assert (tmp_path / "deep/er/out.png").stat().st_size
    (tmp_path / "file").write_text("")
    with refusal("cannot write"):
        WRITERS[kind](tmp_path / "file/out.png")
    with refusal("cannot write"):
        Record(tmp_path / "file/a.jsonl", {})


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("place", [".", "", "/", "deep"])
def test_a_folder_in_the_files_place_is_said(here: Path, kind: str, place: str):
    (here / "deep").mkdir()
    with refusal(r"cannot write .*it is a folder"):
        WRITERS[kind](Path(place))
    assert [path.name for path in here.rglob("*")] == ["deep"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("kind", WRITERS)
def test_links_are_written_through_and_pipes_refused(tmp_path: Path, kind: str):
    path, target, pipe = tmp_path / "link.png", tmp_path / "there/out.png", tmp_path / "pipe.png"
    path.symlink_to(target)  # which is not there yet
    for _ in range(2):
        WRITERS[kind](path)
        assert path.is_symlink() and target.is_file() and [each.name for each in target.parent.iterdir()] == ["out.png"]
    folder, around = tmp_path / "folder", tmp_path / "round"
    folder.symlink_to(tmp_path / "disk/new")
    check_folder(folder)
    WRITERS[kind](folder / "out.png")
    assert folder.is_symlink() and (tmp_path / "disk/new/out.png").is_file()
    os.mkfifo(pipe)
    around.symlink_to(around)
    with refusal("Too many levels"):
        check_folder(around)
    for write in (WRITERS[kind], check_place, JsonLines, GrowingFile):
        for place in (pipe, around, around / "out"):
            with refusal(r"cannot write .*(a pipe or a device|Too many levels)"):
                write(place)
    assert pipe.is_fifo()


def test_what_grows_goes_through_links_and_is_removed_there(tmp_path: Path):
    path, place = tmp_path / "a.jsonl", tmp_path / "disk/a.jsonl"
    path.symlink_to(place)
    Record(path, {}).discard()
    place.parent.rmdir()
    GrowingFile(path).close(keep=False)
    place.parent.rmdir()
    JsonLines(path).close()
    assert path.is_symlink() and place.is_file()


def test_linked_places_are_asked_and_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    link, place, asked = tmp_path / "labels", tmp_path / "disk/there", []
    link.symlink_to(place)
    monkeypatch.setattr("allweather.writing.NamedTemporaryFile", lambda dir, prefix: asked.append(dir) or nullcontext())
    check_place(link)
    assert asked == [place.parent]
    place.mkdir()
    with whole_folder(link) as folder:
        folder.mkdir()
        (folder / "a").touch()
    assert {path.name for path in tmp_path.rglob("*")} == {"labels", "disk", "there", "a"}


@pytest.mark.parametrize("place", ["file", "file/out", "file/deep/out"])
def test_a_folder_that_cannot_be_is_refused_and_none_is_made(tmp_path: Path, place: str):
    (tmp_path / "file").write_text("")
    with refusal(r"cannot write .*: 'file' is a file\. Name another place"):
        check_folder(tmp_path / place)
    check_folder(tmp_path / "new/out")
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EFBIG, "make room"),
        (errno.EEXIST, "Name another place"),
        (errno.EACCES, "Name another place"),
    ],
)
def test_room_is_asked_for_where_there_is_none(number: int, advice: str):
    said = str(unwritable(Path("out"), OSError(number, "reason")))
    assert "reason" in said and advice in said
    assert ("--resume" in said) == (advice == "make room")


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("durable", [False, True])
def test_whatever_ends_the_writing_leaves_nothing(tmp_path: Path, fault: type[BaseException], durable: bool):
    def stop_halfway():
        with whole(tmp_path / "a", durable=durable) as temporary:
            temporary.write_bytes(b"half")
            raise fault

    with pytest.raises(fault):
        stop_halfway()
    assert not list(tmp_path.iterdir())


def test_the_longest_name_that_a_disk_takes_can_be_written(tmp_path: Path):
    write_bytes(tmp_path / ("é" * 120), b"1")
    assert [len(path.name) for path in tmp_path.iterdir()] == [120]
