"""Semantic segmentation networks of Hugging Face transformers, from a hub name or a local folder."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from allweather.classes import ClassSet
from allweather.errors import CheckpointError, NetworkError, first_line, optional
from allweather.models.checkpoints import load_weights
from allweather.models.digest import digest
from allweather.models.ecosystems.masks import MaskLogits, Split
from allweather.models.ecosystems.naming import Selection, choose
from allweather.models.ecosystems.processors import preprocessing, reduces_labels
from allweather.models.ecosystems.reading import reading
from allweather.models.ecosystems.sizes import Sizes
from allweather.models.segmenter import Provenance, Segmenter

MASK_MODELS = ("mask2former", "maskformer", "oneformer", "eomt", "eomt_dinov3")
SPLIT_MODELS = ("eomt", "eomt_dinov3")  # whose position embeddings are of one size
ANY_SIZE = ("mobilevit", "mobilevitv2")  # patches of features, not of pixels
EVEN_PATCHES = ("dpt", "tipsv2_dpt")  # necks that halve the grid of patches
BACKGROUND = ("background", "unlabeled", "unlabelled", "void", "ignore", "other")
REPORT = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # so that what is wrong is named here
TASK = "the task is semantic"  # what OneFormer is told
TASK_LENGTH = 77  # tokens


class Logits(nn.Module):
    """A transformers network that is called with pixel values and gives logits alone.

    Args:
        selection: which of its classes make the set's; None for all, as they are.
        sizes: what image sizes it takes.
    """

    def __init__(self, network: nn.Module, *, selection: Selection | None = None, sizes: Sizes | None = None) -> None:
        super().__init__()
        self.network = network
        self.selection = selection
        self.sizes = sizes or Sizes("the network")

    def forward(self, pixels: Tensor) -> Tensor:
        logits = self.sizes.call(self._run, pixels)
        return logits if self.selection is None else self.selection.logits(logits)

    def _run(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=pixels).logits
        return logits


def load(name: str, weights: Path | None, classes: ClassSet | None) -> Segmenter:
    """`name` as `from_pretrained` takes it: a folder with config.json and weights, or a hub name.

    Images keep their size: the processor's resizing is left out, and sides are padded to a multiple of the patch only
    where the architecture has patches and does not pad by itself. EoMT, which takes squares of one size, is given
    squares as the library cuts them.

    With `weights` only the configuration is taken from there, and the state dict from the file. Classes are matched by
    the names in the configuration; see `naming.choose`.

    Raises:
        AllWeatherError: when transformers is missing, the network cannot be loaded, or it is no segmentation network.
    """
    library = optional("transformers", "transformers")
    label = f"transformers:{name}"
    with reading(name, partial(_failed, name)):
        with _quietly(library):
            config = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
            auto = _auto_class(library, config, label)
            network, provenance = _network(library, auto, config, name, weights)
            task = _task(library, name) if config.model_type == "oneformer" else None
        classes, selection = choose(_names(library, name, config), classes, label)
        multiple = _multiple(config)
        sizes = Sizes(label, _own_size(config), multiple if multiple > 1 else 32)
        masks = config.model_type in MASK_MODELS
        return Segmenter(
            MaskLogits(network, task, selection=selection, sizes=sizes, split=_split(config))
            if masks
            else Logits(network, selection=selection, sizes=sizes),
            classes=classes,
            preprocessing=preprocessing(library, name, config, multiple),
            name=label,
            provenance=provenance,
        ).eval()


@contextmanager
def _quietly(library: Any) -> Iterator[None]:
    """Loading without the library's bars and reports; what matters of them is raised here."""
    logging = library.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _failed(name: str, error: Exception) -> NetworkError:
    return NetworkError(
        f"transformers cannot load '{name}': {_reason(name, error)}. Expected a hub name, or a folder with "
        "config.json and model.safetensors of a semantic segmentation network."
    )


def _reason(name: str, error: Exception) -> str:
    """Why `name` cannot be loaded; the library takes a path that does not exist for a name of the hub."""
    if not name.strip():
        return "no name was given"
    if Path(name).is_dir():
        return first_line(error) if (Path(name) / "config.json").is_file() else "the folder has no config.json"
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return "there is no such folder"
    return first_line(error)


