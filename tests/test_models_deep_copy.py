"""Functions that a network holds, and that hold the network: in a copy they work on the copy."""

import functools
import threading
import types
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from tiny import CLASSES, TinyNetwork, equal_in, frames, tiny
from torch import Tensor, nn

from allweather import NetworkError, Segmenter, Session
from allweather.methods import Norm, Tent
from allweather.models.copying import independent_copy

FRAMES = frames(3)
NETWORK: Any = None  # a global as a notebook has it
TINY = 1
TAPPED: dict[str, Tensor] = {}


def as_a_lambda(network: TinyNetwork):
    forward = network.forward
    network.forward = lambda x: forward(x)


def under_autocast(network: TinyNetwork):
    network.forward = torch.autocast("cpu", enabled=False)(network.forward)


def as_a_partial(network: TinyNetwork):
    network.forward = functools.partial(lambda network, x: TinyNetwork.forward(network, x), network)


def in_turn(network: TinyNetwork):
    forward = network.forward

    @functools.wraps(forward)
    def again(x: Tensor, depth: int = 2) -> Tensor:
        return again(x, depth - 1) if depth else forward(x)

    network.forward = again


def as_a_method(network: TinyNetwork):
    forward = network.forward
    network.forward = types.MethodType(lambda self, x: forward(x), network)


def by_default(network: TinyNetwork):
    def forward(x: Tensor, network: TinyNetwork = network, *, head: nn.Module = network.head) -> Tensor:
        x = network.stem(x)
        return head(x + network.pooled(x))

    network.forward = forward


def by_global(x: Tensor) -> Tensor:
    return _by_global(x)


def _by_global(x: Tensor) -> Tensor:
    return TinyNetwork.forward(NETWORK, x)


def of_a_notebook(network: TinyNetwork):
    global NETWORK
    NETWORK, network.forward = network, by_global


def in_a_list(network: TinyNetwork):
    parts = {"all": [network.stem, network.pooled, network.head]}

    def forward(x: Tensor) -> Tensor:
        stem, pooled, head = parts["all"]
        x = stem(x)
        return head(x + pooled(x))

    network.forward = forward


def with_a_hook(network: TinyNetwork):
    network.head.register_forward_hook(lambda module, given, out: out * network.stem[1].weight.mean())


def compiled(network: TinyNetwork):
    network.forward = torch.compile(network.forward, backend="eager")


def tapped(network: TinyNetwork, taken: dict[str, Tensor]):
    def keep(module: nn.Module, given: Any, out: Tensor):
        taken["head"] = out

    network.head.register_forward_hook(keep)
    network.taken = taken


class Reader(nn.Module):
    """Reads what a hook leaves in a mapping, as DPT and MiDaS do."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return self.body.taken["head"]


WAYS: list[Callable[[TinyNetwork], None]] = [
    as_a_lambda, under_autocast, as_a_partial, in_turn, as_a_method, by_default, of_a_notebook, in_a_list, with_a_hook,
    compiled,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_session_adapts_its_copy_however_the_network_holds_itself(way: Callable[[TinyNetwork], None]):
    own = tiny().network
    way(own)
    source = {name: value.clone() for name, value in own.state_dict().items()}
    with torch.no_grad():
        before = Segmenter.wrap(own, classes=CLASSES)(FRAMES[:1])[0]
    session = Session(Segmenter.wrap(own, classes=CLASSES), Tent(episodic=False), guard=False)
    torch.testing.assert_close(Session(Segmenter.wrap(own, classes=CLASSES), "source").predict(FRAMES[0]), before)
    assert session(FRAMES[0]).iterations
    adapted = session.predict(FRAMES[0])
    assert not torch.equal(adapted, before)
    assert equal_in(own.state_dict(), source)
    assert all(parameter.grad is None for parameter in own.parameters())
    twin = deepcopy(session)
    twin(FRAMES[1])
    assert torch.equal(session.predict(FRAMES[0]), adapted)
    assert not torch.equal(twin.predict(FRAMES[0]), adapted)
    with torch.no_grad():
        given = Segmenter.wrap(session.network().eval(), classes=CLASSES)(FRAMES[:1])[0]
    torch.testing.assert_close(given, adapted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("taken", [{}, TAPPED], ids=["closure", "global"])
def test_a_hook_writes_where_the_copys_forward_reads(taken: dict[str, Tensor]):
    body = tiny().network
    if taken is TAPPED:
        body.head.register_forward_hook(lambda module, given, out: TAPPED.__setitem__("head", out))
        body.taken = TAPPED
    else:
        tapped(body, taken)
    network = Reader(body).eval()
    with torch.no_grad():
        network(FRAMES[2:])
    stale = taken["head"]
    session = Session(Segmenter.wrap(network, classes=CLASSES), "source")
    plain = Session(tiny(), "source")
    for frame in FRAMES:
        assert torch.equal(session.predict(frame), plain.predict(frame))
    assert taken["head"] is stale


def test_functions_that_hold_nothing_of_the_network_stay_as_they_are():
    counted: list[int] = []

    def count(*_: Any):
        counted.append(TINY)

    network = tiny().network
    network.activation, network.counts = torch.relu, (count, 2)
    network.head.register_forward_hook(count)
    copy = independent_copy(Segmenter.wrap(network, classes=CLASSES)).network
    assert list(copy.head._forward_hooks.values()) == [count]
    assert copy.counts == (count, 2)


def test_a_function_that_cannot_be_made_anew_is_named():
    class Trainer:
        def __init__(self, network: nn.Module):
            self.network, self.lock = network, threading.Lock()

    network = tiny().network
    trainer = Trainer(network)

    def through_the_trainer(x: Tensor) -> Tensor:
        return TinyNetwork.forward(trainer.network, x)

    network.forward = through_the_trainer
    with pytest.raises(NetworkError, match=r"through_the_trainer holds a part of the network in a Trainer: .*lock"):
        independent_copy(Segmenter.wrap(network, classes=CLASSES))


def test_a_network_with_autocast_of_its_own_is_handed_back_with_the_images_statistics():
    network = tiny().network
    network.forward = torch.autocast("cpu")(network.forward)
    session = Session(Segmenter.wrap(network, classes=CLASSES), Norm(share=0.5))
    with torch.no_grad():
        given = Segmenter.wrap(session.network(statistics="image"), classes=CLASSES)(FRAMES[:1])[0]
    torch.testing.assert_close(given.float(), session.predict(FRAMES[0]), atol=0.05, rtol=0.05)
