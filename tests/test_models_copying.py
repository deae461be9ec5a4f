"""A session's copy of a network: every form a network comes in adapts, or is refused in one line; its owner's stays."""

import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from refusals import refusal
from tiny import seeded
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.testing._internal.two_tensor import TwoTensor

from allweather import Segmenter, methods
from allweather.methods.normalization import adopt_statistics, has_statistics, moving_statistics
from allweather.methods.parameters import select_parameters, with_parameters
from allweather.models.copying import independent_copy
from allweather.models.norm_layers import count_norms, is_norm_layer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
IMAGES = torch.rand(2, 3, 8, 8, generator=seeded())


def copy_of(network: nn.Module) -> Segmenter:
    """A session's own copy of a caller's network."""
    return independent_copy(Segmenter.wrap(network))


class Frozen(nn.Module):
    """As torchvision's, detectron2's and DETR's: four buffers."""

    def __init__(self, channels: int):
        super().__init__()
        self.eps = 1e-3
        for name, value in (("weight", 1.5), ("bias", 0.2), ("running_mean", 0.3), ("running_var", 2.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


class Activated(nn.Module):
    """A BatchNorm of a class of its own, with parameters and an activation."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        normalised = functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training
        )
        return functional.leaky_relu(normalised, 0.01)


class LayerNorm(nn.Module):
    """As ConvNeXt's authors write it: over the channels, channels first."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        normed = functional.layer_norm(x.movedim(1, 3), self.weight.shape, self.weight, self.bias, 1e-6)
        return normed.movedim(3, 1)


class Tiny(nn.Module):
    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, padding=1), norm(4), nn.Conv2d(4, 19, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))))


