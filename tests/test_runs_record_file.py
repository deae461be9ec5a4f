"""Records from anywhere: JSON of another shape ends in one line that names the place, never in a traceback."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from command_line import allweather
from records import record
from refusals import refusal

from allweather import AllWeatherError, InputError
from allweather.app import score
from allweather.report import write_report
from allweather.report.compare import compare
from allweather.runs.record_file import check_same_run, read_adapted, read_record, written_classes
from benchmarks.committed import plan_files

WRONG = (None, "x", 10**30, [], {})
DEEP = "[" * 100_000


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value; of a list's only the first."""
    items = (
        content.items() if isinstance(content, dict) else enumerate(content[:1]) if isinstance(content, list) else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def edited(content: dict[str, Any], path: tuple[Any, ...], value: Any = None, *, drop: bool = False) -> dict[str, Any]:
    changed = deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


def whole() -> dict[str, Any]:
    """A record with everything that reports read."""
    made = record("tent", 0.6, parts={"01/fog": {"mIoU": 40.0}})
    made["session"] = {"method": {"name": "tent", "lr": 0.1}, "guard": {"every": 10}}
    made["resolution"] = {kind: ["8x8"] for kind in ("stored", "input", "scored")}
    for image in made["images"]:
        image |= {"decision": "shrunk", "reason": "why", "stop": "cap"}
    done = {"watched": [1.0, None], "iterations": 1, "stop": "cap", "decision": "reset", "reason": "x", "seconds": 0.1}
    made["images"][0]["stream_passes"] = [done]
    made["stream_passes"] = [{"watched": 1.0, "iterations": 1, "decisions": {"reset": 1}, "seconds": 0.1}]
    return made


def said_of(folder: Path, content: dict[str, Any]) -> str:
    """What reports and comparisons say against a record; nothing where they take it."""
    path = folder / "0.json"
    path.write_text(json.dumps(content))
    try:
        write_report(folder, folder / "page.md", "md")
        compare(read_record(path), read_record(folder / "1.json"))
    except AllWeatherError as error:
        return str(error)
    return ""


def test_no_edit_of_a_record_ends_in_anything_but_a_report_or_one_line(tmp_path: Path):
    good = whole()
    (tmp_path / "1.json").write_text(json.dumps(record("source", 0.5)))
    assert not said_of(tmp_path, good)
    changes = [edited(good, place, drop=True) for place in places(good)]
    changes += [edited(good, place, value) for place in places(good) for value in WRONG]
    said = [said_of(tmp_path, content) for content in changes]
    assert not any("\n" in line for line in said) and 200 < sum(map(bool, said)) < len(said)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("model", "sha256"), ..., "model.sha256 is missing"),
        (("failures",), ..., "failures is missing"),
        (("images", 0, "name"), ..., "images.0.name is missing"),
        (("run", "batch"), float("nan"), "NaN is no number of JSON"),
        (("figures", "mIoU"), float("inf"), "Infinity is no number of JSON"),
        (("run", "batch"), "12", "run.batch: expected a whole number, got '12'"),
        (("images",), {}, "images: expected a list, got an object"),
        (("images",), [], "images: expected at least one"),
        (("images", 0, "union"), [1], "images.0.union: expected 3 numbers, got 1"),
        (("images", 1, "decision"), "forgiven", "image f<1>: expected a decision that begins with"),
        (("images", 0, "stream_passes", 0, "decision"), "x", "image f<0>: expected a decision that begins with"),
        (("images", 0, "stream_passes", 0, "seconds"), ..., "images.0.stream_passes.0.seconds is missing"),
        (("stream_passes", 0, "decisions"), 1, "stream_passes.0.decisions: expected an object, got 1"),
        (("figures", "interval"), [1.0], "figures.interval: expected 2 numbers, got 1"),
        (("parts",), {"fog": {"mIoU": 1.0}}, "parts.fog: expected a name like 01/fog"),
        (("run", "model", "arguments"), "x", "run.model.arguments: expected an object, got 'x'"),
        (("run", "stream", "sequence"), "x", "run.stream.sequence: expected a list, got 'x'"),
        (("run", "stream", "labels"), 5, "run.stream.labels: expected text or null, got 5"),
        (("session", "method", "views"), [1], "session.method.views.0: expected text, got 1"),
        (("images", 0, "union"), [-5, 1, 1], "images.0.union.0: expected a whole number from 0, got -5"),
        (("images", 0, "intersection"), [-5, 1, 1], "images.0.intersection.0: expected a whole number from 0"),
        (("images", 1, "intersection", 0), 10**15, "images.1: 1000000000000000 pixels are in an intersection whose"),
        (("images", 1, "name"), "f<0>", "images: expected each name once, got 'f<0>' 2 times"),
        (("images", 1, "iterations"), -1, "images.1.iterations: expected a whole number from 0"),
        (("confusion",), [[-1, 0, 0, 0]] * 3, "confusion.0.0: expected a whole number from 0"),
        (("run", "batch"), -1, "run.batch: expected a whole number from 0, got -1"),
        (("frames",), 10**30, "frames: expected a whole number"),
        (("extra",), json.loads("[" * 40 + "]" * 40), "more than 20 deep"),
    ],
)  # fmt: skip
def test_the_line_names_the_place(tmp_path: Path, place: tuple[Any, ...], value: Any, said: str):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(edited(whole(), place, value, drop=value is ...)))
    with pytest.raises(InputError) as caught:
        read_record(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "", "nothing", "[]", "\x00", '{"images": 1e999999}'])
