"""A delta: the tensors that adaptation moved, and the digest of the network that they belong to."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from allweather.errors import CheckpointError, NetworkError
from allweather.export.deployment import Deployment, base_digest, tensors_of
from allweather.export.image_statistics import attach, check_unmixed
from allweather.methods.normalization import can_mix
from allweather.models.digest import digest
from allweather.models.inputs import unwrapped
from allweather.models.passed_on import DELTA, check_finite, read_object
from allweather.models.segmenter import Segmenter, own_network
from allweather.writing import write_bytes

ABOUT, CONTENT = "allweather", "allweather.digest"


def write_delta(deployment: Deployment, path: Path) -> None:
    """Writes what moved, with the base's digest, settings and record.

    Raises:
        AllWeatherError: when it cannot be written.
    """
    state = deployment.state()
    moved = {name: value for name, value in state.items() if not torch.equal(value, deployment.base[name])}
    metadata = {ABOUT: json.dumps(deployment.facts()), CONTENT: digest(moved), DELTA: "1"}
    write_bytes(path, save(moved, metadata), durable=True)


def write_state(deployment: Deployment, path: Path) -> None:
    """Writes the whole state dict, which the user's own network loads strictly.

    Raises:
        AllWeatherError: when it cannot be written, or holds anything but tensors.
    """
    state = deployment.state()
    if other := [name for name in deployment.network.state_dict() if name not in state]:
        raise NetworkError(
            f"{deployment.model.name}: its state dict holds {other[0]}, which is no tensor, and the file would hold "
            "tensors alone. Write NAME.delta.safetensors, or leave it out of get_extra_state."
        )
    metadata = {"format": "pt", ABOUT: json.dumps(deployment.facts())}
    write_bytes(path, save(state, metadata), durable=True)


def apply_delta(network: nn.Module, file: Path | str) -> nn.Module:
    """Gives a network the values of a delta, in place.

    Where the delta keeps each image's own statistics (`statistics="image"`), BatchNorm layers get a hook that mixes
    them in; the layers stay what they are, and what torch.compile made is made anew at the next call.

    Args:
        network: the network that the delta was made from, with the same weights; or its Segmenter, or what
            torch.compile or data parallelism makes of either.
        file: what `Session.export("NAME.delta.safetensors")` wrote.

    Returns:
        The same network.

    Raises:
        CheckpointError: for an unreadable or damaged file, or a network of another kind or other weights, which is then
            as it was.
        NetworkError: for what is no network, and one that mixes each image's statistics already.
    """
    if not isinstance(network, nn.Module):
        raise NetworkError(f"apply_delta: expected a torch.nn.Module, got {type(network).__name__}.")
    moved, about = read_delta(Path(file))
    own = unwrapped(network)
    own = own_network(own) if isinstance(own, Segmenter) else own
    _check_base(own, moved, about, Path(file))
    check_unmixed(own, str(file), "Load the network that was adapted afresh.")
    mixed = _mixed(own, about.get("shares", {}), Path(file))
    state = own.state_dict()
    with torch.no_grad():
        for name, value in moved.items():
            state[name].copy_(value)
    attach(mixed)
    return network


def read_delta(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The moved tensors of a delta and what is known of it.

    Raises:
        CheckpointError: for a file that is none, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            moved = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read a delta from {path}: {error}.") from error
    if DELTA not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file, but no delta. Write one: session.export('NAME.delta.safetensors'). A whole "
            "state dict goes into network.load_state_dict."
        )
    if metadata.get(CONTENT) != digest(moved):
        raise CheckpointError(f"{path} is damaged: its tensors are not those that were written. Fetch it again.")
    check_finite(path, moved)
    about = read_object(path, metadata, ABOUT)
    if not all(isinstance(about.get(key), str) for key in ("network", "base")):
        raise CheckpointError(f"{path} is damaged: expected the network and its base's sha256 as texts.")
    return moved, about


def _check_base(network: nn.Module, moved: dict[str, Tensor], about: dict[str, Any], path: Path) -> None:
    state = tensors_of(network)
    if foreign := [name for name in moved if name not in state or _kind(state[name]) != _kind(moved[name])]:
        came = moved[foreign[0]]
        raise CheckpointError(
            f"{path} belongs to {about['network']}: {type(network).__name__} has no {foreign[0]} for {came.dtype} of "
            f"shape {tuple(came.shape)}. Apply it to the network it was made from."
        )
    found = base_digest(state)
    if found != about["base"]:
        raise CheckpointError(
            f"{path} was made from {about['network']} with weights of sha256 {about['base'][:16]}…, this network's are "
            f"{found[:16]}…. Load the weights that were adapted; a network that has had a delta is another one."
        )


def _kind(tensor: Tensor) -> tuple[torch.Size, bool, bool]:
    """What two tensors share of which one's values can stand in the other, whatever their precision."""
    return tensor.shape, tensor.is_floating_point(), tensor.is_complex()


def _mixed(network: nn.Module, shares: Any, path: Path) -> list[tuple[nn.Module, float]]:
    """The BatchNorm layers that are to mix in each image's statistics, each with the image's share."""
    layers = dict(network.named_modules())
    if not isinstance(shares, dict):
        raise CheckpointError(f"{path} is damaged: expected shares by layer, got {shares!r:.60}.")
    for name, share in shares.items():
        if name not in layers or not can_mix(layers[name]):
            raise CheckpointError(
                f"{path} is damaged: its share is of '{name}', no BatchNorm layer of {type(network).__name__}."
            )
        if type(share) not in (int, float) or not 0 <= share <= 1:
            raise CheckpointError(f"{path} is damaged: expected a share of 0 to 1 of {name}, got {share!r:.60}.")
    return [(layers[name], float(share)) for name, share in shares.items()]
