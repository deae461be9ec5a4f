"""Intervals, calibration and uncertainty-aware IoU against brute force and their limiting cases."""

import numpy as np
import pytest
import torch
from refusals import refusal

from allweather import CITYSCAPES, InputError, SettingsError
from allweather.data.labelled import Truth
from allweather.report.compare import compare
from allweather.scoring import METERS
from allweather.scoring import confusion as metrics
from allweather.scoring.calibration import Reliability
from allweather.scoring.confusion import ConfusionMatrix
from allweather.scoring.intervals import (
    ImageCounts,
    bootstrap,
    counts_of,
    frames_of,
    image_differences,
    paired_difference,
)
from allweather.scoring.meter import Prediction
from allweather.scoring.uncertainty import UncertaintyAwareIou

CLASSES = 3


def reliability_of(meter: Reliability, confidence: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> Reliability:
    return meter.update(Prediction(predicted, confidence), Truth(truth))


def uncertainty_of(
    meter: UncertaintyAwareIou, predicted: np.ndarray, confidence: np.ndarray, truth: np.ndarray, invalid: np.ndarray
) -> UncertaintyAwareIou:
    return meter.update(Prediction(predicted, confidence), Truth(truth, invalid))


@pytest.mark.parametrize("make", METERS)
def test_meters_refuse_other_shapes_and_start_without_figures(make):
    meter = make(CITYSCAPES)
    assert meter.figures() == {}
    with refusal("one shape", InputError):
        meter.update(Prediction(np.zeros((2, 3), int), np.ones((2, 3))), Truth(np.zeros((3, 2), int)))
    halves, invalid = np.repeat([[0, 1]], 8, 0).repeat(6, 1), np.zeros((8, 12), bool)
    counted = meter.update(Prediction(halves, np.ones((8, 12))), Truth(halves, invalid))
    assert counted.figures() and all(np.isfinite(value) for value in counted.figures().values())


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        ({}, [0, 1, 255, 255], r"true labels in -1\.\.18, got 0\.\.255"),
        ({"labels": np.array([0, 1, 255, 255], np.uint8)}, [0, 1, 2, 3], r"predicted labels in -1\.\.18"),
        ({"labels": np.array([0, 1, 2, 3.5])}, [0, 1, 2, 3], "predicted labels as an array of integers, got one of f"),
        ({"labels": torch.arange(4)}, [0, 1, 2, 3], "predicted labels as an array of integers, got Tensor"),
        ({"confidence": torch.ones(4)}, [0, 1, 2, 3], "confidence as an array of numbers, got Tensor"),
        ({"confidence": [1.0] * 4}, [0, 1, 2, 3], "confidence as an array of numbers, got list"),
    ],
)
@pytest.mark.parametrize("make", METERS)
def test_meters_refuse_the_same_labels(make, prediction: dict, truth: list, message: str):
    meter, labels = make(CITYSCAPES), np.array(truth, np.uint8)
    usual = {"labels": np.arange(4), "confidence": np.ones(4)}
    with refusal(message, InputError):
        meter.update(Prediction(**usual | prediction), Truth(labels, np.zeros(4, bool)))
    assert meter.figures() == {}


def matrices(images: int, right: float, seed: int = 0) -> list[ConfusionMatrix]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(images):
        truth = rng.integers(0, CLASSES, 200)
        share = np.clip(right + 0.1 * rng.standard_normal(), 0, 1)
        predicted = np.where(rng.random(200) < share, truth, rng.integers(0, CLASSES, 200))
        made.append(ConfusionMatrix(CLASSES).update(predicted, truth))
    return made


def counts(made: list[ConfusionMatrix]) -> ImageCounts:
    return ImageCounts(np.array([m.intersection for m in made]), np.array([m.union for m in made]))


