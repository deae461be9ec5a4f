"""One network on several ranks: equal to a session where there is one rank, equal on all where there are more."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from many import paint
from refusals import refusal
from tiny import equal_in, frames, tiny
from torch import Tensor

from allweather import AllWeatherError, Guard, Result, Segmenter, Session, SettingsError, methods
from allweather.app.pictures import Pictures
from allweather.app.together import Together
from allweather.methods import Refined, State
from allweather.scale.places import Place
from allweather.scale.ranked import TOGETHER, _passed, share
from allweather.scale.ranks import RankLost, Ranks, launched
from allweather.scale.streams import Source, split
from allweather.scale.together import TogetherSession

Step = Tensor | None


class Alone(Ranks):
    """One rank: what it says is what all say."""

    def _reduced(self, values: Tensor, how: Any) -> Tensor:
        return values


class Threads(Ranks):
    """Ranks that are threads of this process and wait for each other."""

    def __init__(self, rank: int, shared: "Shared"):
        super().__init__(rank, shared.number)
        object.__setattr__(self, "_shared", shared)

    def _reduced(self, values: Tensor, how: Any) -> Tensor:
        return values.copy_(self._shared.reduce(self.rank, values, how))


class Shared:
    """Where the threads put their values."""

    def __init__(self, number: int):
        self.number, self.values = number, [torch.empty(0)] * number
        self._barrier = threading.Barrier(number, timeout=120)

    def reduce(self, rank: int, values: Tensor, how: Any) -> Tensor:
        try:
            self.values[rank] = values.clone()
            self._barrier.wait()
            stacked = torch.stack(self.values)
            self._barrier.wait()
        except threading.BrokenBarrierError as error:
            raise RankLost("another rank has ended") from error
        return stacked.sum(0) if how == torch.distributed.ReduceOp.SUM else stacked.amax(0)

    def leave(self):
        self._barrier.abort()


def method_of(**fields: Any) -> Any:
    return methods.make("mall-domain", settings={"lr": 1e-3} | fields)


def run_ranks(
    steps: Sequence[Sequence[Step]], **options: Any
) -> tuple[list[TogetherSession], list[list[Result | None]]]:
    """Every rank's session after its steps, and its results."""
    shared = Shared(len(steps))
    method, found, failed = options.pop("method", method_of()), [[] for _ in steps], []
    model = options.pop("model", None) or tiny()
    sessions = [TogetherSession(model, method, Threads(rank, shared), **options) for rank in range(len(steps))]

    def along(rank: int):
        try:
            for image in steps[rank]:
                found[rank].append(sessions[rank].step(image))
                sessions[rank].check_equal()
        except AllWeatherError as error:
            failed.append(error)
            shared.leave()

    with ThreadPoolExecutor(len(steps)) as pool:
        list(pool.map(along, range(len(steps))))
    for error in failed:
        raise error
    return sessions, found


def same_state(one: Session, other: Session) -> bool:
    mine, theirs = one._adapted.snapshot(), other._adapted.snapshot()
    return equal_in(mine.tensors, theirs.tensors)


@pytest.mark.parametrize(
    ("fields", "guard"),
    [
        ({}, Guard()),
        ({"iterations": 3}, Guard()),
        ({"lr": 0.5, "anchor": 0.0}, Guard(every=1)),
        ({"views": "plain"}, Guard()),
    ],
    ids=["online", "several iterations", "harmful", "one view"],
)
def test_one_rank_is_a_session(fields: dict[str, Any], guard: Guard):
    method = method_of(**fields)
    together = TogetherSession(tiny(), method, Alone(0, 1), guard=guard)
    session = Session(tiny(), method, guard=guard)
    kinds = set()
    for image in [torch.full((3, 24, 32), 0.5), *frames(6), *frames(4, seed=1)]:
        here, there = together.step(image), session(image)
        assert torch.equal(here.logits, there.logits) and here.decision.kind == there.decision.kind
        kinds.add(here.decision.kind)
    assert same_state(together, session)
    assert (fields.get("lr") == 0.5) == bool(kinds & {"rolled-back", "reset", "shrunk"})


@dataclass(frozen=True, kw_only=True)
class LeavesOne(methods.Tent):
    """Keeps two numbers beside the network, and moves one of them."""

    name: ClassVar[str] = "leaves-one"
    episodic: bool = False

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        state.output = {"kept": torch.full((1,), 7.0), "moved": torch.zeros(1)}
        return state

    def refine(self, state: State, images: Tensor, logits: Tensor) -> Refined:
        return Refined(logits, {"moved": state.output["moved"] + images.mean()})


def test_what_predictions_do_not_leave_stays_on_all_ranks():
    sessions, _ = run_ranks([[frames(1)[0]], [frames(1, seed=1)[0]]], method=LeavesOne())
    mean = torch.stack([frames(1).mean(), frames(1, seed=1).mean()]).mean()
    for session in sessions:
        assert session.state.output["kept"] == 7
        torch.testing.assert_close(session.state.output["moved"], mean[None])


def test_ranks_stay_equal_whatever_frames_each_of_them_has():
    constant, broken = torch.full((3, 24, 32), 0.5), torch.full((3, 24, 32), float("nan"))
    first: list[Step] = [*frames(3), None, frames(1, seed=5)[0], None, *frames(2, seed=6)]
    second: list[Step] = [frames(1, seed=9)[0], None, constant, None, constant, frames(1, seed=8)[0], None, None]
    sessions, found = run_ranks([first, second])
    assert same_state(*sessions) and sessions[0]._adapted.updates == 7  # at the fourth step nobody had a frame
    assert [result is None for result in found[1]] == [image is None for image in second]
    assert found[1][2].decision.reason == "the image is constant"
    sessions, found = run_ranks([[broken], [frames(1)[0]]])
    assert found[0][0].decision.reason == "the image is not finite"
    assert same_state(*sessions) and sessions[0]._adapted.updates == 1


