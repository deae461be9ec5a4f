"""Shift detection: what it measures, what it spares, and that it survives reset and restart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refusal
from tiny import CLASSES, frames, tiny
from torch import Tensor, nn

from allweather import methods
from allweather.data.scenes import scene_stream
from allweather.errors import NetworkError, SettingsError
from allweather.models import load_model
from allweather.models.segmenter import Segmenter, Window
from allweather.session import Session, Shift
from allweather.session.shift import hellinger


def watching(norm: str = "batchnorm", method: str = "mall-domain", **shift: Any) -> Session:
    return Session(tiny(norm), methods.make(method), adapt_when="shift", shift=Shift(**shift))


def bright(image: Tensor) -> Tensor:
    return 0.9 + 0.1 * image


def test_the_distance_of_known_distributions():
    zero, one, far = torch.zeros(2), torch.ones(2), torch.full((2,), 1e3)
    assert float(hellinger((zero, one), (zero, one))) == pytest.approx(0, abs=1e-6)
    assert float(hellinger((zero, one), (far, one))) == pytest.approx(1)
    # exp(−¼·1²/2) and √(2·2/5): half of the channels each
    mixed = (torch.tensor([1.0, 0.0]), torch.tensor([1.0, 4.0]))
    expected = 1 - (2.718281828 ** (-1 / 8) + (4 / 5) ** 0.5) / 2
    assert float(hellinger(mixed, (zero, one))) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["mall-domain", "mall-sample", "tent", "norm"])
def test_ordinary_images_are_predicted_plainly_and_shifted_ones_adapted_to(name: str):
    session = watching(method=name)
    ordinary = frames(1)[0]
    plain = Session(tiny(), methods.Norm()).predict(ordinary)
    result = session(ordinary)
    assert (result.stop, result.iterations, result.decision.kind) == ("no shift", 0, "accepted")
    assert torch.equal(result.logits, plain)
    result = session(bright(ordinary))
    assert result.stop != "no shift" and result.iterations == (name != "norm")
    for _ in range(9):  # the smoothed distance comes down again
        result = session(ordinary)
    assert result.stop == "no shift" and torch.equal(result.logits, plain)


def test_always_is_the_default_and_what_shifted_images_give():
    images = [bright(image) for image in frames(4)]
    always, shifted = Session(tiny(), methods.MallDomain()), watching()
    for image in images:
        assert torch.equal(always(image).logits, shifted(image).logits)


@pytest.mark.parametrize(("norm", "reference"), [("batchnorm", "start"), ("layernorm", "auto"), ("none", "start")])
def test_the_first_images_can_be_the_reference(norm: str, reference: str):
    settings = {"parameters": "head.*"} if norm == "none" else {}
    method = methods.Tent(**settings)
    shift = Shift(reference=reference, start=3, smoothing=0)  # type: ignore[arg-type]
    session = Session(tiny(norm), method, adapt_when="shift", shift=shift)
    said = [session(image).iterations for image in (*map(bright, frames(5)), *frames(2))]
    assert said == [0] * 5 + [1] * 2


def test_a_reference_that_is_not_there_is_named():
    with refusal("tiny-layernorm has no BatchNorm statistics", SettingsError):
        watching("layernorm", "tent", reference="source")
    with refusal("Did you mean", SettingsError):
        watching(reference="starts")
    with refusal("adapt_when", SettingsError):
        Session(tiny(), methods.Tent(), adapt_when="sometimes")  # type: ignore[arg-type]
    bare = Segmenter.wrap(nn.Identity(), classes=CLASSES, name="bare")
    with refusal("bare has none", NetworkError):
        Session(bare, methods.Source(), adapt_when="shift")


@pytest.mark.parametrize("reference", ["source", "start"])
def test_reset_and_restart_include_the_detector(reference: Any, tmp_path: Path):
    images = [*frames(3), *map(bright, frames(3)), *frames(4, seed=1)]
    made = {"reference": reference, "start": 2, "smoothing": 0.7}
    whole = watching(**made)
    expected = [whole(image) for image in images]
    assert len({result.stop for result in expected}) > 1
    whole.reset()
    assert all(torch.equal(whole(a).logits, b.logits) for a, b in zip(images, expected, strict=True))
    for stop in (1, 4, 7):
        first, second = watching(**made), watching(**made)
        for image in images[:stop]:
            first(image)
        first.save(tmp_path / "session.safetensors")
        second.load(tmp_path / "session.safetensors")
        for image, wanted in zip(images[stop:], expected[stop:], strict=True):
            found = second(image)
            assert found.stop == wanted.stop and torch.equal(found.logits, wanted.logits)
    with refusal("adapt_when"):
        Session(tiny(), methods.MallDomain()).load(tmp_path / "session.safetensors")


class Odd(nn.Module):
    """A first BatchNorm that runs in training alone, and a second one that is called by keyword."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.auxiliary, self.norm, self.head = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.auxiliary(x)
        return self.head(self.norm(input=x))


