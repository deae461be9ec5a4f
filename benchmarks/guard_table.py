"""The guard's false alarms and missed harm, out of the signs that `benchmarks.guard` recorded, before and after."""

from collections.abc import Callable, Mapping
from typing import Any

from allweather import Guard
from allweather.session.guard.signs import Signs
from benchmarks.committed import benchmark_record, markdown_table
from benchmarks.guard_record import read_rows

Frame = Mapping[str, Any]
Rule = Callable[[Frame], bool]
CHANGE = 0.5  # points of pixel accuracy that count as a gain or a loss
HARM = 2.0  # points lost to the source network that replaced statistics count for


def guard() -> str:
    """Frames that gained but were refused, and that lost but passed, by network: fixed limits, and today's."""
    found = benchmark_record("guard.json.gz")
    if found is None:
        return "not measured"
    heads = ["network", "run", "frames"]
    heads += ["gained, of these refused", "lost, of these passed", "lost > 5, of these passed"]
    rows = []
    groups: dict[tuple[str, str], list[Frame]] = {}
    for row in read_rows(found):
        groups.setdefault((row["network"], row["run"]), []).extend(row["frames"])
        groups.setdefault(("all", row["run"]), []).extend(row["frames"])
    for (network, run), frames in sorted(groups.items(), key=lambda item: (item[0][0] == "all", item[0])):
        rows.append([network, run, str(len(frames)), *_cells(frames)])
    return f"{markdown_table(heads, rows)}\n\n{_mixing(groups['all', 'mall-domain'])}"


def _cells(frames: list[Frame]) -> list[str]:
    gained = [frame for frame in frames if _step(frame) > CHANGE]
    lost = [frame for frame in frames if _step(frame) < -CHANGE]
    much = [frame for frame in lost if _step(frame) < -5]
    return [
        _pair(gained, lambda frame, refuses: refuses(frame)),
        _pair(lost, lambda frame, refuses: not refuses(frame)),
        _pair(much, lambda frame, refuses: not refuses(frame)),
    ]


def _pair(frames: list[Frame], counts: Callable[[Frame, Rule], bool]) -> str:
    before, after = (sum(counts(frame, rule) for frame in frames) for rule in (former, today))
    return f"{len(frames)}: {before} → {after}"


def _step(frame: Frame) -> float:
    """What adapting changed, in points of pixel accuracy, both under the same statistics."""
    return frame["accuracy"]["adapted"] - frame["accuracy"]["mixed"]


def former(frame: Frame) -> bool:
    """Whether the guard's first, fixed limits refuse the frame."""
    signs = frame["signs"]["step"]
    beyond = (
        signs["classes"] < 0.8
        or signs["entropy"] < 0.5
        or signs["drift"] > 0.2
        or signs["disagreement"] > 0.3
        or signs["kept"] < 0.99
    )
    return beyond or _closer(frame, Guard())


def today(frame: Frame, limits: Guard | None = None) -> bool:
    """Whether today's limits refuse the frame."""
    limits = limits or Guard()
    signs, noise = (Signs(**frame["signs"][name]) for name in ("step", "noise"))
    return limits.verdict(signs, noise) is not None or _closer(frame, limits)


def doubted(frame: Frame, limits: Guard | None = None) -> bool:
    """Whether the replaced statistics are doubted."""
    mixed, own = (frame["signs"][name]["disagreement"] for name in ("noise", "noise_own"))
    return (limits or Guard()).mixing_verdict(mixed / max(own, 0.005)) is not None


def _closer(frame: Frame, limits: Guard) -> bool:
    signs = frame["signs"]
    if signs["step"]["disagreement"] <= limits.closer_look:
        return False
    (_, flip, now), (_, cut, cut_now) = signs["flip"], signs["ncut"]
    return limits.closer_verdict(now / max(flip, 1e-6), cut_now / max(cut, 1e-6)) is not None


def _mixing(frames: list[Frame]) -> str:
    """What replaced statistics alone did to the frames of MALL-domain's defaults, and what is seen of it."""
    change = [frame["accuracy"]["mixed"] - frame["accuracy"]["source"] for frame in frames]
    seen = [doubted(frame) for frame in frames]
    harmed = [doubt for doubt, value in zip(seen, change, strict=True) if value < -HARM]
    helped = [doubt for doubt, value in zip(seen, change, strict=True) if value > HARM]
    gain = [
        frame["accuracy"]["average"] - frame["accuracy"]["mixed"]
        for frame, doubt in zip(frames, seen, strict=True)
        if doubt
    ]
    mean = sum(gain) / max(1, len(gain))
    said = [
        f"Replaced statistics alone: {len(harmed)} of {len(frames)} frames lose more than {HARM:g} points to the",
        f'source network, of these {sum(harmed)} are doubted where `Guard(mixing="stream")` asks;',
        f"{len(helped)} gain as much, of these {sum(helped)} are doubted.",
        f"On doubted frames the average of both predictions is {mean:+.1f} points from the mixed one.",
    ]
    return " ".join(said)
