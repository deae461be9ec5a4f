"""Reports: groups, tables in four forms, the page on its own, and the paper's figures marked where they differ."""

import csv
import io
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from records import record, save
from refusals import refusal
from typer.testing import CliRunner

from allweather import CITYSCAPES, SettingsError
from allweather.app.verbs import make_app
from allweather.methods import METHODS, make, settings_of
from allweather.report import figures, load_records, panels, write_report
from allweather.report.collect import Group, against, changes, group_records, source_of
from allweather.report.compare import compare
from allweather.report.harm import extremes
from allweather.report.page import tables_of
from allweather.report.provenance import timing_table
from allweather.report.published import SECTION4, TABLE4, THIRTEEN, Published, published, table4
from allweather.report.refusals import COLUMN
from allweather.report.table import Table
from allweather.report.tables import harm_tables
from allweather.report.verdict import verdicts
from allweather.runs.decisions import STREAM_PASSES
from allweather.runs.execute import execute
from allweather.runs.plan import MethodSpec, ModelSpec, PlannedRun, StreamSpec, read_plan
from allweather.runs.record_file import read_record
from allweather.runs.streams import open_stream
from allweather.runs.summary import summarize
from allweather.scoring.confusion import ConfusionMatrix

R101 = "deeplabv3plus:resnet101-os16"
DECISIONS = [  # one of each kind
    {"decision": "accepted"},
    *({"decision": kind, "reason": "why"} for kind in ("shrunk", "rolled-back", "reset", "resting", "skipped")),
]
FREE = {"stop_patience": 1000000, "stop_rise": 1e6}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    free = [record("mall-sample", 0.5 + k / 50, fields={"iterations": k, **FREE}) for k in (1, 12, 2)]
    pair = [record("mall-domain", 0.8, seed=seed) for seed in (0, 1)]
    ruled = record("mall-sample", 0.6, fields={"iterations": 40})
    return save(tmp_path / "runs", *pair, record("source", 0.5), *free, ruled)


def compared(groups: list[Group]) -> Table:
    """The table in which they stand beside their source."""
    return next(table for table in tables_of(groups) if "vs source" in table.columns)


def test_seeds_gather_and_the_source_comes_first(runs: Path):
    groups = group_records(load_records(runs))
    assert [group.label for group in groups] == [
        "source", "mall-sample: 1 update", "mall-sample: 2 updates", "mall-sample: 12 updates",
        "mall-sample: stopped, at most 40", "mall-domain",
    ]  # fmt: skip
    assert len(groups[5].records) == 2 and groups[5].spread == 0 and groups[0].spread is None
    assert source_of(groups[5], groups) is groups[0]


def test_two_records_of_one_run_are_refused(tmp_path: Path):
    made = record("norm", 0.5)
    for other in (made, summarize(made, [])):
        with refusal(r"0\.json and .*1\.json are records of one run"):
            load_records(save(tmp_path, made, other))


def test_a_list_of_views_is_told_as_people_write_it(tmp_path: Path):
    told = {"views": ["plain", "gamma-mirror-x1.5"], "lr": 1e-4}
    (group,) = group_records(load_records(save(tmp_path, record("norm", 0.5, fields=told))))
    assert group.label == "norm: lr 0.0001, views plain,gamma-mirror-x1.5"


def test_a_setting_may_hold_others(tmp_path: Path):
    made = record("mine", 0.5, fields={"head": {"depth": 2}})
    write_report(save(tmp_path / "runs", record("source", 0.5), made), tmp_path / "r.md")
    assert "{'depth': 2}" in (tmp_path / "r.md").read_text()


def test_only_a_preset_that_should_be_the_authors_is_called_reconstructed():
    groups = [group_records([record("mall-domain", 0.5, preset=preset)])[0] for preset in ("fast", "paper")]
    assert [group.label.partition(")")[0] for group in groups] == [
        "mall-domain (fast",
        "mall-domain (paper, reconstructed",
    ]


@pytest.mark.parametrize("batchnorm", [True, False])
def test_views_are_told_where_they_are_not_what_the_preset_gives_today(batchnorm: bool):
    of_network = {} if batchnorm else METHODS["mall-domain"].without_batchnorm
    usual = settings_of(make("mall-domain", settings=of_network))
    labels = []
    for views in ("relit-mirror-x1.5-fit", "gamma-mirror-x1.5"):
        made = record("mall-domain", 0.5) | {"session": {"method": usual | {"views": ["plain", views]}}}
        labels.append(group_records([made])[0].label)
    assert labels == ["mall-domain", "mall-domain: views plain,gamma-mirror-x1.5"]


