"""The session's own copy of a network: what a method may move in it, its optimizer, its prediction, the ways back."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any, Literal, cast

import torch
from torch import Tensor

from allweather.errors import SettingsError
from allweather.export.image_statistics import check_unmixed
from allweather.methods.method import Batch, Method, Objective
from allweather.methods.normalization import (
    batch_in_parts,
    further_passes,
    has_batch_layers,
    moving_statistics,
    noted_calls,
    own_statistics,
    replaces_statistics,
)
from allweather.methods.parameters import having
from allweather.methods.views import PLAIN, View, mean_softmax, resized, size_told, where_it_fits
from allweather.models.copying import independent_copy
from allweather.models.digest import digest
from allweather.models.gradients import go_back
from allweather.models.outputs import log_of
from allweather.models.placing import CPU, device_of
from allweather.models.segmenter import Segmenter
from allweather.plugins import told_of
from allweather.session.attributes import OwnAttributes
from allweather.session.contract import Contract
from allweather.session.given import checked_logits, checked_objective, checked_refined, checked_state
from allweather.session.looks import SURE, Looks
from allweather.session.modes import half_precision, own_modes
from allweather.session.passes import Passes
from allweather.session.prediction import Prediction
from allweather.session.proportion import in_proportion, root_mean_square, set_rates
from allweather.session.snapshot import OwnBuffers, Snapshot, optimizer_state

Precision = Literal["float32", "bf16"]
_EPS = 1e-8  # Adam's
ONE_BY_ONE = ("cpu",)  # kinds of device where views pass one after another


class AdaptedNetwork:
    """A copy of `model` that `method` moves; arguments as of `Session`.

    Attributes:
        model, network: the copy, and what runs it (the same, or its compiled form).
        state: what the method may move.
        optimizer: of the moved parameters; None for a method without updates.
        updates: made since the source network.
        source: the copy as it came.
        attributes: plain ones that the network sets by itself.
        mixes: whether BatchNorm layers normalise by other statistics than the checkpoint's.
    """

    def __init__(
        self, model: Segmenter, method: Method, *, precision: Precision, compile: bool, channels_last: bool
    ) -> None:
        self.method, self.precision = method, precision
        self.updates, self._digest = 0, ""
        self._looks, self._passes = Looks(method), Passes(model, model.name)
        self._ahead: list[Tensor] = []  # how far the next prediction looks beyond each moved parameter
        with own_modes(device_of(model)):
            self.model = independent_copy(model)
            if channels_last:
                self.model.to(memory_format=torch.channels_last)
            with told_of(method, f"the method {method.name}"):
                self.state = checked_state(method.begin(self.model), method)
                parameters = list(self.state.parameters.values())
                self.optimizer = method.make_optimizer(parameters) if parameters else None
            self.state.generator = torch.Generator(device=self.device())
            if method.surest:
                self.state.output[SURE] = torch.zeros(len(method.looks), device=self.device())
            self._of_batches = has_batch_layers(self.model)
            self.mixes = replaces_statistics(self.model)
            if self.mixes:
                check_unmixed(self.model.network, method.name, "Take Session.network(statistics='stream'), or source.")
            self._own = OwnBuffers(self.model, self.state.buffers.values())
            self.attributes = OwnAttributes(self.model)
            self.source = self.snapshot()
            self._contract = Contract(self.model, self.state)
            self._scales = [root_mean_square(parameter) if method.relative else 1.0 for parameter in parameters]
        self.network = cast(Segmenter, torch.compile(self.model)) if compile else self.model

    def set_modes(self) -> None:
        """The modes that the network had, in a copy of it: one of a graph comes in training mode."""
        self.model.eval()  # graphs of the two modes may differ
        self._contract.set_modes()

    def objective(self, batch: Batch, iteration: int = 0) -> Objective:
        """One forward pass of the method, running statistics moving: by the batch's share in the first iteration alone.

        Under train-mode BatchNorm they move in each, as in training. The logits have the size of `batch`, which
        `at_adapt_scale` may have reduced.

        Raises:
            SettingsError: where the method gives something else or breaks its contract, or the network refuses the size
                of `adapt_scale`.
        """
        if iteration == 0:  # where the iterations stop early, the step before is still the one to look beyond
            self._ahead = []
        again = iteration > 0 and getattr(self.method, "bn", None) != "train"
        taken = further_passes(self.model) if again else nullcontext()
        told = size_told(batch.images, self.method.adapt_scale, "adapt_scale", "adapt_scale=1 leaves it its size")
        kept = self._contract.kept(f"{self.method.name}: objective", self.method, images=batch.images)
        with kept, moving_statistics(self.model), taken, noted_calls(self.model), told, self._running():
            made = self.method.objective(self.network, self.state, batch)
        return checked_objective(made, self.method, batch.images, len(self.model.classes))

    def at_adapt_scale(self, batch: Batch) -> Batch:
        """The batch at the size that the method learns from."""
        return batch if (scale := self.method.adapt_scale) == 1 else Batch(resized(batch.images, scale))

    def gradient(self, loss: Tensor) -> Tensor:
        """Computes the gradient; whether all of it is finite, as a number on the device.

        Raises:
            SettingsError: where the method gives a loss and no optimizer.
            NetworkError: where the network cannot be differentiated, or none of what moves gets a gradient.
        """
        if self.optimizer is None:
            raise SettingsError(f"{self.method.name} returned a loss but make_optimizer returned none.")
        self.forget_gradient()
        go_back(loss, self.model, self.state.parameters)
        gradients = [p.grad for p in self.state.parameters.values() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).isfinite()

    def move(self) -> None:
        """One optimizer step along the gradient.

        Raises:
            SettingsError: where the method changes the form of its state after it.
        """
        optimizer = cast(torch.optim.Optimizer, self.optimizer)
        parameters = list(self.state.parameters.values())
        if length := self.method.lookahead:
            self._ahead = [
                torch.zeros(()) if p.grad is None else -length * scale * p.grad / (p.grad.abs() + _EPS)
                for p, scale in zip(parameters, self._scales, strict=True)
            ]
        in_shares = in_proportion(parameters, self._scales) if self.method.relative else nullcontext()
        with told_of(self.method, f"{self.method.name}: a step"), in_shares:
            if (rate := self.method.learning_rate(self.updates)) is not None:
                set_rates(optimizer.param_groups, rate, getattr(self.method, "lr", 0.0))
            optimizer.step()
        self.forget_gradient()
        self.updates += 1
        with self._contract.kept(f"{self.method.name}: after_update", self.method):
            self.method.after_update(self.model, self.state)

    def forget_gradient(self) -> None:
        """Frees the gradient of an iteration that has ended."""
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def predict(self, images: Tensor, plain: Tensor | None = None) -> Prediction:
        """The method's prediction as the network stands; `plain` is the part of it that is known already."""
        return self._predict(self.network, images, plain)

    @torch.no_grad()
    def predict_between(self, images: Tensor) -> Prediction:
        """The same of a batch that is not learnt from: one view is looked at, where the method predicts by one."""
        if SURE not in self.state.output or not (sure := self.state.output[SURE]).any():
            return self.predict(images)
        [logits] = self._look_at_some_size(self.network, images, self._looks.surest(sure, images.shape[2:])).values()
        return self._refined(images, logits.float().log_softmax(1), logits, {})

    @torch.no_grad()
    def reported(self, images: Tensor, plain: Tensor, views: Mapping[View, Tensor] | None = None) -> Prediction:
        """What the method makes of its plain prediction where no other view is known."""
        logits = plain if len(self.method.looks) == 1 else plain.float().log_softmax(1)
        return self._refined(images, logits, plain, views or {})

    @torch.no_grad()
    def remember(self, prediction: Prediction) -> None:
        """Takes up what a prediction that was reported and found good leaves behind."""
        for name, value in prediction.output.items():
            self.state.output[name].copy_(value)

    @torch.no_grad()
    def predict_plain(self, images: Tensor) -> Tensor:
        """The plain part of `predict`, B×C×H×W."""
        return self._look(self.network, images, PLAIN)

    @torch.no_grad()
    def predict_ahead(self, images: Tensor, plain: Tensor | None = None) -> Prediction:
        """The prediction one step of the method's lookahead beyond where the network stands; it stays where it is."""
        if not self._ahead:
            return self.predict(images, plain)
        parameters = list(self.state.parameters.values())
        kept = [parameter.clone() for parameter in parameters]
        for parameter, step in zip(parameters, self._ahead, strict=True):
            parameter.add_(step.to(parameter))
        try:
            return self.predict(images)
        finally:
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)

    @torch.no_grad()
    def predict_source(self, images: Tensor, plain: Tensor | None = None) -> Prediction:
        """What the method would predict had the network never adapted."""
        with self._as_source():
            return self._predict(self.model, images, plain)

    @torch.no_grad()
    def source_logits(self, images: Tensor) -> Tensor:
        """The plain part of `predict_source`, B×C×H×W."""
        with self._as_source(), self._running():
            return self._by_method(self.model, images)

    @torch.no_grad()
    def predict_unmixed(self, images: Tensor) -> Tensor:
        """Plain logits B×C×H×W of the source network under its own BatchNorm statistics: not adapted in any way."""
        with self._unmixed_source(), self._running():
            return self.model(images)

    @torch.no_grad()
    def plain_logits(self, images: Tensor) -> Tensor:
        """Logits B×C×H×W of the network as it stands, whatever the method makes of them."""
        with self._running():
            return self.model(images)

    def snapshot(self) -> Snapshot:
        """All that moves, as it is now."""
        own = {f"own.{name}": value for name, value in self._own.take().items()}
        snapshot = Snapshot.take(self.state.tensors(), self.optimizer, self.updates)
        return replace(snapshot, tensors=snapshot.tensors | own, attributes=self.attributes.take())

    def restore(self, snapshot: Snapshot) -> None:
        """All that moves as it was, bit for bit."""
        snapshot.restore(self.state, self.optimizer)
        self.restore_own_buffers(snapshot)
        self.updates = snapshot.updates
        self.forget_gradient()

    def restore_own_buffers(self, snapshot: Snapshot) -> None:
        """Buffers and plain attributes that the network moves by itself as they were."""
        self.attributes.restore(snapshot.attributes)
        with torch.no_grad():
            own = {name: value for name, value in snapshot.tensors.items() if name.startswith("own.")}
            self._own.restore({name.removeprefix("own."): value for name, value in own.items()})

    def return_part(self, snapshot: Snapshot, share: float) -> None:
        """Goes `share` of the way back to the snapshot; the optimizer goes all of it.

        Parameters, statistics and a method's own copies of parameters (a teacher) are interpolated; the rest of its
        memory stays.
        """
        kept, updates = self.snapshot().tensors, self.updates
        self.restore(snapshot)
        self.updates = updates
        copies = {f"memory.{name}" for name in self.state.parameters}
        with torch.no_grad():
            for name, tensor in self.state.tensors().items():
                between = not name.startswith("memory.") or name in copies
                if between and tensor.is_floating_point():
                    tensor.copy_(torch.lerp(kept[name], tensor, share))
                else:
                    tensor.copy_(kept[name])

    @property
    def source_digest(self) -> str:
        """SHA-256 of the source network's weights and buffers."""
        if not self._digest:
            self._digest = digest(self.source_state())
        return self._digest

    def source_state(self) -> dict[str, Tensor]:
        """The source network's weights and buffers, under the segmenter's keys; what is no tensor cannot move."""
        by_tensor, by_name = self._own.sources(), dict(self._own.source)
        for group, tensors in (("parameters", self.state.parameters), ("buffers", self.state.buffers)):
            for name, tensor in tensors.items():
                by_tensor[id(tensor)] = by_name[f"network.{name}"] = self.source.tensors[f"{group}.{name}"]
        # a module that the network has twice is told by its tensors, a copy that a hook makes by its name
        kept = self.model.state_dict(keep_vars=True).items()
        added = self._own.added()  # by passes, to a source that had none
        tensors = {name: value for name, value in kept if isinstance(value, Tensor) and name not in added}
        return {name: by_tensor.get(id(value), value.detach()) for name, value in tensors.items()} | by_name

    def optimizer_state(self, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The optimizer's state out of saved tensors.

        Raises:
            CheckpointError: where it is not one of this optimizer.
        """
        if self.optimizer is None:
            return None
        return optimizer_state(self.optimizer, tensors, self.method, self.state.parameters.values())

    def has_moved(self) -> bool:
        """Whether any update or running statistic may have changed the network since the source."""
        return self.updates > 0 or bool(self.state.buffers)

    @property
    def own_buffers(self) -> OwnBuffers:
        """The buffers that the network might move by itself."""
        return self._own

    def device(self, otherwise: torch.device = CPU) -> torch.device:
        """Where the network lies; `otherwise` for one without parameters."""
        return device_of(self.model, otherwise)

    def _predict(self, network: Segmenter, images: Tensor, plain: Tensor | None) -> Prediction:
        seen, size = ({} if plain is None else {PLAIN: plain}), images.shape[2:]
        seen |= self._look_together(network, images, [view for view in self._looks.all(size) if view not in seen])
        for view in [view for view in self._looks.all(size) if view not in seen]:
            seen |= self._look_at_some_size(network, images, view)
        look = cache(lambda view: seen[view] if view in seen else self._look(network, images, view))
        seen |= {view: where_it_fits(view, seen, look) for view in seen if view.fit}
        if len(seen) == 1:
            return self.reported(images, seen[PLAIN], seen)
        if self.method.surest:
            sure = self._looks.surer(self.state.output[SURE], seen, size)
            logits = seen[self._looks.surest(sure, size)].float().log_softmax(1)
            prediction = self._refined(images, logits, seen[PLAIN], seen)
            return replace(prediction, output={**prediction.output, SURE: sure})
        mean = mean_softmax(seen[view] for view in self._looks.all(size))
        return self._refined(images, log_of(mean, in_place=True), seen[PLAIN], seen)

    def _refined(self, images: Tensor, logits: Tensor, plain: Tensor, views: Mapping[View, Tensor]) -> Prediction:
        with self._contract.kept(f"{self.method.name}: refine", self.method, images=images, logits=logits):
            refined = self.method.refine(self.state, images, logits)
        checked_refined(refined, self.method, images, len(self.model.classes), self.state.output)
        return Prediction(refined.logits, plain, views, refined.output)

    def _look_at_some_size(self, network: Segmenter, images: Tensor, view: View) -> dict[View, Tensor]:
        """The view with its logits; without its scale where the network takes no other size and nobody asked for it."""
        try:
            return {view: self._look(network, images, view)}
        except SettingsError as error:
            own = self._looks.refuse(view, images.shape[2:], error)
        return {own: self._look(network, images, own)}

    def _look_together(self, network: Segmenter, images: Tensor, views: list[View]) -> dict[View, Tensor]:
        """The views that one batch can hold, in one pass, each under its own statistics; none where nothing is gained.

        On the CPU a batch of two takes as long as two batches of one, or longer.
        """
        same = [view for view in views if view.own is None and not view.source and view.scale == 1]
        plain_network = network is self.model and type(self.method).predict is Method.predict
        if len(same) < 2 or not plain_network or images.device.type in ONE_BY_ONE or self._of_batches:
            return {}
        with batch_in_parts(self.model, len(same)), self._running():
            parts = network(torch.cat([view.of(images) for view in same])).chunk(len(same))
        return {view: view.back(part, images.shape[2:]) for view, part in zip(same, parts, strict=True)}

    def _by_method(self, network: Segmenter, images: Tensor) -> Tensor:
        """What the method predicts by one of the two networks."""
        who = f"{self.method.name}: predict"
        with self._contract.kept(who, self.method, images=images):
            made = self.method.predict(network, self.state, images)
        return checked_logits(made, who, images, len(self.model.classes))

    def _look(self, network: Segmenter, images: Tensor, view: View) -> Tensor:
        """Logits B×C×H×W of one view of the images, on their grid."""

        def predict(images: Tensor) -> Tensor:
            return self.model(images) if view.source else self._by_method(network, images)

        with self._unmixed_source() if view.source else nullcontext(), self._running():
            if view.own is not None:
                with self._contract.kept("views: a function", view.own, images=images):
                    made = view.own(predict, images)
                return checked_logits(made, "views: a function", images, len(self.model.classes))
            seen = view.of(images)
            with size_told(seen, view.scale, "views", "views=plain,relit-mirror leaves that view out"):
                return view.back(predict(seen), images.shape[2:])

    def _as_source(self) -> AbstractContextManager[None]:
        """Inside, all that moves has the source's values."""
        return having(self.state.tensors(), self.source.tensors) if self.has_moved() else nullcontext()

    @contextmanager
    def _unmixed_source(self) -> Iterator[None]:
        """Inside, the network is the source under its own BatchNorm statistics."""
        with self._as_source(), own_statistics(self.model):
            yield

    @contextmanager
    def _running(self) -> Iterator[None]:
        with half_precision(self.device(), self.precision == "bf16"), self._passes.watched(self.device()):
            yield
