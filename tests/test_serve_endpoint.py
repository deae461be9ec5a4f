"""The HTTP endpoint: answers are those of a session alone, streams do not mix, and what is hostile is refused."""

import io
import pickle
import shutil
import struct
import sys
import threading
import time
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from serving import encoded
from tiny import frames, tiny

from allweather import CheckpointError, Segmenter, Session, methods
from allweather.methods.option import spell
from allweather.methods.settings import path_fields
from allweather.rgb import to_unit
from allweather.serve import Limits, application
from allweather.serve.pool import Lane, Pool
from allweather.serve.room import Room
from allweather.serve.serving import Serving
from allweather.serve.streams import Wanted
from allweather.session.storage import read_saved, save_session

pytest.importorskip("gradio", reason="the extra web")
from fastapi.testclient import TestClient

MODEL = tiny()
QUICK = {"views": "plain", "lookahead": "0", "rank": "8"}
PICTURES = [np.asarray((frame * 255).to(torch.uint8).permute(1, 2, 0)) for frame in frames(6)]


def client(model: Segmenter = MODEL, **options: Any) -> TestClient:
    return TestClient(application(model, **options), base_url="http://localhost")


@pytest.fixture(scope="module")
def served() -> Iterator[TestClient]:
    with client(limits=Limits(pixels=10_000, picture_bytes=200_000, waiting=8)) as one:
        yield one


def ask(served: TestClient, content: bytes | np.ndarray, name: str = "frame.png", **fields: Any) -> Any:
    """The answer to a picture; QUICK settings where none are given."""
    data = {"method": "mall-domain", "set": [f"{key}={value}" for key, value in QUICK.items()], **fields}
    body = encoded(content) if isinstance(content, np.ndarray) else content
    return served.post("/v1/predict", files={"image": (name, body)}, data=data)


def labels(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def alone(pictures: list[np.ndarray], method: str = "mall-domain") -> list[np.ndarray]:
    """What a session of one's own makes of them, one after another."""
    session = Session(MODEL, methods.make(method, settings=QUICK, model=MODEL))
    return [session(picture).labels.numpy() for picture in pictures]


def test_a_picture_alone_is_what_a_fresh_session_makes_of_it(served: TestClient):
    for picture in (*PICTURES[:3], PICTURES[0]):
        assert np.array_equal(labels(ask(served, picture)), alone([picture])[0])


def test_a_stream_is_what_one_session_makes_of_it(served: TestClient):
    found = [labels(ask(served, picture, stream="a")) for picture in PICTURES]
    assert all(np.array_equal(one, other) for one, other in zip(found, alone(PICTURES), strict=True))
    fresh = [alone([picture])[0] for picture in PICTURES]
    assert not all(np.array_equal(one, other) for one, other in zip(found, fresh, strict=True)), "it has adapted"


def test_streams_at_once_do_not_mix(served: TestClient):
    orders = [PICTURES, PICTURES[::-1], PICTURES[3:] + PICTURES[:3]]

    def along(number: int) -> list[np.ndarray]:
        return [labels(ask(served, picture, stream=f"at-once-{number}")) for picture in orders[number]]

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(along, range(3)))
    for found, order in zip(together, orders, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(found, alone(order), strict=True))


def test_json_holds_the_labels_their_shares_and_what_was_decided(served: TestClient):
    answer = ask(served, PICTURES[0], answer="json").json()
    assert (answer["width"], answer["height"], answer["decision"]) == (32, 24, "accepted")
    assert sum(answer["shares"].values()) == pytest.approx(1, abs=1e-5) and len(answer["losses"]) == 1
    content = io.BytesIO(__import__("base64").b64decode(answer["labels_png"]))
    assert np.array_equal(np.asarray(Image.open(content)), alone([PICTURES[0]])[0])


def test_labels_come_at_the_pictures_own_size():
    with client(size=(32, 24)) as small:
        assert labels(ask(small, np.asarray(Image.fromarray(PICTURES[0]).resize((61, 47))))).shape == (47, 61)