def test_frames_that_came_again_are_no_further_evidence():
    made, better = matrices(12, 0.7), matrices(12, 0.8, 1)

    def repeated(given: list[ConfusionMatrix], times: int) -> ImageCounts:
        once = counts(given * times)
        return ImageCounts(once.intersection, once.union, frames=np.tile(np.arange(len(given)), times))

    once, again = bootstrap(counts(made)), bootstrap(repeated(made, 10))
    assert [again.value, again.low, again.high] == pytest.approx([once.value, once.low, once.high])
    once, again = (paired_difference(*map(take, (made, better))) for take in (counts, lambda m: repeated(m, 10)))
    assert [again.value, again.low, again.high] == pytest.approx([once.value, once.low, once.high])
    assert bootstrap(counts(made * 10)).low > again.low, "which images that are all others would not give"
    with refusal(r"expected a frame's number for each of 12 images, got \(3,\)", InputError):
        ImageCounts(counts(made).intersection, counts(made).union, frames=np.arange(3))


def test_a_frame_that_comes_again_is_known_by_its_part():
    firsts = {"01/day": "01/day", "01/day-2": "01/day-2", "01/day-3": "01/day", "02/day": "01/day"}
    assert frames_of([f"{part}/{name}" for part in firsts for name in ("a", "b/c")], firsts).tolist() == (
        [0, 1, 2, 3, 0, 1, 0, 1]
    )
    assert frames_of(["01/day/a", "02/day/a"], {}).tolist() == [0, 1], "names of a stream that is no sequence"
    nested = {"01/val": "01/val", "01/val/fog": "01/val/fog", "02/val/fog": "01/val/fog"}
    assert frames_of([f"{part}/a" for part in nested], nested).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("sequence", "frames"),
    [
        (None, [0, 1, 0, 1, 2, 3] * 2),
        (["day", "day", "night-1"], [0, 1, 0, 1, 2, 3] * 2),
        (["day", "day-2", "night-1"], [0, 1, 2, 3, 4, 5] * 2),
    ],
)
def test_the_parts_of_older_records_are_known_by_their_names(sequence: list[str] | None, frames: list[int]):
    parts = ["01/day", "01/day-2", "01/night-1", "02/day", "02/day-2", "02/night-1"]
    names = [f"{part}/{name}" for part in parts for name in ("a", "b/c")]
    image = {"intersection": [1], "union": [2], "only_predicted": []}
    record = {
        "run": {"stream": {} if sequence is None else {"sequence": sequence}},
        "parts": {part: {"mIoU": 1.0} for part in parts},
        "images": [{"name": name, **image} for name in names],
    }
    found = counts_of(record, names).frames
    assert found.tolist() == frames


def test_one_frame_has_no_interval():
    one = counts(matrices(1, 0.7))
    assert bootstrap(one).value > 0 and np.isnan([bootstrap(one).low, bootstrap(one).high]).all()
    assert np.isnan(paired_difference(one, one).low) and paired_difference(one, one).value == 0


def test_the_value_is_the_streams_and_the_interval_holds_it():
    made = matrices(40, 0.7)
    interval = bootstrap(counts(made))
    assert interval.value == pytest.approx(sum(made, ConfusionMatrix(CLASSES)).mean_iou)
    assert interval.low < interval.value < interval.high


def test_a_resample_is_the_matrix_of_the_images_drawn():
    made = matrices(5, 0.6)
    weights = np.array([[2, 0, 1, 0, 2]])
    drawn = sum((made[index] for index in (0, 0, 2, 4, 4)), ConfusionMatrix(CLASSES))
    assert counts(made).mean_iou(weights)[0] == pytest.approx(drawn.mean_iou)


def test_more_images_narrow_and_the_seed_repeats():
    few, many = bootstrap(counts(matrices(10, 0.7))), bootstrap(counts(matrices(400, 0.7)))
    assert many.high - many.low < (few.high - few.low) / 2
    assert bootstrap(counts(matrices(10, 0.7))) == few != bootstrap(counts(matrices(10, 0.7)), seed=1)


def test_intervals_cover_as_often_as_they_say():
    everything = sum(matrices(4000, 0.7, seed=99), ConfusionMatrix(CLASSES)).mean_iou
    intervals = [bootstrap(counts(matrices(40, 0.7, seed)), resamples=300) for seed in range(100)]
    assert 85 <= sum(interval.low <= everything <= interval.high for interval in intervals) <= 100


