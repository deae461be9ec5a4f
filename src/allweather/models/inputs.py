"""What a Segmenter may be made of and called with, or one clear word about what came instead."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from allweather.errors import InputError, NetworkError
from allweather.finite import extremes
from allweather.models.programs import is_exported_program, training_step
from allweather.rgb import check_unit_range

_EXPORTED = ("allweather.models.segmenter.Segmenter", "allweather.export.graph.Graph")  # as torch.export names them


def unwrapped(network: nn.Module) -> nn.Module:
    """The network that torch.compile or data parallelism wraps."""
    while True:
        if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network


def segmenter_in(network: nn.Module, segmenter: type[nn.Module]) -> str | None:
    """What a network is that normalises pixels as a `segmenter` does, in words; None for any other.

    A network with Segmenters among its parts, such as an ensemble of them, is another.
    """
    if isinstance(network, segmenter):
        return "a Segmenter already: use it as it is"
    if isinstance(unwrapped(network), segmenter):
        return "a Segmenter within torch.compile or DataParallel: wrap the network first, and the Segmenter takes that"
    traced = isinstance(network, torch.jit.ScriptModule) and network.original_name == segmenter.__name__
    if traced or (isinstance(network, fx.GraphModule) and _is_exported(network)):
        return "a Segmenter that was traced or exported: use the Segmenter that it was made of"
    return None


def check_network(network: Any, segmenter: type[nn.Module]) -> None:
    """Refuses what is no network, a `segmenter` in any form, which would normalise pixels twice, and what only trains.

    Raises:
        NetworkError: saying what came.
    """
    if not isinstance(network, nn.Module):
        call = "For a class, call it first" if isinstance(network, type) else "Pass the module itself"
        if is_exported_program(network):
            call = "Pass its module: exported.module()"
        raise NetworkError(f"expected a network, an instance of torch.nn.Module, got {network!r:.80}. {call}.")
    if what := segmenter_in(network, segmenter):
        raise NetworkError(f"expected a network that takes normalised pixels, got {what}.")
    if step := training_step(network):
        raise NetworkError(
            f"expected a network in evaluation mode, got one that was traced or exported in training mode: its "
            f"{step} goes on as in training, whatever eval() says. Call network.eval() before torch.export.export or "
            "torch.jit.trace; in code of your own, functional.dropout needs training=self.training. Where it is meant, "
            "give the network itself, in Python."
        )


def check_images(images: Any, name: str) -> None:
    """Refuses what is no batch of floats B×3×H×W, without a look at its values.

    Raises:
        InputError: saying what came.
    """
    expected = f"{name}: expected images B×3×H×W (RGB in [0, 1])"
    if not isinstance(images, Tensor):
        read = "allweather.pictures.read_image gives a picture as 3×H×W"
        raise InputError(f"{expected} as a tensor, got {type(images).__name__}. A Session takes any picture; {read}.")
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"{expected}, got {tuple(images.shape)}.")
    if not images.is_floating_point():
        bytes_are = " Bytes are: images.float() / 255." if images.dtype == torch.uint8 else ""
        raise InputError(f"{expected} in floating point, got {images.dtype}.{bytes_are}")


def check_pixels(images: Tensor, name: str) -> None:
    """Refuses images B×3×H×W with values of another range; what is not finite passes.

    Raises:
        InputError: saying what came.
    """
    check_unit_range(*extremes(images), f"{name}: ")


def _is_exported(network: fx.GraphModule) -> bool:
    """Whether torch.export made it of a Segmenter: each step names the modules that it was in, outermost first."""
    stacks = (node.meta.get("nn_module_stack") for node in network.graph.nodes)
    outermost = next((next(iter(stack.values())) for stack in stacks if stack), ("", ""))
    return outermost[1] in _EXPORTED
