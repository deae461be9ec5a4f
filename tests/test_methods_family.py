"""What sets each method apart from the others, on networks small enough to reason about."""

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import frames, moved_names, tiny
from torch import Tensor

from allweather import methods
from allweather.errors import InputError, SettingsError
from allweather.methods.losses import IGNORED, confident_labels, pixel_entropy, reliable
from allweather.methods.method import Batch
from allweather.methods.views import mean_probabilities, recoloured, view_logits
from allweather.session import Guard, Session


def test_views_come_back_onto_the_images_grid():
    images = frames(2)

    def network(x: Tensor) -> Tensor:
        return x * 5

    torch.testing.assert_close(view_logits(network, images, mirror=True), network(images))
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 3, 4), (24, 32), mode="bilinear")
    torch.testing.assert_close(view_logits(network, smooth, 1.5), network(smooth), atol=0.3, rtol=0)
    mean = mean_probabilities(network, images, (1.0,))
    torch.testing.assert_close(mean, network(images).softmax(1))


def test_recolouring_stays_in_range_and_moves_nothing():
    image = torch.linspace(0, 1, 3 * 24 * 32).view(1, 3, 24, 32)
    changed = recoloured(image, 0.3, torch.Generator().manual_seed(0))
    assert 0 <= changed.min() <= changed.max() <= 1
    assert not torch.equal(changed, image)
    assert (changed.flatten().diff() >= 0).all(), "brighter pixels stay brighter"


def test_reliable_pixels_are_those_of_low_entropy():
    logits = torch.tensor([[9.0, 0.1], [0.0, 0.0], [0.0, 0.0]])[None, :, None]
    entropy = pixel_entropy(logits)
    assert entropy[0, 0, 1] > 0.95 * log(3)
    assert reliable(entropy, 0.4, 3).tolist() == [[[True, False]]]


def test_pseudo_labels_leave_unsure_pixels_out():
    probabilities = torch.tensor([[0.9, 0.5], [0.05, 0.3], [0.05, 0.2]])[None, :, None]
    assert confident_labels(probabilities, 0.8).tolist() == [[[0, IGNORED]]]


def run(name: str, images: Tensor, **settings: object) -> Session:
    model = tiny("batchnorm")
    session = Session(model, methods.make(name, settings=settings, model=model), guard=Guard(enabled=False))
    for image in images:
        session(image)
    return session


def test_cotta_restores_and_its_teacher_lags():
    source = tiny("batchnorm")
    everything = run("cotta", frames(2), restore=1.0, lr=0.1)
    assert not moved_names(everything, source), "every number is restored"
    nothing = run("cotta", frames(1), restore=0.0, lr=0.1, teacher=0.9)
    state = nothing.state
    for name, parameter in state.parameters.items():
        student, teacher = parameter.detach() - state.origin[name], state.memory[name] - state.origin[name]
        assert student.any()
        torch.testing.assert_close(teacher, 0.1 * student)


def test_sar_comes_back_when_entropy_collapses(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "allweather.methods.sar")
    source = tiny("batchnorm")
    kept = run("sar", frames(3), margin=1.0, episodic=False, recover=0.0, lr=0.1)
    assert moved_names(kept, source)
    assert not caplog.messages
    back = run("sar", frames(3), margin=1.0, episodic=False, recover=10.0, lr=0.1)
    assert not moved_names(back, source)
    assert len(caplog.messages) == 3 and "below recover=10: the source comes back" in caplog.messages[0]


def test_sar_looks_at_the_steepest_neighbour():
    """With a radius of 0 it is the entropy of reliable pixels; with a larger one the loss is higher."""
    losses = {}
    for radius in (0.0, 0.5):
        model = tiny("batchnorm")
        method = methods.make("sar", settings={"radius": radius, "margin": 1.0}, model=model)
        state = method.begin(model)
        objective = method.objective(model, state, Batch(frames(1)))
        losses[radius] = float(objective.loss.detach() - objective.watched)
    assert losses[0.0] == pytest.approx(0, abs=1e-6)
    assert losses[0.5] > 1e-4


def test_eta_skips_an_image_it_has_seen():
    image = frames(1)[0]
    model = tiny("batchnorm")
    settings = {"episodic": False, "margin": 1.0, "redundancy": 0.05}
    session = Session(model, methods.make("eta", settings=settings, model=model), guard=Guard(enabled=False))
    assert [session(image).iterations for _ in range(2)] == [1, 0]


