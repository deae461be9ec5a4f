"""Live with simulated time: nothing is predicted too late, nothing waits for learning, every state is a judged one."""

import gc
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from threading import Condition
from typing import Any, ClassVar

import pytest
import torch
from refusals import refusal
from simulated import Scripted, SimulatedClock, Slow, Timing, image_of
from tiny import tiny

from allweather import Guard, InputError, Live, Segmenter, Session, SettingsError, methods
from allweather.data.json_lines import read_json_lines
from allweather.live import Event, LiveFrame
from allweather.live import live as door
from allweather.live.learner import LearnerLost
from allweather.live.sources import Lost
from allweather.methods.method import Batch, Objective, State
from allweather.session import Shift
from allweather.session.handover import serve, state_of

TICK = 1e-9


@pytest.fixture
def clock() -> Iterator[SimulatedClock]:
    Timing.clock = SimulatedClock()
    Timing.predict, Timing.learn = 0.1, 0.25
    yield Timing.clock
    Timing.predict = Timing.learn = 0.0


def session_of(**options: Any) -> Session:
    return Session(tiny(), Slow(), **{"guard": False, **options})


def play(clock: SimulatedClock, script: Any, session: Session | None = None, **options: Any) -> tuple[list[Any], Live]:
    """All frames of one run over a stream that ends."""
    source = Scripted(clock, script, endless=False) if isinstance(script, list) else script
    live = Live(source, session or session_of(), clock=clock, learner="thread", **options)
    return list(live), live


@pytest.mark.parametrize("budget", [0.02, 0.04, 0.5, None])
@pytest.mark.parametrize(
    "script",
    [[0.01] * 80, [0.033] * 60, [0.09] * 30, [0.1] * 30, [0.15] * 20, [0.3] * 10, [0.5, *[0.001] * 40, 0.4] * 3],
    ids=["100/s", "30/s", "11/s", "10/s", "7/s", "3/s", "bursts"],
)
def test_no_frame_is_older_than_budget_and_one_prediction(
    clock: SimulatedClock, script: list[float], budget: float | None
):
    shown, live = play(clock, script, budget=budget)
    assert shown
    for frame in shown:
        assert 0 <= frame.age <= (budget if budget is not None else 0.1) + TICK
        assert frame.latency == pytest.approx(frame.age + 0.1)  # learning takes 0.35: no prediction waited for it
        came = sum(at < frame.arrival + frame.age - TICK for at in accumulate(script))
        assert frame.index >= came - 1, "the newest frame wins"
    gaps = [frame.index - before for frame, before in zip(shown, [-1, *(f.index for f in shown)], strict=False)]
    assert [frame.dropped for frame in shown] == [gap - 1 for gap in gaps]
    totals = live.totals
    assert (totals.arrived, totals.predicted) == (len(script), len(shown))
    assert totals.predicted + totals.dropped == totals.arrived
    assert totals.learnt >= 1


def test_a_budget_drops_what_waited_too_long(clock: SimulatedClock):
    script = [0.0, 0.03, 0.2, 0.2]  # the second waits 0.07 s for the first one's prediction
    assert [frame.index for frame in play(clock, script)[0]] == [0, 1, 2, 3]
    shown, live = play(clock, script, budget=0.06)
    assert [frame.index for frame in shown] == [0, 2, 3] and live.totals.dropped == 1


def test_the_state_that_predicts_is_the_newest_that_was_handed_over(clock: SimulatedClock, tmp_path: Path):
    session = session_of()
    start = state_of(session)
    shown, live = play(clock, [0.12] * 30, session, record=tmp_path / "run.jsonl")
    learnt = [frame.index for frame in shown if not frame.why]
    assert len(learnt) == live.totals.learnt == live.totals.states >= 5
    again, states = session_of(), [start]
    for index in learnt:
        again(image_of(index))
        states.append(state_of(again))
    assert live.totals.states == len(states) - 1
    assert {frame.state for frame in shown} >= set(range(len(states) - 1))  # all but perhaps the last
    for frame in shown:
        serve(again, states[frame.state])
        assert torch.equal(again.predict(image_of(frame.index)), frame.result.logits)
    assert {frame.state for frame in shown} >= set(range(len(learnt)))  # each was served, none skipped
    # a prediction and a step of learning take 0.45 s: a frame's state shows four frames later
    assert all(frame.state == sum(index + 4 <= frame.index for index in learnt) for frame in shown)
    assert torch.equal(session.predict(image_of(0)), _predicted(states[-1]))  # the caller's session has learnt it all


