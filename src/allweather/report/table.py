"""A table as data, and its four forms: HTML, Markdown, CSV and LaTeX."""

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Rows under columns; None is no value. Numbers are shown with `digits` decimals, CSV keeps them whole.

    A column without any value is shown in CSV only. In a page, `grouped` turns the first column into headings over
    the rows that share it, and `stacked` shows each row as a block of its own on narrow screens.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    digits: int = 2
    grouped: bool = False
    stacked: bool = False

    def markdown(self) -> str:
        shown = self._shown_columns()
        lines = [f"### {self.title}", "", _bars([_bare(self.columns[i]) for i in shown])]
        lines += [_bars(["---" if self._is_text(i) else "---:" for i in shown])]
        lines += [_bars([_bare(self._text(row[i])) for i in shown]) for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])

    def csv(self) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["table", *self.columns])
        writer.writerows([[self.title, *("" if cell is None else cell for cell in row)] for row in self.rows])
        return buffer.getvalue()

    def latex(self) -> str:
        shown = self._shown_columns()
        align = "".join("l" if self._is_text(index) else "r" for index in shown)
        lines = [r"\begin{table}", rf"\caption{{{_tex(f'{self.title}. {self.note}'.strip())}}}"]
        lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
        lines += [" & ".join(_tex(self.columns[i]) for i in shown) + r" \\ \midrule"]
        lines += [" & ".join(_tex(self._text(row[i])) for i in shown) + r" \\" for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"

    def html(self, titled: bool = True) -> str:
        title = f"<h3>{html.escape(self.title)}</h3>\n" if titled else ""
        shown = self._shown_columns()[1 if self.grouped else 0 :]
        head = "".join(f"<th{self._kind(i)}>{html.escape(self.columns[i])}</th>" for i in shown)
        body = "".join(f"<tbody>\n{self._block(str(name), list(rows), shown)}</tbody>" for name, rows in self._blocks())
        note = f"<p class='note'>{html.escape(self.note)}</p>" if self.note else ""
        kind = " class='stacked'" if self.stacked else ""
        table = f"<table{kind}><thead><tr>{head}</tr></thead>\n{body}</table>"
        return f"<section>{title}<div class='wide'>{table}</div>{note}</section>\n"

    def _blocks(self) -> Sequence[tuple[Cell, Sequence[Sequence[Cell]]]]:
        if not self.grouped:
            return [("", self.rows)]
        return [(name, list(rows)) for name, rows in groupby(self.rows, key=lambda row: row[0])]

    def _block(self, name: str, rows: Sequence[Sequence[Cell]], shown: Sequence[int]) -> str:
        heading = f"<tr><th class='of' colspan='{len(shown)}'>{html.escape(name)}</th></tr>\n" if self.grouped else ""
        return heading + "".join(
            "<tr>" + "".join(f"<td{self._kind(i)}{self._title(i)}>{self._html(row[i])}</td>" for i in shown) + "</tr>\n"
            for row in rows
        )

    def _kind(self, column: int) -> str:
        return "" if self._is_text(column) else ' class="n"'

    def _title(self, column: int) -> str:
        return f' data-of="{html.escape(self.columns[column])}"' if self.stacked else ""

    def _html(self, cell: Cell) -> str:
        text = self._text(cell)
        return "<br>".join(map(html.escape, text.split("; ") if self.stacked else [text]))

    def _shown_columns(self) -> list[int]:
        """Columns that hold anything, and the first."""
        return [i for i in range(len(self.columns)) if not i or any(row[i] is not None for row in self.rows)]

    def _is_text(self, column: int) -> bool:
        """Whether a column is aligned to the left: names and texts are, figures are not."""
        cells = [row[column] for row in self.rows]
        texts = [cell for cell in cells if isinstance(cell, str)]
        return column == 0 or any(re.search(r"[A-Za-z]{3}", text) or len(text) > 20 for text in texts)

    def _text(self, cell: Cell) -> str:
        if cell is None or cell != cell:
            return "–"
        text = f"{cell:.{self.digits}f}" if isinstance(cell, float) else str(cell)
        return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _bare(text: str) -> str:
    return text.replace("|", "\\|")


def _tex(text: str) -> str:
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    for sign, command in (
        ("^", r"\textasciicircum{}"),
        ("|", r"\textbar{}"),
        ("<", r"\textless{}"),
        (">", r"\textgreater{}"),
        ("~", r"\textasciitilde{}"),
        ("–", "--"),
        ("±", r"$\pm$"),
        ("×", r"$\times$"),
        ("→", r"$\to$"),
        ("−", "$-$"),
        ("†", r"$\dagger$"),
        ("‡", r"$\ddagger$"),
    ):
        escaped = escaped.replace(sign, command)
    return escaped
