"""Protocols: what each frame is predicted with, what is skipped, and that resuming changes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal
from torch import nn

from allweather import CITYSCAPES, Result, Segmenter, Session, methods
from allweather.data import Stream, open_files
from allweather.data.labelled import labelled_scenes
from allweather.data.labels import find_mapping, mapping_between
from allweather.runs.decisions import decisions_in
from allweather.runs.evaluate import PASSES, run
from allweather.runs.passes import summed
from allweather.runs.record import describe_result, provenance
from allweather.runs.scorer import Scorer
from allweather.scoring.folders import score_folders
from allweather.session import Decision, Shift

COUNT = 5


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / f"{index}.png")
    return open_files([tmp_path])


def make_session(method: str, adapt_when: str = "always", shift: Shift | None = None, **settings: object) -> Session:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 19, 1))
    model = Segmenter.wrap(network.eval(), classes=CITYSCAPES)
    return Session(model, methods.make(method, settings=settings), adapt_when=adapt_when, shift=shift)


def predictions(session: Session, stream: Stream, **options: object) -> dict[str, torch.Tensor]:
    return {outcome.name: outcome.logits for outcome in run(session, stream, **options)}


def test_online_is_one_session_call_a_frame_in_order(stream: Stream):
    by_hand = make_session("tent", lr=0.1, episodic=False)
    expected = [by_hand(frame.image).logits for frame in stream]
    outcomes = list(run(make_session("tent", lr=0.1, episodic=False), stream, "online"))
    assert [outcome.name for outcome in outcomes] == list(stream.names)
    assert all(torch.equal(o.logits, e) for o, e in zip(outcomes, expected, strict=True))
    assert not torch.equal(outcomes[-1].logits, make_session("source").predict(stream.read("4").image))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch": batch}, "batch: expected a whole number at least 1") for batch in (0, -1, "2", 1.5, True, None)]
    + [
        ({"protocol": "x"}, "unknown protocol 'x'"),
        ({"stream": labelled_scenes("fog", range(1))}, r"got a LabelledStream\. Pass its `\.stream`"),
        ({"stream": [torch.rand(3, 16, 16)]}, r"got a list\. Frames of your own go to session\.stream"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_its_first_frame(stream: Stream, options: dict, message: str):
    with refusal(message):
        run(make_session("norm"), **{"stream": stream} | options)


def test_transductive_predicts_every_frame_with_the_last_network(stream: Stream):
    session = make_session("tent", lr=0.1, episodic=False)
    found = predictions(session, stream, protocol="transductive")
    for frame in stream:
        assert torch.equal(found[frame.name], session.predict(frame.image))
    online = predictions(make_session("tent", lr=0.1, episodic=False), stream)
    assert not torch.equal(found["0"], online["0"])


def test_transductive_passes_are_bounded(stream: Stream, monkeypatch: pytest.MonkeyPatch):
    calls = []
    adapt = Session.adapt
    monkeypatch.setattr(Session, "adapt", lambda self, images: calls.append(1) or adapt(self, images))
    predictions(make_session("tent", lr=0.001, episodic=False), stream, protocol="transductive")
    assert len(calls) % COUNT == 0 and COUNT <= len(calls) <= PASSES * COUNT


def test_transductive_passes_end_at_ten_where_the_loss_keeps_falling(stream: Stream, monkeypatch: pytest.MonkeyPatch):
    losses = iter(range(1000, 0, -1))
    falling = Result(torch.zeros(1), (), (), 1, "cap", Decision(), 0.0)
    monkeypatch.setattr(Session, "adapt", lambda self, images: replace(falling, watched=(float(next(losses)),)))
    predictions(make_session("tent", episodic=False), stream, protocol="transductive")
    assert 1000 - next(losses) == 10 * COUNT


@pytest.mark.parametrize(
    ("losses", "settings", "passes", "stop"),
    [
        ([4.0, 3.0, 2.0], {}, PASSES, "cap"),
        ([4.0, 3.0, 3.0, 3.0], {"stop_patience": 2}, 4, "plateau"),
        ([4.0, 3.0, 9.0], {"stop_rise": 0.1}, 3, "rise"),
        ([], {}, 1, "none"),
    ],
)
def test_every_pass_is_told_of_every_frame(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, losses: list[float], settings: dict, passes: int, stop: str
):
    falling = iter(range(1000))
    decision, calls = Decision("shrunk", "why"), []

    def adapt(session: Session, images: torch.Tensor) -> Result:
        number = len(calls) // 3  # batches of two: three to a pass
        calls.append(1)
        watched = losses[number] if number < len(losses) else -float(next(falling))
        return Result(torch.zeros(len(images), 1, 1, 1), (), (watched,) * bool(losses), 2, "cap", decision, 8.0)

    monkeypatch.setattr(Session, "adapt", adapt)
    session = make_session("mall-sample", episodic=False, iterations=2, **settings)
    outcomes = list(run(session, stream, "transductive", batch=2))
    lines = {"0": passes * 4.0, "4": passes * 8.0}  # the last is alone in its batch
    for outcome in outcomes:
        learnt = outcome.learnt
        assert outcome.result is None and learnt["stop"] == stop and learnt["iterations"] == 2 * passes
        assert [line["decision"] for line in learnt["stream_passes"]] == ["shrunk"] * passes
        assert decisions_in(learnt) == [decision] * passes
        wanted = lines.get(outcome.name, lines["0"])
        assert sum(line["seconds"] for line in learnt["stream_passes"]) == wanted < learnt["seconds"]
    found = summed(outcome.learnt for outcome in outcomes)
    assert [line["watched"] for line in found[: len(losses)]] == losses[:passes] and len(found) == passes
    assert all(line["decisions"]["shrunk"] == COUNT and line["seconds"] == 24.0 for line in found)


def test_online_runs_tell_of_no_passes(stream: Stream):
    assert all(outcome.learnt is None for outcome in run(make_session("tent", episodic=False), stream))


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_seconds_are_those_of_a_frame_however_many_a_batch_holds(batch: int):
    result = Result(torch.zeros(batch, 3, 4, 4), (), (), 1, "cap", Decision("shrunk", "why"), 3.0)
    told = {"iterations": 1, "stop": "cap", "decision": "shrunk", "reason": "why", "seconds": 3.0 / batch}
    assert describe_result(result) == told
    single = replace(result, logits=torch.zeros(3, 4, 4), decision=Decision())
    assert describe_result(single) == {"iterations": 1, "stop": "cap", "decision": "accepted", "seconds": 3.0}


@pytest.mark.parametrize("protocol", ["online", "transductive"])
def test_source_is_the_plain_forward_under_both(stream: Stream, protocol: str):
    session = make_session("source")
    for name, logits in predictions(make_session("source"), stream, protocol=protocol).items():
        assert torch.equal(logits, session.predict(stream.read(name).image))


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_batches_keep_order_and_yield_every_frame(stream: Stream, batch: int):
    outcomes = list(run(make_session("norm"), stream, batch=batch))
    assert [outcome.name for outcome in outcomes] == list(stream.names)
    assert len({id(outcome.result) for outcome in outcomes}) == -(-COUNT // batch)


def test_frames_of_another_size_begin_a_batch(stream: Stream, tmp_path: Path):
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "2.png")
    outcomes = list(run(make_session("source"), open_files([tmp_path]), batch=5))
    assert [tuple(outcome.logits.shape[1:]) for outcome in outcomes] == [(16, 16)] * 2 + [(16, 24)] + [(16, 16)] * 2


@pytest.mark.parametrize("protocol", ["online", "transductive"])
def test_a_corrupt_frame_is_named_and_the_rest_goes_on(stream: Stream, tmp_path: Path, protocol: str):
    (tmp_path / "1.png").write_bytes(b"broken")
    outcomes = {outcome.name: outcome for outcome in run(make_session("norm"), stream, protocol, batch=2)}
    assert len(outcomes) == COUNT and "not a readable image" in outcomes["1"].failure
    assert outcomes["1"].logits is None and all(outcomes[name].logits is not None for name in "0234")


@pytest.mark.parametrize("settings", [{}, {"episodic": False, "lr": 0.1}], ids=["episodic", "continual"])
@pytest.mark.parametrize("protocol", ["online", "transductive"])
@pytest.mark.parametrize("batch", [1, 2])
def test_resuming_gives_what_never_stopping_gives(stream: Stream, settings: dict, protocol: str, batch: int):
    options = {"protocol": protocol, "batch": batch}
    whole = predictions(make_session("tent", **settings), stream, **options)
    rest = predictions(make_session("tent", **settings), stream, **options, skip=frozenset({"0", "2"}))
    assert list(rest) == ["1", "3", "4"]
    assert all(torch.equal(rest[name], whole[name]) for name in rest)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("augco", {}),
        ("memo", {}),
        ("mall-sample", {"adapt_when": "shift", "shift": Shift(0.0, reference="start", start=3)}),
    ],
    ids=["augco", "memo", "on a shift"],
)
def test_where_images_do_not_stand_alone_those_that_are_done_are_adapted_to_again(
    stream: Stream, tmp_path: Path, method: str, options: dict
):
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")  # of which nothing is learnt, and for which nothing is drawn
    whole = predictions(make_session(method, **options), stream)
    rest = predictions(make_session(method, **options), stream, skip=frozenset({"0", "1", "2"}))
    assert list(rest) == ["3", "4"] and all(torch.equal(rest[name], whole[name]) for name in rest)


def test_where_they_stand_alone_those_that_are_done_cost_one_image(stream: Stream):
    session = make_session("mall-sample")
    list(run(session, stream, skip=frozenset("0123")))
    assert session._batches == 2, "one to find out, and the one that is left"


def test_provenance_says_what_made_the_result(stream: Stream):
    record = json.loads(json.dumps(provenance(make_session("tent", lr=0.5), stream, "online", 1)))
    assert record["order_hash"] == stream.order_hash and record["frames"] == COUNT
    assert record["session"]["method"]["lr"] == 0.5 and record["versions"]["torch"] == torch.__version__


def test_a_network_without_parameters_is_scored():
    class Colour(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.repeat(1, 7, 1, 1)[:, :19]

    model = Segmenter.wrap(Colour(), classes=CITYSCAPES)
    labelled = labelled_scenes("fog", range(1), (32, 24))
    scorer = Scorer(mapping_between(CITYSCAPES, CITYSCAPES), labelled, model)
    for outcome in run(Session(model, "source"), labelled.stream):
        scorer.add(outcome)
    (entry,) = scorer.images
    assert entry["ncut"] == entry["ncut_before"] is not None


def save(folder: Path, name: str, values: list[list[int]]):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(folder / f"{name}.png")


def test_folders_are_scored_with_one_matrix(tmp_path: Path):
    predicted, truth = tmp_path / "p", tmp_path / "t"
    save(predicted, "a", [[0, 0]]), save(truth, "a", [[0, 1]])
    save(predicted, "b", [[1, 0]]), save(truth, "b", [[1, 255]])
    save(predicted, "bad", [[77]]), save(truth, "bad", [[0]])
    save(predicted, "lone", [[0]]), save(truth, "unanswered", [[0]])
    save(predicted, "small", [[0]]), save(truth, "small", [[0, 0]])
    score = score_folders(predicted, truth, find_mapping("cityscapes"))
    assert score.matrix.mean_iou == pytest.approx((1 / 2 + 1 / 2) / 2) and score.matrix.counts.sum() == 3
    assert score.images == ("a", "b") and score.per_image == pytest.approx((0.25, 1.0))
    assert "77" in score.failed["bad"] and "no label lone.png" in score.failed["lone"]
    assert "1×1 pixels" in score.failed["small"] and "2×1" in score.failed["small"]
    assert score.without_prediction == ("unanswered",) and score.labels == 5 and not score.complete


def test_folders_that_never_meet_are_said(tmp_path: Path):
    save(tmp_path / "p", "a", [[0]]), save(tmp_path / "t", "b", [[0]])
    with refusal("no prediction has a label of its name"):
        score_folders(tmp_path / "p", tmp_path / "t", find_mapping("cityscapes"))
    with refusal("no such folder"):
        score_folders(tmp_path / "gone", tmp_path / "t", find_mapping("cityscapes"))
