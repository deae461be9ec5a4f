"""Sessions on networks of other forms: half precision, kept outputs, norm layers of a class of their own."""

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLASSES, COPIES, TinyNetwork, frames, moved_names, tiny
from torch import Tensor, nn

from allweather import Segmenter, Session, apply_delta, load_model, methods
from allweather.data.scenes import render
from allweather.errors import NetworkError
from allweather.methods.moments import Seen
from allweather.methods.parameters import with_parameters
from allweather.models.deep_copy import deep_copy
from allweather.session.attributes import OwnAttributes


class OwnNorm(nn.Module):
    """A BatchNorm as detection libraries freeze it: four buffers and no parameter."""

    def __init__(self, channels: int):
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.1), ("running_mean", 0.2), ("running_var", 0.5)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


def frozen() -> Segmenter:
    torch.manual_seed(3)
    return Segmenter.wrap(TinyNetwork(OwnNorm).eval(), classes=CLASSES, name="tiny-frozen")


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_any_precision_adapts_in_float32_and_stays_as_it_was(precision: torch.dtype):
    model = tiny().to(precision)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    session = Session(model, methods.Tent(lr=0.1))
    results = [session(image) for image in frames(2)]
    assert {value.dtype for value in session.model.parameters()} == {torch.float32}
    assert all(result.logits.dtype == torch.float32 and result.iterations for result in results)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Mixed(TinyNetwork):
    """Has a head in half precision, and casts for it."""

    def __init__(self, kind: torch.dtype | None):
        super().__init__(nn.BatchNorm2d)
        self.head.half()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).to(self.kind or self.head[0].weight.dtype))


@pytest.mark.parametrize("method", ["source", "tent", "mall-domain"])
def test_a_network_with_casts_of_its_own_is_told_how_to_write_them(method: str):
    session = Session(Segmenter.wrap(Mixed(torch.float16).eval(), classes=CLASSES), method)
    with pytest.raises(NetworkError, match=r"not run in float32 \(.*came as float16 and float32, .*half"):
        session(frames(1)[0])
    assert Session(Segmenter.wrap(Mixed(None).eval(), classes=CLASSES), method)(frames(1)[0]).logits.isfinite().all()


class Dropping(TinyNetwork):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5)


@pytest.mark.parametrize("method", ["source", "tent"])
def test_a_network_that_draws_random_numbers_is_told_of_once(method: str):
    session = Session(Segmenter.wrap(Dropping(nn.BatchNorm2d).eval(), classes=CLASSES), method)
    with pytest.warns(UserWarning, match="random numbers of the process were drawn.*training=self.training") as said:
        session(frames(1)[0])
    assert len(said) == 1
    session.predict(frames(1)[0])


def test_a_network_that_keeps_its_last_output_is_copied():
    model = tiny()
    model.network.register_forward_hook(lambda module, images, output: setattr(module, "last", output))
    model(frames(1))
    assert model.network.last.grad_fn is not None
    assert Session(model, methods.Tent(lr=0.1))(frames(1)).iterations == 1


@pytest.mark.parametrize("copied", COPIES)
def test_frozen_norms_of_another_class_move_and_go_on_in_a_copy(copied: Callable[[Session], Session]):
    model, images = frozen(), frames(4)
    session = Session(model, methods.Tent(lr=0.05, bn="running", episodic=False), guard=False)
    for image in images[:2]:
        session(image)
    assert {"stem.1.weight", "head.1.bias", "stem.1.running_mean"} <= moved_names(session, model)
    other = copied(session)
    assert all(torch.equal(session(image).logits, other(image).logits) for image in images[2:])
    other.reset()
    session.reset()
    assert torch.equal(session(images[0]).logits, other(images[0]).logits)


def traced(network: nn.Module) -> nn.Module:
    return torch.fx.symbolic_trace(network)


def extracted(network: nn.Module) -> nn.Module:
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    return extraction.create_feature_extractor(network, {"head": "out"})


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("form", [traced, extracted])
def test_a_copied_session_of_a_graph_stays_in_evaluation(
    form: Callable[[nn.Module], nn.Module], copied: Callable[[Session], Session]
):
    dropping = nn.Sequential(tiny().network, nn.Dropout(0.5))
    network = form(TinyNetwork(nn.BatchNorm2d).eval() if form is extracted else dropping.eval())
    session = Session(Segmenter.wrap(network.eval(), classes=CLASSES), "source")
    other = copied(session)
    assert not any(module.training for module in other.model.modules())
    assert all(torch.equal(session(image).logits, other(image).logits) for image in frames(2))
    assert moved_names(other, session.model) == set()


