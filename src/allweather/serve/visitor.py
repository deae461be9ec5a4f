"""One visitor of the page: pictures, a session, what was seen of it; all of it gone when the visitor goes."""

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from typing import Literal

from allweather.errors import InputError, NotFiniteError
from allweather.finite import all_finite
from allweather.methods import settings_of
from allweather.methods.method import Method
from allweather.pictures.enlarge import labels_at
from allweather.serve.answers import label_png
from allweather.serve.limits import Limits
from allweather.serve.networks import Network
from allweather.serve.pool import BusyError, Lane, Pool
from allweather.serve.uploads import Held
from allweather.serve.watching import CancelledError, watched
from allweather.session import Result, Session

LOG = logging.getLogger(__name__)
TICK = 0.2  # seconds between two looks at a run
MOST_POINTS = 2000  # of the curves; beyond it the oldest are left out
Stage = Literal["empty", "ready", "running", "paused", "done", "cancelled"]
Choose = Callable[[], tuple[Network, Method]]
Tell = Callable[[str], None]
Made = tuple[Network, object, Session]


@dataclass(frozen=True)
class Point:
    """What one forward pass showed.

    Attributes:
        number: how many passes there were before it, since the last reset.
        ncut: normalized cut of the prediction.
        entropy: mean over the pixels, in nats.
    """

    number: int
    ncut: float
    entropy: float


@dataclass(frozen=True)
class Seen:
    """A picture, as the network came and as it is now.

    Attributes:
        at: the number of the last point when it was decided on.
    """

    picture: Held
    source: Result
    adapted: Result
    at: int


