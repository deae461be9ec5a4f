"""RoTTA: slow statistics, a balanced memory of the stream, and a student that learns from it now and then."""

from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from allweather.methods.gradient import GradientMethod
from allweather.methods.losses import pixel_entropy
from allweather.methods.method import Batch, Objective, State
from allweather.methods.normalization import further_passes, moving_statistics
from allweather.methods.option import option, where
from allweather.methods.parameters import values_of, with_parameters
from allweather.methods.views import recoloured, resized
from allweather.models.placing import device_of
from allweather.models.segmenter import Segmenter

EMPTY = -1
COMMON = 0.01  # share of the pixels below which a class is too rare for its share to be compared with its usual one


@dataclass(frozen=True, kw_only=True)
class Rotta(GradientMethod):
    """Σ_i E(A_i) · CE(teacher(x_i), student(strong view of x_i)) / |M| over a memory M, once every few images.

    The memory has room for N = `capacity` images and balances the classes: a class holds at most N/C of them, unless it
    is the first. To make room, the image of the highest 1/(1 + exp(−A/N)) + U/ln C goes, with age A in images and
    entropy U. Weights are E(A) = exp(−A/N) / (1 + exp(−A/N)). The teacher is an average, θ_T ← (1 − ν)θ_T + ν·θ_S with
    `teacher` = 1 − ν; it makes the reported prediction. With `bn` = running, statistics start at the source's and move
    by the share α = `share` of the memory's: μ ← (1 − α)μ + α·μ_M. By default they are mixed per batch instead: of
    what is predicted, and of the memory when it is learnt from.

    The paper classifies images; here pixels are predicted. So an image's class is the one that most exceeds its usual
    share of the pixels along the stream, U and the cross-entropy are means over pixels, and the strong view changes
    color alone. The memory keeps images as bytes, reduced to `side`, and is learnt from in one batch, of the images
    that have the newest one's size. Teacher and student share one set of statistics, which are constant to the
    gradient.
    """

    name: ClassVar[str] = "rotta"
    source: ClassVar[str] = "Yuan et al., Robust test-time adaptation in dynamic scenarios, CVPR 2023, Sec. 3"
    presets: ClassVar = {"paper": {"bn": "running", "share": 0.05, "capacity": 64, "every": 64}}

    without: ClassVar = {"lookahead": "the teacher predicts, and a step of the student does not move it"}

    episodic: bool = option(False, "return to the source network after each batch")
    report_after: bool = option(False, "report the prediction made after the last update, not the one before it")
    teacher: float = option(0.999, "share of itself that the teacher keeps at each update, 0..1", low=0, high=1)
    capacity: int = option(8, "maximum number of images in the memory", low=1)
    side: int = option(384, "longest side of images in the memory, in pixels; larger ones are reduced", low=1)
    every: int = option(4, "number of images from one update to the next", low=1, needs=where(episodic=False))
    strength: float = option(0.5, "change of brightness, contrast and gamma in the student's view, 0..1", low=0, high=1)

    def begin(self, model: Segmenter) -> State:
        state = super().begin(model)
        device = device_of(model)
        state.memory = values_of(state.parameters) | {
            "bank.images": torch.zeros(self.capacity, 3, self.side, self.side, dtype=torch.uint8, device=device),
            "bank.sizes": torch.zeros(self.capacity, 2, dtype=torch.long, device=device),
            "bank.classes": torch.full((self.capacity,), EMPTY, device=device),
            "bank.ages": torch.zeros(self.capacity, device=device, dtype=torch.float32),
            "bank.uncertainty": torch.zeros(self.capacity, device=device, dtype=torch.float32),
            "stream.images": torch.zeros((), dtype=torch.long, device=device),
            "stream.shares": torch.zeros(len(model.classes), device=device, dtype=torch.float32),
        }
        return state

    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        slow = self.bn in ("running", "train")  # statistics that the memory alone moves
        with moving_statistics(model, not slow):
            logits = self._teacher(model, state, batch.images)
        due = batch.once("rotta", lambda: self._take_up(state, batch.images, logits))
        members = self._members(state, batch.images) if due else []
        if not members:
            return Objective(logits)
        images = torch.stack([self._remembered(state, slot) for slot in members])
        with nullcontext() if slow else further_passes(model):
            target = self._teacher(model, state, images).float().softmax(1)
        with moving_statistics(model, False):
            student = model(recoloured(images, self.strength, state.generator)).float().log_softmax(1)
        weights = torch.sigmoid(-state.memory["bank.ages"][members] / self.capacity)
        return Objective(logits, (weights * -(target * student).sum(1).mean((1, 2))).mean())

    def predict(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        with moving_statistics(model, False):
            return self._teacher(model, state, images)

    def deployed(self, state: State) -> Mapping[str, Tensor]:
        """The teacher's parameters."""
        return {name: state.memory[name] for name in state.parameters}

    @torch.no_grad()
    def after_update(self, model: Segmenter, state: State) -> None:
        super().after_update(model, state)
        for name, parameter in state.parameters.items():
            state.memory[name].lerp_(parameter, 1 - self.teacher)

    @torch.no_grad()
    def _teacher(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        return with_parameters(model, {name: state.memory[name] for name in state.parameters}, images)

    @torch.no_grad()
    def _take_up(self, state: State, images: Tensor, logits: Tensor) -> bool:
        """Offers each image to the memory; whether an update is due."""
        memory, count = state.memory, state.memory["stream.images"]
        before = int(count)
        uncertainty = pixel_entropy(logits).mean((1, 2)) / log(logits.shape[1])
        shares = logits.float().softmax(1).mean((2, 3))
        for image, doubt, share in zip(images, uncertainty, shares, strict=True):
            count += 1
            memory["stream.shares"].lerp_(share, 1 / int(count))
            category = int((share / (memory["stream.shares"] + COMMON)).argmax())
            slot = self._slot(state, category, float(doubt), len(share))
            if slot is not None:
                self._remember(state, slot, image)
                memory["bank.classes"][slot], memory["bank.ages"][slot] = category, 0
                memory["bank.uncertainty"][slot] = doubt
            memory["bank.ages"] += 1
        return self.episodic or int(count) // self.every > before // self.every

    def _slot(self, state: State, category: int, uncertainty: float, classes: int) -> int | None:
        """Where an image of the category goes: a free place, or that of the stalest and least sure one, or nowhere."""
        held = state.memory["bank.classes"].tolist()
        crowd = Counter(found for found in held if found != EMPTY)
        rivals = [slot for slot, found in enumerate(held) if found == category]
        if crowd[category] < self.capacity / classes:
            if EMPTY in held:
                return held.index(EMPTY)
            most = max(crowd.values())
            rivals = [slot for slot, found in enumerate(held) if crowd[found] == most]
        stale = torch.sigmoid(state.memory["bank.ages"] / self.capacity) + state.memory["bank.uncertainty"]
        scores = stale.tolist()
        worst = max(rivals, key=scores.__getitem__)
        return worst if scores[worst] > 0.5 + uncertainty else None

    def _small(self, image: Tensor) -> Tensor:
        return resized(image[None], min(1.0, self.side / max(image.shape[1:])))[0]

    def _remember(self, state: State, slot: int, image: Tensor) -> None:
        small = self._small(image)
        height, width = small.shape[1:]
        state.memory["bank.images"][slot, :, :height, :width] = (small.clamp(0, 1) * 255).round().to(torch.uint8)
        state.memory["bank.sizes"][slot] = torch.tensor((height, width))

    def _remembered(self, state: State, slot: int) -> Tensor:
        height, width = state.memory["bank.sizes"][slot].tolist()
        return state.memory["bank.images"][slot, :, :height, :width].float() / 255

    def _members(self, state: State, images: Tensor) -> list[int]:
        """The memory's places that hold an image of the size that these have there."""
        size = list(self._small(images[0]).shape[1:])
        held, sizes = state.memory["bank.classes"].tolist(), state.memory["bank.sizes"].tolist()
        return [slot for slot, found in enumerate(held) if found != EMPTY and sizes[slot] == size]
