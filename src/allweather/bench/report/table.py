"""A table as data, and its four forms: HTML, Markdown, CSV and LaTeX."""

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Rows under columns; None is no value. Numbers are shown with `digits` decimals, CSV keeps them whole."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    digits: int = 2

    def markdown(self) -> str:
        lines = [f"### {self.title}", ""]
        lines += [_bars(self.columns), _bars(["---" if self._text(i) else "---:" for i in range(len(self.columns))])]
        lines += [_bars([self._shown(cell).replace("|", "\\|") for cell in row]) for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])

    def csv(self) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["table", *self.columns])
        writer.writerows([[self.title, *("" if cell is None else cell for cell in row)] for row in self.rows])
        return buffer.getvalue()

    def latex(self) -> str:
        align = "".join("l" if self._text(index) else "r" for index in range(len(self.columns)))
        body = [" & ".join(map(_tex, self.columns)) + r" \\ \midrule"]
        body += [" & ".join(_tex(self._shown(cell)) for cell in row) + r" \\" for row in self.rows]
        lines = [r"\begin{table}", rf"\caption{{{_tex(f'{self.title}. {self.note}'.strip())}}}"]
        lines += [
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        kinds = ["" if self._text(index) else ' class="n"' for index in range(len(self.columns))]
        head = "".join(f"<th{k}>{html.escape(c)}</th>" for k, c in zip(kinds, self.columns, strict=True))
        rows = "\n".join(
            "<tr>"
            + "".join(f"<td{k}>{html.escape(self._shown(c))}</td>" for k, c in zip(kinds, row, strict=True))
            + "</tr>"
            for row in self.rows
        )
        note = f"<p class='note'>{html.escape(self.note)}</p>" if self.note else ""
        return (
            f"<h3>{html.escape(self.title)}</h3>\n<div class='wide'><table><thead><tr>{head}</tr></thead>\n"
            f"<tbody>{rows}</tbody></table></div>{note}\n"
        )

    def _text(self, column: int) -> bool:
        """Whether a column is aligned to the left: names and texts are, figures are not."""
        cells = [row[column] for row in self.rows]
        texts = [cell for cell in cells if isinstance(cell, str)]
        return column == 0 or any(re.search(r"[A-Za-z]{3}", text) or len(text) > 20 for text in texts)

    def _shown(self, cell: Cell) -> str:
        if cell is None or cell != cell:
            return "–"
        return f"{cell:.{self.digits}f}" if isinstance(cell, float) else str(cell)


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _tex(text: str) -> str:
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    return escaped.replace("–", "--").replace("±", r"$\pm$").replace("×", r"$\times$").replace("−", "$-$")
