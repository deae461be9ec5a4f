"""What live reads: files, folders, cameras, HTTP streams served by the test itself; and the ways in which they fail."""

import io
import socket
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import clips
import numpy as np
import pytest
import torch
from clips import covered, sound_only, unknown_codec
from PIL import Image
from refusals import refusal
from simulated import picture
from tiny import tiny

from allweather import InputError, Live, MissingLibraryError, Session, SettingsError, load_stream
from allweather.live import Event, camera, reader
from allweather.live.naming import open_source
from allweather.pictures.film import Film
from allweather.rgb import ORIENTATION

Serve = Callable[["Handler"], None]
Address = Callable[[Serve], str]  # of a server that answers so


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any):
        pass

    def do_GET(self):
        self.server.visits += 1  # type: ignore[attr-defined]
        self.server.serve(self)  # type: ignore[attr-defined]


@pytest.fixture
def served() -> Iterator[Address]:
    """Starts a server of this machine and gives its address."""
    servers = []

    def start(serve: Serve) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads, server.serve, server.visits = True, serve, 0  # type: ignore[attr-defined]
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/camera"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def send_pictures(handler: Handler, numbers: range, turn: int | None = None):
    """A few JPEGs as cameras send them; with EXIF that says how the camera was held, where `turn` is given."""
    exif = Image.Exif()
    exif[0x010F], exif[ORIENTATION] = "Acme", turn
    handler.send_response(200)
    handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
    handler.end_headers()
    for number in numbers:
        content = io.BytesIO()
        Image.fromarray(np.full((32, 48, 3), 10 * number, np.uint8)).save(
            content, "JPEG", **({} if turn is None else {"exif": exif})
        )
        head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content.getvalue())}\r\n\r\n"
        handler.wfile.write(head.encode() + content.getvalue() + b"\r\n")
        handler.wfile.flush()
        time.sleep(0.02)


def sending(content: bytes, status: int = 200) -> Serve:
    """Answers with a file."""

    def serve(handler: Handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return serve


def play(source: str, **options: Any) -> tuple[list[Any], list[Event], Live]:
    events: list[Event] = []
    live = Live(source, Session(tiny(), "source"), on_event=events.append, **options)
    return list(live), events, live


def clip(path: Path, count: int = 8, rate: float = 50.0, size: tuple[int, int] = (48, 32)) -> Path:
    with Film(path, rate, *size) as film:
        for number in range(count):
            film.write(picture(number, size))
    return path


def test_a_stream_of_jpegs_is_predicted_and_come_back_to(served: Address, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader, "PAUSES", (0.01,))

    def serve(handler: Handler):
        if handler.server.visits in (1, 3):  # type: ignore[attr-defined]
            send_pictures(handler, range(8))
        else:
            handler.send_error(503)

    shown, events, live = play(served(serve), reconnect=2, stall=20.0)
    kinds = [event.kind for event in events]
    assert kinds == ["lost", "lost", "back", "lost", "lost", "gave-up"] and "5XX" in events[1].text
    assert live.totals.arrived >= 10 and len(shown) + live.totals.dropped == live.totals.arrived
    assert [frame.name for frame in shown] == [f"{frame.index:06d}" for frame in shown]
    assert shown[0].frame.image.shape == (3, 32, 48) and len({float(each.frame.image.max()) for each in shown}) > 1


@pytest.mark.parametrize("turn", [1, 4, 6])
def test_a_camera_may_send_exif(served: Address, turn: int):
    shown, events, _ = play(served(lambda handler: send_pictures(handler, range(8), turn)), reconnect=0, stall=20.0)
    assert not events, "its end is no fault where nobody wants to come back"
    assert shown[0].frame.size == ((32, 48) if turn == 6 else (48, 32))


def test_a_stream_that_stops_is_lost(served: Address):
    def serve(handler: Handler):
        send_pictures(handler, range(5))
        time.sleep(20)

    started = time.monotonic()
    shown, events, live = play(served(serve), reconnect=0, stall=2.0)
    assert time.monotonic() - started < 15 and shown
    assert [event.kind for event in events] == ["gave-up"] and live.totals.failures == 1
    assert "no picture for 2 s" in events[0].text


@pytest.mark.parametrize("source", ["camera:0", "camera:/dev/none", "http://u:secret@h/clip.mp4", "RTSP://h/a"])
def test_what_comes_at_its_own_rate_takes_no_other(source: str):
    session = Session(tiny(), "source")
    for make in (lambda: open_source(source, rate=5.0), lambda: Live(source, session, rate=5.0)):
        with refusal(r"expected a rate \(--rate\) of a file or folder alone, got 5", SettingsError) as caught:
            make()
        assert "secret" not in str(caught.value)


def test_a_file_behind_an_address_ends(served: Address, tmp_path: Path):
    shown, events, live = play(served(sending(clip(tmp_path / "clip.mp4").read_bytes())), stall=5.0)
    assert not events and live.totals.arrived == 8 and not live.source.endless
    assert 7 / 50 - 0.01 <= shown[-1].arrival < 7 / 50 + 5  # no sooner than its rate; on a busy machine later


def test_a_file_behind_an_address_that_ends_early_is_told(served: Address, tmp_path: Path):
    content = clips.cut(clips.clip(tmp_path / "a.mkv", clips.noise(8), rate=50), 0.6).read_bytes()
    _, events, live = play(served(sending(content)), stall=5.0)
    assert ["of 0.16 seconds are in it" in event.text for event in events] == [True] and live.totals.failures == 1


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("rtsp://me:secret@127.0.0.1:PORT/a", "rtsp://127.0.0.1:PORT/a: cannot be opened (Connection refused)"),
        ("http://127.0.0.1:PORT/street", "cannot be opened (Connection refused)"),
        ("http://no.such.host.invalid/street", "cannot be reached (no such host, or it does not answer)"),
        ("gopher://me:secret@127.0.0.1/street", "expected an address that begins with rtsp, rtsps, http"),
        ("http://127.0.0.1:PORT/mjpg?pwd=secret#secret", "http://127.0.0.1:PORT/mjpg: cannot be opened"),
        ("rtsp://me:secret@[::1/street", "rtsp://…: not an address. Expected rtsp://HOST/PATH"),
        ("rtsp://me:secret@ho\u2100st/street", "rtsp://…: not an address. Expected rtsp://HOST/PATH"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_reached_is_refused(address: str, said: str):
    port = str(closed_port())
    with pytest.raises(InputError) as caught:
        play(address.replace("PORT", port))
    assert said.replace("PORT", port) in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"", "Server returned 404 Not Found"),
        (200, b"<html>a page</html>" * 100, "no video of a known format"),
    ],
)
def test_an_answer_without_pictures_is_refused(served: Address, status: int, body: bytes, said: str):
    with refusal(said, InputError):
        play(served(sending(body, status)))


