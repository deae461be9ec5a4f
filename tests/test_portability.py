"""What other systems, encodings and devices make of files, names, paths and clocks."""

import inspect
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
import torch
from many import paint, spread
from PIL import Image
from refusals import refusal
from tiny import frames, tiny

from allweather import InputError, NetworkError, Session, SettingsError, writing
from allweather.app.output import check_results
from allweather.data.class_files import find_classes
from allweather.data.datasets.dataset import Dataset, Split
from allweather.live.clock import Clock
from allweather.models.own import parse_arguments
from allweather.models.placing import place
from allweather.pictures.growing import GrowingFile
from allweather.runs import memory
from allweather.runs.plan import read_plan
from allweather.scale import engines, processes, streams
from allweather.session.proportion import root_mean_square

PLAN = """
models = [{ name = "demo:streetnet", size = "64x48" }]
streams = [{ name = "Überlandstraße", sequence = ["scenes:fog"] }]
methods = [{ name = "source" }]
"""


LISTED = Dataset("mine", "Mine", "me", "none", {"val": Split((), listed="list.txt")})


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_of_users_are_read_in_utf_8_whatever_the_locale_says(mark: str, tmp_path: Path):
    (tmp_path / "plan.toml").write_text(mark + PLAN, encoding="utf-8")
    (tmp_path / "yard.toml").write_text(mark + 'names = ["weg", "hütte"]', encoding="utf-8")
    (tmp_path / "list.csv").write_text(mark + "stream,path\nhof,ä.png\n", encoding="utf-8")
    (tmp_path / "list.txt").write_text(mark + "a.png\n", encoding="utf-8")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code = (
        "import sys; from pathlib import Path; from test_portability import said; print(ascii(said(Path(sys.argv[1]))))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-W", "error::EncodingWarning", "-X", "warn_default_encoding", "-c", code, str(tmp_path)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.stdout == ascii(("Überlandstraße", ("weg", "hütte"), ["hof"], ["a"])) + "\n", done.stderr[-2000:]


def said(folder: Path) -> tuple[Any, ...]:
    """What is read of these files, in a process of another locale."""
    plan = read_plan(folder / "plan.toml")
    return (
        plan.runs[0].stream.name,
        find_classes(str(folder / "yard.toml")).names,
        [source.name for source in streams.split([], str(folder / "list.csv"))],
        [sample.name for sample in LISTED.samples(folder)],
    )


def test_a_list_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "list.txt").write_bytes("ä.png".encode("cp1252"))
    with refusal(r"list\.txt: expected UTF-8", InputError):
        LISTED.samples(tmp_path)


@pytest.mark.parametrize("name", ["/data/a", r"\data\a", "C:a", r"C:\data\a", r"\\host\share\a", "../a"])
def test_no_result_leaves_its_folder_by_a_root_or_drive(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "PurePath", PureWindowsPath)
    with refusal("stays below", InputError):
        writing.place_below(Path("out"), name)


def test_a_drive_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with refusal("no such drive"):
        check_results(Path("Z/out"), [])


