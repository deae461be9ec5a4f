"""The guard along a stream: when it compares, shrinks, rolls back, resets and rests, and that it survives a restart."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny import frames, tiny
from torch import Tensor
from torch.nn import functional

from allweather import methods
from allweather.errors import SettingsError
from allweather.methods.gradient import GradientMethod
from allweather.methods.method import Batch, Objective, State
from allweather.models.segmenter import Segmenter
from allweather.session import Decision, Guard, Session
from allweather.session.guard.signs import Signs, compare, cuts, mirror_change

PATIENT = Guard(  # judges, and accepts
    min_classes=0, min_entropy=0, max_drift=1, max_disagreement=1, min_kept=0, tolerance=0, mixing="never"
)
FIRM = replace(PATIENT, max_disagreement=0.2, closer_look=1)


@dataclass(frozen=True, kw_only=True)
class Push(GradientMethod):
    """A method that pushes the prediction towards the first class, by `push` at each update."""

    name: ClassVar[str] = "push"
    source: ClassVar[str] = "this test"

    parameters: str = "head.3.bias"
    optimizer: Any = "sgd"
    momentum: float = 0.0
    episodic: bool = False

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        logits = model(batch.images)
        return Objective(logits, -next(iter(state.parameters.values()))[0])


@dataclass(frozen=True, kw_only=True)
class Nudge(Push):
    """A push as strong as the image's first pixel."""

    name: ClassVar[str] = "nudge"

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        found = super().objective(model, state, batch)
        assert found.loss is not None
        return Objective(found.logits, found.loss * batch.images[0, 0, 0, 0])


def nudge(strength: float) -> Tensor:
    image = frames(1)[0]
    image[0, 0, 0] = strength
    return image


def pushed(lr: float, guard: Guard, **settings: Any) -> Session:
    return Session(tiny("batchnorm"), Push(lr=lr, **settings), guard=guard)


def bias(session: Session) -> float:
    """How far the first class's bias has gone."""
    now, source = (model.state_dict()["network.head.3.bias"][0] for model in (session.model, tiny("batchnorm")))
    return float(now - source)


def counted(monkeypatch: pytest.MonkeyPatch, session: Session) -> list[int]:
    """The batches at which the source network was asked."""
    asked: list[int] = []
    plain = session._adapted.source_logits

    def source_logits(images: Tensor) -> Tensor:
        asked.append(session._adapted.updates)
        return plain(images)

    monkeypatch.setattr(session._adapted, "source_logits", source_logits)
    return asked


def test_comparisons_become_rarer_while_all_is_well(monkeypatch: pytest.MonkeyPatch):
    session = pushed(1e-6, replace(PATIENT, every=4))
    asked = counted(monkeypatch, session)
    for _ in range(16):
        assert session(frames(1)[0]).decision.kind == "accepted"
    assert asked == [1, 2, 3, 4, 5, 6, 8, 12, 16]


