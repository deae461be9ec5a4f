"""Procedural scenes: repeatable, labelled truthfully, weather that changes the light alone and follows its laws."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from allweather import AllWeatherError, Frame, SettingsError
from allweather.data.labelled import labelled_scenes
from allweather.data.scenes import FAR, SKY, render, scene_labels, scene_stream
from allweather.data.weather import ADVERSE, CONDITIONS, fog

SIZE = (96, 64)
SEEDS = range(12)
GREY = np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("size", [SIZE, (97, 51)])
def test_a_scene_is_whole(condition: str, size: tuple[int, int]):
    scene = render(3, condition, size)
    shape = size[::-1]
    assert scene.rgb.shape == (*shape, 3) and scene.labels.shape == shape and scene.depth.shape == shape
    assert scene.rgb.dtype == scene.depth.dtype == np.float32 and scene.labels.dtype == np.uint8
    assert np.isfinite(scene.rgb).all() and scene.rgb.min() >= 0 and scene.rgb.max() <= 1
    assert (scene.depth > 0).all() and (scene.depth <= FAR).all() and scene.labels.max() < 19


@pytest.mark.parametrize("condition", CONDITIONS)
def test_no_condition_computes_with_impossible_colors(condition: str):
    with warnings.catch_warnings(), np.errstate(under="raise"):
        warnings.simplefilter("error", RuntimeWarning)
        for seed in SEEDS:
            assert np.isfinite(render(seed, condition, SIZE).rgb).all()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_same_seed_gives_the_same_scene_and_another_another(condition: str):
    first, again, other = render(5, condition, SIZE), render(5, condition, SIZE), render(6, condition, SIZE)
    assert np.array_equal(first.rgb, again.rgb)
    assert not np.array_equal(first.labels, other.labels)


@pytest.mark.parametrize("condition", ADVERSE)
def test_weather_changes_the_light_and_nothing_else(condition: str):
    clear, shown = render(2, "clear", SIZE), render(2, condition, SIZE)
    assert np.array_equal(clear.labels, shown.labels) and np.array_equal(clear.depth, shown.depth)
    assert np.abs(clear.rgb - shown.rgb).mean() > 0.03


@pytest.mark.parametrize("condition", ADVERSE)
def test_strength_goes_from_clear_to_the_recorded_setting(condition: str):
    clear = render(4, "clear", SIZE).rgb
    changes = [np.abs(render(4, condition, SIZE, strength).rgb - clear).mean() for strength in (0.0, 0.5, 1.0)]
    assert changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("condition", ADVERSE)
def test_strength_zero_is_clear(condition: str):
    assert np.allclose(render(4, condition, SIZE, 0.0).rgb, render(4, "clear", SIZE).rgb, atol=1e-6)


def test_fog_follows_koschmieder():
    depth = np.array([[0.0, 20.0, 40.0, 80.0]])
    black, white = (np.full((1, 4, 3), value) for value in (0.0, 1.0))
    labels = np.zeros((1, 4), np.uint8)
    dark, bright = (fog(rgb, depth, labels, 1.0, np.random.default_rng(0))[0] for rgb in (black, white))
    transmission = (bright - dark)[:, 0]
    assert transmission[0] == pytest.approx(1)
    assert transmission[2] == pytest.approx(transmission[1] ** 2)
    assert transmission[3] == pytest.approx(transmission[1] ** 4)
    assert 60 <= 3 * 20 / -np.log(transmission[1]) <= 110


@pytest.mark.parametrize(
    ("condition", "darker"), [("night", True), ("rain", True), ("overcast", True), ("snow", False), ("fog", False)]
)
def test_each_weather_moves_the_ground_as_it_should(condition: str, darker: bool):
    change = []
    for seed in SEEDS:
        clear = render(seed, "clear", SIZE)
        ground = np.isin(clear.labels, (1, 9))
        change.append(((render(seed, condition, SIZE).rgb - clear.rgb) @ GREY)[ground].mean())
    assert (np.mean(change) < 0) == darker


def test_snow_lies_on_grass_more_than_on_the_driven_road():
    covered_by: dict[int, list[float]] = {0: [], 9: []}
    for seed in SEEDS:
        clear, snow = render(seed, "clear", SIZE), render(seed, "snow", SIZE)
        near = clear.depth < 25  # where the air adds little
        for label, values in covered_by.items():
            where = near & (clear.labels == label)
            covered = (snow.rgb @ GREY)[where] > 0.7  # brighter than asphalt, paving and grass ever are
            values.extend(covered.astype(float))
    assert np.mean(covered_by[9]) > 0.5 and np.mean(covered_by[9]) > 2 * np.mean(covered_by[0])


@pytest.mark.parametrize("condition", ["fog", "rain", "overcast"])
def test_veiled_air_takes_contrast_away(condition: str):
    assert all(
        (render(seed, condition, SIZE).rgb @ GREY).std() < (render(seed, "clear", SIZE).rgb @ GREY).std()
        for seed in SEEDS
    )


def test_the_geometry_holds():
    compared = 0
    for seed in SEEDS:
        scene = render(seed, "clear", SIZE)
        sky = scene.labels == SKY
        assert (scene.depth[sky] == FAR).all() and (scene.depth[~sky] < FAR).all()
        assert not sky[-1].any()
        road = [scene.depth[row][scene.labels[row] == 0] for row in (-1, -12)]
        if road[0].size and road[1].size:
            compared += 1
            assert road[0].mean() < road[1].mean()
    assert compared > len(SEEDS) / 2


def test_the_streets_hold_the_classes_they_promise():
    seen = set().union(*(np.unique(render(seed, "clear", (192, 96)).labels).tolist() for seed in range(40)))
    absent = {16, 17}  # train, motorcycle
    assert seen == set(range(19)) - absent


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_stream_shows_images_and_never_a_label(condition: str):
    stream = scene_stream(condition, range(7, 10), SIZE)
    assert stream.names == ("7", "8", "9") and len(stream) == 3
    frame = next(iter(stream))
    assert set(vars(frame)) == set(vars(Frame("", torch.zeros(3, 1, 1), (1, 1))))
    assert frame.image.shape == (3, SIZE[1], SIZE[0]) and frame.image.dtype == torch.float32
    assert torch.allclose(frame.image * 255, (frame.image * 255).round(), atol=1e-3)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_labels_of_a_frame_are_those_of_its_scene(condition: str):
    assert np.array_equal(scene_labels("8", SIZE), render(8, condition, SIZE).labels)


def test_another_order_has_another_hash():
    first, again, other = (scene_stream("fog", seeds, SIZE) for seeds in (range(3), range(3), range(1, 4)))
    assert first.order_hash == again.order_hash != other.order_hash


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": float("nan")}, "strength: expected a number at least 0, got nan"),
        ({"strength": float("inf")}, "strength: .* got inf"),
        ({"strength": -1}, "strength: .* got -1"),
        ({"strength": "1"}, "strength: .* got '1'"),
        ({"seed": -1}, "seed: expected a whole number at least 0, got -1"),
        ({"size": (0, 5)}, "size: expected .width, height."),
        ({"size": 5}, "size: expected .width, height."),
    ],
)
def test_a_scene_of_settings_that_make_no_sense_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(SettingsError, match=message):
        render(**({"seed": 0, "condition": "fog", "size": (32, 16)} | settings))


@pytest.mark.parametrize("step", [-1, 0, 1.5, "2", True])
def test_a_step_along_a_stream_is_a_whole_number(step: Any):
    labelled = labelled_scenes("fog", range(5), (32, 16))
    with pytest.raises(SettingsError, match="every: expected a whole number at least 1, got "):
        labelled.every(step)
    assert labelled.every(2).stream.names == ("0", "2", "4")


@pytest.mark.parametrize("ask", [lambda: render(0, "fogg", SIZE), lambda: scene_stream("fogg", range(1))])
def test_an_unknown_condition_is_named_with_the_nearest(ask: object):
    assert callable(ask)
    with pytest.raises(AllWeatherError, match=r"fogg.*fog"):
        ask()
