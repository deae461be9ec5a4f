"""Workers as actors of Ray, on this machine or on a cluster: one ordered actor a stream, or `ray.data` over frames."""

import logging
import os
import pickle
import queue
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from allweather.errors import AllWeatherError, SettingsError, first_line, optional
from allweather.scale.pool import Event, Pool
from allweather.scale.task import DONE, FAILED, FATAL, LINES, SURE, Do, Message, Talk, Task, attempt
from allweather.scale.workers import Workers

LOG = logging.getLogger(__name__)
EXTRA = "scale"
ANSWERS = 5.0  # seconds that an address has to answer
TOKEN = (
    "Where it says InvalidAuthToken, the cluster wants a token: give `ray start` and this command RAY_AUTH_MODE=token "
    "and the same RAY_AUTH_TOKEN, or both RAY_AUTH_MODE=disabled."
)
WAITING = 4  # batches on their way to each worker of ray.data: back pressure


def connect(workers: Workers) -> ModuleType:
    """Ray, connected to a cluster, or started on this machine.

    Raises:
        MissingLibraryError: where Ray is not installed.
        AllWeatherError: for an address that does not answer, or a cluster of other versions.
    """
    ray = optional("ray", EXTRA)
    if ray.is_initialized():
        return ray
    address = workers.ray
    if address not in (None, "local", "auto"):
        _check_address(str(address))
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address in (None, "local"):
            ray.init(address="local", num_cpus=workers.number and workers.number * workers.threads, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise AllWeatherError(
            f"--ray {address}: {first_line(error)}. Start a cluster with `ray start --head`, or use --ray local. "
            f"{TOKEN}"
        ) from error
    return ray


class RayPool(Pool):
    """An ordered actor for each job, as many at once as there are workers; one that is done takes the next job.

    Args:
        task: what each actor is given.
        workers: how many at once, and the cluster's address.
        device: `cuda` takes one GPU an actor.
    """

    def __init__(self, task: Task, workers: Workers, device: str = "cpu") -> None:
        self._ray = connect(workers)
        self._number = number_of(self._ray, workers, device)
        self._task, self._born = self._ray.put(pickle.dumps(task)), 0
        options = {"num_cpus": workers.threads, "max_restarts": 0, "max_concurrency": 2, **gpus(device)}
        self._actor = self._ray.remote(**options)(Actor)
        self._at: dict[Any, tuple[Any, Any]] = {}  # by generator: the actor and its job
        self._resting: list[Any] = []

    @property
    def idle(self) -> int:
        return self._number - len(self._at)

    @property
    def busy(self) -> int:
        return len(self._at)

    def begin(self, job: Any) -> None:
        actor = self._resting.pop() if self._resting else self._new()
        said = actor.do.options(num_returns="streaming").remote(job)
        self._at[said] = actor, job

    def _new(self) -> Any:
        self._born += 1
        return self._actor.remote(self._task, self._born - 1)

    def events(self, seconds: float) -> list[Event]:
        ready, _ = self._ray.wait(list(self._at), num_returns=1, timeout=seconds, fetch_local=False)
        return [event for said in ready for event in self._next(said)]

    def stop(self) -> None:
        for actor, _ in self._at.values():
            actor.stop.remote()

    def close(self) -> None:
        for actor, _ in self._at.values():
            self._ray.kill(actor)
        self._at = {}
        self._ray.shutdown()

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that actors are in."""
        return [self._ray.get(actor.pid.remote()) for actor, _ in self._at.values()]

    def _next(self, said: Any) -> Iterator[Event]:
        """The next message of an actor, or what became of it."""
        actor, job = self._at[said]
        try:
            message: Message = self._ray.get(next(said))
        except StopIteration:
            message = {FAILED: "the actor ended without a word"}
        except self._ray.exceptions.RayActorError as error:
            message = {FAILED: f"the actor ended by itself ({first_line(error)})"}
        except self._ray.exceptions.RayError as error:
            message = {FATAL: f"an actor cannot work: {_reason(error)}"}
        if DONE in message or SURE in message:
            del self._at[said]
            self._resting.append(actor)
        elif FAILED in message or FATAL in message:
            del self._at[said]
            self._ray.kill(actor)
        yield Event(job, message)


class Actor:
    """One worker in a process of Ray's.

    Args:
        pickled: the task.
        index: which worker it is.
    """

    def __init__(self, pickled: bytes, index: int) -> None:
        self._stop = threading.Event()
        self._do: Do | None = None
        self._why = ""
        try:
            self._do = pickle.loads(pickled).open(index)
        except AllWeatherError as error:
            self._why = str(error)

    def do(self, job: Any) -> Iterator[Message]:
        """Does a job; gives its messages as they come, the last one ends it."""
        if self._do is None:
            yield {FATAL: self._why}
            return
        messages: queue.Queue[Message] = queue.Queue()
        talk = _Queued(messages, self._stop)
        threading.Thread(target=_work, args=(self._do, job, talk), daemon=True).start()
        while True:
            message = messages.get()
            yield message
            if DONE in message or FAILED in message or FATAL in message:
                return

    def stop(self) -> None:
        """Has the job left where it stands."""
        self._stop.set()

    def pid(self) -> int:
        """The process's number."""
        return os.getpid()


class _Queued:
    """The way of an actor's thread to the generator that gives its messages."""

    def __init__(self, messages: "queue.Queue[Message]", stop: threading.Event) -> None:
        self._messages, self._stop = messages, stop

    def say(self, message: Message) -> None:
        self._messages.put(message)

    def stopping(self) -> bool:
        return self._stop.is_set()


def _work(do: Do, job: Any, talk: Talk) -> None:
    talk.say(attempt(do, job, talk).message)


class Mapped:
    """The class that `ray.data` gives each of its actors: batches of stretches come, lines of the record go.

    Args:
        carried: the file with the pickled task, where all workers see it.

    Raises:
        AllWeatherError: where this worker cannot work.
    """

    def __init__(self, carried: str) -> None:
        try:
            task: Task = pickle.loads(Path(carried).read_bytes())
        except OSError as error:
            raise AllWeatherError(
                f"a worker does not see {carried} ({error.strerror}): expected a folder on a file system that all "
                "machines share."
            ) from error
        self._do = task.open(0)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        lines: list[Any] = []
        (stretch,) = map(pickle.loads, batch["stretch"])
        message = attempt(self._do, stretch, _Gathered(lines)).message
        return {"said": [pickle.dumps((stretch.source.names, lines, message))]}


class _Gathered:
    """Lines of one batch."""

    def __init__(self, lines: list[Any]) -> None:
        self._lines = lines

    def say(self, message: Message) -> None:
        self._lines.extend(message.get(LINES, ()))

    def stopping(self) -> bool:
        return False


def map_frames(
    task: Task, jobs: Iterable[Any], workers: Workers, device: str, folder: Path, waiting: int = WAITING
) -> Iterator[tuple[list[Any], dict[str, str]]]:
    """The lines of stretches that stand alone, in whatever order they are done, by actors of `ray.data`.

    Beside them: why other frames of the stretch failed.

    An actor that dies is replaced, and what it was at is tried once more; what fails again has no lines.

    Args:
        folder: where all workers see it; the task is there meanwhile.
        waiting: stretches on their way to each worker; one that ends its worker takes those behind it along.

    Raises:
        MissingLibraryError, AllWeatherError: as `connect`, and where a worker cannot work.
    """
    ray, carried = connect(workers), folder / f".task-{os.getpid()}"
    data = optional("ray.data", EXTRA)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a batch that cannot be done fails alone
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    number = number_of(ray, workers, device)
    rows = [{"stretch": pickle.dumps(job)} for job in jobs]
    if not rows:
        return
    try:
        carried.write_bytes(pickle.dumps(task))
        dataset = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Mapped,
            batch_size=1,
            fn_constructor_args=(str(carried),),
            compute=data.ActorPoolStrategy(size=number, max_tasks_in_flight_per_actor=waiting),
            num_cpus=workers.threads,
            ray_remote_args_fn=lambda: {"max_task_retries": 1},  # of what an actor was at when it died
            **gpus(device),
        )
        for row in dataset.iter_rows():
            names, lines, message = pickle.loads(row["said"])
            yield lines, {name: message[FAILED] for name in names if FAILED in message}
            if FATAL in message:
                raise AllWeatherError(message[FATAL])
    except ray.exceptions.RayError as error:
        raise AllWeatherError(f"Ray's workers cannot work: {_reason(error)}.") from error
    finally:
        carried.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """What an actor said, out of what Ray makes of it."""
    said = str(error).strip().splitlines()
    ours = [line for line in said if "Error: " in line]
    return (ours[-1].split("Error: ", 1)[1] if ours else said[0] if said else type(error).__name__)[:300]


def number_of(ray: ModuleType, workers: Workers, device: str) -> int:
    """How many workers there are to be: as many as were asked for, and no more than the cluster has room for.

    One that waits for room would wait for ever: those that have it keep it.
    """
    found = ray.cluster_resources()
    room = found.get("GPU", 0) if device.startswith("cuda") else found.get("CPU", 1) // workers.threads
    room = max(1, int(room))
    if workers.number is not None and workers.number > room:
        LOG.warning("the cluster has room for %d workers, not %d: as many work", room, workers.number)
    return min(room, workers.number or room)


def gpus(device: str) -> dict[str, int]:
    """What an actor takes of the GPUs."""
    return {"num_gpus": 1} if device.startswith("cuda") else {}


def _check_address(address: str) -> None:
    """Refuses an address that nobody answers at, in seconds: Ray itself takes minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise SettingsError(f"--ray {address}: expected HOST:PORT, auto or local.")
    try:
        socket.create_connection((host, int(port)), ANSWERS).close()
    except OSError as error:
        raise AllWeatherError(
            f"--ray {address}: nobody answers there ({error.strerror or error}). Start a cluster with "
            "`ray start --head`, or use --ray local."
        ) from error
