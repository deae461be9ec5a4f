"""What all gradient methods share, in plain torch: optimizer, weight decay, schedule, anchor; the last bias."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny import CLASSES, equal_in, frames, moved_names, pixelwise, tiny
from torch import Tensor, nn

from allweather import apply_delta, methods
from allweather.errors import SettingsError
from allweather.methods.gradient import GradientMethod
from allweather.methods.method import Batch, Objective, State
from allweather.methods.parameters import select_parameters
from allweather.models.segmenter import Segmenter
from allweather.session import Session

TARGET, LR = 3.0, 0.05
UPDATES = 5


@dataclass(frozen=True, kw_only=True)
class Pull(GradientMethod):
    """½ Σ (θ − 3)²: the gradient of each parameter is its distance to 3."""

    name: ClassVar[str] = "pull"
    source: ClassVar[str] = "this test"
    parameters: str = "all"

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        losses = [(parameter - TARGET).square().sum() / 2 for parameter in state.parameters.values()]
        return Objective(model(batch.images), torch.stack(losses).sum())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_optimizers_are_torchs_own(optimizer: str):
    """Bit for bit, and with all that one may ask of them; a state goes from either into the other."""
    generator = torch.Generator().manual_seed(0)
    method = Pull(optimizer=optimizer, lr=LR, weight_decay=0.1)
    parameters = [[nn.Parameter(torch.ones(size)) for size in ((), (7,), (3, 2, 5))] for _ in range(2)]
    ours = method.make_optimizer(parameters[0])
    own = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    theirs = own(parameters[1], **ours.defaults)
    heard: list[torch.optim.Optimizer] = []
    ours.register_step_post_hook(lambda made, *_: heard.append(made))
    for update in range(UPDATES):
        for mine, other in zip(*parameters, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        steps = [each.step(lambda: float(torch.is_grad_enabled())) for each in (ours, theirs)]
        assert steps[0] == steps[1]
        assert all(torch.equal(*pair) for pair in zip(*parameters, strict=True))
        states = deepcopy(ours.state_dict()), deepcopy(theirs.state_dict())
        ours.load_state_dict(states[1])
        theirs.load_state_dict(states[0])
        assert heard == [ours] * (update + 1)
    assert isinstance(ours, own)
    assert (repr(ours), str(states[0])) == (repr(theirs), str(states[1]))
    ours.zero_grad()
    assert [parameter.grad for parameter in parameters[0]] == [None] * 3
    assert type(pickle.loads(pickle.dumps(ours))) is type(ours)


def sgd(start: Tensor, momentum: float, decay: float, rate: Callable[[int], float], anchor: float) -> list[Tensor]:
    place, speed, places = start.clone(), torch.zeros_like(start), []
    for update in range(UPDATES):
        speed = momentum * speed + (place - TARGET) + decay * place
        place = place - rate(update) * speed
        place = place + anchor * (start - place)
        places.append(place)
    return places


def adam(start: Tensor, momentum: float, decay: float, rate: Callable[[int], float], anchor: float) -> list[Tensor]:
    place, mean, square, places = start.clone(), torch.zeros_like(start), torch.zeros_like(start), []
    for update in range(UPDATES):
        gradient = (place - TARGET) + decay * place
        mean = momentum * mean + (1 - momentum) * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased, spread = mean / (1 - momentum ** (update + 1)), square / (1 - 0.999 ** (update + 1))
        place = place - rate(update) * unbiased / (spread.sqrt() + 1e-8)
        place = place + anchor * (start - place)
        places.append(place)
    return places


RATES: dict[str, tuple[dict[str, Any], Callable[[int], float]]] = {
    "constant": ({}, lambda update: LR),
    "poly": ({"schedule": "poly", "horizon": 4}, lambda update: LR * max(0.0, 1 - update / 4) ** 0.9),
}


@pytest.mark.parametrize("rule", [sgd, adam])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize("anchor", [0.0, 0.2])
@pytest.mark.parametrize("iterations", [1, UPDATES])
def test_steps_by_hand(
    rule: Callable[..., list[Tensor]], momentum: float, decay: float, schedule: str, anchor: float, iterations: int
):
    """The same along a stream and within one batch."""
    fields, rate = RATES[schedule]
    method = Pull(
        optimizer=rule.__name__, lr=LR, momentum=momentum, weight_decay=decay, anchor=anchor, episodic=False,
        iterations=iterations, **fields,
    )  # fmt: skip
    session = Session(pixelwise(2.0), method, guard=False)
    parameter = session.state.parameters["weight"]
    start = parameter.detach().clone()
    expected = rule(start, momentum, decay, rate, anchor)
    for image, place in zip(frames(UPDATES // iterations), expected[iterations - 1 :: iterations], strict=True):
        session(image)
        torch.testing.assert_close(parameter.detach(), place, atol=1e-6, rtol=1e-5)


@dataclass(frozen=True, kw_only=True)
class Groups(Pull):
    name: ClassVar[str] = "groups"
    source: ClassVar[str] = "this test"

    def make_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.3}], lr=0.0)


@pytest.mark.parametrize(("fields", "share"), [({}, 1.0), ({"schedule": "poly", "horizon": 4}, 0.75**0.9)])
def test_groups_with_rates_of_their_own_keep_them_times_the_schedule(fields: dict[str, Any], share: float):
    session = Session(pixelwise(2.0), Groups(lr=LR, parameters="all", episodic=False, **fields), guard=False)
    for image in frames(2):
        session(image)
    assert [group["lr"] for group in session._adapted.optimizer.param_groups] == pytest.approx([0.0, 0.3 * share])
    session.reset()
    session(frames(1)[0])
    assert [group["lr"] for group in session._adapted.optimizer.param_groups] == [0.0, 0.3]


def test_the_schedule_ends_at_its_horizon():
    method = Pull(lr=LR, episodic=False, schedule="poly", horizon=4)
    rates = [method.learning_rate(update) for update in range(6)]
    assert rates == pytest.approx([0.05, 0.05 * 0.75**0.9, 0.05 * 0.5**0.9, 0.05 * 0.25**0.9, 0, 0])


@pytest.mark.parametrize("name", ["tent", "mall-domain", "cotta", "rotta", "sar"])
def test_an_anchor_of_one_holds_every_method_at_the_source(name: str):
    """Methods that act after an update of their own leave it in place."""
    settings = {"parameters": "all", "lr": 0.1, "anchor": 1.0, "episodic": False}
    settings |= {"every": 1} if name == "rotta" else {}
    session = Session(pixelwise(10.0), methods.make(name, settings=settings), guard=False)
    assert sum(session(image).iterations for image in frames(2)) == 2
    source = pixelwise(10.0).state_dict()
    assert equal_in(session.model.state_dict(), source)


@pytest.mark.parametrize("name", ["mall-sample", "mall-domain", "tent", "infomax"])
def test_a_logit_bias_moves_one_number_per_class_and_is_exported(name: str, tmp_path: Path):
    settings = {"parameters": "logit-bias", "lr": 0.1, "views": ("plain",), "bn": "source", "episodic": False}
    source = tiny("batchnorm")
    session = Session(source, methods.make(name, settings=settings), guard=False)
    for image in frames(3):
        session(image)
    assert moved_names(session, source) == {"head.3.bias"}
    image = frames(1, seed=7)
    shift = session.model(image) - source(image)
    moved = session.model.state_dict()["network.head.3.bias"] - source.state_dict()["network.head.3.bias"]
    torch.testing.assert_close(shift, moved[:, None, None].expand(1, 3, *shift.shape[2:]), atol=1e-5, rtol=1e-4)
    session.export(tmp_path / "moved.delta.safetensors")
    after = apply_delta(tiny("batchnorm"), tmp_path / "moved.delta.safetensors")
    torch.testing.assert_close(after(image), session.model(image))


def test_a_network_without_such_a_bias_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1, bias=False))
    model = Segmenter.wrap(network.eval(), classes=CLASSES, name="unbiased")
    with pytest.raises(SettingsError, match=r"no convolution or linear layer of unbiased has 3 biases.*norm-affine"):
        Session(model, methods.make("tent", settings={"parameters": "logit-bias"}))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), nn.InstanceNorm2d(3), nn.GroupNorm(3, 3)], ids=str)
def test_a_bias_that_a_norm_layer_takes_away_is_none(norm: nn.Module):
    """Under the batch's statistics it would move by rounding alone, and every update would be accepted."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.Sequential(nn.ConvTranspose2d(8, 3, 1), norm, nn.ReLU()))
    model = Segmenter.wrap(network.eval(), classes=CLASSES, name="normalised")
    with pytest.raises(SettingsError, match=r"normalised has 3 biases with no norm layer behind it"):
        Session(model, methods.make("tent", settings={"parameters": "logit-bias"}))


