"""Predictions over the mirror image, and one step beyond where the network stands."""

import pytest
import torch
from torch import Tensor

from allweather import Session, load_model, methods
from allweather.session import Guard

FREE = Guard(enabled=False)  # noise is no street: its prediction changes under mirroring beyond any limit


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "fields"), [("norm", {}), ("mall-sample", {"lr": 0.0}), ("tent", {"lr": 0.0})])
def test_a_mirrored_prediction_is_the_mean_over_the_image_and_its_mirror_image(
    name: str, fields: dict[str, float], image: Tensor
) -> None:
    model = load_model("demo:streetnet")
    plain = Session(model, methods.make("norm"))
    mirrored = Session(model, methods.make(name, settings={"mirror": True, **fields}), guard=FREE)
    expected = (plain(image).logits.softmax(0) + plain(image.flip(2)).logits.flip(2).softmax(0)) / 2
    torch.testing.assert_close(mirrored(image).logits.softmax(0), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(plain(image).logits.softmax(0), expected, atol=1e-3)


def test_looking_ahead_changes_the_prediction_and_nothing_that_stays(image: Tensor) -> None:
    model = load_model("demo:streetnet")
    here, ahead = (
        Session(model, methods.make("mall-domain", settings={"lookahead": length}), guard=FREE)
        for length in (0.0, 1e-2)
    )
    for _ in range(2):
        assert not torch.equal(here(image).logits, ahead(image).logits)
        assert torch.equal(here.predict(image), ahead.predict(image))


def test_looking_ahead_is_one_step_of_a_fresh_adam(image: Tensor) -> None:
    model = load_model("demo:streetnet")
    kept = Session(model, methods.make("tent", settings={"lr": 1e-2}), guard=FREE)
    ahead = Session(model, methods.make("tent", settings={"lr": 0.0, "lookahead": 1e-2}), guard=FREE)
    torch.testing.assert_close(kept(image).logits, ahead(image).logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(kept(image).logits, kept.predict(image), atol=1e-3)
