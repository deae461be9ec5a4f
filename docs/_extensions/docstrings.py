"""The API from docstrings, plain text with names in backticks: what reStructuredText would read as markup is escaped.

What `allweather` itself exports stands on its page alone.
"""

import re
from typing import Any

from sphinx.application import Sphinx

import allweather

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


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Whether a member has its place on the page of `allweather`; None leaves it to others."""
    return True if what == "module" and name in allweather.__all__ and app.env.docname != "api/allweather" else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon reads the sections
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
