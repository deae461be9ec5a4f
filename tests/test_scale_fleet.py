"""Sessions of a fleet merged: the weighted mean of what moved, a session that goes on, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import frames, other_weights, tiny

from allweather import AllWeatherError, Session, methods
from allweather.scale.fleet import merge
from allweather.session.storage import read_saved, save_session, tell_names


def saved(path: Path, count: int, seed: int, method: str = "mall-domain", model: Any = None, **fields: Any) -> Path:
    settings = ({"lr": 1e-3} if method == "mall-domain" else {}) | fields
    session = Session(model or tiny(), methods.make(method, settings=settings))
    for image in frames(count, seed):
        session(image)
    session.save(path)
    return path


def test_parameters_are_averaged_by_accepted_updates(tmp_path: Path):
    paths = [saved(tmp_path / "a", 3, 0), saved(tmp_path / "b", 1, 1)]
    merged = merge(paths, tmp_path / "m")
    assert merged.weights == {str(paths[0]): 0.75, str(paths[1]): 0.25} and merged.updates == 4 and merged.apart > 0
    a, b, m = (load_file(tmp_path / name) for name in "abm")
    moved = [name for name in m if name.startswith(("parameters.", "output."))]
    assert len(moved) == merged.parameters
    for name in moved:
        assert torch.allclose(m[name].double(), 0.75 * a[name].double() + 0.25 * b[name].double(), atol=1e-7)
    assert not [name for name in m if "statistics" in name or name.startswith("optimizer")]


def test_a_merged_session_goes_on_and_falls_back_to_the_average(tmp_path: Path):
    merge([saved(tmp_path / "a", 3, 0), saved(tmp_path / "b", 1, 1)], tmp_path / "m")
    session = Session(tiny(), methods.MallDomain(lr=1e-3))
    session.load(tmp_path / "m")
    held = load_file(tmp_path / "m")
    good = session._policy.good.tensors
    assert all(torch.equal(held[name], good[name]) for name in held if name.startswith("parameters."))
    for image in frames(3, 5):
        assert session(image).decision.kind == "accepted"
    session.save(tmp_path / "again")
    session.reset()
    assert session._adapted.updates == 0


def reseeded(path: Path) -> Path:
    """A session that has drawn other random numbers, as one of another stream has."""
    tensors, about = read_saved(path)
    tensors["counters.random"][0] ^= 1
    save_session(path, tensors, about)
    return path


def test_equal_sessions_merge_to_themselves(tmp_path: Path):
    paths = [saved(tmp_path / "a", 2, 0), reseeded(saved(tmp_path / "b", 2, 0))]
    assert merge(paths, tmp_path / "m").apart == 0
    a, m = load_file(paths[0]), load_file(tmp_path / "m")
    assert all(torch.equal(a[name], m[name]) for name in a if name.startswith("parameters."))


def damaged(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    return path


def renamed() -> Any:
    model = tiny()
    model.name = "nets.py:build"
    return model


def test_one_network_under_two_names_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tell_names.cache_clear()
    merged = merge([saved(tmp_path / "a", 1, 0), saved(tmp_path / "b", 1, 1, model=renamed())], tmp_path / "m")
    assert merged.updates == 2 and "a session of nets.py:build is taken for one of tiny-batchnorm" in caplog.text


BAD: dict[str, tuple[Callable[[Path], list[Path]], str]] = {
    "one": (lambda at: [saved(at / "a", 1, 0)], "at least two sessions, got 1"),
    "twice": (lambda at: [saved(at / "a", 1, 0), at / "a"], "given twice"),
    "a copy": (
        lambda at: [saved(at / "a", 1, 0), shutil.copy(at / "a", at / "b")],
        "a and .*b hold one session, which would count twice",
    ),
    "another base": (
        lambda at: [saved(at / "a", 1, 0), saved(at / "b", 1, 0, model=other_weights())],
        "is of another base, .*Only sessions of one network, its weights",
    ),
    "another setting": (lambda at: [saved(at / "a", 1, 0), saved(at / "b", 1, 0, lr=1e-2)], "is of lr=0.01"),
    "another method": (
        lambda at: [saved(at / "a", 1, 0), saved(at / "b", 1, 0, "tent", episodic=False, report_after=False)],
        "Only sessions of one network",
    ),
    "nothing learnt": (lambda at: [saved(at / "a", 0, 0), saved(at / "b", 0, 0)], "none of these sessions"),
    "statistics of a stream": (
        lambda at: [saved(at / name, 1, 0, "norm", bn="running") for name in "ab"],
        "holds statistics of its stream",
    ),
    "memory of a method": (lambda at: [saved(at / name, 1, 0, "cotta") for name in "ab"], "holds memory of its method"),
    "damaged": (lambda at: [saved(at / "a", 1, 0), damaged(saved(at / "b", 1, 1))], "is damaged"),
    "no session": (lambda at: [saved(at / "a", 1, 0), at / "none"], "cannot read a session"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_merged(case: str, tmp_path: Path):
    make, said = BAD[case]
    with pytest.raises(AllWeatherError, match=said):
        merge(make(tmp_path), tmp_path / "m")
    assert not (tmp_path / "m").exists()
