"""Sessions in threads: two give what each gives alone, one is used by one thread at a time, randomness is their own."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from tiny import COPIES, frames, tiny
from torch import Tensor

from allweather import methods
from allweather.session import Session

FIELDS = {"rotta": {"every": 1}, "cotta": {"lr": 1e-3}}


def session_of(name: str, seed: int) -> Session:
    return Session(tiny(), methods.make(name, settings=FIELDS.get(name, {})), seed=seed)


def run(session: Session, images: Tensor) -> list[Tensor]:
    return [session(image).logits for image in images]


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.METHODS)
def test_two_sessions_in_two_threads_give_what_each_gives_alone(name: str):
    images = frames(6)
    alone = [run(session_of(name, seed), images) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, [session_of(name, seed) for seed in (1, 2)], [images, images]))
    for one, two in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", methods.METHODS)
def test_the_callers_random_state_is_neither_read_nor_moved(name: str):
    one, two = session_of(name, 1), session_of(name, 1)
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    first = run(one, frames(4))
    assert torch.equal(before, torch.get_rng_state())
    assert (numpys == np.random.get_state()[1]).all()  # type: ignore[index]
    torch.manual_seed(4)
    assert all(torch.equal(a, b) for a, b in zip(first, run(two, frames(4)), strict=True))


@pytest.mark.parametrize("name", ["memo", "augco", "cotta", "rotta"])
def test_the_seed_is_what_random_methods_draw_by(name: str):
    images = frames(4)
    one, two = run(session_of(name, 1), images), run(session_of(name, 2), images)
    assert not all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_is_made_between_two_batches(copied: Any, monkeypatch: pytest.MonkeyPatch):
    session, images = session_of("mall-domain", 0), frames(2)
    session(images[0])
    plain, inside, on = type(session.method).after_update, threading.Event(), threading.Event()

    def after_update(*arguments: object):
        plain(*arguments)  # type: ignore[arg-type]
        inside.set()
        on.wait(120)

    monkeypatch.setattr(type(session.method), "after_update", after_update)
    with ThreadPoolExecutor(2) as pool:
        adapting = pool.submit(session, images[1])
        assert inside.wait(120)
        copying = pool.submit(copied, session)
        sleep(0.3)
        assert not copying.done()
        on.set()
        adapting.result()
        other = copying.result()
    assert other._batches == session._batches == 2
    assert torch.equal(other.predict(images[0]), session.predict(images[0]))


def test_one_session_is_used_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch):
    session, image = session_of("mall-domain", 0), frames(1)[0]
    inside, most, gate = 0, 0, threading.Lock()
    plain = type(session.method).objective

    def objective(*arguments: object) -> object:
        nonlocal inside, most
        with gate:
            inside += 1
            most = max(most, inside)
        try:
            return plain(*arguments)  # type: ignore[arg-type]
        finally:
            with gate:
                inside -= 1

    monkeypatch.setattr(type(session.method), "objective", objective)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: session(image).iterations, range(12)))
    assert results == [1] * 12 and most == 1 and session._adapted.updates == 12
