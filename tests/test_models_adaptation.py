"""Every network of the catalogue under the methods users try first: one iteration moves what it may, and resets.

Small frames: what moves, what is put back and what is finite does not depend on their size. Nor on how often a layer is
repeated: a large network of another's layers is adapted by the default method alone.
"""

import gc
import warnings

import pytest
import torch

from allweather import Guard, Session, load_model, methods
from allweather.data.scenes import scene_stream
from allweather.models.catalogue import all_entries, find_entry

NETWORKS = [entry.name for entry in all_entries() if entry.segments]
SIZE = (64, 64)
SIBLINGS = {  # networks of another depth, stride or preprocessing, by the one that has all their kinds of layers
    "adaptsegnet:multi": ("adaptsegnet:single", "advent:deeplabv2", "bdl:deeplabv2", "dannet:deeplab"),
    "ciconv:w": ("ciconv:rgb",),
    "dannet:refinenet": ("mgcda:refinenet",),
    "deeplabv3plus:resnet50-os8": tuple(f"deeplabv3plus:resnet{form}" for form in ("50-os16", "101-os8", "101-os16")),
    "gcnet:r50": ("gcnet:r101",),
    "isanet:r50": ("isanet:r101",),
    "robustnet:base-r50-os16": ("robustnet:base-r101-os8",),
    "robustnet:ibn-r50-os16": tuple(
        f"robustnet:{form}" for form in ("iw-r50-os16", "irw-r50-os16", "isw-r50-os16", "ibn-r101-os8", "isw-r101-os8")
    ),
    "segformer:b0": tuple(f"segformer:b{depth}" for depth in range(1, 6)),
    "stdc:1": ("stdc:1-50", "stdc:2", "stdc:2-50"),
}
LIKE = {name: elder for elder, names in SIBLINGS.items() for name in names}
METHODS = ("tent", "mall-sample", "mall-domain")  # the last one is the default


@pytest.mark.parametrize("name", NETWORKS)
def test_one_iteration_moves_what_it_may_and_nothing_else(name: str):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are meant
        model = load_model(name)
    image = next(iter(scene_stream("fog", range(1), SIZE))).image
    source = {key: value.clone() for key, value in model.state_dict().items()}
    alone = name in LIKE
    for chosen in METHODS[-1:] if alone else METHODS:
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
    assert plain.isfinite().all()
    for chosen in () if alone else ("source", "norm"):
        session = Session(model, methods.make(chosen, model=model))
        logits = session(image).logits
        assert logits.isfinite().all()
        assert torch.equal(logits, plain) == (chosen == "source")
        del session
    gc.collect()


@pytest.mark.parametrize("elder", SIBLINGS)
def test_a_sibling_has_no_kind_of_layer_that_its_elder_lacks(elder: str):
    known = kinds(elder)
    assert [name for name in SIBLINGS[elder] if kinds(name) - known or name in SIBLINGS] == []


def kinds(name: str) -> set[type]:
    with torch.device("meta"):
        return {type(layer) for layer in find_entry(name).build().modules()}