class Remembering(TinyNetwork):
    """Mixes each output with what it remembers of those before."""

    def __init__(self):
        super().__init__(nn.BatchNorm2d)
        self.start()

    def start(self):
        pass

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        before = self.remembered()
        self.remember((y if before is None else (y + before) / 2).detach())
        return y if before is None else y + before

    def remembered(self) -> Tensor | None:
        return getattr(self, "memory", None)

    def remember(self, y: Tensor):
        self.memory = y


class Registering(Remembering):
    def remember(self, y: Tensor):
        if hasattr(self, "memory"):
            self.memory = y
        else:
            self.register_buffer("memory", y)


class Empty(Remembering):
    def start(self):
        self.register_buffer("memory", None)


class Replacing(Remembering):
    def start(self):
        self.memory: Tensor | None = None


class InPlace(Remembering):
    def remember(self, y: Tensor):
        self.memory = y if self.remembered() is None else self.memory.copy_(y)


class Listing(Remembering):
    def start(self):
        self.outputs: list[Tensor] = []

    def remembered(self) -> Tensor | None:
        return self.outputs[-1] if self.outputs else None

    def remember(self, y: Tensor):
        self.outputs.append(y)


class Mapping(Remembering):
    def start(self):
        self.outputs: dict[str, tuple[Tensor, ...]] = {}

    def remembered(self) -> Tensor | None:
        return self.outputs["last"][0] if self.outputs else None

    def remember(self, y: Tensor):
        self.outputs["last"] = (y,)


class Calling(Remembering):
    def start(self):
        self.remembered = lambda: None

    def remember(self, y: Tensor):
        self.remembered = lambda: y


BUFFERS = (Registering, Empty)
ATTRIBUTES = (Remembering, Replacing, InPlace, Listing, Mapping, Calling)


def remembering(kind: type[Remembering]) -> Session:
    return Session(Segmenter.wrap(_source(kind), classes=CLASSES), methods.Tent(episodic=False), guard=False)


@pytest.mark.parametrize("kind", [*BUFFERS, *ATTRIBUTES])
def test_what_a_network_remembers_goes_back_with_it(kind: type[Remembering]):
    session, images = remembering(kind), frames(4)
    first = session.predict(images[0])
    assert torch.equal(session.predict(images[0]), first)
    session(images[1])
    second = session.predict(images[0])
    assert not torch.equal(second, first)
    twin = copy.deepcopy(session)
    assert torch.equal(session.predict(images[0]), second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session._adapted, "move", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session(images[2])
    assert torch.equal(session.predict(images[0]), second)
    assert torch.equal(session(images[2]).logits, twin(images[2]).logits)
    session.reset()
    assert torch.equal(session.predict(images[0]), first)


def _replaced(layer: nn.Module):
    layer.kept = (layer.kept or 0) + 1


KEPT: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "number": (0, _replaced),
    "flag": (False, _replaced),
    "absent": (None, _replaced),
    "array": (np.zeros(2), lambda layer: np.add(layer.kept, 1, out=layer.kept)),
    "deque": (deque([0], 2), lambda layer: layer.kept.append(layer.kept[-1] + 1)),
    "ordered": (OrderedDict(a=torch.zeros(1)), lambda layer: layer.kept["a"].add_(1)),
    "default": (defaultdict(list), lambda layer: layer.kept["a"].append(1)),
    "nested": ([OrderedDict()], lambda layer: layer.kept[0].update(a=len(layer.kept), b=layer.kept[0].get("a"))),
    "dataclass": (Seen(torch.zeros(1), torch.zeros(1), 0), lambda layer: layer.kept.mean.add_(1)),
    "slice": ((slice(0), [0]), lambda layer: layer.kept[1].append(1)),
}


@pytest.mark.parametrize("form", KEPT)
def test_what_hooks_keep_on_a_layer_goes_back_in_whatever_form(form: str):
    layer, (began, change) = nn.ReLU(), KEPT[form]
    layer.kept = copy.deepcopy(began)
    attributes = OwnAttributes(layer)
    assert not attributes.take()
    change(layer)
    then, once = attributes.take(), repr(layer.kept)
    change(layer)
    attributes.restore(then)
    assert repr(layer.kept) == once
    attributes.restore({})
    assert repr(layer.kept) == repr(began)


