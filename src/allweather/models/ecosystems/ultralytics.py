"""Semantic networks of ultralytics (YOLO26-sem and its kin): code and weights under AGPL-3.0, imported when named."""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from allweather.classes import CITYSCAPES, ClassSet
from allweather.errors import (
    CheckpointError,
    MissingLibraryError,
    RandomWeightsWarning,
    SettingsError,
    check_known,
    optional,
)
from allweather.models.checkpoints import check_digest, load_weights
from allweather.models.ecosystems.naming import Selection, choose
from allweather.models.ecosystems.sizes import Sizes
from allweather.models.reading import check_sums
from allweather.models.segmenter import Preprocessing, Provenance, Segmenter

GREY = 114 / 255  # what the library pads with
QUIET = {"YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false", "YOLO_AUTOINSTALL": "false"}
TRAINED = ("ema", "model")  # keys of a checkpoint that hold the network, the better one first


class Letterboxed(nn.Module):
    """A network of ultralytics with the library's padding: RGB images B×3×H×W in [0, 1] to logits B×C×H×W.

    Images are padded with grey on all sides to a multiple of the stride; logits are enlarged and the padding cut off.

    Args:
        selection: which of its classes make the set's; None for all, as they are.
    """

    def __init__(self, network: nn.Module, stride: int, sizes: Sizes, selection: Selection | None = None) -> None:
        super().__init__()
        self.network = network
        self.stride = stride
        self.sizes = sizes
        self.selection = selection

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        above, below = _halves(-height % self.stride)
        left, right = _halves(-width % self.stride)
        padded = functional.pad(images, (left, right, above, below), value=GREY)
        output = self.sizes.call(self.network, padded)
        logits = output[0] if isinstance(output, tuple) else output  # a second one is for training
        logits = functional.interpolate(logits, padded.shape[-2:], mode="bilinear")
        logits = logits[..., above : above + height, left : left + width]
        return logits if self.selection is None else self.selection.logits(logits)


def _halves(padding: int) -> tuple[int, int]:
    return padding // 2, padding - padding // 2


def load(name: str, weights: Path | None, classes: ClassSet | None) -> Segmenter:
    """`yolo26n-sem` … `yolo26x-sem`, with a checkpoint as `weights`; or the path of a .pt file, which holds both.

    A .pt file of ultralytics is a pickled network. It is read by the library's restricted loader, which makes known
    classes only. Nothing is downloaded. Classes are matched by the names in the file; see `naming.choose`.

    Raises:
        AllWeatherError: when ultralytics is missing or knows no semantic networks, for another name, or a checkpoint
            that holds no semantic network or does not fit.
    """
    tasks = _tasks()
    label = f"ultralytics:{name}"
    if name.lower().endswith(".pt"):
        if weights is not None:
            raise SettingsError(f"{label} holds a network and its weights. Leave out the other weights, {weights}.")
        network, provenance = _read(tasks, Path(name))
        if network is None:
            raise CheckpointError(
                f"{name} holds tensors but no network. Name the network, and this file as its weights: "
                "ultralytics:yolo26n-sem"
            )
    else:
        network, provenance = _named(tasks, name, weights, classes)
    classes, selection = choose(_names(network), classes, label)
    stride = int(network.stride.max())
    return Segmenter(
        Letterboxed(network, stride, Sizes(label, multiple=stride), selection),
        classes=classes,
        preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        name=label,
        provenance=provenance,
    ).eval()


def _tasks() -> Any:
    """The library's module of networks.

    Raises:
        MissingLibraryError: when it is not installed, or too old for semantic networks.
    """
    with _quietly():
        library = optional("ultralytics", "ultralytics")
        tasks = optional("ultralytics.nn.tasks", "ultralytics")
    if not hasattr(tasks, "SemanticSegmentationModel"):
        raise MissingLibraryError(
            f"ultralytics {library.__version__} knows no semantic networks. Renew it: pip install -U "
            "'allweather[ultralytics]'."
        )
    return tasks


@contextmanager
def _quietly() -> Iterator[None]:
    """Importing the library without what it does to the process: it replaces functions and sets variables."""
    if "ultralytics" in sys.modules:
        yield
        return
    save, open_, before = torch.save, Image.open, dict(os.environ)
    os.environ.update({name: value for name, value in QUIET.items() if name not in before})
    try:
        yield
    finally:
        torch.save, Image.open = save, open_  # its open installs packages where a picture is broken
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _named(tasks: Any, name: str, weights: Path | None, classes: ClassSet | None) -> tuple[Any, Provenance | None]:
    """The network `name`, with the weights of a file of either kind; `classes` name it where the file does not."""
    known = _known(tasks)
    check_known("semantic network of ultralytics", name, known)
    trained, provenance = _read(tasks, weights) if weights and weights.suffix.lower() == ".pt" else (None, None)
    names = (classes or CITYSCAPES).names if trained is None else _names(trained)
    network = tasks.SemanticSegmentationModel(tasks.yaml_model_load(f"{name}.yaml"), nc=len(names), verbose=False)
    network.names = dict(enumerate(names))
    if trained is not None:
        try:
            network.load_state_dict(trained.state_dict())
        except RuntimeError as error:
            raise CheckpointError(
                f"{weights} is another network than {name}. Load it as it is: ultralytics:{weights}"
            ) from error
    elif weights is not None:
        provenance = load_weights(network, weights, name=f"ultralytics:{name}")
    else:
        warnings.warn(RandomWeightsWarning(f"ultralytics:{name}"), stacklevel=4)
    return network, provenance


def _known(tasks: Any) -> list[str]:
    """Names of the semantic networks that the library describes: one for each file and scale."""
    folder = Path(tasks.__file__).parents[1] / "cfg" / "models"
    return sorted(
        re.sub(r"(\d+)", rf"\g<1>{scale}", file.stem, count=1)
        for file in folder.rglob("*-sem.yaml")
        for scale in tasks.yaml_model_load(file)["scales"]
    )


def _read(tasks: Any, file: Path) -> tuple[Any, Provenance | None]:
    """The network in a .pt file, in float32, and where it came from; None where the file holds tensors alone.

    Raises:
        CheckpointError: when there is no such file, it cannot be read without running code, or it is of another task.
    """
    digest = check_digest(file)
    check_sums(file)
    allowed = torch.serialization.get_safe_globals()
    try:
        checkpoint, _ = tasks.torch_safe_load(file, safe_only=True)
    except (TypeError, RuntimeError, AttributeError, ImportError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{file} is damaged, or holds more than ultralytics reads without running its code. Expected the .pt file "
            "of a semantic network as ultralytics wrote it; of others, save the state dict alone."
        ) from error
    finally:
        torch.serialization.clear_safe_globals()  # the library leaves its own for every later reader
        torch.serialization.add_safe_globals(allowed)
    key = next((key for key in TRAINED if isinstance(checkpoint.get(key), nn.Module)), None)
    if key is None:
        return None, None
    network = checkpoint[key]
    if not isinstance(network, tasks.SemanticSegmentationModel):
        raise CheckpointError(
            f"{file} holds a {type(network).__name__}; expected a semantic network, such as yolo26n-sem.pt."
        )
    return network.float().eval(), Provenance(file.name, digest, key)


def _names(network: Any) -> tuple[str, ...]:
    return tuple(str(network.names[index]) for index in range(network.model[-1].nc))