def _auto_class(library: Any, config: Any, label: str) -> Any:
    """The library's class of segmentation networks to which a configuration belongs.

    Raises:
        NetworkError: for another kind of network, or one with other than three channels.
    """
    semantic = type(config) in library.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    if not semantic and config.model_type not in MASK_MODELS:
        known = sorted(each.model_type for each in library.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING)
        raise NetworkError(
            f"{label} is a network of type '{config.model_type}', which is not supported. Supported: "
            f"{', '.join([*known, *MASK_MODELS])}."
        )
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise NetworkError(f"{label} takes images of {channels} channels; expected a network of 3 (RGB).")
    return library.AutoModelForSemanticSegmentation if semantic else library.AutoModelForUniversalSegmentation


def _network(library: Any, auto: Any, config: Any, name: str, weights: Path | None) -> tuple[nn.Module, Provenance]:
    """The network with its weights in float32, and where they came from.

    Raises:
        CheckpointError: when tensors of the network are missing or of another shape.
    """
    file = weights or _pickled(library, name)
    if file is not None:
        network = auto.from_config(config).float()
        translate = partial(renamed, network, file)
        return network, load_weights(network, file, name=f"transformers:{name}", translate=translate)
    network, report = auto.from_pretrained(name, config=config, use_safetensors=True, trust_remote_code=False, **REPORT)
    _refuse_gaps(report, f"the weights of transformers:{name}", kinds=("missing_keys", "mismatched_keys"))
    network = network.float()
    return network, Provenance(f"transformers:{name}", digest(network.state_dict()))


def _pickled(library: Any, name: str) -> Path | None:
    """pytorch_model.bin of a repository that has no safetensors; it is read as data, without running its code."""
    for file in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        try:
            found = library.utils.cached_file(name, file)
        except OSError:
            continue
        return Path(found) if found and file.endswith(".bin") else None
    return None


def renamed(network: Any, file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of earlier versions of the library, under those of this one."""
    loaded, report = type(network).from_pretrained(None, config=network.config, state_dict=dict(tensors), **REPORT)
    _refuse_gaps(report, str(file), kinds=("missing_keys", "mismatched_keys", "unexpected_keys"))
    state: dict[str, Tensor] = loaded.state_dict()
    return state


def _refuse_gaps(report: Any, what: str, kinds: tuple[str, ...]) -> None:
    """An error where the library would go on with random numbers."""
    for kind in kinds:
        keys = sorted(_described(key) for key in report.get(kind) or ())
        if keys:
            raise CheckpointError(
                f"{what}: {len(keys)} {kind.replace('_keys', '')} tensors (first: {keys[0]}). Expected those of the "
                "whole segmentation network, its head included."
            )


def _described(key: Any) -> str:
    """A tensor's name, with both shapes where that is what differs."""
    if isinstance(key, tuple):
        name, came, wanted = key
        return f"{name}, {tuple(came)} in the file, {tuple(wanted)} in the network"
    return str(key)


def _task(library: Any, name: str) -> Tensor:
    tokenizer = library.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    ids = tokenizer(TASK, padding="max_length", max_length=TASK_LENGTH, truncation=True)["input_ids"]
    return torch.tensor([ids])


def _names(library: Any, name: str, config: Any) -> tuple[str, ...]:
    """Class names by logit.

    With reduced labels the files' label 0, the background, has no logit; names that begin with it are those of the
    files, one off.
    """
    names = [str(config.id2label.get(index, f"LABEL_{index}")) for index in range(config.num_labels)]
    if names[0].strip().casefold() in BACKGROUND and reduces_labels(library, name):
        names = [*names[1:], str(config.id2label.get(len(names), "unused"))]
    return tuple(names)


def _multiple(config: Any) -> int:
    """To what images are padded: the patch of a plain vision transformer, which would cut off the rest; else 1.

    Backbones with stages (`depths`) take any size.
    """
    body = getattr(config, "backbone_config", None) or config
    patch = getattr(body, "patch_size", None)
    if config.model_type in SPLIT_MODELS or body.model_type in ANY_SIZE or hasattr(body, "depths") or patch is None:
        return 1
    side = patch if isinstance(patch, int) else max(patch)
    return side * 2 if config.model_type in EVEN_PATCHES else side


def _own_size(config: Any) -> tuple[int, int] | None:
    """(height, width) that the configuration names."""
    body = getattr(config, "backbone_config", None) or config
    size = getattr(config, "image_size", None) or getattr(body, "image_size", None)
    return (size, size) if isinstance(size, int) else tuple(size) if size else None


def _split(config: Any) -> Split | None:
    return Split(max(_own_size(config) or (0,))) if config.model_type in SPLIT_MODELS else None
