"""What each method minimises or predicts, by hand: on a network whose logits are the colours of the pixels."""

from math import exp, log
from typing import Any

import pytest
import torch
from tiny import pixelwise
from torch import Tensor
from torch.nn import functional

from allweather import methods
from allweather.methods.losses import mean_entropy, pixel_entropy
from allweather.methods.method import Batch, Method, Objective, State
from allweather.methods.views import mean_probabilities
from allweather.models.segmenter import Segmenter

GAIN = 5.0


class Setting:
    """A method on `pixelwise(gain)`, asked image by image; nothing is updated."""

    def __init__(self, name: str, gain: float = GAIN, **settings: Any):
        self.model: Segmenter = pixelwise(gain)
        moves = {"parameters": "all"} if "parameters" in methods.describe_fields(methods.METHODS[name]) else {}
        self.method: Method = methods.make(name, settings=moves | settings)
        self.state: State = self.method.begin(self.model)

    def __call__(self, images: Tensor) -> Objective:
        return self.method.objective(self.model, self.state, Batch(images))


def images(count: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(seed))


def image_of(probabilities: list[list[float]]) -> Tensor:
    """1×3×1×N, on which `pixelwise(GAIN)` predicts these distributions, one per pixel."""
    logits = torch.tensor(probabilities).log().T[None, :, None]
    return (logits - logits.amin(1, keepdim=True)) / GAIN


def entropy(probabilities: Tensor, axis: int = 1) -> Tensor:
    return -(probabilities * probabilities.log()).sum(axis)


def test_the_entropys_closed_gradient_is_that_of_its_definition():
    logits = (4 * torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1))).requires_grad_()
    plain = entropy(logits.softmax(1))
    (target,) = torch.autograd.grad((plain * torch.arange(12).view(1, 3, 4)).sum(), logits)
    found = pixel_entropy(logits)
    torch.testing.assert_close(found, plain)
    (gradient,) = torch.autograd.grad((found * torch.arange(12).view(1, 3, 4)).sum(), logits)
    torch.testing.assert_close(gradient, target, rtol=1e-4, atol=1e-5)


