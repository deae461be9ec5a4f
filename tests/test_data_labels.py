"""Labels: mappings between class sets, unexpected values, colors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from allweather import CAMVID11, CITYSCAPES, ClassSet, ImageError
from allweather.classes import CLASS_SETS
from allweather.data.labelled import labelled_folders
from allweather.data.labels import MAPPINGS, find_mapping, label_files, mapping_between
from allweather.pictures.drawing import blend, colorize

HERE = Path("x.png")
EQUIVALENT = {  # names of the one set, names of the other
    "road": "road", "sidewalk": "sidewalk", "building": "building", "wall": "building", "fence": "fence",
    "pole": "pole", "traffic light": "sign", "traffic sign": "sign", "vegetation": "tree", "terrain": "tree",
    "sky": "sky", "person": "pedestrian", "rider": "bicyclist", "car": "car", "truck": "car", "bus": "car",
    "train": "car", "motorcycle": "bicyclist", "bicycle": "bicyclist",
}  # fmt: skip


def test_camvid_classes_are_matched_by_meaning():
    table = find_mapping("cityscapes-camvid11").table
    assert {CITYSCAPES.names[i]: CAMVID11.names[j] for i, j in enumerate(table)} == EQUIVALENT


@pytest.mark.parametrize("mapping", MAPPINGS.values(), ids=MAPPINGS)
def test_every_mapping_covers_its_sets(mapping: object):
    assert len(mapping.table) == len(mapping.predicted) and set(mapping.table) <= set(range(len(mapping.truth)))


def test_ignored_values_become_no_class():
    mapping = find_mapping("cityscapes-camvid11")
    assert mapping.counted_as(np.array([0, -1])).tolist() == [3, -1]
    assert mapping.labels(np.array([10, 11]), HERE).tolist() == [10, -1]


@pytest.mark.parametrize("value", [-1, 12, 30, 255, 256, 65535])
def test_unexpected_label_values_are_named(value: int):
    with refusal(rf"x\.png: unexpected label values {value};.*0\.\.10 \(camvid11\) and 11", ImageError):
        find_mapping("cityscapes-camvid11").labels(np.array([0, value]), HERE)


@pytest.mark.parametrize(
    ("count", "ignore", "values"),
    [(300, 65535, {0: 0, 299: 299, 65535: -1}), (2, 300, {1: 1, 300: -1}), (256, 256, {255: 255, 256: -1})],
    ids=["many classes", "a large ignored value", "every byte a class"],
)
def test_values_beyond_a_byte_are_labels_where_the_set_has_them(
    count: int, ignore: int, values: dict[int, int], tmp_path: Path
):
    classes = ClassSet("many", tuple(map(str, range(count))), ignore=ignore)
    given = np.array([list(values)], np.int32)
    assert mapping_between(classes, classes).labels(given, HERE).tolist() == [list(values.values())]
    with refusal(rf"unexpected label values {count + 3};", ImageError):
        mapping_between(classes, classes).labels(np.array([0, count + 3]), HERE)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((1, len(values), 3), np.uint8)).save(tmp_path / "images/a.png")
    Image.fromarray(given.astype(np.uint16)).save(tmp_path / "labels/a.png")
    labelled = labelled_folders(tmp_path / "images", tmp_path / "labels", classes)
    assert labelled.truth("a").labels.tolist() == [list(values.values())]


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.uint32, np.uint64])
def test_label_values_of_every_kind_are_read_alike(kind: type):
    found = mapping_between(CITYSCAPES, CITYSCAPES).labels(np.array([[0, 1]]).astype(kind), Path("a.png"))
    assert found.tolist() == [[0, 1]]


@pytest.mark.parametrize("classes", CLASS_SETS.values(), ids=CLASS_SETS)
def test_colors_tell_classes_apart(classes: object):
    labels = np.append(np.arange(len(classes)), 255).astype(np.uint8)[None]
    colors = [tuple(color) for color in colorize(labels, classes)[0].tolist()]
    assert len(set(colors)) == len(classes) + 1 and colors[-1] == (0, 0, 0)


@pytest.mark.parametrize("count", [3, 256, 300])
def test_what_is_no_class_is_black_in_every_kind_of_labels(count: int):
    colors = tuple((9, index // 200, index % 200) for index in range(count))
    classes = ClassSet("many", tuple(f"c{index}" for index in range(count)), colors, ignore=65535)
    for labels in (np.array([[0, count - 1, -1]], np.int16), np.array([[0, count - 1, 65535]], np.uint16)):
        assert colorize(labels, classes)[0].tolist() == [list(colors[0]), list(colors[-1]), [0, 0, 0]]


def test_an_overlay_lies_between_image_and_colors():
    image, labels = np.full((2, 2, 3), 200, np.uint8), np.zeros((2, 2), np.uint8)
    assert (blend(image, colorize(labels, CITYSCAPES), 0.0) == image).all()
    assert (blend(image, colorize(labels, CITYSCAPES), 1.0) == colorize(labels, CITYSCAPES)).all()


def test_a_folder_without_labels_is_said(tmp_path: Path):
    with refusal(r"no label image \(\.png\) in .*\. Give the dataset"):
        label_files(tmp_path)


def test_an_unknown_mapping_names_the_nearest():
    with refusal("Did you mean 'cityscapes-camvid11'"):
        find_mapping("cityscapes-camvid")
