"""Every network of the catalogue under the methods users try first: one iteration moves what it may, and resets.

Small frames: what moves, what is put back and what is finite does not depend on their size.
"""

import gc
import warnings

import pytest
import torch

from allweather import Session, load_model, methods
from allweather.data.scenes import scene_stream
from allweather.models.catalogue import all_entries
from allweather.session import Guard

NETWORKS = [entry.name for entry in all_entries() if entry.segments]
SIZE = (64, 64)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_iteration_moves_what_it_may_and_nothing_else(name: str) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are meant
        model = load_model(name)
    image = next(iter(scene_stream("fog", range(1), SIZE))).image
    source = {key: value.clone() for key, value in model.state_dict().items()}
    for chosen in ("tent", "mall-sample", "mall-domain"):
        method = methods.make(chosen, settings={"episodic": False, "iterations": 1}, model=model)
        session = Session(model, method, guard=Guard(enabled=False))
        result = session(image)
        assert result.logits.shape == (19, SIZE[1], SIZE[0])
        assert result.iterations == 1, result.decision
        now = session.model.state_dict()
        moved = {key for key, value in now.items() if not torch.equal(value, source[key])}
        may_move = {id(tensor) for tensor in (*session.state.parameters.values(), *session.state.buffers.values())}
        named = (*session.model.named_parameters(remove_duplicate=False), *session.model.named_buffers())
        allowed = {key for key, tensor in named if id(tensor) in may_move}  # one tensor may have two names
        assert moved
        assert moved <= allowed
        session.reset()
        assert all(torch.equal(value, source[key]) for key, value in session.model.state_dict().items())
        del session
    with torch.no_grad():
        plain = model(image[None])[0]
    for chosen in ("source", "norm"):
        session = Session(model, methods.make(chosen, model=model))
        logits = session(image).logits
        assert logits.isfinite().all()
        assert torch.equal(logits, plain) == (chosen == "source")
        del session
    gc.collect()
