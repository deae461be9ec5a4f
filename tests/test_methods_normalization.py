"""BatchNorm modes against plain torch: each mode's statistics, its gradient, and layers that keep the source's."""

import pytest
import torch
from tiny import CLASSES, frames, tiny
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from allweather import methods
from allweather.errors import NetworkError
from allweather.methods.moments import moments
from allweather.methods.normalization import BNMode, adopt_statistics, moving_statistics
from allweather.models.segmenter import Segmenter
from allweather.session import Session


def layer_and_input() -> tuple[nn.BatchNorm2d, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(4)
    with torch.no_grad():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
        layer.weight.normal_()
        layer.bias.normal_()
    return layer.eval(), torch.randn(2, 4, 5, 6)


def adopted(layer: nn.BatchNorm2d, mode: BNMode, share: float) -> Segmenter:
    model = Segmenter.wrap(nn.Sequential(layer))
    adopt_statistics(model, mode, share)
    return model


def expected(layer: nn.BatchNorm2d, x: torch.Tensor, share: float) -> torch.Tensor:
    mean = (1 - share) * layer.running_mean + share * x.mean((0, 2, 3))
    var = (1 - share) * layer.running_var + share * x.var((0, 2, 3), correction=0)
    return functional.batch_norm(x, mean, var, layer.weight, layer.bias, eps=layer.eps)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_mixed_statistics_are_the_weighted_mean(share: float):
    layer, x = layer_and_input()
    target = expected(layer, x, share)
    kept = layer.running_mean.clone()
    output = adopted(layer, "mixed", share).network(x)
    torch.testing.assert_close(output, target)
    assert torch.equal(layer.running_mean, kept), "mixing must not move the running statistics"


def test_a_share_of_one_is_train_mode_with_its_gradient():
    layer, x = layer_and_input()
    x.requires_grad_()
    functional.batch_norm(x, None, None, layer.weight, layer.bias, training=True).square().sum().backward()
    target, x.grad = x.grad.clone(), None
    adopted(layer, "mixed", 1.0).network(x).square().sum().backward()
    torch.testing.assert_close(x.grad, target)


def test_running_statistics_move_only_while_adapting():
    layer, x = layer_and_input()
    model, target = adopted(layer, "running", 0.2), expected(layer, x, 0.2)
    kept = layer.running_mean.clone()
    model.network(x)
    assert torch.equal(layer.running_mean, kept)
    with moving_statistics(model):
        torch.testing.assert_close(model.network(x), target)
    torch.testing.assert_close(layer.running_mean, 0.8 * kept + 0.2 * x.mean((0, 2, 3)))


def test_calls_of_one_pass_give_their_share_together():
    layer, x = layer_and_input()
    model, kept = adopted(layer, "running", 0.2), layer.running_var.clone()
    parts = x, 3 * x[:1, :, :2] + 1
    targets = [expected(layer, part, 0.2) for part in parts]
    with moving_statistics(model):
        for part, target in zip(parts, targets, strict=True):
            torch.testing.assert_close(model.network(part), target)
    values = torch.cat([part.movedim(1, 0).flatten(1) for part in parts], 1)
    torch.testing.assert_close(layer.running_var, 0.8 * kept + 0.2 * values.var(1, correction=0))


def test_train_mode_is_torchs_own():
    layer, x = layer_and_input()
    twin = nn.BatchNorm2d(4)
    twin.load_state_dict(layer.state_dict())
    model = adopted(layer, "train", 0.1)
    with moving_statistics(model):
        torch.testing.assert_close(model.network(x), twin.train()(x))
    torch.testing.assert_close(model.network(x), twin.eval()(x))
    assert not layer.training


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("mode", ["mixed", "batch", "running", "train"])
@pytest.mark.parametrize("name", ["tent", "rotta", "sar", "self-adaptive"])
def test_a_checkpoint_computes_the_same_again(name: str, mode: BNMode, reentrant: bool):
    class Net(nn.Module):
        def __init__(self, checkpointed: bool):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.norm, self.checkpointed = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), checkpointed

        def twice(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.norm(x).relu())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            again = self.checkpointed and x.requires_grad
            return checkpoint(self.twice, x, use_reentrant=reentrant) if again else self.twice(x)

    own = {"rotta": {"every": 1}, "sar": {"margin": 1.0, "radius": 1.0}}
    fields = {"bn": mode, "lr": 1.0, "optimizer": "sgd", "parameters": "all", "episodic": False} | own.get(name, {})
    sessions = [
        Session(Segmenter.wrap(Net(checkpointed), classes=CLASSES), methods.make(name, settings=fields), guard=False)
        for checkpointed in (True, False)
    ]
    for frame in frames(2):
        found, target = (session(frame) for session in sessions)
        torch.testing.assert_close(found.logits, target.logits)
    assert found.iterations == 1


@pytest.mark.parametrize("mode", ["mixed", "batch", "running", "train"])
def test_one_value_per_channel_keeps_the_sources_statistics(mode: BNMode):
    layer, _ = layer_and_input()
    x = torch.randn(1, 4, 1, 1)
    target = layer(x)
    model = adopted(layer, mode, 0.5)
    with moving_statistics(model):
        assert torch.equal(model.network(x), target)


def test_a_subclass_keeps_its_own_forward():
    class BatchNormRelu(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).relu()

    layer, x = layer_and_input()
    fused = BatchNormRelu(4)
    fused.load_state_dict(layer.state_dict())
    target = expected(layer, x, 0.3).relu()
    torch.testing.assert_close(adopted(fused.eval(), "mixed", 0.3).network(x), target)


class Conditional(nn.BatchNorm2d):
    """More than the input, under another name, and something before it."""

    def forward(self, x: torch.Tensor, domain: int = 0, scale: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x.relu()) * (1 + domain)


