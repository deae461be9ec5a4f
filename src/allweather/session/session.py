"""A method at work on a segmenter: adapts batch by batch, stops early, heeds the guard, resets, saves and resumes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from allweather.errors import AllWeatherError, unknown
from allweather.methods.method import Batch, Method, Objective
from allweather.methods.settings import settings_of
from allweather.models.segmenter import Segmenter
from allweather.session.guard import Guard
from allweather.session.judge import Judge
from allweather.session.learner import Learner, Precision
from allweather.session.result import Result
from allweather.session.run import Reading, Run, queues
from allweather.session.shift import Shift, ShiftDetector
from allweather.session.snapshot import Snapshot
from allweather.session.storage import load_session, save_session

AdaptWhen = Literal["always", "shift"]


class Session:
    """Adapts a copy of `model` by `method`, one batch of images at a time; the caller's network never changes.

    Args:
        model: the segmenter, on the device that adaptation is to run on.
        method: what to do; see `allweather.methods`.
        seed: of the session's own random stream; the caller's is neither read nor advanced.
        precision: `bf16` runs the network under autocast; losses and statistics stay float32.
        compile: runs the network through `torch.compile`.
        channels_last: runs the network in channels-last memory format.
        guard: what counts as harm, and what is done about it.
        adapt_when: `always`, or `shift`: images that the source network knows are predicted by it, unadapted.
        shift: what counts as a shift; only looked at where `adapt_when` is `shift`.

    Raises:
        AllWeatherError: when the method cannot work on this network, by name and with the reason.
    """

    def __init__(
        self,
        model: Segmenter,
        method: Method,
        *,
        seed: int = 0,
        precision: Precision = "float32",
        compile: bool = False,
        channels_last: bool = False,
        guard: Guard | None = None,
        adapt_when: AdaptWhen = "always",
        shift: Shift | None = None,
    ) -> None:
        if adapt_when not in get_args(AdaptWhen):
            raise unknown("adapt_when", adapt_when, get_args(AdaptWhen))
        if precision not in get_args(Precision):
            raise unknown("precision", precision, get_args(Precision))
        self.method, self.seed, self.guard = method, seed, guard or Guard()
        self.precision, self.compile, self.channels_last = precision, compile, channels_last
        self._learner = Learner(model, method, precision=precision, compile=compile, channels_last=channels_last)
        self.model, self._state = self._learner.model, self._learner.state
        self._judge = Judge(self.guard, self._learner)
        self.adapt_when, self.shift = adapt_when, shift or Shift()
        self._detector = ShiftDetector(self.shift, self._learner) if adapt_when == "shift" else None
        self._start()

    def __call__(self, images: Tensor) -> Result:
        """Adapts to `images` and predicts them: one step of the online protocol.

        Args:
            images: 3×H×W or B×3×H×W, RGB in [0, 1].

        Returns:
            The prediction, made before or after the update as the method declares.

        Raises:
            AllWeatherError: for another shape or type.
        """
        return self._step(images, predict=True)

    def adapt(self, images: Tensor) -> Result:
        """Adapts to `images` without a last prediction; the result's logits are those of the last objective."""
        return self._step(images, predict=False)

    def predict(self, images: Tensor) -> Tensor:
        """Logits of the network as it stands, C×H×W or B×C×H×W as the images came; nothing moves."""
        with self._own_world():
            logits = self._learner.predict(self._batch(images).images)
        return logits if images.ndim == 4 else logits[0]

    def reset(self) -> None:
        """The source network again, bit for bit, with a fresh optimizer and random stream."""
        self._learner.restore(self._learner.source)
        self._start()

    def save(self, path: Path | str) -> None:
        """Writes all that moved, the optimizer, the random stream and what the guard remembers as one safetensors file.

        Raises:
            AllWeatherError: when the file cannot be written.
        """
        save_session(Path(path), self._state.tensors(), self._learner.optimizer, self._counters(), self._identity())

    def load(self, path: Path | str) -> None:
        """Goes on from what `save` wrote; equals never having stopped.

        Raises:
            AllWeatherError: for an unreadable file, or one of another network or method.
        """
        counters = load_session(Path(path), self._state.tensors(), self._learner.optimizer, self._identity())
        self._learner.updates = int(counters["updates"])
        self._stream = [counters[name] for name in sorted(counters) if name.startswith("stream")]
        self._judge.load(counters)
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

    def _step(self, images: Tensor, *, predict: bool) -> Result:
        started = perf_counter()
        batch, learner = self._batch(images), self._learner
        before = learner.source if self.method.episodic else learner.snapshot()
        with self._own_world():
            try:
                run = self._iterate(batch)
                logits, decision = self._conclude(batch, run, before, predict)
            except BaseException:  # an interruption too must leave the network as it was
                learner.restore(before)
                raise
            if self.method.episodic:
                learner.restore(learner.source)
        return Result(
            logits=logits.float() if images.ndim == 4 else logits[0].float(),
            losses=tuple(run.losses),
            watched=tuple(run.watched),
            iterations=run.updates,
            stop=run.stop,
            decision=decision,
            seconds=perf_counter() - started,
        )

    def _iterate(self, batch: Batch) -> Run:
        """Forward passes and updates until the cap, the stopping rule, or a number that is not finite.

        Where the device queues its work, the numbers that decide travel while it already computes the gradient, and
        whether that gradient was finite is read one iteration later: a batch that fails leaves no trace anyhow.
        """
        run = Run(failure=self._unfit(batch) or self._judge.rests(batch.images))
        if run.failure:
            return run
        if self._detector is not None:
            run.unadapted, shifted = self._detector.look(batch.images)
            if not shifted:
                run.last, run.stop = run.unadapted, "no shift"
                return run
        ahead = queues(batch.images.device)
        for _ in range(max(1, self.method.iterations)):
            objective = self._learner.objective(batch)
            if objective.loss is None:
                self._seen(run, objective)
                break
            watched = objective.loss if objective.watched is None else objective.watched
            reading = Reading([objective.loss, watched, *([] if run.finite is None else [run.finite])])
            if ahead:
                gradient = self._learner.gradient(objective.loss)
            loss, following, *flag = reading.values()
            if flag and not flag[0]:
                run.refuse_step()
                break
            self._seen(run, objective)
            run.losses.append(loss)
            run.watched.append(following)
            if not isfinite(loss):
                run.failure, run.finite = "the objective is not finite", None
                break
            if reason := self.method.stopping.reason(run.watched):
                run.stop = reason
                break
            if not ahead:
                gradient = self._learner.gradient(objective.loss)
            run.finite = gradient if ahead else None
            if not ahead and not gradient:
                run.failure = "the gradient is not finite"
                break
            self._learner.move()
            run.updates, run.current, run.stop = run.updates + 1, False, "cap"
        self._learner.forget_gradient()
        return run

    def _seen(self, run: Run, objective: Objective) -> None:
        run.last, run.current = objective.logits.detach(), self.method.predicts_as_it_adapts
        run.first = run.last if run.first is None else run.first

    def _unfit(self, batch: Batch) -> str | None:
        """Why nothing can be learnt from the images; found before anything is queued behind them."""
        low, high = torch.aminmax(batch.images)
        if not (low.isfinite() and high.isfinite()):
            return "the image is not finite"
        return "the image is constant" if self._state.tensors() and low == high else None

    def _conclude(self, batch: Batch, run: Run, before: Snapshot, predict: bool) -> tuple[Tensor, str]:
        """The prediction to report, after the guard has looked at it, and what the guard decided."""
        learner, after = self._learner, self.method.report_after
        if run.stop == "no shift":
            return cast(Tensor, run.last), "accepted"
        logits = None
        if not run.failure:
            logits = cast(Tensor, run.last if after else run.first)
            if predict and ((after and not run.current) or (self.method.mirror and (after or not run.updates))):
                logits = learner.predict_ahead(batch.images)
            reading = Reading([logits.isfinite().all(), *([] if run.finite is None else [run.finite])])
            finite, *flag = reading.values()
            if flag and not flag[0]:
                run.refuse_step()
        if run.failure or logits is None:
            learner.restore(before)
            return learner.predict(batch.images), f"skipped: {run.failure}"
        if not finite:
            learner.restore(before)
            return learner.predict(batch.images), "rolled back: the prediction is not finite"
        free = run.first if self.method.episodic and self.method.predicts_as_it_adapts else None
        unadapted = free if run.unadapted is None else run.unadapted
        return self._judge.decide(batch, unadapted, logits, None if after else before, run.updates)

    def _batch(self, images: Tensor) -> Batch:
        if images.ndim not in (3, 4) or images.shape[-3] != 3 or not images.is_floating_point():
            raise AllWeatherError(
                f"expected images 3×H×W or B×3×H×W, RGB floats in [0, 1]; got {tuple(images.shape)} of {images.dtype}."
            )
        images = images if images.ndim == 4 else images[None]
        device = self._learner.device(images.device)
        with torch.inference_mode(False):
            images = images.detach().to(device, torch.float32, copy=images.is_inference())
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images)

    def _start(self) -> None:
        """Random stream and guard as they are before the first image."""
        with torch.random.fork_rng(self._cuda_devices()):
            torch.manual_seed(self.seed)
            self._stream = self._stream_state()
        self._judge.start()
        if self._detector is not None:
            self._detector.start()

    def _identity(self) -> dict[str, str]:
        return {
            "network": self.model.name,
            "adapt_when": self.adapt_when,
            **{k: str(v) for k, v in settings_of(self.method).items()},
        }

    def _counters(self) -> dict[str, Tensor]:
        stream = {f"stream{index}": state for index, state in enumerate(self._stream)}
        shift = {} if self._detector is None else self._detector.tensors()
        return {"updates": torch.tensor(self._learner.updates), **stream, **self._judge.tensors(), **shift}

    def _cuda_devices(self) -> list[int]:
        devices = {p.device.index or 0 for p in self.model.parameters() if p.device.type == "cuda"}
        return sorted(devices)

    def _stream_state(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in self._cuda_devices())]

    @contextmanager
    def _own_world(self) -> Iterator[None]:
        """Gradients on, the session's own random stream, and nothing of the caller's modes."""
        devices = self._cuda_devices()
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
            torch.set_rng_state(self._stream[0])
            for index, state in zip(devices, self._stream[1:], strict=True):
                torch.cuda.set_rng_state(state, index)
            yield
            self._stream = self._stream_state()