def test_the_entropy_can_be_differentiated_twice():
    logits = (2 * torch.randn(1, 5, 3, 4, generator=torch.Generator().manual_seed(1))).requires_grad_()

    def twice(value: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
        (found,) = torch.autograd.grad(gradient.square().sum() + gradient.sin().sum(), logits)
        return found

    weights = torch.arange(12).view(1, 3, 4)
    found, plain = (twice((each * weights).sum()) for each in (pixel_entropy(logits), entropy(logits.softmax(1))))
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(twice(mean_entropy(logits)), twice(entropy(logits.softmax(1)).mean()))


def test_infomax_wants_sure_pixels_of_many_classes():
    seen = images(2)
    probabilities = (GAIN * seen).softmax(1)
    sure, many = entropy(probabilities).mean(), entropy(probabilities.mean((2, 3))).mean()
    assert many > 1.1 * sure
    torch.testing.assert_close(Setting("infomax", diversity_weight=0.7)(seen).loss, sure - 0.7 * many)


def test_self_adaptive_learns_pixels_near_their_classs_best():
    best, near, far, other = [0.9, 0.06, 0.04], [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.25, 0.4, 0.35]
    found = Setting("self-adaptive", threshold=0.7, scales=(1.0,))(image_of([best, near, far, other]))
    assert found.loss.item() == pytest.approx(-(log(0.9) + log(0.7) + log(0.4)) / 3, rel=1e-4)


def test_augco_learns_where_views_agree_or_the_plain_one_is_sure(monkeypatch: pytest.MonkeyPatch):
    """The other view swaps the first and the last class."""
    monkeypatch.setattr("allweather.methods.augco.recoloured", lambda images, *_: images.flip(1))
    agrees, agrees_sure = [0.2, 0.5, 0.3], [0.03, 0.95, 0.02]
    differs, differs_sure = [0.5, 0.3, 0.2], [0.9, 0.06, 0.04]
    found = Setting("augco", threshold=0.8)(image_of([agrees, agrees_sure, differs, differs_sure]))
    assert found.loss.item() == pytest.approx(-(log(0.5) + log(0.95) + log(0.04)) / 3, rel=1e-4)


def test_memo_takes_the_mean_over_the_image_and_its_views(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("allweather.methods.memo.recoloured", lambda images, *_: images.flip(1))
    seen = images()
    probabilities = (GAIN * seen).softmax(1)
    mean = (probabilities + 3 * probabilities.flip(1)) / 4
    torch.testing.assert_close(Setting("memo", augmentations=3)(seen).loss, entropy(mean).mean())


def test_eta_weighs_reliable_pixels_by_how_sure_they_are():
    pixels = [[0.97, 0.02, 0.01], [0.8, 0.1, 0.1], [0.4, 0.3, 0.3]]
    found = Setting("eta", margin=0.6)(image_of(pixels))
    doubts = [float(entropy(torch.tensor(pixel), 0)) for pixel in pixels]
    limit = 0.6 * log(3)
    assert doubts[1] < limit < doubts[2]
    expected = sum(exp(limit - doubt) * doubt for doubt in doubts[:2]) / 2
    assert found.loss.item() == pytest.approx(expected, rel=1e-4)


def test_eta_averages_mean_predictions_along_the_stream():
    setting = Setting("eta", episodic=False, margin=1.0, redundancy=-1.0, decay=0.8)
    seen = images(3)
    expected = torch.zeros(3)
    for index, image in enumerate(seen):
        setting(image[None])
        mean = (GAIN * image).softmax(0).mean((1, 2))
        expected = mean if index == 0 else 0.8 * expected + 0.2 * mean
        torch.testing.assert_close(setting.state.memory["mean"], expected)


def test_sar_averages_the_entropy_along_the_stream():
    setting = Setting("sar", episodic=False, margin=1.0, radius=0.0, recover=0.0, decay=0.8)
    expected = 0.0
    for index, image in enumerate(images(3)):
        shade = image[None] / (1 + index)
        setting(shade)
        value = float(entropy((GAIN * shade).softmax(1)).mean())
        expected = value if index == 0 else 0.8 * expected + 0.2 * value
        assert setting.state.memory["entropy"].item() == pytest.approx(expected, rel=1e-5)


def test_rotta_weighs_remembered_images_by_their_age():
    """Teacher and student are still the same, so that the cross-entropy is the entropy."""
    setting = Setting("rotta", every=1, capacity=3, strength=0.0)
    colours = (0.2 + torch.diag(torch.tensor([0.3, 0.5, 0.7]))).mul(255).round() / 255  # as the memory keeps them
    for colour in colours:  # an image of each class
        found = setting(colour.view(1, 3, 1, 1).expand(1, 3, 6, 8))
    ages = setting.state.memory["bank.ages"]
    assert setting.state.memory["bank.classes"].tolist() == [0, 1, 2] and len(set(ages.tolist())) == 3
    weights = torch.exp(-ages / 3) / (1 + torch.exp(-ages / 3))
    torch.testing.assert_close(found.loss, (weights * entropy((GAIN * colours).softmax(1))).mean())


@pytest.mark.parametrize("updates", [1, 3])
def test_crf_updates_are_whole_steps_of_the_mean_field(updates: int):
    """Q ← softmax(log p + weight · (AQ − Q) / (d − 1)), with A written out."""
    seen = functional.interpolate(images(), scale_factor=2, mode="bilinear")  # 1×3×12×16
    setting = Setting("crf", weight=4.0, updates=updates, scale=1.0, sigma_rgb=60.0, sigma_xy=8.0)
    found = setting(seen).logits.flatten(2)[0]

    places = torch.cartesian_prod(torch.arange(12.0), torch.arange(16.0))
    colours = 255 * seen.flatten(2)[0].T
    apart = torch.cdist(colours, colours).square() / (2 * 60**2) + torch.cdist(places, places).square() / (2 * 8**2)
    affinity = torch.exp(-apart).fill_diagonal_(0)
    unary = (GAIN * seen).flatten(2)[0].log_softmax(0)
    expected = unary
    for _ in range(updates):
        expected = (unary + 4 * expected.exp() @ affinity / affinity.sum(0)).log_softmax(0)
    assert (expected - unary).abs().max() > 1
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(("source", "teacher", "views"), [(1.0, 30.0, True), (30.0, 1.0, False)])
def test_cotta_asks_for_views_where_the_source_is_unsure(source: float, teacher: float, views: bool):
    setting, seen, scales = Setting("cotta", gain=source, threshold=0.8, scales=(0.5, 1.0)), images(), (0.5, 1.0)
    setting.state.memory["weight"].copy_(teacher * torch.eye(3)[:, :, None, None])
    plain = (teacher * seen).softmax(1)
    averaged = mean_probabilities(lambda view: teacher * view, seen, scales)
    assert (plain - averaged).abs().max() > 0.01
    torch.testing.assert_close(setting(seen).logits.softmax(1), averaged if views else plain)


def test_diga_mixes_stream_image_and_network_by_their_shares():
    mixture, instance, decay = 0.3, 0.65, 0.8
    setting = Setting("diga", threshold=0.0, mixture=mixture, instance=instance, decay=decay, temperature=0.5)
    stream = torch.zeros(3, 3)
    for index, image in enumerate(images(3)):
        found = setting(image[None]).logits[0].exp().flatten(1)
        logits = GAIN * image.flatten(1)
        labels = logits.argmax(0)
        features = functional.normalize(logits - logits.mean(0), dim=0)
        own = torch.stack([features[:, labels == kind].mean(1) for kind in range(3)])
        stream = own if index == 0 else decay * stream + (1 - decay) * own
        prototypes = functional.normalize(instance * own + (1 - instance) * stream, dim=1)
        similar = (prototypes @ features / 0.5).softmax(0)
        torch.testing.assert_close(setting.state.memory["prototypes"], stream)
        torch.testing.assert_close(found, (1 - mixture) * logits.softmax(0) + mixture * similar)
