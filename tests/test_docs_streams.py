"""The page on videos and streams: its snippets run as they stand, where the libraries that they show are installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from clips import clip, scene
from pages import run_line, snippets

from allweather.data import Video

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "video-and-streams.md"
NEEDS = {"to_tensorboard.py": "tensorboard", "to_wandb.py": "wandb", "to_rerun.py": "rerun"}
MADE = {"film.py": "adapted.mp4", "to_tensorboard.py": "logs/events*", "to_wandb.py": "wandb/*", "to_rerun.py": "*.rrd"}

pytestmark = pytest.mark.usefixtures("own_imports")


@pytest.mark.filterwarnings("default")  # of libraries that are not ours
@pytest.mark.parametrize("name", ["film.py", "camera.py", *NEEDS])
def test_a_snippet_runs_as_it_stands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # which would use the network
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "clip.mp4", scene(12, (96, 64)))
    files, commands = snippets(PAGE)
    assert f"python {name}" in commands
    (tmp_path / name).write_text(files[name])
    done = run_line(f"python {name}")
    assert "Traceback" not in done.stderr
    assert name not in MADE or list(tmp_path.glob(MADE[name]))
    if name == "film.py":
        assert "lost: None" in done.stdout and len(list(Video("adapted.mp4"))) == 12
    if name == "camera.py":
        assert done.stdout.count("accepted") == 4


def test_the_command_lines_run_as_they_stand(here: Path):
    clip(here / "clip.mp4", scene(4, (96, 64)))
    lines = [line for line in snippets(PAGE)[1] if line.startswith("allweather")]
    assert len(lines) == 2 and [one.stderr for one in map(run_line, lines) if one.returncode] == []
    assert len(list(Video("film/overlay.mp4"))) == len(list(Path("slow/labels").glob("*.png"))) == 4
    slow, film = Video("slow/overlay.mp4"), Video("film/overlay.mp4")
    assert slow.width < film.width and slow.rate == 5  # two panels beside three
