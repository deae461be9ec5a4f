"""Upright things on the street: cars, people, poles, signs, lights and trees, drawn far ones first."""

from collections.abc import Callable

import numpy as np

from allweather.classes import BICYCLE, BUS, CAR, LIGHT, PERSON, POLE, RIDER, SIGN, TRUCK, VEGETATION
from allweather.data.pinhole import Camera

# u in [-1, 1] across, v in [0, 1] upwards; a part is where it is, its color and its label
Part = tuple[np.ndarray, np.ndarray | tuple[float, float, float], int]
Shape = Callable[[np.ndarray, np.ndarray, np.random.Generator], list[Part]]


def draw_objects(
    rgb: np.ndarray, labels: np.ndarray, depth: np.ndarray, camera: Camera, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The street's image, labels and depth with everything that stands on it."""
    things = sorted(_place(rng), key=lambda thing: -thing[2])
    for shape, across, z, width, height in things:
        _draw(rgb, labels, depth, camera, rng, shape, across, z, width, height)
    return rgb, labels, depth


Thing = tuple[Shape, float, float, float, float]  # shape, metres across, metres away, width, height


def _place(rng: np.random.Generator) -> list[Thing]:
    things: list[Thing] = []
    spacing = rng.uniform(14, 24)
    for side in (-1, 1):
        for z in np.arange(rng.uniform(5, 12), 90, spacing):
            things.append((_pole, side * rng.uniform(5.5, 6.5), z, 0.45, rng.uniform(5, 8)))
    for _ in range(rng.integers(2, 5)):
        things.append(
            (_sign, rng.choice([-1, 1]) * rng.uniform(4.8, 6.5), rng.uniform(6, 30), 0.9, rng.uniform(2.4, 3.2))
        )
    for _ in range(rng.integers(0, 3)):
        things.append((_traffic_light, rng.choice([-1, 1]) * rng.uniform(4.6, 6), rng.uniform(9, 30), 0.6, 3.6))
    for _ in range(rng.integers(2, 7)):
        things.append(
            (_tree, rng.choice([-1, 1]) * rng.uniform(6.5, 9), rng.uniform(8, 60), rng.uniform(3, 5), rng.uniform(4, 7))
        )
    for _ in range(rng.integers(3, 8)):
        lane = rng.choice([-4.3, -2.0, 1.8, 4.3]) + rng.uniform(-0.3, 0.3)
        things.append((_car, lane, rng.uniform(7, 60), rng.uniform(1.7, 2.0), rng.uniform(1.35, 1.7)))
    if rng.random() < 0.45:
        shape = rng.choice(np.array([_truck, _bus], dtype=object))
        things.append((shape, rng.choice([-2.2, 2.2]), rng.uniform(14, 40), 2.5, rng.uniform(2.8, 3.3)))
    for _ in range(rng.integers(2, 8)):
        things.append(
            (_person, rng.choice([-1, 1]) * rng.uniform(4.5, 7.5), rng.uniform(6, 35), 0.7, rng.uniform(1.55, 1.9))
        )
    for _ in range(rng.integers(0, 3)):
        things.append(
            (_cyclist, rng.choice([-1, 1]) * rng.uniform(2.5, 4.6), rng.uniform(7, 30), 0.9, rng.uniform(1.7, 1.9))
        )
    return things


def _draw(
    rgb: np.ndarray,
    labels: np.ndarray,
    depth: np.ndarray,
    camera: Camera,
    rng: np.random.Generator,
    shape: Shape,
    across: float,
    z: float,
    width: float,
    height: float,
) -> None:
    scale = camera.focal / z  # pixels per metre
    bottom = camera.horizon + camera.lift * scale
    centre = camera.centre + across * scale
    half, tall = width * scale / 2, height * scale
    x0, x1 = max(0, int(centre - half)), min(camera.width, int(centre + half) + 2)
    y0, y1 = max(0, int(bottom - tall)), min(camera.height, int(bottom) + 1)
    if x0 >= x1 or y0 >= y1:
        return
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    u, v = (x + 0.5 - centre) / max(half, 0.75), (bottom - y - 0.5) / max(tall, 1.0)
    window = np.s_[y0:y1, x0:x1]
    visible = (depth[window] > z) & (v >= 0) & (v <= 1)
    shade = 0.9 + 0.1 * v[..., None]
    for where, color, label in shape(u, v, rng):
        chosen = where & visible
        paint = np.broadcast_to(np.asarray(color, np.float32), (*u.shape, 3)) * shade
        rgb[window][chosen] = paint[chosen]
        labels[window][chosen] = label
        depth[window][chosen] = z


def _pole(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> list[Part]:
    grey = (rng.uniform(0.35, 0.6),) * 3
    return [(np.abs(u) < 0.35, grey, POLE), ((v > 0.96) & (np.abs(u) < 1), (0.75, 0.72, 0.65), POLE)]


def _sign(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> list[Part]:
    color = [(0.8, 0.12, 0.1), (0.1, 0.25, 0.7), (0.9, 0.75, 0.1)][rng.integers(3)]
    disc = u**2 + ((v - 0.84) / 0.16) ** 2
    return [
        (np.abs(u) < 0.14, (0.5, 0.5, 0.5), POLE),
        (disc < 1, color, SIGN),
        ((disc < 0.45) & (np.abs(v - 0.84) < 0.06), (0.92, 0.92, 0.9), SIGN),
    ]


def _traffic_light(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> list[Part]:
    lamp = rng.integers(3)
    color = [(0.2, 0.9, 0.35), (0.95, 0.75, 0.1), (0.95, 0.15, 0.1)][lamp]
    return [
        (np.abs(u) < 0.18, (0.3, 0.3, 0.3), POLE),
        ((np.abs(u) < 0.7) & (v > 0.74), (0.09, 0.1, 0.09), LIGHT),
        ((np.abs(u) < 0.45) & (np.abs(v - 0.79 - 0.08 * lamp) < 0.03), color, LIGHT),
    ]


def _tree(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> list[Part]:
    noise = rng.normal(0, 1, u.shape)
    noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 3
    leaf = np.array([0.2, 0.36, 0.13]) * rng.uniform(0.75, 1.3) * (1 + 0.3 * noise[..., None])
    crown = u**2 + ((v - 0.66) / 0.36) ** 2 + 0.15 * noise
    return [((np.abs(u) < 0.08) & (v < 0.5), (0.3, 0.22, 0.15), VEGETATION), (crown < 0.95, leaf, VEGETATION)]


def _vehicle(u: np.ndarray, v: np.ndarray, color: np.ndarray, label: int, roof: float, front: bool) -> list[Part]:
    """A body on wheels seen along its length; `roof` is the half width at the top."""
    outline = np.abs(u) < np.where(v > 0.5, 1 - (1 - roof) * (v - 0.5) * 2, 1.0)
    body = outline & (v > 0.12)
    lamp = (np.abs(np.abs(u) - 0.75) < 0.15) & (np.abs(v - 0.42) < 0.07)
    return [
        ((np.abs(np.abs(u) - 0.8) < 0.18) & (v < 0.3), (0.06, 0.06, 0.06), label),
        (body, color, label),
        (outline & (v > 0.58) & (v < 0.9) & (np.abs(u) < 0.78), (0.16, 0.2, 0.25), label),
        (body & (v < 0.2), (0.1, 0.1, 0.1), label),
        (body & lamp, (0.95, 0.93, 0.85) if front else (0.75, 0.08, 0.06), label),
        (body & (np.abs(u) < 0.25) & (np.abs(v - 0.28) < 0.05), (0.85, 0.85, 0.8), label),
    ]


def _car(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> list[Part]:
    palette = np.array([[0.75, 0.76, 0.78], [0.12, 0.12, 0.14], [0.5, 0.08, 0.08], [0.1, 0.2, 0.45], [0.9, 0.9, 0.9]])
    return _vehicle(u, v, palette[rng.integers(5)] * rng.uniform(0.85, 1.1), CAR, 0.68, bool(rng.random() < 0.5))


def _truck(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> list[Part]:
    box = rng.uniform(0.55, 0.92)
    return [
        *_vehicle(u, v, rng.uniform(0.2, 0.8, 3), TRUCK, 1.0, False),
        ((np.abs(u) < 0.98) & (v > 0.34), (box, box, box * 0.96), TRUCK),
        ((np.abs(u) < 0.03) & (v > 0.34), (0.35, 0.35, 0.35), TRUCK),
    ]


def _bus(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> list[Part]:
    color = np.array([[0.85, 0.7, 0.1], [0.75, 0.1, 0.1], [0.15, 0.45, 0.25]])[rng.integers(3)]
    return [
        *_vehicle(u, v, color, BUS, 0.97, True),
        ((np.abs(u) < 0.6) & (v > 0.9) & (v < 0.97), (0.95, 0.6, 0.1), BUS),
    ]


def _person(u: np.ndarray, v: np.ndarray, rng: np.random.Generator, label: int = PERSON) -> list[Part]:
    coat, trousers = rng.uniform(0.05, 0.85, 3), rng.uniform(0.05, 0.35, 3)
    skin = (0.75, 0.56, 0.45)
    legs = (np.abs(np.abs(u) - 0.22) < 0.2) & (v < 0.5)
    return [
        (legs, trousers, label),
        ((np.abs(u) < 0.55) & (v > 0.42) & (v < 0.84), coat, label),
        ((u / 0.32) ** 2 + ((v - 0.91) / 0.085) ** 2 < 1, skin, label),
    ]


def _cyclist(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> list[Part]:
    wheel = (np.abs(u) < 0.3) & (v < 0.42)
    bars = (np.abs(u) < 0.75) & (np.abs(v - 0.5) < 0.04)
    return [*_person(u, v, rng, RIDER), (wheel | bars, (0.12, 0.12, 0.13), BICYCLE)]