class ByItself(nn.BatchNorm2d):
    """Does not come to PyTorch's forward, and takes more than the input."""

    def forward(self, x: torch.Tensor, domain: int = 0, scale: torch.Tensor | None = None) -> torch.Tensor:
        return (1 + domain) * functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.running_mean is None, 0.0, self.eps
        )


class InHalfOfTheCases(ByItself):
    """Names super() and comes elsewhere."""

    def forward(self, x: torch.Tensor, domain: int = 0, scale: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x, domain)


class Tokens(nn.BatchNorm1d):
    """Channels last."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


class TokensByItself(nn.BatchNorm1d):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        moved, running = tokens.transpose(1, 2), (self.running_mean, self.running_var)
        return functional.batch_norm(moved, *running, self.weight, self.bias).transpose(1, 2)


def of_class(kind: type[torch.nn.modules.batchnorm._BatchNorm], mode: BNMode, share: float = 0.3) -> nn.Module:
    layer = kind(4)
    layer.load_state_dict(layer_and_input()[0].state_dict())
    return adopted(layer.eval(), mode, share).network[0]


@pytest.mark.parametrize("mode", ["source", "mixed", "batch"])
@pytest.mark.parametrize("kind", [Conditional, ByItself, InHalfOfTheCases])
def test_a_subclass_takes_what_its_forward_takes(kind: type[nn.BatchNorm2d], mode: BNMode):
    plain, x = layer_and_input()
    share = {"source": 0.0, "mixed": 0.3, "batch": 1.0}[mode]
    target = 2 * expected(plain, x.relu() if kind is Conditional else x, share)
    layer = of_class(kind, mode)
    for found in (layer(x, 1), layer(x, domain=1), layer(x=x, domain=1), layer(scale=torch.ones(1), x=x, domain=1)):
        torch.testing.assert_close(found, target)


@pytest.mark.parametrize("tokens", [4, 9])
@pytest.mark.parametrize("mode", ["mixed", "batch", "running"])
def test_a_subclass_that_moves_axes_is_mixed_over_what_it_normalises(mode: BNMode, tokens: int):
    plain, x = layer_and_input()[0], torch.randn(2, 4, tokens)
    layer = of_class(Tokens, mode)  # as many tokens as channels too
    share = {"mixed": 0.3, "batch": 1.0, "running": 0.0}[mode]
    mean = (1 - share) * plain.running_mean + share * x.mean((0, 2))
    var = (1 - share) * plain.running_var + share * x.var((0, 2), correction=0)
    target = functional.batch_norm(x, mean, var, plain.weight, plain.bias, eps=plain.eps)
    torch.testing.assert_close(layer(x.transpose(1, 2)), target.transpose(1, 2))


def test_an_input_without_the_layers_channels_is_refused_where_its_statistics_are_needed():
    x = torch.randn(2, 9, 4)
    assert of_class(TokensByItself, "source")(x).shape == x.shape
    with pytest.raises(NetworkError, match=r"^TokensByItself: expected an input B×4×… to .*, got 2×9×4\. .* bn=source"):
        of_class(TokensByItself, "mixed")(x)


@pytest.mark.parametrize("size", [(30, 40), (300, 400)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_far_from_zero_keep_their_digits(layout: torch.memory_format, size: tuple[int, int]):
    values = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([0.0, 3.0, -6.0, 1e3, -1e4])  # in standard deviations
    values = (values + offsets.view(1, 5, 1, 1)).to(memory_format=layout)
    exact = values.double()
    mean, var = moments(values)
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var.double(), exact.var((0, 2, 3), correction=0), rtol=4e-5, atol=0)


def test_moments_of_a_constant_of_vectors_and_of_no_number():
    constant = torch.full((1, 2, 7, 9), 1 / 3)
    constant[0, 1] = 0
    mean, var = moments(constant)
    assert mean.tolist() == pytest.approx([1 / 3, 0]) and var.tolist() == pytest.approx([0, 0], abs=1e-12)
    vectors = torch.randn(6, 3)
    torch.testing.assert_close(moments(vectors)[1], vectors.var(0, correction=0))
    vectors[0, 1] = float("nan")
    assert moments(vectors)[1].isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("affine", [True, False])
def test_batch_statistics_have_torchs_values_and_gradients(affine: bool):
    _, x = layer_and_input()
    layer = nn.BatchNorm2d(4, affine=affine).eval()
    x = (3 + 2 * x).requires_grad_()
    moved = [x, *layer.parameters()]
    plain = functional.batch_norm(x, None, None, layer.weight, layer.bias, training=True)
    target = torch.autograd.grad(plain.square().sum() + plain[:, :2].exp().sum(), moved)
    output = adopted(layer, "batch", 0.5).network(x)
    torch.testing.assert_close(output, plain)
    found = torch.autograd.grad(output.square().sum() + output[:, :2].exp().sum(), moved)
    for mine, theirs in zip(found, target, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bn", ["running", "train"])
@pytest.mark.parametrize("name", ["tent", "cotta", "sar", "memo", "augco", "self-adaptive"])
def test_each_batch_gives_its_share_once(name: str, bn: str):
    settings = {"bn": bn, "share": 0.25, "lr": 0.0, "episodic": False}
    if bn == "running":  # in training each iteration moves them
        settings["iterations"] = 3
    once, found = (
        Session(tiny("batchnorm"), methods.make(method, settings=settings | more), guard=False)
        for method, more in (("tent", {"iterations": 1}), (name, {}))
    )
    for image in frames(2):
        once(image)
        found(image)
    for key, value in once.state.buffers.items():
        torch.testing.assert_close(found.state.buffers[key], value, msg=key)
