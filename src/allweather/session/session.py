"""A method at work on a segmenter: owns the copy, the optimizer, precision, the guard, reset, save and resume."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from allweather.errors import AllWeatherError, unknown
from allweather.methods.method import Batch, Method, Objective
from allweather.methods.normalization import moving_statistics
from allweather.methods.settings import settings_of
from allweather.models.segmenter import Segmenter
from allweather.session.guard import Guard
from allweather.session.result import Result
from allweather.session.run import Reading, Run, queues
from allweather.session.snapshot import Snapshot
from allweather.session.storage import load_session, save_session

Precision = Literal["float32", "bf16"]


class Session:
    """Adapts a copy of `model` by `method`, one batch of images at a time; the caller's network never changes.

    Args:
        model: the segmenter, on the device that adaptation is to run on.
        method: what to do; see `allweather.methods`.
        seed: of the session's own random stream; the caller's is neither read nor advanced.
        precision: `bf16` runs the network under autocast; losses and statistics stay float32.
        compile: runs the network through `torch.compile`.
        channels_last: runs the network in channels-last memory format.
        guard: when to roll an update back.

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
    ) -> None:
        if precision not in get_args(Precision):
            raise unknown("precision", precision, get_args(Precision))
        self.method, self.seed, self.guard = method, seed, guard or Guard()
        self.precision, self.compile, self.channels_last = precision, compile, channels_last
        with torch.inference_mode(False), torch.enable_grad():
            self.model = _copy(model)
            if channels_last:
                self.model.to(memory_format=torch.channels_last)
            self._updates = 0
            self._state = method.begin(self.model)
            self._optimizer = self._new_optimizer()
            self._source = self._snapshot()
        self._network = cast(Segmenter, torch.compile(self.model)) if compile else self.model
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
            logits = self._predict(self._batch(images))
        return logits if images.ndim == 4 else logits[0]

    def reset(self) -> None:
        """The source network again, bit for bit, with a fresh optimizer and random stream."""
        self._restore(self._source)
        self._start()

    def save(self, path: Path | str) -> None:
        """Writes all that moved, the optimizer and the random stream as one safetensors file.

        Raises:
            AllWeatherError: when the file cannot be written.
        """
        save_session(Path(path), self._state.tensors(), self._optimizer, self._counters(), self._identity())

    def load(self, path: Path | str) -> None:
        """Goes on from what `save` wrote; equals never having stopped.

        Raises:
            AllWeatherError: for an unreadable file, or one of another network or method.
        """
        counters = load_session(Path(path), self._state.tensors(), self._optimizer, self._identity())
        self._updates, self._batches = int(counters["updates"]), int(counters["batches"])
        self._stream = [counters[name] for name in sorted(counters) if name.startswith("stream")]
        self._good = self._snapshot()

    def settings(self) -> dict[str, Any]:
        """All settings of session, guard and method, ready for JSON."""
        return {
            "method": settings_of(self.method),
            "seed": self.seed,
            "precision": self.precision,
            "compile": self.compile,
            "channels_last": self.channels_last,
            "guard": asdict(self.guard),
        }

    def _step(self, images: Tensor, *, predict: bool) -> Result:
        started = perf_counter()
        batch = self._batch(images)
        before = self._source if self.method.episodic else self._snapshot()
        with self._own_world():
            try:
                run = self._iterate(batch)
                logits, decision = self._conclude(batch, run, before, predict)
            except BaseException:  # an interruption too must leave the network as it was
                self._restore(before)
                raise
            if self.method.episodic:
                self._restore(self._source)
        self._batches += 1
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
        run = Run()
        if not batch.images.isfinite().all():
            run.failure = "the image is not finite"
            return run
        ahead = queues(batch.images.device)
        for _ in range(max(1, self.method.iterations)):
            with moving_statistics(self.model), self._autocast():
                objective = self.method.objective(self._network, self._state, batch)
            if objective.loss is None:
                self._seen(run, objective)
                break
            watched = objective.loss if objective.watched is None else objective.watched
            reading = Reading([objective.loss, watched, *([] if run.finite is None else [run.finite])])
            if ahead:
                gradient = self._gradient(objective.loss)
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
                gradient = self._gradient(objective.loss)
            run.finite = gradient if ahead else None
            if not ahead and not gradient:
                run.failure = "the gradient is not finite"
                break
            self._move()
            run.updates, run.current, run.stop = run.updates + 1, False, "cap"
        if self._optimizer is not None:
            self._optimizer.zero_grad(set_to_none=True)  # of an iteration that stopped ahead of its step
        return run

    def _seen(self, run: Run, objective: Objective) -> None:
        run.last, run.current = objective.logits.detach(), self.method.predicts_as_it_adapts
        run.first = run.last if run.first is None else run.first

    def _gradient(self, loss: Tensor) -> Tensor:
        """Computes the gradient; whether all of it is finite, as a number on the device, false where there is none."""
        if self._optimizer is None:
            raise AllWeatherError(f"{self.method.name} returned a loss but make_optimizer returned none.")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [p.grad for p in self._state.parameters.values() if p.grad is not None]
        if not gradients:
            return torch.zeros((), dtype=torch.bool, device=loss.device)
        return torch.nn.utils.get_total_norm(gradients).isfinite()

    def _move(self) -> None:
        """One optimizer step along the gradient."""
        optimizer = cast(torch.optim.Optimizer, self._optimizer)
        rate = self.method.learning_rate(self._updates)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] if rate is None else rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._updates += 1
        self.method.after_update(self.model, self._state)

    def _conclude(self, batch: Batch, run: Run, before: Snapshot, predict: bool) -> tuple[Tensor, str]:
        """The prediction to report, after the guard has looked at it, and what the guard decided."""
        logits = None
        if not run.failure:
            logits = cast(Tensor, run.last if self.method.report_after else run.first)
            if predict and self.method.report_after and not run.current:
                logits = self._predict(batch)
            reading = Reading([logits.isfinite().all(), *([] if run.finite is None else [run.finite])])
            finite, *flag = reading.values()
            if flag and not flag[0]:
                run.refuse_step()
        if run.failure or logits is None:
            self._restore(before)
            return self._predict(batch), f"skipped: {run.failure}"
        if not finite:
            self._restore(before)
            return self._predict(batch), "rolled back: the prediction is not finite"
        return self._judge(batch, run, logits)

    def _judge(self, batch: Batch, run: Run, logits: Tensor) -> tuple[Tensor, str]:
        """Lets the guard compare `logits` with the unadapted prediction and rolls back on its word."""
        moved = run.updates > 0 or (not self.method.episodic and bool(self._state.buffers))
        due = self.method.episodic or self._batches % self.guard.every == 0
        if not (self.guard.enabled and moved and due):
            return logits, "accepted"
        has_reference = self.method.episodic and self.method.predicts_as_it_adapts
        reference = cast(Tensor, run.first) if has_reference else self._source_prediction(batch)
        reason = self.guard.verdict(reference, logits)
        if reason:
            self._restore(self._good)
            return reference, f"rolled back: {reason}"
        if not self.method.episodic:
            self._good = self._snapshot()
        return logits, "accepted"

    @torch.no_grad()
    def _predict(self, batch: Batch) -> Tensor:
        with self._autocast():
            return self._network(batch.images)

    @torch.no_grad()
    def _source_prediction(self, batch: Batch) -> Tensor:
        """What the network would say had it never adapted."""
        groups = (("parameters", self._state.parameters), ("buffers", self._state.buffers))
        source = {
            f"network.{name}": self._source.tensors[f"{group}.{name}"] for group, names in groups for name in names
        }
        with self._autocast():
            return cast(Tensor, torch.func.functional_call(self.model, source, (batch.images,)))

    def _batch(self, images: Tensor) -> Batch:
        if images.ndim not in (3, 4) or images.shape[-3] != 3 or not images.is_floating_point():
            raise AllWeatherError(
                f"expected images 3×H×W or B×3×H×W, RGB floats in [0, 1]; got {tuple(images.shape)} of {images.dtype}."
            )
        images = images if images.ndim == 4 else images[None]
        device = next((p.device for p in self.model.parameters()), images.device)
        with torch.inference_mode(False):
            images = images.detach().to(device, torch.float32, copy=images.is_inference())
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images)

    def _new_optimizer(self) -> torch.optim.Optimizer | None:
        parameters = list(self._state.parameters.values())
        return self.method.make_optimizer(parameters) if parameters else None

    def _start(self) -> None:
        """Counters, random stream and optimizer as they are before the first image."""
        self._updates = self._batches = 0
        with torch.random.fork_rng(self._cuda_devices()):
            torch.manual_seed(self.seed)
            self._stream = self._stream_state()
        self._good = self._source

    def _snapshot(self) -> Snapshot:
        return Snapshot.take(self._state.tensors(), self._optimizer, self._updates)

    def _restore(self, snapshot: Snapshot) -> None:
        snapshot.restore(self._state.tensors(), self._optimizer)
        self._updates = snapshot.updates
        if self._optimizer is not None:
            self._optimizer.zero_grad(set_to_none=True)

    def _identity(self) -> dict[str, str]:
        return {"network": self.model.name, **{k: str(v) for k, v in settings_of(self.method).items()}}

    def _counters(self) -> dict[str, Tensor]:
        counters = {"updates": torch.tensor(self._updates), "batches": torch.tensor(self._batches)}
        return counters | {f"stream{index}": state for index, state in enumerate(self._stream)}

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

    def _autocast(self) -> torch.autocast:
        device = next((p.device.type for p in self.model.parameters()), "cpu")
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def _copy(model: Segmenter) -> Segmenter:
    """A copy in evaluation mode with gradients off; tensors made under inference mode become ordinary ones."""
    copy = deepcopy(model).eval()
    ordinary: dict[int, nn.Parameter] = {}
    for module in copy.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_inference():
                replacement = ordinary.setdefault(id(parameter), nn.Parameter(parameter.clone()))
                module.register_parameter(name, replacement)
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_inference():
                module.register_buffer(name, buffer.clone(), name not in module._non_persistent_buffers_set)
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return copy
