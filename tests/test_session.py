"""The session: early stopping, guard and rollback, what it refuses, options, and adding a method in one file."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, make_dataclass
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, cast

import pytest
import torch
from PIL import Image
from refusals import refusal
from safetensors.torch import save_file
from tiny import CLASSES, SIZE, frames, moved_names, tiny
from torch import Tensor, nn

from allweather import methods
from allweather.errors import NetworkError, SettingsError
from allweather.methods.gradient import GradientMethod
from allweather.methods.method import Batch, Objective, State
from allweather.methods.stopping import Stopping
from allweather.models.segmenter import Segmenter
from allweather.session import Guard, Session
from allweather.session.guard.signs import compare


@dataclass(frozen=True, kw_only=True)
class Toy(GradientMethod):
    """A method as a user would add it: maximises the first class's logit."""

    name: ClassVar[str] = "toy"
    source: ClassVar[str] = "this test"

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        return Objective(logits, -logits[:, 0].mean())


@pytest.fixture
def table_with_toy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(methods.METHODS, Toy.name, Toy)


def test_a_result_keeps_its_picture_whatever_becomes_of_the_callers_memory():
    session, camera = Session(tiny(), "norm"), torch.zeros(3, *SIZE)
    given = [frame.clone() for frame in frames(3)]
    results = list(session.stream(camera.copy_(frame) for frame in given))
    for result, frame in zip(results, given, strict=True):
        assert result.images is not None and torch.equal(result.images, frame)


def test_a_frame_at_which_the_network_fails_has_not_been():
    class Failing(nn.Module):
        def __init__(self, network: nn.Module):
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[3] == 40:
                raise RuntimeError("never 40 wide")
            return cast(Tensor, self.network(x))

    tried, calm = (
        Session(Segmenter.wrap(Failing(tiny().network), classes=CLASSES), method)
        for method in [methods.make("mall-domain", "fast")] * 2
    )
    for number, frame in enumerate(frames(14)):
        if number % 3 == 1:
            with pytest.raises(RuntimeError, match="never 40 wide"):
                tried(torch.rand(3, 24, 40))
        mine, other = tried(frame), calm(frame)
        assert torch.equal(mine.logits, other.logits) and mine.decision == other.decision


class Refusing(torch.autograd.Function):
    """An operation whose backward pass was never written."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise ValueError("forward only")


class Silent(Refusing):
    """An operation that gives no gradient, as quantized layers do."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        return None