def test_settings_that_differ_in_their_rule_alone_have_labels_and_rows_of_their_own():
    made = [record("source", 0.5, stream=stream) for stream in ("a", "b")]
    for tolerance, right in ((0.9, 0.6), (0.0, 0.7)):
        told = {"iterations": 6, "stop_tolerance": tolerance}
        made += [record("mall-domain", right, fields=told, stream=stream) for stream in ("a", "b")]
    groups = group_records(made)
    labels = {f"mall-domain: stopped, at most 6, stop_tolerance {value}" for value in (0.9, 0.0)}
    assert {group.label for group in groups} == labels | {"source"}
    conditions = tables_of(groups)[0]
    assert {row[1] for row in conditions.rows} == labels | {"source"} and len(conditions.rows) == 3
    assert not figures.curves(groups) and not verdicts(groups), "no number of iterations is fixed"


def test_updates_of_a_method_without_a_rule_are_a_setting_like_others():
    made = [record("tent", 0.6, fields={"iterations": count}) for count in (1, 3)]
    groups = group_records([record("source", 0.5), *made, record("tent", 0.9, fields={"iterations": 1, "lr": 0.05})])
    shown = ["source", "tent: 1 update", "tent: 1 update, lr 0.05", "tent: 3 updates"]
    assert sorted(group.label for group in groups) == shown
    (harm,) = (table for table in tables_of(groups) if table.title.startswith("IoU of each class"))
    assert sorted(row[1] for row in harm.rows) == shown, "none is left out as a point of a curve"
    assert not verdicts(groups)


def test_curves_of_other_settings_are_curves_of_their_own():
    def run(right: float, **told: Any) -> dict[str, Any]:
        return record("mall-sample", right, fields=told)

    points = [run(right, iterations=k, **FREE) for k, right in ((1, 0.6), (9, 0.5))]
    others = [run(right, iterations=k, lr=0.05, **FREE) for k, right in ((1, 0.9), (9, 0.8))]
    texts = verdicts(group_records([*points, *others, run(0.6, iterations=40), run(0.8, iterations=40, lr=0.05)]))
    best = {text.split(" on ")[0]: float(re.findall(r"curve's best \((\S+) at 1;", text)[0]) for text in texts}
    assert best.keys() == {"mall-sample", "mall-sample: lr 0.05"}
    assert best["mall-sample: lr 0.05"] > best["mall-sample"] + 20
    ruled = run(0.6, iterations=40)
    for image in ruled["images"]:
        del image["iterations"]
    (text,) = verdicts(group_records([*points, ruled]))
    assert "do not say after how many iterations" in text


def test_one_frame_is_shown_without_intervals(tmp_path: Path):
    made = [record("source", 0.5), record("norm", 0.8)]
    for one in made:
        one["images"], one["figures"]["interval"] = one["images"][:1], [None, None]
    for shown in (load_records(save(tmp_path / "full", *made)), [summarize(one, made) for one in made]):
        groups = group_records(shown)
        table = compared(groups)
        columns = [table.columns.index(name) for name in ("95 % paired", "95 % of images")]
        assert all(row[column] is None for row in table.rows for column in columns)
        assert figures.gains(groups)
        assert compare(*shown)["paired"]["interval"] == [None, None]
    told = CliRunner().invoke(make_app("compare"), ["compare", *map(str, sorted((tmp_path / "full").iterdir()))])
    assert told.exit_code == 0 and "one frame alone, no interval" in told.stdout


def test_the_source_is_the_network_as_it_came():
    viewed = record("source", 0.7, fields={"views": ["plain", "mirror"]})
    groups = group_records([viewed, record("norm", 0.8), record("source", 0.5)])
    assert [group.label for group in groups] == ["source", "source: views plain,mirror", "norm"]
    assert all(source_of(group, groups) is groups[0] for group in groups)
    table = compared(groups)
    gains = {row[1]: row[3] for row in table.rows}
    assert gains["source"] is None and float(gains["source: views plain,mirror"]) > 0
    assert source_of(groups[2], groups[1:]) is None


def test_runs_of_other_sizes_batches_weights_or_parts_are_never_one_group():
    made = []
    for place, key, value in (
        ("model", "size", "64x48"), ("model", "weights", "a/b.pth"), ("stream", "every", 8), (None, "batch", 1),
        (None, "device", "cuda"), (None, "precision", "bf16"),
    ):  # fmt: skip
        one = record("tent", 0.5)
        (one["run"] if place is None else one["run"][place])[key] = value
        made.append(one)
    groups = group_records([record("tent", 0.5), record("source", 0.5), *made])
    assert len(groups) == 2 + len(made) and len({group.setting for group in groups}) == 1 + len(made)
    shown = " ".join(" ".join(group.setting) for group in groups)
    assert all(word in shown for word in ("at 64×48", ", b", "one frame in 8", "bf16", "cuda"))
    assert source_of(next(group for group in groups if "one frame" in group.where), groups) is None