def test_names_that_differ_by_case_alone_are_refused_where_that_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writing.check_case(tmp_path / "out", ["a/IMG_1", "a/img_1"])  # here it does, or this file could not be looked for
    monkeypatch.setattr(writing, "_tells_case", lambda folder: False)
    with refusal("a/IMG_1 and a/img_1 would be one file", InputError):
        writing.check_case(tmp_path / "out", ["a/IMG_1", "a/img_2", "a/img_1"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cam:1", "cam.", "cam ", "con", "COM1.left", "a|b", "a/b"])
def test_a_stream_has_a_name_that_folders_may_have(name: str, monkeypatch: pytest.MonkeyPatch):
    assert re.search(streams.WINDOWS, name) and not re.search(streams.WINDOWS, "camera-1.left_ü")
    monkeypatch.setattr(streams, "NO_FOLDER", streams.WINDOWS)
    with refusal(r"cannot be a stream's name.*Name it in a list", InputError):
        streams._check([streams.Source(name, ((f"{name}/0", "0.png"),))])


def test_a_saved_session_is_not_held_open(tmp_path: Path):
    session, path = Session(tiny(), "mall-domain"), tmp_path / "session.safetensors"
    session(frames(1)[0])
    session.save(path)
    session.load(path)
    assert path.name not in Path("/proc/self/maps").read_text()


def test_a_film_is_closed_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, unlink = GrowingFile(tmp_path / "a.mp4"), Path.unlink

    def closed(path: Path, missing_ok: bool = False):
        assert file._file.closed
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", closed)
    file.close(keep=False)
    assert not list(tmp_path.iterdir())


class OtherConnection:
    """As Windows' class of pipes, which is beside the one of sockets."""

    def __init__(self, plain: Any):
        self._plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)


@pytest.mark.usefixtures("warm_workers")
def test_workers_are_heard_through_any_class_of_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inputs, add, plain = paint(tmp_path / "in", {"fog": 2}), processes.ProcessPool._add, processes.wait
    wrapped: dict[Any, Any] = {}

    def added(pool: processes.ProcessPool):
        add(pool)
        worker = pool._workers[-1]
        wrapped[worker.connection] = worker.connection = OtherConnection(worker.connection)

    def wait(connections: list[Any], seconds: float) -> list[Any]:
        return [wrapped[ready] for ready in plain([each._plain for each in connections], seconds)]

    monkeypatch.setattr(processes.ProcessPool, "_add", added)
    monkeypatch.setattr(processes, "wait", wait)
    record, _ = spread(inputs, tmp_path / "out", "norm", workers=1)
    assert record.done == {"fog/000", "fog/001"}


def test_as_many_workers_as_cores_hold_threads_where_affinity_is_unknown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert [engines.processes(threads, "cpu") for threads in (1, 4, 16)] == [10, 2, 1]


@pytest.mark.parametrize(("system", "unit"), [("linux", 2**10), ("darwin", 2**20)])
def test_the_peak_of_memory_is_in_mib_everywhere(system: str, unit: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: type("Usage", (), {"ru_maxrss": 512 * unit}))
    assert memory._of_the_whole_process() == 512.0


def test_time_is_counted_finely():
    clock = Clock()
    started = clock.now()
    while (later := clock.now()) == started:
        pass
    assert later - started < 0.01


@pytest.mark.parametrize("reuses", [False, True])
def test_a_port_in_use_is_not_taken(reuses: bool, monkeypatch: pytest.MonkeyPatch):
    shutdown = pytest.importorskip("allweather.serve.shutdown")
    monkeypatch.setattr(shutdown, "REUSES", reuses)
    with shutdown._listening("127.0.0.1", 0) as bound:
        assert bool(bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) == reuses


def test_a_device_without_float64_is_asked_for_none(monkeypatch: pytest.MonkeyPatch):
    plain: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.double

    def double(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_meta:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return plain(tensor)

    monkeypatch.setattr(torch.Tensor, "double", double)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: torch.ones(tensor.shape) if tensor.is_meta else tensor)
    assert root_mean_square(torch.nn.Parameter(torch.empty(3, device="meta"))) == 1.0


def test_a_network_that_a_device_cannot_hold_is_told(monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")

    model = tiny()
    monkeypatch.setattr(type(model), "to", refused)
    with refusal("--device cpu: Cannot convert a MPS Tensor", SettingsError):
        place(model, "cpu", "--device")


def test_a_factory_whose_annotations_only_type_checkers_know(monkeypatch: pytest.MonkeyPatch):
    def build(width: int = 8) -> None: ...

    assert parse_arguments("mine.py:build", build, {"width": "4"}) == {"width": 4}

    def unread(*_: object, **__: object):
        raise NameError("name 'Net' is not defined")  # as Python 3.14 does where it reads annotations late

    monkeypatch.setattr(inspect, "signature", unread)
    with refusal("its signature cannot be read", NetworkError):
        parse_arguments("mine.py:build", build, {})
