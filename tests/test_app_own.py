"""An outsider's files: the how-to pages run as they stand, in a folder far from the package; packages; mistakes."""

import json
import re
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from command_line import allweather
from pages import run_page
from PIL import Image
from torch import nn

from allweather import SettingsError, methods
from allweather.data.datasets.own import OWN_DATASETS
from allweather.data.scenes import render
from allweather.methods.own import ADAPTATIONS
from allweather.plugins import code_digest, own_fault

PAGES = sorted((Path(__file__).parents[1] / "docs/how-to").glob("own-*.md"))

pytestmark = pytest.mark.usefixtures("own_imports")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with frames and labels of two scenes, in the layouts that the pages name."""
    for place in ("frames", "labels", "roads/val/a/camera", "roads/val/a/classes"):
        (tmp_path / place).mkdir(parents=True)
    for seed in range(2):
        scene = render(seed, "fog", (96, 64))
        for place in ("frames", "roads/val/a/camera"):
            Image.fromarray((scene.rgb * 255).astype(np.uint8)).save(tmp_path / place / f"{seed}.png")
        Image.fromarray(scene.labels).save(tmp_path / f"labels/{seed}.png")
        Image.fromarray(scene.labels + 1).save(tmp_path / f"roads/val/a/classes/{seed}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_run_as_they_stand(page: Path, outside: Path):
    done = run_page(page, outside)
    assert len(done) >= 3
    assert [one.stderr for one in done if one.returncode] == []
    assert sum("your own code" in one.stderr for one in done) >= 1
    assert len(list(outside.glob("*-out/labels/**/*.png"))) == 2
    records = [json.loads(path.read_text()) for path in outside.glob("*-runs/*.json")]
    assert len(records) == 2
    own, table = (next(outside.glob(name)).read_text() for name in ("*-out/record.json", "*.md"))
    assert str(outside) not in json.dumps(records) + own
    for record in records:
        assert f"{record['figures']['mIoU']:.2f}" in table
    named = [spec for record in records for spec in map(record["run"].get, ("model", "stream", "method"))]
    assert {len(spec["code"]) for spec in named if ".py:" in spec["name"]} == {64}


NETS = """
import torch
from torch import nn
calls = []
def build(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.Conv2d(width, 19, 1))
def fixed() -> nn.Module:
    torch.manual_seed(1)
    return build()
"""
METHOD = """
from dataclasses import dataclass
from typing import ClassVar
from allweather.methods.tent import Tent
@dataclass(frozen=True, kw_only=True)
class Mine(Tent):
    name: ClassVar[str] = "mine"
