"""Sessions that stay: one per stream id, predicting and adapting in the order of its pictures, kept for a while."""

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from weakref import WeakValueDictionary

from torch import Tensor

from allweather.errors import AllWeatherError, CheckpointError, SettingsError
from allweather.methods import METHODS
from allweather.methods.settings import parse_settings
from allweather.serve.choosing import choose_method
from allweather.serve.limits import Limits
from allweather.serve.networks import Network, Networks
from allweather.serve.pool import BusyError, Lane, Pool, StoppingError
from allweather.session import Result, Session
from allweather.session.storage import UnlikeError

LOG = logging.getLogger(__name__)
NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
MOST_LONE = 8  # sessions kept for pictures without a stream, or as many as there are workers


@dataclass(frozen=True)
class Wanted:
    """What a request asks for.

    Attributes:
        network, method, preset: names; the network's may be empty for the default.
        settings: texts by field of the method.
    """

    network: str = ""
    method: str = "mall-domain"
    preset: str = "recommended"
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What two requests of one stream must share, its settings as values: 2e-4 is 0.0002."""
        values: Mapping[str, object] = self.settings
        with suppress(KeyError, AllWeatherError):  # what cannot be read is refused when its turn comes
            values = parse_settings(METHODS[self.method], self.settings)
        return (self.network, self.method, self.preset, frozenset(values.items()))


@dataclass
class Stream:
    """One stream's session, made when its first picture is worked on.

    Attributes:
        busy: requests that have not been answered.
        used: when it was last asked for, on the clock of `Streams`.
    """

    wanted: Wanted
    used: float
    lane: Lane = field(default_factory=Lane)
    session: Session | None = None
    busy: int = 0


class StreamConflictError(SettingsError):
    """A stream that goes on with other settings than it began with."""


class Streams:
    """All sessions of the endpoint.

    Args:
        networks: those that requests may name.
        pool: works on the pictures, those of one stream in their order.
        limits: how many streams there may be, how long one may be idle, and what a method may take.
        folder: where sessions are kept while nobody uses them, and from one start of the server to the next; None
            forgets them.
        clock: seconds, for the time to live.
    """

    def __init__(
        self,
        networks: Networks,
        pool: Pool,
        limits: Limits,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.networks, self.pool, self.limits, self.folder = networks, pool, limits, folder
        self._clock = clock
        self._streams: dict[str, Stream] = {}
        self._lanes: WeakValueDictionary[tuple[object, ...], Lane] = WeakValueDictionary()  # that the pool is at
        self._lone: list[tuple[tuple[object, ...], Session]] = []  # idle ones, by what was wanted of them
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._streams)

    def predict(self, name: str | None, wanted: Wanted, read: Callable[[Network], Tensor]) -> "Future[Result]":
        """Queues a picture of a stream; without a stream it is adapted to on its own, from the source network.

        Args:
            read: gives the picture, 3×H×W in [0, 1], for the network that is to predict it; called when it is its turn.

        Raises:
            SettingsError: for a name that is none; StreamConflictError for other settings than the stream began with.
            BusyError: where there are as many streams as may be, all in use.
            StoppingError: while the server is being stopped.
        """
        wanted = replace(wanted, network=wanted.network or self.networks.default)
        with self._lock:
            if name is None:
                lane = self._lanes.setdefault(wanted.key, Lane(self.pool.workers))
                return self.pool.submit(lane, lambda: self._alone(wanted, read))
            stream = self._named(name, wanted)
            stream.busy += 1
            stream.used = self._clock()
            try:
                future = self.pool.submit(stream.lane, lambda: self._work(stream, name, read))
            except StoppingError:
                stream.busy -= 1
                raise
        future.add_done_callback(lambda ended: self._answered(stream, name))  # cancelled ones too
        return future

    def close(self, name: str) -> bool:
        """Forgets a stream and its file; whether there was one."""
        path = self._path(name)
        with self._lock:
            known = self._streams.pop(name, None) is not None
            kept = path is not None and path.exists()
            if path is not None:
                path.unlink(missing_ok=True)
        return known or kept

    def sweep(self) -> int:
        """Frees streams that nobody has used for a while; where there is a folder, they go on from there.

        Returns:
            How many were freed.
        """
        with self._lock:
            before = self._clock() - self.limits.idle
            old = [name for name, stream in self._streams.items() if stream.used < before and not stream.busy]
            return sum(self._put_away(name) for name in old)

    def save_all(self) -> int:
        """Puts every stream away, and says how many could not be saved; for the end, when nothing runs any more."""
        with self._lock:
            return sum(not self._put_away(name) for name in list(self._streams))

    def _alone(self, wanted: Wanted, read: Callable[[Network], Tensor]) -> Result:
        """One picture without a stream; others with the same settings may be worked on meanwhile."""
        network = self.networks.get(wanted.network)
        image = read(network)
        with self._lock:
            at = next((at for at, (key, _) in enumerate(self._lone) if key == wanted.key), None)
            session = None if at is None else self._lone.pop(at)[1]
        session = session or self._open(wanted, network, None)
        try:
            return session(image)
        finally:
            session.reset()
            with self._lock:
                self._lone.append((wanted.key, session))
                del self._lone[: -max(MOST_LONE, self.pool.workers)]

    def _work(self, stream: Stream, name: str, read: Callable[[Network], Tensor]) -> Result:
        """One picture's turn, in the stream's own lane."""
        network = self.networks.get(stream.wanted.network)
        image = read(network)
        session = stream.session = stream.session or self._open(stream.wanted, network, name)
        return session(image)

    def _answered(self, stream: Stream, name: str) -> None:
        """One request less; a stream that never began is forgotten."""
        with self._lock:
            stream.busy -= 1
            stream.used = self._clock()
            if stream.session is None and not stream.busy and self._streams.get(name) is stream:
                del self._streams[name]

    def _open(self, wanted: Wanted, network: Network, name: str | None) -> Session:
        """A new session, or the one that was put away."""
        method = choose_method(
            wanted.method, wanted.preset, wanted.settings, network.model, self.limits, self.networks.allowed
        )
        session = Session(network.model, method)
        path = None if name is None else self._path(name)
        if path is not None and path.exists():
            try:
                session.load(path)
            except CheckpointError as error:
                LOG.warning("stream %s cannot go on: %s", name, error)
                why = (
                    "with another network, method or settings. Go on with those, choose"
                    if isinstance(error, UnlikeError)
                    else "and cannot go on: the server's log says why. Choose"
                )
                raise StreamConflictError(
                    f"stream '{name}' was put away {why} another name, or remove it: DELETE /v1/streams/{name}."
                ) from error
        return session

    def _named(self, name: str, wanted: Wanted) -> Stream:
        if not NAME.fullmatch(name):
            raise SettingsError(
                f"stream {name[:70]!r}: expected 1 to 64 letters, digits, '.', '_' or '-', such as camera-7."
            )
        stream = self._streams.get(name)
        if stream is None:
            self._make_room()
            stream = self._streams[name] = Stream(wanted, self._clock())
        if stream.wanted.key != wanted.key:
            raise StreamConflictError(
                f"stream '{name}' began with another network, method or settings. Go on with those, choose another "
                f"name, or remove it: DELETE /v1/streams/{name}."
            )
        return stream

    def _make_room(self) -> None:
        """Puts the stream that has been idle longest away, where that loses nothing and is needed."""
        if len(self._streams) < self.limits.streams:
            return
        idle = sorted((stream.used, name) for name, stream in self._streams.items() if not stream.busy)
        if self.folder is None or not idle:
            raise BusyError(
                f"{self.limits.streams} streams have a session already. Remove one (DELETE /v1/streams/NAME), or wait "
                f"until one has been idle for {self.limits.idle:g} seconds."
            )
        if not self._put_away(idle[0][1]):
            raise BusyError(
                f"{self.limits.streams} streams have a session already, and the one that has been idle longest cannot "
                f"be saved to make room: see the server's log. Remove one (DELETE /v1/streams/NAME)."
            )

    def _put_away(self, name: str) -> bool:
        """Frees a stream; one that should be saved and cannot be stays, and says so."""
        stream, path = self._streams[name], self._path(name)
        if path is not None and stream.session is not None:
            try:
                stream.session.save(path)
            except CheckpointError as error:
                LOG.error("stream %s could not be saved: %s", name, error)
                stream.used = self._clock()  # tried again when it has been idle for as long once more
                return False
        del self._streams[name]
        return True

    def _path(self, name: str) -> Path | None:
        """Where a stream's session is kept; the name itself is never part of a path."""
        if self.folder is None:
            return None
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()}.safetensors"
