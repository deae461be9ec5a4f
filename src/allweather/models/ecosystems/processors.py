"""Pixel values as the image processor of a transformers network makes them."""

import json
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from allweather.errors import NetworkError, first_line, optional
from allweather.models.ecosystems.reading import reading
from allweather.models.segmenter import Preprocessing
from allweather.plugins import FAULTS

FILES = ("preprocessor_config.json", "processor_config.json")
SIZES = ("do_resize", "do_center_crop", "do_pad", "do_split_image")  # steps that set the size: here the user does
CLOSE = 1e-4  # between pixel values of the processor and of `Preprocessing`


def preprocessing(library: Any, name: str, config: Any, size_multiple: int) -> Preprocessing:
    """What `AutoImageProcessor` does to pixel values: rescaling, normalisation, order of channels.

    Steps that resize, crop or pad are left out: the image's size is the user's. The values are checked against those
    that the processor gives for a picture of noise.

    Args:
        name: a folder or hub name, as `from_pretrained` takes it.
        config: of the network, whose default processor is taken, with a warning, where `name` has none.
        size_multiple: to which images are padded, in pixels.

    Raises:
        NetworkError: when there is a processor that cannot be loaded, or that does something else to pixel values.
    """
    processor = _load(library, name, config)
    normalised = bool(getattr(processor, "do_normalize", False))
    rescaled = bool(getattr(processor, "do_rescale", False))
    with reading(name, partial(_failed, name)):
        found = Preprocessing(
            mean=_triple(processor.image_mean, name) if normalised else (0.0, 0.0, 0.0),
            std=_triple(processor.image_std, name) if normalised else (1.0, 1.0, 1.0),
            value_range=255 * processor.rescale_factor if rescaled else 255.0,
            bgr=bool(getattr(processor, "do_flip_channel_order", False)),
            size_multiple=size_multiple,
        )
        _check(processor, found, name)
    return found


def reduces_labels(library: Any, name: str) -> bool:
    """Whether the network's logit i stands for label i + 1 of the files that it was trained on.

    Processors of older files spell it `reduce_labels`.
    """
    with suppress(OSError):
        settings, _ = library.ImageProcessingMixin.get_image_processor_dict(name)
        return bool(settings.get("do_reduce_labels", settings.get("reduce_labels", False)))
    return False


def _load(library: Any, name: str, config: Any) -> Any:
    # class_info_file names OneFormer's words for training, in another repository
    options = {"class_info_file": None} if config.model_type == "oneformer" else {}
    try:
        return library.AutoImageProcessor.from_pretrained(name, trust_remote_code=False, **options)
    except FAULTS as error:
        if not _has_none(name):
            raise _failed(name, error) from error
    warnings.warn(
        f"'{name}' has no preprocessor_config.json: pixel values are made as transformers does by default for "
        f"{config.model_type}",
        stacklevel=5,
    )
    return _default(library, config)


def _failed(name: str, error: Exception) -> NetworkError:
    return NetworkError(
        f"transformers cannot load the image processor of '{name}': {first_line(error)}. "
        "Pixel values would be a guess: fetch its preprocessor_config.json, or write one."
    )


def _has_none(name: str) -> bool:
    """Whether it is certain that there is no processor's file: none in the folder, or none in the hub's repository."""
    if Path(name).is_dir():
        return not any((Path(name) / file).is_file() for file in FILES)
    return all(_is_absent(name, file) for file in FILES)


def _is_absent(name: str, file: str) -> bool:
    hub = optional("huggingface_hub", "transformers")
    known = hub.try_to_load_from_cache(name, file)  # a path, None, or a mark that the hub has no such file
    if known is not None:
        return not isinstance(known, str)
    try:
        hub.hf_hub_download(name, file)
    except hub.errors.LocalEntryNotFoundError:
        return False  # the hub could not be asked
    except hub.errors.EntryNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _default(library: Any, config: Any) -> Any:
    """The processor that the library makes for an architecture when nothing is set."""
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        (Path(folder) / FILES[0]).write_text(json.dumps({}))
        return library.AutoImageProcessor.from_pretrained(folder)


def _triple(value: float | list[float] | tuple[float, ...], name: str) -> tuple[float, float, float]:
    values = (value,) * 3 if isinstance(value, int | float) else tuple(value)
    if len(values) != 3:
        raise NetworkError(f"{name}: its image processor normalises {len(values)} channels; expected 3 (RGB).")
    return float(values[0]), float(values[1]), float(values[2])


def _check(processor: Any, found: Preprocessing, name: str) -> None:
    """Whether `found` gives what the processor gives, sizes left alone."""
    bytes_ = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    off: dict[str, Any] = {step: False for step in SIZES if getattr(processor, step, None) is not None}
    if "task_inputs" in getattr(processor, "model_input_names", ()):
        off["task_inputs"] = ["semantic"]
    given = processor(images=bytes_, return_tensors="pt", input_data_format="channels_last", **off)["pixel_values"]
    ours = found.apply(torch.from_numpy(bytes_).permute(2, 0, 1)[None] / 255)
    scale = max(1.0, float(ours.abs().max()))
    if given.shape != ours.shape or float((given - ours).abs().max()) > CLOSE * scale:
        raise NetworkError(
            f"{name}: its {type(processor).__name__} does more to pixel values than rescaling, normalising and "
            "changing the order of channels, which is all that can be followed. Wrap it yourself: Segmenter.wrap."
        )
