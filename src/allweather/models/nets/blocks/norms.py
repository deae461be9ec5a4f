"""Normalisation layers of domain-generalised networks: InstanceNorm forms and switchable whitening."""

import torch
from torch import Tensor, nn


def instance_norm(channels: int) -> nn.Module:
    """Each image and channel standardised, nothing learnt: what IW, IRW and ISW networks compute.

    Their whitening is a loss on the features during training; it leaves no parameter and no statistics
    (Choi et al., RobustNet, CVPR 2021).
    """
    return nn.InstanceNorm2d(channels)


def affine_instance_norm(channels: int) -> nn.Module:
    """InstanceNorm with weight and bias, as in IBN-Net (Pan et al., ECCV 2018)."""
    return nn.InstanceNorm2d(channels, affine=True)


class SwitchableWhitening(nn.Module):
    """Whitens groups of channels by a learnt mixture of batch and instance statistics: B×C×H×W to the same.

    Mean and covariance of a group are softmax-weighted sums of the batch's (in evaluation mode the running ones) and of
    each image's own. The inverse square root of the covariance comes from Newton's iteration, in float32 or wider.
    Source: Pan et al., Switchable Whitening for Deep Representation Learning, ICCV 2019.

    Args:
        channels: number of channels, a multiple of `group`.
        group: number of channels that are whitened together.
        iterations: of Newton's method.
        momentum: share that the *old* running statistics keep at each update, 0..1: running = momentum · running + (1 −
            momentum) · batch. BatchNorm's `momentum` is the new share.
        eps: added to the diagonal of the covariance.

    Raises:
        ValueError: when `channels` is no multiple of `group`.
    """

    running_mean: Tensor
    running_cov: Tensor

    def __init__(
        self,
        channels: int,
        *,
        group: int = 16,
        iterations: int = 5,
        momentum: float = 0.99,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if channels % group:
            raise ValueError(f"expected channels in multiples of {group}, got {channels}")
        groups = channels // group
        self.group = group
        self.iterations = iterations
        self.momentum = momentum
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.sw_mean_weight = nn.Parameter(torch.ones(2))
        self.sw_var_weight = nn.Parameter(torch.ones(2))
        self.register_buffer("running_mean", torch.zeros(groups, group, 1))
        self.register_buffer("running_cov", torch.zeros(groups, group, group))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            grouped = wide.reshape(len(x), -1, self.group, x.shape[2] * x.shape[3])  # B×groups×group×pixels
            mean, covariance = self._mixture(*_moments(grouped))
            whitened = inverse_square_root(covariance, self.iterations) @ (grouped - mean)
            return torch.addcmul(self.bias.view(1, -1, 1, 1), whitened.view_as(x), self.weight.view(1, -1, 1, 1)).to(
                x.dtype
            )

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, group={self.group}, momentum={self.momentum}"

    def _mixture(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Each image's statistics mixed with the batch's, eps on the diagonal."""
        if self.training:
            batch_mean, batch_covariance = _over_images(mean, covariance)
            self._remember(batch_mean, batch_covariance)
        else:
            batch_mean, batch_covariance = self.running_mean, self.running_cov
        mean_share = self.sw_mean_weight.softmax(0)
        covariance_share = self.sw_var_weight.softmax(0)
        diagonal = self.eps * torch.eye(self.group, dtype=mean.dtype, device=mean.device)
        return (
            mean_share[0] * batch_mean + mean_share[1] * mean,
            covariance_share[0] * batch_covariance + covariance_share[1] * covariance + diagonal,
        )

    @torch.no_grad()
    def _remember(self, mean: Tensor, covariance: Tensor) -> None:
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), 1 - self.momentum)
        self.running_cov.lerp_(covariance.to(self.running_cov.dtype), 1 - self.momentum)


def inverse_square_root(matrices: Tensor, iterations: int) -> Tensor:
    """Σ^(−1/2) of symmetric positive definite matrices …×n×n by Newton's iteration on Σ / trace(Σ)."""
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    scale = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].reciprocal()
    scaled = matrices * scale
    root = identity.expand_as(matrices)
    for _ in range(iterations):
        root = 1.5 * root - 0.5 * (root @ root @ root) @ scaled
    return root * scale.sqrt()


def _moments(grouped: Tensor) -> tuple[Tensor, Tensor]:
    """Mean B×groups×group×1 and covariance B×groups×group×group over the pixels of each image."""
    mean = grouped.mean(-1, keepdim=True)
    centred = grouped - mean
    return mean, centred @ centred.mT / grouped.shape[-1]


def _over_images(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance over all pixels of all images, from each image's."""
    batch_mean = mean.mean(0)
    deviation = mean - batch_mean
    return batch_mean, (covariance + deviation @ deviation.mT).mean(0)
