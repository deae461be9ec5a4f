"""Variables of plans: all that are not set are named at once, with what each has to hold and who offers it."""

from pathlib import Path

import numpy as np
import pytest
from command_line import allweather
from PIL import Image

from allweather import load_model
from allweather.runs.plan import PlannedRun, read_plan
from allweather.runs.stale import outdated
from allweather.runs.variables import absent_paths, make_method, unset_variables

PLANS = Path(__file__).parents[1] / "plans"
NAMES = ("ACDC", "C_DRIVING", "DARK_ZURICH", "FOGGY_DRIVING", "FOGGY_ZURICH", "NIGHTTIME_DRIVING", "WEIGHTS")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch):
    for name in (*NAMES, "ALLWEATHER_ASSETS", "HERE", "THERE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("plan", "names", "holds"),
    [
        ("thirteen", NAMES, "ACDC, for 64 runs: ACDC as https://acdc.vision.ee.ethz.ch offers it"),
        (
            "thirteen",
            NAMES,
            "best_deeplabv3plus_mobilenet_cityscapes_os16.pth (deeplabv3plus:mobilenet-os16's checkpoint",
        ),
        ("camvid", ("ALLWEATHER_ASSETS",), "camvid/dusk/images (CamVid, offered at https://github.com/"),
        ("table4", ("DARK_ZURICH", "WEIGHTS"), "Dark Zurich as https://www.trace.ethz.ch"),
    ],
)
def test_a_plan_without_its_variables_names_them_once(tmp_path: Path, plan: str, names: tuple[str, ...], holds: str):
    done = allweather("bench", PLANS / f"{plan}.toml", "--out", tmp_path / "runs")
    assert done.returncode == 2
    assert holds in done.stderr
    assert all(done.stderr.count(f" {name}, for ") == 1 and f"{name}=FOLDER" in done.stderr for name in names)
    assert not (tmp_path / "runs").exists()


def test_runs_that_have_theirs_are_made_and_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "images/a.png")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "labels/a.png")
    streams = "".join(
        f'[[streams]]\nname = "{name}"\nimages = "${{{name}}}/images"\nlabels = "${{{name}}}/labels"\n'
        for name in ("HERE", "THERE")
    )
    text = f'[[models]]\nname = "demo:streetnet"\n{streams}[[methods]]\nname = "source"\n'
    (tmp_path / "plan.toml").write_text(text)
    monkeypatch.setenv("HERE", str(tmp_path))
    done = allweather("bench", tmp_path / "plan.toml", "--out", tmp_path / "runs")
    assert done.returncode == 1
    assert "1 of 2 runs need folders" in done.stderr and "THERE, for 1 run: images; labels" in done.stderr
    assert "1 runs done, 0 were there, 0 run elsewhere, 0 failed" in done.stderr
    monkeypatch.setenv("THERE", str(tmp_path))
    again = allweather("bench", tmp_path / "plan.toml", "--out", tmp_path / "runs")
    assert again.returncode == 0 and "not set" not in again.stderr


def test_paths_among_fields_of_a_method_are_sought_as_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def written(source: str) -> PlannedRun:
        text = '[[models]]\nname = "demo:streetnet"\n[[streams]]\nname = "scenes:fog"\n[[methods]]\nname = "eata"\n'
        (tmp_path / "plan.toml").write_text(f'{text}fields = {{ source_images = "{source}" }}\n')
        return read_plan(tmp_path / "plan.toml").runs[0]

    model = load_model("demo:streetnet")
    (tmp_path / "source").mkdir()
    run = written("source")
    assert make_method(run.method, model).source_images == str(tmp_path / "source")
    with monkeypatch.context() as here:
        here.chdir(tmp_path)
        relative = read_plan("plan.toml").runs[0]
    assert (relative, relative.identity, relative.method.folder) == (run, run.identity, str(tmp_path))
    assert run.content["method"]["fields"] == {"source_images": "source"}, "the run is the same from every folder"
    assert not absent_paths([run])
    record = {"session": {"method": {"source_images": "source", "lr": 7.0}}, "model": {}, "images": []}
    assert outdated(record, run, model) == ["session.method.lr"]
    run = written("${THERE}/source")
    assert [unset.name for unset in unset_variables((run,))] == ["THERE"]
    monkeypatch.setenv("THERE", str(tmp_path / "none"))
    assert [absent.path for absent in absent_paths([run])] == [tmp_path / "none/source"]
    assert make_method(written("none").method, model).source_images is None
