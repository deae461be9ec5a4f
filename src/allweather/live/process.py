"""Learning in a process of its own: beside predictions on a CPU, Python's lock and the memory map would be shared."""

import logging
import os
import pickle
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from logging.handlers import QueueHandler
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load, save
from torch import Tensor

from allweather import errors
from allweather.errors import AllWeatherError
from allweather.interrupts import deaf_to_interrupts
from allweather.live.frame import Learnt
from allweather.live.learner import LearnerLost, learnt_of, state_after
from allweather.plugins import FAULTS, files_that_ran, pickled, run_again
from allweather.session import Session
from allweather.session.snapshot import Snapshot

NICE = 5  # how far the learner's process steps back behind the one that predicts
AT_THE_END = 60.0  # seconds for the last step and for what it leaves


class ProcessPupil:
    """Learns in another process, on a copy of the session; at the end the session has what the copy learnt.

    Args:
        session: a session on the CPU.
        threads: of torch, in the other process.

    Raises:
        SettingsError: where the session cannot be taken to another process.
    """

    def __init__(self, session: Session, threads: int) -> None:
        self._session = session
        context = get_context("spawn")
        refusal = "this session cannot be taken to a process of its own"
        self._pickled = pickled(session, refusal, "Learn in a thread: learner=thread.")
        self._here, there = context.Pipe()
        arguments = (there, files_that_ran(), threads)
        self._process = context.Process(target=serve, args=arguments, name="allweather learner", daemon=True)
        with deaf_to_interrupts():
            self._process.start()
        there.close()

    def begin(self) -> None:
        self._send(self._pickled)  # not with the arguments: starting would wait until all of it is read
        self._pickled = b""
        self._answer()

    def learn(self, index: int, image: Tensor) -> Learnt:
        self._send((index, image.cpu().numpy()))
        learnt, updates = self._answer()
        if updates is None:
            return learnt
        return replace(learnt, state=Snapshot(load(self._here.recv_bytes()), None, updates))

    def finish(self) -> None:
        self._send(None)
        self._answer()
        with _file_of(self._here.recv_bytes()) as path:
            self._session.load(path)
        self._process.join(AT_THE_END)

    def abandon(self) -> None:
        self._process.terminate()

    def _send(self, message: Any) -> None:
        try:
            self._here.send(message)
        except OSError as error:
            raise self._lost() from error

    def _answer(self) -> Any:
        try:
            answer = heard(self._here)
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if isinstance(answer, str):
            raise AllWeatherError(f"learning failed: {answer}")
        return answer

    def _lost(self) -> LearnerLost:
        self._process.join(AT_THE_END)
        code = self._process.exitcode
        return LearnerLost(
            f"the learner's process ended by itself (exit code {code}). In a script, everything that runs must stand "
            'below `if __name__ == "__main__":`; or learn in a thread: learner="thread".'
        )


def serve(connection: Connection, files: list[tuple[str, str]], threads: int) -> None:
    """What the other process does: a frame comes, an answer goes; None ends it, and so does the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that predicts hears it and ends this one
    torch.set_num_threads(threads)
    speak_through(connection)
    try:
        run_again(files)
        session: Session = pickle.loads(connection.recv())
        if hasattr(os, "nice"):
            os.nice(NICE)  # not before: on a busy machine it would hardly ever start
        connection.send(())
        while (job := connection.recv()) is not None:
            _answer_job(connection, session, *job)
        saved = _saved(session)  # before it is announced: a full disk is said in place of it
        connection.send(())
        connection.send_bytes(saved)
    except (EOFError, BrokenPipeError):
        return
    except FAULTS as error:
        connection.send(f"{type(error).__name__}: {error}")


class _Sender(QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        cast(Connection, self.queue).send(record)


def speak_through(connection: Connection) -> None:
    """From now on what this process warns of and logs is said at the other end, by `heard`."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if category.__module__ in ("builtins", errors.__name__):  # which the other end has too
            connection.send(category(str(message)))  # what it holds may not cross
        else:
            shown(message, category, *rest, **more)

    warnings.showwarning = cast(Any, show)
    log = logging.getLogger("allweather")
    log.addHandler(_Sender(cast(Any, connection)))
    log.setLevel(logging.DEBUG)  # the other end knows what is wanted


def heard(connection: Connection) -> Any:
    """The next answer; what the other end said before it is said here."""
    while isinstance(answer := connection.recv(), Warning | logging.LogRecord):
        if isinstance(answer, Warning):
            warnings.warn(answer, stacklevel=1)
        elif (log := logging.getLogger(answer.name)).isEnabledFor(answer.levelno):
            log.handle(answer)
    return answer


def _answer_job(connection: Connection, session: Session, index: int, image: Any) -> None:
    result = session(torch.from_numpy(image))
    state = state_after(session, result)
    # before it is announced: what fails here is said in its place
    packed = None if state is None else save({name: each.contiguous() for name, each in state.tensors.items()})
    connection.send((learnt_of(session, index, result, None), None if state is None else state.updates))
    if packed is not None:
        connection.send_bytes(packed)


def _saved(session: Session) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.safetensors"
        session.save(path)
        return path.read_bytes()


@contextmanager
def _file_of(content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.safetensors"
        path.write_bytes(content)
        yield path
