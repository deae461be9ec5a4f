"""Methods and views of the user's own at work in a session: what they must keep, what they may give."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from refusals import refusal
from tiny import CLASSES, SIZE, equal, frames, tiny
from torch import Tensor, nn

from allweather import methods
from allweather.errors import CheckpointError, SettingsError
from allweather.methods import Objective, Refined, State, Tent
from allweather.methods.gradient import GradientMethod
from allweather.models.segmenter import Segmenter
from allweather.plugins import own_fault
from allweather.session import Guard, Session
from allweather.session.snapshot import Snapshot

Act = Callable[[Any, State, Any], object]


@dataclass(frozen=True, kw_only=True)
class Own(GradientMethod):
    """Maximises the first class's logit, and does what a test asks of it at one place."""

    name: ClassVar[str] = "own"
    source: ClassVar[str] = "this test"
    place: ClassVar[str] = ""
    act: ClassVar[Act] = staticmethod(lambda model, state, images: None)

    episodic: bool = False
    lr: float = 1e-3

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        state.memory = {"bank": torch.zeros(0, 3), "mean": torch.zeros(3), "count": torch.zeros(())}
        state.output = {"gain": torch.ones(3, 1, 1), "bias": torch.zeros(3, 1, 1)}
        return state

    def objective(self, model: Segmenter, state: State, batch: Any) -> Objective:
        logits = model(batch.images)
        state.memory["mean"] = logits.detach().mean((0, 2, 3))  # another tensor of the same form
        self.do("objective", model, state, batch.images)
        return Objective(logits, -logits[:, 0].mean())

    def predict(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        logits = model(images)
        self.do("predict", model, state, images)
        return logits

    def refine(self, state: State, images: Tensor, logits: Tensor) -> Refined:
        self.do("refine", None, state, images)
        return Refined(logits * state.output["gain"] + state.output["bias"], {"gain": state.output["gain"] * 1.01})

    def after_update(self, model: Segmenter, state: State):
        super().after_update(model, state)
        self.do("after_update", model, state, None)

    def do(self, place: str, model: Any, state: State, images: Any):
        if place == self.place:
            self.act(model, state, images)


def own(where: str, what: Act, **fields: Any) -> Own:
    """The method that does `what` at one place."""

    @dataclass(frozen=True, kw_only=True)
    class Doing(Own):
        name: ClassVar[str] = "own"
        place: ClassVar[str] = where
        act: ClassVar[Act] = staticmethod(what)

    return Doing(**fields)


def all_of(session: Session) -> dict[str, Tensor]:
    """All that moves, and the network's parameters and buffers."""
    return {**session._adapted.snapshot().tensors, **{k: v.clone() for k, v in session.model.state_dict().items()}}


def grow(model: Any, state: State, images: Any):
    state.memory["bank"] = torch.cat([state.memory["bank"], torch.ones(1, 3)])


def late(model: Any, state: State, images: Any):
    state.memory["prototype"] = torch.ones(2)


def late_output(model: Any, state: State, images: Any):
    state.output["shift"] = torch.ones(2)


def gone(model: Any, state: State, images: Any):
    del state.memory["mean"]


def half(model: Any, state: State, images: Any):
    state.memory["mean"] = state.memory["mean"].half()


def number(model: Any, state: State, images: Any):
    state.memory["count"] = 3  # type: ignore[assignment]


def resized(model: Any, state: State, images: Any):
    state.memory["mean"].data = torch.zeros(5)


def parameter(model: Any, state: State, images: Any):
    state.parameters["more"] = nn.Parameter(torch.zeros(1))


MISFITS: dict[Act, str] = {
    grow: r"leaves 1×3 as memory\.bank, where begin declared 0×3\. Declare it in begin, at its full size",
    late: r"leaves 2 as memory\.prototype, where begin declared nothing",
    late_output: r"leaves 2 as output\.shift, where begin declared nothing",
    gone: r"leaves nothing as memory\.mean, where begin declared 3",
    half: r"leaves 3 float16 as memory\.mean, where begin declared 3\.",
    number: r"leaves a int as memory\.count, where begin declared one number",
    resized: r"leaves 5 as memory\.mean, where begin declared 3",
    parameter: r"leaves 1 as parameters\.more, where begin declared nothing",
}


@pytest.mark.parametrize("act", MISFITS, ids=lambda act: act.__name__)
@pytest.mark.parametrize(
    ("place", "episodic"),
    [("objective", False), ("objective", True), ("after_update", False), ("predict", True), ("refine", False)],
)
def test_a_state_that_changes_its_form_is_refused_and_nothing_has_been(place: str, act: Act, episodic: bool):
    doing = {"now": False}

    def once(model: Any, state: State, images: Any):
        if doing["now"]:
            act(model, state, images)

    session, calm = (Session(tiny(), own(place, what, episodic=episodic)) for what in (once, lambda *given: None))
    first, second, third = frames(3)
    session(first), calm(first)
    before, doing["now"] = all_of(session), True
    for call in (session, session.predict if place in ("predict", "refine") else session.adapt):
        with refusal(f"own: {place} {MISFITS[act]}", SettingsError) as caught:
            call(second)
        assert "rotta's bank" in str(caught.value) and equal(all_of(session), before)
    doing["now"] = False
    assert torch.equal(session(third).logits, calm(third).logits)
    session.reset()
    assert equal(all_of(session), all_of(Session(tiny(), own("", once, episodic=episodic))))


@pytest.mark.parametrize("act", MISFITS, ids=lambda act: act.__name__)
def test_the_methods_own_error_is_the_one_that_is_seen(act: Act):
    def fail(model: Any, state: State, images: Any):
        act(model, state, images)
        raise ValueError("a mistake of its own")

    session = Session(tiny(), own("after_update", fail))
    before = all_of(session)
    with pytest.raises(ValueError, match="a mistake of its own"):
        session(frames(1)[0])
    assert equal(all_of(session), before) and session._adapted.updates == 0


HOOKS = ["begin", "make_optimizer", "objective", "predict", "refine", "learning_rate", "after_update", "deployed"]


@pytest.mark.parametrize("hook", [*HOOKS, "view"])
def test_what_a_method_raises_is_told_as_its_own(hook: str):
    wrong: dict[str, Any] = {"name": "own", hook: lambda: None}  # its signature
    kind: Any = dataclass(frozen=True, kw_only=True)(type("Wrong", (Own,), wrong))

    def used():
        session = Session(tiny("batchnorm"), kind(views=("plain", lambda: None)) if hook == "view" else kind())
        session(frames(1)[0])
        session.network()

    with pytest.raises(TypeError) as raised:
        used()
    assert re.match(r"(the method own|own: (a step|\w+)|views: a function) failed: ", own_fault(raised.value) or "")


def test_a_snapshot_comes_back_into_a_state_of_any_form():
    state = State(memory={"bank": torch.zeros(2)}, output={"gain": torch.ones(3)})
    kept, bank = Snapshot.take(state.tensors(), None), state.memory["bank"]
    state.memory = {"late": torch.ones(1), "bank": bank.fill_(5)}
    state.output["gain"] = torch.zeros(4)
    kept.restore(state, None)
    assert state.memory["bank"] is bank and equal(state.tensors(), kept.tensors)
    state.output["gain"].zero_()
    assert torch.equal(kept.tensors["output.gain"], torch.ones(3))


def darker(network: Any, images: Tensor) -> Tensor:
    return network(images.mul_(0.5))


@pytest.mark.parametrize("place", ["objective", "predict", "refine", "view"])
def test_images_changed_in_place_are_refused(place: str):
    views: Any = ("plain", darker, "mirror") if place == "view" else ("plain",)
    who = "views: a function" if place == "view" else f"own: {place}"
    session = Session(tiny(), own(place, lambda model, state, images: images.clamp_(0.4, 0.6), views=views))
    before, image = all_of(session), frames(1)[0]
    with refusal(f"{who} changes its images in place, .*clone them", SettingsError):
        session(image)
    assert equal(all_of(session), before) and torch.equal(image, frames(1)[0])


def test_a_batch_keeps_its_images_and_a_prediction_its_plain_logits():
    @dataclass(frozen=True, kw_only=True)
    class Swaps(Own):
        name: ClassVar[str] = "swaps"

        def objective(self, model: Segmenter, state: State, batch: Any) -> Objective:
            batch.images = batch.images * 0.5
            return super().objective(model, state, batch)

    @dataclass(frozen=True, kw_only=True)
    class Scales(Own):
        name: ClassVar[str] = "scales"

        def refine(self, state: State, images: Tensor, logits: Tensor) -> Refined:
            return Refined(logits.mul_(2))  # which the guard would judge

    with pytest.raises(AttributeError, match="cannot assign to field 'images'"):
        Session(tiny(), Swaps())(frames(1)[0])
    with refusal("scales: refine changes its logits in place", SettingsError):
        Session(tiny(), Scales())(frames(1)[0])


@pytest.mark.parametrize("place", ["objective", "after_update", "predict"])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("part", [False, True])
def test_modes_that_a_method_sets_end_with_its_call(place: str, fails: bool, scripted: bool, part: bool):
    def train(model: Any, state: State, images: Any):
        (model.network if part else model).train()
        if fails:
            raise ValueError("in between")

    model = tiny()
    if scripted:
        traced = torch.jit.trace(model.network, torch.rand(1, 3, *SIZE))
        model = Segmenter.wrap(traced, classes=CLASSES)
    session = Session(model, own(place, train, parameters="all"), guard=False)
    calm = Session(model, own("", train, parameters="all"), guard=False)
    try:
        session(frames(1)[0])
    except ValueError:
        assert fails
    assert not any(module.training for module in session.model.modules())
    session.reset()
    image = frames(2)[1]
    if place != "predict":
        assert torch.equal(session.predict(image), calm.predict(image))


def test_modes_that_begin_chose_stay():
    @dataclass(frozen=True, kw_only=True)
    class Drops(Own):
        name: ClassVar[str] = "drops"

        def begin(self, model: Segmenter) -> State:
            model.network.stem[2].train()  # type: ignore[index]
            return super().begin(model)

    session = Session(tiny(), Drops())
    session(frames(1)[0])
    assert [name for name, part in session.model.named_modules() if part.training] == ["network.stem.2"]


def no_objective() -> Any:
    def objective(self: Any, model: Segmenter, state: State, batch: Any) -> Objective:
        return Objective(model(batch.images))

    return objective


class NoName(GradientMethod):
    source: ClassVar[str] = "this test"
    objective = no_objective()


class NoDataclass(GradientMethod):
    name: ClassVar[str] = "no-dataclass"
    source: ClassVar[str] = "this test"
    lr: float = 0.5
    objective = no_objective()


@dataclass(frozen=True, kw_only=True)
class Inherits(Tent):
    objective = no_objective()


@dataclass(frozen=True, kw_only=True)
class Taken(Tent):
    name: ClassVar[str] = "mall-domain"


@dataclass(frozen=True, kw_only=True)
class NoSource(methods.Method):
    name: ClassVar[str] = "no-source"
    objective = no_objective()

    def begin(self, model: Segmenter) -> State:
        return State()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (NoName, r'NoName: records need a name .* Write in NoName: name: ClassVar\[str\] = "my-method"'),
        (NoDataclass, "write @dataclass.* above the class NoDataclass"),
        (Inherits, "Inherits: records need a name that no other method has"),
        (Taken, "Taken: records need a name that no other method has"),
        (NoSource, "NoSource: say where it comes from"),
    ],
)
def test_a_session_asks_of_a_method_what_make_asks_of_it(kind: Any, said: str):
    with refusal(said, SettingsError):
        Session(tiny(), kind())
    with refusal(said.replace(f"{kind.__name__}: ", ".*"), SettingsError):
        methods.make(f"{__name__}:{kind.__name__}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, r"own: begin must give State\(parameters, …\), got None"),
        ({}, "got a dict"),
        (State(memory={"count": 3}), r"own: begin must give tensors in its State, got a int as memory\.count"),  # type: ignore[dict-item]
    ],
)
def test_begin_gives_a_state(given: Any, said: str):
    @dataclass(frozen=True, kw_only=True)
    class Begins(Own):
        name: ClassVar[str] = "own"

        def begin(self, model: Segmenter) -> State:
            return given

    with refusal(said, SettingsError):
        Session(tiny(), Begins())