@pytest.mark.parametrize(("threshold", "states"), [(0.0, [1, 2, 3]), (1.0, [0, 0, 0])])
def test_a_frame_without_a_shift_makes_no_state(clock: SimulatedClock, threshold: float, states: list[int]):
    session = session_of(adapt_when="shift", shift=Shift(threshold=threshold, smoothing=0))
    shown, live = play(clock, [0.5] * 3, session, wait=True)
    assert [frame.state for frame in shown] == states
    assert live.totals.learnt == live.totals.states == states[-1] and live.totals.decisions == {"accepted": 3}


@dataclass(frozen=True, kw_only=True)
class Choosy(Slow):
    """Finds something to learn from in every other frame, and remembers all."""

    name: ClassVar[str] = "choosy"

    def begin(self, model: Segmenter) -> State:
        return replace(super().begin(model), memory={"seen": torch.zeros(())})

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        state.memory["seen"] += 1
        made = super().objective(model, state, batch)
        return made if state.memory["seen"] % 2 == 0 else Objective(made.logits)


@pytest.mark.parametrize("wait", [True, False])
def test_only_an_update_counts_as_learnt_where_parameters_move(clock: SimulatedClock, tmp_path: Path, wait: bool):
    path, session = tmp_path / "run.jsonl", Session(tiny(), Choosy(), guard=False)
    _, live = play(clock, [0.5] * 6, session, wait=wait, record=path)
    lines = [line for line in read_json_lines(path) if line["kind"] == "frame"]
    assert [line["adapted"] for line in lines] == [False, True] * 3
    assert lines[0]["why"] == "nothing was found to learn from" and "why" not in lines[1]
    assert live.totals.learnt == session._adapted.updates == 3 and live.totals.decisions == {"accepted": 6}


def _predicted(state: Any) -> torch.Tensor:
    session = session_of()
    serve(session, state)
    return session.predict(image_of(0))


@dataclass(frozen=True, kw_only=True)
class Wild(Slow):
    """Learns so fast that the guard takes steps back."""

    name: ClassVar[str] = "wild"


@pytest.mark.parametrize("guard", [Guard(every=1), Guard(every=1, halvings=0), Guard(every=1, halvings=0, strikes=2)])
def test_what_the_guard_took_back_is_never_predicted_with(clock: SimulatedClock, guard: Guard):
    def make() -> Session:
        return Session(tiny(), Wild(lr=0.03), guard=guard)

    shown, live = play(clock, [0.5] * 40, make())
    assert {"accepted", "rolled-back", "reset", "resting"} <= live.totals.decisions.keys()
    again = make()
    source = state_of(again)
    states = [source]
    for frame in shown:
        if not frame.why:
            result = again(image_of(frame.index))
            if result.decision.kind not in ("skipped", "resting"):
                states.append(state_of(again))
            if result.decision.kind == "reset":
                assert all(torch.equal(states[-1].tensors[name], source.tensors[name]) for name in source.tensors)
    for frame in shown:
        serve(again, states[frame.state])
        assert torch.equal(again.predict(image_of(frame.index)), frame.result.logits)


@pytest.mark.parametrize(("every", "apart"), [(1, 4), (6, 6), (10, 10)])
def test_learning_keeps_to_one_frame_in_so_many(clock: SimulatedClock, every: int, apart: int):
    shown, _ = play(clock, [0.1] * 60, adapt_every=every)
    learnt = [frame.index for frame in shown if not frame.why]
    assert {b - a for a, b in pairwise(learnt)} == {apart}
    assert {frame.why for frame in shown} - {""} <= {"the learner is busy", f"one in {every} is learnt from"}


def test_memory_stays_flat_over_three_thousand_frames(clock: SimulatedClock):
    Timing.learn = 5.0
    live = Live(Scripted(clock, [0.1] * 3001, endless=False), session_of(), clock=clock, learner="thread")
    sizes = {}
    for shown in live:
        if shown.index in (600, 3000):
            gc.collect()
            sizes[shown.index] = sys.getallocatedblocks(), _tensors()
    assert live.totals.predicted == 3001 and live.totals.learnt > 30
    assert sizes[3000][0] - sizes[600][0] < 1000 and sizes[3000][1] <= sizes[600][1] + 20, sizes


