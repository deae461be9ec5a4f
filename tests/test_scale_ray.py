"""Streams over actors of Ray: labels of a single process, an actor that dies, a frame that ends every actor."""

import json
import os
import signal
import socket
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from many import Deadly, alone, conduct, labels, paint, same, task_of
from refusals import refusal

from allweather import SettingsError
from allweather.app.pictures import Pictures
from allweather.app.spread import Spread, stretches
from allweather.scale.merged import MergedRecord
from allweather.scale.streams import split
from allweather.scale.work import Line
from allweather.scale.workers import Workers

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'allweather[scale]'"),
    pytest.mark.filterwarnings("ignore"),  # of a library that is not ours
]
COUNTS = {"fog": 5, "rain": 6, "snow": 4}
HERE = Workers(2, 1, "local")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return paint(tmp_path_factory.mktemp("streams"), COUNTS)


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[Any]:
    """One Ray for all tests: it takes seconds to start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        from allweather.scale.on_ray import connect

        paths = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), paths])
        connect(HERE)
        yield ray
        ray.shutdown()
        os.environ["PYTHONPATH"] = paths


def record_of(out: Path) -> MergedRecord:
    return MergedRecord(out, {}, True)


def test_an_actor_that_is_killed_changes_nothing(inputs: list[Path], tmp_path: Path):
    from allweather.scale.on_ray import RayPool

    task = task_of(tmp_path, "mall-domain", save_every=2)
    pool = RayPool(task, HERE)
    killed: list[int] = []

    def heard(lines: list[Line]):
        if lines[0]["name"] == "rain/003" and not killed:
            killed.extend(pool.pids[:1])
            os.kill(killed[0], signal.SIGKILL)

    with record_of(tmp_path) as record:
        conducted = conduct(pool, split(inputs), record, False, heard)
        assert killed and conducted.again == 1 and not conducted.given_up
        assert same(labels(tmp_path, record.done), alone(inputs, "mall-domain"))
    names = [json.loads(line)["name"] for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    assert sorted(names) == sorted(set(names)) and len(names) == sum(COUNTS.values())


def test_frames_that_stand_alone_and_one_that_ends_every_actor(inputs: list[Path], tmp_path: Path):
    task = task_of(tmp_path, "mall-sample", Deadly(Pictures(tmp_path, ("labels",)), "snow/002"))
    spread = Spread(HERE, "folder", 10, 1, sources=split(inputs))
    with record_of(tmp_path) as record:
        spread._map(task, record, 1, lambda lines: record.keep(lines) and None)
        assert record.failures == {"snow/002": "snow/002: given up, its worker ended each time"}
        expected = alone(inputs, "mall-sample")
        del expected["snow/002"]
        assert same(labels(tmp_path, record.done), expected)
        assert not list(stretches(spread.sources, record, True, 1))
    with record_of(tmp_path / "b") as record:
        task = task_of(tmp_path / "b", "mall-sample", next)
        spread._map(task, record, 1, lambda lines: record.keep(lines) and None)
        assert "snow/002: given up, TypeError: 'Outcome'" in record.failures["snow/002"]


def test_an_address_that_nobody_answers_at_is_said_in_seconds():
    from allweather.scale.on_ray import _check_address

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with refusal(r"nobody answers there.*ray start --head"):
            _check_address(f"127.0.0.1:{free.getsockname()[1]}")
    with refusal("expected HOST:PORT", SettingsError):
        _check_address("cluster")


def test_a_cluster_that_does_not_let_us_in_is_one_line_that_says_how(ray_here: Any, monkeypatch: pytest.MonkeyPatch):
    from allweather.scale.on_ray import connect

    def refuse(**options: object):
        raise ConnectionError("Failed to connect to Ray cluster at 192.0.2.2:6379.\nand more")

    monkeypatch.setattr(ray_here, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_here, "init", refuse)
    with refusal(r"^--ray auto: Failed to connect.*ray start --head.*the same RAY_AUTH_TOKEN"):
        connect(Workers(2, 1, "auto"))


def test_a_worker_that_does_not_see_the_folder_says_so(inputs: list[Path], tmp_path: Path):
    from allweather.scale.on_ray import RayPool

    task = task_of(tmp_path, "mall-domain")
    (tmp_path / ".seen").unlink()
    with record_of(tmp_path) as record, refusal(r"does not see .* all machines share"):
        conduct(RayPool(task, Workers(1, 1, "local")), split(inputs), record, False)
