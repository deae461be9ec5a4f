"""The guard along a stream: when to compare, what counts as harm, and what it remembers of earlier batches."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from allweather.errors import CheckpointError
from allweather.finite import all_finite
from allweather.methods.views import MIRROR, SOURCE, SOURCE_MIRROR
from allweather.session.adapted import AdaptedNetwork
from allweather.session.guard.limits import WINDOW, Guard
from allweather.session.guard.signs import Signs, changed_labels, compare, cuts, mirror_change, summary
from allweather.session.prediction import Prediction
from allweather.session.snapshot import Snapshot, flatten_optimizer

_STILL = 0.5 / 255  # mean change of a few pixels under which a batch shows what the last one showed
_EARLY = 5  # comparisons of a fresh adaptation that follow each other closely
_LEAST_CHANGE = 0.005  # share of labels; less change under mirroring than this is no measure
_USUAL = 0.8  # share of itself that the usual prediction's summary keeps at each comparison


@dataclass(eq=False)
class _History:
    """What is remembered from batch to batch.

    Attributes:
        interval, wait: updates between comparisons, and until the next one; a batch without any counts as one.
        resting, rests: batches still to be predicted without adapting, and how often that has been begun.
        strikes: of the last comparisons, 1 for each after which all had to be taken back.
        usual: classes and entropy of the source network's predictions, a moving average; empty before the first.
        same: how many batches in a row have shown what the one before them showed.
        thumbnail: a few pixels of the last batch; empty before the first.
    """

    interval: int = 1
    wait: int = 0
    resting: int = 0
    rests: int = 0
    strikes: list[int] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)
    same: int = 0
    thumbnail: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True, eq=False)
class Objection:
    """Why a prediction must not stand.

    Attributes:
        reason: in words.
        reference: the source network's plain prediction B×C×H×W that it was compared with.
        judged: False where the reference itself is not finite, so that nothing could be compared.
    """

    reason: str
    reference: Tensor
    judged: bool = True


class Policy:
    """Says what counts as harm and what is to come back; it moves nothing itself.

    Attributes:
        good: the last state that was compared and found good.
    """

    def __init__(self, guard: Guard, adapted: AdaptedNetwork) -> None:
        self.guard, self._adapted = guard, adapted
        self._episodic = adapted.method.episodic
        self.start()

    def start(self) -> None:
        """Before the first image."""
        self._history, self.good = _History(), self._adapted.source
        self._reference: Tensor | None = None  # of the batch at hand, where it was compared

    def way_back(self) -> Callable[[], None]:
        """What makes the policy again as it is now."""
        history, good = replace(self._history), self.good

        def go_back() -> None:
            self._history, self.good = history, good

        return go_back

    def is_resting(self) -> bool:
        """Whether this batch is to be predicted without adapting after a reset; counts it."""
        resting = self._history.resting > 0
        self._history.resting -= int(resting)
        return resting

    def stands_still(self, images: Tensor) -> bool:
        """Whether images B×3×H×W have repeated those before them too often to teach anything more; counts them."""
        if self._episodic or not self.guard.enabled:
            return False
        history = self._history
        thumbnail = images[:, :, :: max(1, images.shape[2] // 16), :: max(1, images.shape[3] // 16)].cpu()
        before = history.thumbnail
        same = thumbnail.shape == before.shape and bool((thumbnail - before).abs().mean() < _STILL)
        history.same, history.thumbnail = history.same + 1 if same else 0, thumbnail.clone()
        return history.same >= self.guard.max_repeats

    def judge(
        self, images: Tensor, prediction: Prediction, first: Tensor | None, judged: Snapshot | None, updates: int
    ) -> Objection | None:
        """Why the prediction must not stand; None where it may, or where no comparison is due.

        Args:
            images: B×3×H×W.
            prediction: of the images, after the updates.
            first: the source network's plain prediction of them, where the method has made it anyhow.
            judged: the state that made the prediction, where it is not the network's present one.
            updates: made on this batch; many bring the next comparison nearer.
        """
        self._reference = None
        if not self.guard.enabled:
            return None
        if not self._adapted.has_moved():
            if self._doubts_mixing():  # nothing to compare with: this is the source's prediction
                self._reference = prediction.plain
            return None
        usual = self._looks_usual(prediction.plain)
        passed = max(1, updates)
        if first is None and usual and self._history.wait >= passed:
            self._history.wait -= passed
            if self.guard.mixing == "always" and self._adapted.mixes:  # which asks about every batch
                reference = self._adapted.source_logits(images)
                self._reference = reference if all_finite(reference) else None
            return None
        reference = self._adapted.source_logits(images) if first is None else first
        if not all_finite(reference):
            return Objection("the source network's prediction is not finite", reference, judged=False)
        signs = compare(reference, prediction.plain)
        reason = self._reason(images, reference, prediction, signs)
        self._reference = reference
        self._remember(reference, refused=reason is not None, calm=self.guard.calm(signs))
        if reason is not None:
            return Objection(reason, reference)
        if usual and not self._episodic:  # an unusual image is no evidence that the state is good
            self.good = judged or self._adapted.snapshot()
        return None

    def doubt(self, images: Tensor, prediction: Prediction) -> tuple[str, Tensor] | None:
        """Why a prediction that was just compared is to be averaged with the source's under its own statistics.

        Returns:
            The reason and the source's probabilities B×C×H×W; None where there is no reason, or none is looked for.
        """
        adapted, reference, self._reference = self._adapted, self._reference, None
        if reference is None or not self._doubts_mixing():
            return None
        flipped = images.flip(3)
        own = self._own(images, prediction.views.get(SOURCE))
        own_mirrored = self._own(flipped, prediction.views.get(SOURCE_MIRROR), flipped=True)
        before = max(changed_labels(own, own_mirrored), _LEAST_CHANGE)
        mixed = changed_labels(reference, adapted.source_logits(flipped).flip(3))
        reason = self.guard.mixing_verdict(mixed / before)
        if reason is None:
            return None
        if self.guard.mixing == "stream":
            self._history.interval, self._history.wait = 1, 0  # the next batch is looked at again
        views = [own] if len(prediction.views) == 1 else [own, own_mirrored]
        return reason, torch.stack([view.float().softmax(1) for view in views]).mean(0)

    def _doubts_mixing(self) -> bool:
        """Whether statistics are replaced, and what that breaks is asked for."""
        return self._adapted.mixes and self.guard.looks_at_mixing(stream=not self._episodic)

    def _own(self, images: Tensor, seen: Tensor | None, *, flipped: bool = False) -> Tensor:
        """The unmixed source's logits on the unflipped grid, as the views have them already or made now."""
        if seen is not None:
            return seen
        logits = self._adapted.predict_unmixed(images)
        return logits.flip(3) if flipped else logits

    def accepts(self, images: Tensor, reference: Tensor, prediction: Prediction) -> bool:
        """Whether a prediction made part of the way back may stand."""
        reason = self._reason(images, reference, prediction, compare(reference, prediction.plain))
        return reason is None and all(prediction.finite())

    def gives_up(self) -> bool:
        """Counts that all of an update is taken back; whether it was once too often, and the source must come back."""
        if self._episodic:
            return False
        self._history.strikes = [*self._history.strikes[:-1], 1]
        return sum(self._history.strikes) >= self.guard.strikes

    def begin_rest(self) -> None:
        """The source network has come back: some batches pass unadapted, more each time."""
        history = self._history
        self.good = self._adapted.source
        history.resting = self.guard.rest * min(8, 2**history.rests)
        history.rests += 1
        history.strikes = []

    def _reason(self, images: Tensor, reference: Tensor, prediction: Prediction, signs: Signs) -> str | None:
        plain = prediction.plain
        if not all_finite(plain):
            return "the prediction is not finite"
        mirrored, adapted = images.flip(3), self._adapted
        if self.guard.verdict(signs) is None and signs.disagreement <= self.guard.closer_look:
            return None
        other_source = adapted.source_logits(mirrored)
        if reason := self.guard.verdict(signs, compare(reference, other_source.flip(3))):
            return reason
        if signs.disagreement <= self.guard.closer_look:
            return None
        source = mirror_change(reference, other_source)
        seen = prediction.views.get(MIRROR)
        other = adapted.predict_plain(mirrored) if seen is None else seen.flip(3)
        before, after = cuts(images, [reference, plain])
        flip = float(mirror_change(plain, other) / source.clamp_min(1e-6))
        return self.guard.closer_verdict(flip, after / max(before, 1e-6))

    def _looks_usual(self, logits: Tensor) -> bool:
        if self._episodic:
            return False  # the reference costs nothing: every batch is compared
        if not self._history.usual:
            return True
        now, usual = summary(logits).tolist(), self._history.usual
        return not self.guard.unusual(*(value / max(common, 1e-6) for value, common in zip(now, usual, strict=True)))

    def _remember(self, reference: Tensor, *, refused: bool, calm: bool) -> None:
        """Takes up a comparison: after a refusal the next batch is compared, after calm ones ever later ones."""
        if self._episodic:
            return
        history = self._history
        history.strikes = [*history.strikes, 0][-WINDOW:]
        trusted = calm and not refused and len(history.strikes) > _EARLY
        history.interval = min(2 * history.interval, self.guard.every) if trusted else 1
        history.wait = history.interval - 1
        now = summary(reference).tolist()
        history.usual = [_USUAL * old + (1 - _USUAL) * new for old, new in zip(history.usual or now, now, strict=True)]

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name."""
        history = self._history
        found = {
            "guard.counts": torch.tensor(
                [history.interval, history.wait, history.resting, history.rests, history.same]
            ),
            "guard.thumbnail": history.thumbnail,
            "guard.strikes": torch.tensor(history.strikes, dtype=torch.int64),
            "guard.usual": torch.tensor(history.usual, dtype=torch.float64),
        }
        if self.good is not self._adapted.source:
            found["guard.updates"] = torch.tensor(self.good.updates)
            found |= {f"guard.good.{name}": tensor for name, tensor in self.good.tensors.items()}
            found |= {f"guard.{name}": tensor for name, tensor in flatten_optimizer(self.good.optimizer).items()}
        return found

    def check(self, tensors: dict[str, Tensor]) -> None:
        """Refuses what `load` could not take up.

        Raises:
            CheckpointError: naming what is missing or of another shape.
        """
        if tensors["guard.counts"].shape != (5,):
            raise CheckpointError("expected five numbers in counters.guard.counts.")
        if "guard.updates" in tensors:
            for name, tensor in self._adapted.state.tensors().items():
                found = tensors.get(f"guard.good.{name}")
                if found is None or found.shape != tensor.shape or found.dtype != tensor.dtype:
                    raise CheckpointError(f"expected counters.guard.good.{name} of shape {tuple(tensor.shape)}.")
            self._adapted.optimizer_state(_own(tensors))

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes up what `tensors` gave, once `check` has passed it."""
        self.good = self._adapted.source
        interval, wait, resting, rests, same = (int(value) for value in tensors["guard.counts"])
        strikes, usual = tensors["guard.strikes"].tolist(), tensors["guard.usual"].tolist()
        self._history = _History(interval, wait, resting, rests, strikes, usual, same, tensors["guard.thumbnail"])
        if "guard.updates" in tensors:
            own = _own(tensors)
            good = {name.removeprefix("good."): tensor for name, tensor in own.items() if name.startswith("good.")}
            self.good = Snapshot(good, self._adapted.optimizer_state(own), int(own["updates"]))


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The guard's among the session's counters, which have their own `updates`."""
    return {name.removeprefix("guard."): tensor for name, tensor in tensors.items() if name.startswith("guard.")}
