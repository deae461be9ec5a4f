"""The script that scores sets of views: one adaptation gives what a session with each set would."""

import pytest
import torch
from tiny import CLASSES, tiny

from allweather import Session, methods
from allweather.data.labelled import LabelledStream, Truth
from allweather.data.stream import Frame, Stream
from allweather.pictures.enlarge import classify
from allweather.scoring.confusion import ConfusionMatrix
from benchmarks.views import measure

SETS = ("plain", "plain,mirror", "plain,gamma-mirror-x1.5")


def labelled() -> LabelledStream:
    generator = torch.Generator().manual_seed(5)
    images = {name: torch.rand(3, 24, 32, generator=generator) for name in "abc"}
    truths = {name: torch.randint(0, 3, (24, 32), generator=generator).numpy() for name in images}
    stream = Stream(list(images), lambda name: Frame(name, images[name], (32, 24)))
    return LabelledStream(stream, CLASSES, lambda name: Truth(truths[name]), frozenset(images))


@pytest.mark.parametrize("number", range(len(SETS)))
def test_a_set_scores_as_a_session_with_it_would(number: int):
    model, stream = tiny(), labelled()
    found = measure(model, stream, SETS)
    settings = {"views": SETS[number], "vector_rate": 0.0}
    scores = []
    for method in (methods.make("source"), methods.make("mall-domain", settings=settings, model=model)):
        session, matrix = Session(model, method), ConfusionMatrix(3)
        for name in stream.stream.names:
            truth = stream.truth(name).labels
            matrix.update(classify(session(stream.stream.read(name).image).logits, truth.shape)[1], truth)
        scores.append(100 * matrix.mean_iou_truth)
    assert found["frames"] == 3 and found["source"] == pytest.approx(scores[0], abs=0.01)
    assert found["gains"][number] == pytest.approx(scores[1] - scores[0], abs=0.02)
