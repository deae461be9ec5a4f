"""`allweather score` on what people have: publishers' names, encodings, and labels without predictions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Done, allweather
from PIL import Image

from allweather import CITYSCAPES

PREDICTED = np.array([[0, 0, 0, 1]], np.uint8)
TRAIN, IDS = np.array([[0, 0, 1, 1]], np.uint8), np.array([[7, 7, 8, 8]], np.uint8)  # IoU 2/3 and 1/2: 58.33
COLORS = np.array(CITYSCAPES.colors, np.uint8)[TRAIN]
HANDMADE = 58.33


def write(path: Path, values: np.ndarray):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def score(folder: Path, *options: str) -> Done:
    return allweather("score", folder / "p", folder / "t", *options)


def figures(folder: Path, *options: str) -> dict[str, Any]:
    return json.loads(score(folder, "--json", *options).ok().stdout)


PUBLISHED = {  # prediction, label, its pixels, options
    "plain": ("a", "a", TRAIN, ()),
    "Cityscapes": ("f/f_0_1_leftImg8bit", "f/f_0_1_gtFine_labelIds", IDS, ()),
    "Cityscapes, trainIds": ("f_0_1_leftImg8bit", "f/f_0_1_gtFine_labelTrainIds", TRAIN, ("--labels-as", "auto")),
    "Cityscapes, colors": ("f/f_0_1_leftImg8bit", "f/f_0_1_gtFine_color", COLORS, ()),
    "ACDC": ("G/G_frame_1_rgb_anon", "G/G_frame_1_gt_labelTrainIds", TRAIN, ()),
    "ACDC, labelIds": ("G/G_frame_1_rgb_anon", "G/G_frame_1_gt_labelIds", IDS, ("--labels-as", "labelIds")),
    "Dark Zurich": ("val/night/G/G_1_rgb_anon", "val/night/G/G_1_gt_labelTrainIds", TRAIN, ()),
    "BDD100K": ("00-ff", "00-ff_train_id", TRAIN, ()),
    "labelIds as told": ("a", "a", IDS, ("--labels-as", "labelIds")),
    "16 bits": ("a", "a", IDS.astype(np.uint16), ("--labels-as", "labelIds")),
    "colors as told": ("a", "a", COLORS, ("--labels-as", "colors")),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_publishers_labels_give_the_figure_made_by_hand(tmp_path: Path, case: str):
    prediction, label, values, options = PUBLISHED[case]
    write(tmp_path / f"p/{prediction}.png", PREDICTED)
    write(tmp_path / f"t/{label}.png", values)
    summary = figures(tmp_path, *options)
    assert summary["mIoU"] == summary["mIoU_truth"] == HANDMADE
    assert summary["images"] == summary["labels"] == 1


def test_labels_without_prediction_end_with_one_and_say_how_many_were_scored(tmp_path: Path):
    for name in ("a", "b", "c"):
        write(tmp_path / f"t/{name}.png", TRAIN)
    write(tmp_path / "p/a.png", PREDICTED)
    done = score(tmp_path, "--json")
    said = done.said(1)
    assert "2 of 3 labels have no prediction, e.g. b; the figures are over the 1 images that were scored" in said
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["labels"], summary["without_prediction"]) == (1, 3, 2)
    assert summary["mIoU"] == HANDMADE


def test_nothing_scored_is_said_in_place_of_a_table(tmp_path: Path):
    write(tmp_path / "t/a.png", TRAIN)
    write(tmp_path / "p/a.png", PREDICTED[:, :2])
    done = score(tmp_path)
    assert "nothing could be scored" in done.said(1) and not done.stdout
    as_json = score(tmp_path, "--json")
    assert as_json.returncode == 1 and json.loads(as_json.stdout)["mIoU"] is None


def test_masks_and_instances_beside_labels_are_no_labels(tmp_path: Path):
    for kind in ("labelIds", "instanceIds", "color"):
        write(tmp_path / f"t/f_0_1_gtFine_{kind}.png", COLORS if kind == "color" else IDS)
    write(tmp_path / "t/._f_0_1_gtFine_labelIds.png", IDS)
    write(tmp_path / "p/f_0_1_leftImg8bit.png", PREDICTED)
    assert figures(tmp_path)["labels_as"] == {"labelIds": 1}


def test_label_ids_without_a_word_score_nothing(tmp_path: Path):
    write(tmp_path / "t/a.png", IDS)  # 7 and 8 are trainIds too
    write(tmp_path / "t/b.png", IDS + np.uint8(18))
    for name in "ab":
        write(tmp_path / f"p/{name}.png", PREDICTED)
    done = score(tmp_path)
    assert "say --labels-as labelIds" in done.said(2) and not done.stdout
    (tmp_path / "t/b.png").unlink()
    assert "say --labels-as trainIds or --labels-as labelIds" in score(tmp_path, "--labels-as", "auto").said(2)


def test_the_table_says_what_its_means_are_over(tmp_path: Path):
    write(tmp_path / "t/a.png", TRAIN)
    write(tmp_path / "p/a.png", PREDICTED)
    assert "mIoU, the 2 classes in the truth 58.33" in " ".join(score(tmp_path).stdout.split())
    write(tmp_path / "p/a.png", np.array([[0, 0, 16, 1]], np.uint8))
    shown = " ".join(score(tmp_path).stdout.split())
    assert "mIoU, official: the 3 classes true or predicted 50.00" in shown
    assert "mIoU, the 2 classes in the truth 75.00" in shown


COLORED = Image.fromarray(IDS[:, ::-1].copy() - np.uint8(7))
COLORED.putpalette(np.array([CITYSCAPES.colors[1], CITYSCAPES.colors[0]], np.uint8).ravel().tolist())


@pytest.mark.parametrize(
    ("name", "values"),
    [("a_labelIds", IDS), ("a_gtFine_labelIds", IDS), ("labelIds/a", IDS), ("a_color", COLORS), ("a", COLORS)],
)
def test_predictions_are_read_as_their_names_say(tmp_path: Path, name: str, values: np.ndarray):
    write(tmp_path / f"p/{name}.png", values)
    write(tmp_path / "t/a_gtFine_labelIds.png", IDS)
    done = score(tmp_path, "--json").ok()
    assert json.loads(done.stdout)["mIoU"] == 100
    assert "predictions read: 1 as" in done.stderr


def test_a_prediction_may_be_named_after_an_image_in_color(tmp_path: Path):
    write(tmp_path / "p/000123_color.png", PREDICTED)
    write(tmp_path / "t/000123.png", TRAIN)
    assert figures(tmp_path)["mIoU"] == HANDMADE


def test_a_prediction_in_two_encodings_counts_once(tmp_path: Path):
    write(tmp_path / "p/a_labelIds.png", IDS)
    write(tmp_path / "p/a_labelTrainIds.png", PREDICTED)
    write(tmp_path / "t/a.png", TRAIN)
    summary = figures(tmp_path)
    assert (summary["images"], summary["pixels"], summary["mIoU"]) == (1, 4, HANDMADE)
    assert summary["predictions_as"] == {"trainIds": 1}


def test_predictions_that_could_be_two_things_are_refused(tmp_path: Path):
    write(tmp_path / "t/a.png", TRAIN)
    write(tmp_path / "p/a.png", IDS + np.uint8(17))
    assert "Nothing was scored: name it NAME_labelIds.png." in score(tmp_path).said(2)
    COLORED.save(tmp_path / "p/a.png")
    assert "its palette's colors and its indices say different classes" in score(tmp_path).said(2)


def test_label_ids_are_cityscapes_whatever_a_name_says(tmp_path: Path):
    write(tmp_path / "t/a.png", PREDICTED)
    write(tmp_path / "p/a_labelIds.png", PREDICTED)
    said = score(tmp_path, "--mapping", "camvid11").said(2)
    assert "its name says labelIds, which are Cityscapes'; camvid11 has none" in said


def test_no_pixel_that_counts_is_an_error(tmp_path: Path):
    write(tmp_path / "p/a.png", PREDICTED)
    write(tmp_path / "t/a.png", np.full_like(TRAIN, 255))
    done = score(tmp_path)
    assert "no pixel could be scored: every pixel of 1 labels" in done.said(2) and not done.stdout
