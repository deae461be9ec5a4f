"""Networks of the user's own: a factory or class in a file, a module or an installed package, as a Segmenter."""

import inspect
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from allweather.classes import CITYSCAPES, ClassSet
from allweather.errors import NetworkError, RandomWeightsWarning, SettingsError, check_known
from allweather.models.checkpoints import load_weights
from allweather.models.digest import digest
from allweather.models.programs import is_exported_program
from allweather.models.segmenter import Provenance, Segmenter
from allweather.plugins import Kind, find_place, guarded, installed, load_installed, load_own, package_of, usable
from allweather.values import parse_value, spell_type

if sys.version_info >= (3, 14):
    from annotationlib import Format

    LAZILY: Mapping[str, Any] = {"annotation_format": Format.FORWARDREF}  # names that only type checkers know may stand
else:
    LAZILY: Mapping[str, Any] = {}
NETWORKS = Kind("network", "allweather.models", NetworkError)


def find_maker(name: str) -> tuple[str, Callable[..., Any]] | None:
    """What makes the network `name` and how records call it; None where the name is no network of the user's own.

    Raises:
        AllWeatherError: when the file, module or package cannot be imported or has nothing of that name.
    """
    entry = installed(NETWORKS).get(name)
    if entry is not None:
        return name, _checked(entry.value, load_installed(entry, NETWORKS))
    place = find_place(name)
    return None if place is None else (place.label, _checked(name, load_own(place, NETWORKS)))


