"""What every method must keep, run over the whole table and three tiny networks; a new method needs no test here."""

import gc
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SIZE, equal_in, frames, moved_names, tiny
from torch import Tensor, nn

from allweather import methods
from allweather.errors import AllWeatherError
from allweather.methods.parameters import NORM_AFFINE
from allweather.models.segmenter import Segmenter
from allweather.session import Session


def refused(name: str, preset: str, norm: str) -> bool:
    """Whether the method needs norm layers that the tiny network lacks."""
    if name == "norm":
        return norm != "batchnorm"
    return norm == "none" and getattr(methods.make(name, preset), "parameters", None) in NORM_AFFINE


CASES = [
    (name, preset, norm)
    for name, method in methods.METHODS.items()
    for preset in ("recommended", *method.presets)
    for norm in ("batchnorm", "layernorm", "none")
]


def parameters(cases: list[tuple[str, str, str]]) -> pytest.MarkDecorator:
    """A test over the cases; `make quick` runs each method as recommended on a network with BatchNorm."""
    quick = ("recommended", "batchnorm")
    params = [
        pytest.param(*case, id="-".join(case), marks=() if case[1:] == quick else pytest.mark.slow) for case in cases
    ]
    return pytest.mark.parametrize(("name", "preset", "norm"), params)


every_case = parameters([case for case in CASES if not refused(*case)])
# What a session holds on to is not a matter of the norm layer, but both MALLs adapt otherwise where none is BatchNorm.
with_batchnorm = parameters(
    [case for case in CASES if case[2] == "batchnorm"]
    + [(name, "recommended", "layernorm") for name in ("mall-sample", "mall-domain")]
)


@parameters([case for case in CASES if refused(*case)])
def test_a_refusal_names_the_method_and_the_network(name: str, preset: str, norm: str):
    """Every other case is one that every test below runs: it may not be refused."""
    model = tiny(norm)
    with pytest.raises(AllWeatherError) as refusal:
        Session(model, methods.make(name, preset, model=model))
    assert name in str(refusal.value) and f"tiny-{norm}" in str(refusal.value)


FAILS = 0.45  # added to an image on which `Failing` fails: brighter than any other, and still a picture


