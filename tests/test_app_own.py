"""An outsider's files: the how-to pages run as they stand, in a folder far from the package; packages; mistakes."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_app import ENVIRONMENT, Done, allweather

from allweather.data.scenes import render

PAGES = sorted((Path(__file__).parents[1] / "docs" / "how-to").glob("own-*.md"))


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with frames and labels of two scenes, in the layouts that the pages name."""
    for place in ("frames", "labels", "roads/val/a/camera", "roads/val/a/classes"):
        (tmp_path / place).mkdir(parents=True)
    for seed in range(2):
        scene = render(seed, "fog", (96, 64))
        for place in ("frames", "roads/val/a/camera"):
            Image.fromarray((scene.rgb * 255).astype(np.uint8)).save(tmp_path / place / f"{seed}.png")
        Image.fromarray(scene.labels).save(tmp_path / "labels" / f"{seed}.png")
        Image.fromarray(scene.labels + 1).save(tmp_path / "roads/val/a/classes" / f"{seed}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(page: Path, folder: Path) -> list[Done]:
    """Writes the files and runs the commands of a page, in order; gives what the commands said."""
    done: list[Done] = []
    for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.S | re.M):
        named = re.match(r"# (\S+\.(?:py|toml))\n", text)
        if kind and named:
            (folder / named[1]).write_text(text)
        elif not kind:
            done += [run_line(line) for line in text.splitlines()]
    return done


def run_line(line: str) -> Done:
    program, *arguments = shlex.split(line)
    if program == "allweather":
        return allweather(*arguments)
    found = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    return Done(found.returncode, found.stdout, found.stderr)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_run_as_they_stand(page: Path, outside: Path) -> None:
    done = run_page(page, outside)
    assert len(done) >= 3
    assert [one.stderr for one in done if one.returncode] == []
    assert sum("your own code" in one.stderr for one in done) >= 1
    assert len(list((outside / "adapted" / "labels").rglob("*.png"))) == 2
    records = [json.loads(path.read_text()) for path in (outside / "runs").glob("*.json")]
    assert len(records) == 2
    assert str(outside) not in json.dumps(records) + (outside / "adapted" / "record.json").read_text()
    table = (outside / "report.md").read_text()
    for record in records:
        assert f"{record['figures']['mIoU']:.2f}" in table
    run = records[0]["run"]
    assert any(".py:" in run[part]["name"] or ".py:" in records[1]["run"][part]["name"] for part in run_parts(run))


def run_parts(run: dict[str, object]) -> list[str]:
    return [part for part in ("model", "stream", "method") if part in run]
