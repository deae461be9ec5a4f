"""The low-rank operator as custom torch operators, so that autograd, autocast and torch.compile see one step each."""

from typing import Any

import torch
from torch import Tensor

from allweather.errors import SettingsError
from allweather.ncut.lowrank import Factors, filter_scores, gradient, terms_and_modes

_FIELDS = 9  # of Factors: seven tensors and two integers
_FACTORS = (
    "Tensor appearance, Tensor across, Tensor down, Tensor lines, Tensor delta, Tensor total, Tensor one, "
    "SymInt cell_y, SymInt cell_x"
)


def ncut_terms(scores: Tensor, factors: Factors) -> Tensor:
    """1 − S_pᵀAS_p / dᵀS_p, B×C; its gradient is the closed form of the README."""
    terms: Tensor = _terms(scores, *_fields(factors))[0]
    return terms


def ncut_filter(scores: Tensor, factors: Factors) -> Tensor:
    """A·S, B×C×H×W."""
    filtered: Tensor = _filter(scores, *_fields(factors))
    return filtered


def _fields(factors: Factors) -> tuple[Any, ...]:
    f = factors
    return (
        f.appearance, f.across, f.down, f.lines, f.delta, f.total, f.one, f.cell_y, f.cell_x,
    )  # fmt: skip


def _operator(name: str, schema: str, run: Any, fake: Any, backward: Any, keep: Any = None) -> Any:
    """Registers an operator for all devices; a module that is loaded again finds it registered.

    `torch.library.custom_op` would import torch's compiler at the first call, which takes seconds.
    """
    if not hasattr(torch.ops.allweather, name):
        full = f"allweather::{name}"
        torch.library.define(full, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(full, "default", run)
        torch.library.register_fake(full, fake)
        torch.library.register_autograd(full, backward, setup_context=keep)
    return getattr(torch.ops.allweather, name).default


def _run_terms(scores: Tensor, *factors: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(scores.device.type, enabled=False):
        return terms_and_modes(scores, Factors(*factors))


def _fake_terms(scores: Tensor, *factors: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    one = factors[6]
    terms = one.new_empty(scores.shape[:2])
    modes = one.new_empty((*one.shape[:3], scores.shape[1], one.shape[4]))
    return terms, modes, torch.empty_like(terms), torch.empty_like(terms)


def _keep_modes(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    scores, *factors = inputs
    ctx.save_for_backward(scores, *output[1:], *factors[:-2])
    ctx.cells = factors[-2:]
    ctx.set_materialize_grads(False)


def _terms_backward(ctx: Any, terms: Tensor | None, *others: None) -> tuple[Tensor | None, ...]:
    if terms is None:
        return (None,) * (1 + _FIELDS)
    scores, modes, ratio, inverse, *factors = ctx.saved_tensors
    return (_gradient(scores, modes, ratio, inverse * terms, *factors, *ctx.cells), *(None,) * _FIELDS)


def _run_gradient(scores: Tensor, modes: Tensor, ratio: Tensor, inverse: Tensor, *factors: Any) -> Tensor:
    with torch.autocast(scores.device.type, enabled=False):
        return gradient(scores, Factors(*factors), modes, ratio, inverse)


def _fake_like_scores(scores: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(scores)


def _no_second_derivative(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    raise SettingsError("the normalized cut's low-rank form has no second derivative. Use implementation='dense'.")


def _run_filter(scores: Tensor, *factors: Any) -> Tensor:
    with torch.autocast(scores.device.type, enabled=False):
        return filter_scores(scores, Factors(*factors))


def _keep_factors(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:-2])
    ctx.cells = inputs[-2:]


def _filter_backward(ctx: Any, filtered: Tensor) -> tuple[Tensor | None, ...]:
    # A is symmetric: its transpose is itself
    return (_filter(filtered, *ctx.saved_tensors, *ctx.cells), *(None,) * _FIELDS)


_terms = _operator(
    "ncut_terms",
    f"(Tensor scores, {_FACTORS}) -> (Tensor, Tensor, Tensor, Tensor)",
    _run_terms,
    _fake_terms,
    _terms_backward,
    _keep_modes,
)
_gradient = _operator(
    "ncut_gradient",
    f"(Tensor scores, Tensor modes, Tensor ratio, Tensor inverse, {_FACTORS}) -> Tensor",
    _run_gradient,
    _fake_like_scores,
    _no_second_derivative,
)
_filter = _operator(
    "ncut_filter",
    f"(Tensor scores, {_FACTORS}) -> Tensor",
    _run_filter,
    _fake_like_scores,
    _filter_backward,
    _keep_factors,
)
