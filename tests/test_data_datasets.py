"""Every dataset in a small tree of its publisher's layout, traps included: number, order, label values."""

import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Done, allweather
from PIL import Image
from refusals import refusal

from allweather import AllWeatherError, ClassSet, ImageError, InputError, SettingsError
from allweather.data.datasets import DATASETS, Dataset, Split, check, find_dataset, list_datasets
from allweather.data.datasets.encodings import invalid_mask
from allweather.data.labelled import labelled_split
from allweather.writing import place_below

TRAIN = [0, 18, 255]  # what a file of trainIds holds
IDS = [7, 33, 0]  # the same in labelIds
DECODED = [0, 18, -1]


@dataclass(frozen=True)
class Tree:
    """Files below a root, as path to label values or None for an image, text files, and what must be found."""

    files: dict[str, list[int] | None]
    counts: dict[str, int]
    lists: dict[str, str] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)  # split: name of its first frame
    decoded: list[int] = field(default_factory=lambda: DECODED)
    unlabelled: tuple[str, ...] = ()


def acdc(part: str, condition: str, frame: str, place: str = "", gt_place: str = "") -> dict[str, list[int] | None]:
    stem = f"{condition}/{part}/GOPR0475/GOPR0475_frame_{frame}"
    files: dict[str, list[int] | None] = {f"{place}rgb_anon/{stem}_rgb_anon.png": None}
    if part != "test":
        files |= {f"{gt_place}gt/{stem}_gt_labelTrainIds.png": TRAIN, f"{gt_place}gt/{stem}_gt_labelIds.png": IDS}
        files |= {f"{gt_place}gt/{stem}_gt_invIds.png": [0, 1, 0], f"{gt_place}gt/{stem}_gt_labelColor.png": None}
    return files


def cityscapes(part: str, stem: str, image: str = "leftImg8bit/{}_leftImg8bit.png") -> dict[str, list[int] | None]:
    return {image.format(f"{part}/ulm/{stem}"): None, f"gtFine/{part}/ulm/{stem}_gtFine_labelIds.png": IDS}


def foggy_driving(part: str, kind: str, stem: str) -> dict[str, list[int] | None]:
    return {
        f"leftImg8bit/{part}/web/{stem}_leftImg8bit.png": None,
        f"{kind}/{part}/web/{stem}_{kind}_labelIds.png": IDS,
    }


FOGGY_DRIVING = {
    **foggy_driving("test", "gtFine", "web_a_2"),
    **foggy_driving("test", "gtFine", "web_a_10"),
    **foggy_driving("test_extra", "gtCoarse", "web_b_1"),
}
RAINY = "_leftImg8bit_rain_alpha_0.01_beta_0.005_dropsize_0.01_pattern_1.png"

