"""A server in a process of its own, as a user starts it, and pictures to send to it."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from allweather.data.scenes import render


@dataclass
class Server:
    """A running server: where it is, its process, and what it has said on stderr."""

    address: str
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)


@contextmanager
def server(*options: object, **environment: str) -> Iterator[Server]:
    """`allweather serve` on a free port, ended by SIGTERM where it still runs."""
    command = [sys.executable, "-m", "allweather", "serve", "--port", "0", *map(str, options)]
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "300", **environment}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env)
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"http://\S+?:\d+", line):
            break
    else:
        raise AssertionError("".join(said))
    listening = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    listening.start()
    try:
        yield Server(found.group(), process, said)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(120)
        finally:
            process.kill()
        listening.join(5)
        process.stderr.close()


def picture(seed: int = 0, weather: str = "night", size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """A procedural scene, H×W×3 uint8."""
    return np.round(render(600_000 + seed, weather, size).rgb * 255).astype(np.uint8)


def encoded(pixels: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=format)
    return buffer.getvalue()
