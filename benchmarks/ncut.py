"""Times the normalized cut and its gradient against every rival that can be installed, with memory and error.

    python -m benchmarks.ncut --json ncut.json

    python -m benchmarks.ncut --quick --json ncut.json     # up to 256×512, one thread, without the slow rivals

At most eight minutes on a quiet machine. Every rival has the same threads, one and then two; ours and the lattice are
also timed in turns in one process, which a busy machine slows alike. Nothing is timed while a test of the operator
fails. The frame is a real one where ALLWEATHER_ASSETS is set, else a procedural scene. The space width follows the
image: 50 pixels at 256×512. Rivals: pip install pykeops pydensecrf2. MONAI's bilateral and permutohedral filters are
C++ that its package on the index does not hold.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from allweather import Affinity
from allweather.data.scenes import render
from allweather.runs.record import versions
from benchmarks.committed import command, hand_out
from benchmarks.memory import reset_peak, resident
from benchmarks.ncut_rivals import RIVALS, Absent, Filter, exact_rows, points
from benchmarks.operator_tests import need_sound_operator

SIZES = ((64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048))
CLASSES, SIGMA_RGB, SIGMA_XY = 19, 15.0, 50.0  # SIGMA_XY at 256 rows
OURS = "lowrank"
SLOW = ("dense", "keops", "bilateral grid")
LONG = 3  # seconds of a call that is timed once
ROWS = 1024  # pixels at which a larger image is checked


def main() -> None:
    options = _arguments()
    if options.pair:
        torch.set_num_threads(options.threads[0])
        print(json.dumps(measure_pair(*options.pair)))
        return
    if options.one:
        name, height, width = options.one
        torch.set_num_threads(options.threads[0])
        print(json.dumps(measure(name, int(height), int(width), options)))
        return
    if not options.skip_tests:
        need_sound_operator()
    rows: list[dict[str, Any]] = []
    slow: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        options.kept = Path(folder)
        for threads, (height, width), name in product(options.threads, options.sizes, (OURS, *RIVALS)):
            given_up = {"skipped": f"took more than {options.timeout:.0f} s at a smaller size"}
            row = given_up if name in slow else _in_a_process(name, height, width, threads, options)
            rows.append({"rival": name, "height": height, "width": width, "threads": threads} | row)
            if row.get("skipped", "").startswith("took"):
                slow.add(name)
            print(_line(rows[-1]), file=sys.stderr, flush=True)
        paired = [
            _paired(height, width, threads, options)
            for threads, (height, width) in product(options.threads, options.sizes)
        ]
    record = {
        "benchmark": "ncut",
        "versions": versions(),
        "tested_first": not options.skip_tests,
        "classes": CLASSES,
        "sigma_rgb": SIGMA_RGB,
        "sigma_xy_at_256_rows": SIGMA_XY,
        "rows": rows,
        "paired": [row for row in paired if row],
        "slopes": slopes(rows),
    }
    hand_out(record, options.json)


def measure(name: str, height: int, width: int, options: argparse.Namespace) -> dict[str, Any]:
    """One rival at one size: milliseconds to build and to give loss and gradient, or the peak of memory."""
    image, source = frame(height, width)
    scores = smooth_scores(height, width)
    row: dict[str, Any] = {"rival": name, "height": height, "width": width, "frame": source}
    sigma_xy = SIGMA_XY * height / 256
    _settle(name)
    try:
        before = resident("VmRSS")
        make = _ours if name == OURS else _rival(name)
        bytes_of_scores = scores.numel() * scores.element_size()
        started = time.perf_counter()
        step = make(image, sigma_xy)
        row["build_ms"] = 1e3 * (time.perf_counter() - started)
        row["build_peak_over_scores"] = (resident("VmHWM") - before) / bytes_of_scores
        before = reset_peak() or 0
        started = time.perf_counter()
        loss, gradient = step(scores)
        first = time.perf_counter() - started
        row["step_peak_over_scores"] = (resident("VmHWM") - before) / bytes_of_scores
    except Absent as reason:
        return row | {"skipped": str(reason)}
    if options.memory:
        return row
    slow = first > LONG
    filtered = torch.cat([scores, torch.ones_like(scores[:1])])
    apply = _ours_alone(image, sigma_xy) if name == OURS else RIVALS[name](image, SIGMA_RGB, sigma_xy)
    row["filter_ms"] = 1e3 * _fastest(lambda: apply(filtered), 1 if slow else options.repeats)
    row["step_ms"] = 1e3 * (first if slow else _fastest(lambda: step(scores), options.repeats))
    row["build_ms"] = min(row["build_ms"], 1e3 * _fastest(lambda: make(image, sigma_xy), 3, slow=5.0))
    row["total_ms"] = row["build_ms"] + row["step_ms"]
    return row | _errors(image, scores, sigma_xy, loss, gradient, options)


def measure_pair(height: int, width: int, rounds: int) -> dict[str, float]:
    """Milliseconds of ours and of the lattice in turns, the fastest of each: making, and loss with gradient."""
    (image, _), scores, sigma_xy = frame(height, width), smooth_scores(height, width), SIGMA_XY * height / 256
    makers = {OURS: _ours, "lattice": _rival("lattice")}
    found: dict[str, list[float]] = {f"{name}_{what}": [] for name in makers for what in ("build_ms", "step_ms")}
    for _ in range(rounds):
        for name, make in makers.items():
            begun = time.perf_counter()
            step = make(image, sigma_xy)
            found[f"{name}_build_ms"].append(time.perf_counter() - begun)
            found[f"{name}_step_ms"].append(min(_timed(lambda step=step: step(scores)) for _ in range(2)))
    return {key: 1e3 * min(values) for key, values in found.items()}


def frame(height: int, width: int) -> tuple[Tensor, str]:
    """A street image 3×H×W in [0, 1] and where it comes from."""
    root = os.environ.get("ALLWEATHER_ASSETS")
    if root is None:
        rgb = render(0, size=(512, 256)).rgb
        pixels, source = torch.from_numpy(rgb).permute(2, 0, 1).float(), "procedural scene 0"
    else:
        path = sorted((Path(root) / "camvid" / "dusk" / "images").iterdir())[40]
        opened = np.asarray(Image.open(path).convert("RGB"))
        pixels, source = torch.from_numpy(opened.copy()).permute(2, 0, 1).float() / 255, path.name
    resized = functional.interpolate(pixels[None], (height, width), mode="bilinear", antialias=True)
    return resized[0].clamp(0, 1), source


def smooth_scores(height: int, width: int) -> Tensor:
    """Softmax scores 19×H×W that vary over about a sixteenth of the image, with sharp borders between classes."""
    logits = torch.randn(1, CLASSES, 16, 32, generator=torch.Generator().manual_seed(0)) * 3
    return functional.interpolate(logits, (height, width), mode="bilinear").softmax(1)[0]


def closed_form(scores: Tensor, filtered: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient by the formula of the operator's README, from A·(S, 1), in float64 sums."""
    degree, filtered = filtered[-1], filtered[:-1]
    association = (scores * filtered).sum((1, 2), dtype=torch.float64)
    mass = (scores * degree).sum((1, 2), dtype=torch.float64)
    ratio = association / mass
    slope, level = (ratio / mass).to(scores), (2 / mass).to(scores)
    return (1 - ratio).sum(), slope[:, None, None] * degree - level[:, None, None] * filtered