def test_a_frame_that_the_network_has_no_numbers_for_moves_no_rank():
    model, (dark, bright) = tiny(), (frames(1)[0] * 0.5, frames(1, seed=2)[0] * 0.1 + 0.9)
    limit = (model.preprocessing.apply(torch.full((1, 3, 1, 1), 0.8))).max()
    model.network.register_forward_hook(lambda _, given, out: out / (given[0].mean() < limit))
    sessions, found = run_ranks([[dark, bright, dark], [dark, dark, dark]], model=model)
    assert same_state(*sessions) and sessions[0]._adapted.updates == 3
    blind, seeing = found[0][1], found[1][1]
    assert seeing is not None and not blind.logits.isfinite().all()
    assert blind.decision.kind == "skipped" and seeing.logits.isfinite().all()


def test_the_update_is_that_of_the_mean_gradient():
    """Two ranks of one frame each move as one rank that sees both with equal weight; the same frame twice as one."""
    (image,) = frames(1)
    twice, _ = run_ranks([[image], [image]])
    session = Session(tiny(), method_of())
    session(image)
    assert same_state(twice[0], session)
    apart, _ = run_ranks([[image], [frames(1, seed=4)[0]]])
    assert not same_state(apart[0], session)


def test_what_one_guard_refuses_no_rank_keeps():
    steps = [list(frames(8)), list(frames(8, seed=3))]
    sessions, found = run_ranks(steps, method=method_of(lr=0.5, anchor=0.0), guard=Guard(every=1))
    kinds = [[result.decision.kind for result in results if result] for results in found]
    assert kinds[0] == kinds[1] and set(kinds[0]) & {"rolled-back", "reset", "shrunk"}
    assert same_state(*sessions)
    good = [session._policy.good.tensors for session in sessions]
    assert equal_in(good[0], good[1])


def test_a_rank_that_leaves_ends_the_others_step_without_a_trace():
    shared = Shared(2)
    session = TogetherSession(tiny(), method_of(), Threads(0, shared))
    before = session._adapted.snapshot()
    shared.leave()
    with pytest.raises(RankLost):
        session.step(frames(1)[0])
    assert equal_in(session._adapted.snapshot().tensors, before.tensors)
    assert session._batches == 0


def test_a_step_that_was_lost_is_not_counted_by_the_guard():
    shared, guard = Shared(1), Guard(max_repeats=1)
    session = TogetherSession(tiny(), method_of(), Threads(0, shared), guard=guard)
    image = frames(1)[0]
    shared.leave()
    for _ in range(3):
        with pytest.raises(RankLost):
            session.step(image)
    alone = TogetherSession(tiny(), method_of(), Alone(0, 1), guard=guard)
    counted, fresh = session._counters(), alone._counters()
    assert equal_in(counted, fresh)


def test_parameters_that_differ_are_found():
    shared = Shared(2)
    sessions = [TogetherSession(tiny(), method_of(), Threads(rank, shared)) for rank in range(2)]
    with torch.no_grad():
        next(iter(sessions[1].state.parameters.values())).add_(1e-3)

    def look(session: TogetherSession):
        with refusal("parameters differ"):
            session.check_equal()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(look, sessions))


@pytest.mark.parametrize("name", ["mall-sample", "norm", "cotta", "source"])
def test_methods_that_are_more_than_moved_parameters_are_refused(name: str):
    with refusal(f"{name}: one model on several ranks", SettingsError):
        TogetherSession(tiny(), methods.make(name), Alone(0, 1))


def stream(name: str, count: int) -> Source:
    return Source(name, tuple((f"{name}/{number}", f"{number}.png") for number in range(count)))


def test_streams_are_dealt_out():
    three = [stream("a", 2), stream("b", 1), stream("c", 1)]
    assert [share(three, Ranks(rank, 2)).names for rank in range(2)] == [["a/0", "a/1", "c/0"], ["b/0"]]
    assert [share([stream("a", 5)], Ranks(rank, 2)).names for rank in range(2)] == [
        ["a/0", "a/2", "a/4"],
        ["a/1", "a/3"],
    ]
    with refusal("3 streams for 4 ranks", SettingsError):
        share(three, Ranks(0, 4))


def test_frames_that_a_resumed_session_is_past_keep_their_failures(tmp_path: Path):
    (folder,) = paint(tmp_path, {"fog": 4})
    (folder / "001.png").write_bytes(b"torn")
    (source,) = split([folder])
    passed = list(_passed(source, 3, frozenset({"fog/000"}), None))
    assert [each.name for each in passed] == ["fog/001", "fog/002"]
    assert "not a readable image" in str(passed[0].failure) and "the session is past it" in str(passed[1].failure)
    assert not list(_passed(source, 3, frozenset(source.names[:3]), None))


def test_a_run_that_is_not_resumed_begins_anew(tmp_path: Path):
    session, place = TogetherSession(tiny(), method_of(), Alone(0, 1)), Place(tmp_path, TOGETHER)
    place.save(session, 1)
    with Together(Alone(0, 1), [], None, 1, 1)._record(tmp_path, {}, False, Pictures(tmp_path, ()), session):
        assert place.load(session) == 0


def test_what_torchrun_says(monkeypatch: pytest.MonkeyPatch):

    assert launched() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with refusal("RANK", SettingsError):
        launched()
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "TORCHELASTIC_RESTART_COUNT": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert launched() == Ranks(3, 4, 1, 2, 3) and Ranks(3, 4, 1).device("cuda") == "cuda:1"
