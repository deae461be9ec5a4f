"""Equations as MathML at build time, so that pages load no script and no font for them."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

LOG = logging.getLogger(__name__)


def _convert(node: Any, display: str) -> str:
    """The MathML of a node; a command that the converter does not know is a warning, not text on the page."""
    made = convert(node.astext(), display=display)
    if "\\" in made:
        LOG.warning("an equation has a command without MathML: %s", node.astext(), location=node)
    return made


def _inline(self: Any, node: nodes.math) -> None:
    self.body.append(_convert(node, "inline"))
    raise nodes.SkipNode


def _block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math" tabindex="0">{_convert(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
