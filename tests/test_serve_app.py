"""`allweather serve` as a user starts it: where it is, what it says, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from command_line import allweather
from PIL import Image
from serving import encoded, picture, server
from tiny import tiny

from allweather.serve import application
from allweather.serve.pool import Lane

pytest.importorskip("gradio", reason="the extra web")
from allweather.serve import shutdown


def test_it_serves_until_it_is_asked_to_stop_and_saves_its_streams(tmp_path: Path):
    sessions = tmp_path / "sessions"
    with server("--sessions", sessions, TMPDIR=str(tmp_path)) as running:
        files = {"image": ("a.png", encoded(picture()))}
        for _ in range(2):
            answer = httpx.post(f"{running.address}/v1/predict", files=files, data={"stream": "a"}, timeout=60)
            assert answer.status_code == 200
        page = httpx.get(running.address, timeout=60).text
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(120) == 0
    assert "allweather" in page and not [line for line in running.said if "Traceback" in line]
    assert len(list(sessions.glob("*.safetensors"))) == 1
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")}  # torch's own
    assert left == {"sessions"}, "nothing else is left on the disk"


def test_a_second_ctrl_c_saves_the_streams_too(tmp_path: Path):
    with server("--sessions", tmp_path) as running:
        files = {"image": ("a.png", encoded(picture()))}
        assert httpx.post(f"{running.address}/v1/predict", files=files, data={"stream": "a"}, timeout=60).is_success
        with httpx.stream("GET", f"{running.address}/gradio_api/heartbeat/page", timeout=60) as page:
            assert page.status_code == 200, "a page is open, for which the first one waits"
            running.process.send_signal(signal.SIGINT)
            time.sleep(1)
            assert running.process.poll() is None
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(120) == 0
    assert "graceful shutdown exceeded" not in "".join(running.said), "the second one is not waited for"
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_what_was_taken_is_answered_however_long_it_takes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutdown, "GRACE", 0.5)  # so that the test need not outlast the true one
    app, statuses, asked = application(tiny()), [], threading.Event()
    pool = app.state.serving.pool
    pool.submit(Lane(), asked.wait)  # the one worker is busy until then

    def ask(address: str):
        answer = httpx.post(f"{address}/v1/predict", files={"image": ("a.png", encoded(picture()))}, timeout=60)
        statuses.append(answer.status_code)

    def stop():
        while not pool.admitted and threads[0].is_alive():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.5)
        asked.set()

    def begin(address: str):
        threads.extend(threading.Thread(target=each) for each in (partial(ask, address), stop))
        for thread in threads:
            thread.start()

    threads: list[threading.Thread] = []
    shutdown.run(app, "127.0.0.1", 0, begin)
    for thread in threads:
        thread.join(120)
    assert statuses == [200]


def test_an_application_of_ones_own_leaves_nothing_on_the_disk_either(tmp_path: Path):
    (tmp_path / "app.py").write_text(
        "import allweather as aw\napp = aw.serve.application(aw.load_model('demo:streetnet'))\n"
    )
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    with process.stderr:
        assert any("running on" in line for line in process.stderr)
        assert list((tmp_path / "temporary").glob("allweather-serve-*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == -signal.SIGTERM
    assert not list((tmp_path / "temporary").glob("allweather-serve-*"))


def test_a_place_where_streams_could_not_be_saved_is_said_before_it_serves(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "sessions"):
        said = allweather("serve", "--sessions", place, "--port", 0).said(2)
        assert f"--sessions {place}: streams cannot be saved there" in said


def test_a_stream_that_cannot_be_saved_at_the_stop_gives_status_one(tmp_path: Path):
    with server("--sessions", tmp_path / "sessions") as running:
        assert not list((tmp_path / "sessions").iterdir()), "the check leaves nothing"
        files = {"image": ("a.png", encoded(picture()))}
        httpx.post(f"{running.address}/v1/predict", files=files, data={"stream": "a"}, timeout=60).raise_for_status()
        (tmp_path / "sessions").rmdir()
        (tmp_path / "sessions").write_text("")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(120) == 1
    assert "could not be saved" in "".join(running.said)


def test_beyond_this_machine_it_says_the_token_and_the_network_of_the_command_line_comes_first(tmp_path: Path):
    options = ("--model", "espnet:q8", "--random-weights", "--size", "64x48")
    with server("--host", "0.0.0.0", *options, ALLWEATHER_TOKEN="") as running:  # set, and empty: as if it were not
        port = running.address.rsplit(":", 1)[1]
        local = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{local}/metrics").status_code == 401
        for _ in range(100):
            if found := [line for line in running.said if "?token=" in line]:
                break
            httpx.get(f"{local}/v1/health")
        token = found[0].rsplit("?token=", 1)[1].strip()
        bearer = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{local}/metrics", headers=bearer).status_code == 200

        health = httpx.get(f"{local}/v1/health", headers=bearer).json()
        assert health["networks"][1] == "demo:streetnet"
        files = {"image": ("a.png", encoded(picture()))}
        fields = {"network": "demo:streetnet", "method": "source"}
        answer = httpx.post(f"{local}/v1/predict", files=files, data=fields, headers=bearer, timeout=60)
        (tmp_path / "labels.png").write_bytes(answer.content)
        assert np.asarray(Image.open(tmp_path / "labels.png")).shape == (64, 96)


def test_a_port_that_is_taken_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = allweather("serve", "--port", taken.getsockname()[1])
    assert "Choose another --port" in done.said(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "pixel=3"), "unknown field of limits 'pixel'. Did you mean 'pixels'"),
        (("--limit", "pixels=many"), "limits.pixels: expected integer"),
        (("--method", "mall"), "unknown method 'mall'"),
        (("--allow-dir", "nowhere"), "--allow-dir nowhere: expected a folder"),
    ],
)
def test_mistakes_are_said(arguments: tuple[str, ...], message: str):
    assert message in allweather("serve", *arguments).said(2)


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "pip install 'allweather[web]'" in allweather("serve").said(2)
