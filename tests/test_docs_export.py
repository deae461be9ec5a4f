"""The pages on exports: their snippets and commands run as they stand, with a film and a frame beside them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import clip, scene
from exported import session_of
from pages import run_line, run_page, snippets
from PIL import Image
from tiny import frames, tiny

from benchmarks import tables
from benchmarks.committed import benchmark_record

pytest.importorskip("onnxruntime")
HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"
pytestmark = pytest.mark.usefixtures("own_imports")


@pytest.fixture
def outside(here: Path) -> Path:
    """A folder far from the package, with what the pages take as given."""
    pictures = scene(3, (96, 64))
    clip(here / "night.mp4", pictures)
    (here / "frames").mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(np.asarray(picture)).save(here / "frames" / f"{index}.png")
    Image.fromarray(np.asarray(pictures[0])).save(here / "frame.png")
    return here


def test_the_page_on_deployment_runs_as_it_stands(outside: Path):
    done = run_page(HOW_TO / "deploy.md", outside)
    assert [one.stderr for one in done if one.returncode] == [] and len(done) == 7
    assert all((outside / out / "overlay.mp4").exists() for out in ("night", "fixed"))
    plain, graph = (one.stdout for one in done[-3:-1])
    assert plain.startswith("classes: [") and graph.endswith("at (64, 96)\n")
    alone = "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('{}'); assert 'allweather' not in sys.modules"
    for name in ("deploy.py", "deploy_onnx.py"):
        subprocess.run([sys.executable, "-c", alone.format(name)], check=True, capture_output=True)


def test_the_page_on_exports_runs_as_it_stands(outside: Path):
    files, commands = snippets(HOW_TO / "export.md")
    (outside / "handed.py").write_text(files["handed.py"])
    assert "python handed.py" in commands
    assert run_line("python handed.py").stdout.startswith("StreetNet ")


def test_the_lines_that_mix_are_what_the_session_does(outside: Path):
    files, _ = snippets(HOW_TO / "export.md")
    written: dict = {}
    exec(files["mixing.py"], written)
    session = session_of(tiny())
    session.export("image.safetensors", statistics="image")
    network = written["load"](tiny().network, "image.safetensors")
    image = frames(1, seed=9)
    torch.testing.assert_close(network(image), session.network()(image), atol=1e-5, rtol=1e-5)


def test_the_table_is_that_of_its_record():
    part = next(tables.MARK.finditer((HOW_TO / "export.md").read_text()))
    assert part[2] == "export" and tables.TABLES["export"]() in part[0]
    found = (benchmark_record("export.json.gz") or {})["networks"]
    assert len(found) == 5
    for row in found.values():
        assert min(row["agreement"].values()) >= 99.9 and row["classes used"] > 1
        for scores in row.get("mIoU", {}).values():
            assert min(scores["stream"], scores["stream, frames given"]) >= scores["session"] - 0.5
