"""The logits within whatever a network returns, and what is refused because it holds none."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from allweather.errors import NetworkError, SettingsError
from allweather.finite import extremes

Output = int | str | Callable[[Any], Any]
KEYS = ("out", "logits")  # where torchvision and transformers put them
MASKS = "masks_queries_logits"  # of a query each, as MaskFormer and its kin give them in transformers
_ROUNDING = 0.02  # of a sum over classes in half precision


def find_logits(returned: Any, output: Output | None, channels: int, name: str) -> Tensor:
    """The tensor B×C×h×w of logits in what the network returned.

    Args:
        returned: a tensor, or a tuple, list, mapping or object that holds it.
        output: which entry: an index, a key or attribute, or a function of `returned`. None takes `out` or `logits`
            where there is one, else the only entry that fits.
        channels: the expected C.
        name: the network's, for messages.

    Raises:
        NetworkError: where none or several entries fit, or the entry holds no logits.
        SettingsError: where `output` names no entry.
    """
    entries = {} if isinstance(returned, Tensor) else _entries(returned)
    if MASKS in entries and output in (None, MASKS):
        raise NetworkError(
            f"{name}: expected logits B×{channels}×h×w from the network, it gives masks and each one's class ({MASKS}: "
            f"{_short(entries[MASKS])}). allweather.load_model('transformers:FOLDER') makes logits of them; for a "
            "network in Python, wrap allweather.models.ecosystems.masks.MaskLogits(network)."
        )
    if output is not None:
        return _fitting(_named(returned, output, name), channels, name)
    if isinstance(returned, Tensor):
        return _fitting(returned, channels, name)
    key = next((key for key in KEYS if key in entries), None)
    if key is not None:
        return _fitting(entries[key], channels, name)
    fitting = [key for key, value in entries.items() if _fits(value, channels)]
    if len(fitting) == 1:
        tensor: Tensor = entries[fitting[0]]
        return tensor
    if fitting:
        raise NetworkError(
            f"{name}: several of the network's outputs could be the logits: {_listing(entries, fitting)}. Say which: "
            f"Segmenter.wrap(network, output={fitting[0]!r})."
        )
    raise NetworkError(
        f"{name}: expected logits B×{channels}×h×w from the network, got {_described(returned)}. Say where they are: "
        "Segmenter.wrap(network, output=…), an index, a key or attribute, or a function of what the network returns."
    )


def check_filled(logits: Tensor, name: str) -> None:
    """Refuses an output without a pixel.

    Raises:
        NetworkError: saying its shape.
    """
    if not logits.numel():
        raise NetworkError(
            f"{name}: the network gives an empty output, {_described(logits)}. Give it larger images: of these, its "
            "strides leave no pixel."
        )


def check_scale(logits: Tensor, probabilities: bool, name: str) -> None:
    """Refuses a softmax where logits are expected, and the reverse; warns of what could be a sigmoid's.

    Raises:
        NetworkError: in both cases.
    """
    sums = logits.sum(1, dtype=torch.promote_types(logits.dtype, torch.float32))
    inside = bool(((logits >= 0) & (logits <= 1)).all())
    normalised = logits.shape[1] > 1 and inside and bool(((sums - 1).abs() < _ROUNDING).all())
    if normalised and not probabilities:
        raise NetworkError(
            f"{name}: the network's output is a softmax already, values in [0, 1] that sum to 1 over the classes. "
            "Return what comes before it, or pass Segmenter.wrap(network, probabilities=True): the logarithm is taken."
        )
    if probabilities and not normalised:
        low, high = extremes(logits)
        raise NetworkError(
            f"{name}: expected probabilities that sum to 1 over the classes, as probabilities=True says; the network "
            f"gives values from {low:.3g} to {high:.3g}. Leave it out for logits."
        )
    if inside and not normalised and _ends_in_sigmoid(logits):
        warnings.warn(
            f"{name}: the network's output is above 0, at most 1 and mostly near these, as a sigmoid's is. Taken for "
            "logits, such values hardly tell classes apart: if it is one, return what comes before it.",
            stacklevel=2,
        )


def _ends_in_sigmoid(values: Tensor) -> bool:
    """Whether most values, all within [0, 1], are near the two ends; 0 itself is a ReLU's."""
    low, high = extremes(values)
    return 0 < low < 0.1 and high > 0.9 and bool(((values - 0.5).abs() > 0.4).float().mean() > 0.5)


def masks_classes(logits: Tensor) -> bool:
    """Whether any is so low that it says no more than that its class is left out, as -inf does."""
    return logits.is_floating_point() and bool((logits.detach() < _lowest(logits)).any())


