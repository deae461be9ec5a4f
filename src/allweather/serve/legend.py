"""The classes of a prediction with their colors and shares, before and after, as a table for the page."""

from html import escape

from allweather.classes import ClassSet
from allweather.serve.answers import shares
from allweather.serve.visitor import Seen

SMALLEST = 0.0005  # shares below it are left out


def legend(seen: Seen | None) -> str:
    """HTML: class, share of the source's pixels, share of the adapted ones; the largest first."""
    if seen is None or seen.adapted.classes is None:
        return ""
    classes = seen.adapted.classes
    before, after = (shares(result.labels.cpu().numpy(), classes) for result in (seen.source, seen.adapted))
    names = sorted(before | after, key=lambda name: -max(before.get(name, 0), after.get(name, 0)))
    rows = [
        _row(name, _color(name, classes), before.get(name, 0), after.get(name, 0))
        for name in names
        if max(before.get(name, 0), after.get(name, 0)) >= SMALLEST
    ]
    head = '<tr><th scope="col">class</th><th scope="col">source</th><th scope="col">adapted</th></tr>'
    return (
        '<table class="aw-legend"><caption>Share of the picture by class</caption>'
        f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _row(name: str, color: str, before: float, after: float) -> str:
    swatch = f'<span class="aw-swatch" style="background:{color}"></span>'
    return (
        f'<tr><th scope="row">{swatch}{escape(name)}</th><td>{100 * before:.1f} %</td><td>{100 * after:.1f} %</td></tr>'
    )


def _color(name: str, classes: ClassSet) -> str:
    red, green, blue = classes.colors[classes.names.index(name)]
    return f"rgb({red},{green},{blue})"
