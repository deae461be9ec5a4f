"""Plans on videos: a lossless one has the figures of its frames in a folder, one without its end is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clips import clip, cut, noise
from PIL import Image
from refusals import refusal

from allweather.runs.execute import make_record
from allweather.runs.plan import read_plan

PLAN = """
[run]
scoring = "native"
[[models]]
name = "demo:streetnet"
size = "64x48"
[[streams]]
name = "tiny"
images = "${{TINY_ROOT}}/{images}"
labels = "${{TINY_ROOT}}/labels"
[[methods]]
name = "tent"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    frames = noise(4, (80, 60))
    for folder in ("frames", "labels"):
        (tmp_path / folder).mkdir()
    for index, pixels in enumerate(frames):
        Image.fromarray(pixels).save(tmp_path / f"frames/{index:06d}.png")
        Image.fromarray(pixels[..., 0] % 19).save(tmp_path / f"labels/{index:06d}.png")
    clip(tmp_path / "clip.mkv", frames, "ffv1", "bgr0")
    monkeypatch.setenv("TINY_ROOT", str(tmp_path))
    return tmp_path


def record(root: Path, images: str) -> dict[str, Any]:
    (root / "plan.toml").write_text(PLAN.format(images=images))
    return make_record(read_plan(root / "plan.toml").runs[0])


def test_a_lossless_video_has_the_figures_of_its_frames(root: Path):
    video, folder = record(root, "clip.mkv"), record(root, "frames")
    assert len(video["images"]) == 4 and video["figures"] == folder["figures"]
    clip(root / "clip.mkv", [255 - pixels for pixels in noise(4, (80, 60))], "ffv1", "bgr0")
    assert record(root, "clip.mkv")["figures"] != folder["figures"]


FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut off": ("clip.mkv", lambda root: cut(root / "clip.mkv", 0.6), "ends early: .*Figures need the whole file"),
    "not there": ("gone.mkv", lambda root: None, "not a readable video .No such file"),
    "no label": ("clip.mkv", lambda root: (root / "labels/000002.png").unlink(), "1 images have no label, e.g. 000002"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_video_that_cannot_be_measured_is_refused(fault: str, root: Path):
    name, change, message = FAULTS[fault]
    change(root)
    with refusal(message):
        record(root, name)
