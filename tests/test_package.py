"""What an installation and the package index see: types, links that lead somewhere, and a picture that shows."""

import importlib.util
import re
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HOST = "https://host.example/owner/allweather"
TARGET = re.compile(r"\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_package_says_that_it_is_typed():
    assert (files("allweather") / "py.typed").is_file()


def test_what_the_readme_points_to_is_there():
    relative = [target for target in TARGET.findall(README) if not target.startswith(("http", "#"))]
    assert len(relative) > 5
    assert [target for target in relative if not (ROOT / target.partition("#")[0]).exists()] == []


def test_the_index_shows_the_picture_and_no_path(build: ModuleType):
    shown = build.readme(README, HOST, "v1.0")
    assert f"]({HOST}/raw/v1.0/docs/demo.png)" in shown and f"]({HOST}/blob/v1.0/CONTRIBUTING.md)" in shown
    assert all(target.startswith("http") for target in TARGET.findall(shown))
    assert re.sub(TARGET, "]", shown) == re.sub(TARGET, "]", README)


def test_without_an_address_nothing_leads_nowhere(build: ModuleType):
    shown = build.readme(README, "", "v1.0")
    assert "![" not in shown and all(target.startswith("http") for target in TARGET.findall(shown))
    assert build.urls("") == {"Paper": build.PAPER} and build.urls(HOST)["Source"] == HOST


def test_the_hook_reads_the_variable(build: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALLWEATHER_REPOSITORY", HOST + "/")
    metadata = {"version": "1.0"}
    build.IndexMetadata(str(ROOT), {}).update(metadata)
    assert metadata["urls"]["Issues"] == f"{HOST}/issues"
    assert f"{HOST}/raw/v1.0/docs/demo.png" in metadata["readme"]["text"]