@pytest.mark.parametrize(
    ("make", "said"), [(unknown_codec, "no decoder for its codec; send H.264"), (sound_only, "there are none in it")]
)
def test_a_stream_without_what_can_be_seen_is_refused(
    served: Address, make: Callable[[Path], Path], said: str, tmp_path: Path
):
    with refusal(f"expected a stream with pictures; .*{said}", InputError):
        play(served(sending(make(tmp_path / "a.mp4").read_bytes())), stall=5.0)


@pytest.mark.parametrize("where", ["file", "address"])
def test_live_tells_of_pixels_that_are_not_square(
    served: Address, where: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
):
    path = clips.clip(tmp_path / "a.mp4", clips.scene(8), aspect=Fraction(2))
    name = str(path) if where == "file" else served(sending(path.read_bytes()))
    assert play(name, size=(128, 48), stall=5.0)[0] and not recwarn.list
    assert play(name, stall=5.0)[0]
    assert ["--size 128x48" in str(each.message) for each in recwarn.list] == [True]


def test_a_cover_is_not_played(served: Address, tmp_path: Path):
    content = covered(tmp_path / "a.mp4", [picture(number, (48, 32)) for number in range(8)]).read_bytes()
    shown, events, live = play(served(sending(content)), stall=5.0)
    assert not events and live.totals.arrived == 8 and shown[0].frame.size == (48, 32)


def test_a_server_that_says_nothing_is_refused(served: Address):
    with refusal(r"no answer within 0\.3 s", InputError):
        play(served(lambda handler: time.sleep(20)), stall=0.3)


def test_a_camera_that_never_answers_is_no_unknown_format():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        started = time.monotonic()
        with refusal(r"rtsp://.*: no answer within 0\.4 s", InputError):
            play(f"rtsp://127.0.0.1:{deaf.getsockname()[1]}/street", stall=0.4)
    assert time.monotonic() - started < 60


def test_a_file_plays_at_its_rate_or_another(tmp_path: Path):
    path = str(clip(tmp_path / "clip.mp4"))
    for rate, seconds in ((None, 7 / 50), (20.0, 7 / 20)):
        shown, events, live = play(path, rate=rate)
        assert not events and shown[-1].index == 7 == live.totals.arrived - 1
        assert seconds - 0.01 <= shown[-1].arrival < seconds + 5


