"""A load on a real server: thousands of requests at once, hostile ones among them, every answer compared.

    python -m benchmarks.serve --json benchmarks/records/performance/serve.json.gz

The server is `allweather serve` in a process of its own, with the shipped network and one thread. Streams are sent by
one client each, in order, and compared with a session of this process that saw the same frames; pictures without a
stream with a fresh session's prediction. A request that is answered 429 is sent again until it is taken.
"""

import io
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from allweather import Session, load_model, methods
from allweather.data.scenes import render
from allweather.data.weather import CONDITIONS
from allweather.runs.record import versions
from benchmarks.committed import command, hand_out

SIZE = (128, 64)
METHODS = ("mall-domain", "tent", "norm", "source")
WAITING = 16  # requests that the server takes at once
CLIENTS = 24
STREAMS = 8


@dataclass
class Tally:
    """What came back, counted under a lock."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    lost: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Request:
    """A request and its right answer: labels of a picture, or the statuses that refuse it."""

    content: bytes
    name: str
    fields: dict[str, str]
    labels: np.ndarray | None
    refused: tuple[int, ...] = ()


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--requests", type=int, default=6000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lanes = plan(options.requests)
    with TemporaryDirectory() as folder, server(Path(folder)) as (address, process):
        memory = Memory(process.pid)
        tally, elapsed = load(address, lanes, memory)
        health = httpx.get(f"{address}/v1/health").json()
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        saved = len(list((Path(folder) / "sessions").iterdir()))
        left = [path.name for path in (Path(folder) / "tmp").rglob("*") if path.is_file()]
    record = summary(lanes, tally, elapsed, memory) | {
        "running_after": health["running"],
        "exit_status": status,
        "sessions_saved": saved,
        "files_left": len(left),
        "versions": versions(),
    }
    hand_out(record, options.json)


def plan(count: int) -> list[list[Request]]:
    """What each client sends, in order: the first ones a stream each, all of them pictures alone and hostile ones."""
    rng = random.Random(0)
    pictures = [picture(seed, name) for seed in range(5) for name in ("fog", "night", "rain")]
    single = [one for content, pixels in pictures for one in alone(content, pixels)]
    hostile = [Request(content, name, {}, None, refused) for content, name, refused in HOSTILE.values()]
    per_client = count // CLIENTS
    lanes = []
    for client in range(CLIENTS):
        stream = along(f"stream-{client}", per_client // 2) if client < STREAMS else iter(())
        others = per_client - (per_client // 2 if client < STREAMS else 0)
        lane = [rng.choice(hostile if rng.random() < 0.12 else single) for _ in range(others)]
        for position, request in zip(sorted(rng.sample(range(per_client), per_client // 2)), stream, strict=False):
            lane.insert(position, request)
        lanes.append(lane)
    return lanes


def picture(seed: int, weather: str) -> tuple[bytes, np.ndarray]:
    pixels = np.round(render(610_000 + seed, weather, SIZE).rgb * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue(), pixels


def alone(content: bytes, pixels: np.ndarray) -> Iterator[Request]:
    """The picture by each method, with a fresh session's labels."""
    model = load_model("demo:streetnet")
    for name in METHODS:
        labels = Session(model, methods.make(name, model=model))(pixels).labels.numpy()
        yield Request(content, "frame.png", {"method": name}, labels)


