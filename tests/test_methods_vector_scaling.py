"""Gains and biases per class: the step down the cut, what the session keeps of it, and what takes it back."""

from typing import Any

import pytest
import torch
from tiny import frames, tiny
from torch import Tensor

from allweather import Guard, Session, methods
from allweather.methods.vector_scaling import moved_by_cut, scaled, unscaled
from allweather.ncut import Affinity


def two_halves() -> tuple[Tensor, Tensor]:
    """A black and white image 1×3×8×8, and ln of probabilities that are sure of both halves but for a third class."""
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1.0
    scattered = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) * 2
    return image, torch.stack([3 * (1 - image[0, 0]), 3 * image[0, 0], scattered])[None].log_softmax(1)


def mall_domain(settings: dict[str, Any] | None = None, **options: Any) -> Session:
    return Session(tiny("batchnorm"), methods.make("mall-domain", settings=settings), **options)


def vector(session: Session) -> Tensor:
    return session.state.output["vector"]


def test_a_class_that_is_badly_cut_gives_way():
    image, logits = two_halves()
    affinity = Affinity.from_image(image, sigma_xy=4.0)
    moved = moved_by_cut(unscaled(3, image.device), logits, affinity, 0.2)
    assert moved.shape == (2, 3, 1, 1) and moved.abs().amax((1, 2, 3)).tolist() == pytest.approx([0.2, 0.2])
    gain, bias = moved.flatten(1)
    assert gain[2] > 0 > bias[2]  # a larger gain makes logarithms of probabilities smaller
    after = scaled(logits, moved).softmax(1)
    assert after[:, 2].mean() < logits[:, 2].exp().mean()
    assert affinity.normalized_cut(after) < affinity.normalized_cut(logits.exp())


def test_the_step_goes_down_the_slope():
    image, logits = two_halves()
    affinity, start = Affinity.from_image(image, sigma_xy=4.0), torch.full((2, 3, 1, 1), 0.1)
    step = moved_by_cut(start, logits, affinity, 1e-2) - start
    for part in range(2):
        slopes = []
        for index in range(3):
            ends = [start.clone(), start.clone()]
            ends[0][part, index] -= 5e-3
            ends[1][part, index] += 5e-3
            low, high = (float(affinity.normalized_cut(scaled(logits, end).softmax(1))) for end in ends)
            slopes.append(low - high)
        slope = torch.tensor(slopes)
        torch.testing.assert_close(step[part].flatten(), 1e-2 * slope / slope.abs().max(), atol=2e-4, rtol=0)


def test_a_constant_slope_of_zero_moves_nothing():
    image = torch.rand(1, 3, 6, 6)
    alone = torch.zeros(1, 1, 6, 6)  # one class has no cut
    start = unscaled(1, image.device)
    assert torch.equal(moved_by_cut(start, alone, Affinity.from_image(image), 0.2), start)


@pytest.mark.parametrize("views", [("plain",), ("plain", "mirror")])
def test_the_session_scales_what_it_reports_and_moves_nothing_in_predict(views: tuple[str, ...]):
    image = frames(1)[0]
    still = {"lr": 0.0, "lookahead": 0.0, "views": views}
    session = mall_domain(still)
    plain = mall_domain(still | {"vector_rate": 0.0})
    result = session(image)
    kept = vector(session).clone()
    assert kept.abs().amax((1, 2, 3)).tolist() == pytest.approx([0.2, 0.2])
    expected = scaled(plain(image).logits.log_softmax(0)[None], kept)[0]
    torch.testing.assert_close(result.logits.softmax(0), expected.softmax(0), atol=1e-5, rtol=0)
    session.predict(image)
    assert torch.equal(vector(session), kept)


def test_gains_go_on_along_a_stream_and_back_with_everything_else():
    session = mall_domain(guard=False)
    found = []
    for image in frames(30):
        session(image)
        found.append(float(vector(session).abs().max()))
    assert found[0] < max(found) <= 0.2 / (1 - 0.8)  # a geometric series
    session.reset()
    assert not vector(session).any()


def test_scenes_that_lamps_light_are_not_scaled_and_move_no_gain():
    day, lit = frames(2)
    lit = 0.4 * lit * torch.tensor([1.0, 0.5, 0.3]).view(3, 1, 1)
    session, plain = (mall_domain({"vector_rate": rate}) for rate in (0.2, 0.0))
    assert torch.equal(session(lit).logits, plain(lit).logits)
    assert not vector(session).any()
    beside = [mall_domain({"lr": 0, "lookahead": 0, "bn": "source"}) for _ in range(2)]
    for session, other in zip(beside, (lit, lit.flip(1)), strict=True):
        session(torch.stack([day, other]))
    torch.testing.assert_close(vector(beside[0]), vector(beside[1]), rtol=0, atol=1e-6)
    assert vector(beside[0]).any()


def test_each_image_on_its_own_begins_at_nothing():
    session = Session(tiny("batchnorm"), "mall-sample")
    first, second = frames(2)
    session(first)
    assert not vector(session).any()
    again = session(second).logits
    torch.testing.assert_close(Session(tiny("batchnorm"), "mall-sample")(second).logits, again)


def test_what_the_guard_takes_back_leaves_no_gain():
    strict = Guard(max_drift=0.0, tolerance=0.0, min_kept=1.0, halvings=0)
    session = mall_domain({"lr": 1.0}, guard=strict)
    decision = session(frames(1)[0]).decision
    assert decision.refused and not vector(session).any()


def test_learning_without_a_prediction_moves_no_gain():
    session = mall_domain()
    session.adapt(frames(1)[0])
    assert not vector(session).any()


@pytest.mark.parametrize("views", [("plain",), ("plain", "mirror")])
def test_a_constant_on_all_logits_of_a_pixel_changes_nothing(views: tuple[str, ...]):
    session = mall_domain({"views": views, "feature_sigma": None})  # no rounding of the prediction's own affinity
    image = frames(1)
    plain, shift = session._adapted.predict_plain(image), 3 * frames(1, seed=1)[:, :1]
    here, shifted = (session._adapted.reported(image, logits).logits.softmax(1) for logits in (plain, plain + shift))
    torch.testing.assert_close(here, shifted, atol=1e-3, rtol=0)