def test_crf_smooths_within_a_region_and_keeps_its_border():
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1
    truth = (torch.arange(32) >= 16).long().expand(32, 32)
    logits = torch.nn.functional.one_hot(truth, 3).movedim(2, 0)[None] * 2.0 + torch.randn(1, 3, 32, 32)
    crf = methods.METHODS["crf"](weight=3.0)
    smoothed = crf._smoothed(logits, image)
    noisy, clean = (logits.argmax(1)[0] == truth).float().mean(), (smoothed.argmax(1)[0] == truth).float().mean()
    assert noisy < 0.95
    assert clean > 0.99


def test_diga_keeps_its_prototypes_in_float32_where_the_network_runs_in_bf16():
    model, images = tiny("batchnorm"), frames(3)
    settings = {"threshold": 0.0}
    session = Session(model, methods.make("diga", settings=settings, model=model), precision="bf16")
    found = [session(image).logits for image in images][-1]
    assert session.state.memory["prototypes"].dtype == torch.float32
    exact = run("diga", images[:2], **settings)(images[2]).logits
    assert (found.argmax(0) == exact.argmax(0)).float().mean() > 0.95


@pytest.mark.parametrize("name", ["mall-domain", "eata", "cotta", "rotta"])
@pytest.mark.filterwarnings("ignore:eata")
def test_a_momentum_may_be_a_whole_number(name: str):
    kind = type(methods.make(name))
    session = Session(tiny("batchnorm"), kind(momentum=0), guard=Guard(enabled=False))
    assert session(frames(1)[0]).decision.kind == "accepted"


def test_diga_remembers_prototypes_along_the_stream():
    session = run("diga", frames(3), threshold=0.0)
    prototypes = session.state.memory["prototypes"]
    assert prototypes.abs().sum(1).gt(0).any()
    session.reset()
    assert not prototypes.any()
    plain = run("diga", frames(1), threshold=1.0).predict(frames(1)[0])
    assert torch.isfinite(plain).all()


def test_self_adaptive_labels_are_made_once():
    model = tiny("batchnorm")
    method = methods.make("self-adaptive", settings={"threshold": 0.0}, model=model)
    state, batch = method.begin(model), Batch(frames(1))
    method.objective(model, state, batch)
    first = batch.once("labels", lambda: None)
    with torch.no_grad():
        for parameter in state.parameters.values():
            parameter.mul_(3)
    method.objective(model, state, batch)
    assert batch.once("labels", lambda: None) is first


def test_networks_without_batchnorm_have_their_own_settings():
    rates = {norm: methods.make("mall-sample", model=tiny(norm)).lr for norm in ("batchnorm", "layernorm")}
    assert rates["layernorm"] > rates["batchnorm"]
    assert methods.make("mall-sample", "paper", model=tiny("layernorm")) == methods.make("mall-sample", "paper")
    assert methods.make("mall-sample", settings={"lr": 0.5}, model=tiny("layernorm")).lr == 0.5


@pytest.mark.parametrize("preset", ["fast", "best"])
def test_other_presets_keep_what_suits_a_network(preset: str):
    """Whatever a preset does not set itself is as recommended for the network at hand."""
    given = methods.METHODS["mall-domain"].presets[preset]
    found, usual = (
        methods.settings_of(methods.make("mall-domain", name, model=tiny("layernorm")))
        for name in (preset, "recommended")
    )
    assert {name: value for name, value in found.items() if name not in given} == {
        name: value for name, value in usual.items() if name not in given
    }
    assert (
        found["entropy_weight"] == 0 and methods.settings_of(methods.make("mall-domain", preset))["entropy_weight"] == 1
    )


def test_rotta_remembers_each_kind_once_and_the_freshest():
    method = methods.METHODS["rotta"](capacity=3, side=16)
    model = tiny("batchnorm")
    state = method.begin(model)

    def see(category: int, shade: float, sure: float = 9.0):
        logits = torch.zeros(1, 3, 24, 32)
        state.memory["stream.shares"].fill_(1 / 3)
        logits[:, category] = sure
        method._take_up(state, torch.full((1, 3, 24, 32), shade), logits)

    held, images = state.memory["bank.classes"], state.memory["bank.images"]
    for category, shade in ((0, 0.0), (0, 0.2), (1, 0.4), (2, 0.6)):
        see(category, shade)
    assert sorted(held.tolist()) == [0, 1, 2]
    slot = held.tolist().index(0)
    assert images[slot, :, :12, :16].eq(51).all(), "the later image of the class, reduced to the side"
    assert not images[slot, :, 12:].any()
    see(0, 1.0, sure=0.01)
    assert images[slot, 0, 0, 0] == 51, "an unsure image does not displace a sure one"
    assert state.memory["bank.ages"].tolist() == [4, 3, 2]


