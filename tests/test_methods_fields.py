"""Every hyperparameter acts or is refused by name, and every value is checked; run over the whole table of methods."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from PIL import Image
from tiny import frames, tiny
from torch import Tensor

from allweather import methods
from allweather.errors import AllWeatherError, SettingsError
from allweather.methods.option import option
from allweather.session import Guard, Session

# what makes a method learn from noise within three frames, so that its fields can be seen at work
VISIBLE: dict[str, dict[str, Any]] = {
    "eta": {"margin": 1.0},
    "eata": {"margin": 1.0},
    "sar": {"margin": 1.0},
    "pseudo-label": {"threshold": 0.2},
    "augco": {"threshold": 0.3},
    "self-adaptive": {"threshold": 0.3},
    "cotta": {"lr": 1e-2},
    "rotta": {"every": 1, "lr": 1e-2, "teacher": 0.9},
    "diga": {"threshold": 0.3},
}
FALLS = {"ncut_weight": 5.0, "entropy_weight": 0.0, "diversity_weight": 0.0}  # the normalized cut falls from the start
# other fields that must be set for a field to act, where the method's own do not let it
CONTEXT: dict[tuple[str, str], dict[str, Any]] = {
    ("*", "horizon"): {"episodic": False, "schedule": "poly"},
    ("*", "schedule"): {"episodic": False},
    ("*", "momentum"): {"episodic": False},
    ("*", "adapt_every"): {"episodic": False},
    ("*", "lookahead"): {"report_after": True},
    ("*", "surest"): {"views": ("plain", "mirror")},
    ("*", "episodic"): {"report_after": True},
    ("eta", "momentum"): {"episodic": False, "redundancy": -1.0},
    ("eta", "schedule"): {"episodic": False, "redundancy": -1.0},
    ("eta", "horizon"): {"episodic": False, "redundancy": -1.0, "schedule": "poly"},
    ("eta", "redundancy"): {"episodic": False},
    ("eta", "decay"): {"episodic": False, "redundancy": 1.2e-5},
    ("eta", "sample"): {"episodic": False, "redundancy": 0.99},
    ("eta", "adapt_every"): {"episodic": False, "redundancy": -1.0},
    ("eata", "adapt_every"): {"redundancy": -1.0},
    ("eata", "sample"): {"redundancy": 0.99},
    ("cotta", "unsure"): {"threshold": 0.38},
    ("eata", "momentum"): {"redundancy": -1.0},
    ("eata", "schedule"): {"redundancy": -1.0},
    ("eata", "horizon"): {"redundancy": -1.0, "schedule": "poly"},
    ("eata", "decay"): {"redundancy": 1.2e-5, "report_after": True, "lr": 5e-4},
    ("eata", "penalty"): {"source_images": "images", "redundancy": -1.0},
    ("eata", "source_count"): {"source_images": "images", "redundancy": -1.0},
    ("eata", "source_images"): {"redundancy": -1.0},
    ("sar", "recover"): {"episodic": False},
    ("sar", "decay"): {"episodic": False, "recover": 1.0932},
    ("mall-sample", "vector_memory"): {"episodic": False},
    ("mall-sample", "iterations"): {"lr": 1.0, **FALLS},
    ("mall-domain", "iterations"): {"lr": 1.0, **FALLS},
    ("*", "stop_tolerance"): {"iterations": 6, "lr": 1.0, **FALLS},
    ("*", "stop_patience"): {"iterations": 6, "stop_tolerance": 1.0, **FALLS},
    ("*", "stop_rise"): {"iterations": 6, "lr": 1.0, "stop_tolerance": 0.0},
}
CANDIDATES: dict[str, tuple[Any, ...]] = {
    "parameters": ("all", "head.*"),
    "redundancy": (-1.0, 1.9),
    "adapt_scale": (0.5,),
    "views": (("plain", "gamma"), ("plain", "source-mirror")),
    "threshold": (0.0, 0.99),
    "horizon": (2,),
    "decay": (0.0,),
    "source_count": (1,),
    "stop_tolerance": (0.0, 1.0),
    "stop_rise": (0.0, 99.0),
    "side": (16,),
    "capacity": (1,),
    "recover": (10.0,),
    "class_weights": ("predicted-mass", "inverse-mass", (1.0, 2.0, 3.0)),
    "rank": (2,),
    "max_rank": (1,),
    "scales": ((0.5, 1.0),),
    "source_images": ("images",),
    "weight_decay": (0.5,),
    "penalty": (0.0, 1e6),
}
EVERY_FIELD = [(name, field) for name, method in methods.METHODS.items() for field in methods.describe_fields(method)]


def alternatives(name: str, field: str, default: Any) -> tuple[Any, ...]:
    """Other valid values of a field."""
    if field in CANDIDATES:
        return tuple(value for value in CANDIDATES[field] if value != default)
    method = methods.METHODS[name]
    hint = get_type_hints(method)[field]
    if get_origin(hint) is Literal:
        return tuple(value for value in get_args(hint) if value != default)
    if isinstance(default, bool):
        return (not default,)
    limits = next(entry.metadata for entry in fields(method) if entry.name == field)
    if isinstance(default, int):
        return (default + 2,)
    low, high = max(limits["low"], limits["above"]), min(limits["high"], inf)
    number = 0.3 if default is None else default
    found = {number / 2 + (0.1 if low == 0 and number == 0 else 0), number * 1.5 + 0.05, min(high, 0.99)}
    return tuple(value for value in sorted(found) if low < value <= high and value != default)


def three_steps(name: str, settings: dict[str, Any]) -> Iterator[Tensor]:
    """What each of three frames gives, as they are asked for."""
    model = tiny("batchnorm")
    session = Session(model, methods.make(name, settings=settings), guard=Guard(enabled=False))
    return (session(frame).logits for frame in frames(3))


@cache
def unchanged(name: str, settings: tuple[tuple[str, Any], ...]) -> list[Tensor]:
    """What `three_steps` gives, worked out once for all fields that start from the same settings."""
    return list(three_steps(name, dict(settings)))


def acts(name: str, base: dict[str, Any], field: str) -> bool:
    """Whether any other value of the field changes what three frames give; the first that differs is enough."""
    method = methods.make(name, settings=base)
    before = unchanged(name, tuple(base.items()))
    for value in alternatives(name, field, getattr(method, field)):
        after = three_steps(name, base | {field: value})
        if not all(torch.equal(one, other) for one, other in zip(before, after, strict=True)):
            return True
    return False


def refusal(name: str, base: dict[str, Any], field: str) -> str | None:
    """What is said to another value of the field."""
    value = alternatives(name, field, getattr(methods.make(name, settings=base), field))[0]
    try:
        methods.make(name, settings=base | {field: value})
    except AllWeatherError as error:
        return str(error)
    return None


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for index, frame in enumerate(frames(3, seed=7)):
        pixels = (frame * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"images/{index}.png")


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(("name", "field"), EVERY_FIELD, ids=lambda value: value)
def test_a_field_acts_or_is_refused_by_name(name: str, field: str):
    base = VISIBLE.get(name, {})
    if field == "episodic":
        base = {key: value for key, value in base.items() if key != "every"}
    context = CONTEXT.get((name, field), CONTEXT.get(("*", field)))
    context = context and {
        key: value for key, value in context.items() if key in methods.describe_fields(methods.METHODS[name])
    }
    refused = refusal(name, base, field)
    if refused is not None:
        assert f"{name}.{field}=" in refused or f"{name}: with episodic" in refused
        if field in methods.METHODS[name].without or "would never be seen" in refused:
            return
        assert context, "a field that is refused must act where its need is met"
    assert acts(name, base | (context or {}), field)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cotta", {"lookahead": 0.1}, "cotta.lookahead=0.1 would change nothing: the teacher predicts"),
        ("rotta", {"lookahead": 0.1}, "rotta.lookahead=0.1 would change nothing"),
        ("tent", {"report_after": False, "episodic": False, "lookahead": 0.1}, "it needs report_after=true"),
        ("tent", {"report_after": False}, "the update would never be seen"),
        ("tent", {"bn": "batch", "share": 0.3}, "tent.share=0.3 would change nothing: it needs bn=mixed|running|train"),
        ("tent", {"horizon": 5}, "tent.horizon=5 would change nothing: it needs schedule=poly"),
        ("tent", {"momentum": 0.5}, "tent.momentum=0.5 would change nothing: it needs episodic=false or iterations"),
        ("mall-sample", {"stop_rise": 0.5}, "mall-sample.stop_rise=0.5 would change nothing: it needs iterations"),
        ("mall-sample", {"rank": 8, "max_rank": 9}, "mall-sample.max_rank=9 would change nothing: it needs rank=auto"),
        ("eta", {"redundancy": 0.2}, "eta.redundancy=0.2 would change nothing: it needs episodic=false"),
        ("eata", {"penalty": 3.0}, "eata.penalty=3.0 would change nothing: it needs source_images"),
        ("tent", {"lr": -1.0}, "tent.lr: expected a finite number at least 0, got -1.0"),
        ("tent", {"lr": inf}, "tent.lr: expected a finite number"),
        ("tent", {"iterations": 0}, "tent.iterations: expected a finite number at least 1, got 0"),
        ("mall-domain", {"anchor": 1.5}, "mall-domain.anchor: expected a finite number at least 0 and at most 1"),
        ("mall-domain", {"scale": 0.0}, "mall-domain.scale: expected a finite number above 0 and at most 1"),
        ("self-adaptive", {"scales": (1.0, 0.0)}, "scales: expected a finite number above 0, got 1.0,0.0"),
        ("rotta", {"capacity": 0}, "rotta.capacity: expected a finite number at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_value_that_could_not_act_or_is_out_of_range_is_named(name: str, settings: dict[str, Any], message: str):
    with pytest.raises(SettingsError) as by_name:
        methods.make(name, settings=settings)
    with pytest.raises(SettingsError) as by_class:
        methods.METHODS[name](**settings)
    assert message in str(by_name.value) and message in str(by_class.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": "1"}, "tent.lr: expected number, got '1'. Write lr=1.0."),
        ({"episodic": 1}, "tent.episodic: expected true|false, got 1."),
        ({"iterations": 2.0}, "tent.iterations: expected integer, got 2.0."),
        ({"iterations": True}, "tent.iterations: expected integer, got True."),
        ({"bn": "mix"}, "tent.bn: expected source|mixed|batch|running|train, got 'mix'."),
        ({"share": "none"}, "tent.share: expected number|none, got 'none'. Write share=None."),
        (
            {"views": "plain,mirror"},
            "tent.views: expected a tuple of text or functions, got 'plain,mirror'. Write views=('plain', 'mirror').",
        ),
        ({"views": ["plain"]}, "expected a tuple of text or functions, got ['plain']. Write views=('plain',)."),
    ],
)
def test_the_constructor_converts_nothing(settings: dict[str, Any], message: str):
    with pytest.raises(SettingsError) as error:
        methods.Tent(**settings)
    assert message in str(error.value)


SEVERAL = [
    (name, field) for name, method in methods.METHODS.items() for field, kind in get_type_hints(method).items()
    if get_origin(kind) is tuple or any(get_origin(option) is tuple for option in get_args(kind))
]  # fmt: skip


@pytest.mark.parametrize(("name", "field"), SEVERAL)
def test_a_field_of_several_values_takes_a_tuple_of_one_at_least(name: str, field: str):
    for made in (methods.METHODS[name], lambda **values: methods.make(name, settings=values)):
        with pytest.raises(SettingsError, match=rf"{name}\.{field}: expected at least one value, got none"):
            made(**{field: ()})
    for text in ("0.5,1", ["0.5", "1"]):
        with pytest.raises(SettingsError, match=rf"{name}\.{field}: expected .*a tuple of .*\. Write {field}=\("):
            methods.METHODS[name](**{field: text})
    with pytest.raises(SettingsError, match=rf"{name}\.{field}: expected .*a tuple of .*, got 3\.$"):
        methods.METHODS[name](**{field: 3})


def test_a_field_may_be_empty_where_its_default_is():
    @dataclass(frozen=True, kw_only=True)
    class Marked(methods.Tent):
        marks: tuple[float, ...] = option((), "numbers")

    assert Marked().marks == Marked(marks=()).marks == ()


@pytest.mark.parametrize(
    ("name", "fields", "norm"), [("tent", {"bn": "source"}, "layernorm"), ("mall-domain", {"share": 0.3}, "none")]
)
def test_statistics_cannot_be_chosen_for_a_network_that_has_none(name: str, fields: dict[str, Any], norm: str):
    method = methods.make(name, settings={"parameters": "all", **fields})
    with pytest.raises(SettingsError, match=rf"{name}\.\w+=.* would change nothing: tiny-{norm} has no BatchNorm"):
        Session(tiny(norm), method)


def test_a_share_moves_the_running_statistics_of_train_mode():
    def moved(share: float) -> Tensor:
        model = tiny("batchnorm")
        before = model.network.stem[1].running_mean.clone()
        settings = {"bn": "train", "share": share, "episodic": False, "lr": 0.0}
        session = Session(model, methods.make("tent", settings=settings), guard=False)
        session(frames(1)[0])
        return session.state.buffers["stem.1.running_mean"] - before

    torch.testing.assert_close(moved(0.4), 4 * moved(0.1))


def test_a_method_without_presets_has_none_but_recommended(monkeypatch: pytest.MonkeyPatch):
    class Bare(methods.Tent):
        name = "bare"
        presets = {}  # noqa: RUF012

    monkeypatch.setitem(methods.METHODS, "bare", Bare)
    assert methods.make("bare") == Bare()
    with pytest.raises(SettingsError, match=r"unknown preset of bare 'paper'.*Known: recommended"):
        methods.make("bare", "paper")


WRONG: list[tuple[dict[str, Any], str]] = [
    *(({"guard": guard}, "expected a Guard, or False") for guard in ("off", 0, 1.0, {})),
    *(
        ({"seed": seed}, r"seed: expected an integer of −2\^63 to 2\^64 − 1, got")
        for seed in (2**64, 2**70, -(2**63) - 1, 1.0, "1", True)
    ),
    *(({"compile": value}, "Session.compile: expected True or False, got") for value in ("no", 1, None)),
    *(({"channels_last": value}, "Session.channels_last: expected True or False, got") for value in ("no", 0)),
    *(({"shift": shift}, "Session.shift: expected a Shift") for shift in (3, 0, False, "start", {})),
    ({"shift": 3, "adapt_when": "shift"}, "Session.shift: expected a Shift"),
    *(({"precision": value}, "unknown precision") for value in (3, None, ["bf16"])),
    *(({"adapt_when": value}, "unknown adapt_when") for value in (3, None)),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=[str(options) for options, _ in WRONG])
def test_a_session_of_another_types_setting_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(SettingsError, match=said):
        Session(tiny("batchnorm"), methods.Tent(), **options)


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**64 - 1])
def test_every_seed_that_a_generator_takes_is_taken(seed: int):
    assert Session(tiny("batchnorm"), methods.Tent(), seed=seed).seed == seed


def test_a_guard_can_be_switched_off_in_a_word():
    assert Session(tiny("batchnorm"), methods.Tent(), guard=False).guard == Guard(enabled=False)
    assert Session(tiny("batchnorm"), methods.Tent(), guard=True).guard == Guard()