class Keeper(Tiny):
    """Keeps what it computed last, graph and all, in an attribute, a list and a buffer."""

    def __init__(self):
        super().__init__()
        self.kept: list[Tensor] = []
        self.register_buffer("last", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.conv(x)
        self.last = self.features.mean()
        self.kept = [self.features * 2]
        return self.head(torch.relu(self.norm(self.features)))


class Scaled(Tiny):
    """Has a tensor that is neither parameter nor buffer, and an integer buffer."""

    def __init__(self):
        super().__init__()
        self.kernel = torch.full((4, 1, 1, 1), 0.5)
        self.register_buffer("count", torch.tensor(2**40 + 1))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(self.conv(x), self.kernel, groups=4)
        return self.head(torch.relu(self.norm(x)))


def of_precision(dtype: torch.dtype) -> nn.Module:
    network = Scaled().to(dtype)
    network.kernel = network.kernel.to(dtype)
    return network


def after_a_call(network: nn.Module) -> nn.Module:
    network(IMAGES)
    return network


def with_conv(wrapper: Callable[[nn.Module], nn.Module]) -> nn.Module:
    network = Tiny()
    network.conv = wrapper(network.conv)  # type: ignore[assignment]
    return after_a_call(network.train()) if wrapper is weight_norm else network


def under_inference_mode() -> nn.Module:
    with torch.inference_mode():
        network = Scaled()
        network.shared = network.head.weight
        return network


def scripted_under_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return torch.jit.script(Tiny().eval())


def torchvisions_frozen(channels: int) -> nn.Module:
    return pytest.importorskip("torchvision").ops.FrozenBatchNorm2d(channels)


FORMS: dict[str, Callable[[], nn.Module]] = {
    "ordinary": Tiny,
    "float16": lambda: of_precision(torch.float16),
    "bfloat16": lambda: of_precision(torch.bfloat16),
    "float64": lambda: of_precision(torch.float64),
    "half, norms left alone": lambda: nn.Sequential(nn.Conv2d(3, 19, 1).half(), nn.BatchNorm2d(19)),
    "inference mode": under_inference_mode,
    "scripted": lambda: torch.jit.script(Tiny().eval()),
    "scripted under inference mode": scripted_under_inference_mode,
    "traced": lambda: torch.jit.trace(Tiny().eval(), IMAGES),
    "traced in float64": lambda: torch.jit.trace(Tiny().eval().double(), IMAGES.double()),
    "weight_norm": lambda: with_conv(parametrizations.weight_norm),
    "spectral_norm": lambda: with_conv(parametrizations.spectral_norm),
    "weight_norm by hooks": lambda: with_conv(weight_norm),
    "spectral_norm by hooks": lambda: with_conv(spectral_norm),
    "keeps its last output": lambda: after_a_call(Keeper()),
    "compiled": lambda: torch.compile(Tiny(), backend="eager"),
    "data parallel": lambda: nn.DataParallel(torch.compile(Tiny(), backend="eager")),
    "symbolically traced": lambda: torch.fx.symbolic_trace(Tiny()),
    "frozen BatchNorm": lambda: Tiny(Frozen),
    "torchvision's frozen BatchNorm": lambda: Tiny(torchvisions_frozen),
    "BatchNorm of its own": lambda: Tiny(Activated),
    "LayerNorm of its own": lambda: Tiny(LayerNorm),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_network_is_copied_and_adapts(form: str):
    """Norm layers are found and move in the copy, which predicts what the caller's network does; that one stays."""
    theirs = Segmenter.wrap(FORMS[form]().eval())
    before = {key: value.detach().clone() for key, value in theirs.state_dict().items()}
    copy = independent_copy(theirs)
    assert not copy.training
    assert not any(p.requires_grad or p.is_inference() or p.grad is not None for p in copy.parameters())
    floats = [tensor for tensor in copy.state_dict().values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float32}
    source = copy(IMAGES)
    close = 0.05 if "float" in form or "half" in form else 1e-5
    with torch.no_grad():
        torch.testing.assert_close(source, theirs(IMAGES), atol=close, rtol=0)
    moved = select_parameters(copy, "norm-affine", "tent")
    adopt_statistics(copy, "mixed", 0.5)
    loss = copy(IMAGES).square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in moved.values())
    torch.optim.SGD(list(moved.values()), 0.1).step()
    assert not torch.equal(copy(IMAGES), source)
    torch.testing.assert_close(with_parameters(copy, dict(moved), IMAGES), copy(IMAGES))
    after = theirs.state_dict()
    assert all(torch.equal(value, after[key]) and value.dtype == after[key].dtype for key, value in before.items())
    twice = independent_copy(copy)
    torch.testing.assert_close(twice(IMAGES), copy(IMAGES))


def test_integers_and_what_is_kept_are_copied_as_values():
    copy = copy_of(of_precision(torch.float16)).network
    assert (copy.count.dtype, int(copy.count)) == (torch.int64, 2**40 + 1)
    assert copy.kernel.dtype == torch.float32
    theirs = after_a_call(Keeper())
    kept = copy_of(theirs).network
    for one, other in ((kept.features, theirs.features), (kept.kept[0], theirs.kept[0]), (kept.last, theirs.last)):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()
        assert not one.requires_grad
        assert other.grad_fn is not None


def test_a_float32_network_keeps_a_finer_buffer():
    network = Tiny()
    network.register_buffer("grid", torch.ones(2, dtype=torch.float64))
    assert copy_of(network).network.grid.dtype == torch.float64


def test_a_tensor_without_memory_of_its_own_is_no_shared_one():
    network = nn.Conv2d(3, 19, 1)
    network.register_buffer("two", TwoTensor(torch.ones(1), torch.ones(1)))
    assert copy_of(network).network.two is not network.two


def test_shared_parameters_stay_shared():
    network = under_inference_mode()
    copy = copy_of(network).network
    assert copy.shared is copy.head.weight


@pytest.mark.parametrize("mode", ["mixed", "batch", "running", "train"])
@pytest.mark.parametrize("norm", [Frozen, Activated, torchvisions_frozen])
def test_statistics_of_another_class_of_batchnorm_can_be_replaced(norm: Any, mode: Any):
    """The layer computes what PyTorch's BatchNorm does, in every mode, and the running statistics move alike."""
    layer = norm(4)
    copy = copy_of(Tiny(lambda _: layer))
    eps = 1e-3 if norm is Frozen else 1e-5
    twin = nn.BatchNorm2d(4, eps=eps)
    twin.load_state_dict({**layer.state_dict(), "num_batches_tracked": torch.tensor(0)})
    reference = copy_of(Tiny(lambda _: twin))
    features = torch.randn(2, 4, 8, 8, generator=seeded(1)) * 3 + 1
    results = []
    for model in (copy, reference):
        assert has_statistics(model)
        moved = adopt_statistics(model, mode, 0.3)
        assert ("norm.running_mean" in moved) == (mode in ("running", "train"))
        with moving_statistics(model):
            first = model.network.norm(features)
        results.append([first, model.network.norm(features), model.network.norm.running_mean])
    activated = functional.leaky_relu if norm is Activated else torch.clone
    torch.testing.assert_close(results[0], [*map(activated, results[1][:2]), results[1][2]], atol=1e-5, rtol=1e-4)
    assert torch.equal(layer.running_mean, norm(4).running_mean)


@pytest.mark.parametrize("norm", [Frozen, Activated, torchvisions_frozen])
def test_networks_with_another_class_of_batchnorm_have_the_settings_of_batchnorm(norm: Any):
    assert methods.make("mall-domain", model=Segmenter.wrap(Tiny(norm))) == methods.make("mall-domain")


@pytest.mark.parametrize("mode", ["batch", "train"])
@pytest.mark.parametrize("norm", [Frozen, Activated])
def test_gradients_flow_through_the_batchs_statistics_of_another_class(norm: Any, mode: Any):
    twins = [Tiny(norm), Tiny()]
    twins[1].norm.load_state_dict({**twins[0].norm.state_dict(), "num_batches_tracked": torch.tensor(0)})
    twins[1].norm.eps = 1e-3 if norm is Frozen else 1e-5
    twins[1].norm.register_forward_hook(lambda _, __, x: functional.leaky_relu(x, 0.01) if norm is Activated else x)
    gradients = []
    for network in twins:
        copy = copy_of(network)
        select_parameters(copy, "conv.*", "tent")
        adopt_statistics(copy, mode, None)
        with moving_statistics(copy):
            copy(IMAGES).square().mean().backward()
        gradients.append(copy.network.conv.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("form", ["compiled", "data parallel"])
def test_wrappers_are_taken_off(form: str):
    copy = copy_of(FORMS[form]())
    assert type(copy.network) is Tiny
    assert copy.network.state_dict().keys() == Tiny().state_dict().keys()


def test_hooks_go_along_with_the_module_they_belong_to():
    class Hooked(Tiny):
        def __init__(self):
            super().__init__()
            self.calls = 0
            self.conv.register_forward_hook(self.count)

        def count(self, *_: Any):
            self.calls += 1

    network, seen = Hooked(), []
    network.head.register_forward_hook(lambda module, *_: seen.append(module))
    network.conv.weight.register_hook(lambda grad: grad * float("nan"))
    copy = copy_of(network)
    select_parameters(copy, "all", "tent")
    copy(IMAGES).sum().backward()
    assert (network.calls, copy.network.calls) == (0, 1)
    assert seen == [copy.network.head]
    assert copy.network.conv.weight.grad.isfinite().all()


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(19, 1))


class Locked(Tiny):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Itself(nn.Conv2d):
    def __deepcopy__(self, memo: Any) -> "Itself":
        return self


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nn.Sequential(Itself(3, 19, 1)),
            r"gives network\.0 itself, no copy\. Remove .* of Itself",
        ),
        (lazy, r"0\.weight has no shape yet. Call the network once"),
        (lambda: nn.Conv2d(3, 19, 1, device="meta"), r"weight has no values \(meta device\)"),
        (Locked, r"Locked: a session adapts a copy.*cannot pickle '_thread.lock' object.*locks, open files"),
    ],
)
def test_what_cannot_be_copied_is_named(make: Callable[[], nn.Module], message: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Segmenter.wrap(make())
    with refusal(message):
        independent_copy(model)


class Overflown(nn.Module):
    """A network whose running variance is beyond float16, and a mask that is infinite by design."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 19, 1), nn.BatchNorm2d(19)
        self.norm.running_var.fill_(1e5)
        self.register_buffer("mask", torch.full((4,), -torch.inf))

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.conv(image))


def test_weights_that_are_not_finite_are_named_and_masks_are_not():
    whole = copy_of(Overflown().eval())
    assert whole(IMAGES).isfinite().all()
    with refusal(r"norm\.running_var holds NaN or infinite.*float16 was too small"):
        copy_of(Overflown().eval().half())
    assert copy_of(Overflown().eval().bfloat16())(IMAGES).isfinite().all()
    network = Overflown().eval()
    with torch.no_grad():
        network.conv.weight[3, 1] = torch.nan
    with refusal(r"conv\.weight holds NaN or infinite values.*damaged\.$"):
        copy_of(network)


def test_a_frozen_script_has_nothing_to_move():
    copy = copy_of(torch.jit.freeze(torch.jit.script(Tiny().eval())))
    for which in ("all", "norm-affine"):
        with refusal("tent"):
            select_parameters(copy, which, "tent")


class ScaleNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(torch.ones(()))


class BiasFree_LayerNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, 4, 1, 1))


class NormedLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))


class Normalize(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.std = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))


class PreNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.attention = nn.Parameter(torch.ones(4)), nn.Linear(4, 4)


class LayerScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(4))


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        (LayerNorm(4), True),
        (type("ChannelsFirst", (LayerNorm,), {})(4), True),
        (ScaleNorm(), True),
        (BiasFree_LayerNorm(), True),
        (Frozen(4), True),
        (Activated(4), True),
        (nn.RMSNorm(4), True),
        (torch.jit.script(nn.GroupNorm(2, 4)), True),
        (torch.jit.script(nn.Conv2d(4, 4, 1)), False),
        (NormedLinear(), False),
        (Normalize(), False),
        (PreNorm(), False),
        (LayerScale(), False),
        (weight_norm(nn.Conv2d(1, 1, 1)), False),
        (parametrizations.weight_norm(nn.Conv2d(1, 1, 1)), False),
        (nn.BatchNorm2d(4, affine=False), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_norm_layers_are_told_by_their_form(module: nn.Module, counts: bool):
    assert is_norm_layer(module) == counts


def test_norm_layers_are_counted_by_their_own_names():
    network = nn.Sequential(Tiny(), Tiny(LayerNorm), torch.jit.script(Tiny().eval()))
    assert count_norms(network) == {"BatchNorm2d": 2, "LayerNorm": 1}


@pytest.mark.slow
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_the_norms_of_convnext_are_found(library: str):
    module = pytest.importorskip(library)
    with torch.device("meta"):
        network = module.create_model("convnext_atto") if library == "timm" else module.models.convnext_tiny()
    found = {type(part).__name__ for part in network.modules() if is_norm_layer(part)}
    assert "LayerNorm2d" in found
    named = {type(part).__name__ for part in network.modules() if re.search(r"Norm(2d)?$", type(part).__name__)}
    assert named == found
