"""Cheaper ways to adapt: every so many frames, at a smaller size, in the later norm layers only."""

from pathlib import Path

import pytest
import torch
from tiny import frames, tiny

from allweather import methods
from allweather.session import Session

LOOSE = {"lr": 1e-2, "bn": "source"}


def session(name: str = "mall-domain", **settings: object) -> Session:
    return Session(tiny(), methods.make(name, settings=LOOSE | settings), guard=False)


def test_frames_between_are_predicted_with_the_newest_state():
    adapting = session(adapt_every=3)
    results = [adapting(frame) for frame in frames(7)]
    assert [result.iterations for result in results] == [1, 0, 0, 1, 0, 0, 1]
    assert [result.decision.kind for result in results[:3]] == ["accepted", "skipped", "skipped"]
    assert "1 after the batch that was learnt from, of 3" in results[1].decision.reason
    assert torch.equal(results[-1].logits, session(adapt_every=3)(frames(1)[0]).logits) is False
    before = adapting.predict(frames(8)[7])
    assert torch.equal(adapting(frames(8)[7]).logits, before)  # the eighth is between: nothing moved


def test_the_count_is_saved_and_reset(tmp_path: Path):
    whole, cut = session(adapt_every=3), session(adapt_every=3)
    expected = [whole(frame).logits for frame in frames(6)]
    for frame in frames(6)[:2]:
        cut(frame)
    cut.save(tmp_path / "s.safetensors")
    resumed = session(adapt_every=3)
    resumed.load(tmp_path / "s.safetensors")
    assert all(torch.equal(resumed(f).logits, e) for f, e in zip(frames(6)[2:], expected[2:], strict=True))
    resumed.reset()
    assert torch.equal(resumed(frames(1)[0]).logits, expected[0])


@pytest.mark.parametrize("report_after", [True, False])
@pytest.mark.parametrize("name", ["tent", "mall-sample", "mall-domain", "infomax"])
def test_learnt_at_half_size_and_predicted_at_full(name: str, report_after: bool):
    settings = {"adapt_scale": 0.5, "episodic": False, "report_after": report_after}
    settings |= {} if report_after else {"lookahead": 0.0}
    mall = {"lookahead", "vector_rate"}
    settings["vector_rate"] = 0.0
    adapting = session(name, **{key: value for key, value in settings.items() if key not in mall or "mall" in name})
    image = frames(1)[0]
    before = adapting.predict(image)
    result = adapting(image)
    assert result.logits.shape[-2:] == image.shape[-2:] and result.iterations == 1
    assert torch.equal(result.logits, before) != report_after
    assert adapting.adapt(image).logits.shape == result.logits.shape


def test_the_later_half_of_the_norm_layers():
    adapting = session(parameters="norm-affine-late")
    every = session(parameters="norm-affine")
    late = set(adapting.state.parameters)
    assert late < set(every.state.parameters) and {name.split(".")[0] for name in late} == {"pooled", "head"}
    adapting(frames(1)[0])
    first = adapting.model.network.stem[0].weight
    assert first.grad is None and not first.requires_grad
