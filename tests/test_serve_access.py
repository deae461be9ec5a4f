"""Who comes in and what may be named: tokens, hosts, pages of other sites, one folder of the server."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal
from serving import encoded, picture
from tiny import tiny

import allweather
from allweather import MissingLibraryError, SettingsError
from allweather.serve import Limits, application
from allweather.serve.access import choose_token, inside, is_loopback, path_of, told
from allweather.serve.room import Room
from allweather.serve.uploads_folder import uploads_folder

pytest.importorskip("gradio", reason="the extra web")
from fastapi import FastAPI
from fastapi.testclient import TestClient

MODEL = tiny()
TOKEN = "a-token-of-enough-characters"


def until(true: Callable[[], bool]):
    """Waits until it is, a minute at most."""
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never became true")


def client(base: str = "http://localhost", **options: Any) -> TestClient:
    return TestClient(application(MODEL, **options), base_url=base, follow_redirects=False)


def test_beyond_this_machine_a_token_is_needed():
    with refusal(r"0\.0\.0\.0 can be reached from other machines: expected a token", SettingsError):
        application(MODEL, host="0.0.0.0")
    with refusal("expected at least 16", SettingsError):
        application(MODEL, token="short")
    for token in ("passwört-passwört-1", "two words; and more", "q3+Zr/8abcdefghijklmn=="):
        with refusal("other characters than letters, digits", SettingsError):
            choose_token("127.0.0.1", token)
    assert choose_token("127.0.0.1", None) is None and len(choose_token("0.0.0.0", None) or "") >= 16


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)]
)
def test_what_is_this_machine(host: str, local: bool):
    assert is_loopback(host) is local


def test_the_token_opens_everything_and_nothing_opens_without_it():
    with client("http://box:7860", host="0.0.0.0", token=TOKEN) as served:
        for path in ("/", "/docs", "/metrics", "/config", "/see/x/picture.jpg", "/gradio_api/info"):
            assert served.get(path).status_code == 401, path
        assert served.post("/gradio_api/upload", files={"files": ("x", b"x")}).status_code == 401
        assert served.get("/metrics", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert served.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert served.get("/v1/health").status_code == 200, "a load balancer has no token"
        entered = served.get(f"/?token={TOKEN}")
        assert entered.status_code == 303 and entered.headers["location"] == "/"
        assert "HttpOnly" in entered.headers["set-cookie"] and "SameSite=Strict" in entered.headers["set-cookie"]
        assert served.get("/docs").status_code == 200, "the browser's cookie opens it now"


def test_other_names_and_pages_of_other_sites_are_turned_away():
    with client() as served:
        for host in ("evil.example", "testserver", "["):
            assert served.get("/v1/health", headers={"host": host}).status_code == 421
        assert served.post("/v1/predict", headers={"origin": "http://["}).status_code == 403
        strange = {"origin": "https://evil.example"}
        assert served.post("/v1/predict", headers=strange).status_code == 403
        assert served.get("/v1/health", headers={"origin": "http://localhost"}).status_code == 200


@pytest.mark.parametrize("status", [401, 403, 413, 421, 500, "413 unsaid"])
def test_every_answer_of_the_endpoint_is_counted(status: int | str, monkeypatch: pytest.MonkeyPatch):
    refused = {401: {"authorization": ""}, 403: {"origin": "http://evil"}, 421: {"host": "evil"}}
    headers = {"content-type": "multipart/form-data; boundary=x", "authorization": f"Bearer {TOKEN}"}
    headers |= refused.get(status, {})  # type: ignore[call-overload]
    long = bytes((1 << 20) + 1001)
    content: Any = {413: long, "413 unsaid": iter([long])}.get(status, b"x")
    with client(token=TOKEN, limits=Limits(picture_bytes=1000)) as served:
        serving = served.app.state.serving  # type: ignore[attr-defined]
        if status == 500:
            monkeypatch.setattr(serving.pool, "admission", lambda: 1 / 0)
        answer, code = served.post("/v1/predict", content=content, headers=headers), int(str(status)[:3])
        assert answer.status_code == code and "error" in answer.json()
        told = serving.metrics.text().decode()
        assert f'allweather_requests_total{{status="{code}"}} 1.0' in told and "predict_seconds_count 1.0" in told
        if code == 413:
            assert answer.json() == {"error": "expected files of at most 1000 bytes.", "reason": "bytes"}
            assert 'uploads_refused_total{reason="bytes"} 1.0' in told


def test_a_browser_is_told_to_load_nothing_from_elsewhere():
    with client() as served:
        for path in ("/", "/docs", "/v1/health"):
            policy = served.get(path).headers["content-security-policy"]
            assert "default-src 'self'" in policy and "http" not in policy


def test_uploads_of_the_page_fill_the_disk_as_far_as_allowed_and_no_further():
    def upload(served: TestClient, count: int) -> int:
        return served.post("/gradio_api/upload", files={"files": ("x.png", bytes(count))}).status_code

    with client(limits=Limits(upload_bytes=4_000_000, disk_bytes=5_000_000)) as served:
        assert upload(served, 6_000_000) == 413, "one is too large"
        assert [upload(served, 3_500_000) for _ in range(2)] == [200, 413], "and two do not fit"
        assert served.post("/gradio_api/queue/join", content=bytes(2_000_000)).status_code == 413


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/queue/join/upload", "/gradio_api/run/predict/upload", "/gradio_api/upload/", "/upload", "/x/upload"],
)
def test_only_the_form_with_files_may_be_large(path: str):
    with client() as served:
        assert served.post(path, content=bytes((1 << 20) + 1)).status_code == 413


def test_the_pages_own_routes_name_no_file_of_the_server(tmp_path: Path):
    secret = tmp_path / "secret.png"
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(secret)
    with client() as served:
        for name in (f"file={secret}", f"proxy={secret}", "vibe-edit", "api/predict", "call/x", "deep_link"):
            assert served.get(f"/gradio_api/{name}").status_code == 404
            assert served.post(f"/gradio_api/{name}", json={}).status_code == 404
        config = served.get("/config").json()
        (event,) = [each["id"] for each in config["dependencies"] if each["targets"][0][1] == "upload"][:1]
        session = {"fn_index": event, "session_hash": "visitor"}
        file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
        elsewhere = [str(secret), "https://host/x", "../secret.png", "/etc/passwd", None, ["x"]]
        for data in [[[{**file, "path": path}], "n"] for path in elsewhere] + [[[], {"deep": [[file]]}]]:
            assert served.post("/gradio_api/queue/join", json={"data": data, **session}).status_code == 403
        hidden = b'{"data": [[{"path": "\\u0068ttp://host/x"}]]}'
        assert served.post("/gradio_api/queue/join", content=hidden).status_code == 403
        assert served.post("/gradio_api/queue/join", content=b"[" * 100_000).status_code == 403
        assert secret.exists() and not served.get("/gradio_api/info").json()["named_endpoints"]


def test_uploads_at_once_share_what_the_disk_has_left(tmp_path: Path):
    room = Room(Limits(upload_bytes=4 << 20, disk_bytes=6 << 20), tmp_path)
    with room.body("/gradio_api/upload", 3 << 20) as first, room.body("/gradio_api/upload", None) as second:
        assert first.most == 5 << 20 and second.most == second.expected == 3 << 20, "what the first one leaves"
        with room.body("/gradio_api/upload", 1) as third:
            assert third.most == 0 and third.limit == 5 << 20, "nothing is left, and who sends it all is still heard"
        (tmp_path / "part").write_bytes(bytes(1 << 20))
        first.read = 1 << 20  # which is not counted twice
        second.read = second.expected
        with room.body("/gradio_api/upload", 1) as fourth:
            assert fourth.most == 3 << 20
        with room.body("/v1/predict", 1) as body:
            assert body.most == (32 << 20) + (1 << 20)
    with room.body("/gradio_api/upload", None) as alone:
        assert alone.most == 5 << 20, "who has ended holds nothing but what lies there"


def test_uploads_that_run_keep_their_place_and_one_that_broke_off_is_removed():
    app = application(MODEL, limits=Limits(upload_bytes=2_000_000, disk_bytes=2_500_000, idle=60))
    head = b'--B\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'

    async def both() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as served:

            async def slow() -> AsyncIterator[bytes]:
                yield head + bytes(1_000_000)
                seen.append(await fast())
                yield bytes(500_000) + b"\r\n--B--\r\n"

            async def fast() -> int:
                file = {"files": ("b.png", bytes(1_500_000))}
                return (await served.post("/gradio_api/upload", files=file)).status_code

            seen: list[int] = []
            kind = {"content-type": "multipart/form-data; boundary=B"}
            seen.append((await served.post("/gradio_api/upload", content=slow(), headers=kind)).status_code)
            return seen

    with TestClient(app):
        assert asyncio.run(both()) == [413, 200]
        (file,) = [path for path in uploads_folder().rglob("*") if path.is_file()]
        app.state.serving.sweep()
        assert file.exists()
        os.utime(file, (1, 1))  # as old as one that broke off will be
        app.state.serving.sweep()
        assert not file.exists()


@pytest.mark.parametrize("way", ["mounted", "root path"])
def test_below_another_path_the_same_is_refused(way: str, tmp_path: Path):
    inner, root = application(MODEL, host="0.0.0.0", token=TOKEN), {"root_path": "/seg"} if way != "mounted" else {}
    outer = FastAPI() if way == "mounted" else inner
    if way == "mounted":
        outer.mount("/seg", inner)
    named = {"data": [[{"path": str(tmp_path), "meta": {"_type": "gradio.FileData"}}]], "fn_index": 0}
    with TestClient(outer, base_url="http://box", follow_redirects=False, **root) as served:
        assert served.get("/seg/v1/health").status_code == 200 and served.get("/seg/docs").status_code == 401
        entered = served.get(f"/seg/?token={TOKEN}")
        assert entered.status_code == 303 and entered.headers["location"] == "/seg/"
        assert served.get("/seg/").status_code == 200, "the browser's cookie opens it now"
        assert served.post("/seg/gradio_api/queue/join", json=named).status_code == 403
        assert served.get(f"/seg/gradio_api/file={tmp_path}").status_code == 404
        assert served.post("/seg/gradio_api/queue/join", content=bytes(2_000_000)).status_code == 413
        large = served.post("/seg/v1/predict", files={"image": ("a.png", bytes(2_000_000))})
        assert large.status_code == 415, "a picture may have as many bytes, were it one"


@pytest.mark.parametrize("path", ["/seg/v1/health", "/seg", "/segment/v1", "/v1/health", "/other/seg/x", "/seg//x"])
def test_paths_are_told_as_the_routes_tell_them(path: str):
    from starlette._utils import get_route_path

    for scope in ({"path": path, "root_path": "/seg"}, {"path": path}, {"path": path, "root_path": ""}):
        assert path_of(scope) == get_route_path(scope)


def test_an_application_that_nobody_started_frees_what_is_old_and_refuses_to_lose_streams(tmp_path: Path):
    outer, forgets = FastAPI(), application(MODEL, limits=Limits(idle=0.05))
    outer.mount("/forgets", forgets)
    outer.mount("/keeps", application(MODEL, sessions=tmp_path))
    files = {"image": ("a.png", encoded(picture()))}
    with TestClient(outer, base_url="http://localhost") as served:
        refused = served.post("/keeps/v1/predict", files=files, data={"stream": "a"})
        assert refused.status_code == 503 and "app.router.lifespan_context" in refused.json()["error"]
        assert served.post("/forgets/v1/predict", files=files, data={"stream": "a"}).status_code == 200
        streams = forgets.state.serving.streams
        until(lambda: len(streams) == 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is allowed, with a link that leads out of it."""
    allowed = tmp_path / "allowed"
    (allowed / "frames").mkdir(parents=True)
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(allowed / "frames" / "a.png")
    (tmp_path / "secret.png").write_bytes((allowed / "frames" / "a.png").read_bytes())
    (allowed / "frames" / "link.png").symlink_to(tmp_path / "secret.png")
    return allowed


