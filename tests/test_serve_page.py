"""The page's parts: visitors that do not mix, runs that are cancelled, pictures that are held, what is drawn."""

import asyncio
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from serving import encoded, picture
from tiny import CLASSES, frames, tiny

from allweather import methods
from allweather.errors import InputError, SettingsError
from allweather.methods.method import Method
from allweather.serve.limits import Limits
from allweather.serve.networks import Network, as_network
from allweather.serve.pool import BusyError, Lane, Pool, StoppingError
from allweather.serve.uploads import Held, UploadError
from allweather.serve.visitor import Visitor, Visitors, restart
from allweather.session import Session

MODEL = tiny("batchnorm")
NETWORK: Network = as_network(MODEL, None)
PICTURES = [
    Held(f"frame {number}", np.asarray((frame * 255).to(torch.uint8).permute(1, 2, 0)), (32, 24))
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


def test_two_visitors_at_once_get_what_each_would_get_alone(pool: Pool) -> None:
    orders = [PICTURES, PICTURES[::-1]]

    async def both() -> list[list[torch.Tensor]]:
        return await asyncio.gather(*(follow(visitor(order), pool, passes=2) for order in orders))

    together = asyncio.run(both())
    for found, order in zip(together, orders, strict=True):
        session = Session(MODEL, method())
        expected = [session(each.pixels).logits for each in [*order, *order]]
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_each_forward_pass_is_a_point_of_the_curves(pool: Pool) -> None:
    one = visitor(PICTURES[:1], method("mall-sample", iterations=6, stop_tolerance=0.0, stop_rise=1e9))
    asyncio.run(follow(one, pool))
    assert [point.number for point in one.points] == [1, 2, 3, 4, 5, 6]
    assert one.points[-1].entropy < one.points[0].entropy and one.decided == [(6, "accepted")]
    assert one.session is not None and one.session.method.name == "mall-sample"


def test_a_watched_session_is_saved_and_exported_as_any_other(pool: Pool, tmp_path: Path) -> None:
    one = visitor(PICTURES)
    asyncio.run(follow(one, pool))
    assert one.session is not None
    one.session.save(tmp_path / "s.safetensors")
    other = Session(MODEL, method())
    other.load(tmp_path / "s.safetensors")
    assert torch.equal(other.predict(PICTURES[0].pixels), one.session.predict(PICTURES[0].pixels))
    one.session.export(tmp_path / "w.safetensors")


def test_a_run_that_is_cancelled_in_a_picture_leaves_no_trace_of_it(pool: Pool) -> None:
    chosen = method(iterations=50, stop_tolerance=0.0, stop_rise=1e9)
    one = visitor(PICTURES, chosen)

    async def cancelled() -> None:
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


def test_one_run_at_a_time_and_none_without_pictures(pool: Pool) -> None:
    async def twice() -> None:
        one = visitor(PICTURES)
        first = one.run(pool, 1)
        await anext(first)
        with pytest.raises(InputError, match="a run is going on"):
            await anext(one.run(pool, 1))
        with pytest.raises(InputError, match="a run is going on"):
            one.hold([])
        await first.aclose()
        assert one.stage == "cancelled", "a visitor who leaves ends the run"

    asyncio.run(twice())
    with pytest.raises(InputError, match="choose a picture"):
        asyncio.run(follow(visitor([]), pool))


def test_the_same_choice_goes_on_and_another_begins_anew() -> None:
    one = visitor(PICTURES)
    first = one.session
    one.prepare(NETWORK, method())
    assert one.session is first
    one.prepare(NETWORK, method(lr=0.01))
    assert one.session is not first


def test_visitors_are_bounded_and_freed() -> None:
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
    here.leave_all()
    assert len(here) == 0


def test_a_lane_keeps_its_order_and_lanes_take_turns() -> None:
    done: list[str] = []
    pool = Pool(1, 4)
    lanes = {name: Lane() for name in "ab"}
    gate = Lane()
    import threading

    hold = threading.Event()
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


def upload(folder: Path, name: str, content: bytes) -> Path:
    """A file as the page's library lays it down: in a folder of its own."""
    path = folder / str(len(list(folder.iterdir()))) / name
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_uploads_are_read_in_natural_order_and_removed(tmp_path: Path) -> None:
    from allweather.serve.pictures import from_uploads

    paths = [upload(tmp_path, f"f{number}.png", encoded(picture(number))) for number in (10, 2)]
    paths.append(upload(tmp_path, "f3.png", b"<svg/>"))
    held, refused = from_uploads(paths, tmp_path, Limits(), (48, 32))
    assert [each.name for each in held] == ["f2.png", "f10.png"] and held[0].pixels.shape == (32, 48, 3)
    assert held[0].size == (96, 64) and "f3.png is no picture" in refused[0] and str(tmp_path) not in refused[0]
    assert not list(tmp_path.iterdir())


def test_an_upload_elsewhere_is_neither_read_nor_removed(tmp_path: Path) -> None:
    from allweather.serve.pictures import from_uploads

    (tmp_path / "uploads").mkdir()
    other = tmp_path / "other.png"
    other.write_bytes(encoded(picture()))
    with pytest.raises(SettingsError, match="inside the folder"):
        from_uploads([other], tmp_path / "uploads", Limits(), None)
    assert other.exists()


def test_clips_give_their_first_frames_and_playlists_are_refused(tmp_path: Path) -> None:
    from clips import clip, scene

    from allweather.serve.pictures import from_uploads

    clip(tmp_path / "made.mp4", scene(8, (96, 64)))
    content = (tmp_path / "made.mp4").read_bytes()
    (tmp_path / "made.mp4").unlink()
    held, _ = from_uploads([upload(tmp_path, "a.mp4", content)], tmp_path, Limits(pictures=5), None)
    assert [each.name for each in held] == [f"frame {number}" for number in range(5)]
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    for name, evil, message in (
        ("a.mp4", playlist, "is no clip"),
        ("a.mkv", b"ffconcat version 1.0\nfile /etc/passwd\n", "is no clip"),
        ("a.mov", content[:300], "cannot be read|not a readable video"),
    ):
        with pytest.raises(UploadError, match=message):
            from_uploads([upload(tmp_path, name, evil)], tmp_path, Limits(), None)
    with pytest.raises(UploadError, match="expected at most 100 pixels"):
        from_uploads([upload(tmp_path, "a.mp4", content)], tmp_path, Limits(clip_pixels=100), None)


def test_what_a_visitor_holds_is_bounded(tmp_path: Path) -> None:
    from allweather.serve.pictures import from_uploads

    paths = [upload(tmp_path, f"{number}.png", encoded(picture(number))) for number in range(4)]
    held, refused = from_uploads(paths, tmp_path, Limits(pictures=3, held_bytes=30_000), None)
    assert len(held) == 2 and "only the first 2 pictures are kept" in refused[0]


def test_what_is_drawn_names_every_class_and_decision(pool: Pool) -> None:
    from allweather.serve.compare import compare
    from allweather.serve.curves import SHAPES, curves
    from allweather.serve.legend import legend
    from allweather.session.guard import KINDS

    one = visitor(PICTURES)
    asyncio.run(follow(one, pool))
    drawn = curves(one.points, [*one.decided, *((5, kind) for kind in KINDS)])
    assert set(SHAPES) == set(KINDS) and all(f"1 {kind}" in drawn for kind in KINDS if kind != "accepted")
    assert 'data-points="5"' in drawn and len(re.findall("<circle", drawn)) == 10
    shares = [float(text) for text in re.findall(r"([\d.]+) %", legend(one.shown))]
    assert sum(shares) == pytest.approx(200, abs=0.5) and any(name in legend(one.shown) for name in CLASSES.names)
    assert f"/see/{one.key}/adapted.jpg" in compare(one) and 'type="range"' in compare(one)


def test_what_is_taken_home(pool: Pool) -> None:
    pytest.importorskip("gradio", reason="the extra web")
    import io
    import zipfile

    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from safetensors.torch import load

    from allweather.serve.downloads import make_downloads

    here = Visitors(Limits())
    one = here.of("a")
    one.hold(PICTURES)
    one.prepare(NETWORK, method())
    app = FastAPI()
    app.include_router(make_downloads(here))
    served = TestClient(app)
    assert served.get(f"/take/{one.key}/labels.png").status_code == 409
    asyncio.run(follow(one, pool))
    labels = Image.open(io.BytesIO(served.get(f"/take/{one.key}/labels.png").content))
    assert one.shown is not None and np.array_equal(np.asarray(labels), one.shown.adapted.labels.numpy())
    archive = zipfile.ZipFile(io.BytesIO(served.get(f"/take/{one.key}/labels.zip").content))
    assert len(archive.namelist()) == len(PICTURES)
    assert load(served.get(f"/take/{one.key}/adapted.safetensors").content).keys() == MODEL.network.state_dict().keys()
    assert served.get(f"/see/{one.key}/adapted.jpg").headers["content-type"] == "image/jpeg"
    assert served.get("/take/another/labels.png").status_code == 404
    assert served.get(f"/take/{one.key}/evil.sh").status_code == 404
