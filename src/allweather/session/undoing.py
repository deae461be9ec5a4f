"""What a batch that failed leaves behind: nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from allweather.session.adapted import AdaptedNetwork
from allweather.session.guard.policy import Policy
from allweather.session.shift import ShiftDetector
from allweather.session.snapshot import Snapshot


@contextmanager
def undone_on_failure(
    adapted: AdaptedNetwork, before: Snapshot, policy: Policy, detector: ShiftDetector | None
) -> Iterator[None]:
    """Where the block raises, an interruption too, the network goes back to `before`, and all that counts with it."""
    random = adapted.state.generator.get_state()
    ways = [part.way_back() for part in (policy, detector) if part is not None]
    try:
        yield
    except BaseException:
        adapted.restore(before)
        adapted.state.generator.set_state(random)
        for go_back in ways:
            go_back()
        raise