def slopes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The exponent of time in pixels of each rival that ran at three sizes or more, by least squares of logarithms."""
    found = {}
    for name in (OURS, *RIVALS):
        ran = [row for row in rows if row["rival"] == name and "total_ms" in row]
        ran = [row for row in ran if row.get("threads") == max(other.get("threads", 0) for other in ran)]
        if len(ran) >= 3:
            pixels = [math.log(row["height"] * row["width"]) for row in ran]
            found[name] = float(np.polyfit(pixels, [math.log(row["total_ms"]) for row in ran], 1)[0])
    return found


Step = Callable[[Tensor], tuple[Tensor, Tensor]]


def _ours(image: Tensor, sigma_xy: float) -> Step:
    affinity = Affinity.from_image(image[None], sigma_rgb=SIGMA_RGB, sigma_xy=sigma_xy)

    def step(scores: Tensor) -> tuple[Tensor, Tensor]:
        variable = scores[None].requires_grad_()
        loss = affinity.normalized_cut(variable)
        (gradient,) = torch.autograd.grad(loss, variable)
        return loss.detach(), gradient[0]

    return step


def _ours_alone(image: Tensor, sigma_xy: float) -> Filter:
    affinity = Affinity.from_image(image[None], sigma_rgb=SIGMA_RGB, sigma_xy=sigma_xy)
    return lambda scores: affinity.apply(scores[None])[0]


def _rival(name: str) -> Callable[[Tensor, float], Step]:
    def make(image: Tensor, sigma_xy: float) -> Step:
        apply: Filter = RIVALS[name](image, SIGMA_RGB, sigma_xy)
        return lambda scores: closed_form(scores, apply(torch.cat([scores, torch.ones_like(scores[:1])])))

    return make


def _errors(
    image: Tensor, scores: Tensor, sigma_xy: float, loss: Tensor, gradient: Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    """Relative errors of loss and gradient against the definition, by all pixels or by a sample of them."""
    count = image[0].numel()
    whole = count <= options.exact_pixels
    rows = torch.arange(count) if whole else torch.randperm(count, generator=torch.Generator().manual_seed(0))[:ROWS]
    with_one = torch.cat([scores, torch.ones_like(scores[:1])]).flatten(1)
    filtered = _exact(image, sigma_xy, with_one, rows, options)
    chosen = with_one[:-1, rows][..., None]
    true_loss, true_gradient = closed_form(chosen, filtered[..., None])
    found = gradient.flatten(1)[:, rows]
    if whole:
        difference = found - true_gradient[..., 0]
        return {
            "checked_pixels": count,
            "loss_error": abs(float(loss - true_loss)) / float(true_loss),
            "gradient_error": float(difference.norm() / true_gradient.norm()),
        }
    return {"checked_pixels": len(rows), "gradient_error": _sampled_error(found, chosen[..., 0], filtered)}


def _exact(image: Tensor, sigma_xy: float, scores: Tensor, rows: Tensor, options: argparse.Namespace) -> Tensor:
    """A·S at some pixels by the definition; the first rival at a size computes it, the others read what it kept."""
    kept = None if options.kept is None else options.kept / f"{image.shape[1]}x{image.shape[2]}.pt"
    if kept is not None and kept.exists():
        return torch.load(kept, weights_only=True)
    found = exact_rows(points(image, SIGMA_RGB, sigma_xy), scores, rows)
    if kept is not None:
        torch.save(found, kept)
    return found


def _sampled_error(found: Tensor, scores: Tensor, filtered: Tensor) -> float:
    """The part of a class's gradient at some pixels that no a·d − b·A S explains: the sums over all pixels are free."""
    residual, total = 0.0, 0.0
    for mine, own in zip(found.double(), filtered[:-1].double(), strict=True):
        basis = torch.stack([filtered[-1].double(), own], 1)
        fit = basis @ torch.linalg.lstsq(basis, mine[:, None]).solution
        residual += float((fit[:, 0] - mine).square().sum())
        total += float(mine.square().sum())
    return math.sqrt(residual / total)