TREES: dict[str, Tree] = {
    "acdc": Tree(
        {
            **acdc("val", "night", "000010"), **acdc("val", "night", "000002"), **acdc("val", "fog", "000001"),
            **acdc("train", "rain", "000003"), **acdc("test", "snow", "000004"),
            "rgb_anon/fog/val_ref/GOPR0475/GOPR0475_frame_000001_rgb_ref_anon.png": None,
            "gt/fog/val_ref/GOPR0475/GOPR0475_frame_000001_gt_ref_labelTrainIds.png": TRAIN,
            "rgb_anon/fog/val_ref/GOPR0475/GOPR0475_frame_000002_rgb_ref_anon.png": None,
            "rgb_anon/snow/train_ref/GOPR0122/GOPR0122_frame_000002_rgb_ref_anon.png": None,
            "rgb_anon/rain/test_ref/GOPR0402/GOPR0402_frame_000002_rgb_ref_anon.png": None,
            "rgb_anon/fog/val/GOPR0475/notes.txt": None,
        },
        {"val": 3, "val/night": 2, "val/fog": 1, "val/rain": 0, "train": 1, "test": 1, "test/snow": 1,
         "val_ref": 2, "val_ref/fog": 2, "val_ref/labelled": 1, "train_ref": 1, "train_ref/snow": 1, "test_ref": 1},
        first={"val/night": "rgb_anon/night/val/GOPR0475/GOPR0475_frame_000002_rgb_anon"},
    ),
    "acdc in its archives' folders": Tree(
        acdc("val", "fog", "000001", "rgb_anon_trainvaltest/", "gt_trainval/"), {"val": 1, "val/fog": 1, "train": 0}
    ),
    "dark-zurich": Tree(
        {
            "rgb_anon/val/night/GOPR0356/GOPR0356_frame_000321_rgb_anon.png": None,
            "gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_labelTrainIds.png": TRAIN,
            "gt/val/night/GOPR0356/GOPR0356_frame_000321_gt_invIds.png": [0, 1, 0],
            "rgb_anon/val_ref/day/GOPR0356_ref/GOPR0356_frame_000321_ref_rgb_anon.png": None,
            "rgb_anon/test/night/GOPR0364/GOPR0364_frame_000001_rgb_anon.png": None,
            "rgb_anon/train/night/GOPR0351/GOPR0351_frame_000001_rgb_anon.png": None,
            "rgb_anon/train/day/GOPR0345/GOPR0345_frame_000001_rgb_anon.png": None,
        },
        {"val": 1, "test": 1, "train": 1, "train/day": 1, "train/twilight": 0, "val_ref": 1},
    ),
    "nighttime-driving": Tree(
        {
            "leftImg8bit/test/night/01_frame_0555_leftImg8bit.png": None,
            "gtCoarse_daytime_trainvaltest/test/night/01_frame_0555_gtCoarse_labelIds.png": IDS,
            "gtCoarse_daytime_trainvaltest/test/night/01_frame_0555_gtCoarse_labelTrainIds.png": TRAIN,
            "night/01_frame_0555_gtCoarse_labelIds.png": IDS,
            "leftImg8bit/test/night/01_frame_0060_leftImg8bit.png": None,
            "gtCoarse_daytime_trainvaltest/test/night/01_frame_0060_gtCoarse_labelIds.png": IDS,
            "night/01_frame_0060_gtCoarse_labelTrainIds.png": TRAIN,
        },
        {"test": 2, "test/corrected": 2},
        first={"test": "leftImg8bit/test/night/01_frame_0060_leftImg8bit"},
    ),
    "foggy-driving": Tree(FOGGY_DRIVING, {"test_all": 3, "test": 2, "test_extra": 1}),
    "foggy-driving-dense": Tree(
        FOGGY_DRIVING,
        {"test": 2},
        lists={
            "lists_file_names/leftImg8bit_testdense_filenames.txt": (
                "leftImg8bit/test_extra/web/web_b_1_leftImg8bit.png\r\nleftImg8bit/test/web/web_a_10_leftImg8bit.png\r\n"
            )
        },
        first={"test": "leftImg8bit/test_extra/web/web_b_1_leftImg8bit"},
    ),
    "foggy-driving-dense flattened": Tree(
        {"leftImg8bit/dense/web_b_1_leftImg8bit.png": None, "gtFine/dense/web_b_1_gtCoarse_labelIds.png": IDS},
        {"test": 1},
    ),
    "foggy-zurich": Tree(
        {
            "RGB/GP010229/1508040913.0_frame_000955.png": None,
            "RGB/GP010229/1508040913.0_frame_000001.png": None,
            "gt_labelTrainIds/GP010229/1508040913.0_frame_000955.png": TRAIN,
            "gt_labelIds/GP010229/1508040913.0_frame_000955.png": IDS,
        },
        {"testv2": 1, "testv1": 0, "light": 1, "all": 2},
        lists={
            "lists_file_names/RGB_testv2_filenames.txt": "RGB/GP010229/1508040913.0_frame_000955.png\n",
            "lists_file_names/RGB_light_filenames.txt": "RGB/GP010229/1508040913.0_frame_000001.png\n",
        },
        unlabelled=("all",),
    ),
    "c-driving": Tree(
        {
            **{f"C-Driving/val/compound/{name}/0a-1.jpg": None for name in ("rainy", "snowy", "cloudy")},
            **{f"C-Driving/val/compound/{name}/0a-1_train_id.png": TRAIN for name in ("rainy", "snowy", "cloudy")},
            "C-Driving/val/open/overcast/0b-2.jpg": None,
            "C-Driving/val/open/overcast/0b-2_train_id.png": TRAIN,
        },
        {"val": 3, "val/rainy": 1, "val/snowy": 1, "val/cloudy": 1, "val/overcast": 1, "train": 0},
    ),
    "cityscapes": Tree(
        {**cityscapes("val", "ulm_000000_000019"), **cityscapes("train", "ulm_000001_000019"),
         "leftImg8bit/test/bonn/bonn_000001_000019_leftImg8bit.png": None},
        {"train": 1, "val": 1, "test": 1},
    ),
    "foggy-cityscapes": Tree(
        {
            key: values
            for beta in ("0.005", "0.01", "0.02")
            for key, values in cityscapes(
                "val", "ulm_000000_000019", f"leftImg8bit_foggy/{{}}_leftImg8bit_foggy_beta_{beta}.png"
            ).items()
        },
        {"val": 3, "val/0.005": 1, "val/0.01": 1, "val/0.02": 1, "train": 0, "dbf/val/0.02": 0},
    ),
    "rain-cityscapes": Tree(
        cityscapes("val", "ulm_000000_000019", f"leftImg8bit_rain/{{}}{RAINY}"), {"val": 1, "train": 0}
    ),
    "bdd100k": Tree(
        {
            "images/10k/val/7d2f.jpg": None, "labels/sem_seg/masks/val/7d2f.png": TRAIN,
            "images/10k/train/8a.jpg": None, "labels/sem_seg/masks/train/8a.png": TRAIN,
            "images/10k/test/9b.jpg": None,
        },
        {"train": 1, "val": 1, "test": 1, "night": 1},
        lists={"lists_file_names/images_trainval_night_correct_filenames.txt": "seg/images/train/8a.jpg\n"},
        first={"night": "images/10k/train/8a"},
    ),
    "bdd100k in the old layout": Tree(
        {"bdd100k/seg/images/val/7d2f.jpg": None, "bdd100k/seg/labels/val/7d2f_train_id.png": TRAIN},
        {"val": 1, "train": 0, "test": 0, "night": 1},
        lists={"lists_file_names/images_trainval_night_correct_filenames.txt": "seg/images/val/7d2f.jpg\n"},
        first={"night": "seg/images/val/7d2f"},
    ),
    "nightcity": Tree(
        {"val/img/Chicago_0002.png": None, "val/lbl/Chicago_0002_trainIds.png": TRAIN,
         "train/img/Paris_0001.png": None, "train/lbl/Paris_0001_trainIds.png": TRAIN},
        {"train": 1, "val": 1},
    ),
    "robotcar": Tree(
        {"segmented_images/testing/imgs/dawn_1.png": None, "segmented_images/testing/annos/dawn_1.png": IDS},
        {"test": 1, "val": 0, "train": 0},
    ),
    "muses": Tree(
        {
            "frame_camera/val/rain/night/REC0001_frame_000123_frame_camera.png": None,
            "gt_semantic/val/rain/night/REC0001_frame_000123_gt_labelTrainIds.png": TRAIN,
            "frame_camera/train/clear/day/REC0002_frame_000001_frame_camera.png": None,
            "gt_semantic/train/clear/day/REC0002_frame_000001_gt_labelTrainIds.png": TRAIN,
        },
        {"val": 1, "val/rain/night": 1, "val/fog/day": 0, "train": 1, "test": 0},
    ),
    "camvid": Tree(
        {"test/0001TP_008550.png": None, "testannot/0001TP_008550.png": [0, 10, 11]},
        {"test": 1, "train": 0, "val": 0},
        decoded=[0, 10, -1],
    ),
    "mapillary-vistas": Tree(
        {"validation/images/aB.jpg": None, "validation/v1.2/labels/aB.png": [1, 2, 0],
         "validation/v2.0/labels/aB.png": [2, 1, 0]},
        {"val": 1, "val/v2.0": 1, "train": 0},
        lists={
            "config_v1.2.json": '{"labels": [{"name": "void--ground"}, {"name": "construction--flat--road"}, '
            '{"name": "object--vehicle--bicycle"}]}',
            "config_v2.0.json": '{"labels": [{"name": "animal--bird"}, {"name": "object--vehicle--bicycle"}, '
            '{"name": "construction--flat--road"}]}',
        },
    ),
}  # fmt: skip


