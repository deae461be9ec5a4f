"""What methods and views give, found to be what the session goes on with; a user's own may give anything."""

import torch
from torch import Tensor

from allweather.errors import SettingsError
from allweather.methods.method import Method, Objective, Refined


def checked_objective(made: object, method: Method, images: Tensor, classes: int) -> Objective:
    """What `objective` gave for images B×3×H×W. Only shapes are looked at: no number is waited for.

    Raises:
        SettingsError: for anything but logits B×C×H×W and a loss of one number.
    """
    who = f"{method.name}: objective"
    if not isinstance(made, Objective):
        raise SettingsError(f"{who} must give Objective(logits, loss), got {_said(made)}.")
    checked_logits(made.logits, who, images, classes)
    for name, number in (("loss", made.loss), ("watched", made.watched)):
        if number is not None and not (isinstance(number, Tensor) and number.ndim == 0):
            raise SettingsError(
                f"{who} must give as {name} one number, a tensor without dimensions such as a mean, or None; got "
                f"{_said(number)}."
            )
    return made


def checked_refined(made: object, method: Method, images: Tensor, classes: int) -> Refined:
    """What `refine` gave for images B×3×H×W.

    Raises:
        SettingsError: for anything but logits B×C×H×W.
    """
    who = f"{method.name}: refine"
    if not isinstance(made, Refined):
        raise SettingsError(f"{who} must give Refined(logits), got {_said(made)}.")
    checked_logits(made.logits, who, images, classes)
    return made


def checked_logits(made: object, who: str, images: Tensor, classes: int | None = None) -> Tensor:
    """What `who` gave, if it is logits B×C×H×W on the grid of images B×3×H×W.

    Args:
        classes: how many; None takes any number.

    Raises:
        SettingsError: otherwise.
    """
    count, (height, width) = len(images), images.shape[2:]
    if isinstance(made, Tensor) and made.ndim == 4 and made.is_floating_point():
        expected = (count, made.shape[1] if classes is None else classes, height, width)
        if made.shape == expected:
            return made
    raise SettingsError(
        f"{who} must give logits B×C×H×W on the images' own grid, here {count}×{classes or 'C'}×{height}×{width}; got "
        f"{_said(made)}."
    )


def _said(made: object) -> str:
    if not isinstance(made, Tensor):
        return f"a {type(made).__name__}" if made is not None else "None"
    kind = "" if made.dtype == torch.float32 else f" {str(made.dtype).removeprefix('torch.')}"
    return f"{'×'.join(map(str, made.shape)) or 'one number'}{kind}"
