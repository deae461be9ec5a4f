"""The page's parts: visitors that do not mix, runs that are cancelled, pictures that are held, what is drawn."""

import asyncio
import io
import re
import threading
import zipfile
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal
from serving import encoded, picture
from tiny import CLASSES, frames, tiny

from allweather import InputError, Session, SettingsError, methods
from allweather.methods.method import Method
from allweather.serve import application
from allweather.serve.compare import compare
from allweather.serve.curves import SHAPES, curves
from allweather.serve.legend import legend
from allweather.serve.limits import Limits
from allweather.serve.networks import Network, as_network
from allweather.serve.page import Page, _status
from allweather.serve.pictures import from_folder, from_uploads
from allweather.serve.pool import BusyError, Lane, Pool, StoppingError
from allweather.serve.uploads import Held, UploadError, read_picture
from allweather.serve.visitor import Point, Visitor, Visitors, restart
from allweather.session.guard import KINDS

MODEL = tiny()
NETWORK: Network = as_network(MODEL, None)
PICTURES = [
    Held(f"f{number}.png", np.asarray((frame * 255).to(torch.uint8).permute(1, 2, 0)), (32, 24), f"f{number}")
    for number, frame in enumerate(frames(5))
]


def method(name: str = "mall-domain", **settings: Any) -> Method:
    usual = {"views": ("plain",), "lookahead": 0.0, "rank": 8} if name.startswith("mall") else {}
    return methods.make(name, settings={**usual, **settings}, model=MODEL)


def visitor(pictures: list[Held], chosen: Method | None = None) -> Visitor:
    made = Visitor()
    made.hold(pictures)
    made.prepare(NETWORK, chosen or method())
    return made


async def follow(one: Visitor, pool: Pool, passes: int = 1) -> list[torch.Tensor]:
    """Runs to the end; the logits of each picture that was shown."""
    seen: list[torch.Tensor] = []
    async for _ in one.run(pool, passes):
        if one.shown is not None and len(seen) < one.done:
            seen.append(one.shown.adapted.logits)
    return seen


@pytest.fixture
def pool() -> Any:
    made = Pool(2, 4)
    yield made
    made.close()


def test_two_visitors_at_once_get_what_each_would_get_alone(pool: Pool):
    orders = [PICTURES, PICTURES[::-1]]

    async def both() -> list[list[torch.Tensor]]:
        return await asyncio.gather(*(follow(visitor(order), pool, passes=2) for order in orders))

    together = asyncio.run(both())
    for found, order in zip(together, orders, strict=True):
        session = Session(MODEL, method())
        expected = [session(each.pixels).logits for each in [*order, *order]]
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_each_forward_pass_is_a_point_of_the_curves(pool: Pool):
    one = visitor(PICTURES[:1], method("mall-sample", iterations=6, stop_tolerance=0.0, stop_rise=1e9))
    asyncio.run(follow(one, pool))
    assert [point.number for point in one.points] == [1, 2, 3, 4, 5, 6]
    assert one.points[-1].entropy < one.points[0].entropy and one.decided == [(6, "accepted")]
    assert one.session.method.name == "mall-sample"


def test_a_watched_session_is_saved_and_exported_as_any_other(pool: Pool, tmp_path: Path):
    one = visitor(PICTURES)
    asyncio.run(follow(one, pool))
    one.session.save(tmp_path / "s.safetensors")
    other = Session(MODEL, method())
    other.load(tmp_path / "s.safetensors")
    assert torch.equal(other.predict(PICTURES[0].pixels), one.session.predict(PICTURES[0].pixels))
    one.session.export(tmp_path / "w.safetensors")


def test_a_run_that_is_cancelled_in_a_picture_leaves_no_trace_of_it(pool: Pool):
    chosen = method(iterations=50, stop_tolerance=0.0, stop_rise=1e9)
    one = visitor(PICTURES, chosen)

    async def cancelled():
        async for _ in one.run(pool, 1):
            if len(one.points) > 2:
                one.cancel()

    asyncio.run(cancelled())
    assert one.stage == "cancelled" and one.done < len(PICTURES) and one.session is not None
    rest = one.session.predict(PICTURES[0].pixels)
    expected = Session(MODEL, chosen)  # the visitor's own is of a kind that a cancelled run ends
    for each in PICTURES[: one.done]:
        expected(each.pixels)
    assert torch.equal(rest, expected.predict(PICTURES[0].pixels))
    asyncio.run(restart(one))
    assert torch.equal(one.session.predict(PICTURES[0].pixels), Session(MODEL, method()).predict(PICTURES[0].pixels))
    assert not one.points and one.stage == "ready"


