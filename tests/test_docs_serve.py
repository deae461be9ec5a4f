"""The page on serving: its commands and snippets run as they stand, and its limits are those of the code."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from pages import snippets
from PIL import Image
from serving import encoded, picture, server

from allweather.serve.limits import Limits

pytest.importorskip("gradio", reason="the extra web")
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "serve.md"
HERE = "http://127.0.0.1:7860"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's commands need curl")
def test_the_page_runs_as_it_stands(here: Path):
    for number, name in enumerate(("frame.png", "frame2.png")):
        (here / name).write_bytes(encoded(picture(number)))
    files, (install, start, *commands) = snippets(PAGE)
    assert install.startswith("pip install 'allweather[web]'") and start.startswith("allweather serve ")
    said: dict[str, str] = {}
    with server(*shlex.split(start)[2:]) as running:
        for name, text in files.items():
            (here / name).write_text(text.replace(HERE, running.address))
        for command in commands:
            words = shlex.split(command.replace(HERE, running.address))
            words[0] = sys.executable if words[0] == "python" else words[0]
            said[command] = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    predict, client, delete, health, metrics = said.values()
    assert predict == "" and np.asarray(Image.open("labels.png")).shape == (64, 96)
    assert client.splitlines()[1].startswith("frame2.png ") and Path("labels-frame2.png").is_file()
    assert json.loads(delete) == {"removed": "camera-7"} and json.loads(health)["streams"] == 0
    assert 'allweather_requests_total{status="200"} 3.0' in metrics


def test_the_application_is_one_for_a_server_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import runpy

    from fastapi.testclient import TestClient

    for name in ("app.py", "larger.py"):
        (tmp_path / name).write_text(snippets(PAGE)[0][name])
    monkeypatch.syspath_prepend(tmp_path)
    larger = runpy.run_path(str(tmp_path / "larger.py"))
    serving = larger["adapting"].state.serving
    assert serving.limits.waiting == 32
    with TestClient(larger["larger"], base_url="http://localhost") as served:
        assert served.get("/seg/v1/health").json()["status"] == "ok" and serving.begun
    assert serving.ending.is_set(), "the larger application ends it"


def test_the_limits_are_those_of_the_code():
    table = PAGE.read_text().partition("| `--limit NAME=VALUE` |")[2].partition("\n\n")[0]
    names = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:]))
    assert names == [field.name for field in fields(Limits)], "each with its default, in this order"
    counts = [int(text.replace(",", "")) for text in re.findall(r"(?<![\d.,])[\d,]*\d(?= ?[,|])", table)]
    defaults = Limits()
    for name in ("pictures", "network_pixels", "waiting", "streams", "visitors", "iterations", "passes"):
        assert getattr(defaults, name) in counts, name
