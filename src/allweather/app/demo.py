"""`allweather demo`: the shipped network in each weather, by each method, as a table and one picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont
from rich.text import Text

from allweather import methods
from allweather.app.console import data, narration, plain, print_json, progress, rate, table
from allweather.classes import ClassSet
from allweather.data.images import write_json
from allweather.data.scenes import scene_labels, scene_stream
from allweather.data.stream import Frame
from allweather.data.weather import ADVERSE, CONDITIONS
from allweather.models import Segmenter, load_model
from allweather.pictures.convert import pixels_of
from allweather.pictures.drawing import colorize
from allweather.pictures.writing import write_image
from allweather.runs.decisions import count
from allweather.scoring.confusion import ConfusionMatrix
from allweather.session import Decision, Session
from allweather.writing import check_folder

METHODS = ("source", "tent", "mall-sample", "mall-domain")
FIRST = 300_000  # seeds of the demo's scenes: none of them trained or tuned anything
SHOWN = "mall-domain"


@dataclass(eq=False)
class Trial:
    """One method in one weather: its matrix and decisions and, for the picture, its last frame's labels."""

    matrix: ConfusionMatrix
    labels: np.ndarray
    decisions: list[Decision]


EXAMPLE = "allweather demo --out demo-output"


def demo(
    out: Annotated[Path, typer.Option(help="Where the picture and the figures go.")] = Path("demo-output"),
    frames: Annotated[int, typer.Option(min=1, help="Scenes per weather.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Chooses other scenes.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Adapt the shipped network to procedural street scenes in six kinds of weather, without labels.

    Prints mIoU per weather and method and writes OUT/panels.png (input, source, adapted, truth) and OUT/demo.json.
    """
    check_folder(out)  # before minutes of work, not after them
    seeds = range(FIRST + 1000 * seed, FIRST + 1000 * seed + frames)
    model = load_model("demo:streetnet")
    truths = [scene_labels(str(seed)) for seed in seeds]  # the same in every weather
    trials: dict[tuple[str, str], Trial] = {}
    with progress() as bar:
        task = bar.add_task("adapting", total=len(CONDITIONS) * len(METHODS), rate="")
        for condition in CONDITIONS:
            scenes = list(scene_stream(condition, seeds))
            for name in METHODS:
                bar.update(task, description=f"{name} in {condition}")
                trials[condition, name] = run(model, name, scenes, truths)
                bar.advance(task)
                bar.update(task, rate=rate(bar.tasks[0].speed))
    figures = summarise(trials)
    decisions = {
        name: count(each for where in CONDITIONS for each in trials[where, name].decisions) for name in METHODS
    }
    if json:
        print_json(figures)
    else:
        show(figures)
    write_json(
        out / "demo.json", {"frames": frames, "first_seed": seeds.start, "mIoU": figures, "decisions": decisions}
    )
    write_image(out / "panels.png", panels(trials, seeds[-1], model.classes))
    narration.print(f"picture: [bold]{plain(out / 'panels.png')}[/]   figures: {plain(out / 'demo.json')}")


def run(model: Segmenter, name: str, scenes: list[Frame], truths: list[np.ndarray]) -> Trial:
    """`name` along the scenes, online, scored by their true labels."""
    session = Session(model, methods.make(name, model=model))
    trial = Trial(ConfusionMatrix(len(model.classes)), np.zeros((0, 0), np.uint8), [])
    for frame, truth in zip(scenes, truths, strict=True):
        result = session(frame.image)
        trial.labels = result.labels.numpy()
        trial.matrix.update(trial.labels.astype(int), truth.astype(int))
        trial.decisions.append(result.decision)
    return trial


def summarise(trials: dict[tuple[str, str], Trial]) -> dict[str, dict[str, float]]:
    """mIoU in % by method and weather, `adverse` being the mean over all but clear."""
    figures: dict[str, dict[str, float]] = {}
    for name in METHODS:
        row = {condition: 100 * trials[condition, name].matrix.mean_iou_truth for condition in CONDITIONS}
        row["adverse"] = sum(row[condition] for condition in ADVERSE) / len(ADVERSE)
        figures[name] = {condition: round(value, 1) for condition, value in row.items()}
    return figures


def show(figures: dict[str, dict[str, float]]) -> None:
    """The table, best figure of each weather in bold."""
    columns = [*CONDITIONS, "adverse"]
    best = {column: max(row[column] for row in figures.values()) for column in columns}
    rows: list[tuple[str | Text, ...]] = [
        (name, *(Text(f"{row[c]:.1f}", "bold" if row[c] == best[c] else "") for c in columns))
        for name, row in figures.items()
    ]
    data.print(
        table("mIoU in % over the classes in the truth, each method online, without labels", ("method", *columns), rows)
    )


def panels(trials: dict[tuple[str, str], Trial], seed: int, classes: ClassSet) -> np.ndarray:
    """One row per weather: input, source, adapted and true labels, H×W×3 uint8."""
    heads = ["input", "source", SHOWN, "truth"]
    rows = []
    for condition in CONDITIONS:
        frame = next(iter(scene_stream(condition, range(seed, seed + 1))))
        pictures = [pixels_of(frame.image)]
        maps = [trials[condition, "source"].labels, trials[condition, SHOWN].labels, scene_labels(frame.name)]
        pictures += [colorize(labels, classes) for labels in maps]
        scored = [trials[condition, method].matrix.mean_iou_truth for method in ("source", SHOWN)]
        scores = [None, *scored, None]
        captions = [condition, *(f"{100 * score:.1f} mIoU" if score is not None else "" for score in scores[1:])]
        rows.append((pictures, captions))
    return _sheet(heads, rows)


def _sheet(heads: list[str], rows: list[tuple[list[np.ndarray], list[str]]]) -> np.ndarray:
    height, width = rows[0][0][0].shape[:2]
    gap, head, line = 8, 30, 22
    size = (len(heads) * (width + gap) + gap, head + len(rows) * (height + gap + line) + gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    title, caption = ImageFont.load_default(18), ImageFont.load_default(14)
    for column, text in enumerate(heads):
        draw.text((gap + column * (width + gap), 6), text, "black", title)
    for row, (pictures, captions) in enumerate(rows):
        top = head + row * (height + gap + line)
        for column, (picture, text) in enumerate(zip(pictures, captions, strict=True)):
            left = gap + column * (width + gap)
            sheet.paste(Image.fromarray(picture), (left, top))
            draw.text((left, top + height + 3), text, (60, 60, 60), caption)
    return np.asarray(sheet)