def test_comparing_tells_what_a_record_does_not_say_from_a_setting_that_is_none(tmp_path: Path):
    records = [record("tent", 0.5, fields={"share": None}), record("tent", 0.7, fields={"share": 0.2, "lr": 0.5})]
    records[1]["figures"] |= {"interval": [2.0, 98.0], "mUIoU": 3.0}
    records[0]["figures"]["mUIoU"] = None
    paths = sorted(save(tmp_path / "full", *records).iterdir())
    told = CliRunner().invoke(make_app("compare"), ["compare", *map(str, paths)], env={"COLUMNS": "200"})
    rows = {cells[0]: cells[1:] for line in told.stdout.splitlines() if (cells := re.split(r" {2,}", line.strip()))}
    assert rows["run.method.fields.share"] == ["none", "0.2"] and rows["run.method.fields.lr"] == ["–", "0.5"]
    assert rows["interval"] == ["[1.0, 99.0]", "[2.0, 98.0]", "–"] and rows["mUIoU"] == ["–", "3.00", "–"]
    assert "None" not in told.stdout


def test_runs_with_other_labels_are_told_apart_and_never_compared():
    made = []
    for key, values in (
        ("labels", ("a/gt", "b/gt")), ("images", ("a/x", "b/x")), ("root", ("a", "b")), ("code", ("ab" * 32, "cd" * 32))
    ):  # fmt: skip
        for value, right in zip(values, (0.5, 0.7), strict=True):
            pair = [record("source", right), record("norm", right + 0.1)]
            for one in pair:
                one["run"]["stream"][key] = value
            made.append(pair)
    for first, second in zip(made[::2], made[1::2], strict=True):
        groups = group_records([*first, *second])
        assert len({group.setting for group in groups}) == 2 and len({group.where for group in groups}) == 2
        for group in (group for group in groups if not group.is_source):
            source = source_of(group, groups)
            assert source.records[0]["run"]["stream"] == group.records[0]["run"]["stream"]
        lonely = group_records([first[0], second[1]])
        assert source_of(lonely[0 if lonely[1].is_source else 1], lonely) is None
        table = compared(groups)
        assert len(table.rows) == 2  # each with a table of its own
        told = first[0]["run"]["stream"].keys() - {"name", "images"}
        assert (compare(first[0], second[1])["paired"] is None) == bool(told)
        assert compare(*first)["paired"]
    (code, *_) = {group.where for group in groups}
    assert "code " in code and len(code) < 40


def test_networks_of_one_name_are_told_apart_by_whatever_differs():
    made = [record("source", 0.5), record("source", 0.6), record("source", 0.7)]
    for one, more in zip(made, ({"weights": "a/x.pth"}, {"weights": "b/x.pth"}, {"weights": None}), strict=True):
        one["run"]["model"] |= more
    names = {group.network for group in group_records(made)}
    assert names == {"tiny:net, weights a/x.pth", "tiny:net, weights b/x.pth", "tiny:net, weights none"}
    for one, mean in zip(made, ([0.5], [0.4], [0.4]), strict=True):
        one["run"]["model"] |= {"mean": mean, "weights": None}
    assert {group.network for group in group_records(made[:2])} == {"tiny:net, mean [0.5]", "tiny:net, mean [0.4]"}


def test_differences_are_paired_by_image(runs: Path):
    groups = group_records(load_records(runs))
    source, domain = groups[0], groups[5]
    found = against(domain, source)
    assert 100 * found.value == pytest.approx(domain.mean("mIoU") - source.mean("mIoU"), abs=0.02)
    assert 0 < found.low <= found.value <= found.high and all(change > 0 for _, change in changes(domain, source))
    worse = group_records([record("source", 0.5), record("tent", 0.4)])
    assert all(change < 0 for _, change in changes(worse[1], worse[0]))


def test_the_best_and_the_worst_frames_are_named_as_such():
    source, tent = record("source", 0.5), record("tent", 0.5)
    for change, before, after in zip((-9, 4, -2, 1), source["images"], tent["images"], strict=True):
        before |= {"name": f"f{change:+}", "intersection": [50] * 3, "union": [100] * 3}
        after |= {"name": f"f{change:+}", "intersection": [50 + change] * 3, "union": [100] * 3}
    groups = group_records([source, tent])
    (table,) = harm_tables(groups)
    (row,) = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert row["lost most"] == "f-9 -9.0; f-2 -2.0" and row["won most"] == "f+4 +4.0; f+1 +1.0"
    assert row["images that lost"] == "2 of 4" and row["their mean"] == pytest.approx(-5.5)
    helped, hurt = extremes(changes(groups[1], groups[0]), 1)
    assert [name for name, _ in helped] == ["f+4"] and [name for name, _ in hurt] == ["f-9"]


