"""`allweather score`: predicted labels against true ones, one confusion matrix over all images."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from allweather.app.console import DONE, SOME_FAILED, data, narration, plain, print_json, table, warn
from allweather.data.labels import ClassMapping, find_mapping, label_files
from allweather.data.truth import LabelsAs
from allweather.errors import InputError
from allweather.runs.record_file import read_record, written_classes
from allweather.scoring.folders import Score, score_folders

EXAMPLE = "allweather score adapted/labels truth/ --mapping cityscapes-camvid11"


def score(
    predictions: Annotated[Path, typer.Argument(metavar="LABELS", help="Folder of predicted labels (.png).")],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH",
            help="Folder of true labels: of the same names, or named as Cityscapes, ACDC, Dark Zurich, BDD100K do.",
        ),
    ],
    mapping: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="How predicted classes are compared with true ones; a file of your own classes: each with itself.",
        ),
    ] = "cityscapes",
    labels_as: Annotated[
        LabelsAs | None,
        typer.Option(
            help="How label files hold classes. Default: as each name says (…_labelIds, …_color), class indices where "
            "it says nothing; auto: refuse where it says nothing and numbers fit both trainIds and labelIds.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Score predicted labels: mIoU and its companions over all images together.

    The exit status is 1 where a prediction could not be scored or a label has none.
    """
    chosen = find_mapping(mapping)
    _check_writer(predictions, chosen)
    result = score_folders(predictions, truth, chosen, labels_as)
    summary = result.matrix.summary(chosen.truth.names)
    if json:
        print_json(
            {
                **summary, "images": len(result.images), "labels": result.labels, "labels_as": result.read_as,
                "predictions_as": result.predictions_as, "mapping": mapping, "failed": result.failed,
                "without_prediction": len(result.without_prediction),
            }
        )  # fmt: skip
    elif result.images:
        _show(result, summary)
    _tell(result)
    if not result.images:
        warn("nothing could be scored")
    raise typer.Exit(DONE if result.complete else SOME_FAILED)


def _check_writer(predictions: Path, mapping: ClassMapping) -> None:
    """Refuses predictions of which their run says that they hold other classes.

    Raises:
        InputError: naming both class sets.
    """
    read = lru_cache(1)(read_record)
    for folder in dict.fromkeys(path.parent for path in label_files(predictions).values()):
        written = written_classes(folder, read)
        if written is not None and list(mapping.predicted.names) != written[1]:
            raise InputError(
                f"{folder} holds the {len(written[1])} classes of '{written[0]}', as {written[2]} says; "
                f"--mapping {mapping.name} compares the {len(mapping.predicted)} of '{mapping.predicted.name}'. Choose "
                "another --mapping; for classes of your own, a file with their names: --mapping yard.toml."
            )


def _show(result: Score, summary: dict[str, object]) -> None:
    per_class = summary["IoU"]
    assert isinstance(per_class, dict)
    rows: list[tuple[str, str | Text]] = [(name, _figure(value)) for name, value in per_class.items()]
    official, in_truth = result.matrix.counted, result.matrix.in_truth
    rows += [("", "")]
    if (official == in_truth).all():
        rows += [(f"mIoU, the {in_truth.sum()} classes in the truth", Text(_figure(summary["mIoU"]), "bold"))]
    else:
        rows += [
            (f"mIoU, official: the {official.sum()} classes true or predicted", Text(_figure(summary["mIoU"]), "bold")),
            (f"mIoU, the {in_truth.sum()} classes in the truth", _figure(summary["mIoU_truth"])),
        ]
    rows += [("pixel accuracy", _figure(summary["pixel_accuracy"]))]
    data.print(table(f"{len(result.images)} images, IoU in %", ("class", "IoU"), rows))


def _figure(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "–"


def _tell(result: Score) -> None:
    """What was read how, and what is missing."""
    for what, ways in (("label files", result.read_as), ("predictions", result.predictions_as)):
        if set(ways) - {"trainIds"}:
            read = ", ".join(f"{count} as {encoding}" for encoding, count in ways.items())
            narration.print(plain(f"{what} read: {read}"))
    for name, reason in result.failed.items():
        warn(f"{name}: {reason}")
    if result.without_prediction:
        answered = result.labels - len(result.without_prediction)
        warn(
            f"{len(result.without_prediction)} of {result.labels} labels have no prediction, e.g. "
            f"{result.without_prediction[0]}; the figures are over the {len(result.images)} images that were scored, "
            f"of {answered} labels"
        )