def test_one_run_at_a_time_and_none_without_pictures(pool: Pool):
    async def twice():
        one = visitor(PICTURES)
        first = one.run(pool, 1)
        await anext(first)
        with refusal("a run is going on", InputError):
            await anext(one.run(pool, 1))
        with refusal("a run is going on", InputError):
            one.hold([])
        await first.aclose()
        assert one.stage == "cancelled", "a visitor who leaves ends the run"

    asyncio.run(twice())
    with refusal("choose a picture", InputError):
        asyncio.run(follow(visitor([]), pool))


def test_the_same_choice_goes_on_and_another_begins_anew():
    one = visitor(PICTURES)
    first = one.session
    one.prepare(NETWORK, method())
    assert one.session is first
    one.prepare(NETWORK, method(lr=0.01))
    assert one.session is not first


def test_a_start_waits_for_its_network_in_a_thread_and_only_one_begins(pool: Pool):
    async def begin(end: Callable[[Visitor], None]) -> Visitor:
        (now, here, one), came, wait = ready(), threading.Event(), threading.Event()

        def choose() -> tuple[Network, Method]:
            came.set()
            assert wait.wait(30) and threading.current_thread() is not threading.main_thread()
            return NETWORK, method("norm")

        async def run():
            async for _ in one.start(pool, 1, choose):
                pass

        first = asyncio.create_task(run())
        while not came.is_set():
            await asyncio.sleep(0.01)  # the loop goes on
        now[0] = 11
        assert one.at_work and not here.sweep()
        with refusal("a run is going on", InputError):
            await run()
        end(one)
        wait.set()
        await first
        assert one.used == 11
        return one

    assert asyncio.run(begin(lambda one: None)).stage == "done"
    assert asyncio.run(begin(Visitor.cancel)).stage == "cancelled"
    with refusal("closed", InputError):
        asyncio.run(begin(lambda one: one.free("the page was closed.")))


def test_decisions_are_counted_once_however_the_run_ends():
    serving = application(MODEL).state.serving
    page, asked = Page(serving), SimpleNamespace(session_hash="one")
    one = serving.visitors.of("one")
    one.hold(PICTURES[:2])

    async def start(end: Callable[[], object]):
        async with aclosing(page._start(asked, "norm", "recommended", 1, "")) as shown:
            async for _ in shown:
                if one.done == 1 and end():
                    break

    leave = partial(serving.visitors.leave, "one")  # the run ends in an error
    for end, times in ((bool, 2), (one.cancel, 3), (lambda: True, 4), (leave, 5)):
        asyncio.run(start(end))
        assert f'allweather_decisions_total{{decision="accepted"}} {times}.0' in serving.metrics.text().decode()
    serving.end()


def test_what_came_after_the_start_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("allweather.serve.networks.LISTED_FOR", -1.0)

    async def build() -> Any:  # in a loop, or the library makes some, and closes none
        return page.build()

    page = Page(application(MODEL, allow_dir=tmp_path).state.serving)
    blocks = asyncio.run(build())
    (tmp_path / "a.pth").mkdir()
    (tmp_path / "a.pth" / "b.pth").touch()
    assert [each["choices"][1:] for each in page._there()] == [["a.pth"], ["a.pth/b.pth"]]
    assert [each.fn for each in blocks.fns.values() if each.targets[0][1] == "load"] == [page._there]
    assert all(each.preprocess("later") == "later" for each in (page.below, page.checkpoint))