def with_a_train(method: str, strays: int) -> dict:
    """A record of four classes, the last of them nowhere true; a wrong pixel of some images is called that."""
    made = record(method, 0.5)
    counts = np.array([[60, 40, 0, 0, 0], [0, 60, 40, 0, 0], [40, 0, 60, 0, 0], [0] * 5])
    matrices = [ConfusionMatrix(4, counts + (index < strays) * MOVED) for index in range(4)]
    for image, matrix in zip(made["images"], matrices, strict=True):
        image |= {"intersection": matrix.intersection.tolist(), "union": matrix.union.tolist()}
        image["only_predicted"] = np.flatnonzero(matrix.counted & ~matrix.in_truth).tolist()
    total = sum(matrices, ConfusionMatrix(4))
    made["figures"] |= total.summary(("road", "sky_high", "car", "train"))
    return made | {"confusion": total.counts.tolist()}


MOVED = np.zeros((4, 5), int)
MOVED[0, 1], MOVED[0, 3] = -1, 1


def test_a_class_that_one_method_strays_into_is_left_out_of_the_comparison():
    source, tent = group_records([with_a_train("source", 0), with_a_train("tent", 2)])
    before, after = 100 * (3 * 60 / 140) / 3, 100 * (2 * 240 / 560 + 240 / 558) / 3  # sky loses two false pixels
    assert (source.mean("mIoU"), tent.mean("mIoU")) == pytest.approx((before, after))
    found = against(tent, source)
    assert 100 * found.value == pytest.approx(after - before)
    assert [change for _, change in changes(tent, source)] == pytest.approx(
        [0, 0, *[100 * (60 / 139 - 60 / 140) / 3] * 2]
    )
    table = compared([source, tent])
    assert "not everywhere in it: train" in table.note and "official: mIoU over the classes true or pred" in table.note
    official, low = (table.columns.index(name) for name in ("official", "95 % of images"))
    assert table.rows[0][official] == pytest.approx(before, abs=0.005)
    assert table.rows[1][official] == pytest.approx(after * 3 / 4, abs=0.005)
    assert float(table.rows[1][low].split()[0]) > 42  # of the mean that the row shows


def test_a_truth_that_holds_every_class_needs_one_mean():
    confusion = np.eye(3, 4, dtype=int).tolist()
    made = [{**record(name, 0.5), "confusion": confusion} for name in ("source", "tent")]
    for one in made:
        one["figures"]["mIoU"] = 100.0
    table = compared(group_records(made))
    assert "over all 3 classes, which the truth holds" in table.note
    assert {row[table.columns.index("official")] for row in table.rows} == {None}


def test_images_that_differ_are_not_paired():
    other = record("tent", 0.6)
    other["images"] = other["images"][:2]
    source, tent = group_records([record("source", 0.5), other])
    assert against(tent, source) is None


def test_the_page_stands_alone_and_escapes_names(runs: Path, tmp_path: Path):
    assert write_report(runs, tmp_path / "r.html") == 7
    text = (tmp_path / "r.html").read_text()
    assert not re.search(r"""(src|href)=["']?(?!["'#])|@import|url\((?!#)""", text.replace('xlink:href="#', ""))
    assert "rain &amp; fog" in text and "f&lt;" in text and "f<" not in text
    assert text.count("<svg") == 3 and "the rule stops after 2.0 iterations" in text
    assert "width=device-width" in text and text.count("<h2") == text.count("<a href='#s") == 6
    parser = HTMLParser()
    parser.feed(text)
    write_report(runs, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_tables_say_the_same_in_every_form(runs: Path, tmp_path: Path):
    for form in ("md", "csv", "latex"):
        write_report(runs, tmp_path / form, form)
    rows = list(csv.reader(io.StringIO((tmp_path / "csv").read_text())))
    value = float(next(row for row in rows if row[1:3] == ["tiny:net", "mall-domain"])[3])
    assert f"| {value:.2f} |" in (tmp_path / "md").read_text()
    latex = (tmp_path / "latex").read_text()
    assert f"{value:.2f}" in latex and r"rain \& fog" in latex and r"sky\_high" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}")


