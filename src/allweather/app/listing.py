"""`allweather list`: what there is, for people and as JSON for programs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from allweather import methods
from allweather.app.console import data, print_json, table, warn
from allweather.data.datasets import DATASETS, list_datasets
from allweather.data.datasets.own import list_own as own_datasets
from allweather.data.labels import MAPPINGS
from allweather.methods.own import list_own as own_methods
from allweather.methods.views import parse_views, passes_of
from allweather.models import list_models
from allweather.models.own import list_own as own_models

Kind = Literal["models", "methods", "datasets"]
Listed = tuple[list[dict[str, Any]], dict[str, str]]  # rows, and why others are left out
EXAMPLE = "allweather list methods --json"


def listing(
    kind: Annotated[Kind, typer.Argument(help="models, methods or datasets.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """List models, methods (with their fields, defaults and presets) or datasets."""
    rows, broken = {"models": _all_models, "methods": _all_methods, "datasets": _all_datasets}[kind]()
    for reason in broken.values():
        warn(f"left out: {reason}")
    if json:
        print_json(rows)
        return
    columns, lines = {"models": _models, "methods": _methods, "datasets": _datasets}[kind](rows)
    data.print(table(f"{len(rows)} {kind}", columns, lines, numbers_from=len(columns)))
    if kind == "methods":
        data.print(_defaults(rows))
        data.print(_fields(rows))


def list_methods(known: Mapping[str, type[methods.Method]]) -> list[dict[str, Any]]:
    """One row per method: name, source, fields with type, default and help, presets.

    `passes` is what one prediction costs by default, in forward passes over the image: one per view of its size.
    """
    return [
        {
            "name": name,
            "source": method.source,
            "passes": passes_of(parse_views(method.views)),
            "fields": methods.describe_fields(method),
            "presets": {"recommended": {}, **method.presets},
            "reconstruction": method.reconstruction,
            "without_batchnorm": dict(method.without_batchnorm),
        }
        for name, method in known.items()
    ]


def _all_models() -> Listed:
    rows, broken = own_models()
    return [*list_models(), *rows], broken


def _all_methods() -> Listed:
    found, broken = own_methods(methods.METHODS)
    return list_methods(methods.METHODS | found), broken


def _all_datasets() -> Listed:
    """One row per dataset, and one for plain folders."""
    found, broken = own_datasets(DATASETS)
    folder = {"name": "folder", "title": "any folder of images", "mappings": sorted(MAPPINGS)}
    return [*list_datasets(DATASETS | found), folder], broken


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
    return ("name", "presets", "passes to predict", "source"), [
        (row["name"], ", ".join(row["presets"]), f"{row['passes']:g}", row["source"]) for row in rows
    ]


def _defaults(rows: list[dict[str, Any]]) -> Table:
    """Each method's fields with their values in the preset `recommended`."""
    lines = [
        (
            row["name"],
            " ".join(f"{name}={_short(field.get('default', 'required'))}" for name, field in row["fields"].items())
            or "–",
        )
        for row in rows
    ]
    return table("defaults", ("name", "fields"), lines, numbers_from=2)


def _fields(rows: list[dict[str, Any]]) -> Table:
    """What each field is, once for all methods that mean the same by it."""
    meant: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for name, field in row["fields"].items():
            meant.setdefault((name, field["type"], field["help"]), []).append(row["name"])
    lines = [
        (name, kind, help, f"{len(users)} methods" if len(users) > 2 else ", ".join(users))
        for (name, kind, help), users in sorted(meant.items())
    ]
    return table("fields (--set FIELD=VALUE)", ("field", "value", "what it is", "of"), lines, numbers_from=4)


def _short(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if value is None or isinstance(value, bool) else f"{value}"


def _datasets(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return ("name", "title", "splits", "terms"), [
        (row["name"], row["title"], ", ".join(row.get("splits", ())), row.get("terms", "")) for row in rows
    ]
