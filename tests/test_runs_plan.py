"""Plans: what they expand to, what they refuse, and records that are whole, resumed and never made twice."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from command_line import allweather
from PIL import Image
from refusals import refusal

from allweather import methods
from allweather.classes import ClassSet
from allweather.data import open_files
from allweather.data.folder import natural_key
from allweather.data.images import read_labels, write_json
from allweather.data.labelled import LabelledStream, Truth, join, labelled_scenes
from allweather.errors import AllWeatherError, ImageError, InputError, SettingsError
from allweather.models import Segmenter
from allweather.report import panels
from allweather.report.collect import group_records
from allweather.report.compare import compare, flatten
from allweather.report.page import tables_of
from allweather.report.published import LOGS, MILLISECONDS, NIGHT, R101, SECTION4, TABLE1, TABLE4_ROWS, THIRTEEN
from allweather.report.refusals import EVERY_PASS, MARK, REMARK
from allweather.runs import execute as executor
from allweather.runs.decisions import decisions_of, refused
from allweather.runs.evaluate import PASSES
from allweather.runs.execute import LoadedNetwork, execute, labels_folder, make_record, open_model
from allweather.runs.plan import MethodSpec, Plan, PlannedRun, read_plan
from allweather.runs.record_file import checked_record, read_record
from allweather.runs.stale import outdated
from allweather.runs.streams import open_stream
from allweather.runs.summary import stops_of, summarize
from allweather.runs.variables import make_method
from allweather.scale.benching import gather
from allweather.scoring.confusion import ConfusionMatrix
from allweather.scoring.intervals import counts_of
from allweather.session import Guard

PLANS = sorted((Path(__file__).parents[1] / "plans").glob("*.toml"))
FRAMES = 3
TEXT = """
[run]
seeds = {seeds}
orders = {orders}
protocol = {protocol}
scoring = "{scoring}"

[[models]]
name = "demo:streetnet"
size = "64x48"

[[streams]]
name = "tiny"
images = "${{TINY_ROOT}}/images"
labels = "${{TINY_ROOT}}/labels"

[[methods]]
name = "source"
seeds = [0]
orders = ["natural"]

[[methods]]
name = "tent"
fields = {{ lr = 0.01, episodic = false }}
"""

OWN_METHOD = """
from dataclasses import dataclass
from allweather.methods import Tent
@dataclass(frozen=True, kw_only=True)
class Mine(Tent):
    name = "mine"
