"""Milliseconds per adaptation iteration of TENT, MALL-sample and MALL-domain, in the form of the paper's Tables 2-3.

    python -m benchmarks.iteration --model espnetv2:2.0 --size 1024x512 --batch 2 --json FILE

Methods take turns, so that a machine whose speed drifts slows them alike; figures are medians over the rounds, and
ratios are medians of the rounds' ratios. Without --weights they are random, which makes predictions, and with them
the affinity's rank, unlike real ones. `--tent CHECKOUT` times a step of TENT as published beside its authors' own code.
"""

import argparse
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch.nn import functional

from allweather import Guard, Segmenter, Session, load_model, methods
from allweather.app.options import parse_size
from allweather.data.scenes import scene_stream
from allweather.methods.mall import MallDomain
from allweather.models.catalogue import all_entries
from allweather.runs.record import versions
from benchmarks.committed import command, hand_out
from benchmarks.fidelity_public import tent_of
from benchmarks.memory import reset_peak, resident
from benchmarks.operator_tests import need_sound_operator

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "tent": ("tent", {}),
    "mall-sample affine": ("mall-sample", {}),
    "mall-sample all": ("mall-sample", {"parameters": "all"}),
    "mall-domain affine": ("mall-domain", {}),
    "mall-domain all": ("mall-domain", {"parameters": "all"}),
}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--model", default="espnetv2:2.0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", default="1024x512")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="every network of the catalogue, with random weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tent", type=Path, help="a checkout of github.com/DequanWang/tent")
    options = parser.parse_args()
    if options.all and options.weights:
        parser.error("--weights are of one network: leave them out, or name it by --model in place of --all.")
    need_sound_operator()
    size = parse_size(options.size) or (1024, 512)
    names = [entry.name for entry in all_entries() if entry.segments] if options.all else [options.model]
    records = [_record(name, options, size) for name in names]
    hand_out(records if options.all else records[0], options.json)


def _record(name: str, options: argparse.Namespace, size: tuple[int, int]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are meant
        model = load_model(name, options.weights).to(options.device)
    images = torch.stack([frame.image for frame in scene_stream("fog", range(options.batch), size)]).to(options.device)
    return {
        "model": name,
        "weights": options.weights and options.weights.name,
        "size": options.size,
        "batch": options.batch,
        **measure(model, images, options.rounds, options.precision),
        **({} if options.tent is None else beside_authors(options.tent, model, images, options.rounds)),
        "versions": versions(),
    }


def measure(model: Segmenter, images: torch.Tensor, rounds: int, precision: Any = "float32") -> dict[str, Any]:
    """Medians over `rounds` after one warm-up round; one update per call, without the guard and a last prediction."""
    sessions = {case: _session(model, name, fields, precision) for case, (name, fields) in CASES.items()}
    times: dict[str, list[float]] = {case: [] for case in (*CASES, "ncut")}
    peaks: dict[str, float | None] = {}
    for turn in range(rounds + 1):
        for case, session in sessions.items():
            before = reset_peak()
            times[case].append(_seconds(lambda session=session: session.adapt(images), images))
            peaks[case] = None if before is None else round((resident("VmHWM") - before) / 2**20, 1)
        times["ncut"].append(_ncut_seconds(model, images))
        if turn == 0:
            times = {case: [] for case in times}
    tent = times["tent"]
    return {
        "ms_per_iteration": {case: round(1000 * median(values), 1) for case, values in times.items()},
        "ratio_mall_affine_over_tent": _ratio(times["mall-domain affine"], tent),
        "ratio_mall_all_over_tent": _ratio(times["mall-domain all"], tent),
        "ratio_mall_sample_affine_over_tent": _ratio(times["mall-sample affine"], tent),
        "ratio_mall_sample_all_over_tent": _ratio(times["mall-sample all"], tent),
        "ncut_share_of_iteration": _ratio(times["ncut"], times["mall-domain affine"]),
        "peak_mib_beyond_the_session": peaks,
        "rounds": rounds,
        "precision": precision,
    }


def beside_authors(root: Path, model: Segmenter, images: torch.Tensor, rounds: int) -> dict[str, Any]:
    """A step of TENT as published, ours without the guard and its authors', in turns: the mean over all pixels."""
    ours = Session(model, methods.make("tent", "paper"), guard=Guard(enabled=False))
    theirs = _authors(root, deepcopy(model))
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        times.append((_seconds(lambda: ours.adapt(images), images), _seconds(lambda: theirs(images), images)))
    mine, other = zip(*times[1:], strict=True)
    return {
        "tent_as_published_ms": round(1000 * median(mine), 1),
        "tent_by_its_authors_ms": round(1000 * median(other), 1),
        "ratio_tent_over_its_authors": _ratio(list(mine), list(other)),
    }


def _authors(root: Path, model: Segmenter) -> Callable[[torch.Tensor], None]:
    """One step of the checkout's code on the network: its layers, its parameters, its entropy, its optimizer."""
    module, network, optimizer = tent_of(root, model)

    def step(images: torch.Tensor) -> None:
        module.softmax_entropy(network(images)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _session(model: Segmenter, name: str, fields: dict[str, Any], precision: Any) -> Session:
    method = methods.make(name, settings={**fields, "iterations": 1})
    return Session(model, method, guard=Guard(enabled=False), precision=precision)


def _ncut_seconds(model: Segmenter, images: torch.Tensor) -> float:
    """What the normalized cut adds to an iteration: the image made smaller, the affinity, the loss and its gradient."""
    method = MallDomain()
    with torch.no_grad():
        logits = functional.interpolate(model(images), scale_factor=method.scale, mode="bilinear")
    scores = logits.softmax(1).requires_grad_()

    def run() -> None:
        method.affinity(images, scores.detach()).normalized_cut(scores).backward()

    return _seconds(run, images)


def _seconds(run: Any, images: torch.Tensor) -> float:
    if images.device.type == "cuda":
        torch.cuda.synchronize()
    started = perf_counter()
    run()
    if images.device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - started


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return round(median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


if __name__ == "__main__":
    main()