class Frozen(dict):
    def __setitem__(self, *_: object):
        raise KeyError

    def __deepcopy__(self, _: object) -> "Frozen":
        return Frozen(self)


def test_parameters_in_lists_flags_of_hooks_and_what_a_copy_makes_anew_do_not_move():
    layer = nn.LSTM(2, 2)
    layer.frozen, layer.made = Frozen(a=[]), [(lambda forward: lambda x: forward(x))(layer.forward)]
    attributes = deep_copy(OwnAttributes(layer), {})
    attributes.begin()
    (layer,) = attributes._modules
    layer.hooks_installed = True
    nn.init.zeros_(layer.weight_hh_l0)
    assert not attributes.take()


def test_a_method_that_torchscript_sets_at_a_call_is_not_warned_of():
    attributes = OwnAttributes(layer := torch.jit.script(nn.ReLU()))
    layer(torch.ones(1))
    attributes.warn_unsaved()
    attributes.restore({})
    attributes.warn_unsaved()


@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_that_a_pass_registers_are_saved_and_are_none_of_the_networks(kind: type[Remembering], tmp_path: Path):
    session, images = remembering(kind), frames(3)
    names = set(session.model.network.state_dict())
    digest = session._adapted.source_digest
    session(images[0])
    session(images[1])
    session.save(tmp_path / "a.session")
    other = remembering(kind)
    other.load(tmp_path / "a.session")
    assert torch.equal(other.predict(images[2]), session.predict(images[2]))
    assert torch.equal(other(images[2]).logits, session(images[2]).logits)
    session._adapted._digest = ""
    assert session._adapted.source_digest == digest
    assert set(session.network().state_dict()) == names
    session.export(tmp_path / "a.delta.safetensors")
    apply_delta(_source(kind), tmp_path / "a.delta.safetensors")


@pytest.mark.parametrize(("kind", "name"), [(Remembering, "memory"), (Listing, "outputs"), (Calling, "remembered")])
def test_what_a_saved_session_lacks_is_warned_of(kind: type[Remembering], name: str, tmp_path: Path):
    session = remembering(kind)
    session.save(tmp_path / "a.session")
    session(frames(1)[0])
    with pytest.warns(UserWarning, match=f"keeps {name} from frame to frame, not in buffers.*register_buffer"):
        session.save(tmp_path / "a.session")


def _source(kind: type[Remembering]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


class Layers(nn.Module):
    """A stem and a head in a list; `again` gives the stem a second name."""

    def __init__(self, again: bool):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.layers = nn.ModuleList([stem, nn.Conv2d(8, 3, 1)])
        if again:
            self.again = stem

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def layers(again: bool) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter.wrap(Layers(again).eval(), classes=CLASSES, name="layers")


@pytest.mark.parametrize("method", sorted(methods.METHODS))
def test_a_second_name_of_a_module_changes_nothing(method: str):
    one, two = (Session(layers(again), method, guard=False) for again in (False, True))
    for image in frames(6):
        assert torch.equal(one(image).logits, two(image).logits)
    own = dict(two.model.network.named_parameters())
    assert all(own[name] is parameter for name, parameter in two.state.parameters.items())


def test_values_stand_in_for_a_parameter_wherever_it_is():
    model, image = tiny(), frames(1)
    model.network.head[1].weight = model.network.stem[1].weight
    name, shared = next((n, p) for n, p in model.network.named_parameters() if p is model.network.stem[1].weight)
    value = shared.detach() * 2
    found = with_parameters(model, {name: value}, image)
    assert model.network.head[1].weight is model.network.stem[1].weight is shared
    with torch.no_grad():
        shared.copy_(value)
    assert torch.equal(found, model(image))


def test_pixels_give_the_same_bits_in_whatever_layout_they_lie():
    model, image = load_model("demo:streetnet"), render(1, "fog", (128, 64)).image()
    first, last = (Session(model, methods.MallDomain()) for _ in range(2))
    for _ in range(2):
        pixels = image.movedim(0, -1).contiguous().numpy()
        assert torch.equal(first(image).logits, last(pixels).logits)
