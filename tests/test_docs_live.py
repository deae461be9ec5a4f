"""The page on live: its snippets run as they stand, and its record has the fields that it names."""

import json
import re
import subprocess
import sys
from pathlib import Path

from clips import clip, scene
from pages import run_line, snippets

from allweather.data import Video

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "live.md"


def test_the_page_runs_as_it_stands(here: Path):
    clip(here / "clip.mp4", scene(20, (96, 64)))
    files, commands = snippets(PAGE)
    (here / "watch.py").write_text(files["watch.py"])
    install, shell, script = commands
    assert install.startswith("pip install 'allweather[video]'") and script == "python watch.py"
    assert "frames predicted" in run_line(shell).said()
    said = subprocess.run([sys.executable, "watch.py"], capture_output=True, text=True, check=True)  # starts a process
    assert "learnt from" in said.stdout and said.stderr == ""
    assert (here / "night.session").is_file() and len(list(Video("live.mp4"))) > 0
    fields = re.findall(r"`(\w+)`", PAGE.read_text().rpartition("| of a frame | |")[2])
    lines = [json.loads(line) for name in ("live.jsonl", "watch.jsonl") for line in Path(name).read_text().splitlines()]
    found = {key for line in lines if line["kind"] == "frame" for key in line}
    assert found - {"kind"} <= set(fields) and {"frame", "age", "latency", "dropped", "state", "adapted"} <= found
