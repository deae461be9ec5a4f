"""Draws the pictures of the documentation: `python docs/pictures/draw.py` writes them beside this file.

The normalized cut is shown on a procedural scene with the network that comes along; the house by its floors.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch.nn import functional

import allweather as aw
from allweather.data.scenes import render

HERE = Path(__file__).parent
POINTS = ((40, 20), (20, 96), (56, 64))  # row and column of the pixels whose affinity is shown
FLOORS = (  # top to bottom; on one floor imports point to the right
    ("people", "#f3e3d3", ("app", "report", "submit")),
    ("streams and visitors as they come: never a label", "#e3e9f7", ("scale", "live", "serve")),
    ("evaluation: sees labels", "#f7d9d9", ("runs", "scoring", "data")),
    ("adaptation: never a label", "#d9efe0", ("session", "export", "methods", "models", "ncut")),
    (
        "below everything",
        "#ececec",
        (
            "pictures",
            "allocator",
            "plugins",
            "values",
            "writing",
            "rgb",
            "sizes",
            "finite",
            "interrupts",
            "classes",
            "errors",
        ),
    ),
)


def colored(logits: torch.Tensor) -> np.ndarray:
    """H×W×3 uint8, each pixel in the color of its class; logits C×H×W."""
    return np.array(aw.CITYSCAPES.colors, np.uint8)[logits.argmax(0).cpu().numpy()]


def normalized_cut_picture(path: Path) -> None:
    """The affinity of three pixels, and what minimising the normalized cut makes of a prediction."""
    scene = render(4, "fog", (256, 128))
    image = torch.from_numpy(scene.rgb).permute(2, 0, 1)[None]
    model = aw.load_model("demo:streetnet")
    small = functional.interpolate(image, (64, 128), mode="bilinear", antialias=True)
    affinity = aw.Affinity.from_image(small, sigma_rgb=15.0, sigma_xy=25.0, implementation="dense")
    assert isinstance(affinity.form, torch.Tensor)
    with torch.no_grad():
        source = model(image)
    method = aw.methods.make("mall-sample", settings={"iterations": 12, "stop_patience": 12, "lr": 2e-3}, model=model)
    result = aw.Session(model, method, guard=False)(image)
    figure, axes = plt.subplots(2, 4, figsize=(12, 3.9), layout="constrained")
    _show(axes[0, 0], scene.rgb, "image: procedural fog")
    for axis, (row, column) in zip(axes[0, 1:], POINTS, strict=True):
        weights = affinity.form[0, row * 128 + column].view(64, 128)
        _show(axis, weights, "affinity of the cross to every pixel", vmin=0, vmax=1)
        axis.plot(column, row, "+", color="red", markersize=12)
    _show(axes[1, 0], colored(source[0]), "source prediction")
    _show(axes[1, 1], colored(result.logits[0]), f"after {result.iterations} updates")
    _show(axes[1, 2], np.array(aw.CITYSCAPES.colors, np.uint8)[scene.labels], "truth (never seen)")
    axes[1, 3].plot(range(len(result.watched)), result.watched, marker="o", markersize=3)
    axes[1, 3].set_title("normalized cut", fontsize=9)
    axes[1, 3].set_xlabel("update", fontsize=8)
    axes[1, 3].tick_params(labelsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def house_picture(path: Path) -> None:
    """The rooms of the package, floor above floor: imports point down."""
    height = 100 * len(FLOORS)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {height}">',
        "<style>rect{stroke:#666}text{font-family:sans-serif;text-anchor:middle}.f{font-style:italic;font-size:14px;text-anchor:start}</style>",
        f'<path fill="#fff" d="M0 0h960v{height}H0z"/>',
    ]
    for level, (title, color, rooms) in enumerate(FLOORS):
        top, width = 100 * level + 6, 840 / len(rooms)
        drawn += [_box(10, top, 860, 88, color), f'<text class="f" x="25" y="{top + 23}">{title}</text>']
        for place, room in enumerate(rooms):
            left, size = 20 + place * width, min(14, 130 / len(rooms))
            drawn.append(_box(left + 5, top + 36, width - 10, 42, "#fff"))
            drawn.append(f'<text x="{left + width / 2:.0f}" y="{top + 62}" font-size="{size:.0f}">{room}</text>')
    drawn.append(
        f'<path stroke="#000" stroke-width="2" d="M915 20V{height - 30}"/><path d="M907 {height - 34}h16l-8 16z"/>'
    )
    drawn.append(f'<text transform="translate(935 {height // 2})rotate(90)" font-size="14">imports</text></svg>')
    path.write_text("\n".join(drawn) + "\n", encoding="utf-8")


def _box(x: float, y: float, width: float, height: float, color: str) -> str:
    return f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{height}" rx="9" fill="{color}"/>'


def _show(axis: Axes, picture: object, title: str, **options: float) -> None:
    axis.imshow(picture, **options)
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def main(folder: Path = HERE) -> None:
    """Draws all pictures into a folder."""
    matplotlib.use("Agg")
    torch.manual_seed(0)
    normalized_cut_picture(folder / "normalized-cut.png")
    house_picture(folder / "house.svg")


if __name__ == "__main__":
    main()