@pytest.mark.parametrize("options", [{"rate": 0.0}, {"rate": -1.0}, {"stall": 0.0}])
def test_a_source_needs_time_to_pass(tmp_path: Path, options: dict[str, float]):
    with refusal(rf"expected a {next(iter(options))} above 0", SettingsError):
        open_source(str(clip(tmp_path / "clip.mkv")), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_waiting_gives_what_a_session_gives_frame_by_frame(tmp_path: Path, kind: str):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(picture(number, (48, 32))).save(folder / f"{number}.png")
    path = folder if kind == "folder" else clip(tmp_path / "clip.mkv")
    size = (32, 24)
    session = Session(tiny(), "mall-domain")
    live = Live(path, Session(tiny(), "mall-domain"), adapt_every=1, wait=True, size=size)
    shown, stream = list(live), load_stream(kind, path, size)
    assert [frame.name for frame in shown] == list(stream.names) and not live.totals.dropped
    for frame, given in zip(shown, stream, strict=True):
        result = session(given.image)
        assert torch.equal(frame.result.logits, result.logits) and frame.result.losses == result.losses
        assert frame.frame.size == given.size and frame.overlay().shape == (32, 48, 3)
    assert live.totals.learnt == len(shown) == live.totals.states


def test_waiting_for_one_frame_in_two_predicts_the_others(tmp_path: Path):
    path = clip(tmp_path / "clip.mkv", 6)
    live = Live(path, Session(tiny(), "mall-domain"), adapt_every=2, wait=True)
    assert [frame.result.iterations for frame in live] == [1, 0, 1, 0, 1, 0]


def test_an_unreadable_picture_is_told_and_the_rest_predicted(tmp_path: Path):
    for number in range(3):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    shown, events, live = play(str(tmp_path), every_frame=True)
    assert [frame.name for frame in shown] == ["0", "2"] and live.totals.failures == 1
    assert [event.kind for event in events] == ["unreadable"] and "1.png: not a readable image" in events[0].text


def test_a_cut_file_is_played_to_its_cut(tmp_path: Path):
    path = clip(tmp_path / "clip.mkv", 100, size=(320, 240))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shown, events, live = play(str(path), every_frame=True)
    assert 10 < len(shown) < 90 and [event.kind for event in events] == ["damaged"]
    assert "clip.mkv" in events[0].text and live.totals.failures == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.mp4", None, "no such source: .*none.mp4. Expected a video file, a folder of images, camera:0"),
        ("empty.mp4", b"", "it is empty"),
        ("text.mp4", b"no video at all\n" * 50, "not a readable video"),
        ("pictures", "folder", "no image in"),
        ("one.png", None, "no such input"),
    ],
)
def test_files_that_cannot_be_played_are_refused(tmp_path: Path, name: str, content: Any, said: str):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with refusal(said):
        play(str(path))


class FakeCamera:
    """Three pictures, then none."""

    opened = 0

    def __init__(self, which: int | str):
        FakeCamera.opened += 1
        self.which, self._left = which, 3

    def isOpened(self) -> bool:
        return self.which != 7

    def set(self, *_: Any):
        pass

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self._left -= 1
        return self._left >= 0, np.array([[[1, 2, 3]]], np.uint8).repeat(24, 0).repeat(32, 1)

    def release(self):
        FakeCamera.opened -= 1


@pytest.fixture
def cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two cameras, one of them in use."""
    fake = SimpleNamespace(VideoCapture=FakeCamera, CAP_PROP_BUFFERSIZE=38, CAP_PROP_FPS=5)
    monkeypatch.setitem(sys.modules, "cv2", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(camera, "DEVICES", tmp_path)
    for number in (0, 7):
        (tmp_path / f"video{number}").touch()
    FakeCamera.opened = 0


@pytest.mark.usefixtures("cameras")
def test_a_camera_gives_upright_colors_and_is_released(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader, "PAUSES", (0.01,))
    shown, events, live = play("camera:0", reconnect=0)
    assert live.totals.arrived == 3 and live.source.rate == 30.0 and FakeCamera.opened == 0
    assert (shown[0].frame.image[:, 0, 0] * 255).round().tolist() == [3, 2, 1]  # OpenCV's order is BGR
    assert "the camera gives no pictures any more" in events[-1].text


@pytest.mark.usefixtures("cameras")
@pytest.mark.parametrize("said", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_camera_may_not_know_its_rate(said: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FakeCamera, "get", lambda *_: said)
    source = open_source("camera:0")
    next(source.connect())
    assert source.rate is None


@pytest.mark.usefixtures("cameras")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("camera:3", r"camera:3: no such camera: there is no .*video3. Cameras here: .*video0, .*video7"),
        (
            "camera:x",
            r"camera:x: no such camera: there is no x. Expected camera:NUMBER, or camera: and a device's path",
        ),
        ("camera:7", "another program may be using it"),
        ("camera:", "expected a number, as in camera:0"),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lists its cameras as files")
def test_a_camera_that_is_not_there_is_refused(name: str, said: str):
    with refusal(said, InputError):
        play(name)


@pytest.mark.parametrize(
    ("library", "name", "said"),
    [
        ("av", "http://127.0.0.1/street", r"allweather\[video\]"),
        ("av", "clip.mp4", r"allweather\[video\]"),
        ("cv2", "camera:0", r"allweather\[camera\]"),
    ],
)
def test_a_library_that_is_missing_is_named(
    library: str, name: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(camera, "DEVICES", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "video0").touch()
    (tmp_path / "clip.mp4").write_bytes(b"something")
    with pytest.raises(MissingLibraryError, match=rf"is not importable \(.*{said}"):
        open_source(name)