def test_rotta_learns_now_and_then_and_its_statistics_move_slowly():
    source, images = tiny("batchnorm"), frames(4)
    slow = {"bn": "running", "share": 0.05}
    early = run("rotta", images[:3], **slow)
    assert not moved_names(early, source), "neither parameters nor statistics move between updates"
    late = run("rotta", images, teacher=0.9, lr=0.1, **slow)
    state = late.state
    before = dict(source.network.named_parameters())
    for name, parameter in state.parameters.items():
        student, teacher = parameter.detach() - before[name].detach(), state.memory[name] - before[name].detach()
        torch.testing.assert_close(teacher, 0.1 * student)
    members = [late.method._remembered(state, slot) for slot in late.method._members(state, images)]
    seen = source.network.stem[0](source.preprocessing.apply(torch.stack(members)))
    expected = torch.lerp(source.network.stem[1].running_mean, seen.mean((0, 2, 3)), 0.05)
    torch.testing.assert_close(state.buffers["stem.1.running_mean"], expected)


def test_rotta_leaves_images_of_another_size_out():
    session = run("rotta", frames(3), every=1)
    assert session(torch.rand(3, 32, 24)).iterations == 1
    members = session.method._members(session.state, frames(1))
    assert members and len(members) < int((session.state.memory["bank.classes"] >= 0).sum())


def source_folder(path: Path) -> str:
    for index, frame in enumerate(frames(3, seed=7)):
        pixels = (frame * 255).byte().permute(1, 2, 0).numpy()
        (path / str(index)).mkdir()
        Image.fromarray(pixels).save(path / str(index) / "frame.png")
    return str(path)


def test_eata_weighs_parameters_by_the_squared_gradient_of_source_images(tmp_path: Path):
    model = tiny("batchnorm")
    method = methods.make("eata", settings={"source_images": source_folder(tmp_path), "bn": "source"})
    state = method.begin(model)
    expected = {name: torch.zeros_like(parameter) for name, parameter in state.parameters.items()}
    for frame in frames(3, seed=7):
        logits = model(((frame * 255).byte().float() / 255)[None])
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits, logits.argmax(1)).backward()
        for name, parameter in state.parameters.items():
            expected[name] += parameter.grad.square() / 3
    for name, value in expected.items():
        assert value.any()
        torch.testing.assert_close(state.memory[f"importance.{name}"], value)


def test_eata_reads_source_images_as_streams_are_read(tmp_path: Path):
    deep, shallow = tmp_path / "deep", tmp_path / "shallow"
    grey = (frames(1, seed=7)[0][0] * 255).byte().numpy()
    for folder, pixels in ((deep, grey.astype(np.uint16) * 257), (shallow, grey)):
        folder.mkdir()
        Image.fromarray(pixels).save(folder / "frame.png")
    found = [
        methods.make("eata", settings={"source_images": str(folder)}).begin(tiny("batchnorm")).memory
        for folder in (deep, shallow)
    ]
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])


def test_eata_stays_nearer_the_source_than_eta(tmp_path: Path):
    source, folder = tiny("batchnorm"), source_folder(tmp_path)
    before = {name: value.detach() for name, value in source.network.named_parameters()}

    def way(name: str, **settings: object) -> float:
        shared = {"margin": 1.0, "redundancy": -2.0, "episodic": False, "optimizer": "sgd", "lr": 0.02}
        state = run(name, frames(8), **shared, **settings).state
        return sum(float((value.detach() - before[key]).square().sum()) for key, value in state.parameters.items())

    free = way("eta", report_after=False)
    assert way("eata", source_images=folder, penalty=0.0) == pytest.approx(free)
    assert way("eata", source_images=folder, penalty=1000.0) < 0.9 * free


def test_eata_says_what_it_lacks(tmp_path: Path):
    with pytest.warns(UserWarning, match="choose eta"):
        methods.make("eata").begin(tiny("batchnorm"))
    for folder, reason in ((tmp_path / "absent", "expected a folder"), (tmp_path, "no image")):
        with pytest.raises(SettingsError, match=f"eata.source_images: .*{reason}|eata.source_images: {reason}"):
            methods.make("eata", settings={"source_images": str(folder)}).begin(tiny("batchnorm"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png"):
        methods.make("eata", settings={"source_images": str(tmp_path)}).begin(tiny("batchnorm"))
