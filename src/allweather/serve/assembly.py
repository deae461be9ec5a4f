"""The whole server as one FastAPI application: endpoint, page, downloads, and what is done at its end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from allweather.allocator import give_back_freed_memory
from allweather.errors import SettingsError
from allweather.serve.access import Gate, choose_token, is_loopback
from allweather.serve.choosing import choose_method
from allweather.serve.downloads import make_downloads
from allweather.serve.endpoint import make_router, refuse
from allweather.serve.limits import Limits
from allweather.serve.metrics import Metrics
from allweather.serve.networks import Networks, Offer
from allweather.serve.page import mount_page
from allweather.serve.payloads import LocalFiles
from allweather.serve.pool import Pool
from allweather.serve.streams import Streams
from allweather.serve.uploads_folder import uploads_folder, uploads_here
from allweather.serve.visitor import Visitors

LOG = logging.getLogger(__name__)
LOCAL = frozenset({"127.0.0.1", "localhost", "::1", "testserver"})
ABOUT = "Adapts segmentation networks to the weather in front of the camera, without labels."
FORM = 1 << 20  # bytes of a request beside its files
OFTEN = 30.0  # seconds between two looks for what nobody uses any more, at most


@dataclass
class Serving:
    """The parts of a running server, which share networks and threads.

    Attributes:
        unsaved: streams that could not be saved at its end.
        freed_before: whether the last sweep freed anything.
    """

    networks: Networks
    limits: Limits
    method: str
    pool: Pool
    streams: Streams
    visitors: Visitors
    metrics: Metrics
    unsaved: int = 0
    freed_before: bool = False

    def sweep(self) -> None:
        """Frees what nobody has used for a while, and gives the memory of all that was freed back to the system."""
        freed = self.streams.sweep() + self.visitors.sweep() > 0
        if freed or self.freed_before:  # the first time a thread may still have held some of it
            give_back_freed_memory()
        self.freed_before = freed

    def end(self) -> None:
        """Ends the page's runs, finishes the requests that were taken, and saves the streams."""
        self.visitors.leave_all()
        self.pool.close()
        self.unsaved = self.streams.save_all()
        saved = f"{self.unsaved} streams are lost" if self.unsaved else "streams are saved"
        LOG.info("stopped; %s", saved if self.streams.folder else "streams are forgotten")


def build(
    offers: list[Offer],
    *,
    method: str,
    limits: Limits,
    host: str,
    token: str | None,
    allowed: Path | None,
    sessions: Path | None,
    workers: int,
) -> FastAPI:
    """The application; as `allweather.serve.application`.

    Raises:
        SettingsError: as there.
    """
    if not is_loopback(host) and token is None:
        raise SettingsError(
            f"host {host} can be reached from other machines: expected a token of 16 characters or more."
        )
    choose_token(host, token)
    if workers < 1:
        raise SettingsError(f"workers: expected a number above 0, got {workers}.")
    choose_method(method, "recommended", {}, None, limits)  # a misspelt one must not wait for a visitor
    networks = Networks(offers, allowed)
    networks.get()
    _check_place(sessions)
    pool = Pool(workers, limits.waiting)
    streams, visitors = Streams(networks, pool, limits, sessions), Visitors(limits)
    metrics = Metrics(lambda: pool.admitted, lambda: len(streams), lambda: len(visitors))
    serving = Serving(networks, limits, method, pool, streams, visitors, metrics)

    app = FastAPIOffline(
        title="allweather",
        version=version("allweather"),
        description=ABOUT,
        redoc_url=None,
        lifespan=_lifespan(serving),
    )
    app.state.serving = serving
    app.add_exception_handler(HTTPException, refuse)
    app.include_router(make_router(streams, limits, metrics, method))
    app.include_router(make_downloads(visitors))
    app.add_middleware(LocalFiles, folder=uploads_folder())  # inside the gate, which comes last
    app.add_middleware(
        Gate,
        token=token,
        names=LOCAL | {host} if is_loopback(host) else None,
        longest=lambda path: _longest(path, limits),
    )
    mount_page(app, networks, visitors, pool, limits, metrics, method)
    return app


def _check_place(sessions: Path | None) -> None:
    """Refuses a folder that streams could not be saved in, before they have learnt anything; a missing one is made.

    Raises:
        SettingsError: for a file, or a folder that cannot be made or written.
    """
    if sessions is None:
        return
    try:
        sessions.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=sessions) as probe:
            probe.write(b"0")
    except OSError as error:
        raise SettingsError(
            f"--sessions {sessions}: streams cannot be saved there ({error.strerror or error}). Name a folder of yours."
        ) from error


def _lifespan(serving: Serving) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lives(app: FastAPI) -> AsyncIterator[None]:
        with uploads_here():
            sweeping = asyncio.create_task(_sweep(serving))
            yield
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await asyncio.to_thread(serving.end)

    return lives


async def _sweep(serving: Serving) -> None:
    while True:
        await asyncio.sleep(min(OFTEN, serving.limits.idle / 4))
        await asyncio.to_thread(serving.sweep)


def _longest(path: str, limits: Limits) -> int:
    """Bytes that the body of a request may have: a picture and its form, or an upload of the page that has room."""
    if path.startswith("/v1/"):
        return limits.picture_bytes + FORM
    if not path.endswith("/upload"):
        return FORM
    held = sum(file.stat().st_size for file in uploads_folder().rglob("*") if file.is_file())
    return max(0, min(limits.upload_bytes, limits.disk_bytes - held)) + FORM