@pytest.mark.parametrize(("name", "form"), [("r.html", "html"), ("r.md", "md"), ("r.CSV", "csv"), ("r.tex", "latex")])
def test_a_report_is_of_the_form_that_its_name_ends_in(name: str, form: Any, runs: Path, tmp_path: Path):
    write_report(runs, tmp_path / name)
    write_report(runs, tmp_path / "again", form)
    assert (tmp_path / name).read_text() == (tmp_path / "again").read_text()


@pytest.mark.parametrize(
    ("name", "form", "said"),
    [
        ("r.txt", None, "or --format beside it"),
        ("r", None, "or --format beside it"),
        ("r.html", "md", "Leave out one"),
        ("r.tex", "csv", "Leave out one"),
        ("r.md", None, "leave out --frames, or write .html"),
    ],
)
def test_a_form_that_nothing_tells_or_two_things_tell_is_refused(
    name: str, form: Any, said: str, runs: Path, tmp_path: Path
):
    with refusal(said, SettingsError):
        write_report(runs, tmp_path / name, form, frames=int("frames" in said))
    assert not (tmp_path / name).exists()


def test_names_are_no_mathematics_to_matplotlib_and_no_commands_to_tex(tmp_path: Path):
    import matplotlib

    before, page = dict(matplotlib.rcParams), tmp_path / "r.html"
    fields = {"source_images": r"${DATA}\gta/${SPLIT}"}
    free = [record("mall-sample", 0.5 + k / 50, fields={"iterations": k, **FREE, **fields}) for k in (1, 2)]
    write_report(save(tmp_path / "runs", record("source", 0.5), record("eata", 0.6, fields=fields), *free), page)
    assert page.read_text().count("<svg") == 3
    assert {name for name, value in matplotlib.rcParams.items() if value != before[name]} <= {"backend"}
    latex = Table("t", ("^^5cinput ~ {}<|>",), [["x"]]).latex()
    assert r"\textasciicircum{}\textasciicircum{}5cinput \textasciitilde{} \{\}" in latex
    assert r"\textless{}\textbar{}\textgreater{}" in latex
    assert r"a $\to$ b" in Table("t", ("a → b",), [["x"]]).latex()


def test_every_method_is_named_in_the_legend():
    drawn = figures.reliability(group_records([record("source", 0.5), record("_mine", 0.6)]))
    assert "<!-- _mine -->" in next(iter(drawn.values()))


def test_a_missing_value_is_a_dash_and_an_empty_cell():
    table = Table("t", ("a|", "b"), [["x|y", None], ["z", -1.5]])
    assert "| a\\| | b |" in table.markdown() and "| x\\|y | – |" in table.markdown() and "t,x|y,\n" in table.csv()
    assert '<td class="n">−1.50</td>' in table.html() and "$-$1.50" in table.latex() and "z,-1.5\n" in table.csv()


def test_a_column_without_values_is_in_csv_only():
    table = Table("t", ("a", "empty"), [["x", None]])
    assert "t,x,\n" in table.csv() and "table,a,empty\n" in table.csv()
    assert all("empty" not in text for text in (table.markdown(), table.html(), table.latex()))


def test_groups_become_headings_and_rows_become_blocks():
    text = Table("t", ("g", "a", "b"), [["one", "x", "p & s; q"], ["one", "y", "r"], ["two", "z", "s"]], grouped=True,
                 stacked=True).html()  # fmt: skip
    assert text.count("class='of'") == 2 and "<th>g</th>" not in text and text.count("<td") == 6
    assert 'data-of="b">p &amp; s<br>q</td>' in text


def one_published(method: str, stream: str, model: str, **changes: object) -> Published | None:
    made = record(method, 0.5, model=model, stream=stream, **changes)
    made["run"]["scoring"] = changes.get("scoring", "native")
    (one,) = group_records([made])
    return published(one)


def test_the_papers_figures_stand_beside_and_are_marked():
    night = record("mall-domain", 0.7, model=R101, stream="acdc:val/night")
    (table, *_) = tables_of(group_records([record("source", 0.5, model=R101, stream="acdc:val/night"), night]))
    assert (
        table.columns[-1] == "published"
        and [row[-1] for row in table.rows] == ["26.2†", "36.8†"]
        and "† Table 1: the paper's are of the test" in table.note
    )
    same = one_published("source", "acdc:test/night", R101)
    assert (same.figure, same.differs, same.marked) == (26.2, "", "26.2")
    ours = one_published("mall-domain", "acdc:test/fog", R101)
    paper = one_published("mall-domain", "acdc:test/fog", R101, preset="paper")
    assert "this project's settings" in ours.differs and not paper.differs
    assert one_published("source", "acdc:val/night", "espnetv2:2.0") is None
    log = one_published("source", "dark-zurich:val", R101, scoring="1024x512")
    assert (log.figure, log.differs) == (20.24, "")
    other = one_published("source", "dark-zurich:val", R101)
    assert "1024×512" in other.differs
    assert one_published("mall-sample", "nighttime-driving:test", "mgcda:refinenet").figure == 49.7


