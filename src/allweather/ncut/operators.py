"""The low-rank operator as two custom torch operators, so that autograd, autocast and torch.compile see one step."""

from typing import Any

import torch
from torch import Tensor

from allweather.ncut.lowrank import Factors, filter_scores, terms_and_gradient


def ncut_terms(scores: Tensor, factors: Factors) -> Tensor:
    """1 − S_pᵀAS_p / dᵀS_p, B×C; its gradient is the closed form of the README, made in the same pass."""
    return _terms(scores, *_fields(factors), scores.requires_grad and torch.is_grad_enabled())[0]


def ncut_filter(scores: Tensor, factors: Factors) -> Tensor:
    """A·S, B×C×H×W."""
    return _filter(scores, *_fields(factors))


def _fields(factors: Factors) -> tuple[Any, ...]:
    f = factors
    return (
        f.points, f.landmarks, f.metric, f.blur_y, f.blur_x, f.corners, f.delta, f.degree, f.cell_y, f.cell_x,
    )  # fmt: skip


@torch.library.custom_op("allweather::ncut_terms", mutates_args=())
def _terms(
    scores: Tensor,
    points: Tensor,
    landmarks: Tensor,
    metric: Tensor,
    blur_y: Tensor,
    blur_x: Tensor,
    corners: Tensor,
    delta: Tensor,
    degree: Tensor,
    cell_y: int,
    cell_x: int,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    factors = Factors(points, landmarks, metric, blur_y, blur_x, corners, delta, degree, cell_y, cell_x)
    with torch.autocast(scores.device.type, enabled=False):
        return terms_and_gradient(scores, factors, gradient)


@_terms.register_fake
def _(scores: Tensor, points: Tensor, landmarks: Tensor, metric: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    terms = metric.new_empty(scores.shape[:2])
    return terms, torch.empty_like(scores) if rest[-1] else scores.new_empty(0), torch.empty_like(terms)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.set_materialize_grads(False)


def _terms_backward(ctx: Any, terms: Tensor | None, *derivatives: Tensor | None) -> tuple[Tensor | None, ...]:
    if any(derivative is not None for derivative in derivatives):
        raise NotImplementedError("the normalized cut has no second derivative here; use implementation='dense'")
    direction, scale = ctx.saved_tensors
    if terms is None:
        return (None,) * 12
    return (_scaled(direction, (terms * scale)[..., None, None]), *(None,) * 11)


def _scaled(direction: Tensor, scale: Tensor) -> Tensor:
    if direction.dtype == scale.dtype:
        return direction * scale
    scaled = torch.empty_like(direction)
    for rows, target in zip(direction.chunk(8, 2), scaled.chunk(8, 2), strict=True):
        target.copy_(rows * scale)  # a product in half precision would lose the scale
    return scaled


_terms.register_autograd(_terms_backward, setup_context=_keep_gradient)


@torch.library.custom_op("allweather::ncut_filter", mutates_args=())
def _filter(
    scores: Tensor,
    points: Tensor,
    landmarks: Tensor,
    metric: Tensor,
    blur_y: Tensor,
    blur_x: Tensor,
    corners: Tensor,
    delta: Tensor,
    degree: Tensor,
    cell_y: int,
    cell_x: int,
) -> Tensor:
    factors = Factors(points, landmarks, metric, blur_y, blur_x, corners, delta, degree, cell_y, cell_x)
    with torch.autocast(scores.device.type, enabled=False):
        return filter_scores(scores, factors)


@_filter.register_fake
def _(scores: Tensor, *factors: Any) -> Tensor:
    return torch.empty_like(scores)


def _keep_factors(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:9])
    ctx.cells = inputs[9:]


def _filter_backward(ctx: Any, filtered: Tensor) -> tuple[Tensor | None, ...]:
    # A is symmetric: its transpose is itself
    return (_filter(filtered, *ctx.saved_tensors, *ctx.cells), *(None,) * 10)


_filter.register_autograd(_filter_backward, setup_context=_keep_factors)
