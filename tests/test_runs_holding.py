"""One run at a time fills a folder: others are refused, and lose nothing, whatever they came with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, MODEL, allweather
from PIL import Image
from refusals import refusal

from allweather.app.output import Output
from allweather.runs.execute import execute
from allweather.runs.holding import held
from allweather.runs.plan import Plan
from allweather.scale.merged import MergedRecord

FRAME = {"name": "a/1", "decision": "accepted", "iterations": 1, "seconds": 0.1}
ENDLESS = (
    "import sys, time; from pathlib import Path; from allweather.runs.holding import held\n"
    "with held(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
)


def opened(kind: str, folder: Path, resume: bool) -> Output | MergedRecord:
    return Output.open(folder, {}, [], resume) if kind == "output" else MergedRecord(folder, {}, resume)


@pytest.mark.parametrize("second", ["output", "merged"])
@pytest.mark.parametrize("first", ["output", "merged"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_is_filled_by_one_run_at_a_time(first: str, second: str, resume: bool, tmp_path: Path):
    with opened(first, tmp_path, False) as record:
        lines = (tmp_path / "record.jsonl").read_bytes()
        with refusal("is being filled by another run"):
            opened(second, tmp_path, resume)
        assert (tmp_path / "record.jsonl").read_bytes() == lines
        if isinstance(record, MergedRecord):
            record.keep([FRAME])
            record.finish({})
            with refusal("is being filled"):  # until the header is there, too
                opened(second, tmp_path, resume)
    opened(second, tmp_path, True).close()


def filled(kind: str, folder: Path):
    with opened(kind, folder, False):
        (folder / "record.jsonl").write_text(json.dumps(FRAME) + "\n")


@pytest.mark.parametrize("kind", ["output", "merged"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_ended_before_its_first_image_holds_no_folder(kind: str, resume: bool, tmp_path: Path):
    opened(kind, tmp_path, False).close()
    (tmp_path / "record.json").write_text('{"model": "another"}')
    opened(kind, tmp_path, resume).close()
    assert json.loads((tmp_path / "record.json").read_text()) == {}
    (tmp_path / "record.rank-1.jsonl").write_text(json.dumps(FRAME) + "\n")  # what a rank has done is something
    with refusal("already holds a run"):
        opened(kind, tmp_path, False)


@pytest.mark.parametrize("kind", ["output", "merged"])
def test_a_run_that_is_refused_leaves_the_folder_to_others(kind: str, tmp_path: Path):
    filled(kind, tmp_path)
    with refusal("already holds a run") as refused:
        opened(kind, tmp_path, False)
    opened(kind, tmp_path, True).close()  # though the error still knows the refused one
    assert refused.value


def test_lines_of_ranks_wait_for_the_folder_and_its_settings(tmp_path: Path):
    part = tmp_path / "record.rank-1.jsonl"
    with MergedRecord(tmp_path, {"threads": 1}, False):
        part.write_text('{"name": "a/1", "decision": "accepted"}\n')
        with refusal("is being filled"):
            MergedRecord(tmp_path, {"threads": 1}, True, parts=[part])
        assert part.exists()
    with refusal("threads was 1 and is 2"):
        MergedRecord(tmp_path, {"threads": 2}, True, parts=[part])
    assert part.exists() and (tmp_path / "record.jsonl").read_bytes() == b""
    with MergedRecord(tmp_path, {"threads": 1}, True, parts=[part]) as record:
        assert record.done == {"a/1"} and not part.exists()


def test_the_command_line_says_that_another_run_is_at_it_and_goes_on_once_that_was_killed(tmp_path: Path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    Image.new("RGB", (48, 32), "gray").save(images / "a.png")
    command = ("adapt", images, *MODEL, "--method", "source", "--out", out)
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, out / "record.json"], env=ENVIRONMENT, stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            for more in ((), ("--resume",), ("--workers", "1")):
                done = allweather(*command, *more)
                assert "is being filled by another run" in done.said(2)
        finally:
            other.kill()
    allweather(*command).ok()


def test_a_folder_is_made_where_its_link_leads(tmp_path: Path):
    link, place = tmp_path / "link", tmp_path / "disk/there"
    link.symlink_to(place)
    execute(Plan(()), link)
    place.rmdir()
    with held(link / "record.json"):
        assert place.is_dir()


def test_a_place_that_takes_nothing_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with refusal(r"cannot write .*record\.json"), held(tmp_path / "file/record.json"):
        pass
