"""What the pages claim and the catalogue, the plans and the records can confirm."""

import re
from pathlib import Path
from typing import get_args

import pytest

from allweather.app.flags import Preset
from allweather.data.datasets import DATASETS
from allweather.methods import METHODS, describe_fields
from allweather.models.catalogue import ECOSYSTEMS, all_entries, list_models
from allweather.runs.plan import read_plan
from allweather.runs.summary import is_summary
from benchmarks.committed import load, plan_files, plan_records
from benchmarks.packed import spell_lines

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
KEPT = ROOT / "benchmarks" / "records"
PLANS = sorted(path.name.partition(".")[0] for path in (KEPT / "plans").glob("*.jsonl*"))
LARGEST = 10_000  # bytes of a summary: a few kB, and ten rounds of six weathers, two means each, twice that
SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int) -> str:
    """A number below a hundred as pages spell it."""
    if number < 20:
        return SMALL[number]
    return "-".join([TENS[number // 10 - 2], *([SMALL[number % 10]] if number % 10 else [])])


def test_numbers_of_networks_methods_and_datasets():
    """A number that is claimed in words is that of the catalogue, or of a record."""
    changelog, readme = ((ROOT / name).read_text() for name in ("CHANGELOG.md", "README.md"))
    networks = [entry for entry in all_entries() if entry.packaged is None and entry.segments]
    assert f"Networks by name, {in_words(len(networks))} and the demo's" in changelog
    assert f"**{in_words(len(networks)).capitalize()} networks by name**" in readme
    libraries, helpers = len(ECOSYSTEMS), [entry.name for entry in all_entries() if not entry.segments]
    listed = len(list_models())
    assert helpers == ["dannet:lightnet"] and listed == len(networks) + 2 + libraries
    assert f"`doctor` count {in_words(listed)}: these, the demo's, DANNet's relighting network" in readme
    assert f"and the {in_words(libraries)} libraries." in readme
    assert f"Layouts of {in_words(len(DATASETS))} datasets" in changelog
    assert all(f"`{name}`" in readme for name in METHODS)
    cases = load(KEPT / "fidelity.json.gz")["rows"]
    beside = {re.split("[, ]", case)[0] for case in cases}
    assert beside <= set(METHODS) and f"{in_words(len(beside))} of them run beside their authors' code" in readme


def test_pages_measure_on_scenes_that_trained_nothing():
    for page in ("how-to/metric.md", "quickstart.md", "tutorials/adapting-to-fog.ipynb"):
        assert re.findall(r"(?:, range|= render)\((\w+)", (ROOT / "docs" / page).read_text()) == ["300_000"]


def test_the_help_names_the_presets_that_methods_have_beyond_the_two():
    """`--preset` says which method has which."""
    having = {(preset, name) for name, method in METHODS.items() for preset in method.presets}
    claims = dict(re.findall(r"(\w+) of ([\w -]+)", get_args(Preset)[1].help))
    kinds = {"either MALL": ("mall-sample", "mall-domain")}
    said = {(preset, name) for preset, whose in claims.items() for name in kinds.get(whose, (whose,))}
    assert said == {(preset, name) for preset, name in having if preset not in ("recommended", "paper")}


def test_a_preset_as_published_is_another_setting_than_the_default():
    """`every method has two presets` is said of methods whose authors published settings."""
    for name, method in METHODS.items():
        defaults = {field: entry["default"] for field, entry in describe_fields(method).items()}
        same = all(defaults[field] == value for field, value in method.presets["paper"].items())
        assert same == (name == "source"), name


@pytest.mark.parametrize("plan", PLANS)
def test_the_records_of_a_plan_are_of_its_runs_and_small(plan: str):
    """What a page says of `plans/NAME.toml` is what the records beside that name hold."""
    records = plan_files(plan)
    runs = {run.file: run.identity for run in read_plan(ROOT / "plans" / f"{plan}.toml").runs}
    assert {name: record["identity"] for name, record in records.items()} == runs
    assert all(is_summary(record) for record in records.values())
    assert max(len(spell_lines(record)) for record in records.values()) < LARGEST


def test_frames_of_camvid():
    """The page's numbers of frames are those of the records that its table is made of."""
    found = {record["run"]["stream"]["name"]: record["frames"] for record in plan_records("camvid")}
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert f"{found['camvid-dusk']} frames at dusk, {found['camvid-day']} by day" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_plans_records_and_files_that_a_page_names_are_there(page: Path):
    text = page.read_text()
    named = set(re.findall(r"\b(?:plans|benchmarks|tests|docs)/[\w./-]*\w\.(?:toml|json(?:\.gz)?|md|py)\b", text))
    missing = [name for name in named if "PLAN" not in name and not (ROOT / name).exists()]
    assert not missing
    links = [link.partition("#")[0] for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)]
    assert not [link for link in links if link and not (page.parent / link).exists()]
    modules = re.findall(r"python -m (benchmarks\.\w+)", text)
    assert not [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").exists()]


def test_every_plan_of_the_table_of_results_has_summaries():
    table = (ROOT / "docs" / "results" / "README.md").read_text()
    plans = {name for row in re.findall(r"^\| (`[^|]+) \|", table, re.M) for name in re.findall(r"`([\w-]+)`", row)}
    made = re.search(r"^PLANS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert plans == set(made[1].replace("\\", "").split())
    for plan in plans:
        assert (ROOT / "plans" / f"{plan}.toml").exists()
        assert plan_records(plan), plan


def test_what_the_notes_call_the_default_now_is_one():
    found = re.findall(r"\b(\w+) ([\d.e-]+) \(the default now\)", (ROOT / "docs" / "lab-notes.md").read_text())
    assert found
    for field, value in found:
        defaults = [
            describe_fields(method)[field]["default"] for method in METHODS.values() if field in describe_fields(method)
        ]
        assert float(value) in defaults, f"{field} {value}"


def test_what_pages_call_recommended_without_batchnorm_is():
    """Lab notes and results name the rates and the look ahead of networks that have no statistics to replace."""
    sample, domain = (METHODS[name].without_batchnorm for name in ("mall-sample", "mall-domain"))
    (noted,) = re.findall(
        r"cut, ([\d.e-]+), ([\d.e-]+)\*\* \(the default of networks", (ROOT / "docs" / "lab-notes.md").read_text()
    )
    assert tuple(map(float, noted)) == (domain["lr"], domain["lookahead"])
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    rates = r"`mall-sample` at lr ([\d.e-]+) and `mall-domain` at ([\d.e-]+), .*? look ahead of ([\d.e-]+),"
    ours, theirs, ahead = re.findall(rates + " are the recommended settings", text)[0]
    assert (float(ours), float(theirs), float(ahead)) == (sample["lr"], domain["lr"], domain["lookahead"])
    assert domain["ncut_weight"] == 1 and domain["entropy_weight"] == domain["diversity_weight"] == 0
