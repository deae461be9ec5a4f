"""Every page: what it shows exists, and its snippets and commands run as they stand."""

import re
from pathlib import Path

import numpy as np
import pytest
from clips import clip, scene
from pages import ROOT, Block, blocks, faults, run_line, runs_here, snippets
from PIL import Image

import allweather as aw
from allweather.data.scenes import render

PAGES = {
    str(page.relative_to(ROOT)): page
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("src/**/*.md"))]
}
ELSEWHERE = {  # pages that tests of their own run, with more that they must show; a page that is not there yet is none
    "docs/how-to/own-network.md": "test_app_own",
    "docs/how-to/own-method.md": "test_app_own",
    "docs/how-to/own-dataset.md": "test_app_own",
    "docs/how-to/deploy.md": "test_docs_export",
    "docs/how-to/export.md": "test_docs_export",
    "docs/how-to/live.md": "test_docs_live",
    "docs/how-to/video-and-streams.md": "test_docs_streams",
    "docs/how-to/serve.md": "test_docs_serve",
    "docs/how-to/many-streams.md": "test_docs_scale",
    "docs/scale.md": "test_docs_scale",
}
CHECKED = {  # pages whose commands are held against the parser, Makefile and pyproject, and why they are not run
    "README.md": "names files of the reader's",
    "CONTRIBUTING.md": "runs all tests, and builds the package",
    "docs/contributing.md": "is CONTRIBUTING.md",
    "docs/results.md": "hours on datasets that are not ours to give",
    "docs/results/README.md": "ten hours",
    "docs/performance.md": "hours on an idle machine",
    "docs/lab-notes.md": "hours on datasets that are not ours to give",
}
SHORTER = {  # (page, what stands there): what the test runs
    ("docs/quickstart.md", "--frames 2"): "--frames 1",
    ("README.md", '"espnetv2:2.0", weights="espnetv2_s_2.0_city_512x256.pth"'): '"demo:streetnet"',  # not ours to give
}


def written(page: str) -> bool:
    """Whether a page shows anything that can be run here."""
    files, commands = snippets(PAGES[page])
    return bool(files or [line for line in commands if runs_here(line)] or loose(page))


def loose(page: str) -> list[Block]:
    """The Python blocks of a page that are no files: they follow each other in one namespace."""
    return [block for block in blocks(PAGES[page]) if block.kind == "python" and not block.name]


RUN = [page for page in PAGES if page not in ELSEWHERE and (loose(page) if page in CHECKED else written(page))]


def shortened(page: str, text: str) -> str:
    for (where, long), short in SHORTER.items():
        text = text.replace(long, short) if where == page else text
    return text


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_imports: None) -> Path:
    """A folder far from the package, with frames, labels, a film, a photograph and a checkpoint of the pages' names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for place in ("frames", "night_drive", "labels"):
        (tmp_path / place).mkdir()
    for seed in range(2):
        shown = render(seed, "fog", (96, 64))
        picture = Image.fromarray((shown.rgb * 255).astype(np.uint8))
        for place in ("frames", "night_drive"):
            picture.save(tmp_path / place / f"{seed}.png")
        picture.save(tmp_path / "night.jpg")
        Image.fromarray(shown.labels).save(tmp_path / "labels" / f"{seed}.png")
    clip(tmp_path / "clip.mp4", scene(4, (96, 64)))
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_exists(page: str):
    assert list(faults(PAGES[page])) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\nallweather adapt frames/ --modell x --out y\n```\n", "--modell"),
        ("```\nallweather adopt frames/\n```\n", "adopt"),
        ("```\nmake tea\n```\n", "no such target"),
        ("```\npip install 'allweather[everything]'\n```\n", "no such extra 'everything'"),
        ("```\npython gone.py\n```\n", "no such file"),
        ("```\npython -m benchmarks.gone\n```\n", "no such module"),
        ("```yaml\na: 1\n```\n", "kind 'yaml'"),
        ("```\nonce upon a time\n```\n", "none of python"),
    ],
)
def test_what_does_not_exist_is_found(text: str, message: str, tmp_path: Path):
    (tmp_path / "page.md").write_text(text)
    assert message in "".join(faults(tmp_path / "page.md"))


def test_every_page_is_run_or_says_why_not():
    assert set(CHECKED) <= set(PAGES) and len(RUN) >= 10 and "README.md" in RUN
    assert all(long in PAGES[page].read_text() for page, long in SHORTER)
    for page, test in ELSEWHERE.items():
        if page in PAGES:
            text = (ROOT / "tests" / f"{test}.py").read_text()
            assert Path(page).name in text or (Path(page).match("own-*.md") and '"own-*.md"' in text), page


def test_pages_can_be_followed_in_one_folder():
    seen: dict[str, str] = {}
    for page in {*RUN, *ELSEWHERE} & {*PAGES} - {*CHECKED}:
        files, commands = snippets(PAGES[page])
        for name in {*files, *re.findall(r"--out (\S+)", "\n".join(filter(runs_here, commands)))}:
            assert seen.setdefault(name, page) == page, name


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_as_it_stands(page: str, outside: Path):
    files, commands = snippets(PAGES[page])
    for name, text in files.items():
        (outside / name).write_text(text)
    for line in filter(runs_here, () if page in CHECKED else commands):
        done = run_line(shortened(page, line))
        assert done.returncode == 0, f"{line}: {done.stderr}"
    space: dict[str, object] = {"session": aw.Session(aw.load_model("demo:streetnet"), "mall-domain")}
    for block in loose(page):
        exec(shortened(page, block.text), space)