def written_over(x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    y += 1  # sigmoid's gradient needs what it gave
    return y


@pytest.mark.parametrize("method", ["mall-domain", "sar"])
@pytest.mark.parametrize(
    ("last", "why"),
    [
        (written_over, r"can be taken through the network \(.*inplace"),
        (Refusing.apply, r"can be taken through the network \(.*forward only"),
        (Tensor.detach, r"reaches what moves, norm\.weight, norm\.bias: .*parameters=all.*output="),
        (Silent.apply, r"reaches what moves, norm\.weight, norm\.bias: .*quantized"),
    ],
)
def test_a_network_without_a_gradient_is_one_word(method: str, last: Callable[[Tensor], Tensor], why: str):
    class Ungraded(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return last(self.norm(x))

    session = Session(Segmenter.wrap(Ungraded(), classes=CLASSES), method)
    with refusal(f"no gradient {why}", NetworkError):
        session(frames(1)[0])


AMISS: dict[str, tuple[str, Callable[[Tensor], Any], str]] = {
    "nothing": ("objective", lambda x: None, r"toy: objective must give Objective\(logits, loss\), got None"),
    "a tensor": ("objective", lambda x: x, r"Objective\(logits, loss\), got 1×3×24×32"),
    "classes": ("objective", lambda x: Objective(x[:, :2], x.mean()), "here 1×3×24×32; got 1×2×24×32"),
    "another grid": ("objective", lambda x: Objective(x[..., :9], x.mean()), "here 1×3×24×32; got 1×3×24×9"),
    "labels": ("objective", lambda x: Objective(x.argmax(1)), "got 1×24×32 int64"),
    "a loss per class": ("objective", lambda x: Objective(x, x.mean((2, 3))), "as loss one number, .* got 1×3"),
    "a constant": ("objective", lambda x: Objective(x, torch.tensor(1.0)), "toy: .* without a gradient.* loss=None"),
    "a float": ("objective", lambda x: Objective(x, cast(Any, 0.5)), "as loss one number, .* got a float"),
    "watched": ("objective", lambda x: Objective(x, x.mean(), x.mean((1, 2, 3))), "as watched one number, .* got 1"),
    "a prediction": ("predict", lambda x: x[:, :, 0], "toy: predict must give logits B×C×H×W"),
    "no prediction": ("predict", lambda x: None, "toy: predict must .* got None"),
    "refined": ("refine", lambda x: x, r"toy: refine must give Refined\(logits\), got 1×3×24×32"),
}


@pytest.mark.parametrize("case", AMISS)
def test_what_a_method_gives_is_said_where_it_is_not_what_was_expected(case: str):
    what, give, said = AMISS[case]

    @dataclass(frozen=True, kw_only=True)
    class Amiss(Toy):
        name: ClassVar[str] = "toy"

    def given(self: Toy, model: Any, state: Any, images: Any) -> Any:
        logits = images if what == "refine" else model(getattr(images, "images", images))
        return give(logits)

    setattr(Amiss, what, given)
    with refusal(said, SettingsError):
        Session(tiny(), Amiss())(frames(1)[0])


def test_a_method_is_one_class_and_one_table_line(table_with_toy: None):
    method = methods.make("toy", settings={"lr": "0.05", "iterations": "2"})
    result = Session(tiny(), method)(frames(1)[0])
    assert result.iterations == 2 and result.losses[1] < result.losses[0]
    assert methods.describe_fields(Toy)["lr"]["type"] == "number"


def test_values_of_every_kind_are_told_as_json_has_them():
    @dataclass(frozen=True)
    class Part:
        sizes: tuple[int, ...] = (1, 2)

    kinds = {(1, 2): inf, "of": frozenset("ba"), "part": Part(), "map": MappingProxyType({1: Path("a")}), "o": object()}
    made = make_dataclass("Odd", [("must", float), ("kinds", dict, field(default_factory=lambda: kinds))],
                          bases=(Toy,), frozen=True, kw_only=True)  # fmt: skip
    told = methods.describe_fields(made)
    plain = {"1,2": "inf", "of": ["a", "b"], "part": {"sizes": [1, 2]}, "map": {"1": "a"}, "o": "<object object>"}
    assert "default" not in told["must"] and told["kinds"]["default"] == plain
    assert methods.settings_of(made(must=1.0))["kinds"] == plain


@pytest.mark.parametrize(
    ("losses", "rule", "reason"),
    [
        ([1.0], Stopping(tolerance=0.1), None),
        ([1.0, 0.5], Stopping(tolerance=0.1), None),
        ([1.0, 0.95], Stopping(tolerance=0.1), "plateau"),
        ([1.0, 0.95], Stopping(tolerance=0.1, patience=2), None),
        ([1.0, 0.95, 0.94], Stopping(tolerance=0.1, patience=2), "plateau"),
        ([1.0, 1.2], Stopping(rise=0.1), "rise"),
        ([1.0, 1.05], Stopping(rise=0.1), None),
        ([0.0, 0.0], Stopping(tolerance=0.1), "plateau"),
        ([-1.0, -0.5], Stopping(rise=0.1), "rise"),
    ],
)
def test_the_stopping_rule(losses: list[float], rule: Stopping, reason: str | None):
    assert rule.reason(losses) == reason


@dataclass(frozen=True, kw_only=True)
class Scripted(GradientMethod):
    """A method whose loss takes given values, one per iteration, whatever the network does."""

    name: ClassVar[str] = "scripted"
    source: ClassVar[str] = "this test"
    values: tuple[float, ...] = ()
    stopping: ClassVar[Stopping] = Stopping(tolerance=0.2, patience=2, rise=0.5)  # type: ignore[misc]

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        turn = batch.once("turns", lambda: iter(self.values))
        return Objective(logits, logits.mean() + 1.0, watched=torch.tensor(next(turn)))


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ((9.0, 5.0, 4.9, 4.8, 4.7), ("plateau", 3)),
        ((9.0, 5.0, 9.0, 4.8, 4.7), ("rise", 2)),
        ((9.0, 7.0, 5.0, 3.0, 2.0), ("cap", 5)),
    ],
)
def test_iterations_end_at_the_rule_and_at_the_cap(values: tuple[float, ...], outcome: tuple[str, int]):
    result = Session(tiny(), Scripted(values=values, iterations=5))(frames(1)[0])
    assert (result.stop, result.iterations) == outcome
    assert result.watched == pytest.approx(values[: len(result.watched)])


