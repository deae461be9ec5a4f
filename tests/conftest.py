"""What every test runs under: one thread a process, files in memory, what is slow, and fixtures that files share."""

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

# Before torch and the tests' own processes are started: two workers on two cores must not fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

MEMORY, ENOUGH = Path("/dev/shm"), 4 * 2**30  # a file system in memory, and the free bytes a run may count on there
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH:
    # Thousands of small files are written, synced and deleted: on a disk that is a fifth of the time.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def _is_an_outsiders(module: ModuleType) -> bool:
    """Whether a module lies in a folder of a test's own; installed libraries must not be imported twice."""
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return place is not None and not any(place.startswith(path) for path in (sys.prefix, sys.base_prefix))


@pytest.fixture
def own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports of an outsider's is forgotten after it."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        if not name.startswith("allweather") and _is_an_outsiders(sys.modules[name]):
            del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder, in which it runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where a shell started the tests in its background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch):
    """Workers that this process starts are forked from a server that has imported torch; spawned ones take seconds.

    As spawned ones they have nothing of this process, its environment at the first start apart.
    """
    if os.name == "posix":
        server = get_context("forkserver")
        server.set_forkserver_preload(["allweather.app.pictures", "allweather.scale.work", "allweather.live.process"])
        for place in ("scale.processes", "live.process"):
            monkeypatch.setattr(f"allweather.{place}.get_context", lambda kind: server)


SLOW = {  # whole files that `make quick` leaves out, and what they prove; other files mark single tests
    "test_architecture": "the rules of the house; make check runs them",
    "test_app_output": "outputs on full disks and in other encodings, a real network on real frames",
    "test_app_own": "the how-to pages, from first to last line",
    "test_app_start": "how fast and how quietly commands begin and end",
    "test_app_video": "clips adapted from the command line",
    "test_benchmarks_gpu": "the script for GPUs, every step of it, on the CPU",
    "test_benchmarks_long_stream": "a few frames of the long stream, and its table",
    "test_benchmarks_passes": "the passes of every method and preset, counted again",
    "test_data_json_lines": "records on a full disk",
    "test_data_scenes": "statistics of many procedural scenes",
    "test_docs_claims": "what pages claim; make check runs it",
    "test_docs_export": "the pages on exports, from first to last line",
    "test_docs_live": "the page on cameras, from first to last line",
    "test_docs_serve": "the page on the server, from first to last line",
    "test_docs_site": "the documentation site, built whole, and its notebook",
    "test_docs_streams": "the page on videos, from first to last line",
    "test_export_graphs": "graphs exported, and run by ONNX Runtime",
    "test_import": "what an import loads, in interpreters of its own; make check runs it",
    "test_live_app": "live from the command line",
    "test_live_run": "minutes of a camera",
    "test_live_sources": "cameras that come, go and stop",
    "test_methods_fidelity": "presets named paper against their authors' code",
    "test_models_adaptation": "every network of the catalogue adapted, one of each architecture by five methods",
    "test_models_checkpoints": "whole networks converted, loaded and refused",
    "test_models_ecosystems": "networks of other libraries, adapted and reset",
    "test_models_ecosystems_masks": "networks of other libraries that predict masks",
    "test_models_ecosystems_smp": "networks of segmentation-models-pytorch",
    "test_models_ecosystems_transformers": "networks of transformers",
    "test_models_ecosystems_ultralytics": "networks of ultralytics",
    "test_models_hostile": "files that claim gigabytes or run code",
    "test_models_matlab": "whole MatConvNet files",
    "test_models_parity": "every network against its reference's numbers",
    "test_models_recorded": "networks without a reference fixture against their publishers' numbers",
    "test_ncut_hot_path": "the operator's memory and compiled form",
    "test_nets_robustnet": "whitening and its gradients, on whole networks",
    "test_pictures_enlarge": "a picture of 48 megapixels",
    "test_scale_app": "the command line over many streams: workers, ranks, signals",
    "test_scale_processes": "workers that are killed, interrupted and resumed",
    "test_scale_ray": "workers that are actors of Ray",
    "test_docs_scale": "the page on many streams, from first to last line",
    "test_serve_access": "who may ask the server for what",
    "test_serve_app": "a server in a process of its own",
    "test_serve_browser": "the page in a browser",
    "test_serve_endpoint": "the HTTP endpoint: answers, hostile uploads, bounds",
    "test_serve_page": "what the page does for a visitor, without a browser",
    "test_runs_processes": "two processes on one folder",
}
# begun first, so that no worker is left alone with them
LONGEST = (
    "test_models_adaptation", "test_models_parity", "test_scale_app", "test_scale_processes", "test_docs_site",
    "test_benchmarks_gpu", "test_scale_ray",
)  # fmt: skip


def pytest_configure(config: pytest.Config):
    missing = [name for name in SLOW if not Path(__file__).with_name(f"{name}.py").exists()]
    if missing:
        raise pytest.UsageError(f"SLOW in tests/conftest.py names files that are not there: {', '.join(missing)}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make quick` does not even import what is slow: other libraries take seconds of each worker."""
    return True if config.option.markexpr == "not slow" and collection_path.stem in SLOW else None


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Marks the tests of slow files, and puts the longest files first."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish(session: pytest.Session):
    """Libraries and tests, a million objects, need not be looked through at each collection of garbage."""
    gc.collect()
    gc.freeze()
