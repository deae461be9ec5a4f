"""Docstrings are plain text with names in backticks: what reStructuredText would read as markup is escaped."""

import re
from typing import Any

from sphinx.application import Sphinx

_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_MARKUP = re.compile(r"([*|]|(?<=\w)_(?!\w))")


def _prose(line: str) -> str:
    """One line of prose, code in double backticks, everything else literal."""
    parts = re.split(r"(``.+?``)", _CODE.sub(r"``\1``", line))
    return "".join(part if part.startswith("``") else _MARKUP.sub(r"\\\1", part) for part in parts)


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    inside = False  # an example
    for number, line in enumerate(lines):
        inside = line.lstrip().startswith(">>>") or (inside and bool(line.strip()))
        if not inside:
            lines[number] = _prose(line)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon reads the sections
    return {"parallel_read_safe": True, "parallel_write_safe": True}
