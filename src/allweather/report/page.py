"""Writing a report: one self-contained page, or its tables as Markdown, CSV or LaTeX."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast, get_args

from allweather.errors import SettingsError, check_known
from allweather.report import figures
from allweather.report.collect import Group, group_records
from allweather.report.folder import load_records, record_files
from allweather.report.panels import panels
from allweather.report.provenance import provenance_tables, timing_table
from allweather.report.table import Table
from allweather.report.tables import harm_tables, result_tables
from allweather.report.verdict import verdicts
from allweather.runs.summary import Record
from allweather.writing import check_apart, write_bytes

Format = Literal["html", "md", "csv", "latex"]
ENDINGS: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".csv": "csv", ".tex": "latex"}
STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --page: light-dark(#fff, #16181b);
  --ink: light-dark(#1a1c1f, #e6e6e6); }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem;
  background: var(--page); color: var(--ink); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.25rem; margin: 3rem 0 0; padding-top: .6rem; border-top: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; overflow-wrap: anywhere; }
.lead, .note, figcaption { font-size: .85rem; opacity: .8; margin: .35rem 0 0; max-width: 60rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin-top: .8rem; font-size: .9rem; }
a { color: inherit; } li { overflow-wrap: anywhere; margin: .3rem 0; } ul { padding-left: 1.2rem; }
.wide { overflow-x: auto; background: linear-gradient(to left, var(--page) 30%, transparent) right / 3rem 100% no-repeat
  local, linear-gradient(to left, #8887, transparent) right / .8rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { vertical-align: bottom; } .n { text-align: right; white-space: nowrap; }
th:first-child, td:first-child { padding-left: .2rem; position: sticky; left: 0; background: var(--page);
  overflow-wrap: anywhere; min-width: 7.5rem; max-width: 24rem; }
.of { padding-top: .8rem; font-weight: 600; background: linear-gradient(var(--soft), var(--soft)), var(--page); }
.stacked td { max-width: 24rem; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 1.2rem 2rem; margin-top: 1rem; }
figure { margin: 0; max-width: 100%; } .figures figure { width: 26rem; }
.frames { display: grid; grid-template-columns: repeat(5, 1fr); gap: .5rem; }
.frames img { width: 100%; height: auto; display: block; }
figure svg { width: 100%; height: auto; background: #fff; border-radius: 3px; display: block; }
.key { display: flex; flex-wrap: wrap; gap: .2rem .9rem; font-size: .8rem; margin-top: .8rem; }
.key i { display: inline-block; width: .9em; height: .9em; margin-right: .3em; vertical-align: -.1em;
  border: 1px solid #8888; }
@media (max-width: 40rem) {
  body { padding: 1rem .7rem 3rem; } h1 { font-size: 1.3rem; }
  .frames { grid-template-columns: repeat(2, 1fr); }
  th, td { padding: .25rem .4rem; } th:first-child, td:first-child { max-width: 9.5rem; }
  .of { max-width: none !important; position: static !important; }
  .stacked thead { display: none; } .stacked, .stacked tbody, .stacked tr { display: block; }
  .stacked tr { padding: .4rem 0; border-bottom: 1px solid var(--line); } .stacked .of { display: block; }
  .stacked td { display: grid; grid-template-columns: 7.5rem 1fr; gap: .6rem; border: 0; padding: .1rem .2rem;
    text-align: left; white-space: normal; max-width: none; position: static; }
  .stacked td::before { content: attr(data-of); opacity: .7; }
}
@media print {
  :root { color-scheme: light; } body { font-size: 10.5pt; max-width: none; padding: 0; } nav { display: none; }
  .wide { overflow: visible; } table { font-size: 7.5pt; } th, td { padding: .12rem .3rem; }
  th:first-child, td:first-child { position: static; min-width: 4.5rem; }
  thead .n { white-space: normal; }
  .key i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3, thead { break-after: avoid; } figure, tr { break-inside: avoid; } .figures figure { width: 47%; }
}
"""
TITLE = "Adaptation to adverse weather"