@dataclass
class Visitor:
    """All that the server holds of one visitor.

    Attributes:
        clock, tell: as of `Visitors`.
        used: when something was last asked for, or a run last went on.
        ended: why the server let everything go; empty while it has not.
        key: a secret name, under which the visitor's browser fetches what it downloads.
        stage: what the page shows.
        decided: kinds of decisions, each with the number of the point that it came after.
        done, total: pictures of the run, every pass counted.
        kept: label images of all pictures by file name, as PNG files, where there are several.
        choice: what the session was made for.
        version: counts what there is to see, so that browsers ask again.
    """

    clock: Callable[[], float] = time.monotonic
    tell: Tell = lambda kind: None
    used: float = 0.0
    ended: str = ""
    key: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    stage: Stage = "empty"
    pictures: list[Held] = field(default_factory=list)
    network: Network | None = None
    session: Session | None = None
    points: list[Point] = field(default_factory=list)
    decided: list[tuple[int, str]] = field(default_factory=list)
    shown: Seen | None = None
    done: int = 0
    total: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)
    choice: object = None
    version: int = 0
    _lane: Lane = field(default_factory=Lane)
    _stop: threading.Event = field(default_factory=threading.Event)
    _sources: dict[int, Result] = field(default_factory=dict)
    _count: int = 0
    _begins: bool = False

    def touch(self) -> None:
        """Begins the idle time anew."""
        self.used = self.clock()

    @property
    def at_work(self) -> bool:
        """Whether a run has begun, its network is being loaded, and it has not ended."""
        return self._begins or self.stage in ("running", "paused")

    def hold(self, pictures: list[Held]) -> None:
        """Takes pictures in place of those before; the session stays as it is."""
        self._check_still()
        self.pictures, self._sources, self.shown, self.kept = pictures, {}, None, {}
        self.version, self.done, self.total = self.version + 1, 0, 0
        self.stage = "ready" if pictures else "empty"

    def prepare(self, network: Network, method: Method) -> None:
        """Takes a session for this network and method: the one there is where it is for the same, else a fresh one."""
        self._check_still()
        self._take(self._made(lambda: (network, method)))

    def _made(self, choose: Choose) -> Made:
        """The session for a choice, and that; changes nothing, so that another thread may be at it."""
        network, method = choose()
        choice = (id(network), settings_of(method))
        if (session := self.session) is not None and self.choice == choice:
            return network, choice, session
        return network, choice, Session(network.model, watched(method, self._see, self._stop.is_set))

    def _take(self, made: Made) -> None:
        if made[2] is not self.session:
            self.network, self.choice, self.session = made
            self._sources = {}
            self.clear()

    def clear(self) -> None:
        """Forgets what was seen."""
        self.points, self.decided, self.shown, self.done, self.total, self._count = [], [], None, 0, 0, 0
        self.kept = {}
        self.version += 1
        self.stage = "ready" if self.pictures else "empty"

    def cancel(self) -> None:
        """Ends the run; the picture in hand leaves no trace, what was learnt before stays."""
        self._stop.set()

    def pause(self, wanted: bool) -> None:
        """Holds the run after the picture in hand, or lets it go on."""
        if self.stage in ("running", "paused"):
            self.stage = "paused" if wanted else "running"

    async def start(self, pool: Pool, passes: int, choose: Choose) -> AsyncGenerator[None]:
        """Prepares and runs; loading a network and copying it, which take a while, are left to a thread.

        Args:
            choose: gives network and method.

        Raises:
            InputError: as `run`.
            AllWeatherError: what `choose` raises.
        """
        self._check_still()
        self._stop.clear()
        self._begins = True
        try:
            made = await asyncio.to_thread(self._made, choose)
        finally:
            self.touch()
            self._begins = False
        if self.ended:
            raise InputError(self.ended)
        self._take(made)
        if self._stop.is_set():
            self.stage = "cancelled" if self.pictures else "empty"
            return
        async with aclosing(self.run(pool, passes)) as signs:
            async for _ in signs:
                yield

    async def run(self, pool: Pool, passes: int) -> AsyncGenerator[None]:
        """Adapts to the pictures, `passes` times over, and gives a sign whenever there is something new to show.

        Raises:
            InputError: without pictures, while a run is going on, or where the server has ended this one.
            AllWeatherError: what the session raises; what was learnt before stays.
        """
        self._check_still()
        if not self.pictures or self.session is None:
            raise InputError("choose a picture, pictures, a clip or a scene first.")
        self._stop.clear()
        count = len(self.pictures)
        self.stage, self.done, self.total = "running", 0, passes * count
        try:
            for number in range(self.total):
                while self._waits():
                    await asyncio.sleep(TICK)
                    yield
                async with aclosing(self._watch(pool, partial(self._step, number % count))) as signs:
                    async for _ in signs:
                        yield
                self.done = number + 1
                yield
            self._end("done")
        except CancelledError:
            self._end("cancelled")
        finally:
            if self.at_work:  # an error, or a visitor who has left
                self._stop.set()
                self._end("cancelled")
        if self.ended:
            raise InputError(self.ended)
        yield

    def free(self, why: str) -> None:
        """Ends the run, and lets go of everything.

        Args:
            why: what a page that still shows the run says.
        """
        self.ended, self.stage = why, "empty"
        self._stop.set()
        self.pictures, self.session, self.network, self.shown, self._sources = [], None, None, None, {}
        self.kept, self.points, self.decided, self.done, self.total = {}, [], [], 0, 0

    def _end(self, stage: Literal["done", "cancelled"]) -> None:
        self.touch()  # before the stage: a run that goes on is not looked at
        self.stage = "empty" if self.ended else stage

    def _waits(self) -> bool:
        return self.stage == "paused" and not self._stop.is_set()

    async def _watch(self, pool: Pool, work: Callable[[], None]) -> AsyncGenerator[None]:
        """Waits for work in the visitor's lane, with a sign for each tick that showed something."""
        task = asyncio.wrap_future(pool.submit(self._lane, work))
        seen = len(self.points)
        while not (await asyncio.wait({task}, timeout=TICK))[0]:
            if len(self.points) != seen:
                seen = len(self.points)
                yield
        task.result()

    def _step(self, index: int) -> None:
        """Adapts to one picture, and predicts it."""
        session, network, pictures = self.session, self.network, self.pictures  # a visitor who leaves takes them away
        if self._stop.is_set() or session is None or network is None or index >= len(pictures):
            raise CancelledError("the run was cancelled.")
        picture = pictures[index]
        image = picture.image
        source = self._sources.get(index) or network.source(image)
        self._sources = {index: source}  # of one picture, the one that is shown
        adapted = session(image)
        self.decided.append((self._count, adapted.decision.kind))
        self.tell(adapted.decision.kind)
        if not (all_finite(source.logits) and all_finite(adapted.logits)):
            raise NotFiniteError(f"{picture.name}: the network gives no finite numbers for it. Leave it out.")
        self.shown = Seen(picture, source, adapted, self._count)
        if len(pictures) > 1 and adapted.classes is not None:
            self.kept[f"{picture.label}.png"] = label_png(labels_at(adapted.logits, picture.size), adapted.classes)
        self.version += 1

    def _see(self, ncut: float, entropy: float) -> None:
        self._count += 1
        if not (isfinite(ncut) and isfinite(entropy)):
            return
        self.points.append(Point(self._count, ncut, entropy))
        if len(self.points) > MOST_POINTS:
            self.points = self.points[-MOST_POINTS:]

    def _check_still(self) -> None:
        if self.at_work:
            raise InputError("a run is going on. Wait until it has ended, or cancel it, and try again.")


