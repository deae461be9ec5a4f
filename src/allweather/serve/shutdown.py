"""A server that runs until it is asked to stop, then finishes what it took, saves its streams, and ends."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from allweather.errors import AllWeatherError
from allweather.serve.serving import Serving

GRACE = 10  # seconds that open connections, such as pages, have once the requests are answered
TICK = 0.05  # seconds between two looks whether they are
SIGNALS = (signal.SIGINT, signal.SIGTERM)
REUSES = os.name == "posix"  # a port that was left a moment ago; on Windows it would take one that is in use


def run(app: FastAPI, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; a second SIGINT ends it before all is answered, and the streams are saved too.

    Args:
        port: 0 takes a free one.
        ready: called with the address, such as `http://127.0.0.1:7860`, once the port is open.

    Raises:
        AllWeatherError: where the address cannot be listened on.
    """
    with _listening(host, port) as bound, _heard():
        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{bound.getsockname()[1]}")
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE
        )
        try:
            _Server(config, app.state.serving).run([bound])
        finally:
            app.state.serving.end()  # which the lifespan has done already, unless it was cut short


class _Server(uvicorn.Server):
    """A server that answers what it took, however long that takes; pages, which stay open, have `GRACE`."""

    def __init__(self, config: uvicorn.Config, serving: Serving) -> None:
        super().__init__(config)
        self._serving = serving

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._serving.leave_off()
        while self._serving.pool.admitted and not self.force_exit:
            await asyncio.sleep(TICK)
        await super().shutdown(sockets)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    if REUSES:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise AllWeatherError(f"cannot listen on {host}:{port}: {error}. Choose another --port or --host.") from error
    with bound:
        yield bound


@contextmanager
def _heard() -> Iterator[None]:
    """Uvicorn raises the signal that stopped it again, once it has stopped; here that has no further effect."""
    before = {number: signal.signal(number, _nothing) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _nothing(number: int, frame: FrameType | None) -> None:
    return