def unmasked(logits: Tensor) -> Tensor:
    """The same with what masks a class finite; resampled, and in a loss, -inf would become NaN. NaN stays."""
    return logits.clamp_min(_lowest(logits))


def _lowest(logits: Tensor) -> float:
    return max(-1e9, torch.finfo(logits.dtype).min / 2)


def log_of(probabilities: Tensor, *, in_place: bool = False) -> Tensor:
    """Logits of probabilities: their logarithms, finite where a probability is 0."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return probabilities.clamp_min_(tiny).log_() if in_place else probabilities.clamp_min(tiny).log()


def _named(returned: Any, output: Output, name: str) -> Any:
    if isinstance(output, bool) or not (isinstance(output, (int, str)) or callable(output)):
        raise SettingsError(f"{name}: output is an index, a key, an attribute or a function, got {output!r}.")
    if isinstance(returned, Tensor) and not callable(output):
        raise SettingsError(f"{name}: output={output!r}, but the network returns one tensor. Leave `output` out.")
    if callable(output):
        return output(returned)
    if isinstance(output, str) and not isinstance(returned, Mapping) and hasattr(returned, output):
        return getattr(returned, output)
    entries = _entries(returned)
    key = output + len(entries) if isinstance(output, int) and output < 0 else output
    if key not in entries:
        raise SettingsError(f"{name}: output={output!r} is not in what the network returns: {_described(returned)}.")
    return entries[key]


def _fitting(found: Any, channels: int, name: str) -> Tensor:
    """The tensor, if it can be logits of so many classes."""
    if not isinstance(found, Tensor) or found.ndim not in (3, 4):
        raise NetworkError(
            f"{name}: expected logits B×{channels}×h×w from the network, got {_described(found)}. Say where they are: "
            "Segmenter.wrap(network, output=…), or wrap the network in a module that returns them."
        )
    if found.is_floating_point() and (form := _other_form(found, channels)):
        raise NetworkError(
            f"{name}: expected logits B×{channels}×h×w from the network, it gives {form}, or make that of it: "
            "Segmenter.wrap(network, output=FUNCTION)."
        )
    if not found.is_floating_point() or found.ndim == 3 or (found.shape[1] == 1 != channels):
        raise NetworkError(
            f"{name}: the network gives a map of labels ({_described(found)}), and adaptation needs logits "
            f"B×{channels}×h×w. Return what comes before the argmax."
        )
    if found.shape[1] != channels:
        raise NetworkError(
            f"{name}: expected {channels} logits per pixel, the network gives {found.shape[1]}. Pass the class set it "
            "was trained on (classes=, on the command line --classes FILE.toml), or extra_logits for trailing ones."
        )
    return found


def _other_form(found: Tensor, channels: int) -> str:
    """Logits in another form than B×C×h×w and what makes them that, in words; empty for any other tensor."""
    if found.ndim == 3 and channels in found.shape[1:]:
        first = "y" if found.shape[1] == channels else "y.transpose(1, 2)"
        return f"tokens ({_described(found)}). Return {first}.unflatten(2, (h, w))"
    if found.ndim == 4 and found.shape[1] == 1 and channels == 2:
        return f"one ({_described(found)}). Return that and a 0 of the other class, torch.cat((0 * y, y), 1)"
    if found.ndim == 4 and found.shape[1] != channels == found.shape[3]:
        return f"the classes last ({_described(found)}). Return y.permute(0, 3, 1, 2)"
    return ""


def _fits(value: Any, channels: int) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[1] == channels and value.is_floating_point()


def _entries(returned: Any) -> dict[Any, Any]:
    """What the network returned, by key, index or attribute; nothing for what holds nothing."""
    if isinstance(returned, Mapping):
        return dict(returned)
    if isinstance(returned, (tuple, list)):
        return dict(enumerate(returned))
    if is_dataclass(returned):  # one with __slots__ has no vars
        return {field.name: getattr(returned, field.name) for field in fields(returned)}
    return dict(vars(returned)) if hasattr(returned, "__dict__") and not isinstance(returned, Tensor) else {}


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{'×'.join(map(str, value.shape)) or 'a number'} of {str(value.dtype).removeprefix('torch.')}"
    entries = _entries(value)
    kind = type(value).__name__
    return f"{kind} with {_listing(entries, list(entries)[:8])}" if entries else kind


def _listing(entries: Mapping[Any, Any], keys: list[Any]) -> str:
    return ", ".join(f"{key!r}: {_short(entries[key])}" for key in keys)


def _short(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return _described(value) if isinstance(value, Tensor) else type(value).__name__
