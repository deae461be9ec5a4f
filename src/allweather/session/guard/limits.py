"""The collapse guard's limits: beyond which an update counts as harm."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from allweather.methods.option import check_ranges, option
from allweather.methods.settings import check_types, parse_fields
from allweather.session.guard.signs import STILL, Signs

Mixing = Literal["stream", "always", "never"]
WINDOW = 10  # comparisons that strikes are counted among


def _from_zero(default: float, to: float = inf) -> Any:
    """A limit that may be anything from zero to `to`."""
    return option(default, low=0, high=to)


@dataclass(frozen=True)
class Guard:
    """Limits beyond which an update counts as harm, and what is done about it; for every method.

    The guard compares an adapted prediction with the reference: the prediction of the unadapted network for the same
    images, in the same BatchNorm mode. Beyond a limit the session goes part of the way back and is judged again
    (`shrunk`), then back to the last good state (`rolled-back`), and along a stream, where that becomes frequent, to
    the source network (`reset`), which predicts for a while without adapting (`resting`).

    Cost: methods that return to the source after each batch have the reference for free. Along a stream it is one
    forward pass, after each of the first updates, then after 2, 4, … at most `every`, and at once where a prediction is
    unlike the usual ones. Where more than `closer_look` of the labels change, four more passes compare mirrored images.
    Each halving is one pass.

    Attributes:
        enabled: False accepts every finite prediction.
        min_classes: minimum effective number of predicted classes, exp(H(mean prediction)), as a share of the
            reference's, 0..1. It falls when all pixels go to a few classes.
        min_entropy: minimum mean entropy of the pixels, as a share of the reference's, 0..1. It falls when the network
            becomes sure of everything.
        max_drift: maximum share of the probability mass that moves to other classes, 0..1.
        max_disagreement: maximum share of pixels whose label changes, 0..1.
        min_kept: minimum share of confident pixels (over 0.98) whose label must survive, the mean over classes, 0..1.
            A network that is never so sure is not held to it.
        tolerance: no limit but `max_flip` and `max_ncut` counts while the share of labels that change is at most this
            many times the share that mirroring the image changes in the reference, and `class_tolerance` is kept too.
            An unsteady network is judged by its own measure.
        class_tolerance: the same for the share of a class's pixels that leave it, the mean over classes: a rare class
            that is lost hardly changes the labels' share.
        closer_look: share of changed labels from which `max_flip` and `max_ncut` are checked too, 0..1.
        max_flip: maximum change of the prediction under mirroring (mean L1 distance), as a multiple of the reference's.
        max_ncut: maximum normalized cut, weighted by class mass, as a multiple of the reference's.
        max_mixing: maximum number of labels that mirroring changes under replaced BatchNorm statistics, as a multiple
            of those under the network's own. Beyond it the two predictions are averaged (`shrunk`).
        mixing: when `max_mixing` is checked, for three more forward passes: `never`; `stream`, with every comparison
            along a stream, and with every batch while nothing but the statistics has changed; `always`, with every
            batch, for one pass more where nothing is compared, and for single images too.
        every: maximum number of updates along a stream between two comparisons.
        halvings: how often the way back to the last good state is halved before all of it is taken.
        strikes: number of updates, among the last ten compared, of which nothing could stand, 1..10; as many bring the
            source network back.
        max_repeats: number of equal batches in a row, as of a camera that hangs, after which nothing more is learnt.
        rest: number of batches predicted without adapting after a reset; doubled at each reset, at most eightfold.

    Raises:
        SettingsError: for a value of another type, or outside its range.

    Example:
        >>> import allweather as aw
        >>> strict = aw.Guard(max_disagreement=0.1, strikes=1)
        >>> session = aw.Session(aw.load_model("demo:streetnet"), "mall-domain", guard=strict)
    """

    enabled: bool = True
    min_classes: float = _from_zero(0.8, to=1)
    min_entropy: float = _from_zero(0.5, to=1)
    max_drift: float = _from_zero(0.2, to=1)
    max_disagreement: float = _from_zero(0.3, to=1)
    min_kept: float = _from_zero(0.99, to=1)
    tolerance: float = _from_zero(1.5)
    class_tolerance: float = _from_zero(1.0)
    closer_look: float = option(0.15, low=-1, high=1)
    max_flip: float = _from_zero(1.25)
    max_ncut: float = _from_zero(1.15)
    max_mixing: float = _from_zero(1.2)
    mixing: Mixing = "never"
    every: int = option(10, low=1)
    halvings: int = _from_zero(2)
    strikes: int = option(3, low=1, high=WINDOW)
    max_repeats: int = option(20, low=1)
    rest: int = _from_zero(10)

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(self, "Guard")

    def verdict(self, signs: Signs, noise: Signs = STILL) -> str | None:
        """Why a prediction with these signs must not stand; None when it may as far as they say.

        Args:
            signs: of the adapted prediction beside the reference.
            noise: of the reference's own prediction of the mirror image, mirrored back, beside the reference.
        """
        as_mirrored = (
            signs.disagreement <= self.tolerance * noise.disagreement
            and signs.left <= self.class_tolerance * noise.left
        )
        if not self.enabled or as_mirrored:
            return None
        if signs.classes < self.min_classes:
            return f"classes collapse to {signs.classes:.2f} of the reference's effective number"
        if signs.entropy < self.min_entropy:
            return f"entropy collapses to {signs.entropy:.2f} of the reference's"
        if signs.drift > self.max_drift:
            return f"{signs.drift:.0%} of the prediction's mass moves to other classes"
        if signs.disagreement > self.max_disagreement:
            return f"{signs.disagreement:.0%} of the pixels leave the reference's label"
        if signs.kept < self.min_kept:
            return f"classes keep {signs.kept:.2f} of the pixels where the reference is sure of them"
        return None

    def calm(self, signs: Signs) -> bool:
        """Whether the signs are so far from harm that the next comparison may wait longer."""
        return 1 - signs.kept <= (1 - self.min_kept) / 2

    def closer_verdict(self, flip: float, ncut: float) -> str | None:
        """The same for the change under mirroring (`flip`) and the cut (`ncut`), as ratios to the reference's."""
        if flip > self.max_flip:
            return f"mirroring the image changes the prediction {flip:.2f} times as much as the reference"
        if ncut > self.max_ncut:
            return f"the normalized cut rises to {ncut:.2f} of the reference's"
        return None

    def mixing_verdict(self, ratio: float) -> str | None:
        """The same for what replaced statistics break, as a ratio to the network under its own."""
        if ratio <= self.max_mixing:
            return None
        return f"under mixed statistics mirroring changes {ratio:.2f} times as many labels as under the source's own"

    def looks_at_mixing(self, *, stream: bool) -> bool:
        """Whether replaced statistics are looked at along a stream, or for images on their own."""
        return self.mixing == "always" or (stream and self.mixing == "stream")

    def unusual(self, classes: float, entropy: float) -> bool:
        """Whether ratios to the usual number of classes and entropy ask for a comparison out of turn."""
        return classes < self.min_classes or entropy < self.min_entropy or entropy * self.min_entropy > 1


def guard_of(limits: Mapping[str, Any]) -> Guard:
    """The guard with these limits, from text or ready values, and its defaults for all others.

    Raises:
        SettingsError: for what is no field of a guard, or a value that it does not take.
    """
    return Guard(**parse_fields(Guard, limits, "Guard"))