class Failing(nn.Module):
    """A network that answers NaN to images brighter than white."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.inner = network

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        white = (1 - 0.406) / 0.225  # the largest value that ImageNet's normalisation gives
        return logits * float("nan") if x.max() > white else logits


def session_for(name: str, preset: str, model: Segmenter, **options: Any) -> Session:
    return Session(model, methods.make(name, preset, model=model), **options)


@cache
def images() -> Tensor:
    """Five frames that no test writes into."""
    return frames(5)


@cache
def expected(name: str, preset: str, norm: str) -> list[Tensor]:
    """What a fresh session gives for `images`, made once for all tests that compare with it."""
    model = tiny(norm)
    torch.manual_seed(1)
    session = session_for(name, preset, model)
    return [session(image).logits for image in images()]


@every_case
def test_the_callers_network_is_untouched(name: str, preset: str, norm: str):
    model = tiny(norm)
    model.train()
    next(model.parameters()).requires_grad_(False)
    values = deepcopy(model.state_dict())
    modes = {key: module.training for key, module in model.named_modules()}
    kinds = {key: type(module) for key, module in model.named_modules()}
    gradients = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    session = session_for(name, preset, model)
    for frame in frames(2):
        session(frame)
    assert equal_in(model.state_dict(), values)
    assert modes == {key: module.training for key, module in model.named_modules()}
    assert kinds == {key: type(module) for key, module in model.named_modules()}
    assert gradients == {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@every_case
def test_reset_is_bitwise_and_repeats_the_first_run(name: str, preset: str, norm: str):
    model = tiny(norm)
    session = session_for(name, preset, model)
    images = frames(3)
    first = [session(frame).logits for frame in images]
    session.reset()
    assert not moved_names(session, model)
    assert all(torch.equal(before, session(frame).logits) for before, frame in zip(first, images, strict=True))


@every_case
def test_same_seed_same_output_whatever_the_callers_random_state(name: str, preset: str, norm: str):
    one, model = expected(name, preset, norm)[:2], tiny(norm)
    torch.manual_seed(2)
    callers = torch.get_rng_state()
    session = session_for(name, preset, model)
    two = [session(image).logits for image in images()[:2]]
    assert torch.equal(callers, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@every_case
def test_only_declared_tensors_move(name: str, preset: str, norm: str):
    model = tiny(norm)
    session = session_for(name, preset, model)
    declared = {*session.state.parameters, *session.state.buffers}
    updates = sum(session(frame).iterations for frame in frames(2))
    moved = moved_names(session, model)
    assert moved <= declared
    if session.method.episodic:
        assert not moved
    elif session.state.parameters and updates:
        assert moved & set(session.state.parameters), "a continual method with parameters moves some"


@every_case
def test_a_frame_that_is_not_finite_changes_nothing(name: str, preset: str, norm: str):
    model = tiny(norm)
    session = session_for(name, preset, model)
    good = frames(1)[0]
    session(good)
    before = deepcopy(session.model.state_dict())
    result = session(torch.full((3, *SIZE), float("nan")))
    assert equal_in(session.model.state_dict(), before)
    if session.state.tensors():
        assert result.decision.kind == "skipped"
    assert session(good).logits.isfinite().all()


@every_case
def test_works_inside_the_callers_inference_mode(name: str, preset: str, norm: str):
    outside = expected(name, preset, norm)[:2]
    with torch.inference_mode():
        session = session_for(name, preset, tiny(norm))
        inside = [session(image.clone()).logits for image in images()[:2]]
    assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))


@every_case
def test_save_and_load_equals_never_having_stopped(name: str, preset: str, norm: str, tmp_path: Path):
    first = session_for(name, preset, tiny(norm))
    for image in images()[:2]:
        first(image)
    first.save(tmp_path / "session.safetensors")
    second = session_for(name, preset, tiny(norm))
    second.load(tmp_path / "session.safetensors")
    found = [second(image).logits for image in images()[2:]]
    assert all(torch.equal(a, b) for a, b in zip(expected(name, preset, norm)[2:], found, strict=True))


@pytest.fixture(scope="module")
def frozen():
    """What has come since the tests were collected need not be looked through either."""
    gc.collect()
    gc.freeze()


@pytest.mark.slow
@pytest.mark.usefixtures("frozen")
@with_batchnorm
def test_memory_is_flat_over_fifty_frames(name: str, preset: str, norm: str):
    session = session_for(name, preset, tiny(norm))
    image = frames(1)[0]

    def live_after(count: int) -> int:
        for _ in range(count):
            session(image)
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    # the guard keeps a copy of the last good state in some phases and the source's alone in others
    early = [live_after(10) for _ in range(3)]
    assert max(live_after(10) for _ in range(2)) <= max(early)


@every_case
def test_a_batch_works_and_keeps_its_shape(name: str, preset: str, norm: str):
    session = session_for(name, preset, tiny(norm))
    result = session(frames(2))
    assert result.logits.shape == (2, 3, *SIZE)
    assert result.labels.shape == (2, *SIZE)
    assert session(frames(1)[0]).logits.shape == (3, *SIZE)


@every_case
def test_predict_after_a_call_is_the_calls_own_prediction_where_nothing_was_learnt(name: str, preset: str, norm: str):
    model = tiny(norm)
    still = {"lr": 0.0, "lookahead": 0.0}
    method = methods.make(name, preset, model=model)
    if not method.episodic and getattr(method, "vector_rate", 0):
        still["vector_memory"] = 0.0
    if norm == "batchnorm" and getattr(method, "bn", None) == "train" and method.episodic:
        still["share"] = 0.0  # the statistics too learn nothing
    known = methods.describe_fields(methods.METHODS[name])
    method = methods.make(name, preset, {key: value for key, value in still.items() if key in known}, model=model)
    session = Session(model, method, guard=False)
    for image in frames(3):
        made = session(image).logits.softmax(0)
        torch.testing.assert_close(session.predict(image).softmax(0), made, atol=2e-6, rtol=1e-5)


@every_case
def test_a_frame_whose_prediction_is_not_finite_is_skipped_and_the_stream_goes_on(name: str, preset: str, norm: str):
    """The network itself fails on one frame; what is reported is then the network's own answer, and nothing moves."""
    model = tiny(norm)
    model.network = Failing(model.network)
    session = session_for(name, preset, model)
    good = frames(2)
    for _ in range(getattr(session.method, "adapt_every", 1)):  # so that it learns from the next one
        session(good[0])
    before = deepcopy(session.model.state_dict())
    result = session(good[1] + FAILS)
    assert result.decision.kind == "skipped" and "finite" in result.decision.reason
    assert equal_in(session.model.state_dict(), before)
    assert session(good[1]).logits.isfinite().all()


@every_case
def test_images_of_any_size_give_a_result_or_a_clear_error(name: str, preset: str, norm: str):
    for shape in ((0, 3, *SIZE), (1, 3, 0, 8), (3, 0, 0)):
        with pytest.raises(AllWeatherError, match="at least one image of at least one pixel"):
            session_for(name, preset, tiny(norm))(torch.zeros(shape))
    for shape in ((3, 1, 32), (3, 24, 1)):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        assert session_for(name, preset, tiny(norm))(image).logits.shape == shape


@every_case
def test_the_default_dtype_changes_nothing(name: str, preset: str, norm: str):
    plain, other = expected(name, preset, norm), tiny(norm)
    torch.set_default_dtype(torch.float64)
    try:
        session = session_for(name, preset, other)
        found = [session(image).logits for image in images()]
    finally:
        torch.set_default_dtype(torch.float32)
    for one, two in zip(plain, found, strict=True):
        assert two.dtype == torch.float32
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)


def test_source_equals_a_plain_forward():
    model, images = tiny("batchnorm"), frames(2)
    with torch.no_grad():
        assert torch.equal(Session(model, methods.Source())(images).logits, model(images))