"""
PLAN = """
[[models]]
name = "mynets.py:fixed"
[[streams]]
name = "frames"
images = "{0}/frames"
labels = "{0}/labels"
[[methods]]
name = "source"
[[methods]]
name = "mymethod.py:Mine"
"""


@pytest.fixture
def lab(outside: Path) -> Path:
    """The same folder with a network file, a method file and a plan in it; commands run from elsewhere."""
    (outside / "lab").mkdir()
    (outside / "lab/mynets.py").write_text(NETS)
    (outside / "lab/mymethod.py").write_text(METHOD)
    (outside / "lab/plan.toml").write_text(PLAN.format(outside))
    return outside / "lab"


def test_a_plan_s_files_lie_beside_it_and_what_changes_is_made_again(lab: Path):
    command = ("bench", lab / "plan.toml", "--out", lab / "runs")
    done = allweather(*command)
    done.ok()
    assert "2 runs done" in done.stderr and "running" in done.stderr
    assert "2 were there" in allweather(*command).stderr
    (lab / "mymethod.py").write_text(METHOD + "# another thought\n")
    told = allweather(*command).stderr
    assert "1 runs done, 1 were there" in told and "then run.method.code (mymethod.py:Mine) has changed. Plans" in told
    (lab / "mynets.py").write_text(NETS + "# another thought\n")
    told = allweather(*command).stderr
    assert "2 runs done, 0 were there" in told and told.count("run.model.code (mynets.py:fixed) has changed") == 2
    assert len(list((lab / "runs").glob("*.json"))) == 2
    allweather("report", lab / "runs", "--out", lab / "r.md", "--format", "md").ok()
    (lab / "mynets.py").unlink()
    allweather("report", lab / "runs", "--out", lab / "r.md", "--format", "md").ok()
    assert "cannot read" in allweather(*command).stderr


def test_a_plan_s_paths_are_sought_from_its_folder_alone(lab: Path, monkeypatch: pytest.MonkeyPatch):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 19, 1))
    torch.save(network.state_dict(), lab / "w.pth")
    plan = PLAN.replace("{0}/", "").replace(':fixed"', ':build"\nweights = "w.pth"')
    (lab / "plan.toml").write_text(plan)
    command = ("bench", "lab/plan.toml", "--out", "runs")
    done = allweather(*command)
    assert "2 failed" in done.said(1)
    here = "for 2 runs; it is there from the current folder"
    assert f"(a plan's paths are sought from its folder): {lab}/frames, {here} {lab}/labels, {here} " in done.stderr
    for place in ("frames", "labels"):
        (lab.parent / place).rename(lab / place)
    done = allweather(*command)
    assert done.returncode == 0 and "not there" not in done.stderr, done.stderr
    assert "2 runs done" in allweather(*command, "--labels").stderr
    report = ("report", lab.parent / "runs", "--out", lab / "r.html", "--frames", 1)
    done = allweather(*report)
    assert "names frames, labels as its plan does: start the report in" in done.said(2)
    monkeypatch.chdir(lab)
    assert "2 were there" in allweather("bench", "plan.toml", "--out", "../runs").stderr
    allweather(*report).ok()
    for place in ("frames", "labels"):
        (lab / place).rename(lab.parent / place)
    (lab / "plan.toml").write_text(plan.replace('"frames"\nl', '"~/frames"\nl').replace('"labels"', '"${HERE}/labels"'))
    monkeypatch.setenv("HOME", str(lab.parent))
    monkeypatch.setenv("HERE", "..")  # as a shell has it: from the current folder
    monkeypatch.chdir(lab.parent / "roads")
    assert "2 runs done" in allweather("bench", "../lab/plan.toml", "--out", "../again").stderr


def test_a_run_is_not_resumed_with_other_code(lab: Path):
    command = ("adapt", lab.parent / "frames", "--model", f"{lab}/mynets.py:fixed", "--out", lab / "out")
    (lab / "b").mkdir()
    (lab / "b/mynets.py").write_text("def view(network, images):\n    return network(images)\n")
    command += ("--method", f"{lab}/mymethod.py:Mine", "--set", f"views=plain,{lab}/b/mynets.py:view")
    allweather(*command).ok()
    record = json.loads((lab / "out/record.json").read_text())
    assert record["model"]["name"] == "mynets.py:fixed" and [*record["code"]][:2] == ["model", "method"]
    allweather(*command, "--resume").ok()
    for name in ("mymethod.py", "b/mynets.py"):
        text = (lab / name).read_text()
        (lab / name).write_text(f"{text}# another thought\n")
        done = allweather(*command, "--resume")
        assert "another run: code." in done.said(2)
        (lab / name).write_text(text)


NO_GO = {
    "a condition": ("assert image.shape[2] == 512", "AssertionError: no message"),
    "an index": ("return [][1]", "IndexError: list index out of range"),
    "a layer": ("return nn.Conv2d(5, 19, 1)(image)", "RuntimeError: "),
}


@pytest.mark.parametrize("case", NO_GO)
def test_a_network_that_fails_on_a_picture_is_named(case: str, lab: Path):
    body, said = NO_GO[case]
    (lab / "no_go.py").write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n"
        f"    def forward(self, image):\n        {body}\n        return image\n"
        "def build():\n    return Net()\n"
        "def meta():\n    with torch.device('meta'):\n        return nn.Conv2d(3, 19, 1)\n"
    )
    command = ("adapt", lab.parent / "frames", "--out", lab / "out", "--method", "source")
    done = allweather(*command, "--model", f"{lab}/no_go.py:build")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"the network no_go.py:build failed: no_go.py, line 5: {said}" in done.stderr
    done = allweather(*command, "--model", f"{lab}/no_go.py:meta")
    assert "no_go.py:meta gives a network without values: weight lies on" in done.said(2)


def test_a_tilde_is_the_home_folder_wherever_a_path_begins(lab: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(lab))
    done = allweather("adapt", "frames", "--model", "~/mynets.py:fixed", "--method=~/mymethod.py:Mine", "--out=~/out")
    done.ok()
    assert len(list(lab.glob("out/labels/*"))) == 2 and not Path("~").exists()


def test_a_method_that_fails_is_told_by_its_line(lab: Path):
    (lab / "mymethod.py").write_text(METHOD + "    def objective(self, *given):\n        return [][1]\n")
    command = ("adapt", lab.parent / "frames", "--model", f"{lab}/mynets.py:fixed", "--out", lab / "out")
    done = allweather(*command, "--method", f"{lab}/mymethod.py:Mine")
    assert "mine: objective failed: mymethod.py, line" in done.said(2)
    assert "IndexError: list index out of range" in done.stderr


def test_a_method_that_fails_in_a_plan_fails_its_run_alone(lab: Path):
    (lab / "mymethod.py").write_text(METHOD + "    def objective(self, *given):\n        return [][1]\n")
    (lab / "plan.toml").write_text((lab / "plan.toml").read_text() + '[[methods]]\nname = "norm"\n')
    for made in ("2 runs done, 0 were there", "0 runs done, 2 were there"):
        done = allweather("bench", lab / "plan.toml", "--out", lab / "runs")
        assert f"{made}, 0 run elsewhere, 1 failed" in done.said(1)
        assert "-mymethod.py-mine-" in done.stderr and "Traceback" not in done.stderr
        assert "mine: objective failed: mymethod.py, line 9: IndexError: list index out of range." in done.stderr


@pytest.mark.parametrize("field", ["must: float", "must: 'Elsewhere' = 1", "views: float = 0.5"])
def test_a_field_that_cannot_be_used_is_named(tmp_path: Path, field: str):
    (tmp_path / "m.py").write_text(f"{METHOD}    {field}\n")
    said = r"Mine cannot be used as a method: (?!plugins).*(missing .*'must'|name 'Elsewhere'|not iterable)"
    with pytest.raises(SettingsError, match=said):
        methods.make(f"{tmp_path}/m.py:Mine")


def test_random_weights_of_an_own_network_are_those_of_the_seed(lab: Path):
    labels = []
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        command = ("adapt", lab.parent / "frames", "--model", f"{lab}/mynets.py:build", "--random-weights")
        done = allweather(*command, "--method", "source", "--seed", seed, "--out", lab / out)
        assert "randomly initialised" in done.said(0)
        labels.append((lab / out / "labels/0.png").read_bytes())
    assert labels[0] == labels[1] != labels[2]


MISTAKES = [
    (("--model", "mynets.py"), "say what in that file makes the network: mynets.py:build, mynets.py:fixed"),
    (("--model", "mynets.py:bild"), "unknown name in mynets.py 'bild'. Did you mean 'build'"),
    (("--model", "gone.py:build"), "cannot read gone.py: No such file"),
    (("--model", "mynets.py:calls"), "expected a function or class that makes a network, got []"),
    (("--model", "mynets.py:build", "--model-arg", "width=wide"), "width: expected integer, got 'wide'"),
    (("--model", "mynets.py:build", "--model-arg", "depth=2"), "unknown argument of mynets.py:build 'depth'"),
    (("--model", "mynets.py:build", "--model-arg", "width"), "--model-arg: expected NAME=VALUE, got 'width'"),
    (("--model", "mynets.py:build", "--mean", "1,2"), "--mean: expected 3 numbers separated by commas"),
    (("--model", "mynets.py:build", "--classes", "city"), "unknown class set 'city'. Did you mean 'cityscapes'"),
    (("--model", "mynets.py:build", "--weights", "mynets.py"), "mynets.py"),
    (("--model", "mynets.py:build"), "build comes without weights, and none were given. Name its checkpoint"),
    (("--model", "mynets.py:fixed", "--random-weights"), "--random-weights: mynets.py:fixed has weights here"),
    (("--model", "demo:streetnet", "--model-arg", "width=4"), "demo:streetnet takes no arguments"),
    (("--model", "weights.pth"), "'weights.pth' is a checkpoint's name; say which network it belongs to"),
    (("--model", "mynet:build"), "A network of your own is FILE.py:NAME"),
    (("--model", "demo:streetnet", "--method", "mymethod.py"), "makes the method: mymethod.py:Mine"),
    (("--model", "demo:streetnet", "--method", "mymethod.py:mine"), "Did you mean 'Mine'"),
    (("--model", "demo:streetnet", "--method", "mynets.py:build"), "expected a subclass of allweather.methods.Method"),
    (("--model", "demo:streetnet", "--dataset", "camvit"), "Did you mean 'camvid'"),
    (("--model", "demo:streetnet", "--dataset", "mynets.py:calls"), "expected an allweather.data.datasets.Dataset"),
]


@pytest.mark.parametrize(("extra", "message"), MISTAKES, ids=[" ".join(extra) for extra, _ in MISTAKES])
def test_mistakes_with_own_code_say_what_to_do(
    lab: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...], message: str
):
    monkeypatch.chdir(lab)
    done = allweather("adapt", "../frames", "--out", "out", *extra)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (lab / "out").exists()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that brings one of each kind, and one of each that cannot be imported."""
    site = tmp_path / "site"
    info = site / "acme_nets-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "acme.py").write_text(NETS + METHOD + DATA)
    (site / "broken.py").write_text("import nothing_of_that_name")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-nets\nVersion: 1.2\n")
    kinds = {"models": "fixed", "methods": "Mine", "datasets": "roads"}
    groups = [
        f"[allweather.{kind}]\nacme-{kind} = acme:{name}\nbad-{kind} = broken:{name}\n" for kind, name in kinds.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(site)
    return site


DATA = """
from allweather.data.datasets import Dataset, Split
roads = Dataset(name="roads", title="Roads", publisher="us", terms="ours", splits={"val": Split(("*.png",))})
"""


@pytest.mark.parametrize("kind", ["models", "methods", "datasets"])
def test_packages_are_listed_and_a_broken_one_is_named(package: Path, kind: str):
    done = allweather("list", kind, "--json")
    assert done.returncode == 0
    names = [row["name"] for row in json.loads(done.stdout)]
    assert f"acme-{kind}" in names and f"bad-{kind}" not in names and len(names) > 10
    assert f"'bad-{kind}' of acme-nets 1.2 cannot be used" in done.stderr
    assert "broken.py, line 1: ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize(("kind", "name", "word"), [("methods", "tent", "method"), ("datasets", "camvid", "dataset")])
def test_a_name_that_is_taken_is_not_given_anew(package: Path, kind: str, name: str, word: str):
    listed = next(package.glob("*/entry_points.txt"))
    listed.write_text(listed.read_text().replace(f"bad-{kind} = ", f"{name} = "))
    done = allweather("list", kind, "--json")
    assert done.returncode == 0 and [row["name"] for row in json.loads(done.stdout)].count(name) == 1
    said = f"acme-nets 1.2 calls a {word} {name}, a name that is taken here. Remove that package"
    assert said in re.sub(r"\s+", " ", done.stderr)


def test_what_a_package_brings_is_used_by_its_name(package: Path, outside: Path):
    command = ("adapt", outside / "frames", "--out", outside / "out", "--model", "acme-models")
    allweather(*command, "--method", "acme-methods", "--dataset", "acme-datasets:val").ok()
    record = json.loads((outside / "out/record.json").read_text())
    assert record["model"]["name"] == "acme-models" and record["session"]["method"]["name"] == "mine"
    for option, name, kind in (("--model", "bad-models", "network"), ("--method", "bad-methods", "method")):
        done = allweather(*command, option, name)
        assert f"cannot be used as a {kind}" in done.said(2)
    assert "running" not in done.stderr


def test_what_fails_in_a_package_is_told_as_its_own(package: Path):
    (package / "acme.py").write_text(f"{METHOD}    passes = property(lambda self: [][1])\n")
    with pytest.raises(IndexError) as raised:
        methods.make("acme-methods").passes  # noqa: B018
    assert "your own code failed: acme.py, line 8: IndexError" in str(own_fault(raised.value))


def test_code_of_modules_and_packages_is_told_and_none_of_it_runs(package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(package / "a.zip")
    listed = next(package.glob("*/entry_points.txt"))
    listed.write_text(listed.read_text().replace("bad-methods", "acme"))  # another name than acme:Mine

    def told(text: str) -> set[str]:
        (package / "acme.py").write_text(text)
        with ZipFile(package / "a.zip", "w") as file:
            file.writestr("zipped/__init__.py", "")
            file.writestr("zipped/nets.py", f"#{text}")
        own = {code_digest(name, ADAPTATIONS) for name in ("acme:Mine", "zipped.nets:fixed")}
        return {*own, code_digest("acme-datasets:val", OWN_DATASETS)}

    assert len(told(METHOD) | told("raise SystemExit")) == 6
    assert code_digest("tent", OWN_DATASETS) == code_digest("none.of:it") == ""


def test_people_see_what_programs_do():
    shown = re.sub(r"\s+", " ", allweather("list", "methods").stdout)
    for row in json.loads(allweather("list", "methods", "--json").stdout):
        assert row["name"] in shown
        for name, field in row["fields"].items():
            assert f"{name}=" in shown and field["help"].split()[0] in shown