@pytest.mark.parametrize("episodic", [True, False])
def test_collapse_is_rolled_back(episodic: bool):
    hostile = {"lr": 5.0, "iterations": 30, "episodic": episodic}
    model, image = tiny(), frames(1)[0]
    assert Session(model, methods.Tent(**hostile), guard=Guard(enabled=False))(image).decision.kind == "accepted"
    session = Session(model, methods.Tent(**hostile), guard=Guard(max_disagreement=0.2))
    result = session(image)
    assert result.decision.kind == "rolled-back"
    torch.testing.assert_close(result.logits, Session(model, methods.Norm())(image).logits)
    assert not moved_names(session, model)


@pytest.mark.parametrize(
    ("reference", "adapted", "word"),
    [
        ([[4.0, 0, 0], [0, 4, 0], [0, 0, 4]], [[4.0, 0, 0], [4, 0, 0], [4, 0, 0]], "classes collapse"),
        ([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[50.0, 0, 0], [0, 50, 0], [0, 0, 50]], "entropy"),
        ([[4.0, 0, 0], [0, 4, 0], [0, 0, 4]], [[0.0, 4, 0], [0, 0, 4], [4, 0, 0]], "100% of the pixels"),
        ([[4.0, 0, 0], [4, 0, 0], [0, 4, 0]], [[4.0, 0, 0], [0, 4, 0], [0, 4, 0]], "mass moves"),
    ],
)
def test_the_guard_names_what_it_saw(reference: list[list[float]], adapted: list[list[float]], word: str):
    before, after = (torch.tensor(rows).T.reshape(1, 3, 1, 3) for rows in (reference, adapted))
    assert Guard().verdict(compare(before, before)) is None
    assert word in str(Guard().verdict(compare(before, after)))
    assert Guard(enabled=False).verdict(compare(before, after)) is None


def test_an_interruption_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch):
    model = tiny()
    session = Session(model, methods.MallDomain(iterations=3, stop_tolerance=0.0))
    calls = iter([None, KeyboardInterrupt])

    def interrupt(*_: Any):
        if error := next(calls):
            raise error

    monkeypatch.setattr(type(session.method), "after_update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session(frames(1)[0])
    assert not moved_names(session, model)


def test_load_refuses_another_method_network_or_file(tmp_path: Any):
    path = tmp_path / "session.safetensors"
    Session(tiny(), methods.Tent()).save(path)
    for other in (
        Session(tiny(), methods.Tent(lr=1.0)),
        Session(tiny("layernorm"), methods.Tent()),
    ):
        with refusal("was saved with"):
            other.load(path)
    path.write_bytes(path.read_bytes()[:40])
    with refusal("cannot read a session"):
        Session(tiny(), methods.Tent()).load(path)
    save_file({"a": torch.zeros(1)}, path)
    with refusal(r"not one that Session\.save wrote"):
        Session(tiny(), methods.Tent()).load(path)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", ["tent", "cotta", "eata"])
def test_the_callers_autocast_changes_nothing(name: str, precision: Any, tmp_path: Path):
    settings: dict[str, Any] = {"parameters": "all", "lr": 0.01, "episodic": False, "iterations": 3}
    images, found = frames(3), []
    if name == "eata":
        pixels = (images[0].movedim(0, 2) * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / "source.png")
        settings |= {"source_images": str(tmp_path)}
    for around in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with around:
            session = Session(tiny(), methods.make(name, settings=settings), precision=precision, guard=False)
            made = [session(image).logits for image in images]
            found.append(torch.stack([*made, session.predict(images[0]), session.adapt(images[1]).logits]))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["tent", "mall-sample", "mall-domain"])
