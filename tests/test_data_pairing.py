"""Labels found by publishers' names, and read in the encoding they are in; what could be two things is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from allweather import CAMVID11, CITYSCAPES, AllWeatherError, ClassSet, ImageError, SettingsError
from allweather.data.datasets.encodings import LABEL_IDS
from allweather.data.labelled import labelled_folders
from allweather.data.labels import find_mapping
from allweather.data.pairing import labelled_pictures, pair
from allweather.data.truth import CAMVID_COLORS, TruthReader

CITY = "frankfurt_000000_000294"
PAIRS = {  # prediction, and the label file that answers it
    "equal names": ("a/frame.1", "a/frame.1"),
    "Cityscapes": (f"frankfurt/{CITY}_leftImg8bit", f"frankfurt/{CITY}_gtFine_labelIds"),
    "Cityscapes, one city": (f"{CITY}_leftImg8bit", f"frankfurt/{CITY}_gtFine_labelTrainIds"),
    "Cityscapes, its root": (f"leftImg8bit/val/frankfurt/{CITY}_leftImg8bit", f"val/frankfurt/{CITY}_gtFine_labelIds"),
    "Cityscapes in both roots": (f"leftImg8bit/val/f/{CITY}_leftImg8bit", f"gtFine/val/f/{CITY}_gtFine_labelIds"),
    "Cityscapes by scene": (CITY, f"frankfurt/{CITY}_gtFine_labelIds"),
    "Cityscapes, a prediction named as a label": (f"{CITY}_gtFine_labelTrainIds", f"f/{CITY}_gtFine_labelIds"),
    "Cityscapes, as told": (f"{CITY}_leftImg8bit_labelIds", f"f/{CITY}_gtFine_labelIds"),
    "Cityscapes, results": (f"{CITY}_pred_labelIds", f"f/{CITY}_gtFine_labelIds"),
    "Foggy Cityscapes": (f"f/{CITY}_leftImg8bit_foggy_beta_0.02", f"f/{CITY}_gtFine_labelIds"),
    "Rain Cityscapes": (f"f/{CITY}_leftImg8bit_rain_alpha_0.01_beta_0.005_pattern_1", f"f/{CITY}_gtFine_labelIds"),
    "Cityscapes, blurred": (f"f/{CITY}_leftImg8bit_blurred", f"f/{CITY}_gtFine_labelIds"),
    "Foggy Driving": ("public/p_0_leftImg8bit", "public/p_0_gtCoarse_labelTrainIds"),
    "ACDC": ("fog/val/GOPR0475/G_frame_000041_rgb_anon", "fog/val/GOPR0475/G_frame_000041_gt_labelTrainIds"),
    "ACDC, references": ("fog/G_frame_000041_rgb_ref_anon", "fog/G_frame_000041_gt_ref_labelTrainIds"),
    "Dark Zurich": ("rgb_anon/val/night/G/G_frame_1_rgb_anon", "gt/val/night/G/G_frame_1_gt_labelTrainIds"),
    "MUSES": ("clear/day/REC_1_frame_camera", "clear/day/REC_1_gt_labelTrainIds"),
    "BDD100K, old": ("0004a4c0-d4dff0ad", "0004a4c0-d4dff0ad_train_id"),
    "BDD100K, new": ("images/10k/val/0004a4c0", "labels/sem_seg/masks/val/0004a4c0"),
    "NightCity": ("Chicago_0002", "Chicago_0002_trainIds"),
    "Foggy Zurich": ("GOPR/1_frame_000001", "gt_labelIds/GOPR/1_frame_000001"),
    "CamVid as published": ("0016E5_07959", "0016E5_07959_L"),
    "a twin": ("a_jpg", "a"),
    "a twin of Cityscapes": (f"{CITY}_leftImg8bit_png", f"{CITY}_gtFine_labelIds"),
}


def paired(predictions: list[str], labels: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    found, failed = pair(predictions, labelled_pictures({name: Path(f"{name}.png") for name in labels}, Path("truth")))
    return {name: scene.choose(None)[0].with_suffix("").as_posix() for name, scene in found.items()}, failed


@pytest.mark.parametrize("case", PAIRS)
def test_publishers_names_meet(case: str):
    prediction, label = PAIRS[case]
    decoys = [
        "other_000000_000294_gtFine_labelIds",
        "G_frame_000042_gt_labelTrainIds",
        "fog/other_gt_ref_labelIds",
        "rgb_anon/fog/val/GOPR0475/G_frame_000041_rgb_anon",
    ]
    assert paired([prediction], [label, *decoys]) == ({prediction: label}, {})


APART = {  # what looks alike and must not meet
    "another sequence": (["day/1"], ["night/1"]),
    "an image and its reference": (["G_frame_1_rgb_anon"], ["G_frame_1_gt_ref_labelTrainIds"]),
    "another city": (["aachen/x_leftImg8bit"], ["bochum/x_gtFine_labelIds"]),
    "a longer name": (["a_1"], ["a_11"]),
    "a word within": (["street_inverness_1"], ["street_inv"]),
    "frames of one camera": (["d_frame_camera_0002"], ["d_frame_camera_0001"]),
    "frames that a word precedes": (["d_rgb_anon_0002", "d_leftImg8bit_rain_0003"], ["d_gt_labelIds"]),
}


@pytest.mark.parametrize("case", APART)
def test_what_looks_alike_stays_apart(case: str):
    assert paired(*APART[case]) == ({}, {})


def test_masks_and_instances_are_no_labels():
    labels = [f"{CITY}_gtFine_{kind}" for kind in ("color", "instanceIds", "labelIds", "labelTrainIds")]
    labels += ["G_1_gt_invIds", "G_1_gt_invGray", "G_1_gt_labelTrainIds", "G_1_gt_labelColor", "inverness_1"]
    found = labelled_pictures({name: Path(f"{name}.png") for name in labels}, Path("truth"))
    assert [scene.name for scene in found] == [CITY, "G_1", "inverness_1"]
    assert found[0].choose(None) == (Path(f"{CITY}_gtFine_labelTrainIds.png"), "trainIds")
    assert found[0].choose("colors") == (Path(f"{CITY}_gtFine_color.png"), "colors")
    assert found[2].choose("labelIds") == (Path("inverness_1.png"), None)
    with refusal("asked for labelIds, its name says trainIds"):
        found[1].choose("labelIds")
    with refusal("only masks or instances"):
        labelled_pictures({"a_invIds": Path("a_invIds.png")}, Path("truth"))


def test_what_could_be_two_scenes_is_named():
    found, failed = paired(["1"], ["day/1", "night/1"])
    assert not found
    assert failed == {"1": "it may be of day/1 or night/1; its folders would tell"}
    found, failed = paired(["day/1", "night/1"], ["1"])
    assert not found
    assert set(failed) == {"day/1", "night/1"}
    assert paired(["day/1", "night/1"], ["day/1", "night/1"])[0] == {"day/1": "day/1", "night/1": "night/1"}
    found, failed = paired(["1", "day/1"], ["day/1"])
    assert found == {"day/1": "day/1"}
    assert "that of day/1 too" in failed["1"]
    with refusal("would be labels of one picture"):
        paired([], ["labels/1", "images/1"])


def test_renderings_and_twins_share_a_label():
    fog = [f"f/{CITY}_leftImg8bit_foggy_beta_{beta}" for beta in ("0.005", "0.01", "0.02")]
    found, failed = paired([*fog, "a_png", "a_jpg"], [f"f/{CITY}_gtFine_labelIds", "a"])
    assert set(found) == {*fog, "a_png", "a_jpg"}
    assert not failed


def test_a_label_of_a_predictions_own_name_is_shared_with_renderings_alone():
    clear, fog = f"{CITY}_leftImg8bit", f"{CITY}_leftImg8bit_foggy_beta_0.02"
    found, failed = paired(["a", "a_png", "b_frame_camera", "b", clear, fog], ["a", "b_frame_camera", clear])
    assert found == {"a": "a", "b_frame_camera": "b_frame_camera", clear: clear, fog: clear}
    assert set(failed) == {"a_png", "b"} and "has the name of a" in failed["a_png"]


TRAIN = np.array([[0, 0, 1, 255]], np.uint8)
IDS = np.array([[7, 7, 8, 3]], np.uint8)
COLORS = np.array([[*(CITYSCAPES.colors[i] for i in (0, 0, 1)), (0, 0, 0)]], np.uint8)


def palette(indices: np.ndarray, colors: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([value for color in colors for value in color])
    return image


COLORED = palette(np.array([[2, 2, 0, 1]]), [CITYSCAPES.colors[1], (0, 0, 0), CITYSCAPES.colors[0]])
READ = {  # what is stored, the file's name, labels_as, and what was recognised
    "trainIds": (TRAIN, "a", None, "trainIds"),
    "trainIds by name": (TRAIN, "a_gtFine_labelTrainIds", "auto", "trainIds"),
    "trainIds, 16 bits": (TRAIN.astype(np.uint16), "a", None, "trainIds"),
    "trainIds, 32 bits": (TRAIN.astype(np.int32), "a", None, "trainIds"),
    "trainIds with a palette": (palette(TRAIN, list(CITYSCAPES.colors)), "a", None, "trainIds"),
    "trainIds with a grey palette": (palette(TRAIN, [(i, i, i) for i in range(256)]), "a", None, "trainIds"),
    "trainIds as grey RGB": (Image.fromarray(TRAIN).convert("RGB"), "a", "trainIds", "trainIds"),
    "trainIds with transparency": (Image.fromarray(TRAIN).convert("LA"), "a", None, "trainIds"),
    "labelIds by name": (IDS, "a_gtFine_labelIds", None, "labelIds"),
    "labelIds by name, auto": (IDS, "a_labelIds", "auto", "labelIds"),
    "labelIds by folder": (IDS, "gt_labelIds/a", None, "labelIds"),
    "labelIds as told": (IDS, "a", "labelIds", "labelIds"),
    "labelIds, 16 bits": (IDS.astype(np.uint16), "a", "labelIds", "labelIds"),
    "labelIds with a palette": (palette(IDS, [(9, 9, 9)] * 40), "a", "labelIds", "labelIds"),
    "trainIds after a camera": (TRAIN, "1_color", None, "trainIds"),
    "a palette after a camera": (palette(TRAIN, [(9, 9, 9)] * 256), "1_color", "trainIds", "trainIds"),
    "colors": (COLORS, "a", None, "colors"),
    "colors, auto": (COLORS, "a", "auto", "colors"),
    "colors with transparency": (Image.fromarray(COLORS).convert("RGBA"), "a_gtFine_color", None, "colors"),
    "colors in a palette": (COLORED, "a_color", None, "colors"),
    "colors in a palette, as told": (COLORED, "a", "colors", "colors"),
}


def read(stored: Any, folder: Path, name: str, labels_as: str | None, mapping: str = "cityscapes") -> object:
    """What `score` reads of one label file, an image or its pixels, that is found by name."""
    image = Image.fromarray(stored) if isinstance(stored, np.ndarray) else stored
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "TIFF" if image.mode == "I" else "PNG")
    (scene,) = labelled_pictures({name: path}, folder)
    reader = TruthReader(find_mapping(mapping), labels_as)
    return reader.read(*scene.choose(labels_as))


@pytest.mark.parametrize("case", READ)
def test_every_encoding_gives_the_same_classes(tmp_path: Path, case: str):
    stored, name, labels_as, encoding = READ[case]
    values, found = read(stored, tmp_path, name, labels_as)
    assert values.tolist() == [[0, 0, 1, -1]]
    assert found == encoding


def test_all_label_ids_and_all_colors(tmp_path: Path):
    every = np.array([LABEL_IDS], np.uint8)
    assert read(every, tmp_path, "a", "labelIds")[0].tolist() == [list(range(19))]
    colors = np.array([CITYSCAPES.colors], np.uint8)
    assert read(colors, tmp_path, "a", None)[0].tolist() == [list(range(19))]


@pytest.mark.parametrize("name", CAMVID11.names)
def test_camvids_own_colors_count_as_the_eleven(tmp_path: Path, name: str):
    index = CAMVID11.names.index(name)
    colors = np.array([[*CAMVID_COLORS[name], CAMVID11.colors[index], (0, 0, 0)]], np.uint8)
    values, _ = read(colors, tmp_path, "a_L", None, "cityscapes-camvid11")
    assert values.tolist() == [[index] * (len(colors[0]) - 1) + [-1]]


def test_camvid_has_thirty_two_colors():
    published = [color for colors in CAMVID_COLORS.values() for color in colors]
    assert len(set(published)) == len(published) == 31 + 2  # void aside; and two that the SegNet tutorial paints


REFUSED = {
    "auto, and no word": (TRAIN, "a", "auto", "does not say whether it holds"),
    "labelIds without a word": (IDS + np.uint8(18), "a", None, "say --labels-as labelIds"),
    "licence plates without a word": (np.array([[0, 65535]], np.uint16), "a", None, "labelIds"),
    "palette against indices": (COLORED, "a", None, "palette's colors and its indices say different classes"),
    "labelIds as trainIds": (IDS, "a_labelIds", "trainIds", "asked for trainIds, its name says label"),
    "an unknown word": (IDS, "a", "labelids", "Did you mean 'labelIds'"),
    "trainIds as told": (IDS + np.uint8(18), "a", "trainIds", "unexpected label values 21, 25, 26"),
    "nothing known": (IDS + np.uint8(70), "a", None, "unexpected label values 73, 77, 78"),
    "labelIds beyond": (IDS + np.uint8(70), "a", "labelIds", "label values 73, 77, 78; expected labelIds"),
    "colors of nobody": (COLORS + np.uint8(1), "a", None, r"\(1, 1, 1\).*no colors of cityscapes"),
    "one bit": (np.array([[True, False]]), "a", None, "got 1-bit grey"),
    "grey RGB": (Image.fromarray(IDS).convert("RGB"), "a", None, "All three channels are equal: say --labels-as"),
    "colors that are grey": (IDS, "a", "colors", "a color for each class, got an image of mode L"),
    "indices that are colors": (COLORS, "a", "trainIds", "expected label indices .* got mode RGB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_be_two_things_is_refused(tmp_path: Path, case: str):
    stored, name, labels_as, message = REFUSED[case]
    with refusal(message):
        read(stored, tmp_path, name, labels_as)


def test_one_file_that_is_wrong_is_no_reason_to_stop(tmp_path: Path):
    with pytest.raises(ImageError):
        read(IDS + np.uint8(70), tmp_path, "a", None)
    with pytest.raises(AllWeatherError) as refused:
        read(IDS + np.uint8(18), tmp_path, "a", None)
    assert not isinstance(refused.value, ImageError)  # one labelIds file says what the others may be


def test_label_ids_are_cityscapes():
    with refusal("camvid11 has none"):
        TruthReader(find_mapping("camvid11"), "labelIds")
    assert TruthReader(find_mapping("camvid11"))._say("trainIds", "labelIds") == "say --labels-as trainIds."


@pytest.mark.parametrize("classes", ["cityscapes", CITYSCAPES, "yard.toml", Path("yard.toml")], ids=str)
@pytest.mark.parametrize("folder", [str, Path])
def test_labelled_folders_are_named_as_elsewhere(here: Path, classes: ClassSet | str, folder: type):
    (here / "yard.toml").write_text('names = ["a", "b", "c", "d"]')
    for name, pixels in (("images", np.zeros((4, 6, 3), np.uint8)), ("labels", np.full((4, 6), 3, np.uint8))):
        (here / name).mkdir()
        Image.fromarray(pixels).save(here / name / "a.png")
    found = labelled_folders(folder("images"), folder(here / "labels"), classes)
    assert found.stream.names == ("a",) and (found.truth("a").labels == 3).all()


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("cityscape", "unknown class set 'cityscape'. Did you mean 'cityscapes'"),
        (19, "expected a ClassSet or its name"),
    ],
)
def test_labelled_folders_of_no_class_set_are_refused(tmp_path: Path, classes: Any, said: str):
    with refusal(said, SettingsError):
        labelled_folders(tmp_path, tmp_path, classes)
