"""Whether the stopping rule found the best number of iterations, and if not, why: in words, from records alone."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from allweather.report.collect import Group
from allweather.report.figures import by_iterations
from allweather.runs.decisions import refused, spell
from allweather.runs.summary import stops_of
from allweather.session.guard import KINDS

CLOSE = 1.0  # points of mIoU within which the rule counts as having found the best


def verdicts(groups: Sequence[Group]) -> list[str]:
    """A paragraph for each curve that has a run which stops by the rule."""
    lines = []
    for (_, method), (points, stopped, source) in by_iterations(groups).items():
        if not stopped:
            where = f"{method} on {points[0].where}{points[0].scored}"
            lines.append(f"{where}: no run with the same cap stops image by image by the rule, so nothing is said.")
        curve = ([source] if source else []) + points
        lines += [_verdict(method if len(stopped) == 1 else ruled.label, ruled, curve) for ruled in stopped]
    return lines


def _verdict(method: str, ruled: Group, curve: Sequence[Group]) -> str:
    made = ruled.per_image("iterations")
    where = f"{method} on {ruled.where}, {ruled.network}{ruled.scored}"
    if not made:
        return f"{where}: its records do not say after how many iterations it stopped."
    best, steps = max(curve, key=lambda group: group.mean("mIoU")), float(np.mean(made))
    gap = best.mean("mIoU") - ruled.mean("mIoU")
    within = "within" if gap <= CLOSE else "not within"
    said = (
        f"{where}: the rule stops after {steps:.1f} iterations on average at "
        f"{ruled.mean('mIoU'):.2f}, {within} {CLOSE:g} point of the curve's best ({best.mean('mIoU'):.2f} at "
        f"{best.free_iterations or 0}; the difference is {gap:.2f})."
    )
    return " ".join([said, _ends(ruled), _cause(curve, best, steps), _guarded(ruled)]).strip()


def _ends(ruled: Group) -> str:
    """What ended the iterations, over all images."""
    words = {"cap": "reached the cap", "plateau": "met the plateau", "rise": "saw the normalized cut rise",
             "None": "with nothing said"}  # fmt: skip
    found = sum((stops_of(record) for record in ruled.records), Counter[str]())
    parts = [f"{count} {words.get(stop, stop)}" for stop, count in found.most_common()]
    return f"Of {found.total()} images, {', '.join(parts)}."


def _cause(curve: Sequence[Group], best: Group, steps: float) -> str:
    """How the normalized cut, which the rule watches, goes on where mIoU has peaked."""
    after = [group for group in curve if (group.free_iterations or 0) > (best.free_iterations or 0)]
    if not after or steps <= (best.free_iterations or 0):
        return "The rule stops no later than the best number." if after else "The best number is the largest tried."
    low = min(after, key=lambda group: group.mean("ncut"))
    if low.mean("ncut") >= best.mean("ncut"):
        return "The normalized cut rises after the best number, and the rule sees it late."
    worse = best.mean("mIoU") - low.mean("mIoU")
    return (
        f"Why it goes on: after the best number the normalized cut still falls, from {best.mean('ncut'):.3f} to "
        f"{low.mean('ncut'):.3f} at {low.free_iterations}, while mIoU loses {worse:.2f} points. A rule that looks at "
        "the normalized cut alone cannot see that."
    )


def _guarded(ruled: Group) -> str:
    """How many images the guard took back or left alone, every kind named."""
    total = {kind: sum(int(run[kind]) for run in ruled.decisions) for kind in KINDS}
    held = int(refused(total))
    if not held:
        return "The guard refused no update."
    found = f"The guard refused all or part of the updates of {held} of {sum(total.values())} images"
    return f"{found} ({spell(total)}), which hides part of this."