def _tensors() -> int:
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


def test_a_stream_that_breaks_off_is_tried_again_after_growing_pauses(clock: SimulatedClock, tmp_path: Path):
    Timing.predict = Timing.learn = 0.0
    events: list[Event] = []
    refused = InputError("scripted: cannot be opened (Connection refused).")
    source = Scripted(
        clock, [0.2] * 3 + [Lost("no picture for 30 s")], refused, refused, [0.2] * 2, refused, refused, refused
    )
    shown, live = play(
        clock, source, reconnect=3, on_event=events.append, record=tmp_path / "run.jsonl"
    )  # fmt: skip
    assert [frame.name for frame in shown] == [f"{number:06d}" for number in range(5)]
    told = [(event.kind, round(event.seconds, 3)) for event in events]
    assert told == [
        ("lost", 0.6), ("lost", 1.1), ("lost", 2.1), ("back", 4.3), ("lost", 4.5), ("lost", 5.0), ("lost", 6.0),
        ("gave-up", 8.0),
    ]  # fmt: skip
    assert "no picture for 30 s; trying again in 0.5 s" in events[0].text
    assert "scripted: cannot be opened (Connection refused); trying again in 1 s" in events[1].text
    assert "the stream ended; trying again" in events[4].text
    assert live.totals.failures == 1 and live.totals.events["lost"] == 6
    lines = read_json_lines(tmp_path / "run.jsonl")
    assert [line["event"] for line in lines if line["kind"] == "event"] == [kind for kind, _ in told]


@pytest.mark.parametrize(
    ("last", "failures"), [([], 0), ([Lost("no picture for 30 s")], 1)], ids=["it ends", "it stops"]
)
def test_without_tries_a_stream_may_end_but_not_stop(clock: SimulatedClock, last: list[Any], failures: int):
    shown, live = play(clock, Scripted(clock, [0.2] * 3 + last), reconnect=0)
    assert len(shown) == 3 and live.totals.failures == failures


def test_a_stream_refused_at_once_is_an_error(clock: SimulatedClock):
    with refusal("refused", InputError):
        play(clock, Scripted(clock, InputError("scripted: refused.")))


def test_frames_of_another_size_are_told_once(clock: SimulatedClock):
    events: list[Event] = []
    shown, live = play(clock, [0.2, 0.2, (48, 24), 0.2, 0.2], on_event=events.append)
    assert [tuple(frame.result.logits.shape[1:]) for frame in shown] == [(24, 32)] * 2 + [(24, 48)] * 2
    assert [event.text for event in events] == ["scripted: frames are 48×24 from frame 2 on, 32×24 before"]
    assert not live.totals.failures and shown[3].overlay().shape == (24, 48, 3)


