"""A session on disk: one safetensors file of all that moved, checked against the session that reads it."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from allweather.errors import AllWeatherError
from allweather.session.snapshot import flatten_optimizer, optimizer_state


def save_session(
    path: Path,
    moved: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
    counters: Mapping[str, Tensor],
    identity: Mapping[str, str],
) -> None:
    """Writes the file whole: under a temporary name, then renamed.

    Raises:
        AllWeatherError: when it cannot be written.
    """
    state = None if optimizer is None else optimizer.state_dict()
    groups = {**moved, **flatten_optimizer(state), **{f"counters.{k}": v for k, v in counters.items()}}
    tensors = {name: tensor.detach().contiguous().cpu().clone() for name, tensor in groups.items()}
    temporary = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata={"allweather.session": json.dumps(identity)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise AllWeatherError(f"cannot write the session to {path}: {error}.") from error


def load_session(
    path: Path,
    moved: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
    identity: Mapping[str, str],
) -> dict[str, Tensor]:
    """Writes the file's values into `moved` and the optimizer; returns the counters.

    Raises:
        AllWeatherError: for an unreadable file, or one of another network or method; nothing is changed then.
    """
    tensors, found = _read(path)
    for key in sorted(identity.keys() | found.keys()):
        if identity.get(key) != found.get(key):
            raise AllWeatherError(
                f"{path} was saved with {key}={found.get(key)}, this session has {key}={identity.get(key)}. "
                "Make the session with the same network and method settings."
            )
    for name, tensor in moved.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            came = f"shape {tuple(tensors[name].shape)}" if name in tensors else "nothing"
            raise AllWeatherError(f"{path}: expected {name} of shape {tuple(tensor.shape)}, found {came}.")
    if optimizer is not None:
        optimizer.load_state_dict(optimizer_state(optimizer, tensors))
    with torch.no_grad():
        for name, tensor in moved.items():
            tensor.copy_(tensors[name])
    prefix = "counters."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise AllWeatherError(f"cannot read a session from {path}: {error}.") from error
    if "allweather.session" not in metadata:
        raise AllWeatherError(f"{path} is a safetensors file, but not one that Session.save wrote.")
    return tensors, json.loads(metadata["allweather.session"])