@pytest.mark.parametrize("option", [{"channels_last": True}, {"precision": "bf16"}])
def test_speed_options_keep_the_labels(name: str, option: dict[str, Any]):
    image = frames(1)[0]
    plain = Session(tiny(), methods.make(name))(image)
    other = Session(tiny(), methods.make(name), **option)(image)
    # an untrained network is undecided at many pixels, so that bf16's 8 bits move some labels; so does the choice of
    # landmarks in MALL's affinity of noise
    exact = "channels_last" in option
    least = (0.999 if exact else 0.95) if name == "tent" else (0.95 if exact else 0.9)
    assert (plain.labels == other.labels).float().mean() > least
    assert other.logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": "1"}, "Did you mean"),
        ({"lr": "fast"}, "expected number, got 'fast'"),
        ({"iterations": "1.5"}, "expected integer"),
        ({"bn": "mix"}, "expected source|mixed"),
        ({"class_weights": "1,2,x"}, "class_weights"),
        ({"episodic": "perhaps"}, "true|false"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], message: str):
    with pytest.raises(SettingsError) as error:
        methods.make("mall-sample", settings=settings)
    assert message in str(error.value)


def test_settings_are_parsed_by_type():
    text = {"lr": "1e-2", "episodic": "true", "share": "none", "class_weights": "1,2,0.5", "rank": "32"}
    chosen = methods.settings_of(methods.make("mall-domain", settings=text))
    assert chosen["lr"] == 0.01 and chosen["episodic"] is True and chosen["share"] is None
    assert chosen["class_weights"] == [1.0, 2.0, 0.5] and chosen["rank"] == 32


@pytest.mark.parametrize("weights", ["uniform", "predicted-mass", "inverse-mass", (1.0, 2.0, 3.0)])
@pytest.mark.parametrize("scores", ["softmax", "log_softmax"])
def test_every_form_of_the_loss_takes_a_step(weights: Any, scores: str):
    settings = {
        "class_weights": weights, "scores": scores, "entropy_weight": 0.5, "diversity_weight": 0.5,
        "feature_sigma": 0.3,
    }  # fmt: skip
    result = Session(tiny(), methods.MallSample(**settings), guard=Guard(enabled=False))(frames(1)[0])
    assert result.iterations == 1 and torch.tensor(result.losses).isfinite().all()


def test_class_weights_of_the_wrong_length_are_named():
    method = methods.make("mall-sample", settings={"class_weights": "1,2"})
    with refusal("expected 3 numbers, one per class, got 2", SettingsError):
        Session(tiny(), method)(frames(1)[0])


def test_a_name_pattern_moves_what_it_names_and_nothing_else():
    method = methods.MallDomain(parameters="head.*")
    model = tiny("none")
    session = Session(model, method)
    session(frames(1)[0])
    moved = moved_names(session, model)
    assert moved and all(name.startswith("head.") for name in moved)
    with refusal("matches nothing in tiny-none", SettingsError):
        Session(model, methods.MallDomain(parameters="neck.*"))


