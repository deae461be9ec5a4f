"""MALL's loss by hand: closed forms on images of one colour, the affinity written out, and the published preset."""

from typing import Any

import pytest
import torch
from tiny import frames, pixelwise
from torch import Tensor
from torch.nn import functional

from allweather import methods
from allweather.methods.mall import Mall
from allweather.methods.method import Batch, Objective
from allweather.ncut import Affinity
from allweather.session import Session

GAIN = 10.0
SHARES = (0.9, 0.09, 0.01)  # of the classes at every pixel of `plain_image`
# nothing ends the iterations
ENDLESS = {"stop_tolerance": 0.0, "stop_rise": 1e9}


def plain_image(shares: tuple[float, ...] = SHARES) -> Tensor:
    """An image of one colour, 1×3×8×12, on which `pixelwise(GAIN)` predicts `shares` everywhere."""
    logits = torch.tensor(shares).log()
    return ((logits - logits.min()) / GAIN).view(1, 3, 1, 1).repeat(1, 1, 8, 12)


def objective(images: Tensor, gain: float = GAIN, **settings: Any) -> tuple[Objective, Affinity]:
    model = pixelwise(gain)
    method = methods.make("mall-sample", settings={"parameters": "all", **settings})
    state, batch = method.begin(model), Batch(images)
    found = method.objective(model, state, batch)

    def not_made() -> Affinity:
        raise AssertionError("the batch holds no affinity")

    return found, batch.once("affinity", not_made)


def entropy(probabilities: Tensor, axis: int) -> Tensor:
    return -(probabilities * probabilities.log()).sum(axis)