def test_visitors_are_bounded_and_freed():
    now = [0.0]
    here = Visitors(Limits(visitors=2, idle=10), clock=lambda: now[0])
    one = here.of("a")
    one.hold(PICTURES)
    here.of("b")
    with pytest.raises(BusyError, match="2 visitors are here already"):
        here.of("c")
    assert here.by_key(one.key) is one and here.by_key("ä") is None
    now[0] = 8
    here.of("b")
    now[0] = 11
    here.sweep()
    assert len(here) == 1 and not one.pictures and here.by_key(one.key) is None
    assert "Choose a picture" in _status(one)
    here.leave_all()
    assert len(here) == 0


def ready() -> tuple[list[float], Visitors, Visitor]:
    """The time, which the test moves, and a visitor with pictures and a method who may be idle for ten seconds."""
    now = [0.0]
    here = Visitors(Limits(idle=10), clock=lambda: now[0])
    one = here.of("a")
    one.hold(PICTURES)
    one.prepare(NETWORK, method())
    return now, here, one


def test_idle_time_counts_from_the_end_of_a_run_and_downloads_are_use(pool: Pool):
    now, here, one = ready()

    async def long():
        async for _ in one.run(pool, 1):
            if one.stage == "running":
                now[0] += 100
                here.sweep()

    asyncio.run(long())
    ended = now[0]
    assert one.stage == "done" and one.used == ended and len(one.kept) == len(PICTURES)
    for since in (9, 18, 27):
        now[0] = ended + since
        here.sweep()
        assert here.by_key(one.key) is one, "asked for again within the idle time"
    now[0] = ended + 38
    assert here.sweep() == 1 and not one.pictures and here.sweep() == 0


def test_a_paused_run_ends_after_its_idle_time_with_a_sentence(pool: Pool):
    now, here, one = ready()

    async def paused():
        async for _ in one.run(pool, 1):
            if one.done == 2 and one.stage == "running":
                here.of("a").pause(True)
                now[0] = 9
                here.sweep()
                assert one.at_work and one.pictures, "kept for as long as a run that has ended"
                now[0] = 20
                here.sweep()

    with refusal(r"paused for 10 seconds and more: it has ended.*Choose them again", InputError):
        asyncio.run(paused())
    assert not one.at_work and len(here) == 0


def test_those_who_left_count_as_freed():
    here = Visitors(Limits())
    here.of("a")
    here.leave("a")
    here.leave("a")
    assert (here.sweep(), here.sweep()) == (1, 0)


def test_a_lane_keeps_its_order_and_lanes_take_turns():
    done: list[str] = []
    pool = Pool(1, 4)
    lanes = {name: Lane() for name in "ab"}
    gate, hold = Lane(), threading.Event()
    pool.submit(gate, hold.wait)
    for number in range(3):
        for name, lane in lanes.items():
            pool.submit(lane, lambda what=f"{name}{number}": done.append(what))
    failed = pool.submit(lanes["a"], lambda: 1 / 0)
    hold.set()
    pool.close()
    assert done == ["a0", "b0", "a1", "b1", "a2", "b2"], "what was taken is finished"
    assert isinstance(failed.exception(), ZeroDivisionError)
    with pytest.raises(StoppingError):
        pool.submit(gate, hold.wait)


def upload(folder: Path, name: str, content: bytes) -> tuple[str, Path]:
    """A file as the page's library lays it down: in a folder of its own; with its name."""
    path = folder / str(len(list(folder.iterdir()))) / name
    path.parent.mkdir()
    path.write_bytes(content)
    return name, path


def test_uploads_are_read_in_natural_order_and_removed(tmp_path: Path):
    paths = [upload(tmp_path, f"f{number}.png", encoded(picture(number))) for number in (10, 2)]
    paths.append(upload(tmp_path, "f3.png", b"<svg/>"))
    held, refused = from_uploads(paths, tmp_path, Limits(), (48, 32))
    assert [each.name for each in held] == ["f2.png", "f10.png"] and held[0].pixels.shape == (32, 48, 3)
    assert held[0].size == (96, 64) and "f3.png is no picture" in refused[0] and str(tmp_path) not in refused[0]
    assert not list(tmp_path.iterdir())


def test_an_upload_elsewhere_is_neither_read_nor_removed(tmp_path: Path):
    (tmp_path / "uploads").mkdir()
    other = tmp_path / "other.png"
    other.write_bytes(encoded(picture()))
    with refusal("inside the folder", SettingsError):
        from_uploads([("other.png", other)], tmp_path / "uploads", Limits(), None)
    assert other.exists()