class Visitors:
    """The visitors of the page by the names that their browsers have.

    Args:
        clock: seconds, for the time to live.
        tell: called with the kind of each decision of the guard, in a thread of the pool.
    """

    def __init__(
        self, limits: Limits, clock: Callable[[], float] = time.monotonic, tell: Tell = lambda kind: None
    ) -> None:
        self.limits, self._clock, self._tell = limits, clock, tell
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.Lock()
        self._freed = 0

    def __len__(self) -> int:
        return len(self._visitors)

    def of(self, name: str) -> Visitor:
        """The visitor of that name, a new one where there is none.

        Raises:
            BusyError: where there are as many as may be.
        """
        with self._lock:
            visitor = self._visitors.get(name)
            if visitor is None:
                if len(self._visitors) >= self.limits.visitors:
                    raise BusyError(f"{self.limits.visitors} visitors are here already. Try again in some minutes.")
                visitor = self._visitors[name] = Visitor(self._clock, self._tell)
            visitor.touch()
            return visitor

    def by_key(self, key: str) -> Visitor | None:
        """The visitor with that secret name, who uses what is there by asking for it."""
        asked = key.encode()
        with self._lock:
            for one in self._visitors.values():
                if secrets.compare_digest(one.key.encode(), asked):
                    one.touch()
                    return one
        return None

    def leave(self, name: str, why: str = "the page was closed.") -> None:
        """Frees a visitor who has gone."""
        with self._lock:
            visitor = self._visitors.pop(name, None)
            self._freed += visitor is not None
        if visitor is not None:
            visitor.free(why)

    def sweep(self) -> int:
        """Frees visitors who have done nothing for a while, and whose run, if there is one, is paused.

        Returns:
            How many were freed since the last time, those who left among them.
        """
        idle = self.limits.idle
        with self._lock:
            before = self._clock() - idle
            rest = [each for each in self._visitors.items() if each[1].stage == "paused" or not each[1].at_work]
            old = [name for name, one in rest if one.used < before]
            gone = [self._visitors.pop(name) for name in old]
            freed, self._freed = self._freed + len(gone), 0
        for visitor in gone:
            visitor.free(
                f"the run was paused for {idle:g} seconds and more: it has ended, and its pictures are "
                "no longer here. Choose them again, and press Start."
            )
        return freed

    def leave_all(self) -> None:
        """Frees all of them."""
        for name in list(self._visitors):
            self.leave(name, "the server is being stopped.")


async def restart(visitor: Visitor) -> None:
    """Ends a run, waits until it has ended, and puts the source network back; nothing that was seen stays."""
    visitor.cancel()
    while visitor.at_work:
        await asyncio.sleep(TICK / 4)
    if (session := visitor.session) is not None:
        await asyncio.to_thread(session.reset)
    visitor.clear()