INVERSE = torch.tensor([1 / 0.9, 1 / 0.09, 1 / (0.1 / 3)])  # the rarest class counts as a tenth of an equal share
WEIGHTS: dict[Any, Tensor] = {
    "uniform": torch.ones(3),
    "predicted-mass": torch.tensor(SHARES),
    "inverse-mass": INVERSE / INVERSE.mean(),
    (1.0, 2.0, 3.0): torch.tensor([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("kind", WEIGHTS, ids=str)
@pytest.mark.parametrize(("ncut", "sure", "diverse"), [(0.7, 0.4, 0.3), (2.0, 0.0, 0.0), (0.0, 0.1, 0.9)])
def test_where_all_pixels_agree_a_class_cuts_by_what_it_lacks(kind: Any, ncut: float, sure: float, diverse: float):
    """S_pᵀA(1 − S_p) / dᵀS_p = 1 − s_p, whatever A; both entropies are that of the shares."""
    weights = {"ncut_weight": ncut, "entropy_weight": sure, "diversity_weight": diverse}
    found, _ = objective(plain_image(), class_weights=kind, **weights)
    cut = float((WEIGHTS[kind] * (1 - torch.tensor(SHARES))).sum())
    assert found.watched.item() == pytest.approx(cut, rel=1e-4), "early stopping follows the cut alone"
    unsure = float(entropy(torch.tensor(SHARES), 0))
    assert found.loss.item() == pytest.approx(ncut * cut + (sure - diverse) * unsure, rel=1e-4)


def test_entropy_falls_and_diversity_rises_on_means_of_two_by_two_pixels():
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    found, _ = objective(images, gain=6, scale=0.5, ncut_weight=0.0, entropy_weight=0.4, diversity_weight=0.3)
    probabilities = functional.avg_pool2d(6 * images, 2).softmax(1)
    unsure, diverse = entropy(probabilities, 1).mean(), entropy(probabilities.mean((2, 3)), 1).mean()
    assert diverse > 1.2 * unsure
    torch.testing.assert_close(found.loss, 0.4 * unsure - 0.3 * diverse)


@pytest.mark.parametrize("scale", [0.5, 1.0])
@pytest.mark.parametrize("feature_sigma", [None, 0.3, 0.1])
def test_the_affinity_and_its_cut_are_as_written(scale: float, feature_sigma: float | None):
    """exp(−|c_i−c_j|²/2σ_rgb² − |x_i−x_j|²/2σ_xy² − |p_i−p_j|²/2σ_f²), all on the reduced grid."""
    coarse = torch.rand(1, 3, 3, 4, generator=torch.Generator().manual_seed(1))
    images = functional.interpolate(coarse, scale_factor=4, mode="bilinear")  # 1×3×12×16
    height, width = int(12 * scale), int(16 * scale)
    settings = {"sigma_rgb": 40.0, "sigma_xy": 8.0, "rank": height * width, "scale": scale}
    found, affinity = objective(images, gain=4, feature_sigma=feature_sigma, **settings)

    small = functional.interpolate(images, (height, width), mode="bilinear", antialias=True)
    scores = functional.interpolate(4 * images, (height, width), mode="bilinear").softmax(1).flatten(2)[0]
    places = torch.cartesian_prod(torch.arange(float(height)), torch.arange(float(width)))
    apart = torch.cdist(small.flatten(2)[0].T * 255, small.flatten(2)[0].T * 255).square() / (2 * 40**2)
    apart += torch.cdist(places, places).square() / (2 * (8 * scale) ** 2)
    if feature_sigma:
        apart += torch.cdist(scores.T, scores.T).square() / (2 * feature_sigma**2)
    expected = torch.exp(-apart)  # N×N

    impulses = torch.eye(height * width).view(1, -1, height, width)
    torch.testing.assert_close(affinity.apply(impulses).flatten(2)[0], expected, atol=0.015, rtol=0)
    cut = sum(s @ expected @ (1 - s) / (expected.sum(1) @ s) for s in scores)
    torch.testing.assert_close(found.watched, cut, atol=0, rtol=5e-3)


def test_of_images_learnt_from_at_half_their_size_the_width_is_half():
    reduced = frames(1)
    halved, whole = (objective(reduced, **of) for of in ({"adapt_scale": 0.5, "sigma_xy": 16.0}, {"sigma_xy": 8.0}))
    assert torch.equal(halved[0].watched, whole[0].watched)


def test_the_rank_keeps_to_its_limit():
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    ranks = {most: objective(images, max_rank=most)[1].rank for most in (3, 40, 96)}
    assert ranks == {3: 3, 40: 40, 96: 96}, "noise needs more than is allowed"
    assert objective(images, rank=5)[1].rank == 5


def test_the_affinity_is_that_of_the_first_prediction_at_every_iteration(monkeypatch: pytest.MonkeyPatch):
    made = []
    plain = Mall.affinity

    def counted(self: Mall, images: Tensor, probabilities: Tensor) -> Affinity:
        made.append(probabilities)
        return plain(self, images, probabilities)

    monkeypatch.setattr(Mall, "affinity", counted)
    settings = {"parameters": "all", "iterations": 4, "lr": 0.1, **ENDLESS}
    session = Session(pixelwise(GAIN), methods.make("mall-sample", settings=settings), guard=False)
    for image in frames(2):
        made.clear()
        assert session(image).iterations == 4
        first = functional.interpolate(GAIN * image[None], scale_factor=0.25, mode="bilinear").softmax(1)
        assert len(made) == 1
        torch.testing.assert_close(made[0], first)


STATED = {  # by the paper and its supplement: the entire network moves, and Eq. 1 is the whole loss
    "parameters": "all", "ncut_weight": 1.0, "entropy_weight": 0.0, "diversity_weight": 0.0, "feature_sigma": None,
    "anchor": 0.0, "lookahead": 0.0, "views": ["plain"], "vector_rate": 0.0,
}  # fmt: skip
SCRIPTS = {  # of the authors; the paper gives no optimizer, rate, width or mode of BatchNorm
    "optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "poly", "bn": "train",
    "share": 0.1, "sigma_rgb": 15.0, "sigma_xy": 100.0, "scale": 0.5, "relative": False,
}  # fmt: skip
RECONSTRUCTED = {"class_weights": "uniform", "scores": "softmax", "report_after": True}  # nobody says
PRESETS = {
    "mall-sample": {"episodic": True, "iterations": 5, "horizon": 5},  # stated, scripts, reconstructed
    "mall-domain": {"episodic": False, "iterations": 1, "horizon": 1000},  # stated, reconstructed, reconstructed
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_preset(name: str):
    expected = STATED | SCRIPTS | RECONSTRUCTED | PRESETS[name]
    found = methods.settings_of(methods.make(name, "paper"))
    assert {field: found[field] for field in expected} == expected
    assert expected.keys() >= methods.METHODS[name].presets["paper"].keys(), "every field of the preset is listed"


def test_three_steps_of_the_published_preset_in_plain_torch():
    colours = [plain_image(shares) for shares in (SHARES, (0.2, 0.5, 0.3), (0.05, 0.15, 0.8))]
    session = Session(pixelwise(GAIN), methods.make("mall-domain", "paper"), guard=False)
    weight, bias = (GAIN * torch.eye(3)).requires_grad_(), torch.zeros(3, requires_grad=True)
    velocity = [torch.zeros(3, 3), torch.zeros(3)]
    for update, image in enumerate(colours):
        result = session(image[0])
        cut = (1 - (weight @ image[0, :, 0, 0] + bias).softmax(0)).sum()
        assert result.losses == pytest.approx([cut.item()], rel=1e-4) and result.iterations == 1
        gradients = torch.autograd.grad(cut, (weight, bias))
        rate = 0.01 * (1 - update / 1000) ** 0.9
        with torch.no_grad():
            for parameter, gradient, speed in zip((weight, bias), gradients, velocity, strict=True):
                speed.mul_(0.9).add_(gradient + 5e-4 * parameter)
                parameter.sub_(rate * speed)
    moved = session.model.state_dict()
    torch.testing.assert_close(moved["network.weight"][:, :, 0, 0], weight.detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(moved["network.bias"], bias.detach(), atol=1e-6, rtol=1e-6)
