"""All that is to be known on a GPU, in at most eight minutes: python -m benchmarks.gpu

Needs the package's own dependencies only, with torch 2.6 or newer. Each step writes its record to
benchmarks/records/gpu/ as soon as it is done, the most telling steps come first, and a step whose record is there is
skipped: run it again to go on. A record of another device, or of other versions, is measured again.

    python -m benchmarks.gpu --steps operator labels     # only these
    python -m benchmarks.gpu --again                     # everything afresh
    python -m benchmarks.gpu --tiny --records DIR        # tiny sizes, on a CPU too: a trial, not a measurement

Then `python -m benchmarks.tables` fills the tables of docs/performance.md.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from allweather import AllWeatherError
from allweather.runs.record import versions
from benchmarks import gpu_steps
from benchmarks.gpu_device import Meter
from benchmarks.gpu_steps import TINY, Scale

RECORDS = Path(__file__).parent / "records" / "gpu"
Step = Callable[[Scale, Meter], dict[str, Any]]


def steps(scale: Scale) -> dict[str, tuple[Step, float]]:
    """Name → what it measures and the seconds after which it begins nothing new, the most telling first."""
    networks = {"iteration-mobilenet": scale.mobilenet, "iteration-resnet101": scale.resnet}
    ratios = {name: (partial(gpu_steps.iteration, model), 60.0) for name, model in networks.items()}
    return {
        "labels": (gpu_steps.labels, 50.0),
        "operator": (gpu_steps.operator, 30.0),
        "iteration-mobilenet": ratios["iteration-mobilenet"],
        "speed-float32": (partial(gpu_steps.speed, "float32"), 60.0),
        "iteration-resnet101": ratios["iteration-resnet101"],
        "speed-bf16": (partial(gpu_steps.speed, "bf16"), 50.0),
        "speed-graphs": (partial(gpu_steps.speed, "graphs"), 10.0),
        "speed-compile": (partial(gpu_steps.speed, "compile"), 60.0),
        **{f"iteration-{name.replace(':', '-')}": (partial(gpu_steps.iteration, name), 30.0) for name in scale.others},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = _arguments(arguments)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cpu" and not options.tiny:
        sys.exit("expected a GPU that torch can see, found none; --tiny --records DIR tries the script on a CPU.")
    if options.tiny and options.records.resolve() == RECORDS.resolve():
        sys.exit("--tiny measures nothing worth keeping: give another folder with --records DIR.")
    scale = TINY if options.tiny else Scale()
    chosen = steps(scale)
    unknown = set(options.steps or ()) - set(chosen)
    if unknown:
        sys.exit(f"unknown step {', '.join(sorted(unknown))}; known: {', '.join(chosen)}.")
    failed = run({name: chosen[name] for name in options.steps or chosen}, scale, device, options)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; their records say why. Run again to try them again.")


def run(
    chosen: dict[str, tuple[Step, float]], scale: Scale, device: torch.device, options: argparse.Namespace
) -> list[str]:
    """Measures what has no record yet, one step after the other; the names of those that failed."""
    started, failed = perf_counter(), []
    options.records.mkdir(parents=True, exist_ok=True)
    about = {**Meter(device).describe(), "tiny": options.tiny, "versions": versions()}
    for name, (step, limit) in chosen.items():
        path = options.records / f"{name}.json"
        if not options.again and _is_done(path, about):
            print(f"{name}: done before", file=sys.stderr)
            continue
        begun = perf_counter()
        left = 60 * options.minutes - (begun - started)
        if left <= 0:
            print(f"{name}: no time left; run again to go on", file=sys.stderr)
            continue
        print(f"{name}: …", file=sys.stderr, flush=True)
        torch.manual_seed(0)
        try:
            found = step(scale, Meter(device, begun + min(limit, left)))
        except (RuntimeError, AllWeatherError) as error:  # must not cost the other steps their minutes
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"}
            failed.append(name)
        record = {"benchmark": "gpu", "step": name, **about, "seconds": round(perf_counter() - begun, 1), **found}
        _write(path, record)
        print(f"{name}: {record['seconds']} s", file=sys.stderr, flush=True)
    return failed


def _is_done(path: Path, about: dict[str, Any]) -> bool:
    """Whether the record is whole, of this device and these versions; one that failed or ran out of time is not."""
    if not path.exists():
        return False
    text = path.read_text()
    record = json.loads(text)
    same = all(record.get(key) == value for key, value in json.loads(json.dumps(about)).items())
    return same and "failed" not in record and "out of time" not in text


def _write(path: Path, record: dict[str, Any]) -> None:
    """The whole file or none of it."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(record, indent=1) + "\n")
    beside.replace(path)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS, help="the folder of the records")
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="only these")
    parser.add_argument("--again", action="store_true", help="measure what has a record, too")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes and a small network, to try the script")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; the first GPU without it")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no step begins")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
