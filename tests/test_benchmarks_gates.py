"""The gates' trials at tiny sizes: what is handed on, what moves, who passes, and a run that goes on after a stop."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLASSES, frames, pixelwise, seeded, tiny
from torch import Tensor, nn

from allweather import Affinity, NetworkError, Segmenter, Session, methods
from allweather.data.labels import ClassMapping, mapping_between
from allweather.methods.losses import mean_entropy
from allweather.methods.mall import MallSample
from benchmarks import gate_parts as parts
from benchmarks import gates, gates_table
from benchmarks.committed import load
from benchmarks.gates import BEFORE, GATES, ROUNDS, Scores, Shot

MAPPING = ClassMapping("three", CLASSES, CLASSES, (0, 1, 2))


def shots(count: int) -> list[Shot]:
    truth = np.repeat(np.arange(-1, 3), 6)[:, None] * np.ones((1, 32), np.int64)
    return [Shot(image, truth) for image in frames(count)]


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    return {name: gate(tiny(), shots(2), MAPPING) for name, gate in GATES.items()}


def test_every_gate_compares_its_candidates_with_the_prediction_they_start_from(
    rows: dict[str, dict[str, Any]],
):
    found = {name: (len(row["values"]), row["frames"]) for name, row in rows.items()}
    after = {f"bias after {name}": (6, 2) for name in ("mall-sample", "views")}
    found_alike = {"affinity": (22, 2), "time": (10, 2), "bias": (27, 2), "scaling": (13, 2), "drift": (3, 2 * ROUNDS)}
    assert found == found_alike | after
    assert all(np.isfinite(values).all() for row in rows.values() for values in row["values"].values())
    assert set(rows["time"]["flicker"]) == {BEFORE, *rows["time"]["values"]}


def test_more_rate_moves_the_bias_and_rounds_drift(rows: dict[str, dict[str, Any]]):
    moved = rows["bias"]["values"]
    assert len({tuple(moved[f"MALL {kind}"]) for kind in ("0.01, image × 1", "0.1, image × 5", "0.1, stream")}) > 1
    rounds = rows["drift"]["rounds"]
    assert len(set(rounds[BEFORE])) == 1 and len(set(rounds["weight 0"])) > 1


def test_true_regions_help_where_noise_does_not():
    noise = torch.nn.functional.interpolate(frames(2)[:, :, ::4, ::4], scale_factor=4)  # blocks, that smoothing keeps
    truth = shots(1)[0].truth
    signal = 0.2 * torch.from_numpy(truth[None] == np.arange(3)[:, None, None])
    noisy = [Shot((signal + 0.8 * each).float(), truth) for each in noise]
    values = gates.affinity(pixelwise(1.0), noisy, MAPPING)["values"]
    assert values["true regions"][0] == max(value[0] for value in values.values()) > 20
    assert values["true regions, half-way"][0] > 5 > values["own 0.15, near, half-way"][0]


class Doubled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * images


def test_features_are_what_the_last_classifier_sees():
    image = frames(1)[0]
    logits, features = parts.Looker(pixelwise(2.0)).look(image)
    assert torch.allclose(logits, 2 * features) and features.shape == image.shape
    with pytest.raises(NetworkError, match="no convolution"):
        parts.Looker(Segmenter.wrap(Doubled(), classes=CLASSES)).look(image)


@pytest.mark.parametrize("unit", [False, True])
def test_features_are_few_and_in_units_of_their_median_distance(unit: bool):
    features = torch.randn(20, 9, 11, generator=seeded()) * torch.arange(1, 21)[:, None, None]
    found = parts.Basis.of(features, unit)(features, (9, 11))
    assert found.shape == (8, 9, 11) and float(parts.median_distance(found)) == pytest.approx(1, abs=1e-4)


def edge(at: int) -> Tensor:
    image = torch.zeros(3, 16, 20)
    image[:, :, at:] = 10.0
    return image


def test_a_frame_hands_on_to_what_is_alike_even_where_it_moved():
    values = torch.stack([edge(8)[0] == 0, edge(8)[0] > 0]).float()
    moved, weights = parts.carried(edge(11), edge(8), values)
    assert torch.allclose(moved, torch.stack([edge(11)[0] == 0, edge(11)[0] > 0]).float(), atol=1e-6)
    assert float(parts.carried(edge(8) + 100, edge(8), values)[1].max()) < 1e-6 < float(weights.min())


def test_what_is_alike_everywhere_is_smoothed_around_its_place_and_keeps_its_sum():
    point, same = torch.zeros(1, 15, 17), torch.zeros(3, 15, 17)
    point[0, 7, 8] = 1.0
    moved = parts.carried(same, same, point)[0][0]
    assert divmod(int(moved.argmax()), 17) == (7, 8) and torch.allclose(moved, moved.flip(0, 1), atol=1e-6)
    constant = torch.full((2, 15, 17), 0.5)
    affinity = Affinity.from_image(torch.rand(1, 3, 15, 17), sigma_xy=3.0)
    for values in (parts.carried(same, same, constant)[0], parts.applied(affinity, constant)):
        torch.testing.assert_close(values, constant, atol=1e-4, rtol=0)


def test_where_nothing_is_alike_a_frame_keeps_its_prediction():
    dark, light = Shot(torch.zeros(3, 24, 32), np.zeros((24, 32))), Shot(torch.ones(3, 24, 32), np.zeros((24, 32)))
    now, before = torch.full((3, 24, 32), 0.2), torch.full((3, 24, 32), 0.4)
    kept = dict.fromkeys((BEFORE, *(f"{way} {s:g}" for way in gates.HANDS_ON for s in gates.SHARES)), before)
    for shot, expected in ((light, now), (dark, before)):
        features = torch.randn(4, 24, 32, generator=seeded()) * 1e-3
        found = gates._handed_on(shot, features, now, kept, (dark.image, features))
        assert torch.allclose(found["color 0.5"][:, 12, 16], expected[:, 12, 16], atol=0.02)
        assert torch.equal(found["same place 0.5"], before)


@pytest.mark.parametrize("loss", parts.LOSSES)
def test_the_bias_follows_its_loss(loss: str):
    method = MallSample(diversity_weight=0.0, scale=0.25)
    logits = torch.randn(3, 12, 16, generator=seeded()) + torch.tensor([1.0, 0, 0])[:, None, None]
    affinity = Affinity.from_image(frames(1)[:, :, :12, :16], sigma_xy=2.0)

    def value(shift: Tensor) -> float:
        scores = (logits + shift).softmax(0)[None]
        entropy = 0 if loss == parts.CUT_ALONE else mean_entropy((logits + shift)[None])
        return float(entropy + (0 if loss == parts.WITHOUT_CUT else 0.3 * affinity.normalized_cut(scores)))

    bias = parts.Bias(3, 0.03, loss)
    shifts = [bias.step(method, logits, affinity) for _ in range(20)]
    assert value(shifts[-1]) < value(shifts[0]) < value(torch.zeros(3, 1, 1))


def test_a_change_is_that_of_the_frames_and_of_all_together():
    scores, (shot,) = Scores(mapping_between(CLASSES, CLASSES)), shots(1)
    right = torch.nn.functional.one_hot(torch.from_numpy(shot.truth).clamp(min=0), 3).movedim(2, 0).float()
    for right_frames in (1, 3):
        scores.add(BEFORE, right.roll(1, 0), shot)
        scores.add("better", right if right_frames == 3 else right.roll(1, 0), shot)
    assert scores.change("better") == [pytest.approx(33.33, abs=17), 50.0, 50.0]
    assert scores.pooled("better", slice(1, 2)) == 100.0


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def gate(*_: object) -> dict[str, Any]:
        asked.append("gate")
        return {"frames": 2, "mIoU": 50.0, "values": {"one": [1.0, 1.0, 0.1]}}

    monkeypatch.setattr(gates, "load_model", lambda *_: tiny())
    monkeypatch.setattr(gates, "shots_of", lambda *_: ([], MAPPING))
    monkeypatch.setattr(gates, "GATES", dict.fromkeys(GATES, gate))
    out = tmp_path / "gates.json.gz"
    for names, only, expected in ((["drift"], "cgnet", 1), (["time", "drift"], "", 10), (["time"], "", 10)):
        gates.measure(tmp_path, out, names, only)
        assert len(asked) == expected
    found = load(out)
    assert list(found["gates"]) == ["time", "drift"] and len(found["gates"]["time"]["rows"]) == 8
    assert found["gates"]["time"]["candidates"] == ["one"]
    assert found["gates"]["time"]["rows"]["realtime:cgnet | video"]["values"] == [100, 100, 10]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (([100, 100, 10], [50, 20, 10]), r"1 of 1 .* -0.3: one\."),
        (([150, 100, 10], [-40, 20, 10]), r"1 of 1 .* -0.3: none\."),
        (([100, 100, 10], [50, -120, 10]), r"0 of 1 .* -0.3: none\."),
        (([20, 20, 10], [20, 20, 10]), r"1 of 1 .* -0.3: none\."),
    ],
)
def test_a_gate_asks_for_the_mean_and_the_worst_cell(cells: tuple[list[int], ...], says: str):
    rows = {f"net | s{number}": {"frames": 2, "values": [*values, 900, 900, 10]} for number, values in enumerate(cells)}
    text = gates_table.compared({"candidates": ["one", "true regions"], "rows": rows})
    assert re.search(says, text) and f"| one | {np.mean([cell[0] for cell in cells]) / 100:+.2f} |" in text


def test_the_field_of_the_methods_does_what_was_measured():
    model, noise = tiny(), frames(1)[:, :, ::8, ::8]
    image = torch.nn.functional.interpolate(noise, (24, 32), mode="bicubic")[0].clamp(0, 1)  # smoothing changes little
    fields = {"scale": 0.25, "stop_tolerance": 0.0, "stop_rise": 1e9, "entropy_weight": 0.0, "diversity_weight": 0.0}
    steps = {"parameters": "logit-bias", "lr": 0.1, "relative": False, "iterations": parts.STEPS}
    steps |= {"views": ("plain",), "vector_rate": 0.0}
    session = Session(model, methods.make("mall-sample", settings=fields | steps), guard=False)
    method, (logits, _) = gates._bias_method(model), parts.Looker(model).look(image)
    small = parts.resized(logits, parts.part(image.shape[1:], 0.25))
    affinity = method.affinity(image[None], small.softmax(0)[None])
    bias = parts.Bias(3, 0.1, parts.CUT_ALONE)
    shifts = [bias.step(method, small, affinity) for _ in range(parts.STEPS)]
    torch.testing.assert_close(session(image).logits, logits + shifts[-1], atol=0.02, rtol=0)
    assert float(shifts[-1].abs().min()) > 0.2
