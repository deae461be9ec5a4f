"""The table of passes: what the record says of a method is what it does, on another network too."""

import pytest
import torch
from PIL import Image
from tiny import frames, tiny

from allweather import Guard, Segmenter
from benchmarks.committed import benchmark_record
from benchmarks.pareto import FIGURE, points, told
from benchmarks.passes import BACKWARD, GUARDING, LEARNING, PREDICTING, count, every_preset

RECORD = benchmark_record("performance/passes.json.gz") or {"rows": {}}
BY_CONTENT = {  # what these ask for depends on how sure they are of a picture
    "cotta": (LEARNING,), "rotta": (LEARNING, BACKWARD), "eta": (BACKWARD,), "eata": (BACKWARD,),
    "mall-sample": (LEARNING, BACKWARD, PREDICTING), "mall-domain": (LEARNING, BACKWARD, PREDICTING),
    "self-adaptive": (PREDICTING,),
}  # fmt: skip

UNMOVED = ("source", "norm", "crf", "diga")  # no gradient


def sure() -> Segmenter:
    """A tiny network with logits so large that the pixels count as reliable."""
    model = tiny()
    with torch.no_grad():
        model.network.head[-1].weight.mul_(30)
    return model


@pytest.mark.filterwarnings("ignore:eata")
@pytest.mark.parametrize(("name", "preset"), list(every_preset()))
def test_a_method_makes_the_passes_that_the_record_says(name: str, preset: str):
    several = 12 if preset == "fast" else 3  # as many as lie between two that it learns from
    found = count(sure(), name, preset, list(frames(several)), guard=Guard(enabled=False))
    recorded = RECORD["rows"][f"{name} {preset}"]
    free = BY_CONTENT.get(name, ()) if preset == "paper" or name in ("cotta", "rotta", "eata") else ()
    free = (PREDICTING,) if preset == "fast" else free  # by the view that the network is surest of
    for part in (LEARNING, BACKWARD, PREDICTING):
        assert part in free or found[part] == pytest.approx(recorded[part], abs=0.01), part
    assert found[GUARDING] == 0


def test_what_learns_once_in_many_frames_has_its_updates_counted():
    for key, counted in RECORD["rows"].items():
        assert counted[BACKWARD] > 0 or key.split()[0] in UNMOVED, key


def test_the_figure_of_gain_and_cost_is_of_todays_records():
    with Image.open(FIGURE) as picture:
        legend = picture.text["Description"]
    assert legend == told(points()) and legend.count("\n") > 20