def leaving(left: Any, after: int = 0, **fields: Any) -> Own:
    """A method whose predictions leave this in `State.output`, once its first parameters have moved so often."""

    @dataclass(frozen=True, kw_only=True)
    class Leaves(Own):
        name: ClassVar[str] = "leaves"

        def refine(self, state: State, images: Tensor, logits: Tensor) -> Refined:
            return Refined(logits, left if state.memory["count"] >= after else {})

        def after_update(self, model: Segmenter, state: State):
            state.memory["count"] += 1

    return Leaves(**fields)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({"gian": torch.ones(3, 1, 1)}, "3×1×1 as gain, 3×1×1 as bias; got 3×1×1 as gian"),
        ({"gain": torch.ones(7)}, "got 7 as gain"),
        ({"gain": torch.tensor(3.0)}, "got one number as gain"),
        ({"gain": torch.ones(3, 1, 1).half()}, "got 3×1×1 float16 as gain"),
        ({"bias": 2.0}, "got a float as bias"),
        (None, "tensors by name, got None"),
    ],
)
@pytest.mark.parametrize("after", [0, 1])
def test_what_a_prediction_leaves_behind_is_what_was_declared(left: Any, said: str, after: int):
    session = Session(tiny(), leaving(left, after))
    before = all_of(session)
    with refusal(f"leaves: refine must leave as output .*{said}", SettingsError):
        session(frames(1)[0])
    assert equal(all_of(session), before) and session._adapted.updates == 0


