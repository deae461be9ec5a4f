"""Procedural street scenes in perspective, labelled per pixel, in clear and in adverse weather.

Each scene is ray-cast: the ground plane, two rows of facades along the street, and upright things at their places,
far ones first. Colors, layout, light and camera vary with the seed; the same seed and size give the same scene.
"""

from dataclasses import dataclass

import numpy as np
import torch

from allweather.classes import BUILDING, FENCE, ROAD, SIDEWALK, SKY, TERRAIN, VEGETATION, WALL
from allweather.data.pinhole import Camera
from allweather.data.stream import Frame, Stream
from allweather.data.street_objects import draw_objects
from allweather.data.weather import CONDITIONS
from allweather.errors import check_known
from allweather.sizes import check_size
from allweather.values import check_number

SIZE = (256, 128)  # width, height
FAR = 300.0  # metres; the depth of the sky


@dataclass(frozen=True, eq=False)
class Scene:
    """One rendered scene.

    Attributes:
        rgb: H×W×3 float32 in [0, 1].
        labels: H×W uint8, Cityscapes trainIds.
        depth: H×W float32, metres along the optical axis.
    """

    rgb: np.ndarray
    labels: np.ndarray
    depth: np.ndarray

    def image(self) -> torch.Tensor:
        """3×H×W float32 in [0, 1], as an 8-bit file would hold it."""
        rgb = np.round(self.rgb * 255) / 255
        return torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1).contiguous()


def render(seed: int, condition: str = "clear", size: tuple[int, int] = SIZE, strength: float = 1.0) -> Scene:
    """The scene of `seed`, of `size` (width, height), under `condition`; labels and depth do not depend on it.

    Args:
        condition: a key of `weather.CONDITIONS`.
        strength: of the weather, at least 0; 1 is the recorded setting, 0 is clear.

    Raises:
        AllWeatherError: for an unknown condition, and a seed, size or strength that makes no sense.
    """
    check_known("condition", condition, CONDITIONS)
    check_number("seed", seed, whole=True, low=0)
    check_number("strength", strength, low=0)
    size = check_size(size)
    rng = np.random.default_rng([seed, 1])
    camera = _camera(rng, size)
    scene = _street(camera, rng)
    scene = Scene(*draw_objects(scene.rgb, scene.labels, scene.depth, camera, rng))
    rgb = np.clip(scene.rgb, 0, 1)
    with np.errstate(under="ignore"):  # light of what is far off is 0, whatever the caller has NumPy raise
        shown = CONDITIONS[condition](rgb, scene.depth, scene.labels, strength, np.random.default_rng([seed, 2]))
    grain = np.random.default_rng([seed, 3]).normal(0, 0.008, shown.shape)
    return Scene(np.clip(shown + grain, 0, 1).astype(np.float32), scene.labels, scene.depth)


def scene_stream(condition: str, seeds: range, size: tuple[int, int] = SIZE) -> Stream:
    """The frames of `seeds` under `condition`, without labels; `scene_labels` has those.

    Raises:
        AllWeatherError: for an unknown condition, or a size that is none.
    """
    check_known("condition", condition, CONDITIONS)
    size = check_size(size)

    def read(name: str) -> Frame:
        return Frame(name, render(int(name), condition, size).image(), size)

    return Stream([str(seed) for seed in seeds], read)


