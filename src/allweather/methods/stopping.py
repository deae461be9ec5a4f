"""Early stopping on the difference of the watched loss between consecutive iterations."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Stopping:
    """When to end the iterations on a batch (Reddy et al., ECCV 2022, supplement section 5).

    The paper stops on the loss difference of two consecutive iterations without stating sign or size; here the
    relative difference Δ = (previous − current) / |previous| decides.

    Attributes:
        tolerance: a step with 0 ≤ Δ < tolerance counts as flat; 0 never does.
        patience: this many flat steps in a row end the iterations.
        rise: Δ < −rise ends them at once; infinity never does.
    """

    tolerance: float = 0.0
    patience: int = 1
    rise: float = float("inf")

    def reason(self, losses: Sequence[float]) -> str | None:
        """Why to stop after `losses`, one per iteration so far; None to go on."""
        differences = [(before - now) / max(abs(before), 1e-12) for before, now in pairwise(losses)]
        if not differences:
            return None
        if differences[-1] < -self.rise:
            return "rise"
        recent = differences[-self.patience :]
        flat = len(recent) == self.patience and all(0 <= change < self.tolerance for change in recent)
        return "plateau" if flat else None