def test_conditions_stand_side_by_side_with_the_papers_below():
    streams = [f"acdc:val/{name}" for name in ("fog", "night")]
    made = [record("source", 0.5 + k / 10, model=R101, stream=stream) for k, stream in enumerate(streams)]
    table = tables_of(group_records(made))[0]
    assert table.columns == ("network", "method", *streams, "mean", COLUMN)
    ours, theirs = table.rows
    assert ours[4] == pytest.approx((ours[2] + ours[3]) / 2) and ours[3] > ours[2]
    assert list(theirs) == [R101, "source, published", "49.0†", "26.2†", None, None]


def test_table_4_is_complete_and_stands_below_our_classes():
    for name in TABLE4:
        *classes, mean = table4(name)
        assert len(classes) == 19 and np.mean(classes) == pytest.approx(mean, abs=0.051), name
    made = record("source", 0.5, model="dannet:pspnet", stream="dark-zurich:val")
    made["figures"]["IoU"] = dict.fromkeys(CITYSCAPES.names, 50.0)
    table = next(table for table in tables_of(group_records([made])) if table.title.startswith("IoU of each class"))
    assert len(table.rows) == 1 + len(TABLE4) and table.rows[-1][2] == 90.3 and len(set(map(len, table.rows))) == 1


def test_the_report_says_whether_the_rule_found_the_best_and_why_not(runs: Path):
    (text,) = verdicts(group_records(load_records(runs)))
    assert "2.0 iterations on average" in text and "not within 1 point" in text and "4 images" in text
    points = [record("mall-sample", right, fields={"iterations": k, **FREE}) for k, right in ((1, 0.8), (9, 0.6))]
    points[1]["figures"]["ncut"] = 1.5  # the cut falls on while mIoU falls too
    ruled = record("mall-sample", 0.799, fields={"iterations": 40})
    for image, decision in zip(ruled["images"], DECISIONS[1:5], strict=True):
        image |= {"iterations": 9, "stop": "cap", **decision}
    (text,) = verdicts(group_records([*points, ruled]))
    assert ", within 1 point" in text and "Of 4 images, 4 reached the cap" in text
    assert (
        "still falls, from 2.000 to 1.500 at 9" in text
        and "4 of 4 images (1 shrunk, 1 rolled back, 1 reset, 1 resting)" in text
    )
    for image, decision in zip(ruled["images"], [DECISIONS[0], DECISIONS[5]] * 2, strict=True):
        image |= decision
    assert "The guard refused no update." in verdicts(group_records([*points, ruled]))[0]
    ruled[STREAM_PASSES] = []
    (text,) = verdicts(group_records([*points, ruled]))
    assert text.endswith("so nothing is said."), "passes over a stream end by another rule, and sum the updates"


def test_the_mean_of_thirteen_needs_all_of_them():
    model = "bisenetv2:mmseg"
    full = [record("mall-sample", 0.4 + i / 40, model=model, stream=name) for i, name in enumerate(THIRTEEN)]
    title = "Mean over thirteen datasets"
    (table,) = (table for table in tables_of(group_records(full)) if table.title == title)
    assert table.rows[0][2] == pytest.approx(np.mean([entry["figures"]["mIoU"] for entry in full]))
    assert table.rows[0][4] == "28.6†" and SECTION4[model] == 28.6 and len(set(THIRTEEN)) == 13
    assert title not in [table.title for table in tables_of(group_records(full[:-1]))]


@pytest.mark.parametrize(
    ("batch", "changes", "whole", "older"),
    [
        (1, {}, 250, 250), (2, {}, 500, 500), (3, {}, 500, None), (4, {}, 1000, 1000), (12, {}, 1000, 1000),
        (1, {"frames": 5}, 250, 250), (12, {"frames": 5}, None, None), (12, {"resolution": {}}, None, None),
        (2, {"resolution": {"input": ["64x48", "48x64"]}}, None, None),
    ],
)  # fmt: skip
def test_time_per_update_is_of_batches_as_full_as_they_were(
    batch: int, changes: dict, whole: float | None, older: float | None
):
    made = record("tent", 0.5) | {"resolution": {"input": ["64x48"]}} | changes  # 4 frames, 0.5 s and 2 updates each
    made["run"]["batch"] = batch
    before = summarize(made, [])
    before["summary"] = {key: value for key, value in before["summary"].items() if key != "updates"}
    for kept, expected in ((made, whole), (summarize(made, []), whole), (before, older)):
        table = timing_table(group_records([kept]))
        assert dict(zip(table.columns, table.rows[0], strict=True))["ms per update"] == expected