def test_an_unusual_prediction_is_compared_out_of_turn_and_is_no_good_state(monkeypatch: pytest.MonkeyPatch):
    session = pushed(1e-6, replace(Guard(), max_disagreement=1, max_drift=1, every=50, mixing="never"))
    ordinary, strange = frames(1)[0], torch.rand(3, 24, 32).round()
    for _ in range(3):
        session(ordinary)
    asked, good = counted(monkeypatch, session), session._policy.good
    monkeypatch.setattr(Guard, "unusual", lambda self, classes, entropy: True)
    assert session(strange).decision.kind == "accepted"
    assert len(asked) == 1 and session._policy.good is good


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("accepted", Decision()),
        ("rolled back: 40% of the pixels", Decision("rolled-back", "40% of the pixels")),
        ("rolled-back: a: b", Decision("rolled-back", "a: b")),
        ("shrunk: entropy", Decision("shrunk", "entropy")),
        ("reset: entropy", Decision("reset", "entropy")),
        ("skipped: resting after a reset", Decision("resting", "resting after a reset")),
        ("skipped: the image is constant", Decision("skipped", "the image is constant")),
    ],
)
def test_decisions_are_read_from_records_of_now_and_of_version_0_1(text: str, decision: Decision):
    assert Decision.read(text) == decision == Decision.read(str(decision))
    with pytest.raises(ValueError, match="expected a decision that begins with one of accepted"):
        Decision.read(f"un{text}")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_drift": "a"}, r"Guard\.max_drift: expected number, got 'a'"),
        ({"max_drift": float("nan")}, r"Guard\.max_drift: expected a finite number at least 0 and at most 1, got nan"),
        ({"min_kept": 2.0}, "min_kept"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"halvings": -1}, "halvings"),
        ({"halvings": True}, "halvings: expected integer, got True"),
        ({"rest": 2.5}, "rest: expected integer"),
        ({"strikes": 0}, "strikes"),
        ({"strikes": 11}, r"strikes: expected a finite number at least 1 and at most 10, got 11"),
        ({"every": 0}, "every"),
        ({"max_repeats": 0}, "max_repeats"),
        ({"enabled": "no"}, "enabled"),
        ({"mixing": "x"}, r"mixing: expected stream\|always\|never, got 'x'"),
    ],
    ids=str,
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(limits: dict[str, Any], message: str):
    with pytest.raises(SettingsError, match=message):
        Guard(**limits)


def test_a_constant_image_teaches_nothing():
    session = pushed(0.1, PATIENT)
    assert session(torch.zeros(3, 24, 32)).decision == Decision("skipped", "the image is constant")
    assert bias(session) == 0


def test_an_update_too_large_is_halved_until_it_may_stand():
    image = frames(1)[0]

    def changed(by: float) -> float:
        session = pushed(by, PATIENT)
        before = session.predict(image)
        return compare(before[None], session(image).logits[None]).disagreement

    limit = next(by for by in (0.02 * 1.3**k for k in range(40)) if changed(by) > 0.2)
    result = (session := pushed(1.2 * limit, FIRM))(image)
    assert result.decision.kind == "shrunk" and "leave the reference's label" in result.decision.reason
    assert bias(session) == pytest.approx(0.6 * limit, rel=1e-4)
    assert torch.equal(result.logits, session.predict(image))
    result = (session := pushed(1e4, FIRM))(image)
    assert result.decision.kind == "rolled-back" and bias(session) == 0
    result = (session := pushed(1.2 * limit, replace(FIRM, halvings=0)))(image)
    assert result.decision.kind == "rolled-back" and bias(session) == 0
    session = pushed(1.2 * limit, replace(FIRM, strikes=1))
    assert {session(image).decision.kind for _ in range(12)} == {"shrunk"}  # what could stand in part is no strike


def test_a_method_that_keeps_failing_is_reset_and_rests_ever_longer():
    session, source = pushed(1e4, replace(FIRM, rest=2)), tiny("batchnorm")
    said = [session(frames(1)[0]).decision.kind for _ in range(14)]
    failing = ["rolled-back", "rolled-back", "reset"]
    assert said == [*failing, *["resting"] * 2, *failing, *["resting"] * 4, *failing[:2]]
    session.reset()
    assert session(frames(1)[0]).decision.kind == "rolled-back"
    now, before = session.model.state_dict(), source.state_dict()
    assert all(torch.equal(now[name], before[name]) for name in now)


@pytest.mark.parametrize(("between", "last"), [(7, "reset"), (8, "rolled-back")])
def test_strikes_are_counted_among_the_last_ten_comparisons(between: int, last: str):
    session = Session(tiny("batchnorm"), Nudge(lr=1e4), guard=replace(FIRM, strikes=3, every=1))
    said = [session(nudge(strength)).decision.kind for strength in (1, 1, *[0] * between, 1)]
    assert said == ["rolled-back"] * 2 + ["accepted"] * between + [last]


