"""The long stream: weather that comes and goes, one confusion matrix a pass, and what its table says of decay."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from allweather.session.guard import KINDS
from benchmarks import long_stream


def test_weather_is_strongest_half_way_and_every_frame_is_a_scene_of_its_own(monkeypatch: pytest.MonkeyPatch):
    asked = []
    render = long_stream.render

    def noted(seed: int, weather: str, size: tuple[int, int], strength: float) -> object:
        asked.append((seed, weather, strength))
        return render(seed, weather, size, strength)

    monkeypatch.setattr(long_stream, "render", noted)
    monkeypatch.setattr(long_stream, "EACH", 3)
    monkeypatch.setattr(long_stream, "SIZE", (32, 16))
    frames = list(long_stream.drive(21))
    assert len({seed for seed, *_ in asked}) == 21
    assert [weather for _, weather, _ in asked[::3]] == [*long_stream.WEATHER, long_stream.WEATHER[0]]
    assert [round(strength, 2) for *_, strength in asked[:3]] == [0.5, 1.0, 0.5]
    image, truth = frames[0]
    assert image.shape == (3, 16, 32) and image.dtype == torch.float32 and truth.shape == (16, 32)
    assert np.array_equal(image.numpy() * 255, np.round(image.numpy() * 255))  # as eight bits hold it


def test_a_pass_has_a_figure_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long_stream, "SIZE", (64, 32))
    monkeypatch.setattr(long_stream, "PASS", 2)
    found = {label: long_stream.measure("demo:streetnet", label, 4) for label in ("source", "mall-domain")}
    assert {label: len(row["mIoU"]) for label, row in found.items()} == {"source": 2, "mall-domain": 2}
    assert all(0 < value <= 100 for row in found.values() for value in row["mIoU"])
    assert sum(found["mall-domain"]["decisions"].values()) == 4


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def measure(name: str, label: str, frames: int, progress: object) -> dict[str, object]:
        asked.append(label)
        if label == "cotta":
            raise KeyboardInterrupt
        return {"mIoU": [1.0], "decisions": {}}

    kept = tmp_path / "long.json"
    arguments = ["long_stream", "--networks", "demo:streetnet", "--frames", "600", "--json", str(kept)]
    monkeypatch.setattr(long_stream, "measure", measure)
    monkeypatch.setattr("sys.argv", arguments)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            long_stream.main()
    assert asked == ["source", "tent", "cotta", "cotta"]
    monkeypatch.setattr("sys.argv", [*arguments, "--methods", "mall-domain,rotta"])
    long_stream.main()
    found = json.loads(kept.read_text())["networks"]["demo:streetnet"]
    assert list(found) == ["source", "tent", "rotta", "mall-domain"]
    monkeypatch.setattr("sys.argv", ["long_stream", "--frames", "1200", "--json", str(kept)])
    with pytest.raises(SystemExit, match="holds streams of 600 frames, not 1200"):
        long_stream.main()


@pytest.mark.parametrize("label", ["mall-domain", "cotta", "rotta"])
def test_a_method_goes_on_from_its_last_hundred_frames(label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"SIZE": (64, 32), "EACH": 2, "PASS": 4}.items():
        monkeypatch.setattr(long_stream, name, value)
    whole = long_stream.measure("demo:streetnet", label, 8)
    progress = long_stream.Progress(tmp_path / "long.json", f"demo:streetnet.{label}")
    render, asked = long_stream.render, []

    def interrupted(seed: int, *rest: object) -> object:
        asked.append(seed - long_stream.SEEDS)
        if asked.count(5) == 1 and asked[-1] == 5:
            raise KeyboardInterrupt
        return render(seed, *rest)

    monkeypatch.setattr(long_stream, "render", interrupted)
    long_stream._rendered.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        long_stream.measure("demo:streetnet", label, 8, progress)
    (kept,) = tmp_path.glob("*.safetensors")
    kept.with_name(kept.name.replace(".4.", ".6.")).write_bytes(kept.read_bytes())  # its figures were not written yet
    assert long_stream.measure("demo:streetnet", label, 8, progress) == whole
    assert asked == [0, 1, 2, 3, 4, 5, 5, 6, 7]
    assert len(list(tmp_path.iterdir())) == 2
    progress.forget()
    assert not list(tmp_path.iterdir())


def test_the_table_tells_gains_and_what_the_last_pass_lost(monkeypatch: pytest.MonkeyPatch):
    none = dict.fromkeys(KINDS, 0)  # as records hold every kind
    rows = {
        "source": {"mIoU": [50.0, 49.0], "decisions": none | {"accepted": 4}},
        "tent": {"mIoU": [52.0, 50.0], "decisions": none | {"accepted": 3, "shrunk": 1}},
    }
    monkeypatch.setattr(long_stream, "benchmark_record", lambda name: {"networks": {"a": rows}})
    lines = long_stream.table().splitlines()
    assert lines[0].split(" | ")[-2:] == ["last − first", "frames that the guard changed |"]
    assert lines[2:] == ["| a | source | 50.00 | 49.00 |  | none |", "| a | tent | +2.00 | +1.00 | -1.00 | 1 shrunk |"]