"""

EATA = '"eata"\nfields = { source_images = "source" }'
FOLDERS = 'images = "${TINY_ROOT}/images"\nlabels = "${TINY_ROOT}/labels"'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for index in range(FRAMES):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(tmp_path / f"images/{index}.png")
        labels = np.where(rng.random((60, 80)) < 0.1, 255, rng.integers(0, 19, (60, 80)))
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path / f"labels/{index}.png")
    monkeypatch.setenv("TINY_ROOT", str(tmp_path))
    return tmp_path


def write_plan(folder: Path, **changes: str) -> Path:
    values = {"seeds": "[0]", "orders": '["natural"]', "protocol": '"online"', "scoring": "native"} | changes
    path = folder / "plan.toml"
    path.write_text(TEXT.format(**values))
    return path


def tiny(folder: Path, **changes: str) -> Plan:
    return read_plan(write_plan(folder, **changes))


def test_the_grid_is_every_combination_once(tmp_path: Path):
    plan = tiny(tmp_path, seeds="[0, 1, 1]", orders='["natural", "shuffled"]', protocol='["online", "transductive"]')
    assert len(plan.runs) == 2 * 1 + 2 * 2 * 2  # source keeps its one seed and order
    assert len({run.file for run in plan.runs}) == len(plan.runs)


def test_a_run_is_the_same_wherever_its_data_lie(root: Path, monkeypatch: pytest.MonkeyPatch):
    before = [run.identity for run in tiny(root).runs]
    monkeypatch.setenv("TINY_ROOT", "elsewhere")
    assert [run.identity for run in tiny(root).runs] == before
    assert [run.identity for run in tiny(root, seeds="[5]").runs][1] != before[1]


def test_networks_and_streams_may_be_those_of_another_plan(root: Path):
    (root / "more").mkdir()
    write_plan(root / "more")
    own = root / "own.toml"
    own.write_text('models = ["more/plan.toml"]\nstreams = "more/plan.toml"\n[[methods]]\nname = "source"\n')
    (here,), (there, _) = read_plan(own).runs, read_plan(root / "more/plan.toml").runs
    assert here.identity == there.identity and here.model.folder == str(root / "more")
    own.write_text('models = "own.toml"\nstreams = "more/plan.toml"\n[[methods]]\nname = "source"\n')
    with refusal(r"own\.toml names other plans itself .*Name those"):
        read_plan(own)
    both = own.read_text().replace('"own.toml"', '"plan.toml"').replace('"more/', '["plan.toml", "more/')
    own.write_text(both.replace('more/plan.toml"', 'more/plan.toml"]'))
    here = write_plan(root)
    assert len(read_plan(own).runs) == 1
    for path in (here, root / "more/plan.toml"):
        path.write_text(path.read_text().replace("${TINY_ROOT}/", ""))
    with refusal(r"plan\.toml and .*more/plan\.toml spell one of their streams alike, tiny", SettingsError):
        read_plan(own)
    here.write_text("[[models]]\nnam = 1")
    with refusal(r"/plan\.toml: unknown key of \[\[models\]\] 'nam'", SettingsError):
        read_plan(own)


def test_a_size_that_is_the_networks_own_does_not_hide_that_files_are_others(root: Path):
    for folder, size in (("one", ""), ("two", ', size = "1024x512"')):
        (root / folder).mkdir()
        model = f'models = [{{ name = "advent:deeplabv2", weights = "w.pth"{size} }}]'
        (root / folder / "plan.toml").write_text(model)
    (root / "plan.toml").write_text('models = ["one/plan.toml", "two/plan.toml"]')
    with refusal("spell one of their models alike", SettingsError):
        read_plan(root / "plan.toml")


def test_code_classes_plans_and_each_of_several_paths_may_begin_at_home(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(root))
    (root / "own.py").write_text(
        f"from pathlib import Path\nfrom allweather.methods.option import option\n{OWN_METHOD}"
        '    banks: tuple[Path, ...] = option((), "where", path=True)\n'
    )
    (root / "yard.toml").write_text('names = ["track", "rail"]')
    (root / "more").mkdir()
    text = write_plan(root / "more").read_text()
    text = text.replace('"tent"', '"~/own.py:Mine"').replace("lr = 0.01", 'banks = ["a", "~/b", "${TINY_ROOT}/c"]')
    path = root / "more/plan.toml"
    path.write_text(text.replace('images"\n', 'images"\nclasses = "~/yard.toml"\n'))
    (root / "plan.toml").write_text(
        'models = "~/more/plan.toml"\nstreams = "${TINY_ROOT}/more/plan.toml"\nmethods = "more/plan.toml"'
    )
    run = read_plan(root / "plan.toml").runs[1]
    method = make_method(run.method, open_model(run))
    assert method.banks == (root / "more/a", root / "b", root / "c")
    assert run.stream.class_set().names == ("track", "rail") and run.method.code


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plans_that_come_along_can_be_read(path: Path):
    plan = read_plan(path)
    assert plan.runs and path.read_text().startswith("# ")
    for run in plan.runs:  # what varies only with order must not return to the source after each frame
        if run.order == "shuffled":
            assert not methods.make(run.method.name, run.method.preset, run.method.fields).episodic


def planned() -> set[tuple[str, str, str]]:
    """Network, stream and method of every run of the plans that come along."""
    runs = [run for path in PLANS for run in read_plan(path).runs]
    return {(run.model.name, run.stream.name, run.method.name) for run in runs}


PUBLISHED = {
    "table 1": [(R101, f"acdc:val/{part}", method) for method, row in TABLE1.items() for part in row],
    "tables 2 and 3": [(model, "acdc:val/night", method) for model, method in MILLISECONDS],
    "table 4": [(model, "dark-zurich:val", method) for model, method in TABLE4_ROWS],
    "section 4": [(model, stream, "mall-sample") for model in SECTION4 for stream in THIRTEEN],
    "section 4, night": [(model, stream, "mall-sample") for stream, model in NIGHT],
    "logs": [(model, stream, "source") for model in LOGS for stream in THIRTEEN[:5]],
}


@pytest.mark.parametrize("cells", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_every_published_figure_has_a_run_to_stand_beside(cells: list[tuple[str, str, str]]):
    assert cells and set(cells) <= planned()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[models]]", "[[model]]", "unknown section of a plan 'model'. Did you mean 'models'"),
        ('size = "64x48"', 'sizes = "64x48"', "unknown key of [[models]] 'sizes'"),
        ('size = "64x48"', 'size = "64"', "expected WIDTHxHEIGHT or native, got '64'"),
        ('size = "64x48"', "size = 64", "[[models]] size: expected text|none, got 64"),
        ('name = "tent"', 'name = "tentt"', "unknown method 'tentt'. Did you mean 'tent'"),
        ("lr = 0.01", "rl = 0.01", "unknown"),
        ("seeds = [0]\norders", 'seeds = ["a"]\norders', "[run] seeds: expected"),
        ('"online"', '"onlin"', "unknown protocol 'onlin'"),
        ('"native"', '"half"', "unknown scoring 'half'"),
        ('["natural"]\nprotocol', '["random"]\nprotocol', "unknown order 'random'"),
        ('labels = "${TINY_ROOT}/labels"', "", "either root, or both images and labels"),
        ('name = "tiny"', "", "[[streams]]: name is missing"),
        ("[run]", "[run", "cannot read the plan"),
        ("[run]", "[run]\nbatch = " + "[" * 20_000, "cannot read the plan"),
        ("[run]", "[run]\nbatch." + "a." * 5000 + "b = 1", "lists and objects lie within each other more than 20 deep"),
        ("[run]", "[run]\nbatch = " + "9" * 5000, "cannot read the plan"),
        ("[run]", "[run]\nbatch = 0x" + "f" * 5000, "cannot read the plan"),
        ("[run]", "[run]\nbatch = 0x" + "f" * 500, "[run] batch: expected a finite number below 2^63"),
        ("[run]", "[[run]]", "run: expected one table [run], got [{"),
        ("[run]", '[run]\ndevice = "foo"', "device: expected a device such as cpu, cuda or cuda:1, got 'foo'"),
        ("[run]", '[run]\ndevice = "cuda:-1"', "got 'cuda:-1'"),
        ("[run]", '[run]\nprecision = "float99"', "unknown precision 'float99'"),
        ("[run]", "[run]\nbatch = 99999999999999999999", "[run] batch: expected a finite number below 2^63"),
        ("seeds = [0]\norders", "seeds = [-1]\norders", "seeds: expected 0 or more, and below 2^63; got -1"),
        ("seeds = [0]\norders", 'seeds = ["18446744073709551616"]\norders', "below 2^63; got 18446744073709551616"),
        ('size = "64x48"', 'size = "65536x5"', "size: expected (width, height)"),
        (
            'seeds = [0]\norders = ["natural"]\n\n',
            "seeds = [-2]\n\n",
            "seeds: expected 0 or more, and below 2^63; got -2",
        ),
        ('size = "64x48"', 'weights = ""', "[[models]] weights: expected a value, got an empty text"),
        ('size = "64x48"', "arguments = {n = 2020-01-01}", "[[models]] arguments n: expected text, a number"),
        ('size = "64x48"', "arguments = {n = [inf]}", "[[models]] arguments n: expected a finite number"),
        ("lr = 0.01", "lr = inf", "[[methods]] fields lr: expected a finite number"),
        ('"demo:streetnet"', '"demo:streetnets"', "unknown model 'demo:streetnets'"),
        (FOLDERS, 'root = "x"', "unknown dataset 'tiny'"),
        (f'"tiny"\n{FOLDERS}', '"acdc:fog"\nroot = "${{NOWHERE}}"', "unknown split of acdc 'fog'"),
        (f'"tiny"\n{FOLDERS}', '"t"\nroot = "x"\nsequence = ["acdc:val/fog", "acdc:x"]', "unknown split of acdc 'x'"),
        (f'"tiny"\n{FOLDERS}', '"scenes:frogs"', "'frogs'"),
        ('"tiny"', '"tiny"\nrounds = 3', "stream 'tiny': rounds goes with sequence only"),
        (FOLDERS, 'root = "x"\nclasses = "cityscapes"', "stream 'tiny': classes goes with labels only"),
        ('name = "tent"', 'name = "a\\u0000.py:X"', "[[methods]] name: expected text without a NUL character"),
        ("/images", "/a\\u0000b", "[[streams]] images: expected text without a NUL character"),
        ("lr = 0.01", 'parameters = ["a\\u0000"]', "[[methods]] fields parameters: expected text without a NUL"),
    ],
)
def test_mistakes_in_a_plan_are_named(tmp_path: Path, old: str, new: str, said: str):
    path = write_plan(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(AllWeatherError) as caught:
        read_plan(path)
    assert said in str(caught.value)


def test_a_run_that_is_no_table_is_named(tmp_path: Path):
    path = write_plan(tmp_path)
    path.write_text("run = 5\n" + path.read_text().partition("\n\n")[2])
    with refusal(r"run: expected one table \[run\], got 5", SettingsError):
        read_plan(path)


def test_a_device_that_is_not_here_fails_its_run_alone(root: Path):
    path = write_plan(root)
    for device in ("cuda:99", "meta"):
        path.write_text(write_plan(root).read_text().replace("[run]", f'[run]\ndevice = "{device}"'))
        plan = read_plan(path)
        assert all(f"device {device}: " in why for why in execute(plan, root / "runs").failed.values())
        with refusal(f"device {device}: ", SettingsError):
            make_record(plan.runs[0])


def test_a_long_name_has_a_record_too(root: Path):
    path = write_plan(root)
    path.write_text(path.read_text().replace('"tiny"', f'"{"long" * 100}"'))
    plan = read_plan(path)
    result = execute(plan, root / "runs", keep_labels=True)
    assert len(set(result.done)) == 2 and execute(plan, root / "runs").kept == result.done


def test_a_plan_takes_labels_by_their_publishers_names(root: Path):
    (run,) = tiny(root).runs[:1]
    plainly = make_record(run)
    for path in sorted((root / "labels").iterdir()):
        path.rename(path.with_name(f"{path.stem}_gtFine_labelTrainIds.png"))
    assert make_record(run)["confusion"] == plainly["confusion"]


def test_a_record_says_everything_and_its_figures_are_the_streams(root: Path):
    run = tiny(root).runs[1]
    record = json.loads(json.dumps(make_record(run), allow_nan=False))
    assert record["figures"]["images"] == FRAMES == len(record["images"]) and not record["failures"]
    assert record["model"]["sha256"] and record["order_hash"] == open_files([root / "images"]).order_hash
    assert record["session"]["method"]["lr"] == 0.01 and record["prediction"] and record["peak_memory_mib"] > 0
    matrix = ConfusionMatrix(19, np.array(record["confusion"]))
    assert record["figures"]["mIoU"] == pytest.approx(100 * matrix.mean_iou, abs=0.006)
    assert np.sum([image["intersection"] for image in record["images"]], 0).tolist() == matrix.intersection.tolist()
    low, high = record["figures"]["interval"]
    assert low <= record["figures"]["mIoU"] <= high
    told = {"ncut_before", "ncut", "watched", "iterations", "decision", "seconds", "intersection", "union", "mIoU"}
    assert all(told <= set(image) for image in record["images"])
    assert record["decisions"] == decisions_of(record) and sum(record["decisions"].values()) == FRAMES
    assert record["resolution"] == {"stored": ["80x60"], "input": ["64x48"], "scored": ["80x60"]}
    fields = {**run.method.fields, "mirror": True}
    mirrored = make_record(replace(run, method=replace(run.method, fields=fields)))
    assert (record["views"], mirrored["views"]) == (record["passes"], mirrored["passes"]) == (1, 2)
    source = make_record(tiny(root).runs[0])
    assert all(image["ncut_before"] == image["ncut"] for image in source["images"])  # nothing adapted
    before = [image["ncut_before"] for image in record["images"]]
    assert before == [image["ncut"] for image in source["images"]] != [image["ncut"] for image in record["images"]]
    assert str(root) not in json.dumps(record)


def test_a_transductive_record_counts_what_every_pass_did(root: Path, tmp_path: Path):
    (run,) = tiny(root, protocol='"transductive"').runs[1:]
    hostile = replace(run, method=replace(run.method, fields=run.method.fields | {"lr": 1.0}))
    record = json.loads(json.dumps(make_record(hostile), allow_nan=False))
    passes = record["stream_passes"]
    assert 1 < len(passes) <= PASSES and all(image["stop"] for image in record["images"])
    assert record["decisions"] == decisions_of(record) and sum(record["decisions"].values()) == FRAMES * len(passes)
    assert refused(record["decisions"]) > FRAMES * len(passes) / 3
    assert all(sum(each["decisions"].values()) == FRAMES for each in passes)
    assert record["seconds"] > sum(each["seconds"] for each in passes) > 0  # the predictions come on top
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    for kept in (read_record(path), summarize(record, [])):
        (group,) = group_records([kept])
        assert group.decisions == [record["decisions"]] and kept["stream_passes"] == passes
        assert group.marked == f"{group.label} {MARK}"
        text = "\n".join(table.markdown() for table in tables_of([group]))
        assert EVERY_PASS in text and REMARK in text
        found = Counter(image["stop"] for image in record["images"])
        assert stops_of(kept) == found and np.mean(group.per_image("seconds")) > 0
    plainly = make_record(replace(run, protocol="online"))
    assert "stream_passes" not in plainly and "stream_passes" not in compare(plainly, record)["settings"]
    assert EVERY_PASS not in "\n".join(table.markdown() for table in tables_of(group_records([plainly])))


def test_pixels_are_scored_at_the_labels_size_or_the_authors(root: Path):
    native, authors = (make_record(tiny(root, scoring=name).runs[0]) for name in ("native", "1024x512"))
    labelled = sum(int((np.array(Image.open(path)) != 255).sum()) for path in (root / "labels").iterdir())
    assert native["figures"]["pixels"] == labelled
    share = authors["figures"]["pixels"] / (FRAMES * 1024 * 512)
    assert share == pytest.approx(labelled / (FRAMES * 60 * 80), abs=0.01)


@pytest.mark.parametrize(
    ("network", "size", "scoring", "said", "seen"),
    [
        ("adaptsegnet:multi", None, "native", "1024x512", (1024, 512)),
        ("ciconv:w", None, "native", "1024x512", (1024, 512)),
        ("dannet:pspnet", None, "native", "960x540", (960, 540)),
        ("dannet:pspnet", None, "1024x512", "960x540", (960, 540)),
        ("dannet:pspnet", "native", "native", "native", (80, 60)),
        ("dannet:pspnet", "native", "1024x512", "native", (80, 60)),
        ("dannet:pspnet", "64x48", "native", "64x48", (64, 48)),
        ("demo:streetnet", None, "native", None, (80, 60)),
        ("demo:streetnet", None, "1024x512", None, (1024, 512)),
        ("demo:streetnet", "native", "1024x512", "native", (80, 60)),
    ],
)
def test_frames_have_the_size_said_or_the_networks_authors_or_the_scorings(
    root: Path, network: str, size: str | None, scoring: str, said: str | None, seen: tuple[int, int]
):
    path = write_plan(root, scoring=scoring)
    sized = f'"{network}"' if size is None else f'"{network}"\nsize = "{size}"'
    path.write_text(path.read_text().replace('"demo:streetnet"\nsize = "64x48"', sized))
    run = read_plan(path).runs[0]
    assert run.model.size == said and PlannedRun.from_json(json.loads(json.dumps(run.content))) == run
    assert open_stream(run).stream.read("0").image.shape[:0:-1] == seen


def test_orders_are_what_they_say(root: Path):
    names = {}
    for order in ("natural", "reversed", "shuffled"):
        runs = tiny(root, orders=f'["{order}"]', seeds="[0, 1, 2]").runs[1:]
        names[order] = [open_stream(run).stream.names for run in runs]
    assert set(names["natural"]) == {tuple(sorted("012", key=natural_key))} and names["reversed"][0] == ("2", "1", "0")
    assert len(set(names["shuffled"])) > 1 and all(sorted(order) == ["0", "1", "2"] for order in names["shuffled"])


def test_what_is_done_is_kept_and_what_is_damaged_is_made_again(root: Path, caplog: pytest.LogCaptureFixture):
    plan, out = tiny(root), root / "runs"
    ticks: list[tuple[int, int]] = []
    told: list[str] = []
    first = execute(
        plan, out, lambda run, done, total: ticks.append((done, total)), lambda run, record: told.append(run.file)
    )
    assert told == first.done
    assert len(first.done) == 2 and ticks == [(1, 3), (2, 3), (3, 3)] * 2
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    again = execute(plan, out)
    assert again.kept == first.done and not again.done
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")} == stamps
    assert all(path.read_text().count('{"name": ') == FRAMES for path in out.glob("*.json"))  # an image a line
    (out / first.done[0]).write_text('{"figures"')
    assert execute(plan, out).done == first.done[:1] and "is not a readable record" in caplog.text


def test_code_that_changes_after_the_plan_was_read_fails_its_run_alone(root: Path):
    path, own = write_plan(root), root / "own.py"
    own.write_text(OWN_METHOD)
    path.write_text(path.read_text().replace('"tent"', '"own.py:Mine"'))
    plan = read_plan(path)
    code, run = plan.runs[1].method.code, replace(plan.runs[1], method=replace(plan.runs[1].method, code=""))
    assert make_record(run)["run"]["method"]["code"] == code, "of a run that no plan was read for"
    own.write_text(f"{OWN_METHOD}#")
    made = execute(plan, root / "runs")
    assert len(made.done) == 1 and "own.py:Mine: its code has changed since" in "".join(made.failed.values())


def test_a_record_of_other_files_of_its_method_is_made_again(root: Path):
    path, source = write_plan(root), shutil.copytree(root / "images", root / "source")
    path.write_text(path.read_text().replace('"tent"\nfields = { lr = 0.01, episodic = false }', EATA))
    first = execute(read_plan(path), source / "runs").done
    assert execute(read_plan(path), source / "runs").kept == first, "records are no pictures"
    (source / "0.png").unlink()
    assert execute(read_plan(path), source / "runs").outdated == {first[1]: ["session.files.source_images"]}


def test_a_record_of_other_settings_or_weights_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch):
    plan, out = tiny(root), root / "runs"
    names = execute(plan, out).done
    for name, keys in ((names[0], ("model", "sha256")), (names[1], ("session", "method", "lr"))):
        record = read_record(out / name)
        *way, last = keys
        place = record
        for key in way:
            place = place[key]
        place[last] = "other"
        write_json(out / name, record)
    again = execute(plan, out)
    assert again.done == names and again.outdated == {names[0]: ["model.sha256"], names[1]: ["session.method.lr"]}
    for name in names:
        record = read_record(out / name)
        record["session"]["guard"]["every"] = 99
        write_json(out / name, record)
    again = execute(plan, out)  # the source is never updated: its guard had nothing to judge
    assert again.kept == names[:1] and again.outdated == {names[1]: ["session.guard.every"]}
    unknown = read_record(out / names[1])
    del unknown["session"]["method"]["lr"]  # a field that did not exist when the record was made
    write_json(out / names[1], unknown)
    assert execute(plan, out).kept == names
    monkeypatch.setattr(methods, "settings_of", lambda method: {"parts": {"a": 1, "b": 2}})
    unknown["session"]["method"]["parts"] = {"a": 1}
    write_json(out / names[1], unknown)
    assert execute(plan, out).outdated == {names[1]: ["session.method.parts"]}


@pytest.mark.parametrize(("field", "told"), [("vector_rate", "no vector scaling"), ("relative", "absolute steps")])
def test_a_record_of_before_a_field_that_acts_by_default_is_made_again(root: Path, field: str, told: str):
    plan, out = tiny(root), root / "runs"
    plan = Plan((replace(plan.runs[1], method=MethodSpec("mall-sample")),))
    (name,) = execute(plan, out).done
    record = read_record(out / name)
    assert record["session"]["method"].pop(field)
    write_json(out / name, record)
    assert group_records([record])[0].label == f"mall-sample: {told}"
    again = execute(plan, out)
    assert again.done == [name] and again.outdated == {name: [f"session.method.{field}"]}
    assert group_records([read_record(out / name)])[0].label == "mall-sample"


def test_the_record_of_another_run_is_not_taken_for_this_ones(root: Path):
    plan, out = tiny(root), root / "runs"
    source, tent = execute(plan, out).done
    shutil.copy(out / source, out / tent)
    again = execute(plan, out)
    assert again.kept == [source] and again.done == [tent] and not again.outdated
    assert read_record(out / tent)["run"]["method"]["name"] == "tent"


def relabel(root: Path):
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(root / "labels/0.png")


def add(root: Path):
    for kind in ("images", "labels"):
        shutil.copy(root / kind / "0.png", root / kind / "9.png")


def rename(root: Path):
    for kind in ("images", "labels"):
        (root / kind / "0.png").rename(root / kind / "9.png")


def remove(root: Path):
    shutil.rmtree(root / "images")


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (relabel, ["data_hash"]),
        (add, ["frames", "order_hash", "data_hash"]),
        (rename, ["order_hash", "data_hash"]),
        (remove, []),
    ],
)
def test_a_record_of_other_data_is_made_again_and_never_paired(
    root: Path, change: Callable[[Path], None], differs: list[str]
):
    plan, out = Plan(tiny(root).runs[:1]), root / "runs"
    (name,) = execute(plan, out).done
    before = read_record(out / name)
    assert execute(plan, out).kept == [name]
    change(root)
    again = execute(plan, out)
    assert again.outdated == ({name: differs} if differs else {}) and again.kept == ([] if differs else [name])
    after = read_record(out / name)
    for first, second in ((before, after), (summarize(before, [after]), summarize(after, [before]))):
        assert (compare(first, second)["paired"] is None) == bool(differs)
    write_json(out / name, {key: value for key, value in before.items() if key != "data_hash"})  # as older ones are
    again = execute(plan, out)
    told = [key for key in differs if key != "data_hash"]
    assert again.outdated == ({name: told} if told else {}) and again.kept == ([] if told else [name])


def test_a_plan_says_how_labels_hold_classes(root: Path):
    for path in (root / "labels").iterdir():
        Image.new("L", (80, 60), 26).save(path)
    run = tiny(root).runs[0]
    with refusal(r'say labels_as = "labelIds"'):
        make_record(run)
    told = replace(run, stream=replace(run.stream, labels_as="labelIds"))
    assert "labels_as" not in run.content["stream"] and PlannedRun.from_json(told.content) == told
    assert sum(make_record(told)["confusion"][13]) == FRAMES * 60 * 80


def test_the_data_are_the_same_in_any_order_and_part(root: Path):
    put(root, *((f"images/day/{name}", f"labels/day/{name}") for name in "ab"))
    stream = open_stream(tiny(root).runs[1])
    hashes = {
        made.data_hash() for made in (stream, stream.every(2), stream.reordered([2, 0, 1]), join([("1", stream)]))
    }
    (told,) = hashes
    assert told == make_record(tiny(root).runs[0])["data_hash"] != stream.stream.order_hash
    assert labelled_scenes("fog", range(2)).data_hash() is None


def test_a_record_stays_whole_when_writing_the_next_one_stops_half_way(root: Path, monkeypatch: pytest.MonkeyPatch):
    plan, out = tiny(root), root / "runs"
    name = execute(plan, out).done[0]
    stale = read_record(out / name)
    stale["model"]["sha256"] = "other"  # so that it is made again
    write_json(out / name, stale)
    before, write = (out / name).read_bytes(), Path.write_bytes

    def half(path: Path, data: Any, *more: object) -> int:
        content = data.encode() if isinstance(data, str) else data
        write(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    monkeypatch.setattr(Path, "write_text", half)
    with refusal(r"cannot write .*No space left on device"):
        execute(plan, out)
    assert (out / name).read_bytes() == before and not list(out.glob(".*.partial"))


def test_an_interruption_leaves_whole_records_only(root: Path, monkeypatch: pytest.MonkeyPatch):
    plan, out = tiny(root), root / "runs"

    def interrupt(run: object, done: int, total: int):
        if run is plan.runs[1] and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(plan, out, interrupt)
    assert [path.name for path in out.glob("*.json")] == [plan.runs[0].file]
    result = execute(plan, out)
    assert result.kept == [plan.runs[0].file] and result.done == [plan.runs[1].file]


def test_a_run_that_another_process_is_at_is_left_to_it(root: Path):
    plan, out = tiny(root), root / "runs"
    out.mkdir()
    with filelock.FileLock(out / f".{plan.runs[0].file}.lock"):
        result = execute(plan, out)
    assert result.elsewhere == [plan.runs[0].file] and result.done == [plan.runs[1].file]


def test_one_run_that_fails_does_not_stop_the_others(root: Path, monkeypatch: pytest.MonkeyPatch):
    plan, out = tiny(root), root / "runs"
    real = executor.load_model
    monkeypatch.delenv("TINY_ROOT")
    result = execute(plan, out)
    assert len(result.failed) == 2 and "TINY_ROOT is not set" in next(iter(result.failed.values()))
    assert not list(out.glob("*.json"))
    monkeypatch.setenv("TINY_ROOT", str(root))
    broken = iter([AllWeatherError("no such network")])

    def once(*args: object) -> object:
        for error in broken:
            raise error
        return real(*args)

    monkeypatch.setattr(executor, "load_model", once)
    result = execute(plan, out)
    assert list(result.failed.values()) == ["no such network"] and len(result.done) == 1


OWN = """import warnings
from torch import nn
def build():
    warnings.warn("an old call")
    return nn.Conv2d(3, 19, 1)