def test_clips_give_their_first_frames_and_playlists_are_refused(tmp_path: Path):
    from clips import clip, scene

    made = clip(tmp_path / "made.mp4", scene(8, (96, 64)))
    content = made.read_bytes()
    made.unlink()
    held, said = from_uploads([upload(tmp_path, "a.mp4", content)], tmp_path, Limits(pictures=5), None)
    assert [each.name for each in held] == [f"frame {number} of a.mp4" for number in range(5)]
    assert [each.label for each in held] == [f"{number:06d}" for number in range(5)]
    assert said == ["only the first 5 frames of a.mp4 are kept."]
    assert not from_uploads([upload(tmp_path, "a.mp4", content)], tmp_path, Limits(pictures=8), None)[1]
    held, said = from_uploads([upload(tmp_path, "a.mp4", content)], tmp_path, Limits(held_bytes=60_000), None)
    assert len(held) == 3 and said == ["only the first 3 frames of a.mp4 are kept: more take over 60000 bytes."]
    wide = upload(tmp_path, "wide.mp4", clip(tmp_path / "wide.mp4", scene(1), aspect=Fraction(2)).read_bytes())
    held, said = from_uploads([wide], tmp_path, Limits(), None)
    assert "not square" in said[0] and held[0].on_page[0] == 2 * held[0].size[0] * held[0].on_page[1] / held[0].size[1]
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    for name, evil, message in (
        ("a.mp4", playlist, "is no clip"),
        ("a.mkv", b"ffconcat version 1.0\nfile /etc/passwd\n", "is no clip"),
        ("a.mov", content[:300], r"^a\.mov: not a readable video \(its index is missing"),
    ):
        with pytest.raises(UploadError, match=message) as refused:
            from_uploads([upload(tmp_path, name, evil)], tmp_path, Limits(), None)
        assert str(tmp_path) not in str(refused.value)
    with pytest.raises(UploadError, match="expected at most 100 pixels"):
        from_uploads([upload(tmp_path, "a.mp4", content)], tmp_path, Limits(clip_pixels=100), None)


def test_of_a_picture_of_several_pages_a_visitor_is_told(tmp_path: Path):
    pages, content = [Image.new("RGB", (40, 30), (number, 0, 0)) for number in range(3)], io.BytesIO()
    pages[0].save(content, "TIFF", save_all=True, append_images=pages[1:])
    held, said = from_uploads([upload(tmp_path, "a.tiff", content.getvalue())], tmp_path, Limits(), None)
    assert len(held) == 1 and len(said) == 1 and said[0].startswith("a.tiff: of a picture with several pages")
    with pytest.warns(UserWarning, match="only the first is read"):
        read_picture(content.getvalue(), Limits())


def test_what_a_visitor_holds_is_bounded(tmp_path: Path):
    paths = [upload(tmp_path, f"{number}.png", encoded(picture(number))) for number in range(4)]
    held, said = from_uploads(paths, tmp_path, Limits(pictures=3, held_bytes=40_000), None)
    assert len(held) == 2 and "only the first 2 pictures are kept" in said[0] and "3 of 4 files" in said[1]