def test_pairing_sees_what_two_intervals_do_not():
    made = matrices(40, 0.7)
    better = []
    for matrix in made:  # one pixel more is right in every image
        moved = matrix.counts.copy()
        row = int(np.argmax(moved[:, :-1].sum(1) - np.diag(moved)))
        column = next(c for c in range(CLASSES) if c != row and moved[row, c])
        moved[row, column], moved[row, row] = moved[row, column] - 1, moved[row, row] + 1
        better.append(ConfusionMatrix(CLASSES, moved))
    first, second = bootstrap(counts(made)), bootstrap(counts(better))
    difference = paired_difference(counts(made), counts(better))
    assert first.high > second.low and difference.low > 0
    assert difference.value == pytest.approx(second.value - first.value)


def of_two_classes(images: int) -> list[ConfusionMatrix]:
    """Two of three classes are true: 30 and 20 right, 10 and 10 confused with each other."""
    counts = np.array([[30, 10, 0, 0], [10, 20, 0, 0], [0, 0, 0, 0]])
    return [ConfusionMatrix(CLASSES, counts.copy()) for _ in range(images)]


def straying(made: list[ConfusionMatrix], images: int) -> list[ConfusionMatrix]:
    """The same predictions, but in the first images one wrong pixel of class 0 is said to be class 2."""
    stray = [ConfusionMatrix(CLASSES, matrix.counts.copy()) for matrix in made]
    for matrix in stray[:images]:
        matrix.counts[0, 1:3] += (-1, 1)
    return stray


def recorded(made: list[ConfusionMatrix], *, old: bool = False) -> dict:
    """What a record holds of them; `old` ones do not say what each image's truth holds."""
    images = [
        {"name": str(index), "intersection": m.intersection.tolist(), "union": m.union.tolist()}
        | ({} if old else {"only_predicted": np.flatnonzero(m.counted & ~m.in_truth).tolist()})
        for index, m in enumerate(made)
    ]
    total = sum(made, ConfusionMatrix(CLASSES))
    return {"images": images, "confusion": total.counts.tolist(), "figures": total.summary("abc")}


@pytest.mark.parametrize("old", [False, True], ids=["as recorded now", "as recorded before"])
def test_a_stray_class_changes_no_set_of_classes(old: bool):
    clean = of_two_classes(10)
    names = [str(index) for index in range(10)]
    ours, theirs = (counts_of(recorded(made, old=old), names) for made in (clean, straying(clean, 4)))
    before, after = (300 / 500 + 200 / 400) / 2, (300 / 500 + 200 / 396) / 2  # class 1 loses four false pixels
    found = paired_difference(ours, theirs)
    assert found.value == pytest.approx(after - before)
    assert 0 <= found.low <= found.value <= found.high < 0.01
    assert bootstrap(ours).value == pytest.approx(before)
    assert bootstrap(theirs).value == pytest.approx(after)
    changes = image_differences(ours, theirs)
    assert changes[:4] == pytest.approx((20 / 39 - 20 / 40) / 2)
    assert changes[4:] == pytest.approx(0)


def test_the_official_convention_stays_and_is_named():
    clean = of_two_classes(10)
    names = [str(index) for index in range(10)]
    ours, theirs = (counts_of(recorded(made), names) for made in (clean, straying(clean, 4)))
    value = (300 / 500 + 200 / 396 + 0) / 3
    assert bootstrap(theirs, convention="official").value == pytest.approx(value)
    found = paired_difference(ours, theirs, convention="official")
    assert found.value == pytest.approx(value - (300 / 500 + 200 / 400) / 2)
    with refusal("Did you mean 'official'"):
        bootstrap(ours, convention="oficial")


def test_every_resample_has_one_set_of_classes():
    """The third class is true in one image of many: resamples that lack it lack it for both methods."""
    clean = of_two_classes(6)
    clean.append(ConfusionMatrix(CLASSES, np.array([[30, 0, 0, 0], [0, 0, 0, 0], [0, 0, 10, 0]])))
    names = [str(index) for index in range(7)]
    ours, theirs = (counts_of(recorded(made), names) for made in (clean, straying(clean, 3)))
    weights = np.array([[1, 1, 1, 1, 1, 1, 0], [1] * 7])
    assert ours.classes(weights).tolist() == theirs.classes(weights).tolist()
    assert ours.classes(weights).tolist() == [[True, True, False], [True, True, True]]
    found = paired_difference(ours, theirs)
    assert found.low > -0.2 and found.high < 0.02
    assert paired_difference(ours, theirs, convention="official").low < -0.15