"""


def test_a_plan_needs_weights_and_passes_other_warnings_on(tmp_path: Path):
    (tmp_path / "mine.py").write_text(OWN)
    torch.save(torch.nn.Conv2d(3, 19, 1).state_dict(), tmp_path / "w.pth")
    text = 'streams = [{ name = "scenes:fog" }]\nmethods = [{ name = "source" }]\nmodels = [{ name = "mine.py:build"'
    for weights, what in (
        (', weights = "w.pth"', nullcontext()),
        ("", refusal("a plan needs", SettingsError)),
    ):
        (tmp_path / "plan.toml").write_text(f"{text}{weights} }}]")
        with what, pytest.warns(UserWarning, match="an old call"):
            open_model(read_plan(tmp_path / "plan.toml").runs[0])


class Keeping(torch.nn.Conv2d):
    """A network that mixes each frame with what it kept of those before, in a buffer and in an attribute."""

    def __init__(self):
        super().__init__(3, 19, 1)
        self.register_buffer("seen", torch.zeros(()))
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            self.seen = self.seen + x.mean()
        self.last = super().forward(x) + self.seen + (0 if self.last is None else self.last)
        return self.last


def test_what_a_network_keeps_of_one_run_is_none_of_the_next_ones(root: Path):
    run, model = tiny(root).runs[0], Segmenter.wrap(Keeping(), classes=open_stream(tiny(root).runs[0]).classes)
    first, second = (make_record(run, model=model) for _ in range(2))
    assert first["confusion"] == second["confusion"]
    assert [image["ncut_before"] for image in first["images"]] == [image["ncut_before"] for image in second["images"]]
    assert not model.network.seen and model.network.last is None


class Strange(Exception):
    """An error as code of the user's own may have it."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("a bug"), r"a fault of allweather's own, .*test_runs_plan.py, line \d+: TypeError: a bug\."),
        (Strange("odd"), r"line \d+: Strange: odd\."),
        (PermissionError(13, "Permission denied", "frames"), r"^frames: Permission denied\.$"),
        (MemoryError("9 TiB"), r"^out of memory \(9 TiB\)\. A smaller size or batch takes less\.$"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "^out of memory .* A smaller size"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_run_raises_the_others_are_made(
    error: Exception, said: str, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    plan, out = tiny(root), root / "runs"

    def broken(run: PlannedRun, *rest: object) -> dict[str, Any]:
        if run.method.name == "source":
            raise error
        return make_record(run)

    monkeypatch.setattr(executor, "make_record", broken)
    for _ in range(2):
        result = execute(plan, out)
        assert list(result.failed) == [plan.runs[0].file] and result.done + result.kept == [plan.runs[1].file]
        assert re.search(said, result.failed[plan.runs[0].file])
    assert ("Traceback" in caplog.text) == ("fault of allweather's" in result.failed[plan.runs[0].file])
    with pytest.raises(type(error)):  # a worker is to end, for nobody knows what state it is in
        execute(plan, out, network=LoadedNetwork())


def test_a_record_that_json_cannot_hold_fails_its_run_alone(root: Path, monkeypatch: pytest.MonkeyPatch):
    odd = {"source": {"odd": object()}}
    monkeypatch.setattr(executor, "make_record", lambda run, *_: make_record(run) | odd.get(run.method.name, {}))
    result = execute(tiny(root), root / "runs")
    assert "object is not JSON serializable" in "".join(result.failed.values()) and len(result.done) == 1


def test_a_full_disk_ends_them_all(root: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*given: object) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(executor, "make_record", full)
    with pytest.raises(OSError, match="No space left"):
        execute(tiny(root), root / "runs")


def test_a_corrupt_image_is_listed_and_a_missing_label_is_said(root: Path):
    (root / "images/1.png").write_bytes(b"broken")
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(root / "labels/0.png")
    record = make_record(tiny(root).runs[0])
    assert sorted(record["failures"]) == ["0", "1"] and record["figures"]["images"] == FRAMES - 2
    (root / "labels/2.png").unlink()
    with refusal(r"1 images have no label, e\.g\. 2"):
        make_record(tiny(root).runs[0])
    shutil.rmtree(root / "labels")
    with refusal(r"no such folder: .*labels\. Expected one with label images", InputError):
        make_record(tiny(root).runs[0])


@pytest.mark.parametrize("scoring", ["native", "1024x512"])
@pytest.mark.parametrize(
    ("shape", "turn", "said"),
    [
        ((30, 40), 1, None), ((120, 160), 1, None), ((45, 61), 1, None), ((8, 11), 1, None), ((80, 60), 6, None),
        ((60, 60), 1, "has 60×60 pixels, its image 80×60. Expected one shape, at any resolution.$"),
        ((512, 1024), 1, "has 1024×512"), ((48, 64), 6, "64×48 pixels, its image 60×80. .* upright as their EXIF says"),
    ],
)  # fmt: skip
def test_labels_of_another_shape_are_no_truth(
    shape: tuple[int, int], turn: int, said: str | None, scoring: str, root: Path
):
    image = Image.open(root / "images/0.png")
    exif = image.getexif()
    exif[0x0112] = turn
    image.save(root / "images/0.png", exif=exif)
    Image.fromarray(np.zeros(shape, np.uint8)).save(root / "labels/0.png")
    labelled = open_stream(tiny(root, scoring=scoring).runs[0])
    frame = labelled.stream.read("0")
    assert frame.size == ((60, 80) if turn == 6 else (80, 60)) and frame.image.shape == (3, 48, 64)
    with nullcontext() if said is None else refusal(said, ImageError):
        found = labelled.truth("0", frame.size).labels.shape
        assert found == (shape if scoring == "native" else (512, 1024))


@pytest.mark.parametrize(("count", "kind"), [(255, np.uint8), (256, np.uint16), (300, np.uint16)])
def test_kept_predictions_hold_every_class(count: int, kind: type, root: Path, monkeypatch: pytest.MonkeyPatch):
    classes = ClassSet("many", tuple(map(str, range(count))), ((9, 8, 7),) * count, ignore=65535)
    layer = torch.nn.Conv2d(3, count, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.arange(count))  # the last class everywhere
    truth = np.full((60, 80), count - 1, np.int16)
    truth[:30] = -1
    stream = open_files([root / "images"])
    labelled = LabelledStream(stream, classes, lambda name: Truth(truth), frozenset(stream.names))
    monkeypatch.setattr(executor, "open_stream", lambda entry: labelled)
    made = make_record(tiny(root).runs[0], labels=root / "kept", model=Segmenter.wrap(layer, classes=classes))
    assert made["figures"]["pixel_accuracy"] == 100
    for path in (root / f"kept/{name}.png" for name in stream.names):
        assert np.asarray(Image.open(path)).dtype == kind and (read_labels(path) == count - 1).all()
    shown: dict[str, np.ndarray] = {}
    monkeypatch.setattr(panels, "_image", lambda pixels, title: shown.update({title: pixels}) or "")
    panels._row(labelled, "0", root / "kept", root / "kept")
    assert (shown["adapted"] == classes.colors[-1]).all() and (shown["truth"][30:] == classes.colors[-1]).all()
    assert not shown["truth"][:30].any() and (shown["change"] == panels.SAME).all()


def test_predictions_are_kept_whole_or_not_at_all(root: Path):
    plan, out = tiny(root), root / "runs"
    names = execute(plan, out).done
    first, second = (labels_folder(out / name) for name in names)

    def interrupt(run: object, done: int, total: int):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(plan, out, interrupt, keep_labels=True)
    assert not first.exists() and not list(out.glob(".*.partial"))
    assert execute(plan, out, keep_labels=True).done == names
    assert len(list(first.glob("*.png"))) == len(list(second.glob("*.png"))) == FRAMES
    assert execute(plan, out, keep_labels=True).kept == names
    (first / "1.png").unlink()  # as earlier versions left it
    assert execute(plan, out, keep_labels=True).done == names[:1]
    before = {path: path.stat().st_mtime_ns for path in second.iterdir()}
    record = read_record(out / names[1])
    record["session"]["method"]["lr"] = 9.0
    write_json(out / names[1], record)
    with pytest.raises(KeyboardInterrupt):
        execute(plan, out, interrupt)
    assert {path: path.stat().st_mtime_ns for path in second.iterdir()} == before
    assert execute(plan, out).done == names[1:]  # made again with the predictions that were kept
    after = {path: path.stat().st_mtime_ns for path in second.iterdir()}
    assert after.keys() == before.keys() and all(after[path] > before[path] for path in before)


def test_frames_that_are_lost_are_said_whenever_the_record_counts(root: Path):
    (root / "images/1.png").write_bytes(b"broken")
    plan, out = tiny(root), root / "runs"
    for _ in range(2):  # made, then kept
        result = execute(plan, out)
        assert {name: list(frames) for name, frames in result.lost.items()} == {run.file: ["1"] for run in plan.runs}
    assert result.kept and gather({"0": vars(result)}, {}).lost == result.lost
    for done in (allweather("bench", root / "plan.toml", "--out", place) for place in (root / "new", out)):
        assert done.returncode == 1 and done.stderr.count("without 1 frames that could not be read or scored: 1 (") == 2


def test_labels_without_a_pixel_that_counts_are_a_reason(root: Path):
    for path in (root / "labels").iterdir():
        Image.fromarray(np.full((60, 80), 255, np.uint8)).save(path)
    failed = execute(tiny(root), root / "runs").failed
    assert all("scored; every pixel of every label is to be ignored" in reason for reason in failed.values()) and failed


def test_labels_of_other_classes_are_refused(root: Path):
    path = write_plan(root)
    path.write_text(path.read_text().replace("${TINY_ROOT}/labels", '${TINY_ROOT}/labels"\nclasses = "camvid11', 1))
    assert "unexpected label values" in next(iter(execute(read_plan(path), root / "runs").failed.values()))


def test_a_sequence_goes_on_without_a_reset_and_is_scored_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TINY_ROOT", str(tmp_path))
    rng = np.random.default_rng(0)
    for condition in ("fog", "night"):
        for kind, name in (("rgb_anon", "a_rgb_anon"), ("gt", "a_gt_labelTrainIds"), ("gt", "a_gt_invIds")):
            folder = tmp_path / kind / condition / "train/S1"
            folder.mkdir(parents=True, exist_ok=True)
            shape = (48, 64, 3) if kind == "rgb_anon" else (48, 64)
            Image.fromarray(rng.integers(0, 2, shape, np.uint8)).save(folder / f"{name}.png")
    stream = 'root = "${TINY_ROOT}"\nsequence = ["acdc:train/fog", "acdc:train/night"]\nrounds = 2'
    path = write_plan(tmp_path)
    path.write_text(path.read_text().replace(FOLDERS, stream))
    record = make_record(read_plan(path).runs[1])
    assert list(record["parts"]) == ["01/train/fog", "01/train/night", "02/train/fog", "02/train/night"]
    assert sum(part["pixels"] for part in record["parts"].values()) == record["figures"]["pixels"] == 4 * 48 * 64
    assert 0 <= record["figures"]["mUIoU"] <= 100
    assert record["images"][0]["watched"] != record["images"][2]["watched"]  # the same frame, a round later


def test_folders_follow_each_other_and_a_piece_may_come_again(root: Path, monkeypatch: pytest.MonkeyPatch):
    for kind in ("images", "labels"):
        for piece in ("day", "dusk"):
            shutil.copytree(root / kind, root / kind / piece, ignore=shutil.ignore_patterns("day", "dusk"))
    path = write_plan(root)
    text = path.read_text().replace("${TINY_ROOT}/images", "${TINY_ROOT}/images/{}")
    path.write_text(text.replace("${TINY_ROOT}/labels", "${TINY_ROOT}/labels/{}"))
    with refusal("images and labels of a sequence, only there"):
        read_plan(path)
    text = path.read_text().replace("[[streams]]", '[[streams]]\nsequence = ["day", "dusk", "day"]')
    path.write_text(text.replace('name = "tent"', 'name = "tent"\nadapt_when = "shift"'))
    source, tent = read_plan(path).runs
    assert (source.content["method"].get("adapt_when"), tent.content["method"]["adapt_when"]) == (None, "shift")
    assert PlannedRun.from_json(json.loads(json.dumps(tent.content))) == tent
    record = make_record(tent)
    assert list(record["parts"]) == ["01/day", "01/dusk", "01/day-2"]
    assert record["frames"] == 3 * FRAMES and record["session"]["adapt_when"] == "shift"
    frames = counts_of(record, [image["name"] for image in record["images"]]).frames
    assert frames.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2], "day-2 is day again"
    assert checked_record(json.loads(json.dumps(record)), path) and record["parts"]["01/day-2"]["first"] == "01/day"
    assert "only on a shift" in group_records([record])[0].label
    path.write_text(path.read_text().replace('"shift"', '"often"'))
    with refusal("unknown adapt_when 'often'"):
        read_plan(path)


def test_a_plan_sets_the_guard_and_older_plans_stay_what_they_were(root: Path):
    path = write_plan(root)
    plain = read_plan(path).runs[1]
    assert "guard" not in plain.content["method"]
    path.write_text(path.read_text().replace('name = "tent"', 'name = "tent"\nguard = { enabled = false, every = 3 }'))
    run = read_plan(path).runs[1]
    assert run.file != plain.file and PlannedRun.from_json(json.loads(json.dumps(run.content))) == run
    record = make_record(run)
    guard = record["session"]["guard"]
    assert (guard["enabled"], guard["every"]) == (False, 3) and guard["max_drift"] == Guard().max_drift
    model = open_model(run)
    assert outdated(record, run, model) == []
    assert outdated(record, plain, model) == ["session.guard.enabled", "session.guard.every"]
    usual, changed = (group.label for group in group_records([record, make_record(plain)]))
    assert changed == f"{usual}, guard enabled False, guard every 3"
    for wrong, told in (("{ evry = 3 }", "unknown field of Guard 'evry'"), ("{ every = 0 }", "Guard.every")):
        path.write_text(re.sub("guard = {.*}", f"guard = {wrong}", path.read_text()))
        with refusal(told):
            read_plan(path)


SPLITS = {  # an image of each, and its label
    "foggy-driving": (
        "Foggy_Driving/leftImg8bit/test/pub/a_leftImg8bit",
        "Foggy_Driving/gtFine/test/pub/a_gtFine_labelTrainIds",
    ),
    "nighttime-driving": (
        "NighttimeDrivingTest/leftImg8bit/test/night/a_leftImg8bit",
        "NighttimeDrivingTest/gtCoarse_daytime_trainvaltest/test/night/a_gtCoarse_labelTrainIds",
    ),
    "cityscapes": ("leftImg8bit/val/bonn/a_leftImg8bit", "gtFine/val/bonn/a_gtFine_labelIds"),
}


def put(root: Path, *pairs: tuple[str, str]):
    """An image and its label at each pair of paths."""
    for pair in pairs:
        for kind, path in zip(("images", "labels"), pair, strict=True):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / kind / "0.png", root / f"{path}.png")