def plant(root: Path, tree: Tree):
    for path, values in tree.files.items():
        target = placed(root / path)
        if target.suffix == ".txt":
            target.write_text("no image")
            continue
        pixels = np.zeros((2, 3, 3), np.uint8) if values is None else np.array([values, values], np.uint8)
        Image.fromarray(pixels).save(target)
    for path, text in tree.lists.items():
        placed(root / path).write_bytes(text.encode())


@pytest.mark.parametrize("name", TREES)
def test_the_publishers_layout_is_found(tmp_path: Path, name: str):
    tree, dataset = TREES[name], find_dataset(name.split()[0])
    plant(tmp_path, tree)
    report = json.loads(json.dumps(check(dataset, tmp_path)))
    assert {split: report["splits"][split] for split in tree.counts} == tree.counts
    assert all(split in report["missing"] for split, count in tree.counts.items() if not count)
    assert set(report["unlabelled"]) == set(tree.unlabelled)
    for split, first in tree.first.items():
        assert dataset.stream(tmp_path, split).names[0] == first


@pytest.mark.parametrize("name", TREES)
def test_the_command_line_counts_every_split(tmp_path: Path, name: str):
    root = tmp_path / "val/val_ref/night/test"  # names that splits have too
    plant(root, TREES[name])
    arguments = ("data", "check", name.split()[0], "--root", root)
    found = json.loads(allweather(*arguments, "--json").ok().stdout)["splits"]
    assert {split: found[split] for split in TREES[name].counts} == TREES[name].counts
    told = allweather(*arguments).ok()
    assert all(split in told.stdout for split in found)
    missing = [split for split, count in found.items() if not count and "/" not in split]
    assert all(f"{split} is missing; looked for" in told.stderr for split in missing)