def test_a_stream_keeps_its_settings_until_it_is_removed(served: TestClient):
    assert ask(served, PICTURES[0], stream="kept").status_code == 200
    other = ask(served, PICTURES[0], stream="kept", method="source", set=[])
    assert other.status_code == 409 and "DELETE /v1/streams/kept" in other.json()["error"]
    assert served.delete("/v1/streams/kept").status_code == 200
    gone = served.delete("/v1/streams/kept")
    assert gone.status_code == 404 and gone.json() == {"error": "there is no such stream"}
    assert ask(served, PICTURES[0], stream="kept", method="source", set=[]).status_code == 200


def test_streams_are_saved_at_the_end_and_go_on(tmp_path: Path):
    whole = alone(PICTURES)
    with client(sessions=tmp_path) as first:
        for picture in PICTURES[:3]:
            ask(first, picture, stream="camera-7")
    (saved,) = tmp_path.iterdir()
    assert "camera" not in saved.name and saved.suffix == ".safetensors"
    with client(sessions=tmp_path) as second:
        assert np.array_equal(labels(ask(second, PICTURES[3], stream="camera-7")), whole[3])
        other = ask(second, PICTURES[3], stream="camera-7", method="tent", set=[])
        assert other.status_code == 409
        assert second.delete("/v1/streams/camera-7").status_code == 200
    assert not list(tmp_path.iterdir())


def test_equal_settings_are_one_however_they_are_written(served: TestClient):
    wanted = [
        {"set": ["lr=0.0002", "views=plain,mirror"]},
        {"set": ["views=plain, mirror", "lr=2e-4"]},
        {"set": ["mirror=true", "lr=.0002"], "network": MODEL.name, "preset": "recommended"},
    ]
    for name, order in (("first", wanted), ("last", wanted[::-1])):
        assert [ask(served, PICTURES[0], stream=name, **one).status_code for one in order] == [200] * 3
    for other in ({"set": ["lr=0.0003", "mirror=true"]}, {"set": ["lr=0.0002"]}, {"set": ["lr=0.0002", "mirror=no"]}):
        assert ask(served, PICTURES[0], stream="first", **other).status_code == 409
    for key in {Wanted(method=name, settings=_every_field(name)).key for name in methods.METHODS}:
        assert isinstance(key, tuple)


def _every_field(name: str) -> dict[str, str]:
    """A text for each field of a method, as its default is written."""
    return {
        field: spell(getattr(methods.make(name), field)) for field in methods.describe_fields(methods.METHODS[name])
    }