def scene_labels(name: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The true labels of a stream's frame, H×W uint8 trainIds; for scoring only."""
    return render(int(name), "clear", size).labels


def texture(rng: np.random.Generator, shape: tuple[int, int], octaves: tuple[int, ...]) -> np.ndarray:
    """Smooth noise of mean 0 and about ±1, H×W, one random grid of that many cells across per octave."""
    total = np.zeros(shape, np.float32)
    for cells in octaves:
        grid = rng.normal(0, 1, (max(2, cells * shape[0] // shape[1]) + 1, cells + 1)).astype(np.float32)
        total += enlarge(grid, shape)
    return total / len(octaves) ** 0.5


def enlarge(grid: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A 2-D grid interpolated bilinearly to `shape`."""
    rows, columns = (np.linspace(0, side - 1.001, n) for side, n in zip(grid.shape, shape, strict=True))
    y, x = rows.astype(int)[:, None], columns.astype(int)[None]
    fy, fx = rows[:, None] - y, columns[None] - x
    above = grid[y, x] * (1 - fx) + grid[y, x + 1] * fx
    below = grid[y + 1, x] * (1 - fx) + grid[y + 1, x + 1] * fx
    return np.asarray(above * (1 - fy) + below * fy, np.float32)


def _camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    width, height = size
    return Camera(
        width=width,
        height=height,
        focal=width * rng.uniform(0.75, 0.95),
        horizon=height * rng.uniform(0.40, 0.48),
        centre=width * rng.uniform(0.42, 0.58),
        lift=rng.uniform(1.3, 1.9),
    )


def _street(camera: Camera, rng: np.random.Generator) -> Scene:
    """Sky, ground and the two rows along the street."""
    shape = (camera.height, camera.width)
    right, down = camera.rays()
    rgb, labels = _sky(right, down, rng), np.full(shape, SKY, np.uint8)
    depth = np.full(shape, FAR, np.float32)
    below = down > 1e-3
    far = np.where(below, camera.lift / np.maximum(down, 1e-3), FAR)
    ground = below & (far < FAR)
    _paint_ground(rgb, labels, right, far, ground, rng)
    depth[ground] = far[ground]
    for side in (-1, 1):
        _paint_row(rgb, labels, depth, camera, right, down, side, rng)
    return Scene(rgb, labels, depth)


def _sky(right: np.ndarray, down: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    zenith = np.array([0.25, 0.45, 0.8]) + rng.uniform(-0.06, 0.06, 3)
    haze = np.array([0.72, 0.82, 0.92]) + rng.uniform(-0.04, 0.04, 3)
    up = np.clip(-down * 2.2, 0, 1)[..., None]
    clouds = np.clip(texture(rng, right.shape, (4, 8, 16)) - rng.uniform(0, 0.8), 0, 1)[..., None]
    return np.asarray((haze * (1 - up) + zenith * up) * (1 - clouds) + 0.96 * clouds, np.float32)


def _paint_ground(
    rgb: np.ndarray,
    labels: np.ndarray,
    right: np.ndarray,
    far: np.ndarray,
    ground: np.ndarray,
    rng: np.random.Generator,
) -> None:
    bend = rng.uniform(-1.5e-3, 1.5e-3)
    across = right * far - bend * far**2  # metres from the road's axis
    half, walk = rng.uniform(3.4, 5.5), rng.uniform(1.8, 3.5)
    axis = rng.uniform(-1.5, 1.0)
    offset = np.abs(across - axis)
    grain = texture(rng, right.shape, (16, 64, 128))
    asphalt = rng.uniform(0.26, 0.40) + 0.03 * grain
    paving = rng.uniform(0.48, 0.62) + 0.04 * grain - 0.07 * ((across % 1.0 < 0.08) | (far % 1.2 < 0.1))
    paints = (
        (ROAD, offset <= half, asphalt, np.array([1.0, 1.0, 1.03])),
        (SIDEWALK, (offset > half) & (offset <= half + walk), paving, np.array([1.03, 0.99, 0.95])),
        (TERRAIN, offset > half + walk, 0.42 + 0.06 * grain, np.array([0.78, 1.0, 0.5])),
    )
    for label, where, light, tint in paints:
        chosen = ground & where
        rgb[chosen] = light[chosen, None] * tint
        labels[chosen] = label
    dashes = (np.abs(across - axis) < 0.09) & (far % 6 < 3)
    edges = np.abs(offset - half + 0.3) < 0.06
    rgb[ground & (dashes | edges)] = 0.82
    rgb[ground & (np.abs(offset - half) < 0.12)] *= 0.72  # kerb


def _paint_row(
    rgb: np.ndarray,
    labels: np.ndarray,
    depth: np.ndarray,
    camera: Camera,
    right: np.ndarray,
    down: np.ndarray,
    side: int,
    rng: np.random.Generator,
) -> None:
    """Facades, hedges, walls and fences in a plane parallel to the street, one block after the other."""
    distance = rng.uniform(7.0, 11.0)
    slope = right * side
    z = np.where(slope > 1e-3, distance / np.maximum(slope, 1e-3), FAR)
    up = camera.lift - down * z  # metres above the ground
    light = rng.uniform(0.75, 1.1)
    grain = texture(rng, right.shape, (32, 96))
    start = rng.uniform(0, 6)
    while start < 160:
        end = start + rng.uniform(6, 18)
        kind = rng.choice([BUILDING, BUILDING, BUILDING, VEGETATION, VEGETATION, WALL, FENCE])
        top = {BUILDING: rng.uniform(6, 18), VEGETATION: rng.uniform(3, 8), WALL: rng.uniform(1.6, 2.6), FENCE: 1.4}[
            kind
        ]
        edge = top + (0.8 * grain if kind == VEGETATION else 0)
        inside = (z >= start) & (z < end) & (up >= 0) & (up < edge) & (z < depth)
        color = _facade(kind, z - start, up, grain, rng) * light
        rgb[inside] = color[inside]
        labels[inside] = kind
        depth[inside] = z[inside]
        start = end + rng.choice([0.0, 0.0, rng.uniform(1, 6)])


def _facade(kind: int, along: np.ndarray, up: np.ndarray, grain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colors H×W×3 of a block, by metres along it and above the ground."""
    if kind == BUILDING:
        wall = np.array([rng.uniform(0.45, 0.8), rng.uniform(0.4, 0.68), rng.uniform(0.33, 0.6)])
        color = wall * (1 + 0.06 * grain[..., None])
        pitch, floor = rng.uniform(2.0, 3.2), rng.uniform(2.8, 3.4)
        window = (along % pitch > 0.35 * pitch) & (along % pitch < 0.8 * pitch)
        window &= (up % floor > 0.3 * floor) & (up % floor < 0.8 * floor)
        glass = np.array([0.2, 0.25, 0.32]) * rng.uniform(0.7, 1.5)
        return np.where(window[..., None], glass, color)
    if kind == VEGETATION:
        leaf = np.array([0.22, 0.38, 0.14]) * rng.uniform(0.7, 1.25)
        return leaf * (1 + 0.45 * grain[..., None])
    if kind == WALL:
        joints = ((up % 0.5 < 0.06) | ((along + 0.5 * (up // 0.5 % 2)) % 1.0 < 0.06))[..., None]
        return np.where(joints, 0.4, np.array([0.62, 0.55, 0.47]) * (1 + 0.07 * grain[..., None]))
    slats = (along % 0.35 < 0.17)[..., None]
    return np.where(slats, np.array([0.55, 0.42, 0.3]), np.array([0.3, 0.25, 0.2])) * (1 + 0.05 * grain[..., None])
