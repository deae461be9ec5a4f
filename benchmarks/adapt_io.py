"""`allweather adapt` end to end: its wall time against the larger of the network's and that of reading and writing.

    python -m benchmarks.adapt_io --json benchmarks/records/performance/adapt-io.json.gz

Procedural scenes as PNG files of 1920×1080, the demo's network, labels, colors and overlays written, as by default.
`network` is the session alone, over frames in memory; `input and output` reads and writes all the same in one thread,
with predictions made before; `one after another` reads, predicts and writes each frame in turn. torch works in one
thread each, as on a machine of two cores that shares them between network and files.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from allweather import Session, load_model, methods
from allweather.app.adapting import adapt_along
from allweather.app.output import Output
from allweather.app.pictures import Seen
from allweather.data import Stream
from allweather.data.folder import open_files
from allweather.data.scenes import render
from allweather.runs.evaluate import Outcome, run
from allweather.runs.record import versions
from benchmarks.committed import command, hand_out
from benchmarks.memory import reset_peak, resident

SIZE, NETWORK = (1920, 1080), (480, 352)
METHODS = ("source", "norm", "mall-domain")
SCENES = 4  # drawn ones; the others are these, moved sideways


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        paint(Path(folder) / "frames", options.frames)
        stream = open_files([Path(folder) / "frames"], NETWORK)
        rows = {name: measure(name, stream, Path(folder) / name) for name in METHODS}
    record = {
        "benchmark": "adapt-io", "model": "demo:streetnet", "frames": options.frames, "stored": "1920x1080",
        "size": "480x352", "rows": rows, "versions": versions(),
    }  # fmt: skip
    hand_out(record, options.json)


def paint(folder: Path, count: int) -> None:
    """Writes the frames."""
    folder.mkdir()
    scenes = [(render(seed, "rain", SIZE).rgb * 255).astype(np.uint8) for seed in range(min(count, SCENES))]
    for index in range(count):
        pixels = np.roll(scenes[index % SCENES], 16 * (index // SCENES), axis=1)
        Image.fromarray(pixels).save(folder / f"{index:04d}.png", compress_level=1)


def measure(name: str, stream: Stream, out: Path) -> dict[str, Any]:
    """Milliseconds per frame of each part and of the whole; the whole's peak of memory beyond what it began with."""
    session = Session(load_model("demo:streetnet"), methods.make(name))
    frames = [stream.read(each) for each in stream.names[:8]]
    session(frames[0].image)
    session.reset()
    logits = [session(frame.image).logits for frame in frames]
    network = timed(lambda: [session(frames[index % len(frames)].image) for index in range(len(stream))])
    files = timed(lambda: without_network(logits, session, stream, out / "files"))
    session.reset()
    in_turn = timed(lambda: one_after_another(session, stream, out / "in-turn"))
    session.reset()
    before = reset_peak()
    together = timed(lambda: whole(session, stream, out / "whole"))
    peak = None if before is None else (resident("VmHWM") - before) / 2**20
    parts = {"network": network, "input_and_output": files, "one_after_another": in_turn, "adapt": together}
    return {
        "ms_per_frame": {part: round(1000 * seconds / len(stream), 1) for part, seconds in parts.items()},
        "over_larger": round(together / max(network, files), 3),
        "peak_mib": None if peak is None else round(peak),
    }


def without_network(logits: list[Tensor], session: Session, stream: Stream, out: Path) -> None:
    """Each frame read and written, with a prediction that was made before."""
    with Output.open(out, {}, stream.names, False) as folder:
        for index, name in enumerate(stream.names):
            outcome = Outcome(name, stream.read(name), logits[index % len(logits)])
            folder.keep(folder.write(Seen(outcome), session.model.classes))
        folder.finish()


def whole(session: Session, stream: Stream, out: Path) -> None:
    """As the command does it."""
    with Output.open(out, {}, stream.names, False) as folder:
        adapt_along(session, stream, "online", 1, frozenset(), folder)
        folder.finish()


def one_after_another(session: Session, stream: Stream, out: Path) -> None:
    """Each frame read, predicted and written before the next is read."""
    with Output.open(out, {}, stream.names, False) as folder:
        for outcome in run(session, stream):
            folder.keep(folder.write(Seen(outcome), session.model.classes))
        folder.finish()


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = perf_counter()
    work()
    return perf_counter() - started


if __name__ == "__main__":
    main()
