"""Weights are found by the network's own keys, wherever training put them; what could mean two things is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refusal
from small import Small, small
from torch import nn

from allweather.models.checkpoints import load_weights


class Holder(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        self.add_module(name, Small())


def under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def inside(word: str, tensors: dict[str, torch.Tensor], part: str = "backbone") -> dict[str, torch.Tensor]:
    return {key.replace(f"{part}.", f"{part}.{word}.", 1): value for key, value in tensors.items()}


ONE, HUNDRED = torch.tensor(1), torch.ones(100)
PLACES: dict[str, tuple[Any, str, str, tuple[str, ...]]] = {  # content, nesting, prefix, what is dropped
    "any prefix": (lambda s: under("student.", s), "", "student.", ()),
    "in any order": (lambda s: under("_orig_mod.module.model.", s), "", "_orig_mod.module.model.", ()),
    "the other order": (lambda s: under("net._forward_module._orig_mod.", s), "", "net._forward_module._orig_mod.", ()),
    "within a key": (lambda s: inside("_orig_mod", s), "", "_orig_mod.", ()),
    "in front and within": (lambda s: under("module.", inside("module", s)), "", "module.module.", ()),
    "sharded within a key": (
        lambda s: under("model.", inside("_fsdp_wrapped_module._checkpoint_wrapped_module", s)),
        "",
        "model._fsdp_wrapped_module._checkpoint_wrapped_module.",
        (),
    ),
    "DeepSpeed": (lambda s: {"module": s, "ds_version": "0.1", "optimizer": None}, "module", "", ()),
    "a nesting of any name": (lambda s: {"epoch": 3, "generator": {"weights": s}}, "generator/weights", "", ()),
    "parts in mappings of their own": (
        lambda s: {part: {k[len(part) + 1 :]: v for k, v in s.items() if k.startswith(part)} for part in PARTS},
        "backbone, head",
        "",
        (),
    ),
    "an averaged network": (lambda s: {"n_averaged": ONE, **under("module.", s)}, "", "module.", ("n_averaged",)),
    "nothing but the average": (
        lambda s: {"ema_state_dict": {**under("module.", s), "steps": ONE}},
        "ema_state_dict",
        "module.",
        ("steps",),
    ),
    "an average beside it": (
        lambda s: {"model": s, "model_ema": small(9), "ema_state_dict": small(8)},
        "model",
        "",
        ("model_ema", "ema_state_dict"),
    ),
    "an average ahead of it": (lambda s: {"model_ema": small(9), "model": s}, "model", "", ("model_ema",)),
    "a compiled network, its average not": (
        lambda s: {"state_dict_ema": small(9), "state_dict": under("_orig_mod.", s)},
        "state_dict",
        "_orig_mod.",
        ("state_dict_ema",),
    ),
    "an average within": (
        lambda s: {"state_dict": {**under("model.", s), **under("ema_model.", small(9))}},
        "state_dict",
        "model.",
        tuple(under("ema_model.", small())),
    ),
    "another copy of no rank": (
        lambda s: {**under("model.", s), **under("imnet.", small(9)), "imnet.aux.weight": ONE},
        "",
        "model.",
        (*under("imnet.", small()), "imnet.aux.weight"),
    ),
    "one network under two names": (
        lambda s: {**under("model.", s), **under("net.", s)},
        "",
        "model.",
        tuple(under("net.", small())),
    ),
    "losses and scores": (
        lambda s: {
            "state_dict": {
                **under("model.", {**s, "criterion.weight": HUNDRED}),
                "loss.criterion.weight": HUNDRED,
                "val_metrics.iou.total": HUNDRED,
            }
        },
        "state_dict",
        "model.",
        ("criterion.weight", "loss.criterion.weight", "val_metrics.iou.total"),
    ),
    "what held the network in training": (
        lambda s: {"state_dict": {**under("net.", s), "class_weights": HUNDRED, "train_iou.confmat": ONE, "d.w": ONE}},
        "state_dict",
        "net.",
        ("class_weights", "train_iou.confmat", "d.w"),
    ),
    "another class count around it": (
        lambda s: {**small(9), "head.weight": HUNDRED, **under("model.", s), "junk.weight": ONE},
        "",
        "model.",
        (*small(), "junk.weight"),
    ),
    "numbers beside tensors": (lambda s: {**s, "epoch": 3}, "", "", ()),
    "another class count beside it": (
        lambda s: {**under("model.", {**small(9), "head.weight": HUNDRED}), **under("net.", s)},
        "",
        "net.",
        tuple(under("model.", small())),
    ),
    "a network with a name, and its average": (
        lambda s: {**under("ema.", small(9)), **under("student.", s)},
        "",
        "student.",
        tuple(under("ema.", small())),
    ),
}
PARTS = ("backbone", "head")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.pth"


@pytest.mark.parametrize("form", PLACES)
def test_weights_are_found_by_the_networks_own_keys(form: str, path: Path):
    content, nesting, prefix, dropped = PLACES[form]
    torch.save(content(small()), path)
    target = Small()
    provenance = load_weights(target, path, name="small")
    assert all(torch.equal(target.state_dict()[key], value) for key, value in small().items())
    assert (provenance.nesting, provenance.prefix, provenance.dropped) == (nesting, prefix, dropped)


@pytest.mark.parametrize("attribute", ["module", "model", "inner"])
@pytest.mark.parametrize("prefix", ["", "module.", "anything."])
def test_a_network_that_is_wrapped_itself_takes_plain_weights(attribute: str, prefix: str, path: Path):
    torch.save(under(prefix, small()), path)
    target = Holder(attribute)
    load_weights(target, path, name="small")
    assert all(torch.equal(target.state_dict()[f"{attribute}.{key}"], value) for key, value in small().items())


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ({**under("student.", small()), **under("teacher.", small(9))}, "student and teacher"),
        ({"state_dict": small(), "model": small(9)}, "state_dict and model"),
        ({"ema": small(), "model_ema": {"swa": small(9)}}, r"ema and model_ema\.swa"),
        ({**small(), **under("module.", small(9))}, "no prefix and module"),
    ],
)
def test_two_complete_sets_are_refused_by_name(content: dict[str, Any], places: str, path: Path):
    torch.save(content, path)
    with refusal(f"holds 2 different complete sets of weights of small, under {places}"):
        load_weights(Small(), path, name="small")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {**under("model.", small()), "model.aux.weight": ONE},
            r"has every key .* 1 unexpected among them \(first: aux.weight",
        ),
        (
            {**small(), "body.ema.conv1x1.weight": torch.ones(4, 4)},
            r"1 unexpected among them \(first: body.ema.conv1x1.weight",
        ),  # a layer
        ({k: v for k, v in under("a.b.", small()).items() if "head" not in k}, r"2 keys missing \(first: head.weight"),
        (
            {**inside("model", small()), **inside("net", small(9)), "head.weight": small()["head.weight"]},
            "two different",
        ),
    ],
)
def test_what_does_not_belong_is_named(content: dict[str, Any], message: str, path: Path):
    torch.save(content, path)
    with refusal(message):
        load_weights(Small(), path, name="small")


def test_a_part_of_a_checkpoint_is_told_as_one(tmp_path: Path):
    half = dict(list(small().items())[:4])
    for name, said in (
        ("m-00001-of-00002.pt", "is part 1 of 2 and lacks 4 keys.*Save all"),
        ("m.pt", "4 keys missing"),
    ):
        torch.save(half, tmp_path / name)
        with refusal(said):
            load_weights(Small(), tmp_path / name, name="small")


def test_mappings_that_hold_each_other_are_read_once(path: Path):
    content: dict[str, Any] = {}
    for _ in range(8):
        content = {str(key): content for key in range(60)}
    torch.save(content | {"model": small()}, path)
    assert load_weights(Small(), path, name="small").nesting == "model"