@pytest.mark.parametrize("name", ["../secret.png", "frames/link.png", "/etc/passwd", "frames/../../secret.png", "x\0"])
def test_nothing_outside_the_folder_is_named(name: str, folder: Path):
    with refusal("inside the folder that this server allows", SettingsError):
        inside(folder, name)
    assert inside(folder, "frames/a.png").name == "a.png"


def test_a_folder_of_the_server_gives_its_own_pictures_alone(folder: Path):
    from allweather.serve.pictures import from_folder

    held, refused = from_folder(folder, "frames", Limits(), None)
    assert [each.name for each in held] == ["a.png"] and "inside the folder" in refused[0]
    with refusal("--allow-dir", SettingsError):
        from_folder(None, "frames", Limits(), None)


def test_checkpoints_are_named_within_the_folder_and_read_as_data(folder: Path):
    from allweather.models import load_model
    from allweather.serve.networks import Networks, given

    state = load_model("demo:streetnet").network.state_dict()
    torch.save(state, folder / "mine.pth")
    (folder / "evil.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    networks = Networks(given(MODEL, None), folder)
    assert networks.checkpoints() == ["evil.pth", "mine.pth"] and networks.folders() == [".", "frames"]
    opened = networks.open("demo:streetnet", "mine.pth")
    assert networks.open("demo:streetnet", "mine.pth") is opened
    other = {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}
    torch.save(other, folder / "new")
    (folder / "new").replace(folder / "mine.pth")
    replaced = networks.open("demo:streetnet", "frames/../mine.pth")
    assert all(torch.equal(value, other[key]) for key, value in replaced.model.network.state_dict().items())
    assert networks.open("demo:streetnet", "mine.pth") is replaced and len(networks._chosen) == 1
    with pytest.raises(allweather.CheckpointError):
        networks.open("demo:streetnet", "evil.pth")
    with refusal("unknown network of the catalogue", SettingsError):
        networks.open("evil.py:build", "mine.pth")
    with refusal("unknown network of the catalogue", SettingsError):
        networks.open("dannet:lightnet", "mine.pth")  # a part of networks, which predicts no classes
    with refusal("does not let visitors name files", SettingsError):
        Networks(given(MODEL, None)).open("demo:streetnet", "mine.pth")


def test_pages_that_open_share_one_walk(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from allweather.serve import networks

    opened, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(path) or scandir(path))
    monkeypatch.setattr(networks, "MOST_LISTED", 2)
    here = networks.Networks(networks.given(MODEL, None), folder)
    (folder / "a.pth").symlink_to("nowhere")
    for name in ("b.PTH", "frames/c.pt", "frames/d.pt"):
        (folder / name).touch()
    assert here.folders() == [".", "frames"] and here.checkpoints()[0] == "b.PTH"
    assert len(here.checkpoints()) == len(opened) == 2


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("no image in ROOT.", "no image in .."),
        ("ROOT: a folder", ".: a folder"),
        ("'ROOT/night/a.png' is damaged", "'night/a.png' is damaged"),
        ("ROOT-elsewhere and ROOT.bak", "ROOT-elsewhere and ROOT.bak"),
    ],
)
def test_a_failure_names_files_as_visitors_do(text: str, read: str, folder: Path):
    error = SettingsError(text.replace("ROOT", str(folder)))
    assert told(error, folder) == read.replace("ROOT", str(folder))
    assert told(error, None) == told(error, Path("/")) == str(error)