NAN = torch.full((3, 1, 1), float("nan"))


@pytest.mark.parametrize("guard", [None, False])
def test_what_is_left_behind_and_not_finite_is_never_taken_up(guard: Any, tmp_path: Path):
    session = Session(tiny(), leaving({"gain": NAN}, 2), guard=guard)
    first, *others = frames(3)
    assert session(first).decision.kind == "accepted"
    before = all_of(session)
    for image in others:
        result = session(image)
        assert result.decision.kind == "skipped" and result.logits.isfinite().all()
        assert result.decision.reason == "what the prediction leaves behind is not finite"
        assert equal(all_of(session), before)
    session.save(tmp_path / "s.safetensors")
    again = Session(tiny(), session.method, guard=guard)
    again.load(tmp_path / "s.safetensors")
    assert equal(all_of(again), before)


def test_part_of_the_way_back_leaves_nothing_that_is_not_finite():
    session, (image,) = Session(tiny(), leaving({}), guard=Guard(closer_look=1)), frames(1)
    prediction = session._adapted.predict(image[None])
    policy, reference = session._policy, session._adapted.source_logits(image[None])
    assert policy.accepts(image[None], reference, prediction)
    assert not policy.accepts(image[None], reference, replace(prediction, output={"gain": NAN}))


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path):
    session, path = Session(tiny(), leaving({})), tmp_path / "s.safetensors"
    session.state.memory["mean"][1] = float("inf")
    with refusal(r"memory\.mean holds numbers that are not finite\. .* reset it", CheckpointError):
        session.save(path)
    assert not path.exists()
    session.reset()
    session.save(path)


def two(network: Any, images: Tensor) -> Tensor:
    return network(images)[:, :2]


def test_a_view_gives_the_networks_classes():
    with refusal(r"views: a function must give logits .*, here 1×3×24×32; got 1×2×24×32", SettingsError):
        Session(tiny(), Tent(views=("plain", two)))(frames(1)[0])