def along(stream: str, count: int) -> Iterator[Request]:
    """A stream's frames with the labels of one session that sees them in this order."""
    model = load_model("demo:streetnet")
    session = Session(model, methods.make("mall-domain", model=model))
    weathers = list(CONDITIONS)
    for index in range(count):
        content, pixels = picture(100 + index % 40 + sum(stream.encode()) % 50, weathers[index // 20 % len(weathers)])
        yield Request(content, "frame.png", {"stream": stream}, session(pixels).labels.numpy())


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("x", "y")
    return buffer.getvalue()


def huge(width: int, height: int) -> bytes:
    """A picture of one color in few bytes."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


SMALL = picture(0, "clear")[0]
HOSTILE: dict[str, tuple[bytes, str, tuple[int, ...]]] = {
    "200 megapixels": (huge(20_000, 10_000), "f.png", (413,)),
    "an archive too": (SMALL + archive(), "f.png", (415,)),
    "a page too": (SMALL + b"<script>", "f.png", (415,)),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "f.svg", (415,)),
    "a pickle": (pickle.dumps({"a": 1}), "f.png", (415,)),
    "cut off": (SMALL[: len(SMALL) // 2], "f.png", (422,)),
    "a folder in its name": (SMALL, "../../f.png", (400,)),
    "forty megabytes": (bytes(40 << 20), "f.png", (413,)),
}


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The server and its address; what it puts on the disk lies below `folder`."""
    (folder / "tmp").mkdir()
    command = [sys.executable, "-m", "allweather", "serve", "--port", "0", "--sessions", str(folder / "sessions")]
    command += ["--limit", f"waiting={WAITING}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp"), "COLUMNS": "200", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stderr is not None
    found = re.search(r"http://\S+?:\d+", process.stderr.readline())
    assert found, "the server says where it is"
    threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True).start()
    try:
        yield found.group(), process
    finally:
        process.kill()
        process.wait()


class Memory:
    """Resident memory of a process, in MiB, looked at after every so many requests."""

    def __init__(self, pid: int, every: int = 250) -> None:
        self._path, self._every = Path(f"/proc/{pid}/status"), every
        self.seen: list[float] = []

    def look(self, answered: int) -> None:
        if answered % self._every == 0:
            found = re.search(r"VmRSS:\s+(\d+)", self._path.read_text())
            self.seen.append(int(found[1]) / 1024 if found else float("nan"))


def load(address: str, lanes: list[list[Request]], memory: Memory) -> tuple[Tally, float]:
    """Sends everything, each lane from a client of its own; gives what came back, and the seconds that it took."""
    tally, started = Tally(), time.perf_counter()

    def run(lane: list[Request]) -> None:
        with httpx.Client(timeout=120) as client:
            for request in lane:
                send(lambda request=request: post(client, address, request), request, tally, memory)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(run, lanes))
    return tally, time.perf_counter() - started


def post(client: httpx.Client, address: str, request: Request) -> httpx.Response:
    files = {"image": (request.name, request.content)}
    return client.post(f"{address}/v1/predict", files=files, data=request.fields)


def send(post: Callable[[], httpx.Response], request: Request, tally: Tally, memory: Memory) -> None:
    """One request until it is taken."""
    while True:
        started = time.perf_counter()
        try:
            answer = post()
        except httpx.HTTPError:
            with tally.lock:
                tally.lost += 1
            return
        with tally.lock:
            tally.statuses[str(answer.status_code)] += 1
        if answer.status_code != 429:
            break
        time.sleep(0.25)
    with tally.lock:
        tally.wrong += not right(answer, request)
        if request.labels is not None:
            tally.seconds.append(time.perf_counter() - started)
        memory.look(sum(tally.statuses.values()) - tally.statuses["429"])


def right(answer: httpx.Response, request: Request) -> bool:
    if request.labels is None:
        return answer.status_code in request.refused
    if answer.status_code != 200:
        return False
    return np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), request.labels)


def summary(lanes: list[list[Request]], tally: Tally, elapsed: float, memory: Memory) -> dict[str, Any]:
    seconds = np.array(tally.seconds)
    asked = sum(map(len, lanes))
    return {
        "benchmark": "serve",
        "network": "demo:streetnet",
        "size": SIZE,
        "clients": CLIENTS,
        "waiting": WAITING,
        "requests": asked,
        "of_streams": sum("stream" in request.fields for lane in lanes for request in lane),
        "hostile": sum(request.labels is None for lane in lanes for request in lane),
        "statuses": dict(sorted(tally.statuses.items())),
        "lost": tally.lost,
        "wrong": tally.wrong,
        "seconds": round(elapsed, 1),
        "per_second": round(asked / elapsed, 1),
        "latency_ms": {
            name: round(1000 * float(np.quantile(seconds, share)))
            for name, share in (("median", 0.5), ("p95", 0.95), ("p99", 0.99), ("slowest", 1.0))
        },
        "memory_mib": {
            "first": round(memory.seen[0]),
            "after_a_tenth": round(memory.seen[len(memory.seen) // 10]),
            "middle": round(memory.seen[len(memory.seen) // 2]),
            "last": round(memory.seen[-1]),
            "highest": round(max(memory.seen)),
        },
    }


if __name__ == "__main__":
    main()
