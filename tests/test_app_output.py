"""Outputs in unusual places, and a real network on real frames from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference_fixtures import assets
from test_app import ENVIRONMENT, MODEL, allweather


def test_an_output_folder_may_have_any_name(tmp_path: Path) -> None:
    Image.new("RGB", (48, 32), "gray").save(tmp_path / "a.png")
    out = tmp_path / "night[/x] [bold]"
    done = allweather("adapt", tmp_path / "a.png", *MODEL, "--method", "source", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "night[/x] [bold]" in done.stderr
    assert (out / "labels" / "a.png").exists()


def test_confidence_is_written_as_servers_want_it(tmp_path: Path) -> None:
    Image.new("RGB", (48, 32), "gray").save(tmp_path / "a.png")
    common = ("adapt", tmp_path / "a.png", *MODEL, "--method", "norm", "--out", tmp_path / "out")
    assert allweather(*common, "--confidence").returncode == 0
    written = np.asarray(Image.open(tmp_path / "out" / "confidence" / "a.png"))
    assert written.shape == (32, 48)
    assert written.dtype == np.uint16
    assert 65535 / 19 <= written.min() <= written.max() <= 65535
    assert len(np.unique(written)) > 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("form", [("--json",), ()], ids=["json", "table"])
def test_a_standard_output_that_is_full_ends_with_two(form: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "allweather", "list", "methods", *form]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: standard output")


REAL = {"source": 47.85, "norm": 51.15}  # mIoU in % over every tenth frame


@pytest.mark.parametrize("method", REAL)
def test_a_real_network_on_real_dusk(tmp_path: Path, method: str) -> None:
    dusk = assets() / "camvid" / "dusk"
    weights = assets() / "weights" / "espnetv2" / "espnetv2_s_2.0_city_512x256.pth"
    frames = sorted((dusk / "images").iterdir())[::10]
    done = allweather(
        "adapt", *frames, "--model", "espnetv2:2.0", "--weights", weights, "--size", "480x352", "--method", method,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scored = allweather(
        "score", tmp_path / "out" / "labels", dusk / "labels", "--mapping", "cityscapes-camvid11", "--json"
    )
    summary = json.loads(scored.stdout)
    assert summary["images"] == len(frames)
    assert summary["mIoU"] == pytest.approx(REAL[method], abs=0.3)