def sequence(root: Path, said: str, **changes: str) -> PlannedRun:
    path = write_plan(root, **changes)
    path.write_text(path.read_text().replace(f'"tiny"\n{FOLDERS}', f'"tiny"\n{said}'))
    return read_plan(path).runs[1]


@pytest.mark.parametrize(
    ("played", "parts"),
    [
        (["fog", "fog", "fog-2"], ["01/fog", "01/fog-3", "01/fog-2"]),
        (["fog", "fog-2", "fog"], ["01/fog", "01/fog-2", "01/fog-3"]),
        (["fog", "fog", "fog"], ["01/fog", "01/fog-2", "01/fog-3"]),
    ],
)
def test_every_part_of_a_sequence_has_a_name_of_its_own(root: Path, played: list[str], parts: list[str]):
    put(root, *((f"images/{piece}/{name}", f"labels/{piece}/{name}") for piece in set(played) for name in "ab"))
    folders = FOLDERS.replace('images"', 'images/{}"').replace('labels"', 'labels/{}"')
    stream = open_stream(sequence(root, f"sequence = {played}\n{folders}"))
    assert list(dict.fromkeys(stream.parts.values())) == parts and len(stream.stream) == 2 * len(parts)
    firsts = {piece: parts[played.index(piece)] for piece in played}
    assert stream.firsts == dict(zip(parts, map(firsts.get, played), strict=True))