def _damaged(path: Path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 0xFF
    path.write_bytes(content)


def _of_another_version(path: Path):
    tensors, identity = read_saved(path)
    del identity["bn_share"]
    save_session(path, tensors, identity | {"format": "0"})


@pytest.mark.parametrize(
    ("change", "logged"),
    [(_damaged, "is damaged"), (_of_another_version, "another version of allweather")],
    ids=["damaged", "version"],
)
def test_a_kept_stream_that_cannot_go_on_is_said_as_what_it_is(
    change: Callable[[Path], None], logged: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with client(sessions=tmp_path) as first:
        ask(first, PICTURES[0], stream="kept")
    (path,) = tmp_path.iterdir()
    with client(sessions=tmp_path) as second:
        other = ask(second, PICTURES[1], stream="kept", method="tent", set=[]).json()["error"]
        assert "was put away with another network, method or settings" in other
        change(path)
        caplog.clear()
        answer = ask(second, PICTURES[1], stream="kept")
        assert answer.status_code == 409 and "cannot go on: the server's log says why" in answer.json()["error"]
        assert str(tmp_path) not in answer.text and logged in caplog.text and "stream kept" in caplog.text
        assert second.delete("/v1/streams/kept").status_code == 200
        assert ask(second, PICTURES[1], stream="kept").status_code == 200


def test_as_many_streams_as_may_be_and_no_more(tmp_path: Path):
    with client(limits=Limits(streams=2)) as few:
        assert [ask(few, PICTURES[0], stream=name).status_code for name in "abca"] == [200, 200, 429, 200]
    with client(limits=Limits(streams=2), sessions=tmp_path) as kept:
        found = {name: [] for name in "abc"}
        for picture in PICTURES[:3]:
            for name, so_far in found.items():
                so_far.append(labels(ask(kept, picture, stream=name)))
        for so_far in found.values():  # put away and taken up again, nothing is lost
            assert all(np.array_equal(one, other) for one, other in zip(so_far, alone(PICTURES[:3]), strict=True))


def test_what_nobody_uses_is_freed(monkeypatch: pytest.MonkeyPatch):
    given_back = []
    monkeypatch.setattr("allweather.serve.serving.give_back_freed_memory", lambda: given_back.append(1))
    monkeypatch.setattr(Serving, "_sweep_on", lambda serving: None)
    with client(limits=Limits(idle=0.05)) as served:
        serving = served.app.state.serving
        ask(served, PICTURES[0], stream="old")
        threading.Event().wait(0.1)
        for _ in range(3):
            serving.sweep()
        assert len(serving.streams) == 0
    assert given_back == [1, 1], "when something was freed, and once more when no thread holds it"


def test_a_request_that_is_cancelled_as_it_waits_holds_no_stream():
    with client(limits=Limits(streams=1)) as served:
        streams = served.app.state.serving.streams
        worked, pixels = threading.Event(), torch.rand(3, 24, 32)
        streams.pool.submit(Lane(), worked.wait)  # the one worker is busy until then
        waiting = streams.predict("gone", Wanted(method="norm"), lambda network: pixels)
        assert len(streams) == 1 and waiting.cancel()
        assert len(streams) == 0, "it never began"
        kept = streams.predict("kept", Wanted(method="norm"), lambda network: pixels)
        second = streams.predict("kept", Wanted(method="norm"), lambda network: pixels)
        assert second.cancel()
        worked.set()
        kept.result(30)
        streams.pool.submit(Lane(), bool).result(30)  # the worker has left the one before
        assert [stream.busy for stream in streams._streams.values()] == [0]


def test_pictures_without_a_stream_are_worked_on_at_once_in_few_sessions():
    with client(workers=2) as served:
        streams = served.app.state.serving.streams  # type: ignore[attr-defined]
        both, image, wanted = threading.Barrier(2), to_unit(Image.fromarray(PICTURES[0])), Wanted(settings=QUICK)
        found = [streams.predict(None, wanted, lambda network: (both.wait(30), image)[1]) for _ in range(6)]
        expected = alone(PICTURES[:1])[0]
        assert all(np.array_equal(each.result(60).labels.numpy(), expected) for each in found)
        assert len(streams._lone) == 2 and len(streams) == 0


def test_a_sweep_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    with client(limits=Limits(idle=0.04)) as served:
        serving, again = served.app.state.serving, threading.Event()

        def sweep():
            if caplog.records:
                again.set()
            raise FileNotFoundError("a folder went")

        monkeypatch.setattr(serving, "sweep", sweep)
        assert again.wait(120)
    assert "old streams were not freed" in caplog.text


def test_folders_of_uploads_may_go_while_they_are_looked_at(tmp_path: Path):
    room, ended = Room(Limits(), tmp_path), threading.Event()

    def come_and_go():
        for number in range(600):
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / "x.png").write_bytes(b"x")
            if number >= 20:
                shutil.rmtree(tmp_path / str(number - 20))
        ended.set()

    threading.Thread(target=come_and_go).start()
    while not ended.is_set():
        room.sweep()
        with room.body("/gradio_api/upload", 100):
            pass
    assert len(room._files()) == 20


def test_work_that_ends_in_anything_leaves_its_thread():
    pool = Pool(1, 4)
    with pytest.raises(RuntimeError, match="the work ended in SystemExit"):
        pool.submit(Lane(), sys.exit).result(120)
    held = torch.zeros(3)
    assert pool.submit(Lane(), partial(len, held)).result(120) == 3
    found, held = weakref.ref(held), None
    while found():  # an idle thread holds none of it: a stream that is removed is freed
        time.sleep(0.01)
    pool.close()


def test_a_stream_that_cannot_be_saved_is_not_put_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(_: Session, path: Path):
        raise CheckpointError(f"{path} cannot be written: no space left.")

    whole = alone(PICTURES[:4])
    with client(limits=Limits(streams=1, idle=0.05), sessions=tmp_path) as served:
        serving = served.app.state.serving
        with monkeypatch.context() as patched:
            patched.setattr(Session, "save", full)  # before it may be put away
            ask(served, PICTURES[0], stream="old")
            threading.Event().wait(0.1)
            serving.sweep()
            refused = ask(served, PICTURES[0], stream="new")
            assert refused.status_code == 429 and "cannot be saved" in refused.json()["error"]
            assert "no space left" in caplog.text
            for number in (1, 2):
                assert np.array_equal(labels(ask(served, PICTURES[number], stream="old")), whole[number])
        assert ask(served, PICTURES[0], stream="new").status_code == 200
        assert np.array_equal(labels(ask(served, PICTURES[3], stream="old")), whole[3])


def test_too_much_at_once_is_answered_429():
    with client(limits=Limits(waiting=2)) as served:
        serving = served.app.state.serving
        with serving.pool.admission(), serving.pool.admission():
            refused = ask(served, PICTURES[0])
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert ask(served, PICTURES[0]).status_code == 200


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says it is that large, in a hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("evil.py", "boom")
    return buffer.getvalue()


class Boom:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle ran",))


GOOD = encoded(PICTURES[0])
HOSTILE = {
    "a bomb": (png_of_size(60_000, 60_000), "f.png", 413, "expected at most 10000"),
    "200 megapixels": (png_of_size(20_000, 10_000), "f.png", 413, "expected at most 10000"),
    "a little too large": (png_of_size(101, 100), "f.png", 413, "is 101×100: expected at most 10000 pixels"),
    "too many bytes": (b"\x89PNG" + bytes(200_001), "f.png", 413, "expected at most 200000"),
    "an archive behind it": (GOOD + archive(), "f.png", 415, "a picture and an archive at once"),
    "a page inside": (GOOD + b"<script>alert(1)</script>", "f.png", 415, "a picture and a page or a document at once"),
    "a document inside": (GOOD + b"%PDF-1.7", "f.png", 415, "at once"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "f.svg", 415, "expected PNG, JPEG"),
    "an EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "f.png", 415, "expected PNG, JPEG"),
    "a pickle": (pickle.dumps(Boom()), "f.png", 415, "expected PNG, JPEG"),
    "cut off": (GOOD[:200], "f.png", 422, "cannot be read"),
    "nothing": (b"", "f.png", 415, "expected PNG"),
    "a folder in its name": (GOOD, "../../etc/passwd", 400, "expected one without folders"),
    "another folder in its name": (GOOD, "..\\boot.ini", 400, "expected one without folders"),
    "a long name": (GOOD, "x" * 300 + ".png", 400, "no file's name"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_uploads_are_refused_and_logged(kind: str, served: TestClient, caplog: pytest.LogCaptureFixture):
    content, name, status, message = HOSTILE[kind]
    with caplog.at_level("WARNING", "allweather"):
        refused = ask(served, content, name)
    assert (refused.status_code, message in refused.json()["error"]) == (status, True), refused.text
    assert [each for each in caplog.records if "refused" in each.getMessage()]
    assert ask(served, PICTURES[0]).status_code == 200, "and it lives"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "evil.py:Evil"}, "unknown method"),
        ({"method": "os:system"}, "unknown method"),
        ({"network": "evil.py:build"}, "unknown network of this server"),
        ({"set": ["iterations=100000"]}, "allows at most 100"),
        ({"set": ["rank=100000"]}, "allows at most 512"),
        ({"set": ["views=plain,evil.py:turned"]}, "which is code; visitors name none"),
        ({"set": ["parameters=os:system"]}, "which is code; visitors name none"),
        ({"set": ["views=plain,x4.0"]}, "views of at most 8 forward passes"),
        ({"set": ["views=plain,gamma-x2.6-fit"]}, "one more for each -fit"),
        ({"method": "cotta", "set": ["scales=100,1"]}, "scales of at most 2"),
        ({"method": "eata", "set": ["source_images=/etc"]}, "does not allow (--allow-dir)"),
        ({"method": "tent", "set": ["source_images=/etc"]}, "unknown field of tent 'source_images'"),
        ({"set": ["parameters=" + "*a" * 200]}, "at most 200 characters"),
        ({"set": ["lr=__import__('os')"]}, "expected number"),
        ({"set": ["lr"]}, "expected FIELD=VALUE"),
        ({"preset": "bset"}, "unknown preset"),
        ({"stream": "../x"}, "expected 1 to 64 letters"),
        ({"answer": "exe"}, "unknown answer"),
        ({"weights": "x"}, "unknown field"),
        ({"method": ["source", "norm"]}, "method: expected once, came 2 times"),
        ({"preset": ["paper", "paper"]}, "preset: expected once, came 2 times"),
        ({"stream": ["a", ""]}, "stream: expected once, came 2 times"),
        ({"network": ["", ""]}, "network: expected once, came 2 times"),
        ({"answer": ["png", "json", "png"]}, "answer: expected once, came 3 times"),
        ({"image": "text"}, "image: expected once, came 2 times"),
    ],
)
def test_settings_that_are_not_allowed(fields: dict[str, Any], message: str, served: TestClient):
    refused = ask(served, PICTURES[0], **fields)
    assert refused.status_code == 422 and message in refused.json()["error"], refused.text


