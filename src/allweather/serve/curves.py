"""Normalized cut and entropy along a run as two small charts in SVG, with the guard's decisions under them."""

from collections import Counter
from collections.abc import Callable, Sequence

from allweather.serve.visitor import Point
from allweather.session.guard import KINDS

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 400, 170, 52, 12, 26, 12
CHARACTER = 8  # of the width, one digit at the largest size that the page draws
STRIP = 14  # of the height, above the axis, for the decisions
SHAPES = {  # told apart by shape as well as by color
    "accepted": ("#15803d", "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0"),
    "shrunk": ("#a16207", "M-4 4L0-4L4 4Z"),
    "rolled-back": ("#b91c1c", "M-4-4L4 4M4-4L-4 4"),
    "reset": ("#7e22ce", "M-4-4H4V4H-4Z"),
    "resting": ("#0369a1", "M-4 0H4"),
    "skipped": ("#475569", "M0-4V4"),
}


def curves(points: Sequence[Point], decided: Sequence[tuple[int, str]]) -> str:
    """HTML of both charts; nothing to draw gives a word on what will be here."""
    if not points:
        return '<p class="aw-note">Here normalized cut and entropy are drawn while the network adapts.</p>'
    parts = [
        _chart("normalized cut", points, lambda point: point.ncut, "#1d4ed8", decided),
        _chart("entropy, nats", points, lambda point: point.entropy, "#b45309", ()),
    ]
    return f'<div class="aw-curves" data-points="{points[-1].number}">{"".join(parts)}{_key(decided)}</div>'


def _chart(
    title: str,
    points: Sequence[Point],
    value: Callable[[Point], float],
    color: str,
    decided: Sequence[tuple[int, str]],
) -> str:
    values = [value(point) for point in points]
    low, high = min(values), max(values)
    named = {high: _told_apart(high, low), low: _told_apart(low, high)}
    left = max(LEFT, 8 + CHARACTER * max(map(len, named.values())))
    room = (high - low) or max(abs(high), 1e-6) * 0.1
    low, high = low - 0.08 * room, high + 0.08 * room
    first, last = points[0].number, max(points[-1].number, points[0].number + 1)

    def x(number: float) -> float:
        return left + (number - first) / (last - first) * (WIDTH - left - RIGHT)

    def y(height: float) -> float:
        return TOP + (high - height) / (high - low) * (HEIGHT - TOP - BOTTOM - STRIP)

    line = " ".join(f"{x(point.number):.1f},{y(v):.1f}" for point, v in zip(points, values, strict=True))
    dots = (
        "".join(
            f'<circle cx="{x(point.number):.1f}" cy="{y(v):.1f}" r="2.5"/>'
            for point, v in zip(points, values, strict=True)
        )
        if len(points) <= 60
        else ""
    )
    marks = "".join(_mark(kind, x(number), HEIGHT - BOTTOM - 7) for number, kind in decided if number >= first)
    said = f"{title}: {values[0]:.4g} at first, {values[-1]:.4g} after {len(values)} forward passes"
    ends = "".join(
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{text}</text>' for v, text in named.items()
    )
    numbers = (
        f'<text x="{left}" y="{HEIGHT - 8}">{first}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{points[-1].number}</text>'
        f'<text x="{(left + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">forward passes</text>'
    )
    return (
        f'<figure><figcaption>{title} <b style="color:{color}">{values[-1]:.4g}</b></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">'
        f'<path class="aw-axis" d="M{left} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>{ends}{numbers}'
        f'<g fill="{color}" stroke="{color}"><polyline fill="none" stroke-width="2" points="{line}"/>{dots}</g>'
        f"{marks}</svg></figure>"
    )


def _told_apart(value: float, other: float) -> str:
    """The value with three digits, or as many as it takes to read otherwise than the other."""
    digits = next((n for n in range(3, 17) if value == other or f"{value:.{n}g}" != f"{other:.{n}g}"), 17)
    return f"{value:.{digits}g}"


def _mark(kind: str, x: float, y: float) -> str:
    color, path = SHAPES[kind]
    return f'<path d="{path}" transform="translate({x:.1f} {y})" fill="{color}" stroke="{color}" stroke-width="1.5"/>'


def _key(decided: Sequence[tuple[int, str]]) -> str:
    counts = Counter(kind for _, kind in decided)
    if not counts:
        return ""
    items = "".join(
        f'<li><svg viewBox="-6 -6 12 12" aria-hidden="true">{_mark(kind, 0, 0)}</svg>{counts[kind]} {kind}</li>'
        for kind in KINDS
        if counts[kind]
    )
    return f'<p class="aw-note">What the guard decided, by picture:</p><ul class="aw-decided">{items}</ul>'
