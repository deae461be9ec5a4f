"""Metrics against brute force and torchmetrics; splitting, shuffling and merging change nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refusal

from allweather import InputError
from allweather.scoring import confusion as metrics
from allweather.scoring.confusion import ConfusionMatrix

CLASSES = 4


@st.composite
def images(draw: st.DrawFn) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low = draw(st.sampled_from([-1, 0]))
    top = draw(st.integers(1, CLASSES))
    shapes = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=5))
    return [(rng.integers(low, top, shape), rng.integers(low, CLASSES, shape)) for shape in shapes]


def accumulate(pairs: list[tuple[np.ndarray, np.ndarray]]) -> ConfusionMatrix:
    matrix = ConfusionMatrix(CLASSES)
    for predicted, truth in pairs:
        matrix.update(predicted, truth)
    return matrix


def brute_force(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    pixels = [(p, t) for a, b in pairs for p, t in zip(a.ravel(), b.ravel(), strict=True) if t >= 0]
    iou, accuracy, weighted = [], [], 0.0
    for c in range(CLASSES):
        both = sum(p == c and t == c for p, t in pixels)
        either = sum(p == c or t == c for p, t in pixels)
        true = sum(t == c for _, t in pixels)
        iou += [both / either] if either else []
        accuracy += [both / true] if true else []
        weighted += true / len(pixels) * both / either if true else 0
    nan = float("nan")
    return {
        "mean_iou": sum(iou) / len(iou) if iou else nan,
        "class_accuracy": sum(accuracy) / len(accuracy) if accuracy else nan,
        "pixel_accuracy": sum(p == t for p, t in pixels) / len(pixels) if pixels else nan,
        "frequency_weighted_iou": weighted if pixels else nan,
    }


@given(images())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_every_figure_equals_brute_force(pairs: list):
    matrix = accumulate(pairs)
    for name, expected in brute_force(pairs).items():
        assert getattr(matrix, name) == pytest.approx(expected, abs=1e-12, nan_ok=True), name


@given(images(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_splitting_shuffling_and_merging_change_nothing(pairs: list, random: object):
    whole = accumulate(pairs).counts
    random.shuffle(pairs)
    cut = random.randint(0, len(pairs))
    merged = accumulate(pairs[:cut]) + accumulate(pairs[cut:])
    assert (merged.counts == whole).all()
    flat = [(p.reshape(-1, 1), t.reshape(-1, 1)) for p, t in pairs]
    assert (accumulate(flat).counts == whole).all()


@pytest.mark.slow
def test_torchmetrics_agrees():
    segmentation = pytest.importorskip("torchmetrics.classification")
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, CLASSES, (8, 9)), rng.integers(-1, CLASSES, (8, 9))) for _ in range(3)]
    oracle = segmentation.MulticlassJaccardIndex(CLASSES, average=None, ignore_index=-1)
    for predicted, truth in pairs:
        oracle.update(torch.from_numpy(predicted), torch.from_numpy(truth))
    np.testing.assert_allclose(accumulate(pairs).iou, oracle.compute().numpy(), atol=1e-6)


def test_a_class_that_is_nowhere_does_not_count_and_one_only_predicted_does():
    matrix = ConfusionMatrix(3).update(np.array([0, 0, 1]), np.array([0, 0, 0]))
    assert np.isnan(matrix.iou[2]) and matrix.iou[1] == 0 and matrix.mean_iou == pytest.approx((2 / 3 + 0) / 2)


ABSENT = {  # predicted, true → the official mIoU, the one over the classes in the truth, and what the truth has not
    "all there": ([0, 0, 0, 1], [0, 0, 1, 1], 58.33, 58.33, ["c"]),  # 2/3 and 1/2
    "one stray pixel": ([0, 0, 2, 1], [0, 0, 1, 1], 50.0, 75.0, ["c"]),  # 1, 1/2 and 0
    "nothing predicted": ([0, 0, -1, 1], [0, 0, 1, 1], 75.0, 75.0, ["c"]),
    "one class": ([0, 1], [0, 0], 25.0, 50.0, ["b", "c"]),  # 1/2 and 0
    "ignored": ([0, 2], [0, -1], 100.0, 100.0, ["b", "c"]),  # what is ignored is no reason to count a class
    "no truth": ([0, 2], [-1, -1], None, None, ["a", "b", "c"]),
}


@pytest.mark.parametrize("case", ABSENT)
def test_a_class_absent_from_the_truth_leaves_one_of_the_two_means_alone(case: str):
    predicted, truth, official, in_truth, absent = ABSENT[case]
    summary = ConfusionMatrix(3).update(np.array(predicted), np.array(truth)).summary("abc")
    assert summary["mIoU"] == official
    assert summary["mIoU_truth"] == in_truth
    assert summary["not_in_truth"] == absent


def test_counting_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    pair = rng.integers(-1, CLASSES, (7, 9)), rng.integers(-1, CLASSES, (7, 9))
    whole = accumulate([pair]).counts
    monkeypatch.setattr(metrics, "CHUNK", 5)
    assert (accumulate([pair]).counts == whole).all()
    assert (accumulate([(pair[0].astype(np.int16).T, pair[1].astype(np.int8).T)]).counts == whole).all()


def test_no_prediction_is_wrong_for_the_true_class_only():
    matrix = ConfusionMatrix(2).update(np.array([-1, 0]), np.array([0, 0]))
    assert matrix.iou[0] == 0.5 and np.isnan(matrix.iou[1]) and matrix.pixel_accuracy == 0.5


def test_ignored_pixels_count_for_nothing():
    matrix = ConfusionMatrix(2).update(np.array([0, 1]), np.array([-1, -1]))
    assert matrix.counts.sum() == 0 and np.isnan(matrix.mean_iou)
    assert matrix.summary(("a", "b"))["mIoU"] is None


def test_the_mean_is_over_the_stream_not_over_images():
    matrix = ConfusionMatrix(1)
    matrix.update(np.zeros(9, int), np.zeros(9, int)).update(np.array([-1]), np.array([0]))
    assert matrix.mean_iou == 0.9


@pytest.mark.parametrize(("predicted", "truth"), [([0], [0, 0]), ([2], [0]), ([0], [2]), ([-2], [0]), ([0], [255])])
def test_wrong_shapes_and_values_are_refused(predicted: list[int], truth: list[int]):
    with refusal("expected"):
        ConfusionMatrix(2).update(np.array(predicted), np.array(truth))


@pytest.mark.parametrize(
    "labels", [np.array([0.7]), np.array([np.nan]), np.array([0], object), torch.zeros(1, dtype=torch.int64), [0]]
)
def test_what_is_no_array_of_whole_numbers_is_refused(labels: Any):
    right = np.array([0])
    for predicted, truth, name in ((labels, right, "predicted"), (right, labels, "true")):
        with refusal(f"expected {name} labels as an array of integers, got ", InputError):
            ConfusionMatrix(2).update(predicted, truth)


@pytest.mark.parametrize(
    ("classes", "counts"),
    [(2, np.zeros((3, 4), int)), (2, np.zeros((2, 2), int)), (2, np.zeros((2, 3))), (2, np.full((2, 3), -1))],
)
def test_counts_that_are_none_of_the_classes_are_refused(classes: int, counts: np.ndarray):
    with refusal(r"whole numbers from 0 on of shape \(2, 3\), got", InputError):
        ConfusionMatrix(classes, counts)


def test_matrices_of_no_class_or_of_other_classes_are_refused():
    with refusal("at least one class, got 0", InputError):
        ConfusionMatrix(0)
    with refusal("equally many classes, got 2 and 1", InputError):
        ConfusionMatrix(2) + ConfusionMatrix(1)


def test_comparing_two_matrices_is_no_error():
    matrix = ConfusionMatrix(2)
    assert matrix == matrix and matrix != ConfusionMatrix(2)
