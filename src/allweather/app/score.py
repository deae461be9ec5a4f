"""`allweather score`: predicted labels against true ones, one confusion matrix over all images."""

from pathlib import Path
from typing import Annotated

import typer

from allweather.app.console import DONE, SOME_FAILED, data, print_json, table, warn
from allweather.bench.score import Score, score_folders
from allweather.data.labels import find_mapping


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command(epilog="Example: allweather score adapted/labels truth/ --mapping cityscapes-camvid11")(score)


def score(
    predictions: Annotated[Path, typer.Argument(metavar="LABELS", help="Folder of predicted labels (.png).")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Folder of true labels with the same names.")],
    mapping: Annotated[str, typer.Option(help="How predicted classes are compared with true ones.")] = "cityscapes",
    json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Score predicted labels: mIoU and its companions over all images together."""
    chosen = find_mapping(mapping)
    result = score_folders(predictions, truth, chosen)
    summary = result.matrix.summary(chosen.truth.names)
    if json:
        print_json(
            {
                **summary, "images": len(result.images), "mapping": mapping, "failed": result.failed,
                "without_prediction": len(result.without_prediction),
            }
        )  # fmt: skip
    else:
        _show(result, summary)
    for name, reason in result.failed.items():
        warn(f"{name}: {reason}")
    if result.without_prediction:
        warn(f"{len(result.without_prediction)} labels have no prediction, e.g. {result.without_prediction[0]}")
    raise typer.Exit(SOME_FAILED if result.failed else DONE)


def _show(result: Score, summary: dict[str, object]) -> None:
    per_class = summary["IoU"]
    assert isinstance(per_class, dict)
    rows = [(name, "–" if value is None else f"{value:.2f}") for name, value in per_class.items()]
    rows += [
        ("", ""),
        ("mIoU", f"[bold]{summary['mIoU']}[/]"),
        ("pixel accuracy", str(summary["pixel_accuracy"])),
    ]
    data.print(table(f"{len(result.images)} images, IoU in %", ("class", "IoU"), rows))
