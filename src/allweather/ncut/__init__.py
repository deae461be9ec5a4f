"""The normalized cut: affinity, dense oracle, low-rank operator, loss with its closed-form gradient."""

from allweather.ncut.affinity import Affinity, normalized_cut

__all__ = ["Affinity", "normalized_cut"]
