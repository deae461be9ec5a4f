"""The door: a method at work on a segmenter. Adapts batch by batch, heeds the guard, resets, saves and resumes."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import Any, Literal, Self, cast, get_args

import torch
from torch import Tensor
from torch.jit import ScriptModule

from allweather.errors import CheckpointError, NotFiniteError, SettingsError, check_known
from allweather.finite import all_finite
from allweather.interrupts import interruptions_wait
from allweather.methods.method import Batch, Method
from allweather.methods.settings import settings_of
from allweather.models.deep_copy import deep_copy
from allweather.models.outputs import log_of
from allweather.models.segmenter import Segmenter
from allweather.pictures.convert import Picture, as_images
from allweather.session.adapted import AdaptedNetwork, Precision
from allweather.session.arguments import check_guard, check_method, check_seed, check_shift
from allweather.session.averages import StreamAverages
from allweather.session.guard import Decision, Guard
from allweather.session.guard.policy import Objection, Policy
from allweather.session.handing import HandsBack
from allweather.session.identity import identity_of
from allweather.session.modes import own_modes
from allweather.session.prediction import Prediction
from allweather.session.result import Result
from allweather.session.shift import Shift, ShiftDetector
from allweather.session.snapshot import Snapshot, flatten_optimizer
from allweather.session.steps import Steps, flaw, maker, prediction_after, take_steps, unfit
from allweather.session.storage import load_session, save_session
from allweather.session.streaming import Streaming, apart
from allweather.session.undoing import undone_on_failure
from allweather.values import check_flag

LOG = logging.getLogger(__name__)
AdaptWhen = Literal["always", "shift"]
_NOT_ALWAYS = (  # beginnings of the names of counters that a saved session has only once there is something to them
    "guard.updates", "guard.good.", "guard.optimizer.", "shift.mean", "shift.var", "statistics.",
)  # fmt: skip


class Session(Streaming, HandsBack):
    """Adapts a copy of a network by a method, one image or batch per call. The caller's network never changes.

    A session has its own random numbers, so sessions in several threads do not disturb each other. Calls of one session
    from several threads wait for each other. A session can be copied and pickled where its network can, unless it is
    compiled.

    Args:
        model: the network, on the device that adaptation is to run on.
        method: a method of `allweather.methods`, or its name, which means the settings recommended for this network.
        seed: of the session's random numbers; the process's own are not touched, but by a network that draws some.
        precision: `float32`, or `bf16`: the network runs under autocast, losses and statistics stay float32.
        compile: runs the network through `torch.compile`.
        channels_last: runs the network in channels-last memory format.
        guard: what counts as harm, and what is done about it; False accepts every finite prediction.
        adapt_when: `always`; or `shift`: images that look like the source domain are predicted without adapting.
        shift: what counts as a shift; used only with `adapt_when="shift"`.

    Raises:
        NetworkError: when `model` is no `Segmenter`, or has not what the method needs.
        SettingsError: for an unknown name, and a value that is of the wrong type or that this network does not allow.

    Example:
        >>> import allweather as aw, torch
        >>> session = aw.Session(aw.load_model("demo:streetnet"), "mall-sample")
        >>> result = session(torch.rand(3, 64, 96))  # RGB in [0, 1]
        >>> result.logits.shape
        torch.Size([19, 64, 96])
        >>> session.reset()  # the source network again, bit for bit
    """

    def __init__(
        self,
        model: Segmenter,
        method: Method | str,
        *,
        seed: int = 0,
        precision: Precision = "float32",
        compile: bool = False,
        channels_last: bool = False,
        guard: Guard | bool | None = None,
        adapt_when: AdaptWhen = "always",
        shift: Shift | None = None,
    ) -> None:
        check_known("adapt_when", adapt_when, get_args(AdaptWhen))
        check_known("precision", precision, get_args(Precision))
        self.method, self.seed, self.guard = check_method(model, method), check_seed(seed), check_guard(guard)
        self.precision, self.adapt_when, self.shift = precision, adapt_when, check_shift(shift)
        for name, value in (("compile", compile), ("channels_last", channels_last)):
            check_flag(f"Session.{name}", value)
        self.compile, self.channels_last = compile, channels_last
        self._adapted = AdaptedNetwork(
            model, self.method, precision=precision, compile=compile, channels_last=channels_last
        )
        self.model, self.state = self._adapted.model, self._adapted.state
        self._policy, self._averages = Policy(self.guard, self._adapted), StreamAverages(self.model.network)
        self._detector = ShiftDetector(self.shift, self._adapted) if adapt_when == "shift" else None
        self._lock = RLock()
        self._start()

    def __call__(self, images: Picture | Sequence[Picture]) -> Result:
        """Adapts to `images` and predicts them: one step of the online protocol.

        Args:
            images: a picture (3×H×W or H×W×3, RGB: floats in [0, 1] or uint8; a PIL image; a path), a batch of them
                (B×3×H×W or B×H×W×3), or a list of pictures of one size.

        Returns:
            The prediction, made before or after the update as the method declares: C×H×W of a single picture.

        Raises:
            InputError: for another shape, type or range, or a file that cannot be read.
        """
        return self._step(images, predict=True)

    def adapt(self, images: Picture | Sequence[Picture]) -> Result:
        """Adapts to `images`; the logits are the last objective's, or a prediction's that finds the surest view."""
        return self._step(images, predict=self.method.surest)

    def predict(self, images: Picture | Sequence[Picture]) -> Tensor:
        """The method's prediction as the network stands: logits C×H×W or B×C×H×W as the images came; nothing moves."""
        with self._alone():
            (batch, single), before = self._batch(images), self._adapted.snapshot()
            with undone_on_failure(self._adapted, before, self._policy, self._detector):
                logits = self._adapted.predict_between(batch.images).logits.float()
            self._adapted.restore_own_buffers(before)
        return logits[0] if single else logits

    def reset(self) -> None:
        """The source network again, bit for bit, with a fresh optimizer and fresh random numbers."""
        with self._alone():
            self._adapted.restore(self._adapted.source)
            self._start()

    def save(self, path: Path | str) -> None:
        """Writes the state to `path`, a safetensors file: parameters, statistics, optimizer, random state, guard.

        The file appears whole or not at all.

        Raises:
            CheckpointError: when the file cannot be written, or would replace one that holds no session, and for a
                state with numbers that are not finite, which could not be loaded.
        """
        with self._alone():
            adapted = self._adapted
            optimizer = None if adapted.optimizer is None else adapted.optimizer.state_dict()
            tensors = {**adapted.snapshot().tensors, **flatten_optimizer(optimizer)}
            save_session(Path(path), tensors | _named("counters", self._counters()), self._identity())
            adapted.attributes.warn_unsaved()

    def load(self, path: Path | str) -> None:
        """Goes on from the file at `path` that `save` wrote, as if nothing had stopped.

        Raises:
            CheckpointError: for an unreadable or damaged file, or one of another network, weights, method, guard,
                precision or seed. The session is then unchanged.
        """
        self._load(Path(path))

    def _load(self, path: Path, saved_on: str = "") -> None:
        """As `load`; of a file that was saved on another device, all but its random numbers, which only that has."""
        with self._alone():
            elsewhere = {"device": saved_on} if saved_on else {}
            tensors = load_session(path, self.state.tensors(), self._identity() | elsewhere)
            if saved_on and saved_on != self._adapted.device().type:
                tensors["counters.random"] = self.state.generator.get_state()
            counters = {
                name.removeprefix("counters."): t for name, t in tensors.items() if name.startswith("counters.")
            }
            try:
                self._check(counters)
                moved = {name: tensor for name, tensor in tensors.items() if self._moves(name, tensor)}
                optimizer = self._adapted.optimizer_state(tensors)
                self._policy.check(counters)
                self._averages.check(counters)
            except CheckpointError as error:
                raise CheckpointError(f"{path}: {error}") from error
            self._adapted.restore(Snapshot(moved, optimizer, int(counters["updates"])))
            self.state.generator.set_state(counters["random"])
            self._batches = int(counters["batches"])
            self._policy.load(counters)
            self._averages.load(counters)
            if self._detector is not None:
                self._detector.load(counters)

    def settings(self) -> dict[str, Any]:
        """All settings of session, guard and method, ready for JSON."""
        return {
            "method": settings_of(self.method),
            "seed": self.seed,
            "precision": self.precision,
            "compile": self.compile,
            "channels_last": self.channels_last,
            "guard": asdict(self.guard),
            "adapt_when": self.adapt_when,
            **({"shift": asdict(self.shift)} if self.adapt_when == "shift" else {}),
        }

    def __repr__(self) -> str:
        return f"Session({self.model.name}, {self.method.name}, {self._adapted.updates} updates, seed={self.seed})"

    def __getstate__(self) -> dict[str, Any]:
        return self._copied_state({})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = RLock()
        self._adapted.set_modes()
        self._adapted.attributes.begin()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(self._copied_state(memo))
        return copied

    def _copied_state(self, memo: dict[int, Any]) -> dict[str, Any]:
        """All but the lock, copied between two batches; a pickle is written when the session may have gone on."""
        if self.compile:
            raise SettingsError("a compiled session cannot be copied or pickled. Use save and load, or compile=False.")
        if any(isinstance(module, ScriptModule) for module in self.model.modules()):
            raise SettingsError("a session of a TorchScript network cannot be copied or pickled. Use save and load.")
        with self._alone():
            return deep_copy({name: value for name, value in self.__dict__.items() if name != "_lock"}, memo)

    def _step(self, images: Picture | Sequence[Picture], *, predict: bool) -> Result:
        started = perf_counter()
        with self._alone():
            (batch, single), adapted = self._batch(images), self._adapted
            self._averages.discard()
            before = adapted.source if self.method.episodic else adapted.snapshot()
            with undone_on_failure(adapted, before, self._policy, self._detector):
                steps, prediction, decision = self._adapt(batch, before, predict)
            with interruptions_wait():  # after the batch or before it, never between
                self._batches += 1
                if decision.kind in ("accepted", "shrunk"):
                    self._averages.take()
                    adapted.remember(prediction)
                if self.method.episodic:
                    adapted.restore(adapted.source)
        if decision.refused:
            LOG.info("%s: %s", decision.kind, decision.reason)
        result = self._result(batch.images, prediction, steps, decision, started)
        return apart(result)[0] if single else result

    def _result(
        self, images: Tensor, prediction: Prediction, steps: Steps, decision: Decision, started: float
    ) -> Result:
        """What became of a batch B×3×H×W that was begun at `started`."""
        return Result(
            logits=prediction.logits.float(),
            losses=tuple(steps.losses),
            watched=tuple(steps.watched),
            iterations=steps.updates,
            stop=steps.stop,
            decision=decision,
            seconds=perf_counter() - started,
            images=images,
            classes=self.model.classes,
        )

    def _adapt(self, batch: Batch, before: Snapshot, predict: bool) -> tuple[Steps, Prediction, Decision]:
        """The steps on a batch, the prediction to report, and what was decided."""
        images, adapted = batch.images, self._adapted
        if decision := self._idle(images):
            return Steps(), self._unadapted(images), decision
        unadapted = None
        if self._detector is not None:
            unadapted, shifted = self._detector.look(images)
            if not shifted:
                return Steps(stop="no shift"), Prediction(unadapted, unadapted), Decision()
        steps = take_steps(adapted, batch, predict)
        prediction = None if steps.failure else prediction_after(adapted, images, steps, predict)
        if prediction is not None:
            finite = prediction.finite()
            found = flaw(steps.arrived(steps.read(*finite), len(finite)))
            steps.failure = steps.failure or found
        if steps.failure or prediction is None:
            adapted.restore(before)
            return steps, self._unadapted(images), Decision("skipped", cast(str, steps.failure))
        free = steps.first if self.method.episodic and self.method.predicts_as_it_adapts else None
        judged = maker(self.method, images, steps, before, predict)
        objection = self._policy.judge(
            images, prediction, free if unadapted is None else unadapted, judged, steps.updates
        )
        if objection is None:
            return steps, *self._averaged(images, prediction)
        return steps, *self._take_back(images, objection, before)

    def _idle(self, images: Tensor) -> Decision | None:
        """Why a batch is predicted without adapting to it; None where it is to be adapted to."""
        if reason := unfit(images, learns=bool(self.state.tensors())):
            return Decision("skipped", reason)
        if self._policy.is_resting():
            return Decision("resting", "after a reset")
        if between := self._batches % self.method.adapt_every:
            return Decision("skipped", f"{between} after the batch that was learnt from, of {self.method.adapt_every}")
        return Decision("skipped", "the image stands still") if self._policy.stands_still(images) else None

    def _unadapted(self, images: Tensor) -> Prediction:
        """The prediction of the network as it stands; the source's where that one alone is finite."""
        try:
            prediction = self._adapted.predict_between(images)
        except NotFiniteError:  # of a method that cannot work on such images at all
            logits = self._adapted.plain_logits(images)
            return Prediction(logits, logits)
        if all_finite(prediction.logits):
            return prediction
        source = self._adapted.predict_source(images)
        return source if all_finite(source.logits) else prediction

    def _averaged(self, images: Tensor, prediction: Prediction) -> tuple[Prediction, Decision]:
        """An accepted prediction; averaged with the source's where replacing its statistics seems to do harm."""
        doubt = self._policy.doubt(images, prediction)
        if doubt is None:
            return prediction, Decision()
        reason, source = doubt
        mean = (prediction.logits.float().softmax(1) + source) / 2
        return replace(prediction, logits=log_of(mean)), Decision("shrunk", reason)

    def _take_back(self, images: Tensor, objection: Objection, before: Snapshot) -> tuple[Prediction, Decision]:
        """Goes back as far as the guard asks: part of the way, to the last good state, or to the source network."""
        adapted, policy = self._adapted, self._policy
        if not objection.judged:
            adapted.restore(before)
            return self._unadapted(images), Decision("skipped", objection.reason)
        for _ in range(self.guard.halvings):
            adapted.return_part(policy.good, 0.5)
            prediction = adapted.predict(images)
            if policy.accepts(images, objection.reference, prediction):
                return prediction, Decision("shrunk", objection.reason)
        if policy.gives_up():
            adapted.restore(adapted.source)
            policy.begin_rest()
            return adapted.predict(images, objection.reference), Decision("reset", objection.reason)
        adapted.restore(policy.good)
        return adapted.predict_source(images, objection.reference), Decision("rolled-back", objection.reason)

    def _batch(self, pictures: Picture | Sequence[Picture]) -> tuple[Batch, bool]:
        """The pictures where the network lies, and whether a single one came."""
        images, single = as_images(pictures)
        device = self._adapted.device(images.device)
        images = images.detach().to(device, torch.float32, copy=True)  # a camera may write the next frame there
        layout = torch.channels_last if self.channels_last else torch.contiguous_format  # whatever the caller's was
        return Batch(images.contiguous(memory_format=layout)), single

    def _start(self) -> None:
        """Random numbers and guard as they are before the first image."""
        self.state.generator.manual_seed(self.seed)
        self._policy.start()
        self._batches = 0  # since the source network
        self._averages.start()
        if self._detector is not None:
            self._detector.start()

    def _identity(self) -> dict[str, str]:
        return identity_of(self.settings(), self._adapted)

    def _counters(self) -> dict[str, Tensor]:
        shift = {} if self._detector is None else self._detector.tensors()
        batches, updates = torch.tensor(self._batches), torch.tensor(self._adapted.updates)
        random = self.state.generator.get_state()
        counts = {"batches": batches, "updates": updates, "random": random}
        return counts | self._policy.tensors() | shift | self._averages.tensors()

    def _check(self, counters: dict[str, Tensor]) -> None:
        """Refuses counters that lack something, or whose random state is of another size."""
        expected = self._counters()
        absent = expected.keys() - counters.keys()
        if missing := sorted(name for name in absent if not name.startswith(_NOT_ALWAYS)):
            raise CheckpointError(f"expected counters.{missing[0]}, found nothing.")
        if counters["random"].shape != expected["random"].shape:
            raise CheckpointError(f"expected a random state of {len(expected['random'])} bytes.")

    def _moves(self, name: str, tensor: Tensor) -> bool:
        """Whether a saved tensor is part of the network's or the method's state."""
        if not name.startswith("own."):
            return name in self.state.tensors()
        if not self._adapted.own_buffers.takes(name.removeprefix("own."), tensor):
            raise CheckpointError(f"expected no tensor '{name}'.")
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time, gradients on, and nothing of the caller's modes."""
        with self._lock, own_modes(self._adapted.device()):
            yield


def _named(group: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{group}.{name}": tensor for name, tensor in tensors.items()}
