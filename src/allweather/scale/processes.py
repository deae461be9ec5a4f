"""Workers as processes of this machine, by the standard library alone."""

import os
import pickle
import signal
import threading
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import sleep
from typing import Any, cast

from allweather.errors import AllWeatherError
from allweather.interrupts import deaf_to_interrupts, interruptions_wait
from allweather.scale.pool import Event, Pool
from allweather.scale.task import DONE, FAILED, FATAL, SURE, Message, Task, attempt

READY, STOP = "ready", "stop"
AT_THE_END = 5.0  # seconds that a worker has to end by itself
ORPHANED = 60.0  # seconds that a worker has to come to where it finds out that nobody hears it
BIRTHS = 3  # workers in a row that end before they are ready


@dataclass
class _Process:
    """One worker: its process, the way to it, what it is at, and whether it has begun and is about to end."""

    process: BaseProcess
    connection: Connection
    job: Any = None
    ready: bool = False
    leaving: bool = False

    @property
    def idle(self) -> bool:
        """Whether it would take a job; one that is about to end would take it along."""
        return self.job is None and not self.leaving


class ProcessPool(Pool):
    """So many processes, started at once; each has its own interpreter and its own copy of the network.

    They hear no Ctrl-C themselves, and end when this process does, however it ends.

    Args:
        task: what each is given.
        workers: how many.
    """

    def __init__(self, task: Task, workers: int) -> None:
        self._task, self._context, self._stopping = pickle.dumps(task), get_context("spawn"), False
        self._born, self._stillborn = 0, 0
        self._workers: list[_Process] = []
        try:
            for _ in range(workers):
                self._add()
        except BaseException:
            self.close()
            raise

    @property
    def idle(self) -> int:
        return sum(worker.idle for worker in self._workers)

    @property
    def busy(self) -> int:
        return len(self._workers) - self.idle

    @property
    def pids(self) -> list[int]:
        """The processes' numbers."""
        return [worker.process.pid or 0 for worker in self._workers]

    def begin(self, job: Any) -> None:
        worker = next(worker for worker in self._workers if worker.idle)
        worker.job = job
        _send(worker.connection, job)

    def events(self, seconds: float) -> list[Event]:
        by_connection = {worker.connection: worker for worker in self._workers}
        found: list[Event] = []
        for ready in wait(list(by_connection), seconds):
            worker = by_connection[cast(Connection, ready)]  # on Windows of a class beside it
            try:
                with interruptions_wait():
                    message = worker.connection.recv()
                found.append(self._heard(worker, message))
            except (EOFError, OSError):
                found.append(self._lost(worker))
        return found

    def stop(self) -> None:
        self._stopping = True
        for worker in self._workers:
            if worker.job is not None:
                _send(worker.connection, STOP)

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()  # which a worker finds out at once
        for worker in self._workers:
            worker.process.join(AT_THE_END)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []

    def _add(self) -> None:
        here, there = self._context.Pipe()
        name = f"allweather worker {self._born}"
        process = self._context.Process(target=serve, args=(there, self._task, self._born), name=name, daemon=True)
        with deaf_to_interrupts():
            process.start()
        there.close()
        self._workers.append(_Process(process, here))
        self._born += 1

    def _heard(self, worker: _Process, message: Message) -> Event:
        job = worker.job
        if READY in message:
            self._stillborn, worker.ready = 0, True
        if DONE in message or FAILED in message or FATAL in message:
            worker.job, worker.leaving = None, FAILED in message and SURE not in message
        return Event(None if READY in message else job, message)

    def _lost(self, worker: _Process) -> Event:
        """A worker that is no more; another one takes its place."""
        worker.process.join(AT_THE_END)
        worker.connection.close()
        self._workers.remove(worker)
        self._stillborn += not worker.ready
        reason = f"the worker ended by itself ({ending(worker.process.exitcode)})"
        if self._stillborn > BIRTHS:
            return Event(None, {FATAL: f"{reason}, and {BIRTHS} before it, none of them ready to work."})
        if not self._stopping:
            self._add()
        return Event(worker.job, {FAILED: reason} if worker.job is not None else {})


def ending(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "it does not answer"
    if code >= 0:
        return f"exit code {code}"
    known = {each.value for each in signal.Signals}
    name = signal.Signals(-code).name if -code in known else f"signal {-code}"
    return f"killed by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")


def serve(connection: Connection, pickled: bytes, index: int) -> None:
    """What a worker process does: jobs come, messages go; it ends when the other end does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    talk = _ToParent(connection)
    try:
        try:
            do = pickle.loads(pickled).open(index)
        except AllWeatherError as error:
            talk.say({FATAL: str(error)})
            return
        talk.say({READY: os.getpid()})
        while True:
            job = connection.recv()
            if job == STOP:
                continue
            ended = attempt(do, job, talk)
            talk.say(ended.message)
            if not ended.usable:
                return
    except (EOFError, OSError):
        os._exit(0)  # threads that read or write have nobody to do it for


def _end_with_parent() -> None:
    """Ends a worker that is stuck, as at a file that never comes, some time after the first process has died."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        sleep(ORPHANED)
        os._exit(0)


class _ToParent:
    """The worker's end of the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def say(self, message: Message) -> None:
        with self._lock:
            self._connection.send(message)

    def stopping(self) -> bool:
        return self._connection.poll()  # the parent says nothing else during a job


def _send(connection: Connection, message: Any) -> None:
    try:
        with interruptions_wait():  # or half a message would make nonsense of those behind it
            connection.send(message)
    except OSError:
        return  # it has ended; the next events say so
