"""What a session takes as a picture: any kind gives what its tensor gives, and what is none is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CLASSES, SIZE, frames, tiny
from torch import Tensor

from allweather import Session, methods
from allweather.errors import InputError

BYTES = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
TENSOR = torch.from_numpy(BYTES).permute(2, 0, 1).float() / 255
KINDS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: BYTES,
    "bytes backwards": lambda path: np.ascontiguousarray(BYTES[:, ::-1])[:, ::-1],
    "byte tensor": lambda path: torch.from_numpy(BYTES).permute(2, 0, 1),
    "floats, channels last": lambda path: BYTES.astype(np.float64) / 255,
    "PIL image": lambda path: Image.fromarray(BYTES),
    "path": lambda path: path,
    "path as text": str,
}


def session() -> Session:
    return Session(tiny(), methods.Tent(lr=0.01))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Image.fromarray(BYTES).save(tmp_path / "frame.png")
    return tmp_path / "frame.png"


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_picture_gives_what_its_tensor_gives(kind: str, saved: Path):
    picture, expected = KINDS[kind](saved), session()(TENSOR)
    found = session()(picture)
    assert found.logits.shape == (3, *SIZE) and torch.allclose(found.logits, expected.logits, atol=1e-5)
    assert torch.allclose(session().predict(picture), session().predict(TENSOR), atol=1e-5)
    assert torch.allclose(session().adapt([picture]).logits[0], session().adapt(TENSOR).logits, atol=1e-5)


def test_a_list_or_one_more_dimension_is_a_batch():
    images = frames(2)
    batch = session()(images)
    assert batch.logits.shape == (2, 3, *SIZE)
    assert torch.equal(session()(list(images)).logits, batch.logits)
    assert torch.equal(session()([images[0]]).logits, session()(images[:1]).logits)
    assert torch.equal(session()(images.movedim(1, -1)).logits, batch.logits)


def test_a_result_knows_its_picture_and_its_classes():
    result = session()(BYTES)
    assert result.classes == CLASSES and result.images is not None and torch.equal(result.images, TENSOR)
    over = result.overlay()
    assert over.shape == BYTES.shape and (result.overlay(BYTES) == over).all()
    assert session()(frames(2)).overlay().shape == (2, *SIZE, 3)


@pytest.mark.parametrize("verb", ["__call__", "adapt", "predict"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (TENSOR * 255, r"got 0\.\.255, which looks like 0\.\.255: divide by 255"),
        (TENSOR * 4 - 2, "look normalised already"),
        (TENSOR.long(), "expected uint8, or floats in .0, 1.; got torch.int64"),
        (TENSOR[:1], "One channel is a grey picture"),
        (TENSOR[0], "expected a path, a PIL image.*A grey picture needs three equal channels"),
        (None, "expected a path, a PIL image.*got NoneType"),
        (TENSOR[None][:0], "at least one image of at least one pixel"),
        ([], "at least one image of at least one pixel"),
        ("nowhere.png", "nowhere.png: not a readable image"),
    ],
)
def test_what_is_no_picture_is_refused_and_changes_nothing(verb: str, value: object, message: str):
    taken = session()
    with pytest.raises(InputError, match=message):
        getattr(taken, verb)(value)
    assert torch.equal(taken(TENSOR).logits, session()(TENSOR).logits)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_picture_that_is_not_finite_is_skipped_not_refused(bad: float):
    broken: Tensor = TENSOR.clone()
    broken[0, 0, 0] = bad
    result = session()(broken)
    assert result.decision.kind == "skipped" and result.decision.reason == "the image is not finite"