@pytest.mark.parametrize("name", TREES)
def test_frames_come_in_order_and_labels_decode(tmp_path: Path, name: str):
    tree, dataset = TREES[name], find_dataset(name.split()[0])
    plant(tmp_path, tree)
    decode = dataset.decoder(tmp_path)
    for split in (split for split, count in tree.counts.items() if count):
        samples = dataset.samples(tmp_path, split)
        assert len({sample.name for sample in samples}) == len(samples)
        frames = list(dataset.stream(tmp_path, split, (6, 4)))
        assert [frame.name for frame in frames] == [sample.name for sample in samples]
        assert all(frame.image.shape == (3, 4, 6) and frame.size == (3, 2) for frame in frames)
        for sample in samples:
            assert split in tree.unlabelled or (sample.label is not None) == bool(dataset.split(split).labels)
            if sample.label is not None:
                assert decode(sample.label).tolist() == [tree.decoded] * 2
            if sample.invalid is not None:
                assert invalid_mask(sample.invalid).tolist() == [[False, True, False]] * 2


@pytest.mark.parametrize(
    ("name", "split"),
    [(name, split) for name, found in DATASETS.items() for split, chosen in found.splits.items() if not chosen.listed],
)
def test_a_split_finds_an_image_of_its_pattern_with_its_label(tmp_path: Path, name: str, split: str):
    """A new dataset needs no test of its own for this; `TREES` hold what publishers' layouts have besides."""
    dataset, chosen = DATASETS[name], DATASETS[name].split(split)
    image = re.sub(r"(?<=\w)\*", "", chosen.images[0].replace("**/", "")).replace("*", "a_000001_000019")
    labels = [re.sub(pattern, written, image) for pattern, written in chosen.labels if re.search(pattern, image)]
    plant(tmp_path, Tree({image: None, **({labels[0]: TRAIN} if labels else {})}, {}))
    (sample,) = dataset.samples(tmp_path, split)
    assert sample.image == tmp_path / image and bool(labels) == bool(chosen.labels)
    assert sample.label == (tmp_path / labels[0] if labels else None)


