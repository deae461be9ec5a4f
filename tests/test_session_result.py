"""A result draws and writes itself: labels that can be scored, colors, and overlays on the picture it came from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from allweather.classes import CITYSCAPES
from allweather.data.images import read_labels
from allweather.errors import AllWeatherError
from allweather.session import Result

LABELS = torch.tensor([[0, 1, 1], [2, 18, 0]])
LOGITS = torch.nn.functional.one_hot(LABELS, 19).movedim(2, 0).float()
IMAGE = torch.full((3, 2, 3), 0.2)  # 51 of 255


def made(logits: torch.Tensor = LOGITS, images: torch.Tensor | None = IMAGE, **changes: object) -> Result:
    given = {"losses": (), "watched": (), "iterations": 0, "stop": "none", "decision": "accepted", "seconds": 0.0}
    return Result(logits, **{**given, "images": images, "classes": CITYSCAPES, **changes})


def test_an_overlay_lies_between_image_and_colors():
    colors = np.array(CITYSCAPES.colors)[LABELS.numpy()]
    drawn = made().overlay()
    assert drawn.dtype == np.uint8
    assert drawn.shape == (2, 3, 3)
    assert (drawn == np.floor((51 + colors.astype(int)) / 2 + 0.5)).all()
    assert (made().overlay(opacity=0) == 51).all()
    assert (made().overlay(opacity=1) == colors).all()


def test_an_overlay_follows_another_picture():
    photograph = np.full((20, 30, 3), 51, np.uint8)
    drawn = made(images=None).overlay(photograph, opacity=1)
    assert drawn.shape == (20, 30, 3)
    assert tuple(drawn[0, 0]) == CITYSCAPES.colors[0]
    assert tuple(drawn[19, 0]) == CITYSCAPES.colors[2]


def test_a_batch_is_drawn_image_by_image():
    both = made(torch.stack([LOGITS, LOGITS.flip(2)]), torch.stack([IMAGE, IMAGE]))
    assert both.overlay().shape == (2, 2, 3, 3)
    assert (both.overlay()[0] == made().overlay()).all()
    assert made(LOGITS[None], IMAGE[None]).overlay().shape == (1, 2, 3, 3)


@pytest.mark.parametrize("size", [None, (6, 4)])
def test_labels_are_written_to_be_looked_at_and_scored(tmp_path: Path, size: tuple[int, int] | None):
    made().save(tmp_path / "new" / "l.png", size=size)
    values = read_labels(tmp_path / "new" / "l.png")
    assert values.shape == ((2, 3) if size is None else (4, 6))
    assert values[0, 0] == 0
    assert values[-1, 0] == 2
    with Image.open(tmp_path / "new" / "l.png") as file:
        assert file.convert("RGB").getpixel((0, 0)) == CITYSCAPES.colors[0]


@pytest.mark.parametrize("kind", ["color", "overlay"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_colors_and_overlays_are_written(tmp_path: Path, kind: str, suffix: str):
    made().save(tmp_path / f"a{suffix}", kind, size=(60, 40))
    with Image.open(tmp_path / f"a{suffix}") as file:
        assert file.size == (60, 40)
        assert file.format == ("PNG" if suffix == ".png" else "JPEG")
        road = np.array(CITYSCAPES.colors[0])
        expected = road if kind == "color" else road / 2 + 51 / 2
        assert np.abs(np.array(file.getpixel((2, 2))) - expected).max() <= (1 if suffix == ".png" else 12)


def test_more_classes_than_a_byte_holds(tmp_path: Path):
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 299]]), 300).movedim(2, 0).float()
    assert made(logits).labels.tolist() == [[0, 299]]
    made(logits).save(tmp_path / "l.png")
    assert read_labels(tmp_path / "l.png").tolist() == [[0, 299]]


MISTAKES = {
    "no image": (lambda path: made(images=None).overlay(), r"pass one, overlay\(image\)"),
    "no image to write": (lambda path: made(images=None).save(path, "overlay"), "did not keep its image"),
    "no classes": (lambda path: made(classes=None).overlay(), "without a class set"),
    "opacity": (lambda path: made().overlay(opacity=2), "opacity: expected a number at least 0 and at most 1, got 2"),
    "opacity as text": (lambda path: made().overlay(opacity="0.5"), "opacity: .* got '0.5'"),
    "0..255": (lambda path: made().overlay(torch.full((3, 4, 6), 51.0)), "divide by 255"),
    "batch and one picture": (lambda path: made(torch.stack([LOGITS] * 2)).overlay(IMAGE), "this is one of 2"),
    "batch": (lambda path: made(torch.stack([LOGITS] * 2)).save(path), "this is one of 2"),
    "kind": (lambda path: made().save(path, "colour"), "Did you mean 'color'"),
    "lossy labels": (lambda path: made().save(path.with_suffix(".jpg")), "a .png, which keeps every class"),
    "suffix": (lambda path: made().save(path.with_suffix(".gif"), "color"), "a .png or .jpg"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named_and_leave_nothing(tmp_path: Path, case: str):
    attempt, message = MISTAKES[case]
    with pytest.raises(AllWeatherError, match=message):
        attempt(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_result_is_shown_without_its_pixels():
    assert "images" not in repr(made())
