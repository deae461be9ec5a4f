"""Class sets of one's own: what a file may say, what is refused, and the whole way from labels to figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import allweather
from PIL import Image
from refusals import refusal

from allweather import CITYSCAPES, ClassSet, SettingsError
from allweather.classes import numbered
from allweather.data.class_files import find_classes
from allweather.data.labels import mapping_between

NAMES = ("track", "rail", "person", "rest")
NETS = """
import torch
import allweather as aw


def plain():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 1))


def whole():
    return aw.Segmenter.wrap(plain(), classes=aw.ClassSet("yard", ("track", "rail", "person", "rest")))
"""
MANY = json.dumps([f"class {number}" for number in range(300)])
PLAN = """
[[models]]
name = "nets.py:plain"
classes = "yard.toml"
weights = "{weights}"

[[models]]
name = "nets.py:whole"
weights = "{weights}"

[[streams]]
name = "yard"
images = "{images}"
labels = "{labels}"
classes = "yard.toml"

[[methods]]
name = "source"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "yard.toml"
    path.write_text(text)
    return str(path)


def test_names_are_enough(tmp_path: Path):
    classes = find_classes(written(tmp_path, f"names = {json.dumps(NAMES)}"))
    assert (classes.name, classes.names, classes.ignore) == ("yard", NAMES, 255)
    assert len(set(classes.colors)) == 4
    assert classes == find_classes(str(tmp_path / "yard.toml")) == ClassSet("yard", NAMES)
    assert find_classes("cityscapes") is CITYSCAPES


def test_name_colors_and_the_ignored_value_can_be_said(tmp_path: Path):
    said = 'name = "shunting"\nnames = ["a", "b"]\ncolors = [[0, 1, 2], [3, 4, 5]]\nignore = 7'
    assert find_classes(written(tmp_path, said)) == ClassSet("shunting", ("a", "b"), ((0, 1, 2), (3, 4, 5)), 7)


@pytest.mark.parametrize(
    ("count", "said", "ignored"),
    [(255, "", 255), (256, "", 65535), (300, "", 65535), (300, "ignore = 300", 300), (2, "ignore = 1000", 1000)],
)
def test_the_ignored_value_is_one_that_label_files_of_so_many_classes_hold(
    count: int, said: str, ignored: int, tmp_path: Path
):
    names = [f"class {number}" for number in range(count)]
    assert find_classes(written(tmp_path, f"names = {json.dumps(names)}\n{said}")).ignore == ignored
    assert said or numbered(tuple(names)).ignore == ignored


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("names = [", "Invalid value"),
        ("names = " + "[" * 20_000, "recursion|more than 20 deep"),
        ("names." + "a." * 5000 + "b = 1", "more than 20 deep"),
        ("ignore = " + "9" * 5000, "4300 digits"),
        ("ignore = 0x" + "f" * 5000, "4300 digits"),
        ("", "expected names"),
        ('name = ["a"]', "expected names"),
        ("names = []", "at least one name"),
        ('names = "a"', "expected names"),
        ('names = ["a", 1]', "expected names"),
        ('names = ["a", "a"]', "names that differ, got 'a' twice"),
        ('names = ["a", "b"]\nignore = 1', "no class's index"),
        ('names = ["a", "b"]\nignore = 65536', "value of 2 to 65535, no class's index; got 65536"),
        ('names = ["a", "b"]\nignore = true', "value of 2 to 65535"),
        ('names = ["a", "b"]\nignore = 255.0', "value of 2 to 65535"),
        (f"names = {MANY}\nignore = 255", "value of 300 to 65535, no class's index; got 255"),
        ('names = ["a", "b"]\ncolors = [[0, 0, 0]]', "2 names but 1 colors"),
        ('names = ["a", "b"]\ncolors = [[0, 0, 0], [0, 0, 0]]', r"colors: \(0, 0, 0\) stands there twice"),
        ('names = ["a", "b"]\ncolors = [[0, 0, 0], [0, 0, 256]]', "whole numbers in 0..255"),
        ('names = ["a", "b"]\ncolors = [[0, 0, 0], [0, 0]]', r"red, green, blue, .*got \(0, 0\)"),
        ('names = ["a", "b"]\ncolors = "ab"', r"colors: expected \[red"),
        ('names = ["a", "b"]\ncolours = []', "unknown entry 'colours'. Did you mean 'colors'"),
        ('name = "cityscapes"\nnames = ["a", "b"]', "expected a name of its own"),
    ],
)
def test_what_would_not_tell_classes_apart_is_refused(text: str, why: str, tmp_path: Path):
    with refusal(rf"yard\.toml.*{why}"):
        find_classes(written(tmp_path, text))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"names": ("a", "a")}, "names that differ, got 'a' twice"),
        ({"names": ("a", "")}, "text that is not empty, got ''"),
        ({"names": ("a", " ")}, "text that is not empty, got ' '"),
        ({"names": ("a", 1)}, "text that is not empty, got 1"),
        ({"names": "abc"}, "a tuple of text, got 'abc'"),
        ({"names": 5}, "a tuple of text, got 5"),
        ({"names": ()}, "at least one name"),
        ({"ignore": 255.0}, "ignore: expected a label value of 2 to 65535, no class's index; got 255.0"),
        ({"ignore": "255"}, "ignore: .* got '255'"),
        ({"names": ("a",), "ignore": True}, "ignore: .* got True"),
        ({"colors": ((0, 0, 0), (1.5, 0, 0))}, r"whole numbers in 0..255, got \(1.5, 0, 0\)"),
        ({"colors": ("red", "blue")}, "whole numbers in 0..255, got 'red'"),
        ({"colors": (("r", "g", "b"),) * 2}, "whole numbers in 0..255"),
        ({"colors": (1, 2)}, "whole numbers in 0..255, got 1"),
        ({"colors": "rg"}, "a tuple of .*got 'rg'"),
        ({"colors": np.zeros((2, 3), np.uint8)}, "a tuple of "),
    ],
)
def test_a_class_set_that_would_not_tell_classes_apart_is_refused(given: dict[str, Any], why: str):
    with refusal(f"class set 'yard': .*{why}", SettingsError):
        ClassSet("yard", **({"names": ("a", "b")} | given))