@pytest.mark.parametrize("read", [read_record, read_adapted])
def test_what_is_no_json_object_is_one_line(tmp_path: Path, text: str, read: Any):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read(path)
    assert "is not a re" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [5, "road", {"road": 0}, ["road", 1], None])
def test_classes_that_are_no_texts_are_refused_and_labels_are_not_scored(tmp_path: Path, names: Any):
    (tmp_path / "labels").mkdir()
    (tmp_path / "record.json").write_text(json.dumps({"model": {"classes": "yard", "class_names": names}}))
    with refusal(r"record\.json does not say what .*labels holds: model\.class_names", InputError):
        written_classes(tmp_path / "labels")
    for verb in (("score", tmp_path / "labels", tmp_path), ("submit", "acdc", tmp_path, "--out", tmp_path / "a.zip")):
        assert allweather(*verb).returncode == 2


@pytest.mark.parametrize("given", ["", "labels/cam/1", "runs", "runs/a.b/01"])
def test_predictions_of_other_classes_are_refused(tmp_path: Path, given: str):
    bench = "runs" in given
    folder = tmp_path / ("runs/a.b/01" if bench else "labels/cam/1")
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    header = tmp_path / ("runs/a.b.json" if bench else "record.json")
    ours = {"identity": "0" * 64, **whole()} if bench else {"format": 2, "model": {"classes": "camvid11"}}
    header.write_text(json.dumps(ours))
    done = allweather("score", tmp_path / given, tmp_path)
    assert f"as {header} says" in done.said(2)
    (link := tmp_path.with_suffix(".link")).symlink_to(folder)
    assert header in written_classes(link)
    header.write_text(header.read_text()[:-5])
    with refusal("not a readable", InputError):
        written_classes(folder)
    header.write_text("[1]")
    assert written_classes(folder) is None


def test_score_reads_a_record_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.json").write_text(json.dumps(whole()))
    monkeypatch.setattr(score, "label_files", lambda folder: {n: folder / f"a/{n}/0" for n in "bc"})
    monkeypatch.setattr(score, "read_record", read := Mock(side_effect=read_record))
    score._check_writer(tmp_path, Mock(**{"predicted.names": whole()["figures"]["IoU"]}))
    assert str(read.mock_calls).count("a.json") == 1


def test_the_verbs_end_with_two(tmp_path: Path):
    (tmp_path / "a.json").write_text(DEEP)
    for arguments in (("report", tmp_path, "--out", tmp_path / "r.md", "--format", "md"),
                      ("compare", tmp_path / "a.json", tmp_path / "a.json")):  # fmt: skip
        done = allweather(*arguments)
        assert "is not a readable record" in done.said(2)


def test_committed_records_of_version_0_1_are_read(tmp_path: Path):
    former = {name: content for name, content in plan_files("camvid-rounds").items() if content["format"] == 1}
    assert former
    for name, content in former.items():
        (tmp_path / name).write_text(json.dumps(content))
        assert read_record(tmp_path / name) == content


def test_a_folder_of_before_is_resumed_and_none_of_other_code():
    head = {"code": {"model": "a", "method": "b"}, "session": {"files": {"bank": "c"}}}
    check_same_run(Path("o"), head, {"code": {"mine.py": "b", "nets.py": "a"}, "session": {}})
    for code in ({"mine.py": "b", "nets.py": "c"}, {"mine.py": "b"}, {"model": "b", "method": "a"}):
        with refusal("another run: code"):
            check_same_run(Path("o"), head, {**head, "code": code})
    with refusal("bank was d and is c"):
        check_same_run(Path("o"), head, {**head, "session": {"files": {"bank": "d"}}})
