"""Adapts any pretrained urban-scene segmentation network to the weather in front of the camera, at test time."""

import logging as _logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from allweather import methods
    from allweather.allocator import keep_freed_memory
    from allweather.classes import CAMVID11, CITYSCAPES, ClassSet
    from allweather.data import Frame, load_stream
    from allweather.errors import (
        AllWeatherError,
        CheckpointError,
        ImageError,
        InputError,
        MissingLibraryError,
        NetworkError,
        SettingsError,
    )
    from allweather.export import apply_delta, from_hub
    from allweather.live import Live
    from allweather.models import Segmenter, list_models, load_model
    from allweather.ncut import Affinity, normalized_cut
    from allweather.pictures import read_image
    from allweather.session import Guard, Result, Session, advise_scale

    __version__: str

__all__ = [
    "CAMVID11",
    "CITYSCAPES",
    "Affinity",
    "AllWeatherError",
    "CheckpointError",
    "ClassSet",
    "Frame",
    "Guard",
    "ImageError",
    "InputError",
    "Live",
    "MissingLibraryError",
    "NetworkError",
    "Result",
    "Segmenter",
    "Session",
    "SettingsError",
    "__version__",
    "advise_scale",
    "apply_delta",
    "from_hub",
    "keep_freed_memory",
    "list_models",
    "load_model",
    "load_stream",
    "methods",
    "normalized_cut",
    "read_image",
]

_logging.getLogger(__name__).addHandler(_logging.NullHandler())  # silent until the caller asks

# A name is imported when it is first used: the command line answers --version and --help without loading torch.
_HOMES = {
    "allocator": ("keep_freed_memory",),
    "classes": ("CAMVID11", "CITYSCAPES", "ClassSet"),
    "data": ("Frame", "load_stream"),
    "errors": (
        "AllWeatherError", "CheckpointError", "ImageError", "InputError", "MissingLibraryError", "NetworkError",
        "SettingsError",
    ),
    "export": ("apply_delta", "from_hub"),
    "live": ("Live",),
    "models": ("Segmenter", "list_models", "load_model"),
    "ncut": ("Affinity", "normalized_cut"),
    "pictures": ("read_image",),
    "session": ("Guard", "Result", "Session", "advise_scale"),
}  # fmt: skip
_ROOMS = ("classes", "data", "errors", "export", "live", "methods", "models", "ncut", "pictures", "serve", "session")


if not TYPE_CHECKING:  # a type checker knows every name, and which are none

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return import_module("importlib.metadata").version("allweather")
        if name in _ROOMS:
            return import_module(f"allweather.{name}")
        for room, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"allweather.{room}"), name)
        raise AttributeError(f"module 'allweather' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
