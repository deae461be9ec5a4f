"""What methods and views give, found to be what the session goes on with; a user's own may give anything."""

from collections.abc import Mapping

import torch
from torch import Tensor

from allweather.errors import SettingsError
from allweather.methods.method import Method, Objective, Refined, State


def checked_state(made: object, method: Method) -> State:
    """What `begin` gave.

    Raises:
        SettingsError: for anything but a State of tensors.
    """
    if not isinstance(made, State):
        raise SettingsError(f"{method.name}: begin must give State(parameters, …), got {said(made)}.")
    for name, value in made.tensors().items():
        if not isinstance(value, Tensor):
            raise SettingsError(f"{method.name}: begin must give tensors in its State, got {said(value)} as {name}.")
    return made


def checked_objective(made: object, method: Method, images: Tensor, classes: int) -> Objective:
    """What `objective` gave for images B×3×H×W. Only shapes are looked at: no number is waited for.

    Raises:
        SettingsError: for anything but logits B×C×H×W and a loss of one number, with a gradient where they have one.
    """
    who = f"{method.name}: objective"
    if not isinstance(made, Objective):
        raise SettingsError(f"{who} must give Objective(logits, loss), got {said(made)}.")
    checked_logits(made.logits, who, images, classes)
    for name, number in (("loss", made.loss), ("watched", made.watched)):
        if number is not None and not (isinstance(number, Tensor) and number.ndim == 0):
            raise SettingsError(
                f"{who} must give as {name} one number, a tensor without dimensions such as a mean, or None; got "
                f"{said(number)}."
            )
    if made.loss is not None and made.logits.requires_grad and not made.loss.requires_grad:
        raise SettingsError(
            f"{who} gives a loss without a gradient, as of a constant or what was detached, and its logits have one. "
            "Compute it from what the network returns, or return loss=None where there is nothing to learn."
        )
    return made


def checked_refined(
    made: object, method: Method, images: Tensor, classes: int, output: Mapping[str, Tensor]
) -> Refined:
    """What `refine` gave for images B×3×H×W.

    Args:
        output: `State.output`, of which it may leave some or all.

    Raises:
        SettingsError: for anything but logits B×C×H×W, and tensors with name, shape and type of those.
    """
    who = f"{method.name}: refine"
    if not isinstance(made, Refined):
        raise SettingsError(f"{who} must give Refined(logits), got {said(made)}.")
    checked_logits(made.logits, who, images, classes)
    if not isinstance(made.output, Mapping):
        raise SettingsError(f"{who} must leave as output tensors by name, got {said(made.output)}.")
    for name, value in made.output.items():
        if name not in output or said(value) != said(output[name]):
            declared = ", ".join(f"{said(kept)} as {known}" for known, kept in output.items()) or "nothing"
            raise SettingsError(
                f"{who} must leave as output what begin declared in State.output, {declared}; got {said(value)} as "
                f"{name}."
            )
    return made


def checked_logits(made: object, who: str, images: Tensor, classes: int) -> Tensor:
    """What `who` gave, if it is logits B×C×H×W on the grid of images B×3×H×W.

    Raises:
        SettingsError: otherwise.
    """
    count, (height, width) = len(images), images.shape[2:]
    if isinstance(made, Tensor) and made.is_floating_point() and made.shape == (count, classes, height, width):
        return made
    raise SettingsError(
        f"{who} must give logits B×C×H×W on the images' own grid, here {count}×{classes}×{height}×{width}; got "
        f"{said(made)}."
    )


def said(made: object) -> str:
    """What came instead, in a few words: a tensor by its shape and type."""
    if not isinstance(made, Tensor):
        return f"a {type(made).__name__}" if made is not None else "None"
    kind = "" if made.dtype == torch.float32 else f" {str(made.dtype).removeprefix('torch.')}"
    return f"{'×'.join(map(str, made.shape)) or 'one number'}{kind}"