def test_a_comparison_names_its_classes():
    clean = of_two_classes(5)
    found = compare(recorded(clean), recorded(straying(clean, 2)))
    assert found["paired"]["classes"] == ["a", "b"] and found["paired"]["images"] == 5
    assert 0 < found["paired"]["mIoU"] < 1
    official, in_truth = (found["figures"][name][2] for name in ("mIoU", "mIoU_truth"))
    assert official < -15 < 0 < in_truth


def test_pairs_must_match():
    with refusal("same images"):
        paired_difference(counts(matrices(3, 0.5)), counts(matrices(4, 0.5)))
    with refusal("at least one image"):
        ImageCounts(np.zeros((0, 3)), np.zeros((0, 3)))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([[3, 1]], [[2, 1]]), "as many right pixels as true or predicted ones at most"),
        (([[-1, 1]], [[2, 1]]), "none below 0"),
        (([[np.nan, 1]], [[2, 1]]), "none below 0"),
        (([[1, 1]], [[2, 1]], [True]), r"got \(1, 2\) and \(1, 2\) and \(1,\)"),
        (([[1, 1]], [[2, 1]], [[1, 1]]), "truth as booleans, got int64"),
    ],
)
def test_counts_that_no_image_has_are_refused(arrays: tuple, message: str):
    with refusal(message, InputError):
        ImageCounts(*map(np.array, arrays))
    with refusal("as arrays N×C, got list", InputError):
        ImageCounts(*arrays)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": -1}, "level: expected a number above 0 and below 1, got -1"),
        ({"level": 95}, "level: .* got 95"),
        ({"level": "0.9"}, "level: .* got '0.9'"),
        ({"resamples": 0}, "resamples: expected a whole number at least 1, got 0"),
        ({"resamples": 1.5}, "resamples: .* got 1.5"),
        ({"seed": -1}, "seed: expected a whole number at least 0, got -1"),
        ({"convention": "truht"}, "Did you mean 'truth'"),
    ],
)
def test_an_interval_of_settings_that_make_no_sense_is_refused(settings: dict, message: str):
    made = counts(matrices(3, 0.5))
    for take in (lambda: bootstrap(made, **settings), lambda: paired_difference(made, made, **settings)):
        with refusal(message, SettingsError):
            take()


@pytest.mark.slow
def test_calibration_error_equals_brute_force_and_torchmetrics():
    oracle = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(CLASSES) * 0.5, 500)
    truth = rng.integers(-1, CLASSES, 500)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    reliability = reliability_of(Reliability(15), confidence, predicted, truth)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15) & (truth >= 0)
        if inside.any():
            gap = abs((predicted == truth)[inside].mean() - confidence[inside].mean())
            expected += inside.sum() / (truth >= 0).sum() * gap
    assert reliability.expected_calibration_error == pytest.approx(expected)
    theirs = oracle.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(truth), CLASSES, n_bins=15, ignore_index=-1
    )
    assert reliability.expected_calibration_error == pytest.approx(float(theirs), abs=1e-5)


def test_calibration_merges_and_knows_its_limits():
    sure, right = np.array([0.0, 0.5, 1.0]), np.array([0, 1, 1])
    whole = reliability_of(Reliability(4), sure, right, np.array([0, 1, 0]))
    parts = reliability_of(Reliability(4), sure[:1], right[:1], np.array([0])) + reliability_of(
        Reliability(4), sure[1:], right[1:], np.array([1, 0])
    )
    assert whole.diagram() == parts.diagram() and sum(row["pixels"] for row in whole.diagram()) == 3
    perfect = reliability_of(Reliability(), np.ones(9), np.zeros(9, int), np.zeros(9, int))
    assert perfect.expected_calibration_error == 0 and np.isnan(Reliability().expected_calibration_error)