def test_nobody_learns_where_the_folder_lies(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from gradio import Error, Request

    from allweather.serve.page import Page

    (folder / "empty").mkdir()
    (folder / "bad.pth").write_bytes(b"x")
    monkeypatch.chdir(folder.parent)
    app = application(MODEL, allow_dir=Path(folder.name))
    serving, request = app.state.serving, Request(session_hash="visitor")
    page = Page(serving)
    network = (serving.networks.default, "demo:streetnet", "bad.pth")

    async def started() -> list[Any]:
        return [view async for view in page._start(request, "norm", "recommended", 1, *network)][-1]

    picture = {"image": ("a.png", (folder / "frames" / "a.png").read_bytes())}
    with TestClient(app, base_url="http://localhost") as served:
        refused = served.post("/v1/predict", files=picture, data={"method": "eata", "set": "source_images=empty"})
    notices = [page._open(request, "empty", *network[:1])[0], page._open(request, "frames", *network)[0]]
    notices += [asyncio.run(started())[0]]
    with pytest.raises(Error) as shown:
        page._preset("norm", "recommended", *network)
    texts = [refused.json()["error"], *notices, shown.value.message]
    assert [("empty" in text, "bad.pth" in text) for text in texts] == [(True, False)] * 2 + [(False, True)] * 3
    assert not [text for text in texts if str(folder.parent) in text]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'allweather\[web\]'"):
        application(MODEL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mall"}, "unknown method 'mall'"),
        ({"workers": 0}, "workers: expected a number above 0"),
        ({"networks": {"x": "y"}}, "expected a Segmenter"),
        ({"allow_dir": "nowhere"}, "expected a folder"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_starts(options: dict[str, Any], message: str):
    with pytest.raises(allweather.AllWeatherError, match=message):
        application(**{"networks": MODEL, **options})


def test_a_limit_is_a_number_above_0():
    with pytest.raises(allweather.AllWeatherError, match=r"limits.pixels: expected a finite number at least 1"):
        Limits(pixels=0)