@pytest.mark.parametrize("name", DATASETS)
def test_a_wrong_root_says_what_was_looked_for(tmp_path: Path, name: str):
    dataset = DATASETS[name]
    split = dataset.split(None)
    with pytest.raises(AllWeatherError) as caught:
        check(dataset, tmp_path)
    assert (split.listed or split.images[0]) in str(caught.value) and dataset.publisher in str(caught.value)
    with refusal("no such folder"):
        check(dataset, tmp_path / "gone")


def test_a_root_too_deep_or_too_high_is_told(tmp_path: Path):
    plant(tmp_path / "acdc", TREES["acdc"])
    dataset, holds = find_dataset("acdc"), re.escape(f"{tmp_path / 'acdc'} holds it: give that as the root")
    for root in ("acdc/rgb_anon", "acdc/rgb_anon/night", ""):
        with refusal(holds):
            check(dataset, tmp_path / root)


def mine(pattern: str) -> Dataset:
    return Dataset("d", "D", "https://d", "none", {"val": Split((pattern,))})


def test_patterns_find_what_folders_of_frames_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, real = tmp_path / "root", tmp_path / "real"
    for path in (root / "val/a/1.png", root / "val/.trash/2.png", real / "4.png"):
        Image.new("RGB", (3, 2)).save(placed(path))
    (root / "val/b").symlink_to(real)
    (real / "loop").symlink_to(root / "val")
    for pattern in ("**/*.png", "val/*/*"):
        assert [sample.name for sample in mine(pattern).samples(root)] == ["val/a/1", "val/b/4"]
    with refusal(r"1\.png\. It is offered", InputError):  # the disk is not searched
        mine("**/1.png").samples(root / "gone")
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed("shut" if path.name == "b" else path))
    with pytest.warns(UserWarning, match="val/b: .*left out"):
        assert len(mine("**/*.png").samples(root)) == 1


def test_an_image_that_a_list_names_must_be_there(tmp_path: Path):
    plant(tmp_path, TREES["foggy-driving-dense"])
    (tmp_path / "leftImg8bit/test/web/web_a_10_leftImg8bit.png").unlink()
    dataset = find_dataset("foggy-driving-dense")
    report = check(dataset, tmp_path)
    assert report["splits"]["test"] == 1
    assert report["absent"]["test"] == {"images": 1, "first": "leftImg8bit/test/web/web_a_10_leftImg8bit.png"}
    with refusal(r"names 2 images of Foggy Driving Dense, and 1 of them"):
        dataset.samples(tmp_path)
    told = allweather("data", "check", "foggy-driving-dense", "--root", tmp_path)
    assert "test: 1 images that its list names are not there" in told.stderr


def test_a_list_that_is_not_there_is_told(tmp_path: Path):
    plant(tmp_path, TREES["foggy-driving-dense"])
    dataset = Dataset("d", "D", "https://d", "none", {"val": Split(("leftImg8bit/*/*/*.png",), listed="lists/val.txt")})
    assert check(dataset, tmp_path)["unlisted"] == {"val": {"list": "lists/val.txt", "images": 3}}
    (tmp_path / "ds.py").write_text(OWN_DATASET.format('images=("leftImg8bit/*/*/*.png",), listed="lists/val.txt"'))
    assert "val: its list lists/val.txt is not there; 3 images count" in data_check(tmp_path).said()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/val.txt").write_text("leftImg8bit/test/web/web_a_10_leftImg8bit.png\n")
    assert check(dataset, tmp_path)["unlisted"] == {} and "is not there" not in data_check(tmp_path).stderr


def test_images_outside_the_root_are_refused_and_nothing_is_written_beside_them(tmp_path: Path):
    place = tmp_path / "data"
    for path in (tmp_path / "f0.png", place / "f1.png"):
        Image.new("RGB", (3, 2)).save(placed(path))
    before = (tmp_path / "f0.png").read_bytes()
    for line, split in (
        (str(tmp_path / "f0.png"), Split((), listed="list.txt")),
        ("../f0.png", Split((), listed="list.txt")),
        ("f9.png", Split((), listed="list.txt", moved=(("f9", "../f0"),))),
        ("", Split(("../*.png",))),
    ):
        (place / "list.txt").write_text(f"{line}\n")
        with refusal(r"D: expected images below .*data, got .*f0\.png\. Leave out the root", InputError):
            Dataset("d", "D", "https://d", "none", {"val": split}).samples(place)
    with refusal("expected a frame's name that stays below", InputError):
        place_below(tmp_path / "labels", f"{tmp_path / 'f0'}.png")
    assert (tmp_path / "f0.png").read_bytes() == before