@pytest.mark.parametrize("wrong", [np.nan, 2.0, 50.0, -0.5])
@pytest.mark.parametrize("make", [Reliability, lambda: UncertaintyAwareIou(CLASSES)])
def test_a_frame_of_impossible_confidence_counts_in_no_part(make, wrong: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "CHUNK", 2)
    meter, labels = make(), np.zeros(5, int)
    sure = np.array([0.5, 0.5, 0.5, 0.5, wrong])
    with refusal(r"confidence in \[0, 1\]", InputError):
        meter.update(Prediction(labels, sure), Truth(labels, np.zeros(5, bool)))
    assert meter.figures() == {}


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        ([0, -2], [0, 0], r"predicted labels in -1..2, got -2..0"),
        ([0, 3], [0, 0], r"predicted labels in -1..2, got 0..3"),
        ([0, 0], [0, 255], r"true labels in -1..2, got 0..255"),
        ([0, 0.7], [0, 0], "predicted labels as an array of integers, got one of float64"),
    ],
)
def test_labels_out_of_range_are_refused_beside_a_mask(predicted: list, truth: list, message: str):
    with refusal(message, InputError):
        uncertainty_of(
            UncertaintyAwareIou(CLASSES), np.array(predicted), np.ones(2), np.array(truth), np.zeros(2, bool)
        )


def test_counting_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(2)
    predicted, truth = rng.integers(0, CLASSES, (9, 11)), rng.integers(-1, CLASSES, (9, 11))
    confidence, invalid = rng.random((9, 11)), rng.random((9, 11)) < 0.3
    whole = reliability_of(Reliability(4), confidence, predicted, truth)
    counted = uncertainty_of(UncertaintyAwareIou(CLASSES), predicted, confidence, truth, invalid)
    monkeypatch.setattr(metrics, "CHUNK", 7)
    assert reliability_of(Reliability(4), confidence, predicted, truth).diagram() == whole.diagram()
    pieces = uncertainty_of(UncertaintyAwareIou(CLASSES), predicted, confidence, truth, invalid)
    assert (pieces.counts == counted.counts).all()


def brute_uiou(predicted, confidence, truth, invalid, threshold):
    values = []
    for c in range(CLASSES):
        inside = unite = 0
        for p, f, t, i in zip(predicted, confidence, truth, invalid, strict=True):
            if t < 0:
                continue
            said = f >= threshold
            hit = (t == c and p == c and said) or (t == c and i and not said)
            inside += hit
            unite += hit or (t == c) or (p == c and said)
        values.append(inside / unite if unite else float("nan"))
    return values


def test_uiou_equals_brute_force():
    rng = np.random.default_rng(1)
    predicted, truth = rng.integers(-1, CLASSES, 300), rng.integers(-1, CLASSES, 300)
    confidence, invalid = rng.random(300), rng.random(300) < 0.3
    thresholds = np.array([0.0, 0.25, 0.5, 1.0])
    metric = UncertaintyAwareIou(CLASSES, thresholds)
    for part in (slice(0, 100), slice(100, 300)):
        uncertainty_of(metric, predicted[part], confidence[part], truth[part], invalid[part])
    expected = np.array([brute_uiou(predicted, confidence, truth, invalid, t) for t in thresholds]).T
    np.testing.assert_allclose(metric.uiou, expected)
    plain = ConfusionMatrix(CLASSES).update(predicted, truth)
    np.testing.assert_allclose(metric.uiou[:, 0], plain.iou)  # nothing is predicted invalid at 0
    assert metric.average == pytest.approx(np.nanmean(expected, 0).mean())


def test_silence_on_invalid_pixels_is_rewarded():
    truth, invalid = np.zeros(10, int), np.arange(10) < 5
    wrong_there = np.where(invalid, 1, 0)
    honest = uncertainty_of(
        UncertaintyAwareIou(2, np.array([0.5])), wrong_there, np.where(invalid, 0.1, 0.9), truth, invalid
    )
    blind = uncertainty_of(UncertaintyAwareIou(2, np.array([0.5])), wrong_there, np.full(10, 0.9), truth, invalid)
    assert honest.uiou[0, 0] == 1 and blind.uiou[0, 0] == 0.5
    with refusal("ascending"):
        UncertaintyAwareIou(2, np.array([0.5, 0.1]))
    with refusal("ascending"):
        UncertaintyAwareIou(2, np.array([0.5, np.nan]))


def test_diagrams_of_no_bin_or_of_other_bins_are_refused():
    with refusal("at least one bin, got 0", InputError):
        Reliability(0)
    for other in (Reliability(4), Reliability(15, classes=3)):
        with refusal("equally many bins and classes, got", InputError):
            Reliability(15) + other
