"""The script for GPUs: a trial of every step on the CPU, resuming, its tables with and without records."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_tables
from benchmarks.gpu_device import SYNCHRONISES, Meter, count_synchronisations
from benchmarks.gpu_steps import TINY, speed_cases

TRIED = [name for name in gpu.steps(TINY) if name != "speed-compile"]  # the compiler alone takes a minute


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    gpu.main(["--tiny", "--device", "cpu", "--minutes", "600", "--records", str(folder), "--steps", *TRIED])
    return folder


def test_every_step_leaves_a_whole_record(records: Path):
    found = {path.stem: json.loads(path.read_text()) for path in records.glob("*.json")}
    assert set(found) == set(TRIED)
    for record in found.values():
        assert (record["device"], record["tiny"]) == ("CPU", True)
        assert "failed" not in record
    assert not list(records.glob("*.part"))
    rows = found["labels"]["rows"]
    assert all("skipped" in row or row["same_labels"] == 1 for row in rows.values()), "a device agrees with itself"
    assert "same_labels" in rows["mall-domain"]
    speed = found["speed-float32"]["rows"]
    assert set(speed) == set(speed_cases("float32")) and all(row["frames_per_second"] > 0 for row in speed.values())
    assert found["iteration-mobilenet"]["over_tent"]["mall-domain all"] > 0


def test_what_is_done_is_skipped_and_what_failed_is_tried_again(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[str] = []

    def step(name: str, fails: bool) -> Any:
        def measure(scale: Any, meter: Meter) -> dict[str, Any]:
            asked.append(name)
            if fails:
                raise RuntimeError("no memory")
            return {"rows": {}}

        return measure, 10.0

    monkeypatch.setattr(gpu, "steps", lambda scale: {"bad": step("bad", True), "good": step("good", False)})
    run = ["--tiny", "--device", "cpu", "--minutes", "600", "--records", str(tmp_path)]
    for _ in range(2):
        with pytest.raises(SystemExit, match="failed: bad"):
            gpu.main(run)
    assert asked == ["bad", "good", "bad"]
    assert "no memory" in json.loads((tmp_path / "bad.json").read_text())["failed"]
    with pytest.raises(SystemExit):
        gpu.main([*run, "--again"])
    assert asked[-1] == "good"
    gpu.main([*run, "--minutes", "0"])
    assert asked[-1] == "good", "no step begins without time"
    assert "no time left" in capsys.readouterr().err


def test_tables_from_records_and_without(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_tables, "RECORDS", tmp_path)
    empty = {name: make() for name, make in gpu_tables.TABLES.items()}
    assert all("not measured" in text for text in empty.values())
    assert "1.75 / 1.58" in empty["gpu-iteration"], "the paper's ratios"
    (tmp_path / "gpu").symlink_to(records)
    monkeypatch.setattr(gpu_tables, "PAPER", {"demo:streetnet": {"mall-sample": 2, "mall-domain": 1}})
    for name, make in gpu_tables.TABLES.items():
        assert "CPU, torch" in make(), name
    assert "not measured" in gpu_tables.speed(), "nothing was compiled"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "expected a GPU"),
        (["--device", "cpu", "--tiny"], "give another folder"),
        (["--device", "cpu", "--tiny", "--records", "x", "--steps", "labls"], "unknown step labls; known: labels"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str):
    with pytest.raises(SystemExit, match=message):
        gpu.main(arguments)


def test_synchronisations_are_counted_among_other_warnings():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for text in (f"{SYNCHRONISES} CUDA operation", "something else", f"{SYNCHRONISES} CUDA operation"):
            warnings.warn(text, stacklevel=1)
    assert count_synchronisations(said) == 2


def test_a_deadline_ends_repetitions_but_one():
    assert len(Meter(torch.device("cpu"), until=0).times(lambda: None, 0, 9)) == 1
    assert len(Meter(torch.device("cpu")).times(lambda: None, 0, 9)) == 9


def test_the_script_imports_core_dependencies_only():
    names = ("pytest", "matplotlib", "scipy", "torchvision", "transformers", "cv2")
    code = f"import sys, benchmarks.gpu; print([name for name in {names!r} if name in sys.modules])"
    root = gpu.RECORDS.parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
