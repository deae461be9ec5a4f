"""Pages that `allweather report` writes are parts of a page: each gets a title, and its headings stand below it."""

import re

from sphinx.application import Sphinx


def _titled(app: Sphinx, name: str, text: list[str]) -> None:
    if name.startswith("results/") and text[0].startswith("### "):
        plan = name.removeprefix("results/")
        text[0] = f"# Plan {plan}\n\n" + re.sub(r"^#(##+) ", r"\1 ", text[0], flags=re.MULTILINE)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _titled)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
