"""Writing a report: one self-contained page, or its tables as Markdown, CSV or LaTeX."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from allweather.bench.report import figures
from allweather.bench.report.collect import Group, Record, group, load_records
from allweather.bench.report.panels import panels
from allweather.bench.report.table import Table
from allweather.bench.report.tables import all_tables
from allweather.data.images import write_bytes
from allweather.errors import unknown

Format = Literal["html", "md", "csv", "latex"]
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
li { overflow-wrap: anywhere; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8884; text-align: left; vertical-align: top; }
th { white-space: nowrap; } .n { text-align: right; white-space: nowrap; }
.note { font-size: .85rem; opacity: .75; margin: .3rem 0 0; }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; max-width: 100%; }
.frames { display: flex; flex-wrap: wrap; gap: .5rem; } .frames figure { flex: 1 1 10rem; max-width: 22rem; }
.frames img { width: 100%; height: auto; display: block; }
figure svg { max-width: 100%; height: auto; background: #fff; } figcaption { font-size: .85rem; max-width: 28rem; }
@media print { .wide { overflow: visible; } table { font-size: .65rem; } h3, figure, tr { break-inside: avoid; } }
"""


def write_report(folder: Path, out: Path, form: Format = "html", frames: int = 0) -> int:
    """Writes the report of the records in `folder`; returns how many records there were.

    Args:
        frames: the page shows this many frames that each method helped most, and as many that it hurt most.

    Raises:
        AllWeatherError: for a folder without records, an unknown form, or a file that cannot be written.
    """
    if form not in get_args(Format):
        raise unknown("format", form, get_args(Format))
    records = load_records(folder)
    groups = group(records)
    tables = all_tables(groups)
    if form == "html":
        text = page(groups, tables, records, panels(groups, folder, frames) if frames else {})
    else:
        parts = {"md": Table.markdown, "csv": Table.csv, "latex": Table.latex}
        text = "\n".join(parts[form](table) for table in tables)
    write_bytes(out, text.encode())
    return len(records)


def page(groups: Sequence[Group], tables: Sequence[Table], records: Sequence[Record], shown: Mapping[str, str]) -> str:
    """The page as one HTML document without any reference to another file; `shown` are panels, title → HTML."""
    curves, diagrams = figures.curves(groups), figures.reliability(groups)
    sections = [
        ("Results", "".join(table.html() for table in tables)),
        ("Iterations and early stopping", _figures(curves) + _lines(figures.verdict(groups))),
        ("Frames", _panels(shown)),
        ("Calibration", _figures(diagrams)),
        ("How these figures came about", _lines(_provenance(records))),
    ]
    body = "".join(f"<h2>{title}</h2>\n{content}\n" for title, content in sections if content)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>allweather: {len(records)} runs</title><style>{STYLE}</style></head>\n"
        f"<body><h1>Adaptation to adverse weather: {len(records)} runs</h1>\n{body}</body></html>\n"
    )


def _figures(drawn: dict[str, str]) -> str:
    inside = "".join(
        f"<figure>{svg}<figcaption>{html.escape(title)}</figcaption></figure>" for title, svg in drawn.items()
    )
    return f"<div class='figures'>{inside}</div>" if inside else ""


def _panels(shown: Mapping[str, str]) -> str:
    rows = [f"<h3>{html.escape(title)}</h3><div class='frames'>{row}</div>" for title, row in shown.items()]
    note = "<p class='note'>change: blue was put right by adaptation, orange was spoilt, grey is as before.</p>"
    return "".join(rows) + note if rows else ""


def _lines(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _provenance(records: Sequence[Record]) -> list[str]:
    """What the records say of their making, each thing once."""
    lines: dict[str, None] = {}
    for record in records:
        model, run = record["model"], record["run"]
        lines[f"{model['name']}: {model['weights'] or 'own weights'}, sha256 {model['sha256']}"] = None
        lines[
            f"{run['stream']['name']}: {record['frames']} frames, order {run['order']} (seed {run['seed']}), "
            f"hash {record['order_hash'][:12]}"
        ] = None
        method = f"{run['method']['name']} ({run['method']['preset']})"
        lines[f"{method}, {record['protocol']}: prediction {record['prediction']}"] = None
        lines["versions: " + ", ".join(f"{key} {value}" for key, value in record["versions"].items())] = None
        if record["failures"]:
            lines[f"{run['stream']['name']}: {len(record['failures'])} images could not be read or scored"] = None
    return list(lines)
