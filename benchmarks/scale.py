"""How the cost of many streams grows: real workers on this machine, and simulated ones for what hands out the work.

    python -m benchmarks.scale --json benchmarks/records/performance/scale.json.gz

Real: 1 and 2 worker processes over procedural frames of 64×48 as PNG files, ten streams, the demo's network, labels
written; one thread of torch each. Throughput is without the workers' start, which is given beside it. A worker's CPU
time is given too: it hardly changes where other programs take turns.

Simulated: one process answers for all workers of the coordinator, at once and with stub work: every job is said to be
done, its frames' lines made up. So what is measured is the coordinator alone (connections, messages, record), by its
own CPU time, and not how fast 64 workers would be.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from PIL import Image

from allweather import load_model, methods
from allweather.app.pictures import Pictures
from allweather.app.spread import stretches
from allweather.data.scenes import scene_stream
from allweather.runs.record import versions
from allweather.scale.carried import Carried
from allweather.scale.conduct import Conductor
from allweather.scale.merged import MergedRecord
from allweather.scale.pool import Pool
from allweather.scale.processes import ProcessPool, _Process
from allweather.scale.streams import Source, split
from allweather.scale.task import DONE, LINES
from allweather.scale.work import Adapting, Line, Stretch
from benchmarks.committed import benchmark_record, command, hand_out, markdown_table
from benchmarks.memory import resident

SIZE, STREAMS, PAINTED = (64, 48), 10, 50
WEATHER = ("fog", "rain", "snow", "night", "overcast")
LINE = {
    "losses": [4.383115], "watched": [15.766791], "iterations": 1, "stop": "cap", "decision": "accepted",
    "seconds": 0.2469,
}  # fmt: skip


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--real", type=int, nargs="*", default=[1000, 4000])
    parser.add_argument("--simulated", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64])
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    record = {
        "benchmark": "scale", "model": "demo:streetnet", "size": "64x48", "streams": STREAMS,
        "real": list(real(options.real)), "simulated": list(simulated(options.simulated, options.workers)),
        "load_before": round(load, 2), "versions": versions(),
    }  # fmt: skip
    hand_out(record, options.json)


def real(counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A row for each number of frames, method and number of workers; mall-domain, which learns, has a tenth of them."""
    cases = [("norm", count) for count in counts] + [("mall-domain", min(counts) // 10)]
    with tempfile.TemporaryDirectory() as folder:
        for method, count in cases:
            inputs = paint(Path(folder) / f"{method}-{count}", count)
            for workers in (1, 2):
                out = Path(folder) / f"out-{count}-{method}-{workers}"
                found = adapted(inputs, out, method, workers)
                yield {"method": method, "frames": count, "workers": workers, **found}


def paint(folder: Path, count: int) -> list[Path]:
    """Ten folders of frames; after the first ones of each, they are these again."""
    each = count // STREAMS
    for number in range(STREAMS):
        stream = scene_stream(WEATHER[number % len(WEATHER)], range(100 * number, 100 * number + PAINTED), SIZE)
        drawn = [(frame.image * 255).round().byte().permute(1, 2, 0).numpy() for frame in stream]
        (folder / f"s{number}").mkdir(parents=True)
        for index in range(each):
            pixels = np.roll(drawn[index % PAINTED], index // PAINTED, 1)
            Image.fromarray(pixels).save(folder / f"s{number}" / f"{index:06d}.png")
    return sorted(folder.iterdir())


def adapted(inputs: list[Path], out: Path, method: str, workers: int) -> dict[str, Any]:
    """One run: frames per second, and what it took."""
    model = load_model("demo:streetnet")
    made = methods.make(method, model=model)
    out.mkdir(parents=True)
    (out / ".seen").touch()
    carried = Carried.pack(model, made, {"seed": 0}, "cpu", 1)
    task = Adapting(carried, Pictures(out, ("labels",)), out, ".seen")
    begun = perf_counter()
    with MergedRecord(out, {}, False) as record, ProcessPool(task, workers) as pool:
        first: list[float] = []

        def keep(lines: list[Line]) -> None:
            if not first:
                first.extend((perf_counter(), sum(map(cpu_of, pool.pids))))
            record.keep(lines)

        cpu = process_time()
        Conductor(pool, keep, lambda job, refused: job).run(stretches(split(inputs), record, made.episodic, 1))
        seconds, cpu = perf_counter() - first[0], process_time() - cpu
        worked = sum(map(cpu_of, pool.pids)) - first[1]
        peaks = [resident("VmHWM", pid) / 2**20 for pid in pool.pids]
        frames = len(record.done)
    return {
        "frames_per_second": round((frames - 1) / seconds, 1),
        "worker_ms_per_frame": round(1e3 * worked / frames, 2),
        "load": round(os.getloadavg()[0], 1),
        "start_seconds": round(first[0] - begun, 2),
        "worker_mib": round(max(peaks)),
        "coordinator_share": round(cpu / seconds, 4),
        "coordinator_us_per_frame": round(1e6 * cpu / frames, 1),
        "record_bytes_per_frame": round((out / "record.jsonl").stat().st_size / frames, 1),
    }  # fmt: skip


def cpu_of(pid: int) -> float:
    """Seconds of CPU time that a process has had, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def simulated(counts: Sequence[int], numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A row for each number of frames and workers."""
    for count in counts:
        for workers in numbers:
            with tempfile.TemporaryDirectory() as folder:
                yield {"frames": count, "workers": workers, **coordinated(Path(folder), count, workers)}


def coordinated(out: Path, count: int, workers: int) -> dict[str, Any]:
    """What the coordinator takes for frames whose work is a stub; a stream for each hundred frames."""
    streams = max(STREAMS, count // 100)
    names = [(f"s{stream:05d}", count // streams) for stream in range(streams)]
    sources = [Source(name, tuple((f"{name}/{i:06d}", f"{i}.png") for i in range(each))) for name, each in names]
    before = resident("VmRSS")
    with MergedRecord(out, {}, False) as record, SimulatedPool(workers) as pool:
        begun, cpu = perf_counter(), process_time()
        run = Conductor(pool, record.keep, lambda job, refused: job)  # type: ignore[arg-type]
        run.run(stretches(sources, record, False, 1))
        seconds, cpu = perf_counter() - begun, process_time() - cpu
        frames = len(record.done)
    assert frames == count
    return {
        "coordinator_us_per_frame": round(1e6 * cpu / frames, 1), "frames_per_second": round(frames / seconds),
        "record_bytes_per_frame": round((out / "record.jsonl").stat().st_size / frames, 1),
        "coordinator_mib": round((resident("VmRSS") - before) / 2**20, 1),
    }  # fmt: skip


class SimulatedPool(ProcessPool):
    """As many connections as there would be workers, and one process at the other ends of them all."""

    def __init__(self, workers: int) -> None:
        Pool.__init__(self)
        context = get_context("spawn")
        pipes = [context.Pipe() for _ in range(workers)]
        process = context.Process(target=answer, args=([there for _, there in pipes],), daemon=True)
        process.start()
        for _, there in pipes:
            there.close()
        self._workers = [_Process(process, here) for here, _ in pipes]
        self._stopping, self._stillborn = False, 0
        ready = pipes[0][0].recv()
        assert ready == "ready"


def answer(connections: list[Connection]) -> None:
    """Says of every job that it is done, frame by frame, as a worker would."""
    connections[0].send("ready")
    while connections:
        for ready in wait(connections):
            assert isinstance(ready, Connection)
            try:
                stretch: Stretch = ready.recv()
                for name in stretch.source.names:
                    ready.send({LINES: [{"name": name, **LINE}]})
                ready.send({DONE: {}})
            except (EOFError, OSError):
                connections.remove(ready)


@dataclass(frozen=True)
class Extrapolated:
    """What a million frames in a thousand streams take, at the largest measured costs."""

    us_per_frame: float
    bytes_per_frame: float
    mib_per_frame: float


def extrapolated(found: Mapping[str, Any]) -> Extrapolated:
    """From the largest simulated runs."""
    most = max(row["frames"] for row in found["simulated"])
    rows = [row for row in found["simulated"] if row["frames"] == most]
    return Extrapolated(
        max(row["coordinator_us_per_frame"] for row in rows),
        max(row["record_bytes_per_frame"] for row in rows),
        max(row["coordinator_mib"] for row in rows) / most,
    )


def table() -> str:
    """The record as three tables: real, simulated, and a million frames."""
    found = benchmark_record("performance/scale.json.gz")
    if found is None:
        return "not measured"
    return "\n\n".join([_real(found), _simulated(found), _million(found)])


def _real(found: Mapping[str, Any]) -> str:
    heads = ["real", "frames", "workers", "frames/s", "against 1", "worker's CPU, ms a frame", "MiB a worker"]
    heads += ["start, s", "coordinator's share", "record, B a frame", "load"]
    single = {(row["method"], row["frames"]): row["frames_per_second"] for row in found["real"] if row["workers"] == 1}
    rows = [
        [
            row["method"], f"{row['frames']:,}", str(row["workers"]), f"{row['frames_per_second']:.1f}",
            f"{row['frames_per_second'] / single[row['method'], row['frames']]:.2f}×",
            f"{row['worker_ms_per_frame']:.0f}" if "worker_ms_per_frame" in row else "–", str(row["worker_mib"]),
            f"{row['start_seconds']:.1f}", f"{row['coordinator_share']:.1%}", f"{row['record_bytes_per_frame']:.0f}",
            f"{row.get('load', found['load_before']):.0f}",
        ]
        for row in found["real"]
    ]  # fmt: skip
    about = f"{found['model']} at {found['size']}, {found['streams']} streams, labels written; "
    about += found["versions"]["machine"]
    about += ". load: processes that wanted one of the two cores, other programs included: "
    about += "where it is above two, frames/s say more of those than of this; CPU time hardly changes."
    return f"{markdown_table(heads, rows)}\n\n{about}"


def _simulated(found: Mapping[str, Any]) -> str:
    numbers = sorted({row["workers"] for row in found["simulated"]})
    counts = sorted({row["frames"] for row in found["simulated"]})
    by = {(row["frames"], row["workers"]): row for row in found["simulated"]}
    rows = [
        [f"{count:,}", *(f"{by[count, number]['coordinator_us_per_frame']:.0f}" for number in numbers),
         f"{by[count, numbers[-1]]['record_bytes_per_frame']:.0f}", f"{by[count, numbers[-1]]['coordinator_mib']:.0f}"]
        for count in counts
    ]  # fmt: skip
    heads = [
        "simulated frames",
        *(f"{number} workers, µs a frame" for number in numbers),
        "record, B a frame",
        "MiB more",
    ]
    return markdown_table(heads, rows)


def _million(found: Mapping[str, Any]) -> str:
    cost, million = extrapolated(found), 1_000_000
    fastest = max(
        1e3 / row["worker_ms_per_frame"] if "worker_ms_per_frame" in row else row["frames_per_second"] / row["workers"]
        for row in found["real"]
    )
    rows = [
        ["the coordinator's CPU time", f"{cost.us_per_frame * million / 1e6:.0f} s"],
        ["frames a second at which it is busy all the time", f"{1e6 / cost.us_per_frame:,.0f}"],
        ["workers at which it is, each as fast as the fastest above", f"{1e6 / cost.us_per_frame / fastest:,.0f}"],
        ["the record", f"{cost.bytes_per_frame * million / 2**20:,.0f} MiB"],
        ["the coordinator's memory beyond its start", f"{cost.mib_per_frame * million:,.0f} MiB"],
    ]
    return markdown_table(["a million frames in a thousand streams, extrapolated", ""], rows)


if __name__ == "__main__":
    main()
