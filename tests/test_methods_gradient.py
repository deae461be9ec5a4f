"""What all gradient methods share, step by step in plain torch: optimizer, weight decay, schedule, anchor."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from tiny import frames, pixelwise
from torch import Tensor

from allweather import methods
from allweather.methods.gradient import GradientMethod
from allweather.methods.method import Batch, Objective, State
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
) -> None:
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


def test_the_schedule_ends_at_its_horizon() -> None:
    method = Pull(lr=LR, episodic=False, schedule="poly", horizon=4)
    rates = [method.learning_rate(update) for update in range(6)]
    assert rates == pytest.approx([0.05, 0.05 * 0.75**0.9, 0.05 * 0.5**0.9, 0.05 * 0.25**0.9, 0, 0])


@pytest.mark.parametrize("name", ["tent", "mall-domain", "cotta", "rotta", "sar"])
def test_an_anchor_of_one_holds_every_method_at_the_source(name: str) -> None:
    """Methods that act after an update of their own leave it in place."""
    settings = {"parameters": "all", "lr": 0.1, "anchor": 1.0, "episodic": False}
    settings |= {"every": 1} if name == "rotta" else {}
    session = Session(pixelwise(10.0), methods.make(name, settings=settings), guard=False)
    assert sum(session(image).iterations for image in frames(2)) == 2
    source = pixelwise(10.0).state_dict()
    assert all(torch.equal(value, source[key]) for key, value in session.model.state_dict().items())