def build_own(
    label: str,
    maker: Callable[..., Any],
    weights: Path | None = None,
    *,
    classes: ClassSet | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Segmenter:
    """The network that `maker` gives, in evaluation mode, with the checkpoint at `weights`.

    Without `weights` it has the ones that `maker` gave it; a network whose parameters differ from call to call is
    randomly initialised, which is warned of.

    Args:
        label: the network's name in messages and records.
        classes, mean, std: for a bare module; Cityscapes and ImageNet's where None. A Segmenter brings its own.
        arguments: keyword arguments of `maker`, as text or ready values, parsed by its signature.

    Raises:
        AllWeatherError: for an argument that `maker` does not take, code that fails, anything that is no network, or a
            checkpoint that does not fit.
    """
    values = parse_arguments(label, maker, arguments or {})

    def call() -> Segmenter:
        made = _segmenter(label, guarded(label, NETWORKS, lambda: maker(**values)), classes, mean, std)
        guarded(label, NETWORKS, made.eval)  # runs a `train` of its own
        _check_values(label, made)
        return made

    before = torch.get_rng_state()
    model = call()
    if weights is not None:
        model.provenance = load_weights(model.network, weights, name=label)
    elif not torch.equal(before, torch.get_rng_state()) and digest(model.state_dict()) != _again(call):
        warnings.warn(RandomWeightsWarning(label), stacklevel=4)
    else:
        model.provenance = model.provenance or Provenance(label, digest(model.state_dict()))
    return model


def parse_arguments(label: str, maker: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `maker` by its annotations, or the types of its defaults.

    Raises:
        SettingsError: for one that it does not take, one that is missing, or a value that its type does not allow.
    """
    try:
        known = inspect.signature(maker, **LAZILY).parameters.values()
    except (TypeError, ValueError, NameError) as error:
        raise NetworkError(f"{label}: its signature cannot be read ({error}). Wrap it in a plain function.") from error
    named = {p.name: p for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for name in arguments:
        check_known(f"argument of {label}", name, named)
    missing = [name for name, p in named.items() if p.default is p.empty and name not in arguments]
    if missing:
        wanted = ", ".join(f"{name} ({_spell(label, maker, named[name])})" for name in missing)
        example = f"--model-arg {missing[0]}=VALUE"
        raise SettingsError(f"{label} needs {wanted}. Give it, on the command line as {example}.")
    return {
        name: parse_value(f"{label} {name}", value, _type(label, maker, named[name]))
        for name, value in arguments.items()
    }


def list_own() -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One row per network of an installed package, ready for JSON, and why others cannot be used, by name."""
    rows, broken = usable(NETWORKS, (), _row)
    return list(rows.values()), broken


def _row(entry: EntryPoint) -> dict[str, Any]:
    load_installed(entry, NETWORKS)
    return {"name": entry.name, "family": f"of {package_of(entry)}", "plugin": entry.value}


def _checked(name: str, made: Any) -> Callable[..., Any]:
    if isinstance(made, nn.Module):
        source, _, network = name.rpartition(":")
        raise SettingsError(
            f"{name} is a network already; expected what makes one. Write `def build(): return {network}` there and "
            f"name {source}:build."
        )
    if not callable(made):
        raise SettingsError(f"{name}: expected a function or class that makes a network, got {made!r:.80}.")
    return made


def _segmenter(
    label: str, made: Any, classes: ClassSet | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Segmenter:
    if isinstance(made, Segmenter):
        if any(given is not None for given in (classes, mean, std)):
            raise SettingsError(f"{label} gives a Segmenter, which has its own classes, mean and std. Leave them out.")
        made.name = label
        return made
    if not isinstance(made, nn.Module):
        what = f"the class {made.__name__}; call it" if isinstance(made, type) else type(made).__name__
        what += ": return its module, exported.module()" if is_exported_program(made) else ""
        raise NetworkError(f"{label}: expected a torch.nn.Module that gives logits, or a Segmenter; got {what}.")
    return Segmenter.wrap(made, classes=CITYSCAPES if classes is None else classes, mean=mean, std=std, name=label)


def _check_values(label: str, model: Segmenter) -> None:
    """Refuses a network on the meta device, which a checkpoint would not fill either, and one that is not made yet."""
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        name = key.removeprefix("network.")
        if is_lazy(tensor):
            raise NetworkError(
                f"{label} gives a network whose {name} has no shape yet. Call the network once on an image, in what "
                "makes it."
            )
        if tensor.is_meta:
            raise NetworkError(
                f"{label} gives a network without values: {name} lies on the meta device. Make it on the CPU, or give "
                "it values with to_empty(device='cpu') and load_state_dict."
            )


def _again(call: Callable[[], Segmenter]) -> str:
    """The digest of the network made again, from another state of the random numbers, which are left as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed((torch.initial_seed() + 1) % 2**63)  # not every device's, which stays so
        return digest(call().state_dict())


def _type(label: str, maker: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    if parameter.annotation is not parameter.empty:
        return _annotation(label, maker, parameter)
    default = parameter.default
    items = {type(item) for item in default} if isinstance(default, tuple | list) else {type(default)}
    if default is parameter.empty or default is None or len(items) != 1:  # an array's `==` is no truth
        raise SettingsError(
            f"{label} does not say what {parameter.name} is. Annotate it, such as {parameter.name}: "
            f"{'tuple[int, ...]' if isinstance(default, tuple | list) else 'int'}."
        )
    (item,) = items
    if isinstance(default, list):
        return list.__class_getitem__(item)
    return tuple.__class_getitem__((item, ...)) if isinstance(default, tuple) else item


def _annotation(label: str, maker: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """An annotation, as text too: of one argument alone, for others may name what only type checkers import."""
    text = getattr(parameter.annotation, "__forward_arg__", parameter.annotation)  # of what `LAZILY` leaves unread
    if not isinstance(text, str):
        return text
    while isinstance(maker, partial):
        maker = maker.func
    made: Any = inspect.unwrap(cast(Any, maker).__init__ if isinstance(maker, type) else maker)

    def holder() -> None: ...

    holder.__annotations__ = {"it": text}
    try:
        return inspect.get_annotations(holder, globals=getattr(made, "__globals__", {}), eval_str=True)["it"]
    except (AttributeError, NameError, SyntaxError, TypeError) as error:
        raise NetworkError(
            f"{label}: the annotation of {parameter.name}, {text}, cannot be read ({error}). Import "
            "what it names where the file runs."
        ) from error


def _spell(label: str, maker: Callable[..., Any], parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return "not annotated"
    return spell_type(_annotation(label, maker, parameter))