def test_an_interruption_leaves_a_whole_record_and_a_usable_session(clock: SimulatedClock, tmp_path: Path):
    session, path = session_of(), tmp_path / "run.jsonl"
    live = Live(Scripted(clock, [0.1] * 50), session, clock=clock, learner="thread", record=path)
    frames = iter(live)
    first: list[LiveFrame] = [next(frames) for _ in range(8)]
    with pytest.raises(KeyboardInterrupt):
        frames.throw(KeyboardInterrupt)
    lines = read_json_lines(path)
    assert [line["kind"] for line in lines] == ["run", *["frame"] * 8, "end"]
    assert {line["frame"] for line in lines[1:-1]} == {frame.index for frame in first}
    assert lines[-1]["why"] == "interrupted" and lines[-1]["predicted"] == 8
    assert lines[-1]["learnt"] == sum(line["adapted"] for line in lines[1:-1]) == session._adapted.updates > 0
    assert session(image_of(99)).iterations == 1


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("made", ["Record", "deepcopy", "Learner", "Run"])
def test_an_interruption_while_a_run_begins_leaves_a_whole_record(
    made: str, clock: SimulatedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make, session, path = getattr(door, made), session_of(), tmp_path / "run.jsonl"

    def interrupted(*given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return make(*given)

    monkeypatch.setattr(door, made, interrupted)
    live = Live(Scripted(clock, [0.1] * 50), session, clock=clock, learner="thread", record=path)
    with pytest.raises(KeyboardInterrupt):
        list(live)
    lines = read_json_lines(path)
    assert [line["kind"] for line in lines] == ["run", "end"] and lines[-1]["why"] == "interrupted"
    monkeypatch.undo()
    assert len(list(Live(Scripted(clock, [0.1] * 5, endless=False), session, clock=clock, learner="thread"))) > 1


def test_leaving_early_is_no_interruption(clock: SimulatedClock, tmp_path: Path):
    path = tmp_path / "run.jsonl"
    live = Live(Scripted(clock, [0.1] * 50), session_of(), clock=clock, learner="thread", record=path)
    for shown in live:
        if shown.index == 3:
            break
    del shown
    gc.collect()
    assert read_json_lines(path)[-1]["why"] == "stopped"


def test_each_frame_has_its_line(clock: SimulatedClock, tmp_path: Path):
    path = tmp_path / "deep" / "run.jsonl"
    shown, _ = play(clock, [0.07] * 30, record=path)
    lines = read_json_lines(path)
    assert lines[0]["source"] == "scripted" and lines[0]["session"]["method"]["name"] == "slow"
    found = {line["frame"]: line for line in lines if line["kind"] == "frame"}
    assert sorted(found) == [frame.index for frame in shown]
    for frame in shown:
        line = found[frame.index]
        assert (line["state"], line["dropped"], line["name"]) == (frame.state, frame.dropped, frame.name)
        assert line["latency"] == pytest.approx(frame.latency) and line["age"] == pytest.approx(frame.age)
        assert line["adapted"] == (not frame.why) and ("decision" in line) == line["adapted"]
        assert line.get("why", "") == frame.why
    assert lines[-1]["latency_p95"] == pytest.approx(sorted(f.latency for f in shown)[-2], rel=0.03)
    with refusal(r"run\.jsonl exists already"):
        play(clock, [0.1], record=path)


class Mortal:
    """A pupil whose process ends before it is ready, or at its second frame."""

    def __init__(self, pupil: Any, at_once: bool):
        self._pupil, self._left = pupil, 0 if at_once else 1

    def begin(self):
        if not self._left:
            raise LearnerLost("the learner's process ended by itself (exit code 1). Guard the script.")
        self._pupil.begin()

    def learn(self, index: int, image: torch.Tensor) -> Any:
        if not self._left:
            raise LearnerLost("the learner's process ended by itself (exit code -9). Guard the script.")
        self._left -= 1
        return self._pupil.learn(index, image)

    def finish(self):
        raise AssertionError("nothing is left to finish")

    def abandon(self):
        raise AssertionError("it is not starting any more")


class Late:
    """A pupil that is never ready until it is given up."""

    def __init__(self, clock: SimulatedClock):
        self._clock, self._given_up, self._changed = clock, False, Condition()

    def begin(self):
        with self._changed:
            self._clock.wait(self._changed, lambda: self._given_up)
        raise LearnerLost("terminated (exit code -15).")

    def abandon(self):
        self._given_up = True


def test_a_learner_that_is_still_starting_is_not_waited_for(clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(door, "SessionPupil", lambda *_: Late(clock))
    shown, live = play(clock, [0.1] * 5)
    assert [frame.why for frame in shown] == ["the learner is starting"] * 5
    assert not live.totals.failures and clock.time == pytest.approx(0.6)


class Own(Exception):
    """As user's code may have."""


def test_whatever_ends_the_learning_ends_the_run(clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch):
    class Failing(door.SessionPupil):
        def learn(self, index: int, image: torch.Tensor) -> Any:
            raise Own(index)

    monkeypatch.setattr(door, "SessionPupil", Failing)
    with pytest.raises(Own):
        play(clock, [0.1] * 20)


def test_what_ends_a_run_is_not_replaced_by_what_became_of_a_frame(clock: SimulatedClock, tmp_path: Path):
    def heard(event: Event):
        raise Own(event.kind)

    with pytest.raises(Own, match="size"):
        play(clock, [0.4, 0.4, (48, 24), 0.4, 0.4], on_event=heard, record=tmp_path / "run.jsonl")
    lines = read_json_lines(tmp_path / "run.jsonl")
    assert lines[-1]["why"] == "interrupted" and [line["frame"] for line in lines if line["kind"] == "frame"] == [0, 1]


@pytest.mark.parametrize("at_once", [False, True])
def test_predictions_go_on_without_a_learner_that_was_lost(
    clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch, at_once: bool
):
    plain = door.SessionPupil
    monkeypatch.setattr(door, "SessionPupil", lambda *arguments: Mortal(plain(*arguments), at_once))
    if at_once:
        with pytest.raises(LearnerLost, match="exit code 1"):
            play(clock, [0.1] * 20)
        return
    events: list[Event] = []
    shown, live = play(clock, [0.1] * 20, on_event=events.append)
    assert len(shown) == 20 and shown[-1].state == 1 and shown[-1].why == "learning has ended"
    assert [event.text for event in events] == [
        "the learner's process ended by itself; predictions go on with what was learnt"
    ]
    assert live.totals.failures == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": 0}, "live: expected a budget above 0, got 0"),
        ({"budget": float("nan")}, "live: expected a budget above 0, got nan"),
        ({"budget": "0.5"}, "live: expected a budget above 0, got '0.5', no number"),
        ({"budget": True}, "live: expected a budget above 0, got True, no number"),
        ({"rate": "10"}, "live: expected a rate above 0, got '10'"),
        ({"stall": "x"}, "live: expected a stall above 0, got 'x'"),
        ({"adapt_every": 0}, r"Live.adapt_every \(or 'auto'\): expected a whole number at least 1, got 0"),
        ({"adapt_every": True}, r"Live.adapt_every \(or 'auto'\): expected a whole number at least 1, got True"),
        *(({"reconnect": tries}, "Live.reconnect: expected a whole number at least 0") for tries in (-1, "8", 2.5)),
        *(
            ({"threads": threads}, r"Live.threads: expected \(of the predictor, of the learner\)")
            for threads in ((0, 0), (1, -1), 2, (1,), (1, 1, 1), "21", (10**12, 1), (True, 1))
        ),
        ({"wait": "no"}, "Live.wait: expected True or False, got 'no'"),
        ({"every_frame": 1}, "Live.every_frame: expected True or False, got 1"),
        ({"on_event": 3}, "Live.on_event: expected a function of an event, got 3"),
        ({"record": 3}, "Live.record: expected a file's name, got 3"),
        ({"learner": "gpu"}, "unknown learner 'gpu'"),
        ({"every_frame": True}, "scripted does not wait"),
        ({"every_frame": True, "budget": 0.04}, "a budget of 0.04 s drops what has waited longer"),
        ({"size": (64, 32)}, "Live.size: Scripted is a Source, whose size is set where it is made"),
        ({"rate": 5.0}, "Live.rate: Scripted is a Source"),
    ],
)
def test_settings_out_of_range_are_refused(clock: SimulatedClock, options: dict[str, Any], said: str):
    with refusal(said, SettingsError):
        Live(Scripted(clock, [0.1]), session_of(), clock=clock, **options)


@pytest.mark.parametrize("session", [None, 3, lambda: session_of().model], ids=["none", "number", "network"])
def test_what_adapts_is_a_session(clock: SimulatedClock, session: Any):
    with refusal(r"Live: expected a Session.*; got (None|one of type \w+)", SettingsError):
        Live(Scripted(clock, [0.1]), session() if callable(session) else session, clock=clock)


@pytest.mark.parametrize(
    "source", [[torch.rand(3, 8, 8)], None, Scripted, 3], ids=["frames", "none", "class", "number"]
)
def test_what_is_played_is_a_name_or_a_source(clock: SimulatedClock, source: Any):
    with refusal(r"or a live\.sources\.Source; got .* go to session\.stream\(pictures\)", InputError):
        Live(source, session_of(), clock=clock)


def test_an_empty_text_is_no_source(clock: SimulatedClock):
    with refusal(r"got an empty text\. '\.' is the working folder", InputError):
        Live("", session_of(), clock=clock)


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_goes_live_or_is_told_to_wait(clock: SimulatedClock, name: str):
    session = Session(tiny(), methods.make(name, settings={"rotta": {"every": 1}}.get(name, {})))
    learns = not session.method.episodic
    if session.method.episodic and session.state.parameters:
        with refusal("its prediction has to wait", SettingsError):
            play(clock, [0.1], session)
        shown, live = play(clock, [0.1] * 3, session, wait=True)
        assert live.totals.decisions.total() == 3
        return
    before = session.predict(image_of(2))
    shown, live = play(clock, [0.1] * 6, session)
    assert len(shown) == 6 and (live.totals.decisions.total() > 0) == learns
    assert live.totals.learnt or session.state.parameters or not learns  # without updates all that moves is memory
    if not learns:
        assert torch.equal(shown[2].result.logits, before) and shown[0].why == f"{name} learns nothing"
