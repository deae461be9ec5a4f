"""Predictions over the mirror image, and one step beyond where the network stands."""

from typing import Any

import pytest
import torch
from tiny import frames, tiny
from torch import Tensor

from allweather import Session, load_model, methods
from allweather.session import Guard, Result

FREE = Guard(enabled=False)  # noise is no street: its prediction changes under mirroring beyond any limit


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "fields"), [("norm", {}), ("mall-sample", {"lr": 0.0, "vector_rate": 0.0}), ("tent", {"lr": 0.0})]
)
def test_a_mirrored_prediction_is_the_mean_over_the_image_and_its_mirror_image(
    name: str, fields: dict[str, float], image: Tensor
):
    model = load_model("demo:streetnet")
    plain = Session(model, methods.Norm())
    mirrored = Session(model, methods.make(name, settings={"mirror": True, **fields}), guard=FREE)
    expected = (plain(image).logits.softmax(0) + plain(image.flip(2)).logits.flip(2).softmax(0)) / 2
    torch.testing.assert_close(mirrored(image).logits.softmax(0), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(plain(image).logits.softmax(0), expected, atol=1e-3)


def test_looking_ahead_changes_the_prediction_and_nothing_that_stays(image: Tensor):
    model = load_model("demo:streetnet")
    here, ahead = (
        Session(model, methods.MallDomain(lookahead=length, vector_rate=0.0), guard=FREE)
        for length in (0.0, 1e-2)  # gains and biases would be those of the prediction that looked ahead
    )
    for _ in range(2):
        assert not torch.equal(here(image).logits, ahead(image).logits)
        assert torch.equal(here.predict(image), ahead.predict(image))


def test_looking_ahead_is_one_step_of_a_fresh_adam(image: Tensor):
    model = load_model("demo:streetnet")
    kept = Session(model, methods.Tent(lr=1e-2), guard=FREE)
    ahead = Session(model, methods.Tent(lr=0.0, lookahead=1e-2), guard=FREE)
    torch.testing.assert_close(kept(image).logits, ahead(image).logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(kept(image).logits, kept.predict(image), atol=1e-3)


def test_where_the_steps_stop_early_all_views_are_predicted_and_the_prediction_looks_ahead():
    def after(stop: bool, iterations: int, **settings: Any) -> Result:
        stopping = {
            "stop_tolerance": 0.0,
            "stop_rise": 1e9,
            **({"stop_rise": 0.0, "stop_tolerance": 1e9} if stop else {}),
        }
        values = {"lr": 1e-2, "vector_rate": 0.0, "iterations": iterations, **stopping, **settings}
        return Session(tiny(), methods.MallDomain(**values), guard=FREE)(frames(1)[0])

    views = {"views": ("plain", "mirror")}
    stopped = after(True, 3, report_after=False, lookahead=0.0, **views)
    assert stopped.stop in ("plateau", "rise") and stopped.iterations == 1
    whole = after(False, 2, report_after=False, lookahead=0.0, **views)  # made before the second update
    torch.testing.assert_close(stopped.logits.softmax(0), whole.logits.softmax(0))

    stopped = after(True, 3, lookahead=0.05, views=("plain",))
    assert stopped.stop in ("plateau", "rise") and stopped.iterations == 1
    torch.testing.assert_close(stopped.logits, after(False, 1, lookahead=0.05, views=("plain",)).logits)
    assert not torch.allclose(stopped.logits, after(True, 3, lookahead=0.0, views=("plain",)).logits, atol=1e-3)


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("episodic", [True, False])
def test_without_report_after_the_prediction_is_that_before_the_last_update(mirror: bool, episodic: bool):
    def reported(iterations: int, report_after: bool, mirror: bool = mirror) -> Tensor:
        settings = {"lr": 1e-2, "iterations": iterations, "report_after": report_after, "mirror": mirror}
        method = methods.make("tent", settings={**settings, "episodic": episodic})
        return Session(tiny(), method, guard=FREE)(frames(1)[0]).logits.softmax(0)

    before_the_last = reported(3, report_after=False)
    torch.testing.assert_close(before_the_last, reported(2, report_after=True))
    for other in (reported(1, True), reported(3, True), reported(2, True, mirror=not mirror)):
        assert not torch.allclose(before_the_last, other, atol=1e-3)