def test_a_rollback_leads_to_the_last_good_state_and_not_to_the_source():
    session = Session(tiny("batchnorm"), Nudge(lr=1e4), guard=replace(FIRM, halvings=0))
    assert session(nudge(1e-6)).decision.kind == "accepted"
    good = session._adapted.snapshot()
    assert session(nudge(1)).decision.kind == "rolled-back"
    assert bias(session) == pytest.approx(0.01, rel=1e-4) and session._adapted.updates == 1
    now = session._adapted.snapshot()
    assert all(torch.equal(now.tensors[name], value) for name, value in good.tensors.items())


@pytest.mark.parametrize(("settings", "predict", "updates"), [
    ({"report_after": True}, False, 0), ({"report_after": True}, True, 1),
    ({"report_after": False}, False, 0), ({"report_after": False}, True, 0),
    ({"report_after": True, "iterations": 3}, False, 2), ({"report_after": True, "iterations": 3}, True, 3),
    ({"report_after": False, "iterations": 3}, False, 2), ({"report_after": False, "iterations": 3}, True, 2),
    ({"report_after": True, "adapt_scale": 0.5}, False, 1), ({"report_after": False, "adapt_scale": 0.5}, False, 0),
])  # fmt: skip
def test_the_good_state_is_the_one_that_made_the_prediction(settings: dict[str, Any], predict: bool, updates: int):
    session = pushed(1e-6, PATIENT, **settings)
    (session if predict else session.adapt)(frames(1)[0])
    good = session._policy.good
    assert good.updates == updates
    moved = good.tensors["parameters.head.3.bias"][0] - tiny("batchnorm").state_dict()["network.head.3.bias"][0]
    assert float(moved) == pytest.approx(1e-6 * updates, abs=1e-7)


def test_part_of_the_way_back_is_gone_by_teacher_and_student_and_not_by_other_memory():
    settings = {"every": 1, "lr": 0.1, "teacher": 0.5, "bn": "running", "share": 0.5}
    session = Session(tiny("batchnorm"), methods.make("rotta", settings=settings), guard=False)
    adapted, source = session._adapted, session._adapted.source.tensors
    session(frames(1)[0])
    kept = {name: tensor.detach().clone() for name, tensor in session.state.tensors().items()}
    adapted.return_part(adapted.source, 0.25)
    moved = {name for name, tensor in kept.items() if not torch.equal(tensor, source[name])}
    assert moved >= {"parameters.stem.1.weight", "memory.stem.1.weight", "buffers.stem.1.running_mean"}
    assert moved >= {"memory.bank.images", "memory.stream.shares"}
    for name, tensor in session.state.tensors().items():
        stays = name.startswith(("memory.bank", "memory.stream")) or not tensor.is_floating_point()
        expected = kept[name] if stays else 0.75 * kept[name] + 0.25 * source[name]
        torch.testing.assert_close(tensor.detach(), expected)
    assert adapted.optimizer is not None and not adapted.optimizer.state_dict()["state"]


@pytest.mark.parametrize("episodic", [True, False])
@pytest.mark.parametrize(
    "limits", [{"max_disagreement": 0.0}, {"closer_look": -1, "max_flip": 1.001, "max_ncut": 1.001}]
)
def test_what_is_reported_over_the_mirror_image_is_judged_without_it(episodic: bool, limits: dict[str, float]):
    """An update of nothing is no harm, though the mean over both views has other labels than the source alone."""
    settings = {"mirror": True, "lr": 0.0, "episodic": episodic}
    session = Session(tiny("batchnorm"), methods.make("tent", settings=settings), guard=replace(PATIENT, **limits))
    image = frames(1)
    image[..., :16] *= 0.3  # its mirror image is another
    result = session(image)
    assert result.decision == Decision() and result.iterations == 1
    assert compare(session._adapted.source_logits(image), result.logits).disagreement > 0.05


def test_images_on_their_own_are_judged_on_their_own():
    session = pushed(1e4, FIRM, episodic=True)
    said = {session(frames(1)[0]).decision.kind for _ in range(5)}
    assert said == {"rolled-back"}


