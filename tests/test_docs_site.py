"""The documentation site: it builds without a warning, loads nothing from elsewhere, and has every public name."""

import html.parser
import importlib
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import allweather
from allweather.methods import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
ROOMS = ("methods", "models", "session", "data", "data.datasets", "pictures", "live", "serve", "report", "submit")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "JUPYTER_PLATFORM_DIRS": "1"}


class Loads(html.parser.HTMLParser):
    """What a page loads by itself: scripts, styles, pictures, frames; links that a reader may follow are none."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]):
        if tag == "a":
            return
        for name, value in attributes:
            if name in ("src", "srcset", "href", "data", "action", "poster"):
                self.addresses.append(value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out / "state"), str(DOCS)]
    command += ["-D", "nb_execution_mode=off"]  # a test of its own executes the notebook
    done = subprocess.run([*command, str(out / "html")], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr  # a link that leads nowhere is a warning, and a warning an error
    return out / "html"


def test_the_site_loads_nothing_from_elsewhere(site: Path):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    outside = re.compile(r"^(?:https?:)?//")
    for page in pages:
        assert [address for address in Loads(page.read_text()).addresses if outside.match(address)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\([\"']?|@import\s+[\"'])(?:https?:)?//", style.read_text()), style


def test_what_is_loaded_from_elsewhere_would_be_found():
    page = '<a href="https://a.example"></a><script src="//b.example/x.js"></script><img src="c.png">'
    assert Loads(page).addresses == ["//b.example/x.js", "c.png"]


def test_every_public_name_is_in_the_reference(site: Path):
    listing = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    found = {line.split(" ")[0] for line in zlib.decompress(listing).decode().splitlines()}
    public = {f"allweather.{name}" for name in allweather.__all__ if name not in ("methods", "__version__")}
    assert public - found == set()
    for room in ROOMS:
        module = importlib.import_module(f"allweather.{room}")
        names = {name for name in module.__all__ if _made(getattr(module, name)) and name not in allweather.__all__}
        assert {f"allweather.{room}.{name}" for name in names} - found == set()


def _made(thing: object) -> bool:
    return inspect.isclass(thing) or inspect.isfunction(thing)


def test_equations_are_on_the_page_without_a_script(site: Path):
    text = (site / "concepts" / "equations.html").read_text()
    assert text.count("<math") > 40 and "mathjax.js" not in text.lower()
    assert "\\frac" not in re.sub(r"<annotation.*?</annotation>", "", text)


def test_every_method_has_its_equation():
    text = (DOCS / "concepts" / "equations.md").read_text()
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE) == list(METHODS)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_runs(notebook: Path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    kept = json.loads(notebook.read_text())
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 4 and not any(cell["outputs"] or cell["execution_count"] for cell in code)
    made = nbformat.reads(notebook.read_text(), as_version=4)
    nbclient.NotebookClient(made, timeout=900, startup_timeout=300, kernel_name="python3").execute(env=ENVIRONMENT)
    said = [out["text"] for cell in made.cells for out in cell.get("outputs", []) if out.output_type == "stream"]
    figures = re.search(r"source ([\d.]+)%, adapted ([\d.]+)%", "".join(said))
    assert float(figures[2]) > float(figures[1]) + 5


def test_the_pictures_are_drawn_by_their_script(tmp_path: Path):
    pytest.importorskip("matplotlib")
    script = runpy.run_path(str(DOCS / "pictures" / "draw.py"))
    script["main"](tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"normalized-cut.png", "house.svg"}
    assert {path.name for path in (DOCS / "pictures").glob("*.*g")} == {"normalized-cut.png", "house.svg"}
    words = [re.findall(r">(.+?)</text>", (place / "house.svg").read_text()) for place in (tmp_path, DOCS / "pictures")]
    assert words[0] == words[1] and "session" in words[0]


def test_the_house_is_the_one_that_the_rules_hold():
    pytest.importorskip("matplotlib")
    floors = runpy.run_path(str(DOCS / "pictures" / "draw.py"))["FLOORS"]
    rules: dict[str, set[str]] = runpy.run_path(str(ROOT / "tests" / "test_architecture.py"))["BELOW"]
    order = [room for *_, rooms in floors for room in rooms]  # from top to bottom, on a floor from left to right
    assert set(order) == set(rules)
    for room, below in rules.items():
        assert [other for other in below if order.index(other) <= order.index(room)] == []
