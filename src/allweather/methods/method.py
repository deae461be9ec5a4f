"""The Method contract: what may move, what to minimise, what to predict, when to stop; the rest is the Session's."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from allweather.errors import SettingsError
from allweather.methods.option import check_needs, check_ranges, spell
from allweather.methods.settings import check_types
from allweather.methods.stopping import Stopping
from allweather.methods.views import View, Views, parse_views, passes_of
from allweather.models.segmenter import Segmenter

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Batch:
    """The images under adaptation, with whatever is computed from them once and used in every iteration.

    Attributes:
        images: B×3×H×W, RGB in [0, 1]; not to be written to, the prediction is made of them too.
    """

    images: Tensor
    _computed: dict[str, Any] = field(default_factory=dict)

    def once(self, key: str, compute: Callable[[], T]) -> T:
        """`compute()` at the first call with `key`, the same object at every later one."""
        if key not in self._computed:
            self._computed[key] = compute()
        value: T = self._computed[key]
        return value


@dataclass(eq=False)
class State:
    """What a method may change, all of it restored by reset and written by save.

    Names, shapes and types stay as `begin` gave them: memory that fills is declared at its full size.

    Attributes:
        parameters: the network's parameters that the optimizer moves, by name.
        buffers: the network's buffers that a forward pass may move (running statistics), by name.
        memory: tensors of the method's own (a teacher, a bank), by name.
        output: tensors that shape the prediction beside the network (a gain per class), by name. Like parameters they
            can be averaged over sessions.
        origin: the parameters' values in the source network, for methods that pull back to it; never changed.
        generator: all that is drawn at random is drawn from it; the session puts its own here.
    """

    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    output: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, Tensor] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that may move, under names that cannot collide."""
        groups: tuple[tuple[str, Mapping[str, Tensor]], ...] = (
            ("parameters", self.parameters),
            ("buffers", self.buffers),
            ("memory", self.memory),
            ("output", self.output),
        )
        return {f"{group}.{name}": tensor for group, tensors in groups for name, tensor in tensors.items()}


@dataclass(frozen=True, eq=False)
class Objective:
    """What one forward pass says.

    Attributes:
        logits: B×C×H×W, the method's prediction of the images as it stands before an update.
        loss: a number to minimise, or None where nothing is to be learnt.
        watched: the number that early stopping follows; the loss where None.
    """

    logits: Tensor
    loss: Tensor | None = None
    watched: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Refined:
    """A prediction as it is reported.

    Attributes:
        logits: B×C×H×W.
        output: what `State.output` becomes once this prediction has been reported and found good, by name; of the shape
            and type that it has there. What is not named stays.
    """

    logits: Tensor
    output: Mapping[str, Tensor] = field(default_factory=dict)