class Unused(nn.Module):
    """A BatchNorm that runs in training alone."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x) if self.training else x)


def of_odd(network: nn.Module, method: str = "norm", **shift: Any) -> Session:
    model = Segmenter.wrap(network.eval(), classes=CLASSES, mean=(0,) * 3, std=(1,) * 3)
    return Session(model, method, adapt_when="shift", shift=Shift(**shift))


@pytest.mark.parametrize("reference", ["source", "start"])
def test_layers_that_do_not_run_are_left_out(reference: Any, tmp_path: Path):
    session, plain = (of_odd(network, reference=reference, start=1) for network in (Odd(), nn.Sequential(Odd().norm)))
    for image in (frames(1)[0], bright(frames(1)[0])):
        assert level(session, image) == pytest.approx(level(plain, image), abs=1e-6)
    session.save(tmp_path / "s.safetensors")
    resumed = of_odd(Odd(), reference=reference, start=1)
    resumed.load(tmp_path / "s.safetensors")
    assert level(resumed, frames(1)[0]) == level(session, frames(1)[0])
    with refusal("do not run with each image", NetworkError):
        of_odd(Unused(), reference=reference)(frames(1)[0])


def test_all_windows_that_slide_over_an_image_count():
    whole = of_odd(nn.Sequential(nn.BatchNorm2d(3)))
    model = Segmenter.wrap(nn.Sequential(nn.BatchNorm2d(3)).eval(), classes=CLASSES, mean=(0,) * 3, std=(1,) * 3)
    model.window = Window(16, 16)
    slid = Session(model, "norm", adapt_when="shift", shift=Shift())
    image = frames(1)[0][:, :16].repeat(1, 2, 1)
    image[:, 16:, 16:] *= 0.1  # the last window is unlike the first
    assert level(slid, image) == pytest.approx(level(whole, image), abs=1e-6)


def level(session: Session, image: Tensor) -> float:
    """The distance after the image was looked at."""
    session(image)
    assert session._detector is not None
    return session._detector.level


def test_the_distance_is_an_average_that_forgets():
    images = [frames(1)[0], bright(frames(1)[0]), *frames(2, seed=1)]
    raw, smoothed = watching(method="norm", smoothing=0.0), watching(method="norm", smoothing=0.75)
    expected = level(raw, images[0])
    assert level(smoothed, images[0]) == expected
    for image in images[1:]:
        distance = level(raw, image)
        assert abs(distance - expected) > 1e-3
        expected = 0.75 * expected + 0.25 * distance
        assert level(smoothed, image) == pytest.approx(expected)


@pytest.mark.parametrize("bn", ["running", "train"])
def test_the_reference_stays_where_the_layers_own_statistics_move(bn: str, tmp_path: Path):
    method = methods.Tent(bn=bn, share=0.9, episodic=False)

    def made() -> Session:
        return Session(tiny(), method, adapt_when="shift", shift=Shift(smoothing=0, threshold=0), guard=False)

    session, resumed, image = made(), made(), bright(frames(1)[0])
    first = level(session, image)
    session(torch.rand(3, 24, 32) / 10)
    assert level(session, image) == pytest.approx(first), "along the stream"
    session.save(tmp_path / "session.safetensors")
    resumed.load(tmp_path / "session.safetensors")
    assert level(resumed, image) == pytest.approx(first), "after a restart"
    session.reset()
    assert level(session, image) == pytest.approx(first), "after a reset"


def test_no_hook_stays_on_the_copy_and_the_callers_network_has_none():
    session = watching()
    session(frames(1)[0])
    assert not any(module._forward_hooks for module in session.model.modules())


def test_procedural_weather_is_told_from_a_clear_day():
    session = Session(load_model("demo:streetnet"), methods.Norm(), adapt_when="shift", shift=Shift(smoothing=0))
    for condition, shifted in (("clear", False), ("fog", True), ("snow", True), ("night", True)):
        for frame in scene_stream(condition, range(8100, 8102)):
            assert (session(frame.image).stop != "no shift") == shifted, condition