def write_report(folder: Path | str, out: Path | str, form: Format | None = None, frames: int = 0) -> int:
    """Writes the report of a folder of records; returns the number of records.

    Args:
        folder: where `allweather bench` wrote.
        out: the file to write.
        form: `html`, one page that needs no network; or its tables as `md`, `csv` or `latex`; None goes by the ending
            of `out`: .html, .md, .csv or .tex.
        frames: number of frames that the page shows of those that each method helped most, and of those it hurt most.

    Raises:
        AllWeatherError: for a folder without records, a form that is unknown, shows no frames or is another than the
            file's ending says, or a file that cannot be written or is a record.
    """
    folder, out = Path(folder), Path(out)
    check_apart(out, record_files(folder))
    form = _form_of(out, form)
    if frames and form != "html":
        raise SettingsError(f"{out} is {form}, which shows no frames: leave out --frames, or write .html.")
    records = load_records(folder)
    groups = group_records(records)
    if form == "html":
        text = page(groups, records, panels(groups, folder, frames) if frames else {})
    else:
        text = markdown(groups) if form == "md" else _joined(groups, Table.csv if form == "csv" else Table.latex)
    write_bytes(out, text.encode(errors="backslashreplace"))
    return len(records)


def _form_of(out: Path, asked: Format | None) -> Format:
    said = ENDINGS.get(out.suffix.lower())
    if asked is None and said is None:
        raise SettingsError(f"{out}: expected a name that ends in {', '.join(ENDINGS)}, or --format beside it.")
    form = cast(Format, asked or said)
    check_known("format", form, get_args(Format))
    if said not in (None, form):
        raise SettingsError(f"{out} is a name of {said}, and {form} is asked for. Leave out one of the two.")
    return form


def tables_of(groups: Sequence[Group]) -> list[Table]:
    """Every table, in the order of the page."""
    return [*result_tables(groups), *harm_tables(groups), timing_table(groups), *provenance_tables(groups)]


def markdown(groups: Sequence[Group]) -> str:
    """Every table as Markdown, and what the curves say of early stopping."""
    return _joined(groups, Table.markdown) + _list("Early stopping", verdicts(groups))


def _joined(groups: Sequence[Group], form: Callable[[Table], str]) -> str:
    return "\n".join(form(table) for table in tables_of(groups))


def page(groups: Sequence[Group], records: Sequence[Record], shown: Mapping[str, str]) -> str:
    """The page as one HTML document without any reference to another file; `shown` are panels, title → HTML."""
    sections = [
        ("Results", _figures(figures.gains(groups)) + _tables(result_tables(groups))),
        ("Iterations and early stopping", _figures(figures.curves(groups)) + _lines(verdicts(groups))),
        ("Frames", "".join(shown.values())),
        ("Where adaptation hurt", "".join(table.html(titled=False) for table in harm_tables(groups))),
        ("Time and memory", timing_table(groups).html(titled=False)),
        ("Calibration", _figures(figures.reliability(groups))),
        ("How these figures came about", _tables(provenance_tables(groups))),
    ]
    present = [(f"s{number}", title, content) for number, (title, content) in enumerate(sections) if content]
    links = "".join(f"<a href='#{anchor}'>{title}</a>" for anchor, title, _ in present)
    body = "".join(f"<h2 id='{anchor}'>{title}</h2>\n{content}\n" for anchor, title, content in present)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{TITLE}: {len(records)} runs</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{TITLE}: {len(records)} runs</h1>\n<p class='lead'>{html.escape(_lead(groups))}</p>"
        f"<nav>{links}</nav>\n{body}</body></html>\n"
    )


def _lead(groups: Sequence[Group]) -> str:
    """What is compared with what, in one sentence."""
    counted = [
        f"{len(dict.fromkeys(names))} {word}{'s' if len(dict.fromkeys(names)) > 1 else ''}"
        for word, names in (
            ("network", [group.network for group in groups]),
            ("method", [group.label for group in groups]),
            ("stream", [group.where for group in groups]),
        )
    ]
    return f"{', '.join(counted)}; every figure follows from the records of these runs, and the last section says how."


def _tables(tables: Sequence[Table]) -> str:
    return "".join(table.html() for table in tables)


def _figures(drawn: Mapping[str, str]) -> str:
    inside = "".join(
        f"<figure role='img' aria-label='{html.escape(title, quote=True)}'>{svg}"
        f"<figcaption>{html.escape(title)}</figcaption></figure>"
        for title, svg in drawn.items()
    )
    return f"<div class='figures'>{inside}</div>" if inside else ""


def _lines(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _list(title: str, lines: Sequence[str]) -> str:
    return f"\n### {title}\n\n" + "".join(f"- {line}\n" for line in lines) if lines else ""