def test_twins_that_differ_in_their_suffix_are_two_frames(tmp_path: Path):
    for name in ("a.png", "a.jpg", "b.png"):
        Image.new("RGB", (3, 2)).save(tmp_path / name)
    dataset = mine("*")
    assert sorted(dataset.stream(tmp_path).names) == ["a_jpg", "a_png", "b"]
    assert check(dataset, tmp_path)["splits"] == {"val": 3}


def test_vistas_labels_are_of_the_version_that_their_folder_below_the_root_names(tmp_path: Path):
    root = tmp_path / "v2.0"
    plant(root, TREES["mapillary-vistas"])
    dataset = find_dataset("mapillary-vistas")
    for split in ("val", "val/v2.0"):
        (sample,) = dataset.samples(root, split)
        assert dataset.decoder(root)(sample.label)[0].tolist() == [0, 18, -1], split
        (read,) = (path.name for path in labelled_split(dataset, root, split).files() if path.suffix == ".json")
        assert read == f"config_{split.partition('/')[2] or 'v1.2'}.json"
    with refusal(r"Dataset\.reads", SettingsError):
        replace(dataset, reads="a.json")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('images=("*.png",), labels=(("(", "x"),)', "Split.labels: expected rules (regular expression, what it becom"),
        ('images=("*.png",), labels=((r"a", r"\\3"),)', "invalid group reference 3"),
        ('images=("*.png",), invalid=((r"a", r"\\g<no>"),)', "Split.invalid: expected rules"),
        ('images=("*.png",), moved=("image",)', "Split.moved: expected rules"),
        (
            'images=("/data/*.png",)',
            "Split.images: expected patterns such as */*.png below the root, got '/data/*.png'",
        ),
        ('images=("",)', "got ''"),
        ('images="*.png"', "Split.images: expected a tuple of them, got '*.png'. Write ('*.png',)"),
        ('images=(), listed="/lists/val.txt"', "Split.listed: expected a file below the root"),
    ],
)
def test_a_split_of_ones_own_that_cannot_be_sought_is_one_line(tmp_path: Path, fields: str, said: str):
    (tmp_path / "ds.py").write_text(OWN_DATASET.format(fields))
    assert said in data_check(tmp_path).said(2)


OWN_DATASET = """from allweather.data.datasets import Dataset, Split

def Mine():
    return Dataset("m", "M", "https://m", "none", {{"val": Split({})}})
"""


def data_check(folder: Path) -> Done:
    return allweather("data", "check", f"{folder / 'ds.py'}:Mine", "--root", folder)


def test_the_two_versions_of_the_night_labels_are_kept_apart(tmp_path: Path):
    plant(tmp_path, TREES["nighttime-driving"])
    dataset = find_dataset("nighttime-driving")
    places = {split: {sample.label.parent for sample in dataset.samples(tmp_path, split)} for split in dataset.splits}
    published = tmp_path / "gtCoarse_daytime_trainvaltest/test/night"
    assert places == {"test": {published}, "test/corrected": {tmp_path / "night"}}


def test_the_list_names_every_split_and_who_offers_it():
    rows = {row["name"]: row for row in json.loads(json.dumps(list_datasets()))}
    assert rows["acdc"]["splits"]["val"] == 406 and rows["foggy-zurich"]["default_split"] == "testv2"
    assert all(row["default_split"] in row["splits"] and row["publisher"].startswith("http") for row in rows.values())


def test_numbers_that_differ_from_the_published_are_told(tmp_path: Path):
    plant(tmp_path, TREES["acdc"])
    report = check(find_dataset("acdc"), tmp_path)
    assert report["published"]["val"] == 406 and report["published"]["val/night"] == 106
    assert report["differing"]["val"] == {"found": 3, "published": 406}


