"""The guard at work along a stream: when to compare, and whether to accept, shrink, roll back or reset."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from allweather.methods.method import Batch
from allweather.session.guard import Guard, Signs, compare, cuts, mirror_change, summary
from allweather.session.learner import Learner
from allweather.session.snapshot import Snapshot, flatten_optimizer, optimizer_state

_WINDOW = 10  # comparisons that strikes are counted among
_STILL = 0.5 / 255  # mean change of a few pixels under which a batch shows what the last one showed
_WATCHED = 5  # comparisons of a fresh adaptation that follow each other closely
_USUAL = 0.8  # share of itself that the usual prediction's summary keeps at each comparison


@dataclass
class _Standing:
    """What the judge remembers from batch to batch.

    Attributes:
        interval, wait: updates between comparisons, and until the next one; a batch without any counts as one.
        resting, rests: batches still to be predicted without adapting, and how often that has been begun.
        refusals: of the last comparisons, 1 for each that refused.
        usual: classes and entropy of the source network's predictions, a moving average; empty before the first.
        same: how many batches in a row have shown what the one before them showed.
        glance: a few pixels of the last batch; empty before the first.
    """

    interval: int = 1
    wait: int = 0
    resting: int = 0
    rests: int = 0
    refusals: list[int] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)
    same: int = 0
    glance: Tensor = field(default_factory=lambda: torch.empty(0))


class Judge:
    """Decides what becomes of each batch's update; everything it remembers is saved, resumed and reset."""

    def __init__(self, guard: Guard, learner: Learner) -> None:
        self.guard, self._learner = guard, learner
        self._episodic = learner.method.episodic
        self.start()

    def start(self) -> None:
        """Before the first image."""
        self._standing, self._good = _Standing(), self._learner.source

    def rests(self, images: Tensor) -> str | None:
        """Why this batch, B×3×H×W, is to be predicted without adapting; counts it."""
        standing = self._standing
        if standing.resting > 0:
            standing.resting -= 1
            return "resting after a reset"
        if self._episodic or not self.guard.enabled:
            return None
        glance = images[:, :, :: max(1, images.shape[2] // 16), :: max(1, images.shape[3] // 16)].cpu()
        seen = glance.shape == standing.glance.shape and (glance - standing.glance).abs().mean() < _STILL
        standing.same, standing.glance = standing.same + 1 if seen else 0, glance.clone()
        return "the image stands still" if standing.same >= self.guard.max_repeats else None

    def decide(
        self, batch: Batch, first: Tensor | None, logits: Tensor, judged: Snapshot | None, updates: int = 1
    ) -> tuple[Tensor, str]:
        """The prediction to report and what was decided; the network is left in the state decided on.

        Args:
            first: the unadapted prediction, where the method has made it.
            logits: the prediction to judge, B×C×H×W.
            judged: the state that made it, where it is not the network's present one.
            updates: made on this batch; many bring the next comparison nearer.
        """
        if not (self.guard.enabled and self._learner.has_moved()):
            return logits, "accepted"
        usual = self._looks_usual(logits)
        passed = max(1, updates)
        if first is None and usual and self._standing.wait >= passed:
            self._standing.wait -= passed
            return logits, "accepted"
        reference = self._learner.predict_source(batch.images) if first is None else first
        signs = compare(reference, logits)
        reason = self._verdict(batch, reference, logits, signs)
        self._note(reference, refused=reason is not None, calm=self.guard.calm(signs))
        if reason is None:
            if usual and not self._episodic:  # an unusual image is no evidence that the state is good
                self._good = judged or self._learner.snapshot()
            return logits, "accepted"
        return self._mend(batch, reference, reason)

    def _mend(self, batch: Batch, reference: Tensor, reason: str) -> tuple[Tensor, str]:
        standing = self._standing
        if not self._episodic and sum(standing.refusals) >= self.guard.strikes:
            self._learner.restore(self._learner.source)
            self._good = self._learner.source
            standing.resting = self.guard.rest * min(8, 2**standing.rests)
            standing.rests += 1
            standing.refusals.clear()
            return reference, f"reset: {reason}"
        for _ in range(self.guard.halvings):
            self._learner.return_part(self._good, 0.5)
            logits = self._learner.predict(batch.images)
            if self._verdict(batch, reference, logits, compare(reference, logits)) is None:
                return logits, f"shrunk: {reason}"
        self._learner.restore(self._good)
        return reference, f"rolled back: {reason}"

    def _verdict(self, batch: Batch, reference: Tensor, logits: Tensor, signs: Signs) -> str | None:
        if not logits.isfinite().all():
            return "the prediction is not finite"
        if reason := self.guard.verdict(signs):
            return reason
        if signs.disagreement <= self.guard.closer_look:
            return None
        images, mirrored = batch.images, batch.images.flip(3)
        source = mirror_change(self._learner.predict_source(images), self._learner.predict_source(mirrored))
        now = mirror_change(self._learner.predict(images), self._learner.predict(mirrored))
        before, after = cuts(images, [reference, logits])
        return self.guard.closer_verdict(float(now / source.clamp_min(1e-6)), after / max(before, 1e-6))

    def _looks_usual(self, logits: Tensor) -> bool:
        if self._episodic:
            return False  # the reference costs nothing: every batch is compared
        if not self._standing.usual:
            return True
        now, usual = summary(logits).tolist(), self._standing.usual
        return not self.guard.unusual(*(value / max(common, 1e-6) for value, common in zip(now, usual, strict=True)))

    def _note(self, reference: Tensor, *, refused: bool, calm: bool) -> None:
        """Remembers a comparison: after a refusal the next batch is compared, after calm ones ever later ones."""
        if self._episodic:
            return
        standing = self._standing
        standing.refusals = [*standing.refusals, int(refused)][-_WINDOW:]
        trusted = calm and not refused and len(standing.refusals) > _WATCHED
        standing.interval = min(2 * standing.interval, max(1, self.guard.every)) if trusted else 1
        standing.wait = standing.interval - 1
        now = summary(reference).tolist()
        standing.usual = [
            _USUAL * old + (1 - _USUAL) * new for old, new in zip(standing.usual or now, now, strict=True)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name."""
        standing = self._standing
        found = {
            "guard.counts": torch.tensor(
                [standing.interval, standing.wait, standing.resting, standing.rests, standing.same]
            ),
            "guard.glance": standing.glance,
            "guard.refusals": torch.tensor(standing.refusals, dtype=torch.int64),
            "guard.usual": torch.tensor(standing.usual, dtype=torch.float64),
        }
        if self._good is not self._learner.source:
            found["guard.updates"] = torch.tensor(self._good.updates)
            found |= {f"guard.good.{name}": tensor for name, tensor in self._good.tensors.items()}
            found |= {f"guard.{name}": tensor for name, tensor in flatten_optimizer(self._good.optimizer).items()}
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes up what `tensors` gave."""
        self.start()
        interval, wait, resting, rests, same = (int(value) for value in tensors["guard.counts"])
        refusals, usual = tensors["guard.refusals"].tolist(), tensors["guard.usual"].tolist()
        self._standing = _Standing(interval, wait, resting, rests, refusals, usual, same, tensors["guard.glance"])
        if "guard.updates" in tensors:
            own = {name.removeprefix("guard."): tensor for name, tensor in tensors.items()}
            good = {name.removeprefix("good."): tensor for name, tensor in own.items() if name.startswith("good.")}
            optimizer = None if self._learner.optimizer is None else optimizer_state(self._learner.optimizer, own)
            self._good = Snapshot(good, optimizer, int(own["updates"]))