def test_a_method_that_reports_before_its_update_returns_to_what_was_judged():
    session = pushed(1e4, replace(FIRM, min_classes=0.5, halvings=0), report_after=False)
    assert session(frames(1)[0]).decision.kind == "accepted"  # made by the source network
    assert bias(session) > 1
    assert session(frames(1)[0]).decision.kind == "rolled-back"
    assert bias(session) == 0


def test_a_restart_changes_nothing_the_guard_decides(tmp_path: Path):
    images = frames(12, seed=4)
    guard = replace(FIRM, rest=1, every=3)

    def made() -> Session:
        return Session(tiny("batchnorm"), Push(lr=0.1, optimizer="adam"), guard=guard)

    whole = made()
    expected = [whole(image) for image in images]
    assert len({result.decision.kind for result in expected}) > 1
    for stop in range(1, 12, 2):
        first = made()
        for image in images[:stop]:
            first(image)
        first.save(tmp_path / "session.safetensors")
        second = made()
        second.load(tmp_path / "session.safetensors")
        assert second._policy.good.updates == first._policy.good.updates
        for image, wanted in zip(images[stop:], expected[stop:], strict=True):
            found = second(image)
            assert found.decision == wanted.decision and torch.equal(found.logits, wanted.logits)


def test_mirroring_and_the_normalized_cut_are_looked_at_where_many_labels_differ():
    image = frames(1)[0]
    reasons = {
        "mirroring": replace(PATIENT, closer_look=-1, max_flip=0, halvings=0),
        "normalized cut": replace(PATIENT, closer_look=-1, max_flip=9, max_ncut=0, halvings=0),
    }
    for word, guard in reasons.items():
        assert word in pushed(1e-3, guard)(image).decision.reason
        assert pushed(1e-3, replace(guard, closer_look=1))(image).decision.kind == "accepted"


def test_signs_of_known_predictions():
    first = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 9, 0]]).T.reshape(1, 3, 1, 4)
    other = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 9, 0], [0, 9, 0]]).T.reshape(1, 3, 1, 4)
    same = compare(first, first)
    assert (same.classes, same.entropy, same.drift, same.disagreement) == pytest.approx((1, 1, 0, 0))
    signs = compare(first, other)
    assert signs.disagreement == 0.25 and signs.drift == pytest.approx(0.25, abs=1e-3)
    assert signs.classes == pytest.approx(1.755 / 2, abs=0.01)  # exp of H(¼, ¾) over 2
    assert same.kept == 1 and signs.kept == 0.75  # half of one class and all of the other: 0.5 and 1
    unsure = compare(first / 9, other)
    assert unsure.kept == 1  # nothing that the reference is sure of
    assert float(mirror_change(first, first)) == pytest.approx(2, abs=0.01)
    assert float(mirror_change(first, first.flip(3))) == 0


def test_a_prediction_along_the_images_edge_cuts_less():
    image = torch.zeros(1, 3, 24, 32)
    image[..., 16:] = 1
    along, across = torch.zeros(1, 2, 24, 32), torch.zeros(1, 2, 24, 32)
    along[:, 0, :, :16] = across[:, 0, :12] = 9
    along[:, 1, :, 16:] = across[:, 1, 12:] = 9
    fits, crosses = cuts(image, [along, across])
    assert 0 <= fits < 0.1 < crosses < 1


def test_every_limit_is_named():
    guard, fine = Guard(), Signs(1, 1, 0, 0)
    assert guard.verdict(fine) is None
    for signs, word in (
        (replace(fine, classes=0.1), "classes"), (replace(fine, entropy=0.1), "entropy"),
        (replace(fine, drift=0.9), "mass"), (replace(fine, disagreement=0.9), "label"),
        (replace(fine, kept=0.9), "classes keep 0.90"),
    ):  # fmt: skip
        assert word in str(guard.verdict(signs))
    assert "mirroring" in str(guard.closer_verdict(9, 1)) and "cut" in str(guard.closer_verdict(1, 9))
    assert guard.closer_verdict(1, 1) is None