@pytest.mark.parametrize("passes", [False, True])
def test_time_per_update_is_of_frames_that_were_learnt_from(passes: bool):
    made = record("tent", 0.5)  # 4 frames, 0.5 s and 2 updates each
    made["run"]["batch"] = 1
    idle = {"decision": "skipped", "iterations": 0, "stop": "none", "seconds": 9.0}
    if passes:
        made["stream_passes"] = []
        made["images"] = [image | {"stream_passes": [idle, image], "seconds": 9.6} for image in made["images"]]
    else:
        made["images"][0] |= idle
    for kept in (made, summarize(made, [])):
        assert timing_table(group_records([kept])).rows[0][4] == 250.0
    del kept["summary"]["seconds"]  # as older ones
    assert timing_table(group_records([kept])).rows[0][4] is None


def test_a_sequence_is_shown_piece_by_piece():
    parts = {"01/fog": {"mIoU": 40.0}, "01/night": {"mIoU": 30.0}, "02/fog": {"mIoU": 42.0}, "02/night": {"mIoU": 32.0}}
    tables = tables_of(group_records([record("tent", 0.5, parts=parts)]))
    (table,) = (table for table in tables if "piece by piece" in table.title)
    assert list(table.columns[1:]) == ["round", "fog", "night", "mean", COLUMN]
    assert [list(row[1:-1]) for row in table.rows] == [["round 1", 40.0, 30.0, 35.0], ["round 2", 42.0, 32.0, 37.0]]


def test_mistakes_are_said(tmp_path: Path):
    with refusal("no record"):
        write_report(tmp_path, tmp_path / "r.html")
    (tmp_path / "a.json").write_text("{}")
    with refusal(r"is not a record .*: run is missing"):
        write_report(tmp_path, tmp_path / "r.html")
    with refusal("unknown format 'pdf'"):
        write_report(save(tmp_path / "runs", record("source", 0.5)), tmp_path / "r.pdf", "pdf")


def test_the_verb_writes_the_file_it_is_told_to(runs: Path, tmp_path: Path):
    app = make_app("report")
    result = CliRunner().invoke(app, ["report", str(runs), "--out", str(tmp_path / "r.md"), "--format", "md"])
    assert result.exit_code == 0 and (tmp_path / "r.md").read_text().startswith("### ")
    assert CliRunner().invoke(app, ["report", str(runs), "--out", "r.pdf", "--format", "pdf"]).exit_code == 2


def test_panels_show_the_frames_that_changed_most(tmp_path: Path):
    plan = tmp_path / "plan.toml"
    text = '[[models]]\nname = "demo:streetnet"\nsize = "64x48"\n[[streams]]\nname = "scenes:fog"\nevery = 12\n'
    plan.write_text(text + '[[methods]]\nname = "source"\n[[methods]]\nname = "norm"\n')
    runs = tmp_path / "runs"
    execute(read_plan(plan), runs)
    with refusal("--labels"):
        write_report(runs, tmp_path / "page.html", frames=1)
    again = execute(read_plan(plan), runs, keep_labels=True)
    assert len(again.done) == 2
    assert execute(read_plan(plan), runs, keep_labels=True).kept == again.done
    write_report(runs, tmp_path / "page.html", frames=1)
    page = (tmp_path / "page.html").read_text()
    assert page.count("alt='truth'") == page.count("alt='change'") >= 1
    assert "500000" in page or "500012" in page
    assert "src='data:image/" in page
    assert "src='http" not in page
    for path in runs.glob("*.json"):
        path.write_text(json.dumps(read_record(path) | {"frames": 99}))
    with refusal("are others than those of the record: start the report in the plan's"):
        write_report(runs, tmp_path / "page.html", frames=1)


