"""The loop on one batch: updates until the cap, the stopping rule, or a bad number, and the prediction that is left."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import cast

from torch import Tensor

from allweather.errors import NotFiniteError
from allweather.finite import extremes
from allweather.methods.method import Batch, Method, Objective
from allweather.session.adapted import AdaptedNetwork
from allweather.session.prediction import Prediction
from allweather.session.reading import Reading, queues
from allweather.session.snapshot import Snapshot


@dataclass(eq=False)
class Steps:
    """What the steps on one batch have given so far.

    Attributes:
        first, last: logits B×C×H×W before any update, and of the latest forward pass.
        current: whether `last` is what the network as it stands would predict.
        reported: the prediction before the last update, where the method reports that one and has several views.
        made_last: the state before the last update of several, where it made what is reported.
        losses, watched, updates, stop: as in `Result`.
        failure: why the batch must leave no trace.
        pending: whether the latest gradient was finite, a number on the device that has not been read yet.
    """

    first: Tensor | None = None
    last: Tensor | None = None
    current: bool = True
    reported: Prediction | None = None
    made_last: Snapshot | None = None
    losses: list[float] = field(default_factory=list)
    watched: list[float] = field(default_factory=list)
    updates: int = 0
    stop: str = "none"
    failure: str | None = None
    pending: Tensor | None = None

    def read(self, *numbers: Tensor) -> Reading:
        """Sends `numbers` to the host, and behind them whether the latest gradient was finite."""
        return Reading([*numbers, *([] if self.pending is None else [self.pending])])

    def arrived(self, reading: Reading, count: int) -> list[float]:
        """The first `count` numbers of a reading; one of a bad gradient undoes the step that it led to."""
        values = reading.values()
        if self.pending is not None and not values[count]:
            self.failure = "the gradient is not finite"
            self.updates -= 1
            self.stop = "cap" if self.updates else "none"
        self.pending = None
        return values[:count]

    def see(self, objective: Objective, current: bool) -> None:
        """Takes up a forward pass."""
        self.last, self.current = objective.logits.detach(), current
        self.first = self.last if self.first is None else self.first


def take_steps(adapted: AdaptedNetwork, batch: Batch, predict: bool = True) -> Steps:
    """Minimises the method's objective on the batch; `predict` as of `prediction_after`.

    Where the device queues its work, the numbers that decide travel while it already computes the gradient. Whether
    a gradient was finite is read with the next numbers: a batch that fails leaves no trace anyhow.
    """
    steps, method = Steps(), adapted.method
    early, learnt = queues(batch.images.device), adapted.at_adapt_scale(batch)
    for iteration in range(max(1, method.iterations)):
        try:
            objective = adapted.objective(learnt, iteration)
        except NotFiniteError as error:
            steps.failure = str(error)
            break
        loss = objective.loss
        if loss is None:
            steps.see(objective, method.predicts_as_it_adapts)
            break
        reading = steps.read(loss, loss if objective.watched is None else objective.watched)
        gradient = adapted.gradient(loss) if early else None
        if not _goes_on(steps, objective, reading, adapted):
            break
        steps.pending = adapted.gradient(loss) if gradient is None else gradient
        if (
            iteration + 1 == method.iterations
            and not method.report_after
            and (len(method.looks) > 1 or learnt is not batch)
        ):
            steps.reported = adapted.predict(batch.images, steps.last if learnt is batch else None)
        keep_last(steps, adapted, predict)
        adapted.move()
        steps.updates, steps.current, steps.stop = steps.updates + 1, False, "cap"
    adapted.forget_gradient()
    return steps


def flaw(finite: Sequence[Tensor | float]) -> str | None:
    """What of a prediction is not finite, by the numbers of `Prediction.finite`; None where all is."""
    if not finite[0]:
        return "the prediction is not finite"
    return None if all(finite) else "what the prediction leaves behind is not finite"


def keep_last(steps: Steps, adapted: AdaptedNetwork, predict: bool) -> None:
    """Keeps the state before the last of several updates where that one is to be judged."""
    method = adapted.method
    several = 0 < steps.updates == method.iterations - 1
    if several and not method.episodic and not (method.report_after and predict):
        steps.made_last = adapted.snapshot()


def prediction_after(adapted: AdaptedNetwork, images: Tensor, steps: Steps, predict: bool = True) -> Prediction:
    """The method's prediction, from before or after the last update as it declares.

    Args:
        images: B×3×H×W.
        predict: whether another pass may be made for it; otherwise the logits of the last objective are taken.
    """
    last, method = cast(Tensor, steps.last), adapted.method
    if steps.reported is not None:
        return steps.reported
    whole = _is_whole(images, steps)
    if whole and not predict:
        return Prediction(last, last)
    if whole and steps.updates and not method.report_after:
        if len(method.looks) == 1:
            return adapted.reported(images, last)
        return adapted.predict(images, last)  # the steps stopped early, and other views are not seen yet
    known = last if steps.current else None
    return adapted.predict_ahead(images, known) if steps.updates else adapted.predict(images, known)


def maker(method: Method, images: Tensor, steps: Steps, before: Snapshot, predict: bool = True) -> Snapshot | None:
    """The state that made what `prediction_after` gives; None where it is the network's present one.

    Args:
        images: B×3×H×W.
        before: the state before the first update.
    """
    stopped = steps.stop != "cap" and (steps.updates > 0 or method.report_after)
    if stopped or (method.report_after and (predict or not _is_whole(images, steps))):
        return None
    return steps.made_last or before


def _is_whole(images: Tensor, steps: Steps) -> bool:
    """Whether the last logits are of the images' size; not so at another `adapt_scale`."""
    return cast(Tensor, steps.last).shape[2:] == images.shape[2:]


def _goes_on(steps: Steps, objective: Objective, reading: Reading, adapted: AdaptedNetwork) -> bool:
    """Whether the numbers of a forward pass, once they have arrived, ask for another update."""
    loss, watched = steps.arrived(reading, 2)
    if steps.failure:
        return False
    steps.see(objective, adapted.method.predicts_as_it_adapts)
    steps.losses.append(loss)
    steps.watched.append(watched)
    if not isfinite(loss):
        steps.failure = "the objective is not finite"
        return False
    if reason := adapted.method.stopping.reason(steps.watched):
        steps.stop = reason
        return False
    return True


def unfit(images: Tensor, learns: bool) -> str | None:
    """Why nothing can be learnt from images B×3×H×W; found before anything is queued behind them."""
    low, high = extremes(images)
    if not (isfinite(low) and isfinite(high)):
        return "the image is not finite"
    return "the image is constant" if learns and low == high else None