def test_signs_near_a_limit_bring_the_next_comparison_at_once():
    guard, fine = Guard(min_kept=0.9), Signs(1, 1, 0, 0)
    assert guard.calm(fine) and not guard.calm(replace(fine, kept=0.94))

    class Nervous(Guard):
        def calm(self, signs: Signs) -> bool:
            return False

    intervals = []
    for limits in (PATIENT, Nervous(**asdict(PATIENT))):
        session = pushed(1e-3, limits)
        for image in frames(8):
            assert session(image).decision.kind == "accepted"
        intervals.append(session._policy._history.interval)
    assert intervals == [4, 1]


def test_a_still_image_teaches_a_limited_number_of_times(tmp_path: Path):
    still, other = frames(2)
    session = Session(
        tiny("batchnorm"), methods.make("tent", settings={"episodic": "false"}), guard=Guard(max_repeats=3)
    )
    decisions = [session(still).decision for _ in range(6)]
    assert decisions == [Decision()] * 3 + [Decision("skipped", "the image stands still")] * 3
    session.save(tmp_path / "kept.safetensors")
    resumed = Session(tiny("batchnorm"), session.method, guard=session.guard)
    resumed.load(tmp_path / "kept.safetensors")
    assert resumed(still).decision == Decision("skipped", "the image stands still")
    assert session(other).decision.kind == "accepted" and session(still).decision.kind == "accepted"
    free = Session(tiny("batchnorm"), session.method, guard=Guard(enabled=False, max_repeats=3))
    assert [free(still).decision.kind for _ in range(6)] == ["accepted"] * 6


@pytest.mark.parametrize("name", ["tent", "mall-domain", "cotta"])
def test_a_non_finite_image_amid_a_stream_leaves_no_trace(name: str):
    images = frames(4)
    with_it, without = (Session(tiny("batchnorm"), methods.make(name, settings={"episodic": "false"})) for _ in "ab")
    for index, image in enumerate(images):
        expected = without(image)
        if index == 2:
            assert with_it(torch.full_like(image, float("inf"))).decision == Decision(
                "skipped", "the image is not finite"
            )
        assert torch.equal(with_it(image).logits, expected.logits)


def test_where_replaced_statistics_do_harm_the_prediction_is_averaged_with_that_under_the_sources_own():
    image = frames(1)[0]
    model = tiny("batchnorm")
    settings = {"lr": 0.0, "episodic": False, "bn": "batch"}
    alone = Session(model, methods.make("tent", settings=settings), guard=False)(image).logits.softmax(0)
    own = Session(model, methods.Source())(image).logits.softmax(0)
    for guard, averaged in (
        (replace(PATIENT, mixing="stream", max_mixing=0.0), True),
        (replace(PATIENT, mixing="stream", max_mixing=1e9), False),
        (replace(PATIENT, mixing="never", max_mixing=0.0), False),
    ):
        result = Session(model, methods.make("tent", settings=settings), guard=guard)(image)
        expected = (alone + own) / 2 if averaged else alone
        torch.testing.assert_close(result.logits.softmax(0), expected, atol=1e-6, rtol=1e-5)
        assert result.decision.kind == ("shrunk" if averaged else "accepted")
        assert ("mirroring changes" in result.decision.reason) == averaged


@pytest.mark.parametrize(("mixing", "averaged"), [("stream", False), ("always", True)])
def test_images_on_their_own_are_averaged_on_request(mixing: Any, averaged: bool):
    guard = replace(PATIENT, mixing=mixing, max_mixing=0.0)
    result = Session(tiny("batchnorm"), methods.make("tent"), guard=guard)(frames(1)[0])
    assert (result.decision.kind == "shrunk") == averaged


