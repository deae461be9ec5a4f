"""What every test runs under: one thread a process, and the fixtures that several files share."""

import os
import sys
from collections.abc import Iterator
from types import ModuleType

# Before torch and the tests' own processes are started: two workers on two cores must not fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from allweather.methods import METHODS


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


SLOW = {  # files that `make quick` leaves out, and what they prove
    "test_models_adaptation": "every network of the catalogue under three methods",
    "test_models_parity": "every network against its reference's numbers",
    "test_models_matlab": "whole MatConvNet files",
    "test_models_checkpoints": "whole networks converted, loaded and refused",
    "test_models_hostile": "files that claim gigabytes or run code",
    "test_models_ecosystems": "networks of other libraries, adapted and reset",
    "test_models_ecosystems_smp": "networks of segmentation-models-pytorch",
    "test_models_ecosystems_transformers": "networks of transformers",
    "test_models_ecosystems_ultralytics": "networks of ultralytics",
    "test_pictures_enlarge": "a picture of 48 megapixels",
    "test_data_json_lines": "records on a full disk",
    "test_methods_fidelity": "presets named paper against their authors' code",
    "test_ncut_hot_path": "the operator's memory and compiled form",
    "test_data_scenes": "statistics of many procedural scenes",
    "test_app": "the command line, in processes of its own",
    "test_app_output": "the same, with full disks and other encodings",
    "test_app_own": "the how-to pages, from first to last line",
    "test_app_start": "how fast and how quietly commands begin and end",
    "test_app_video": "clips adapted from the command line",
    "test_export_graphs": "graphs exported, and run by ONNX Runtime",
    "test_docs_live": "the page on cameras, from first to last line",
    "test_docs_streams": "the page on videos, from first to last line",
    "test_live_app": "live from the command line",
    "test_live_run": "minutes of a camera",
    "test_live_sources": "cameras that come, go and stop",
    "test_scale_app": "the command line over many streams: workers, ranks, signals",
    "test_scale_processes": "workers that are killed, interrupted and resumed",
    "test_scale_ray": "workers that are actors of Ray",
    "test_docs_scale": "the page on many streams, from first to last line",
    "test_runs_processes": "two processes on one folder",
}
SAMPLED = ("test_methods_contract", "test_methods_fields")  # of these, what is of no method or of one named here
QUICK_METHODS = ("source", "norm", "tent", "mall-domain")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is slow, and starts the slowest file first, so that two workers end together."""
    methods = sorted(METHODS, key=len, reverse=True)
    for item in items:
        name = item.path.stem
        method = next(
            (method for method in methods if f"[{method}" in item.name or f"-{method}" in item.name), "source"
        )
        if name in SLOW or (name in SAMPLED and method not in QUICK_METHODS):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.stem != "test_models_adaptation")