def test_a_network_without_parameters_is_refused_by_name():
    model = Segmenter.wrap(nn.Identity(), classes=CLASSES, name="bare")
    with refusal("bare has none", SettingsError):
        Session(model, methods.Tent())
    assert Session(model, methods.Source())(frames(1)[0]).decision.kind == "accepted"


def test_a_stop_in_train_mode_still_reports_what_the_network_would_predict():
    method = Scripted(values=(5.0, 4.9, 4.8, 4.7), iterations=9, bn="train", share=0.1, episodic=False)
    session = Session(tiny(), method, guard=Guard(enabled=False))
    image = frames(1)[0]
    result = session(image)
    assert result.stop == "plateau"
    torch.testing.assert_close(result.logits, session.predict(image))


def test_a_learning_rate_schedule_begins_anew_after_a_reset_and_leaves_refused_batches_out():
    model, images = tiny(), frames(3)
    settings = {"schedule": "poly", "horizon": 2, "iterations": 2, "lr": 1e-2}
    episodic = Session(model, methods.Tent(**settings), guard=Guard(enabled=False))
    for image in images:
        again = Session(model, methods.Tent(**settings), guard=Guard(enabled=False))
        assert torch.equal(episodic(image).logits, again(image).logits)
    stream = Session(model, methods.Tent(**settings | {"episodic": False, "horizon": 9}))
    stream(images[0])
    updates = stream._adapted.updates
    stream(torch.full_like(images[0], float("nan")))
    assert updates == stream._adapted.updates == 2


@dataclass(frozen=True, kw_only=True)
class Exploding(GradientMethod):
    """A method whose gradient, or whose loss, is not finite from a given iteration on."""

    name: ClassVar[str] = "exploding"
    source: ClassVar[str] = "this test"
    bad_gradient: int = 99
    bad_loss: int = 99
    stop_at: int = 99

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        turns = batch.once("turns", lambda: iter(range(99)))
        turn = next(turns)
        if turn == self.stop_at:
            return Objective(logits)
        loss = logits.float().log_softmax(1)[:, 0].mean()
        if turn == self.bad_gradient:
            loss = loss + (logits - logits).sum().sqrt()  # its derivative at 0 is infinite
        return Objective(logits, loss * float("inf") if turn == self.bad_loss else loss)


EXPLOSIONS: list[dict[str, Any]] = [
    {}, {"bad_gradient": 0}, {"bad_gradient": 1}, {"bad_gradient": 3}, {"bad_gradient": 1, "stop_at": 2},
    {"bad_loss": 0}, {"bad_loss": 2}, {"stop_at": 2}, {"report_after": False},
    {"report_after": False, "bad_gradient": 3},
]  # fmt: skip


@pytest.mark.parametrize("settings", EXPLOSIONS, ids=str)
@pytest.mark.parametrize("episodic", [True, False])
def test_reading_numbers_late_changes_no_result(
    settings: dict[str, Any], episodic: bool, monkeypatch: pytest.MonkeyPatch
):
    def outcomes() -> list[Any]:
        session = Session(tiny(), Exploding(iterations=4, episodic=episodic, lr=1e-3, **settings))
        results = [session(image) for image in frames(3)]
        assert all(parameter.grad is None for parameter in session.model.parameters())
        return [*results, session.predict(frames(1)[0]), session._adapted.updates]

    at_once = outcomes()
    monkeypatch.setattr("allweather.session.steps.queues", lambda device: True)
    late = outcomes()
    for one, other in zip(at_once[:3], late[:3], strict=True):
        assert torch.equal(one.logits, other.logits)
        assert (one.losses, one.watched, one.iterations, one.stop, one.decision) == (
            other.losses, other.watched, other.iterations, other.stop, other.decision
        )  # fmt: skip
        assert one.decision.kind == ("skipped" if {"bad_gradient", "bad_loss"} & settings.keys() else "accepted")
    assert torch.equal(at_once[3], late[3]) and at_once[4] == late[4]
