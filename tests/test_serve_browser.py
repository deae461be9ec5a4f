"""The page in headless Chromium, on a desk and on a phone: the whole way of a visitor, and nothing from elsewhere."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from safetensors.torch import load
from serving import Server, encoded, picture, server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
axe = pytest.importorskip("axe_core_python.base", reason="axe-core-python has the rules of accessibility")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENS = {"desk": (1280, 900), "phone": (390, 844)}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    folder = tmp_path_factory.mktemp("server")
    with server(TMPDIR=str(folder)) as one:
        yield one
        left = [path for path in folder.glob("allweather-serve-*/*") if path.is_file()]
        assert not left, "an upload leaves nothing behind while the server runs"


@pytest.fixture(params=SCREENS)
def page(request: pytest.FixtureRequest, running: Server) -> Iterator[Any]:
    """A page that has been opened; in the end nothing may have gone wrong, or have come from elsewhere."""
    width, height = SCREENS[request.param]
    wrong: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": width, "height": height})
        opened.on("request", lambda sent: wrong.extend(_outside(sent.url, running.address)))
        opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("response", lambda got: wrong.append(f"{got.status} {got.url}") if got.status >= 400 else None)
        opened.set_default_timeout(90_000)
        opened.goto(running.address)
        opened.wait_for_selector("#start")
        yield opened
        browser.close()
    assert not wrong
    assert not [line for line in running.said if "Traceback" in line]


def test_the_way_of_a_visitor(page: Any, tmp_path: Path):
    page.wait_for_timeout(500)
    shoot(page, tmp_path, "opened")
    check_accessible(page)

    page.set_input_files("#files input[type=file]", {"name": "dusk.png", "mimeType": "image/png", "buffer": NIGHT})
    page.wait_for_selector(".aw-single img")
    assert "1 picture at 256×128" in page.inner_text("#status")

    watch(page, "if (count) (window.seen ??= new Set()).add(count)")
    page.click("#start")
    page.wait_for_selector("#take a")
    seen = page.evaluate("[...window.seen]")
    assert len(seen) >= 3 and max(seen) == 12, "the curve grows while it adapts"
    assert "Done: 12 of 12" in page.inner_text("#status")
    assert "road" in page.inner_text("#legend") and "%" in page.inner_text("#legend")
    assert page.evaluate("getComputedStyle(document.querySelector('#legend tr')).borderLeftWidth") == "0px"

    page.focus(".aw-compare input")
    before = split(page)
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    assert (before, split(page)) == ("50%", "40%")
    box = page.locator(".aw-compare").bounding_box()
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    assert 75 <= float(split(page).rstrip("%")) <= 85
    check_accessible(page)
    shoot(page, tmp_path, "done")

    taken = {name: take(page, name) for name in ("Labels", "Overlay", "Adapted weights", "Session")}
    with Image.open(io.BytesIO(taken["Labels"])) as labels:
        assert labels.size == (256, 128) and labels.mode == "P"
    with Image.open(io.BytesIO(taken["Overlay"])) as drawn:
        assert drawn.size == (256, 128) and drawn.mode == "RGB"
    assert load(taken["Adapted weights"]) and load(taken["Session"])

    page.click("#reset")
    page.wait_for_selector(".aw-curves", state="detached")
    assert page.locator("#take a").count() == 0


@pytest.mark.parametrize("page", ["phone"], indirect=True)  # where there is least room
def test_a_long_run_is_paused_goes_on_and_is_cancelled(page: Any, tmp_path: Path):
    page.get_by_role("tab", name="Scene").click()
    page.get_by_label("number input for Scenes in a row").fill("30")
    page.click("#scene")
    page.wait_for_selector(".aw-single img")
    assert "30 pictures" in page.inner_text("#status")
    page.locator("#passes input[type=number]").fill("20")
    page.locator("#passes input[type=number]").press("Enter")
    page.click("#start")
    watch(page, "if (count >= 5 && !window.paused) { window.paused = true; document.querySelector('#pause').click() }")
    page.wait_for_function("document.querySelector('#status').innerText.includes('Paused')")
    held, before = points(page), -1
    for _ in range(60):  # the picture in hand is finished first
        if held == before:
            break
        page.wait_for_timeout(1000)
        held, before = points(page), held
    assert held == before, "a paused run stands still"
    page.get_by_role("tab", name="Files").click()
    page.set_input_files("#files input[type=file]", {"name": "x.png", "mimeType": "image/png", "buffer": NIGHT})
    page.wait_for_selector("#notice [role=alert]")
    page.wait_for_timeout(600)
    assert "a run is going on" in page.inner_text("#notice") and "Paused" in page.inner_text("#status")
    shoot(page, tmp_path, "paused")
    watch(page, f"if (count > {held}) document.querySelector('#cancel').click()")
    page.click("#pause")
    page.wait_for_function("document.querySelector('#status').innerText.includes('Cancelled')")
    assert page.is_enabled("#start") and not page.is_enabled("#cancel")
    check_accessible(page)


def test_what_is_no_picture_is_refused_in_words(page: Any):
    page.set_input_files(
        "#files input[type=file]", {"name": "x.png", "mimeType": "image/png", "buffer": b"<svg onload='alert(1)'/>"}
    )
    page.wait_for_selector("#notice [role=alert]")
    assert "x.png is no picture: expected PNG" in page.inner_text("#notice")


def test_a_server_that_ends_is_noticed():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with server() as one, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(90_000)
        page.goto(one.address)
        page.wait_for_selector("#start")
        page.wait_for_timeout(500)
        assert not page.is_visible("#lost")
        one.process.terminate()
        page.wait_for_selector("#lost")
        assert "The server has ended" in page.inner_text("#lost") and not page.is_visible("#status")
        browser.close()


NIGHT = encoded(picture(3, "night", (256, 128)))


def watch(page: Any, act: str):
    """Does something in the page itself, however busy it is, whenever what it shows changes: `count` of points."""
    look = "const count = +(document.querySelector('.aw-curves')?.dataset.points ?? 0);" + act
    told = "{subtree: true, childList: true, attributes: true}"
    page.evaluate(f"() => new MutationObserver(() => {{{look}}}).observe(document.body, {told})")


def points(page: Any) -> int:
    return int(page.evaluate("+(document.querySelector('.aw-curves')?.dataset.points ?? 0)"))


def split(page: Any) -> str:
    return str(page.evaluate("document.querySelector('.aw-compare').style.getPropertyValue('--split')"))


def take(page: Any, name: str) -> bytes:
    """What a link gives, by the browser's own download."""
    with page.expect_download() as waiting:
        page.locator("#take a", has_text=name).first.click()
    return Path(waiting.value.path()).read_bytes()


def check_accessible(page: Any):
    """No rule of WCAG 2.1 AA that axe-core knows is broken."""
    page.wait_for_timeout(500)  # colors that change are between two for a moment
    page.wait_for_function("document.getAnimations().every(each => !(each instanceof CSSTransition))")
    page.evaluate(axe.AXE_SCRIPT)
    found = page.evaluate("tags => axe.run(document, {runOnly: tags})", RULES)
    assert found["passes"], "axe has looked"
    assert not [(rule["id"], [node["html"][:160] for node in rule["nodes"]]) for rule in found["violations"]]


def shoot(page: Any, folder: Path, name: str):
    page.screenshot(path=folder / f"{name}.png", full_page=True)


def _outside(url: str, address: str) -> list[str]:
    parts = urlsplit(url)
    return [] if parts.scheme in ("data", "blob") or parts.netloc == urlsplit(address).netloc else [url]