def test_lists_and_numpys_integers_make_the_same_class_set():
    palette = [list(row) for row in np.array([[1, 2, 3], [4, 5, 6]], np.uint8)]
    listed = ClassSet("yard", ["a", "b"], palette, np.int64(255))
    assert listed == ClassSet("yard", ("a", "b"), ((1, 2, 3), (4, 5, 6)))
    assert json.dumps([listed.colors, listed.ignore]) and hash(listed)


def test_a_network_may_call_several_classes_the_same():
    names = ("N/A", "road", "N/A", "", "N/A 2", " ")
    own = numbered(names).names
    assert own == ("N/A", "road", "N/A 2'", "3", "N/A 2", "5") and numbered(own).names == own


def test_an_unknown_name_is_told_of_files():
    with refusal(r"Known: camvid11, cityscapes\. Classes of your own stand in a file", SettingsError):
        find_classes("yards")


def test_one_set_under_two_names_is_one(tmp_path: Path):
    other = ClassSet("other", NAMES, ignore=9)
    mapping = mapping_between(ClassSet("yard", NAMES), other)
    assert mapping.table == (0, 1, 2, 3) and mapping.truth is other
    with refusal(r"class 1 is 'rail' here, 'siding' there", SettingsError):
        mapping_between(ClassSet("yard", NAMES), ClassSet("yard", ("track", "siding", "person", "rest")))


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, shape, top in (("frames", (24, 32, 3), 256), ("labels", (24, 32), 4)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.fromarray(rng.integers(0, top, shape, dtype=np.uint8)).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "nets.py").write_text(NETS)
    spaces: dict[str, object] = {}
    exec(NETS, spaces)
    torch.save(spaces["plain"]().state_dict(), tmp_path / "yard.pth")
    written(tmp_path, f"names = {json.dumps(NAMES)}")
    return tmp_path


def test_labels_of_one_s_own_are_scored_by_their_names_and_by_no_others(yard: Path):
    out = yard / "out"
    allweather(
        "adapt", yard / "frames", "--model", f"{yard}/nets.py:plain", "--classes", yard / "yard.toml",
        "--weights", yard / "yard.pth", "--out", out,
    ).ok()  # fmt: skip
    assert "holds the 4 classes of 'yard'" in allweather("score", out / "labels", yard / "labels").said(2)
    scored = allweather("score", out / "labels", yard / "labels", "--mapping", yard / "yard.toml", "--json").ok()
    assert list(json.loads(scored.stdout)["IoU"]) == list(NAMES)


def test_more_classes_than_a_byte_holds_go_from_a_file_of_names_to_figures(yard: Path):
    written(yard, f"names = {MANY}")
    (yard / "nets.py").write_text(NETS.replace("Conv2d(8, 4, 1)", "Conv2d(8, 300, 1)"))
    out, truth = yard / "out", yard / "truth"
    allweather(
        "adapt", yard / "frames", "--model", f"{yard}/nets.py:plain", "--classes", yard / "yard.toml",
        "--method", "source", "--out", out,
    ).ok()  # fmt: skip
    truth.mkdir()
    for path in (out / "labels").iterdir():
        labels = np.asarray(Image.open(path)).astype(np.uint16)
        assert labels.max() > 255
        labels[0] = 65535
        Image.fromarray(labels).save(truth / path.name)
    scored = allweather("score", out / "labels", truth, "--mapping", yard / "yard.toml", "--json").ok()
    figures = json.loads(scored.stdout)
    assert figures["pixel_accuracy"] == 100 and len(figures["IoU"]) == 300


def test_a_plan_seeks_classes_beside_itself_and_runs_again_when_they_change(yard: Path):
    places = {"weights": yard / "yard.pth", "images": yard / "frames", "labels": yard / "labels"}
    (yard / "plan.toml").write_text(PLAN.format(**places))
    runs = yard / "runs"
    assert "2 runs done, 0 were there" in allweather("bench", yard / "plan.toml", "--out", runs).stderr
    figures = [json.loads(path.read_text())["figures"] for path in sorted(runs.glob("*.json"))]
    assert figures[0]["IoU"] == figures[1]["IoU"] and list(figures[0]["IoU"]) == list(NAMES)
    assert "0 runs done, 2 were there" in allweather("bench", yard / "plan.toml", "--out", runs).stderr
    written(yard, f"names = {json.dumps(NAMES)}\nignore = 9")
    assert "2 runs done, 0 were there" in allweather("bench", yard / "plan.toml", "--out", runs).stderr
