"""BatchNorm modes against plain torch: each mode's statistics, its gradient, and layers that keep the source's."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from allweather.methods.normalization import BNMode, adopt_statistics, moving_statistics
from allweather.models.segmenter import Segmenter


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
def test_mixed_statistics_are_the_weighted_mean(share: float) -> None:
    layer, x = layer_and_input()
    target = expected(layer, x, share)
    kept = layer.running_mean.clone()
    output = adopted(layer, "mixed", share).network(x)
    torch.testing.assert_close(output, target)
    assert torch.equal(layer.running_mean, kept), "mixing must not move the running statistics"


def test_a_share_of_one_is_train_mode_with_its_gradient() -> None:
    layer, x = layer_and_input()
    x.requires_grad_()
    functional.batch_norm(x, None, None, layer.weight, layer.bias, training=True).square().sum().backward()
    target, x.grad = x.grad.clone(), None
    adopted(layer, "mixed", 1.0).network(x).square().sum().backward()
    torch.testing.assert_close(x.grad, target)


def test_running_statistics_move_only_while_adapting() -> None:
    layer, x = layer_and_input()
    model, target = adopted(layer, "running", 0.2), expected(layer, x, 0.2)
    kept = layer.running_mean.clone()
    model.network(x)
    assert torch.equal(layer.running_mean, kept)
    with moving_statistics(model):
        torch.testing.assert_close(model.network(x), target)
    torch.testing.assert_close(layer.running_mean, 0.8 * kept + 0.2 * x.mean((0, 2, 3)))


def test_train_mode_is_torchs_own() -> None:
    layer, x = layer_and_input()
    twin = nn.BatchNorm2d(4)
    twin.load_state_dict(layer.state_dict())
    model = adopted(layer, "train", 0.1)
    with moving_statistics(model):
        torch.testing.assert_close(model.network(x), twin.train()(x))
    torch.testing.assert_close(model.network(x), twin.eval()(x))
    assert not layer.training


@pytest.mark.parametrize("mode", ["mixed", "batch", "running", "train"])
def test_one_value_per_channel_keeps_the_sources_statistics(mode: BNMode) -> None:
    layer, _ = layer_and_input()
    x = torch.randn(1, 4, 1, 1)
    target = layer(x)
    model = adopted(layer, mode, 0.5)
    with moving_statistics(model):
        assert torch.equal(model.network(x), target)


def test_a_subclass_keeps_its_own_forward() -> None:
    class BatchNormRelu(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).relu()

    layer, x = layer_and_input()
    fused = BatchNormRelu(4)
    fused.load_state_dict(layer.state_dict())
    target = expected(layer, x, 0.3).relu()
    torch.testing.assert_close(adopted(fused.eval(), "mixed", 0.3).network(x), target)
