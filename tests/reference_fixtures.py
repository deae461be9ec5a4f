"""Reference fixtures of official networks: the seeded fill and the comparison with what was recorded.

The files in `data/` are measurements: each publisher's network was run once under the seeded fill, or with its weights,
and its keys with shapes, counts of layers, and numbers of one output were written down.
"""

import gzip
import json
import os
import zlib
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

DRAWN = ("uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_")
DATA = Path(__file__).parent / "data"
FILES = ("reference-models.json.gz", "realtime-models.json.gz")
TOLERANCE = 1e-4  # the real-time networks are within 1e-5; with 1e-3 as eps of their norms, 1.6e-3 and more away


def assets() -> Path:
    """The folder of real weights and frames, or a skip that says how to name it."""
    folder = os.environ.get("ALLWEATHER_ASSETS")
    if not folder:
        pytest.skip("ALLWEATHER_ASSETS is not set: real weights and frames are not here")
    return Path(folder)


@cache
def fixtures() -> dict[str, Any]:
    """What the official networks gave, by fixture key."""
    recorded: dict[str, Any] = {}
    for name in FILES:
        with gzip.open(DATA / name) as file:
            recorded |= json.load(file)
    return recorded


class WithoutRandomValues(TorchFunctionMode):
    """Networks made inside draw no initial values: `fill` writes over them, and drawing takes as long as a pass."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" and func.__name__ in DRAWN:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def fill(network: nn.Module):
    """The seeded values under which the fixtures were recorded; each tensor's depend on its name alone."""
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not _stays(key, tensor):
            tensor.copy_(_value(key, tensor.shape))


def _stays(key: str, tensor: torch.Tensor) -> bool:
    """Whether the fill leaves what the network itself begins with."""
    return key.endswith("running_cov") or (key.endswith("scale") and tensor.numel() == 1)


@lru_cache(maxsize=1024)
def _value(key: str, shape: torch.Size) -> torch.Tensor:
    """Kept for the next network: neighbours in the catalogue share most names, and drawing takes as long as a pass."""
    return torch.from_numpy(np.asarray(_drawn(key, shape), np.float32)).reshape(shape)


def _drawn(key: str, shape: torch.Size) -> Any:
    random = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        return 0.5 + random.random_sample(shape)
    if key.endswith("running_mean"):
        return 0.1 * random.standard_normal(shape)
    if len(shape) >= 2:
        return random.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    if len(shape) == 1 and key.endswith("weight"):
        return 0.5 + 0.5 * random.random_sample(shape)
    return 0.1 * random.standard_normal(shape)


forget_values = _value.cache_clear  # half a gigabyte


def fixture_input(key: str) -> torch.Tensor:
    """The input under which fixture `key` was recorded, B×3×H×W."""
    random, shape = np.random.RandomState(0), fixtures()[key]["input"]
    values = random.random_sample(shape) if key.endswith("unitinput") else random.standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def largest_difference(key: str, output: torch.Tensor) -> float:
    """Largest |value − recorded| / max(|recorded|, recorded standard deviation) over samples, mean and deviation."""
    fixture = fixtures()[key]
    assert list(output.shape) == fixture["out_shape"]
    recorded = torch.tensor([*fixture["samples"], fixture["mean"], fixture["std"]], dtype=torch.float64)
    flat = output.flatten().double()
    values = torch.cat([flat[torch.tensor(fixture["sample_idx"])], torch.stack([flat.mean(), flat.std()])])
    return float(((values - recorded).abs() / recorded.abs().clamp_min(fixture["std"])).max())


def recorded_norms(key: str) -> dict[str, int]:
    """How many norm layers of each kind the official network has, under this package's names for them."""
    counted = dict(fixtures()[key]["norms"])
    counted.pop("InstanceWhitening", None)  # a container of an InstanceNorm2d that is counted as well
    switchable = counted.pop("SyncSwitchWhiten2d", 0)
    return counted | ({"SwitchableWhitening": switchable} if switchable else {})