class Method(ABC):
    """An adaptation method. Every concrete method is a frozen dataclass whose fields are its hyperparameters.

    The first six attributes belong to the class, `stopping` is a property, the others are fields.

    Attributes:
        name: name on the command line and in records.
        source: the publication.
        presets: field values by preset name. `recommended` is the defaults, `paper` what the authors published; without
            an entry a method has `recommended` alone.
        reconstruction: why preset `paper` is a reconstruction, where the authors published no such settings.
        without_batchnorm: fields of `recommended` that differ for networks without BatchNorm statistics.
        without: inherited fields that this method cannot use, each with the reason; setting one is an error.
        iterations: maximum number of updates per batch.
        stopping: when the updates of a batch end earlier.
        episodic: whether the network returns to the source after each batch.
        report_after: whether the reported prediction is made after the last update instead of before it.
        views: what a prediction is the mean over, by name or as functions; see `allweather.methods.views`.
        surest: whether a prediction is by one of the views alone, that of which the network is surest, by mean entropy,
            on the batches that it learns from; on the others no other view is looked at.
        lookahead: rate of one more step that only this batch's prediction sees; the network does not keep it.
        relative: whether steps are shares of each tensor's root mean square in the source network.
        adapt_every: learns from the first of every so many batches.
        adapt_scale: share of the images' size at which they are learnt from, above 0, at most 1.

    Raises:
        SettingsError: by the constructor, for a value of the wrong type or out of range, and for a field that could
            change nothing with the others as they are.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    reconstruction: ClassVar[str] = ""
    without_batchnorm: ClassVar[Mapping[str, Any]] = {}
    without: ClassVar[Mapping[str, str]] = {}
    iterations: int = 1
    episodic: bool = True
    report_after: bool = False
    views: Views = ("plain",)
    surest: bool = False
    lookahead: float = 0.0
    relative: bool = False
    adapt_every: int = 1
    adapt_scale: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(self, getattr(self, "name", type(self).__name__))  # a session refuses a method without
        check_needs(self)
        looks = self.looks  # refuses names that are no views
        if self.surest and (len(looks) == 1 or any(view.fit for view in looks)):
            raise SettingsError(
                f"{self.name}.surest=true chooses among several views, none of which gives way by itself (-fit); got "
                f"views={spell(self.views)}. Name others, such as plain,grey-x1.2, or set surest=false."
            )

    @cached_property
    def looks(self) -> tuple[View, ...]:
        """The views that a prediction is the mean over, or one of; `plain` is among them."""
        return parse_views(self.views)

    @property
    def passes(self) -> float:
        """What a prediction costs, in forward passes over the images as they are; by one view at the most."""
        return max(view.passes for view in self.looks) if self.surest else passes_of(self.looks)

    @property
    def stopping(self) -> Stopping:
        """When the updates of a batch end before `iterations`."""
        return Stopping()

    @property
    def predicts_as_it_adapts(self) -> bool:
        """Whether `objective`'s logits are what `predict` would give: not under train-mode BatchNorm, nor resized."""
        return getattr(self, "bn", None) != "train"

    @abstractmethod
    def begin(self, model: Segmenter) -> State:
        """Prepares the session's own copy of the network, `model`, and says what may move.

        Raises:
            AllWeatherError: when the network has nothing that this method could move: SettingsError where another
                setting would mend it, NetworkError where none would.
        """

    @abstractmethod
    def objective(self, model: Segmenter, state: State, batch: Batch) -> Objective:
        """One forward pass over a batch: the prediction so far, and the loss.

        Args:
            model: the session's own copy of the network.
            state: what may move, as `begin` gave it.
            batch: the images, B×3×H×W in [0, 1], and what was computed from them.
        """

    def predict(self, model: Segmenter, state: State, images: Tensor) -> Tensor:
        """The method's prediction: logits B×C×H×W of images B×3×H×W in [0, 1]. Nothing moves.

        The session uses it for every prediction that it reports, compares or mirrors. Without an update in between it
        equals `objective`'s logits of the same images.

        Args:
            model: the session's own copy of the network.
            state: what may move, as `begin` gave it.
            images: B×3×H×W, RGB in [0, 1].
        """
        return model(images)

    def refine(self, state: State, images: Tensor, logits: Tensor) -> "Refined":
        """What is made of a prediction before it is reported. Nothing moves.

        The guard judges the plain view as it was before.

        Args:
            state: what has moved.
            images: B×3×H×W, RGB in [0, 1].
            logits: B×C×H×W: of the plain view, or ln of the mean over the method's views where it has several.
        """
        return Refined(logits)

    def deployed(self, state: State) -> Mapping[str, Tensor]:
        """The parameters with which the network alone predicts as this method does, by name within the network.

        Exports write them. A method that predicts with other parameters than the moved ones (a teacher) gives those.

        Args:
            state: what has moved.

        Raises:
            SettingsError: where the prediction is more than the network's.
        """
        if type(self).predict is not Method.predict:
            raise SettingsError(
                f"{self.name} predicts with more than its network, and a file of the network would predict otherwise. "
                "Export what moves the network alone, such as mall-domain, tent with episodic=false, or norm."
            )
        return state.parameters

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer | None:
        """The optimizer of the moved parameters, or None for a method without updates."""
        return None

    def learning_rate(self, update: int) -> float | None:
        """The learning rate of update number `update` since the last reset; None leaves the optimizer's.

        Groups of parameters that `make_optimizer` gives different rates keep those, times this over the field `lr`.
        """
        return None

    def after_update(self, model: Segmenter, state: State) -> None:
        """Runs after each optimizer step on `model` and `state`: moving averages, restores."""
