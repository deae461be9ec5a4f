"""What the pages claim and the catalogue, the plans and the records can confirm."""

import re
from pathlib import Path

import pytest

from allweather.data.datasets import DATASETS
from allweather.methods import METHODS, describe_fields
from allweather.models.catalogue import all_entries

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NUMBERS = {17: "seventeen", 60: "sixty"}


def test_numbers_of_networks_methods_and_datasets() -> None:
    """A number that is claimed in words is that of the catalogue."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    networks = [entry for entry in all_entries() if entry.packaged is None and entry.segments]
    assert f"Networks by name, {NUMBERS[len(networks)]} and the demo's" in changelog
    assert f"Layouts of {NUMBERS[len(DATASETS)]} datasets" in changelog
    assert all(f"`{name}`" in (ROOT / "README.md").read_text() for name in METHODS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_plans_records_and_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"\b(?:plans|benchmarks|tests|docs)/[\w./-]*\w\.(?:toml|json|md|py)\b", text))
    missing = [name for name in named if "PLAN" not in name and not (ROOT / name).exists()]
    assert not missing
    links = [link.partition("#")[0] for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)]
    assert not [link for link in links if link and not (page.parent / link).exists()]
    modules = re.findall(r"python -m (benchmarks\.\w+)", text)
    assert not [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").exists()]


def test_every_plan_of_the_table_of_results_has_summaries() -> None:
    table = (ROOT / "docs" / "results" / "README.md").read_text()
    plans = {name for row in re.findall(r"^\| (`[^|]+) \|", table, re.M) for name in re.findall(r"`([\w-]+)`", row)}
    made = re.search(r"^PLANS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert made is not None and plans == set(made[1].replace("\\", "").split())
    for plan in plans:
        assert (ROOT / "plans" / f"{plan}.toml").exists()
        assert list((ROOT / "benchmarks" / "records" / "plans" / plan).glob("*.json")), plan


def test_what_the_notes_call_the_default_now_is_one() -> None:
    found = re.findall(r"\b(\w+) ([\d.e-]+) \(the default now\)", (ROOT / "docs" / "lab-notes.md").read_text())
    assert found
    for field, value in found:
        defaults = [
            describe_fields(method)[field]["default"] for method in METHODS.values() if field in describe_fields(method)
        ]
        assert float(value) in defaults, f"{field} {value}"
