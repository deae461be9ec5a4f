"""`allweather list`: what there is, for people and as JSON for programs."""

from typing import Annotated, Any, Literal

import typer

from allweather import methods
from allweather.app.console import data, print_json, table
from allweather.data.datasets import list_datasets
from allweather.data.labels import MAPPINGS
from allweather.models import list_models

Kind = Literal["models", "methods", "datasets"]


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("list", epilog="Example: allweather list methods --json")(show)


def show(
    kind: Annotated[Kind, typer.Argument(help="models, methods or datasets.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """List models, methods (with their fields, defaults and presets) or datasets."""
    rows = {"models": list_models, "methods": list_methods, "datasets": _all_datasets}[kind]()
    if json:
        print_json(rows)
        return
    columns, lines = {"models": _models, "methods": _methods, "datasets": _datasets}[kind](rows)
    data.print(table(f"{len(rows)} {kind}", columns, lines, numbers_from=len(columns)))


def list_methods() -> list[dict[str, Any]]:
    """One row per method: name, source, fields with type, default and help, presets."""
    return [
        {
            "name": name,
            "source": method.source,
            "fields": methods.describe_fields(method),
            "presets": {"recommended": {}, **method.presets},
            "without_batchnorm": dict(method.without_batchnorm),
        }
        for name, method in methods.METHODS.items()
    ]


def _all_datasets() -> list[dict[str, Any]]:
    """One row per dataset, and one for plain folders."""
    return [*list_datasets(), {"name": "folder", "title": "any folder of images", "mappings": sorted(MAPPINGS)}]


def _models(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return ("name", "family", "parameters", "norm layers", "weights' licence"), [
        (
            row["name"],
            row["family"],
            f"{row['parameters'] / 1e6:.2f} M" if "parameters" in row else "",
            ", ".join(f"{count} {kind}" for kind, count in row.get("norms", {}).items()),
            row.get("licence", ""),
        )
        for row in rows
    ]


def _methods(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return ("name", "presets", "source"), [(row["name"], ", ".join(row["presets"]), row["source"]) for row in rows]


def _datasets(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return ("name", "title", "splits", "terms"), [
        (row["name"], row["title"], ", ".join(row.get("splits", ())), row.get("terms", "")) for row in rows
    ]