def test_a_norm_layer_of_other_channels_leaves_the_bias_before_it():
    """As where a network holds its head before the branch that comes next."""

    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(8, 3, 1)
            self.stem = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())
            self.first = nn.Conv2d(3, 8, 3, 1, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.head(self.stem(self.first(image)))

    model = Segmenter.wrap(HeadFirst().eval(), classes=CLASSES)
    assert set(select_parameters(model, "logit-bias", "tent")) == {"head.bias"}


def shrunk(model: Segmenter, factor: float) -> Segmenter:
    """A network whose last norm layer gives `factor` times as much, and whose last layer takes that much less."""
    network = model.network
    norm, last = network.head[1], network.head[3]
    with torch.no_grad():
        norm.weight.mul_(factor)
        norm.bias.mul_(factor)
        last.weight.div_(factor)
    return model


def uneven() -> Segmenter:
    """The tiny network with gains and biases of many sizes."""
    model, generator = tiny("batchnorm"), torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "head.1" in name or "stem.1" in name:
            parameter.data = 0.2 + torch.rand(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize(
    ("name", "fields"),
    [("tent", {"lr": 1e-2, "iterations": 3}), ("tent", {"lr": 0.0, "lookahead": 1e-2}), ("mall-domain", {"lr": 1e-2})],
)
def test_relative_steps_do_not_see_how_large_a_networks_numbers_are(name: str, fields: dict[str, Any]):
    def predicted(model: Segmenter, relative: bool) -> Tensor:
        method = methods.make(name, settings={"relative": relative, **fields})
        session = Session(model, method, guard=False)
        return torch.stack([session(frame).logits for frame in frames(2)])

    def apart(relative: bool) -> float:
        before, after = predicted(uneven(), relative), predicted(shrunk(uneven(), 0.05), relative)
        return float((before - after).abs().max())

    assert apart(relative=True) < 5e-3
    assert apart(relative=False) > 5e-2, "a step of one length moves small numbers far"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_relative_step_is_the_optimizers_times_the_root_mean_square_of_each_tensor(optimizer: str):
    def moved(relative: bool) -> dict[str, Tensor]:
        fields = {"optimizer": optimizer, "lr": 1e-2, "relative": relative, "episodic": False}
        session = Session(uneven(), methods.make("tent", settings=fields), guard=False)
        session.adapt(frames(1)[0])
        return {name: tensor.detach() for name, tensor in session.state.parameters.items()}

    source = dict(uneven().network.named_parameters())
    plain = moved(relative=False)
    for name, value in moved(relative=True).items():
        old = source[name].detach()
        share = max(float(old.square().mean().sqrt()), 1e-3)  # a tensor of zeros still moves
        torch.testing.assert_close(value, old + share * (plain[name] - old), atol=1e-6, rtol=0)
        assert not torch.equal(value, old)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_parameters_that_are_no_real_numbers_never_move(dtype: torch.dtype):
    model = tiny("batchnorm")
    model.network.order = nn.Parameter(torch.arange(3).to(dtype), requires_grad=False)
    chosen = Session(model, methods.make("tent", settings={"parameters": "all"})).state.parameters
    assert "order" not in chosen and len(chosen) == len(list(model.network.parameters())) - 1
    with pytest.raises(SettingsError, match=r"matches nothing.*'norm-affine-late', 'logit-bias', or a pattern") as told:
        select_parameters(model, "order", "tent")
    assert ": order" not in str(told.value)
