"""What goes on while an application lives: old streams and visitors are freed, and at its end streams are saved."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.responses import JSONResponse

from allweather.allocator import give_back_freed_memory
from allweather.serve.access import App, Receive, Scope, Send
from allweather.serve.limits import Limits
from allweather.serve.metrics import Metrics
from allweather.serve.networks import Networks
from allweather.serve.pool import Pool
from allweather.serve.room import Room
from allweather.serve.streams import Streams
from allweather.serve.uploads_folder import uploads_here
from allweather.serve.visitor import Visitors

LOG = logging.getLogger(__name__)
OFTEN = 30.0  # seconds between two looks for what nobody uses any more, at most
NOT_STARTED = (
    "this application was not started, so its streams would not be saved at its end. Enter app.router.lifespan_context "
    "in the lifespan of the application that mounts it, or leave sessions out."
)


@dataclass
class Serving:
    """The parts of a running server, which share networks and threads.

    Attributes:
        unsaved: streams that could not be saved at its end.
        freed_before: whether the last sweep freed anything.
        begun: whether anybody sweeps.
        ending: set when that must end.
        last: held while streams are saved.
    """

    networks: Networks
    limits: Limits
    method: str
    pool: Pool
    streams: Streams
    visitors: Visitors
    metrics: Metrics
    room: Room
    unsaved: int = 0
    freed_before: bool = False
    begun: bool = False
    ending: threading.Event = field(default_factory=threading.Event)
    last: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Looks for what nobody uses any more, in a thread of its own, until the end."""
        if not self.begun:
            self.begun = True
            threading.Thread(target=self._sweep_on, name="serve-sweep", daemon=True).start()

    def sweep(self) -> None:
        """Frees what nobody has used for a while, and gives the memory of all that was freed back to the system."""
        self.room.sweep()
        freed = self.streams.sweep() + self.visitors.sweep() > 0
        if freed or self.freed_before:  # the first time a thread may still have held some of it
            give_back_freed_memory()
        self.freed_before = freed

    def _sweep_on(self) -> None:
        while not self.ending.wait(min(OFTEN, self.limits.idle / 4)):
            try:
                self.sweep()
            except Exception:
                LOG.exception("old streams were not freed; it is tried again")

    def leave_off(self) -> None:
        """Ends the page's runs, and takes no request any more; those that were taken go on."""
        self.pool.leave_off()
        self.visitors.leave_all()

    def end(self) -> None:
        """Ends the page's runs, finishes what is being worked on, and saves the streams; a second call does nothing."""
        with self.last:
            if not self.ending.is_set():
                self.ending.set()
                self._end()

    def _end(self) -> None:
        self.leave_off()
        self.pool.close()
        self.unsaved = self.streams.save_all()
        saved = f"{self.unsaved} streams are lost" if self.unsaved else "streams are saved"
        LOG.info("stopped; %s", saved if self.streams.folder else "streams are forgotten")


@dataclass(frozen=True)
class Started:
    """An ASGI application whose old streams are freed also where nobody runs its lifespan, as where it is mounted.

    Nobody would save its streams then: where they should be, requests are refused.
    """

    app: App
    serving: Serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.serving.begun:
            if self.serving.streams.folder is not None:
                await JSONResponse({"error": NOT_STARTED}, 503)(scope, receive, send)
                return
            self.serving.begin()
        await self.app(scope, receive, send)


def lifespan(serving: Serving) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What an application does from its start to its end."""

    @asynccontextmanager
    async def lives(app: FastAPI) -> AsyncIterator[None]:
        with uploads_here():
            serving.begin()
            yield
            await asyncio.to_thread(serving.end)

    return lives
