"""One model that learns on several ranks at once: gradients are averaged, and what the guard decides is agreed on."""

from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from allweather.errors import NotFiniteError, SettingsError
from allweather.methods.method import Batch, Method, Objective
from allweather.models.digest import digest
from allweather.models.segmenter import Segmenter
from allweather.scale.ranks import Ranks
from allweather.session import Decision, Result, Session
from allweather.session.guard.policy import Objection
from allweather.session.prediction import Prediction
from allweather.session.snapshot import Snapshot
from allweather.session.steps import Steps, flaw, keep_last, prediction_after, unfit
from allweather.session.streaming import apart
from allweather.session.undoing import undone_on_failure

NOTHING, FINE, HARM, UNJUDGED = 0, 1, 2, 3  # what the guard of a rank says of a step; the largest counts
ELSEWHERE = "agreed on with another rank"


@dataclass(eq=False)
class _Own:
    """What this rank has of a step.

    Attributes:
        images: B×3×H×W; None where it has no frame.
        reason: why nothing is learnt from them; None where they are learnt from.
    """

    images: Tensor | None
    reason: str | None
    prediction: Prediction | None = None
    objection: Objection | None = None

    @property
    def learns(self) -> bool:
        return self.images is not None and self.reason is None


class TogetherSession(Session):
    """A session whose ranks move as one: every rank calls `step` equally often, with a frame or without.

    Each update goes along the mean gradient of the ranks that have one; BatchNorm statistics stay each image's own. Any
    rank's objection is every rank's, so parameters, optimizer and what the guard falls back to are equal on all.

    Args:
        ranks: the processes; as of `Session` otherwise.

    Raises:
        SettingsError: for a method whose state is more than parameters that a gradient moves.
    """

    def __init__(self, model: Segmenter, method: Method, ranks: Ranks, **options: Any) -> None:
        super().__init__(model, method, **options)
        self._ranks = ranks
        if method.episodic or not self.state.parameters or self.state.memory or self.state.buffers:
            raise SettingsError(
                f"{method.name}: one model on several ranks is for methods that move parameters along a stream and "
                "remember nothing else, such as mall-domain, or tent with episodic=false. Use --workers for the others."
            )
        if self._detector is not None:
            raise SettingsError("one model on several ranks adapts always: leave out --adapt-when shift.")

    def step(self, image: Tensor | None) -> Result | None:
        """One frame of each rank that has one; the result is this rank's, None without a frame.

        Args:
            image: 3×H×W, RGB in [0, 1].

        Raises:
            RankLost: when a rank has ended; the session is then as before this step.
        """
        started = perf_counter()
        with self._alone():
            own, before = self._own(image), self._adapted.snapshot()
            self._averages.discard()
            with undone_on_failure(self._adapted, before, self._policy, self._detector):
                steps, decision = self._step_together(own, before)
            self._batches += 1
        if own.images is None:
            return None
        if decision.kind in ("accepted", "shrunk"):
            self._averages.take()
        prediction = own.prediction or self._unadapted(own.images)
        return apart(self._result(own.images, prediction, steps, decision, started))[0]

    def check_equal(self) -> str:
        """The digest of parameters and gains, which all ranks share.

        Raises:
            AllWeatherError: where they do not.
        """
        return self._ranks.check_equal(self._shared, self._adapted.device())

    def parameters_digest(self) -> str:
        """The digest of this rank's parameters."""
        return digest(self._shared)

    @property
    def _shared(self) -> dict[str, Tensor]:
        """What all ranks share of what moves."""
        return {**self.state.parameters, **{f"output.{name}": value for name, value in self.state.output.items()}}

    def _own(self, image: Tensor | None) -> _Own:
        if image is None:
            return _Own(None, None)
        images = self._batch(image)[0].images
        return _Own(images, unfit(images, learns=True))

    def _step_together(self, own: _Own, before: Snapshot) -> tuple[Steps, Decision]:
        """The steps that all ranks make, and what is decided of them; equal on all but for what this rank saw."""
        if self._policy.is_resting():
            return Steps(), Decision("resting", "after a reset")
        if between := self._batches % self.method.adapt_every:
            return Steps(), Decision("skipped", f"{between} after the batch that was learnt from")
        if own.learns and own.images is not None and self._policy.stands_still(own.images):
            own.reason = "the image stands still"
        steps = self._take_steps(own)
        if own.learns and own.images is not None:
            own.prediction = prediction_after(self._adapted, own.images, steps)
            own.reason = flaw(own.prediction.finite())
        broken = own.images is not None and own.prediction is not None and own.reason is not None
        if self._any(broken):
            self._adapted.restore(before)
            own.prediction = None
            return steps, Decision("skipped", own.reason or ELSEWHERE)
        return steps, self._judged(own, steps, before)

    def _take_steps(self, own: _Own) -> Steps:
        """Updates along the ranks' mean gradient until the cap, or until their mean watched loss asks to stop."""
        steps, adapted = Steps(), self._adapted
        batch = None if own.images is None else Batch(own.images)
        learnt = None if batch is None else adapted.at_adapt_scale(batch)
        for iteration in range(max(1, self.method.iterations)):
            objective = self._objective(own, steps, learnt, iteration)
            watched = self._average_gradient(objective)
            if watched is None:
                break
            steps.watched.append(watched)
            if reason := self.method.stopping.reason(steps.watched):
                steps.stop = reason
                break
            if objective is not None and iteration + 1 == self.method.iterations and not self.method.report_after:
                assert own.images is not None
                steps.reported = adapted.predict(own.images, steps.last if learnt is batch else None)
            keep_last(steps, adapted, predict=True)
            adapted.move()
            steps.updates, steps.current, steps.stop = steps.updates + 1, False, "cap"
        adapted.forget_gradient()
        return steps

    def _objective(self, own: _Own, steps: Steps, learnt: Batch | None, iteration: int) -> Objective | None:
        """This rank's forward pass and gradient; None where it has nothing to contribute, and why is kept."""
        self._adapted.forget_gradient()
        if not own.learns or learnt is None:
            return None
        try:
            objective = self._adapted.objective(learnt, iteration)
        except NotFiniteError as error:
            own.reason = str(error)
            return None
        steps.see(objective, self.method.predicts_as_it_adapts)
        if objective.loss is None:
            return None
        steps.losses.append(float(objective.loss.detach()))
        finite = isfinite(steps.losses[-1])
        if not finite or not self._adapted.gradient(objective.loss):
            own.reason = f"the {'gradient' if finite else 'objective'} is not finite"
            self._adapted.forget_gradient()
            return None
        return objective

    def _average_gradient(self, objective: Objective | None) -> float | None:
        """Gives every rank the mean gradient; the mean watched loss, or None where no rank has a gradient."""
        parameters = list(self.state.parameters.values())
        watched = torch.zeros((), device=self._adapted.device())
        if objective is not None and objective.loss is not None:
            watched = (objective.loss if objective.watched is None else objective.watched).detach().float()
        counts = torch.stack([torch.full_like(watched, float(objective is not None)), watched])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([counts, *(gradient.reshape(-1).float() for gradient in gradients)])
        flat = self._ranks.total(flat)
        contributing = float(flat[0])
        if contributing == 0:
            return None
        flat = flat / contributing
        places = flat[2:].split([parameter.numel() for parameter in parameters])
        for parameter, values in zip(parameters, places, strict=True):
            parameter.grad = values.view_as(parameter).to(parameter.dtype)
        return float(flat[1])

    def _judged(self, own: _Own, steps: Steps, before: Snapshot) -> Decision:
        """What all guards say together, and its consequence on every rank."""
        policy, good = self._policy, self._policy.good
        judged = None if self.method.report_after else steps.made_last or before
        says = NOTHING
        if own.learns and own.images is not None and own.prediction is not None:
            own.objection = policy.judge(own.images, own.prediction, None, judged, steps.updates)
            says = FINE if policy.good is not good else NOTHING
            if own.objection is not None:
                says = HARM if own.objection.judged else UNJUDGED
        policy.good = good
        worst = int(self._ranks.largest(says, self._adapted.device()))
        if worst in (HARM, UNJUDGED):
            return self._take_back_together(own, worst, before)
        if worst == FINE:
            policy.good = judged or self._adapted.snapshot()
        self._remember_together(own)
        if own.images is None or own.prediction is None:
            return Decision("skipped", own.reason or "")
        own.prediction, decision = self._averaged(own.images, own.prediction)
        return decision

    def _take_back_together(self, own: _Own, worst: int, before: Snapshot) -> Decision:
        """Every rank goes back as far as the ranks that object need."""
        adapted, policy = self._adapted, self._policy
        reason = own.objection.reason if own.objection else own.reason or ELSEWHERE
        own.prediction = None
        if worst == UNJUDGED:
            adapted.restore(before)
            return Decision("skipped", reason)
        for _ in range(self.guard.halvings):
            adapted.return_part(policy.good, 0.5)
            if not self._any(not self._stands(own)):
                self._remember_together(own)
                return Decision("shrunk", reason)
        own.prediction = None
        if self._any(own.objection is not None and policy.gives_up()):
            adapted.restore(adapted.source)
            policy.begin_rest()
            return Decision("reset", reason)
        adapted.restore(policy.good)
        own.prediction = None if own.images is None else adapted.predict_source(own.images)
        return Decision("rolled-back", reason)

    def _remember_together(self, own: _Own) -> None:
        """What the ranks' predictions leave behind, on average."""
        kept = self.state.output
        left = {} if own.prediction is None else own.prediction.output
        if not kept:
            return
        parts = [left.get(name, value) if left else torch.zeros_like(value) for name, value in kept.items()]
        count = torch.full((1,), float(bool(left)), device=self._adapted.device())
        flat = self._ranks.total(torch.cat([count, *(part.reshape(-1).float() for part in parts)]))
        if not flat[0]:
            return
        means = (flat[1:] / flat[0]).split([value.numel() for value in kept.values()])
        for value, mean in zip(kept.values(), means, strict=True):
            value.copy_(mean.view_as(value))

    def _stands(self, own: _Own) -> bool:
        """Whether this rank's guard takes the network as it is now; its prediction is then this rank's."""
        if own.images is None or own.objection is None:
            return True
        own.prediction = self._adapted.predict(own.images)
        return self._policy.accepts(own.images, own.objection.reference, own.prediction)

    def _any(self, here: bool) -> bool:
        return self._ranks.largest(float(here), self._adapted.device()) > 0