@pytest.mark.parametrize(
    ("played", "parts"),
    [
        (["cityscapes:val", "foggy-driving:test"], ["val", "test"]),
        (["nighttime-driving:test", "foggy-driving:test"], ["nighttime-driving-test", "foggy-driving-test"]),
        (["foggy-driving", "foggy-driving:test_all"], ["test_all", "test_all-2"]),
    ],
)
def test_splits_of_one_name_are_told_apart_by_their_datasets(root: Path, played: list[str], parts: list[str]):
    for dataset in {piece.partition(":")[0] for piece in played}:
        put(root, SPLITS[dataset])
    stream = open_stream(sequence(root, f'root = "${{TINY_ROOT}}"\nsequence = {played}\nrounds = 2'))
    assert list(dict.fromkeys(stream.parts.values())) == [f"{number:02d}/{part}" for number in (1, 2) for part in parts]
    assert len(stream.stream) == 4


@pytest.mark.parametrize("order", ["natural", "reversed", "shuffled"])
def test_an_order_is_one_within_each_part_of_a_sequence(root: Path, order: str):
    said = 'sequence = ["scenes:fog", "scenes:night"]\nrounds = 2\nevery = 4'
    natural, stream = (open_stream(sequence(root, said, orders=f'["{each}"]')) for each in ("natural", order))
    parts = [stream.parts[name] for name in stream.stream.names]
    assert parts == [natural.parts[name] for name in natural.stream.names], "pieces and rounds stay in their order"
    played = {part: [name for name in stream.stream.names if stream.parts[name] == part] for part in parts}
    told = {part: [name.rpartition("/")[2] for name in names] for part, names in played.items()}
    first, again = told["01/fog"], told["02/fog"]
    plain = [name.rpartition("/")[2] for name in natural.stream.names][: len(first)]
    assert sorted(first) == sorted(again) == sorted(plain)
    assert {"natural": plain, "reversed": plain[::-1]}.get(order, first) == first
    assert (first != again and first != plain) == (order == "shuffled")