@pytest.mark.parametrize(
    "stream",
    [
        {"name": "FOLDER/evil.py:DS:val"},
        {"name": "evil.py:DS:val", "folder": "FOLDER"},
        {"name": "evil:DS"},
        {"name": "night", "sequence": ["camvid:val", "evil.py:DS"], "folder": "FOLDER"},
    ],
)
def test_a_record_runs_no_code(
    stream: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    spec = PlannedRun(
        ModelSpec("demo:streetnet"), StreamSpec("x", "root"), MethodSpec("source"), "online", "natural", 0, 1, "native",
        "cpu", "float32",
    )  # fmt: skip
    made, content = [], json.loads(json.dumps(spec.content).replace('"x"', '"FOLDER"'))
    content["stream"] |= stream
    for method in ("source", "norm", "tent"):
        run = content | {"method": {**content["method"], "name": method}}
        made.append(record(method, 0.5) | {"run": json.loads(json.dumps(run).replace("FOLDER", str(tmp_path)))})
        run = PlannedRun.from_json(made[-1]["run"])
        assert not run.stream.folder
        (tmp_path / "runs" / run.file).with_suffix("").mkdir(parents=True)
    save(tmp_path / "runs", *made)
    write_report(tmp_path / "runs", tmp_path / "page.html", frames=1)
    assert "no frames are shown; its dataset is none of this package" in (tmp_path / "page.html").read_text()
    assert len(caplog.records) == 1 and not (tmp_path / "ran").exists()


def test_a_class_file_is_sought_in_the_plans_folder():
    stream = StreamSpec("x", None, "/i", "/l", "yard.toml")
    run = PlannedRun(ModelSpec("demo:streetnet"), stream, MethodSpec("source"), "online", "natural", 0, 1, "native",
                     "cpu", "float32")  # fmt: skip
    with refusal(r"names /i, /l, yard\.toml as its plan does"):
        panels._opened(run, {})


def test_procedural_weather_in_rounds(tmp_path: Path):
    stream = StreamSpec("rounds", sequence=("scenes:clear", "scenes:night"), rounds=2, every=12)
    assert stream.procedural
    method = MethodSpec("source")
    spec = PlannedRun(
        ModelSpec("demo:streetnet"), stream, method, "online", "natural", 0, 1, "native", "cpu", "float32"
    )
    assert PlannedRun.from_json(asdict(spec)) == spec
    source = open_stream(spec)
    assert [source.parts[name] for name in source.stream.names] == [
        *["01/clear"] * 2, *["01/night"] * 2, *["02/clear"] * 2, *["02/night"] * 2,
    ]  # fmt: skip
    dark, bright = (source.stream.read(source.stream.names[index]).image.mean() for index in (2, 0))
    assert dark < 0.7 * bright
    assert np.array_equal(*(source.truth(source.stream.names[index]).labels for index in (0, 2)))
    with refusal("either root"):
        StreamSpec("scenes:fog", root="somewhere")


def test_runs_that_were_scored_at_two_sizes_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    kept = SimpleNamespace(stream=StreamSpec("scenes:fog"))
    for name, value in (("_run", kept), ("_labels", Path()), ("_opened", None), ("_row", ""), ("_key", "key")):
        monkeypatch.setattr(panels, name, lambda *_, value=value: value)
    free = [record("mall-sample", 0.6, fields={"iterations": k, **FREE}) for k in (1, 2)]
    ruled, parts = record("mall-sample", 0.6, fields={"iterations": 40}), {"01/fog": {"mIoU": 40.0}}
    native = [record("source", 0.5), record("norm", 0.8, parts=parts), ruled, *free]
    native += [record("tent", right, seed=seed) for seed, right in enumerate((0.7, 0.9))]
    lost = native[-2]["images"].pop()["name"]
    groups = group_records(native + [{**one, "run": {**one["run"], "scoring": "1024x512"}} for one in native])
    tables = [next(t for t in tables_of(groups) if name in t.title) for name in ("hurt", "Time", "by piece")]
    rows = [tuple(row[:2]) for table in tables for row in table.rows]
    texts = [*figures.gains(groups), *figures.curves(groups), *figures.reliability(groups), *verdicts(groups)]
    shown = list(panels.panels(groups, Path(), 1))
    assert len(texts) == 8 and len(shown) == 7 and shown[-1] == "rain & fog", "the key comes last"
    assert len(rows) == len(set(rows)) == 20 and len(set(texts)) == 8
    assert sum("run 1 of 2: " in text and text.endswith("mean over runs") for text in shown) == 2
    assert not any(f"{lost}, run 1" in text for text in shown)
    assert all("tent, run 1 of 2" in drawn for drawn in figures.reliability(groups).values())
    assert "truth, mean over runs. " in tables[0].note and not any(each.scored for each in group_records(native))


def test_figures_are_brief_and_letters_keep_their_scale():
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1 / 3, 1], [0, 1 / 7, 3])
    drawing = figures.brief_svg(figure)
    root = ElementTree.fromstring(drawing)
    assert {f"{root.get('width')}", f"{root.get('height')}"} == {"216pt", "144pt"} and root.findall(".//{*}path")
    assert "scale(0.015625)" in drawing and "rotate(-0" not in drawing
    assert not re.search(r"(?<![\d.])[1-9]\d*\.\d{3,}|^ | $", drawing, flags=re.MULTILINE)