@pytest.mark.parametrize("name", ["mall-sample", "mall-domain"])
def test_views_of_a_preset_may_be_asked_for_by_name(name: str):
    from allweather.serve.choosing import choose_method

    views = ",".join(methods.METHODS[name].presets["best"]["views"])
    chosen = choose_method(name, "recommended", {"views": views}, MODEL, Limits())
    assert chosen == choose_method(name, "best", {}, MODEL, Limits())


def test_every_number_that_costs_work_is_bounded_and_every_text_is_known():
    """A field that is added must be put on one of the lists of `serve/choosing.py`."""
    from allweather.serve import choosing

    for method in methods.METHODS.values():
        texts = {"parameters", "views", *path_fields(method)}
        for field, about in methods.describe_fields(method).items():
            if "text" in about["type"]:
                assert field in texts, f"{method.name}.{field} may hold any text"
    whole = {
        field
        for method in methods.METHODS.values()
        for field, about in methods.describe_fields(method).items()
        if "integer" in about["type"]
    }
    assert whole == {*choosing.FREE, *choosing.COSTLY, "iterations", "augmentations", "capacity", "updates"}


def test_a_body_that_is_no_form_or_too_long(served: TestClient):
    assert served.post("/v1/predict", content=b"{}").status_code == 400
    assert served.post("/v1/predict", data={"image": "text"}, files={"x": ("x", b"")}).status_code == 400
    assert served.post("/v1/predict", content=bytes(1_300_000)).status_code == 413
    unsaid = served.post("/v1/predict", content=iter([bytes(500_000)] * 4), headers=FORM)
    assert unsaid.status_code == 413, "without a length, it is counted as it comes"