def test_labels_are_called_as_adapt_calls_them(tmp_path: Path):
    from clips import clip, scene

    made = clip(tmp_path / "made.mp4", scene(2, (96, 64)))
    film = made.read_bytes()
    made.unlink()
    images = {"a.png": "PNG", "a.jpg": "JPEG", "b (1) #.png": "PNG", "..png": "PNG"}
    given = [upload(tmp_path, name, encoded(picture(), kind)) for name, kind in images.items()]
    given += [upload(tmp_path, name, film) for name in ("a.mp4", "...mp4")]
    held, _ = from_uploads(given, tmp_path, Limits(), None)
    labels = {f"{each.name} {each.label}" for each in held}
    assert {"a.png a_png", "a.jpg a_jpg", "b (1) #.png b (1) #"} <= labels
    assert {"frame 1 of a.mp4 a_mp4/000001", "frame 0 of ...mp4 file_mp4/000000"} <= labels, labels
    assert len({each.label for each in held}) == len(held) == 8 and not any(".." in each.label for each in held)
    doubles, _ = from_uploads(
        [upload(tmp_path, "a.png", encoded(picture(n))) for n in (1, 2)], tmp_path, Limits(), None
    )
    assert len({each.label for each in doubles}) == 2

    for name in ("below/a.png", "a.png", "a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture()).save(tmp_path / name)
    found, _ = from_folder(tmp_path, ".", Limits(), None)
    assert [each.label for each in found] == ["a_jpg", "a_png", "below/a"]


def test_what_is_drawn_names_every_class_and_decision(pool: Pool):
    one = visitor(PICTURES)
    asyncio.run(follow(one, pool))
    drawn = curves(one.points, [*one.decided, *((5, kind) for kind in KINDS)])
    assert set(SHAPES) == set(KINDS) and all(f"1 {kind}" in drawn for kind in KINDS if kind != "accepted")
    assert 'data-points="5"' in drawn and len(re.findall("<circle", drawn)) == 10
    shares = [float(text) for text in re.findall(r"([\d.]+) %", legend(one.shown))]
    assert sum(shares) == pytest.approx(200, abs=0.5) and any(name in legend(one.shown) for name in CLASSES.names)
    close = [Point(number, 16.9 + number / 1000, 0.5) for number in range(4)]
    assert re.findall('text-anchor="end">([^<]+)</text>', curves(close, ())) == ["16.903", "16.9", "3", "0.5", "3"]
    assert f"see/{one.key}/adapted.jpg" in compare(one) and 'type="range"' in compare(one)
    assert "<progress" in _status(one)
    one.hold(PICTURES)
    assert "<progress" not in _status(one), "nothing is done of what has just come"


def test_what_is_taken_home(pool: Pool):
    pytest.importorskip("gradio", reason="the extra web")
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from safetensors.torch import load

    from allweather.serve.downloads import make_downloads

    _, here, one = ready()
    app = FastAPI()
    app.include_router(make_downloads(here))
    served = TestClient(app)
    assert served.get(f"/take/{one.key}/labels.png").status_code == 409
    asyncio.run(follow(one, pool))
    labels = Image.open(io.BytesIO(served.get(f"/take/{one.key}/labels.png").content))
    assert np.array_equal(np.asarray(labels), one.shown.adapted.labels.numpy())
    wide = Held("w.png", PICTURES[0].pixels, (64, 96), "w", (2050, 1025))  # of a clip whose pixels are not square
    one.shown = replace(one.shown, picture=wide)
    drawn = Image.open(io.BytesIO(served.get(f"/take/{one.key}/overlay.png").content))
    seen = [Image.open(io.BytesIO(served.get(f"/see/{one.key}/{name}.jpg").content)) for name in ("source", "adapted")]
    assert [each.size for each in (drawn, *seen)] == [(64, 96), (1024, 512), (1024, 512)]
    assert "aspect-ratio:1024/512" in compare(one)
    archive = zipfile.ZipFile(io.BytesIO(served.get(f"/take/{one.key}/labels.zip").content))
    assert archive.namelist() == [f"f{number}.png" for number in range(5)]
    assert load(served.get(f"/take/{one.key}/adapted.safetensors").content).keys() == MODEL.network.state_dict().keys()
    assert served.get(f"/see/{one.key}/adapted.jpg").headers["content-type"] == "image/jpeg"
    assert served.get("/take/another/labels.png").status_code == 404
    one.pictures = [Held("wide", np.zeros((1, 66_000, 3), np.uint8), (66_000, 1))]
    assert Image.open(io.BytesIO(served.get(f"/see/{one.key}/picture.jpg").content)).size == (1024, 1)
    one.shown = replace(one.shown, picture=Held("large", PICTURES[0].pixels, (8192, 256)))
    drawn = Image.open(io.BytesIO(served.get(f"/take/{one.key}/overlay.png").content))
    assert drawn.size == (4096, 128), "nobody asks for the memory of 50 million pixels"
    assert served.get(f"/take/{one.key}/evil.sh").status_code == 404
