"""Counts what each method asks of the network per frame: forward passes by what they are for, and backward passes.

    python -m benchmarks.passes --json FILE

A pass over an image at its own size counts one, at ×1.5 it counts 2.25. Counted along a procedural drive with the
shipped network, guard on; a test counts the parts that do not depend on the pictures again, on another network.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from allweather import Segmenter, Session, load_model, methods
from allweather.data.scenes import scene_stream
from allweather.methods.views import parse_views, passes_of
from benchmarks.committed import benchmark_record, command, hand_out, markdown_table
from benchmarks.packed import spell_lines

FRAMES, SIZE = 24, (160, 96)  # small: passes are counted, not timed
UPDATES = 3  # at least, of a method that learns once every so many frames
LEARNING, PREDICTING, GUARDING, BACKWARD = "learning", "predicting", "guarding", "backward"
PARTS = (LEARNING, BACKWARD, PREDICTING, GUARDING)
PURPOSES = {
    "objective": LEARNING, "predict": PREDICTING, "predict_ahead": PREDICTING, "predict_between": PREDICTING,
    "predict_plain": GUARDING, "source_logits": GUARDING, "predict_source": GUARDING, "predict_unmixed": GUARDING,
    "plain_logits": GUARDING,
}  # fmt: skip


def main() -> None:
    parser = command(__doc__)
    options = parser.parse_args()
    model = load_model("demo:streetnet")
    rows = {}
    for name, preset in every_preset():
        rarely = getattr(methods.make(name, preset, model=model), "every", 1)
        frames = scene_stream("night", range(max(FRAMES, UPDATES * rarely)), SIZE)
        rows[f"{name} {preset}"] = count(model, name, preset, [frame.image for frame in frames])
    record = {"benchmark": "passes", "frames": FRAMES, "of": "demo:streetnet, procedural night", "rows": rows}
    hand_out(spell_lines(record), options.json)


def every_preset() -> Iterator[tuple[str, str]]:
    """Each method with each of its presets."""
    for name, method in methods.METHODS.items():
        for preset in {"recommended": {}, **method.presets}:
            yield name, preset


def count(model: Segmenter, name: str, preset: str, frames: Sequence[Tensor], **session: Any) -> dict[str, float]:
    """Passes per frame along the frames, by what they are for."""
    running = Session(model, methods.make(name, preset, model=model), **session)
    with counting(running) as found:
        for frame in frames:
            running(frame)
    return {part: round(found[part] / len(frames), 2) for part in PARTS}


@contextmanager
def counting(session: Session) -> Iterator[Counter[str]]:
    """Counts the session's passes inside."""
    adapted, found, purpose = session._adapted, Counter[str](), [LEARNING]
    area, followed = 0, 0.0  # pixels of the batch, and passes since the last gradient that autograd follows

    def passed(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal followed
        found[purpose[-1]] += inputs[0].numel() / area
        followed += inputs[0].numel() / area * torch.is_grad_enabled()

    def measured(call: Callable[..., Any]) -> Callable[..., Any]:
        def start(batch: Any) -> Any:
            nonlocal area
            area = batch.images.numel()
            return call(batch)

        return start

    def named(call: Callable[..., Any], what: str) -> Callable[..., Any]:
        def inside(*given: Any, **named: Any) -> Any:
            nonlocal followed
            followed = followed if what == GUARDING else 0.0
            purpose.append(GUARDING if purpose[-1] == GUARDING else what)
            try:
                return call(*given, **named)
            finally:
                purpose.pop()

        return inside

    def gradient(loss: Tensor, call: Callable[[Tensor], Tensor] = adapted.gradient) -> Tensor:
        found[BACKWARD] += followed
        return call(loss)

    hook = adapted.model.network.register_forward_pre_hook(passed)
    policy = session._policy
    replaced: list[tuple[Any, str, Any]] = [
        (adapted, name, named(getattr(adapted, name), what)) for name, what in PURPOSES.items()
    ]
    replaced += [(policy, name, named(getattr(policy, name), GUARDING)) for name in ("judge", "doubt", "accepts")]
    replaced += [(adapted, "gradient", gradient), (adapted, "at_adapt_scale", measured(adapted.at_adapt_scale))]
    for holder, name, call in replaced:
        setattr(holder, name, call)
    try:
        yield found
    finally:
        hook.remove()
        for holder, name, _ in replaced:
            delattr(holder, name)


def table() -> str:
    """One row per method and preset."""
    record = benchmark_record("performance/passes.json.gz")
    if record is None:
        return "not measured"
    heads = [
        "method",
        "preset",
        "forward, learning",
        "backward",
        "forward, predicting",
        "forward, guard",
        "in forwards",
    ]
    rows = [
        [*key.split(), *(f"{row[part]:g}" for part in PARTS), f"{in_forwards(row):.1f}"]
        for key, row in record["rows"].items()
    ]
    about = (
        f"Per frame, over {record['frames']} frames of {record['of']}, more where a method learns once in many; a "
        "backward pass counts two forward passes."
    )
    return f"{markdown_table(heads, rows)}\n\n{about}"


def cost_of(name: str, preset: str, views: Sequence[str]) -> float | None:
    """What a frame costs, in forward passes, when predicted over these views; None where it was never counted."""
    record = benchmark_record("performance/passes.json.gz")
    row = None if record is None else record["rows"].get(f"{name} {preset}")
    if row is None or name not in methods.METHODS:
        return None
    return in_forwards(row) + passes_of(parse_views(views)) - passes_of(methods.make(name, preset).looks)


def in_forwards(row: dict[str, float]) -> float:
    """All of it in forward passes; a backward pass takes about as long as two."""
    return row[LEARNING] + 2 * row[BACKWARD] + row[PREDICTING] + row[GUARDING]


if __name__ == "__main__":
    main()