FORM = {"content-type": "multipart/form-data; boundary=x"}


def test_another_way_to_ask_and_what_is_not_there_are_answered_as_errors(served: TestClient):
    for ask_so in (served.get, served.put):
        answer = ask_so("/v1/predict")
        assert (
            answer.status_code == 405
            and answer.headers["allow"] == "POST"
            and "expected POST" in answer.json()["error"]
        )
    assert served.post("/v1/health").headers["allow"] == "GET"
    for path in ("/v1/nothing", "/take/key/labels.png", "/see/key/picture.jpg"):
        answer = served.get(path)
        assert answer.status_code == 404 and set(answer.json()) == {"error"}, path


def test_the_page_offers_no_code():
    from allweather.serve.fields import rows

    (views,) = [row for row in rows("mall-domain", "recommended", MODEL) if row.name == "views"]
    assert "FILE.py" not in views.help and "x0.5" in views.help


def test_health_metrics_and_the_api_page(served: TestClient):
    from prometheus_client.parser import text_string_to_metric_families

    ask(served, PICTURES[0])
    ask(served, b"GIF89a")
    health = served.get("/v1/health").json()
    assert health["status"] == "ok" and health["networks"] == ["tiny-batchnorm"] and health["running"] == 0
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(served.get("/metrics").text)
        for sample in family.samples
    }
    assert samples["allweather_requests_total", "200"] >= 1 and samples["allweather_requests_running",] == 0
    assert samples["allweather_uploads_refused_total", "format"] >= 1
    page = served.get("/docs").text
    assert "swagger" in page and "http://" not in page.replace("http://localhost", "") and "https://" not in page
    described = served.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
    assert set(described["responses"]) >= {"200", "403", "409", "413", "421", "415", "422", "429"}
