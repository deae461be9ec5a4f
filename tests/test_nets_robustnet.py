"""RobustNet's norms and networks: whitening against its definition, shared keys, adapting on one image."""

import pytest
import torch
from tiny import seeded
from torch import Tensor, nn

from allweather import Segmenter, Session, methods
from allweather.models.nets.blocks.norms import (
    SwitchableWhitening,
    affine_instance_norm,
    instance_norm,
    inverse_square_root,
)
from allweather.models.nets.robustnet import ENTRIES

BY_NAME = {entry.name: entry for entry in ENTRIES}


def correlated(images: int = 2, channels: int = 8, size: tuple[int, int] = (9, 7), seed: int = 0) -> Tensor:
    """Features images×channels×size in float64 whose channels are correlated and off centre."""
    generator = seeded(seed)
    noise = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    mixing = torch.eye(channels, dtype=torch.float64) + 0.1 * noise
    x = torch.randn(images, channels, *size, generator=generator, dtype=torch.float64)
    return torch.einsum("dc,bchw->bdhw", mixing, x) + torch.arange(channels).view(1, -1, 1, 1)


def whitening(**options: float) -> SwitchableWhitening:
    return SwitchableWhitening(8, group=4, **options).double()


def group_moments(x: Tensor, group: int = 4) -> tuple[Tensor, Tensor]:
    """Mean and covariance of each group of channels over all pixels of all images, by torch.cov."""
    groups = torch.split(x.transpose(0, 1).flatten(1), group)
    return torch.stack([g.mean(1, keepdim=True) for g in groups]), torch.stack(
        [torch.cov(g, correction=0) for g in groups]
    )


def test_the_iteration_converges_to_the_inverse_square_root():
    _, covariance = group_moments(correlated())
    values, vectors = torch.linalg.eigh(covariance)
    exact = vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT
    assert torch.allclose(inverse_square_root(covariance, 15), exact, rtol=1e-8)


def test_each_image_whitened_by_its_own_statistics_has_identity_covariance():
    layer = whitening(iterations=15, eps=0.0).eval()
    with torch.no_grad():
        layer.sw_mean_weight.copy_(torch.tensor([-1e3, 1e3]))
        layer.sw_var_weight.copy_(torch.tensor([-1e3, 1e3]))
        for image in layer(correlated()).split(1):
            mean, covariance = group_moments(image)
            assert mean.abs().max() < 1e-9
            assert torch.allclose(covariance, torch.eye(4, dtype=torch.float64).expand(2, 4, 4), atol=1e-9)


def test_training_whitens_by_the_statistics_of_the_whole_batch():
    layer = whitening(iterations=15, eps=0.0).train()
    with torch.no_grad():
        layer.sw_mean_weight.copy_(torch.tensor([1e3, -1e3]))
        layer.sw_var_weight.copy_(torch.tensor([1e3, -1e3]))
        mean, covariance = group_moments(layer(correlated(images=3)))
    assert mean.abs().max() < 1e-9
    assert torch.allclose(covariance, torch.eye(4, dtype=torch.float64).expand(2, 4, 4), atol=1e-9)


def test_momentum_is_the_share_that_the_old_statistics_keep():
    layer, x = whitening(momentum=0.9).train(), correlated()
    mean, covariance = group_moments(x)
    layer(x)
    assert torch.allclose(layer.running_mean, 0.1 * mean) and torch.allclose(layer.running_cov, 0.1 * covariance)
    layer(x)
    assert torch.allclose(layer.running_mean, 0.19 * mean)


def test_evaluation_moves_no_statistics_and_one_pixel_stays_finite():
    layer = whitening().eval()
    layer(correlated())
    assert not layer.running_mean.any() and not layer.running_cov.any()
    assert layer(correlated(size=(1, 1))).isfinite().all()


@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_features_and_mixing_weights(training: bool):
    layer = whitening().train(training)
    layer.running_cov.copy_(torch.eye(4))
    names = [name for name, _ in layer.named_parameters()]

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    x = correlated(size=(2, 3)).requires_grad_()
    values = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]
    assert torch.autograd.gradcheck(forward, (x, *values))


def test_autocast_keeps_the_statistics_in_float32():
    layer, x = SwitchableWhitening(16).eval(), correlated(channels=16).float()
    wide, narrow = layer(x), layer(x.bfloat16().float()).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), wide) and torch.equal(layer(x.bfloat16()), narrow)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_channels_that_make_no_whole_groups_are_refused():
    with pytest.raises(ValueError, match="multiples of 16, got 24"):
        SwitchableWhitening(24)


def test_instance_norms_differ_in_what_they_learn():
    assert not instance_norm(8).state_dict() and sorted(affine_instance_norm(8).state_dict()) == ["bias", "weight"]


@pytest.mark.parametrize("backbone", ["r50-os16", "r101-os8", "mobilenet"])
def test_whitening_losses_leave_one_and_the_same_network(backbone: str):
    with torch.device("meta"):
        entries = [entry for name, entry in BY_NAME.items() if name.endswith(backbone)]
        keys = {entry.name.split(":")[1].split("-")[0]: list(entry.build().state_dict()) for entry in entries}
    assert all(keys[name] == keys["isw"] for name in ("iw", "irw") if name in keys)
    replaced = 0 if backbone == "mobilenet" else 5
    assert len(keys["base"]) - len(keys["isw"]) == replaced


def test_the_auxiliary_head_holds_weights_and_is_not_run():
    network = BY_NAME["robustnet:isw-mobilenet"].build()
    network.get_submodule("dsn").register_forward_hook(lambda *_: pytest.fail("the auxiliary head was run"))
    network(torch.rand(2, 3, 33, 47)).mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == [
        f"dsn.{name}" for name, _ in network.get_submodule("dsn").named_parameters()
    ]


@pytest.fixture
def model() -> Segmenter:
    torch.manual_seed(0)
    return BY_NAME["robustnet:sw-r50-os16"].segmenter()


def test_tent_moves_whitening_affine_and_mixing_weights_on_one_image(model: Segmenter):
    session = Session(model, methods.make("tent", model=model, settings={"lr": "0.01", "episodic": "false"}))
    result = session(torch.rand(3, 64, 96, generator=seeded()))
    adapted = session.model.network.state_dict()
    moved = {key for key, value in model.network.state_dict().items() if not torch.equal(value, adapted[key])}
    layer = "layer2.3.instance_norm_layer"
    assert result.logits.isfinite().all() and result.logits.shape == (19, 64, 96)
    assert {f"{layer}.{name}" for name in ("weight", "bias", "sw_mean_weight", "sw_var_weight")} <= moved
    assert not {key for key in moved if key.endswith(("running_mean", "running_cov")) and "instance" in key}
    assert not {key for key in moved if key.split(".")[-2:] == ["0", "weight"] or key.startswith("dsn")}


def test_pooled_branch_keeps_source_statistics_for_one_image(model: Segmenter):
    session = Session(model, methods.make("norm", model=model, settings={"bn": "batch"}))
    assert session(torch.rand(3, 64, 96)).logits.isfinite().all()
    assert isinstance(model.network.get_submodule("aspp.img_conv.1"), nn.BatchNorm2d)