@pytest.mark.parametrize(("name", "mixing"), [("norm", "always"), ("diga", "stream"), ("diga", "always")])
def test_what_a_method_that_only_mixes_breaks_is_seen_too(name: str, mixing: Any):
    image = frames(1)[0]
    for limit, kind in ((0.0, "shrunk"), (1e9, "accepted")):
        guard = replace(PATIENT, mixing=mixing, max_mixing=limit)
        result = Session(tiny("batchnorm"), methods.make(name), guard=guard)(image)
        assert result.decision.kind == kind
        if name == "norm":
            mixed = Session(tiny("batchnorm"), "norm")(image).logits.softmax(0)
            own = Session(tiny("batchnorm"), "source")(image).logits.softmax(0)
            expected = (mixed + own) / 2 if limit == 0 else mixed
            torch.testing.assert_close(result.logits.softmax(0), expected, atol=1e-6, rtol=1e-5)


def test_statistics_that_are_the_sources_own_are_not_doubted():
    guard = replace(PATIENT, mixing="always", max_mixing=0.0)
    assert (
        Session(tiny("batchnorm"), methods.make("tent", settings={"bn": "source"}), guard=guard)(frames(1)[0]).decision
        == Decision()
    )
    assert Session(tiny("layernorm"), methods.make("tent"), guard=guard)(frames(1)[0]).decision == Decision()


def test_after_a_doubt_the_next_frame_is_compared():
    session = Session(
        tiny("batchnorm"),
        methods.make("tent", settings={"episodic": False, "lr": 1e-6}),
        guard=replace(PATIENT, mixing="stream", max_mixing=0.0),
    )
    assert {session(image).decision.kind for image in frames(9)} == {"shrunk"}


@pytest.mark.parametrize(("mixing", "looks"), [("stream", 8), ("always", 12), ("never", 0)])
def test_mixing_is_looked_at_with_every_comparison_or_every_batch(
    mixing: Any, looks: int, monkeypatch: pytest.MonkeyPatch
):
    seen: list[float] = []
    monkeypatch.setattr(Guard, "mixing_verdict", lambda self, ratio: seen.append(ratio))
    guard = replace(PATIENT, mixing=mixing, every=8)
    session = Session(tiny("batchnorm"), methods.make("tent", settings={"episodic": False, "lr": 1e-6}), guard=guard)
    left = [(session(image), session._policy._history.wait)[1] for image in frames(12)]
    assert len(seen) == looks and left[-1] == 7  # what is not compared is counted all the same


def test_replaced_statistics_are_looked_at_on_request_alone():
    assert not any(Guard().looks_at_mixing(stream=stream) for stream in (True, False))


def test_no_limit_counts_where_little_more_changes_than_under_mirroring():
    guard, harm = Guard(tolerance=1.5), Signs(classes=0.1, entropy=0.1, drift=0.9, disagreement=0.3, kept=0.1, left=0.3)
    assert guard.verdict(harm, replace(harm, disagreement=0.21)) is None
    assert guard.verdict(harm, replace(harm, disagreement=0.19)) is not None
    assert guard.verdict(harm, replace(harm, left=0.29)) is not None
    assert guard.verdict(harm) is not None


def test_a_rare_class_that_is_lost_weighs_as_much_as_a_large_one():
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)
    labels[:, :8, :8] = 1
    reference, shifted = (functional.one_hot(each, 3).permute(0, 3, 1, 2) * 9.0 for each in (labels, labels.roll(4, 2)))
    lost = functional.one_hot(torch.zeros_like(labels), 3).permute(0, 3, 1, 2) * 9.0
    signs, noise = compare(reference, lost), compare(reference, shifted)
    assert signs.disagreement == pytest.approx(noise.disagreement)  # 64 pixels each
    assert (signs.left, noise.left) == pytest.approx((0.5, (0.5 + 32 / 4032) / 2))
    assert Guard().verdict(signs, noise) is not None
    assert Guard().verdict(noise, noise) is None


def test_a_network_that_mirroring_unsettles_is_not_called_harmed():
    image = frames(1)[0]
    firm = replace(FIRM, halvings=0, max_disagreement=0.05)
    refused, accepted = (
        pushed(0.5, replace(firm, tolerance=tolerance, class_tolerance=1e3))(image).decision for tolerance in (0.0, 1e3)
    )
    assert (refused.kind, accepted.kind) == ("rolled-back", "accepted")
