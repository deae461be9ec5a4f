"""How tables show what became of a method's updates: every kind of decision, and a mark where the guard was at work."""

from collections.abc import Iterable, Mapping, Sequence

from allweather.runs.decisions import Counts, decisions_of, refused
from allweather.session.guard import KINDS

SHOWN = KINDS[1:]  # all but accepted, which is the rest of the frames
COLUMN = " / ".join(kind.replace("-", " ") for kind in SHOWN)
NOTE = "Frames whose update was so; all others were accepted."
SEVERAL = "Of several runs the mean, in brackets the lowest and highest."
EVERY_PASS = "In transductive runs a frame counts once in every pass."
MARK = "‡"
LIMIT = 1 / 3  # of the frames
REMARK = f"{MARK} The guard acted on over a third of the frames: this measures it, not the method."


def cell(runs: Sequence[Counts]) -> str | None:
    """One number for each kind but accepted: "3.7 (2–5) / 4.3 (3–6) / 4 / 94.3 (89–100) / 0"; None without."""
    if not any(sum(run.values()) for run in runs):
        return None
    if not any(run[kind] for run in runs for kind in SHOWN):
        return "none"
    return " / ".join(_mean([run[kind] for run in runs]) for kind in SHOWN)


def in_words(runs: Sequence[Counts]) -> str:
    """The kinds that occur, in words: "4.3 (3–6) rolled back, 4 reset"; nothing where every update was accepted."""
    found = {kind: [run[kind] for run in runs] for kind in SHOWN}
    return ", ".join(f"{_mean(numbers)} {kind.replace('-', ' ')}" for kind, numbers in found.items() if any(numbers))


def measures_guard(runs: Sequence[Counts]) -> bool:
    """Whether more than `LIMIT` of the frames were refused or rested, over all runs."""
    frames = sum(sum(run.values()) for run in runs)
    return sum(map(refused, runs)) > LIMIT * frames


def mark(label: str, runs: Sequence[Counts]) -> str:
    """The label, marked where the runs measure the guard."""
    return f"{label} {MARK}" if measures_guard(runs) else label


def explained(rows: Iterable[Sequence[object]], passes: bool = False) -> str:
    """What stands below a table with such cells, and what the mark means where it occurs.

    Args:
        passes: whether some of the runs made passes over their stream.
    """
    texts = [value for row in rows for value in row if isinstance(value, str)]
    marked, several = any(MARK in text for text in texts), any(" / " in text and "(" in text for text in texts)
    return " ".join([NOTE, *[SEVERAL] * several, *[EVERY_PASS] * passes, *[REMARK] * marked])


def together(streams: Sequence[Sequence[Counts]]) -> list[Counts]:
    """Runs over several streams as one: sums, run by run where every stream has as many runs, else of their means."""
    if len({len(runs) for runs in streams}) > 1:
        streams = [[_averaged(runs)] for runs in streams]
    return [_summed(runs) for runs in zip(*streams, strict=True)]


def of_records(records: Sequence[Mapping[str, object]], part: str = "") -> list[Counts]:
    """The decisions of each record, or of one piece of its sequence."""
    return [decisions_of(record, part) for record in records]


def _summed(runs: Sequence[Counts]) -> Counts:
    return {kind: sum(run[kind] for run in runs) for kind in KINDS}


def _averaged(runs: Sequence[Counts]) -> Counts:
    return {kind: number / len(runs) for kind, number in _summed(runs).items()}


def _mean(values: Sequence[float]) -> str:
    mean = _short(sum(values) / len(values))
    low, high = min(values), max(values)
    return mean if low == high else f"{mean} ({_short(low)}–{_short(high)})"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
