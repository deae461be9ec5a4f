"""Weather on a rendered scene: what fog, rain, snow, night and overcast do to its light, by depth and surface.

Each function takes rgb H×W×3 in [0, 1], depth H×W in metres, trainIds H×W, a strength (1 as recorded) and a random
generator, and gives rgb H×W×3; labels do not change.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from allweather.classes import BUILDING, CAR, ROAD, SIDEWALK, SKY, TERRAIN, VEGETATION

GREY = np.array([0.299, 0.587, 0.114])


def clear(
    rgb: np.ndarray, depth: np.ndarray, labels: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """No weather."""
    return rgb


def fog(
    rgb: np.ndarray, depth: np.ndarray, labels: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Koschmieder's law: I = J·t + A·(1 − t), t = exp(−β·depth), with a visibility (3/β) of 60 to 110 m."""
    visibility = rng.uniform(60, 110)
    airlight = rng.uniform(0.72, 0.86) * np.array([0.98, 1.0, 1.02])
    return _veil(_desaturate(rgb, 0.25 * strength), depth, 3 * strength / visibility, airlight)


def rain(
    rgb: np.ndarray, depth: np.ndarray, labels: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """A dark grey sky, wet ground that darkens and mirrors, a veil, streaks and drops on the lens."""
    wet = _grey_sky(_desaturate(rgb, 0.4 * strength), labels, 0.55, strength) * (1 - 0.35 * strength)
    ground = np.isin(labels, (ROAD, SIDEWALK))
    wet = np.where(ground[..., None], _mirror(wet, ground, strength), wet)
    wet = _veil(wet, depth, 0.012 * strength, np.array([0.5, 0.53, 0.56]))
    streaks = _streaks(rng, labels.shape, density=0.004, length=max(5, labels.shape[0] // 10), slant=rng.uniform(-2, 2))
    wet = wet + 0.35 * strength * streaks[..., None]
    return _drops(wet, rng, count=int(10 * strength))


def snow(
    rgb: np.ndarray, depth: np.ndarray, labels: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Snow on the ground and on foliage, a bright low-contrast air, and flakes near and far."""
    white = np.array([0.86, 0.89, 0.93])
    patches = _blur(rng.normal(0, 1, labels.shape), 1.2, 9)  # flattened as the ground is by perspective
    patches = patches / patches.std()
    cover = np.zeros(labels.shape)
    for label, amount in ((ROAD, -0.8), (SIDEWALK, 0.4), (TERRAIN, 1.2), (VEGETATION, -0.5)):
        cover = np.where(labels == label, np.clip(0.5 + 0.8 * (patches + amount), 0, 0.92), cover)
    covered = rgb * (1 - strength * cover[..., None]) + white * strength * cover[..., None]
    air = _veil(_grey_sky(covered, labels, 0.8, strength), depth, 0.018 * strength, np.array([0.8, 0.82, 0.85]))
    for size, count in ((0.5, 0.012), (1.2, 0.003)):
        flakes = _blur((rng.random(labels.shape) < count).astype(float), size)
        air = air + np.clip(flakes / max(flakes.max(), 1e-6) * 1.4, 0, 0.9)[..., None] * strength * (0.95 - air)
    return air


def night(
    rgb: np.ndarray, depth: np.ndarray, labels: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Little light with a cold cast, warm lamps and headlights on the ground, lit windows, glow, noise, tone curve."""
    linear = rgb**2.2
    moon = np.array([0.035, 0.04, 0.06]) * rng.uniform(0.8, 1.4)
    sky = np.array([0.012, 0.014, 0.03])
    near = np.exp(-depth / 18)[..., None]  # headlights of the camera's own car
    lamps = np.clip(_blur(rng.normal(0, 1, labels.shape), labels.shape[1] / 24) * labels.shape[1] / 14, 0, 1)[..., None]
    light = moon + 0.24 * near * np.array([1, 0.95, 0.85]) + 0.16 * lamps * np.array([1, 0.8, 0.5])
    dark = np.where((labels == SKY)[..., None], sky, linear * light)
    lit = (labels == BUILDING) & (rgb.sum(2) < 0.95) & (_blur(rng.normal(0, 1, labels.shape), 2.5) > 0.12)
    lights = lit[..., None] * np.array([0.5, 0.36, 0.16]) + (
        (labels == CAR) & (rgb.min(2) > 0.8) & (rgb.std(2) > 0.01)
    )[..., None] * np.array([1.2, 1.1, 0.9])
    glow = np.stack([_blur(lights[..., channel], 2.0) for channel in range(3)], -1)
    dark = dark + 0.5 * lights + 0.6 * glow
    exposed = np.clip(dark * 3.0, 0, None)
    shot = rng.normal(0, 1, rgb.shape) * np.sqrt(exposed * 0.0015 + 2e-5)
    toned = np.clip(exposed + shot, 0, None) ** (1 / 2.2)
    shown = toned / (1 + 0.12 * toned)
    return rgb * (1 - strength) + shown * strength


def overcast(
    rgb: np.ndarray, depth: np.ndarray, labels: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """A closed sky: flat, cool light, less contrast and color."""
    flat = _desaturate(_grey_sky(rgb, labels, 0.68, strength), 0.45 * strength)
    level = rng.uniform(0.36, 0.44)
    flat = level + (flat - level) * (1 - 0.45 * strength)
    cool = 1 + strength * (np.array([0.9, 0.97, 1.05]) - 1)
    return _veil(flat * cool * (1 - 0.15 * strength), depth, 0.004 * strength, np.array([0.62, 0.65, 0.68]))


Condition = Callable[[np.ndarray, np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]
CONDITIONS: dict[str, Condition] = {
    condition.__name__: condition for condition in (clear, fog, rain, snow, night, overcast)
}
ADVERSE = tuple(name for name in CONDITIONS if name != "clear")


def _veil(rgb: np.ndarray, depth: np.ndarray, beta: float, airlight: np.ndarray) -> np.ndarray:
    transmission = np.exp(-beta * depth)[..., None]
    return rgb * transmission + airlight * (1 - transmission)


def _desaturate(rgb: np.ndarray, amount: float) -> np.ndarray:
    return rgb * (1 - amount) + (rgb @ GREY)[..., None] * amount


def _grey_sky(rgb: np.ndarray, labels: np.ndarray, level: float, strength: float) -> np.ndarray:
    sky = (labels == SKY)[..., None]
    cloud = level + 0.15 * ((rgb @ GREY)[..., None] - 0.7)
    return np.where(sky, rgb * (1 - strength) + cloud * strength, rgb)


def _mirror(rgb: np.ndarray, ground: np.ndarray, strength: float) -> np.ndarray:
    """The ground with what stands above it mirrored at its upper border, blurred downwards."""
    border = int(np.argmax(ground.any(1)))
    rows = np.clip(2 * border - np.arange(len(rgb)), 0, len(rgb) - 1)
    mirrored = np.stack([_blur(rgb[rows][..., channel], 2.5) for channel in range(3)], -1)
    amount = 0.45 * strength
    return rgb * (1 - 0.25 * strength) * (1 - amount) + mirrored * amount


def _streaks(rng: np.random.Generator, shape: tuple[int, int], density: float, length: int, slant: float) -> np.ndarray:
    """Falling drops drawn out by their motion, H×W in [0, 1]."""
    drops = (rng.random(shape) < density) * rng.uniform(0.3, 1, shape)
    total = np.zeros(shape)
    for step in range(length):
        total = np.maximum(total, np.roll(drops, (step, round(step * slant / length)), (0, 1)))
    return total


def _drops(rgb: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Round drops on the lens: each shows what is around it, blurred."""
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    mask = np.zeros(rgb.shape[:2])
    for _ in range(count):
        radius = rng.uniform(0.01, 0.03) * rgb.shape[1]
        cy, cx = rng.uniform(0, rgb.shape[0]), rng.uniform(0, rgb.shape[1])
        mask = np.maximum(mask, np.clip(1.4 * (1 - np.hypot(y - cy, x - cx) / radius), 0, 1))
    soft = np.stack([_blur(rgb[..., channel], rgb.shape[1] / 50) for channel in range(3)], -1)
    return rgb * (1 - mask[..., None]) + (soft * 1.05) * mask[..., None]


def _blur(values: np.ndarray, radius: float, across: float | None = None) -> np.ndarray:
    """Gaussian blur of H×W by σ `radius` in pixels, `across` horizontally where it differs; edges renormalised."""
    rows, columns = _gaussian(values.shape[0], radius), _gaussian(values.shape[1], across or radius)
    return np.asarray(rows @ values @ columns.T, np.float32)


@lru_cache(maxsize=64)
def _gaussian(side: int, radius: float) -> np.ndarray:
    distance = np.arange(side)[:, None] - np.arange(side)
    kernel = np.exp(-0.5 * (distance / radius) ** 2)
    return np.asarray(kernel / kernel.sum(1, keepdims=True))