def test_an_image_without_its_label_is_told(tmp_path: Path):
    plant(tmp_path, TREES["cityscapes"])
    (tmp_path / "gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds.png").unlink()
    report = check(find_dataset("cityscapes"), tmp_path)
    assert report["unlabelled"]["val"]["images"] == 1 and "ulm_000000" in report["unlabelled"]["val"]["first"]


def test_unknown_names_are_named():
    with refusal("Did you mean 'dark-zurich'"):
        find_dataset("darkzurich")
    with refusal("unknown split of acdc 'val/fogg'"):
        find_dataset("acdc").samples(Path(), "val/fogg")


@pytest.mark.parametrize("given", ["camvid:val", "camvid", find_dataset("camvid")], ids=["split", "name", "dataset"])
@pytest.mark.parametrize("folder", [str, Path])
def test_a_labelled_split_is_named_as_elsewhere(tmp_path: Path, given: str | Dataset, folder: type):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(placed(tmp_path / "val/a.png"))
    Image.fromarray(np.full((4, 6), 3, np.uint8)).save(placed(tmp_path / "valannot/a.png"))
    found = labelled_split(given, folder(tmp_path), None if given == "camvid:val" else "val")
    assert found.stream.names == ("val/a",) and (found.truth("val/a").labels == 3).all()


@pytest.mark.parametrize(
    ("given", "split", "said"),
    [
        ("camvids", None, "unknown dataset 'camvids'. Did you mean 'camvid'"),
        ("camvid:vall", None, "unknown split of camvid 'vall'"),
        ("camvid:val", "test", "camvid:val says which split, and so does split='test'"),
        (3, None, "dataset: expected a Dataset or its name, such as 'camvid:val', got 3"),
    ],
)
def test_a_labelled_split_of_no_dataset_is_refused(tmp_path: Path, given: Any, split: str | None, said: str):
    with refusal(said, SettingsError):
        labelled_split(given, tmp_path, split)


def placed(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


ROADS = ClassSet("roads", ("road", "kerb"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[0, 1]], r"gave list for .*a\.png: expected H×W whole numbers in -1\.\.1, .*as a NumPy array"),
        (None, "gave NoneType for"),
        (np.zeros((4, 6, 1), np.int64), "gave 4×6×1 of int64 for"),
        (np.zeros(4, np.int64), "gave 4 of int64 for"),
        (np.zeros((), np.int64), "gave one number of int64 for"),
        (np.zeros((0, 6), np.int64), "gave 0×6 of int64 for"),
        (np.zeros((4, 6), np.float32), "gave 4×6 of float32 for"),
        (np.full((4, 6), 255, np.uint8), r"gave 255\.\.255 for .*a\.png"),
        (np.full((4, 6), 2, np.int64), r"gave 2\.\.2 for"),
        (np.full((4, 6), -2, np.int16), r"gave -2\.\.-2 for"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_what_a_decoder_of_ones_own_gives_is_checked_by_file(given: Any, said: str, tmp_path: Path):
    for name in ("im/a.png", "lab/a.png"):
        Image.new("RGB", (6, 4)).save(placed(tmp_path / name))
    split = Split(("im/*.png",), labels=(("im/", "lab/"),))
    dataset = Dataset("roads", "R", "us", "ours", {"val": split}, classes=ROADS, decoder=lambda _: lambda path: given)
    with refusal(f"the decoder of roads {said}", InputError) as caught:
        labelled_split(dataset, tmp_path).truth("im/a")
    assert isinstance(caught.value, ImageError) == ("\\.\\." in said.partition(" for")[0])  # one file's values
    fine = replace(dataset, decoder=lambda _: lambda path: np.full((4, 6), -1, np.int8))
    assert labelled_split(fine, tmp_path).truth("im/a").labels.tolist() == [[-1] * 6] * 4


def test_a_mask_of_another_size_is_one_files_fault(tmp_path: Path):
    plant(tmp_path, Tree(acdc("val", "fog", "1"), {}))
    Image.new("L", (8, 9)).save(next(tmp_path.rglob("*_invIds.png")))
    split = labelled_split("acdc", tmp_path)
    with refusal(r"_invIds\.png: 8×9 .* 3×2", ImageError):
        split.truth(split.stream.names[0])