def test_the_code_of_every_piece_is_part_of_what_a_run_is(root: Path):
    said = 'root = "${TINY_ROOT}"\nsequence = ["a.py:MINE:val", "b.py:MINE:val"]'
    made = (
        'from allweather.data.datasets import Dataset, Split\nMINE = Dataset("mine", "M", "", "", {"val": Split(())})\n'
    )
    identities = []
    for name, text in (("a.py", made), ("b.py", f"{made}#"), ("b.py", f"{made}# other"), ("a.py", f"{made}#")):
        (root / name).write_text(text)
        if (root / "b.py").exists():
            identities.append(sequence(root, said).identity)
    assert len(set(identities)) == 3


def test_joining_refuses_what_would_be_lost():
    scenes = labelled_scenes("fog", range(2))
    with refusal("expected each name once, got '01/fog' 2 times", InputError):
        join([("01/fog", scenes), ("01/fog", scenes)])
    name = scenes.stream.names[0]
    inner = join([("b", scenes)])
    with refusal(f"parts 'a' and 'a/b' both have a frame 'a/b/{name}'", InputError):
        join([("a", inner), ("a/b", scenes)])


def test_comparing_names_what_differs_and_pairs_the_images(root: Path):
    source, tent = (make_record(run) for run in tiny(root).runs)
    same = compare(source, source)
    assert same["settings"] == same["figures"] == {} and same["paired"]["mIoU"] == 0
    found = json.loads(json.dumps(compare(source, tent)))
    assert found["settings"]["session.method.name"] == ["source", "tent"]
    ours, theirs = source["figures"]["mIoU"], tent["figures"]["mIoU"]
    assert found["paired"]["mIoU"] == pytest.approx(theirs - ours, abs=0.02) and found["paired"]["images"] == FRAMES
    assert compare(source, tent | {"images": []})["paired"] is None
    assert flatten({"a": {"b": 1}, "c": [2]}) == {"a.b": 1, "c": [2]}


def test_a_plan_has_no_views_of_ones_own(tmp_path: Path):
    with refusal("views: a plan's records cannot say", SettingsError):
        MethodSpec("norm", fields={"views": "plain,own.py:turned"})
    assert MethodSpec("norm", fields={"views": "plain,x1.5"}).fields