def _paired(height: int, width: int, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """Ours and the lattice in turns, in a process of their own; nothing where the lattice is not installed."""
    rounds = 4 if height >= 512 else 12
    found = _run(["--pair", str(height), str(width), str(rounds), "--threads", str(threads)], {}, options.timeout)
    where = {"height": height, "width": width, "threads": threads}
    if "skipped" in found:
        return {}
    ratio = found["lattice_step_ms"] / found[f"{OURS}_step_ms"]
    both = [sum(found[f"{name}_{what}"] for what in ("build_ms", "step_ms")) for name in ("lattice", OURS)]
    return where | found | {"step_ratio": ratio, "total_ratio": both[0] / both[1]}


def _in_a_process(name: str, height: int, width: int, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time and errors from one process, the peak of memory from another whose freed blocks go back at once."""
    if options.quick and name in SLOW:
        return {"skipped": "left out by --quick"}
    common = ["--one", name, str(height), str(width), "--threads", str(threads)]
    common += ["--repeats", str(options.repeats), "--exact-pixels", str(options.exact_pixels)]
    common += ["--kept", str(options.kept)]
    row = _run(common, {}, options.timeout)
    if "skipped" in row or row["step_ms"] > 3_000 or threads != max(options.threads):
        return row | dict.fromkeys(("build_peak_over_scores", "step_peak_over_scores"))
    memory = _run([*common, "--memory"], {"MALLOC_MMAP_THRESHOLD_": "65536"}, options.timeout)
    return row | {key: memory.get(key) for key in ("build_peak_over_scores", "step_peak_over_scores")}


def _run(arguments: list[str], environment: dict[str, str], timeout: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.ncut", *arguments]
    threads = arguments[arguments.index("--threads") + 1]
    environment = environment | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment}
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"took more than {timeout:.0f} s"}
    if done.returncode:
        return {"skipped": f"failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def _settle(name: str) -> None:
    """Runs the rival once on a small image, so that what it loads and compiles is not counted."""
    image, scores = torch.rand(3, 32, 32), torch.rand(CLASSES, 32, 32)
    try:
        (_ours if name == OURS else _rival(name))(image, 5.0)(scores)
    except Absent:
        return
    reset_peak()


def _fastest(work: Callable[[], object], repeats: int, slow: float = 20.0) -> float:
    """Seconds of the fastest of some runs, over a second at least; one run where that takes `slow` seconds or more."""
    times: list[float] = []
    while (len(times) < repeats or sum(times) < 1) and sum(times) < slow:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _line(row: dict[str, Any]) -> str:
    head = f"{row['height']:>5}×{row['width']:<5}{row['threads']} {row['rival']:<15}"
    if "skipped" in row:
        return f"{head} skipped: {row['skipped']}"
    return (
        f"{head}{row['build_ms']:10.1f} + {row['step_ms']:9.1f} ms, alone {row['filter_ms']:.1f}"
        f"  gradient error {row['gradient_error']:.2%} at {row['checked_pixels']} pixels"
    )


def _arguments() -> argparse.Namespace:
    parser = command(__doc__)
    parser.add_argument("--sizes", type=_size, nargs="+", metavar="HEIGHTxWIDTH")
    parser.add_argument("--quick", action="store_true", help="up to 256×512, one thread, no rival that takes seconds")
    parser.add_argument("--threads", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--timeout", type=float, default=60, help="seconds that one rival may take at one size")
    parser.add_argument("--exact-pixels", type=int, default=32_768, help="larger images are checked at 1024 pixels")
    parser.add_argument("--skip-tests", action="store_true", help="for trying the script; the record says so")
    parser.add_argument("--pair", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.sizes = options.sizes or list(SIZES[:3] if options.quick else SIZES)
    options.threads = options.threads or ([1] if options.quick else [1, 2])
    return options


def _size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


if __name__ == "__main__":
    main()
