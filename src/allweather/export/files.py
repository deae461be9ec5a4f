"""Files of an export: which kind a suffix asks for, and writing one whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from allweather.errors import SettingsError
from allweather.writing import unwritable, whole

SUFFIXES = {  # in the order in which they are tried
    ".delta.safetensors": "what moved alone, for allweather.apply_delta",
    ".safetensors": "a state dict, for load_state_dict of your own network",
    ".pt2": "a graph of torch.export",
    ".onnx": "a graph for ONNX Runtime and others",
}


def kind_of(path: Path) -> str:
    """The suffix of `SUFFIXES` that the file has.

    Raises:
        SettingsError: for any other.
    """
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return suffix
    known = ", ".join(f"NAME{suffix} ({what})" for suffix, what in SUFFIXES.items())
    raise SettingsError(f"{path}: expected one of {known}.")


@contextmanager
def finished(path: Path) -> Iterator[Path]:
    """Gives the name to write to; what stands there in the end, and was not refused, becomes `path`.

    Raises:
        AllWeatherError: when it cannot be written.
    """
    try:
        with whole(path, durable=True) as temporary:
            yield temporary
    except OSError as error:
        raise unwritable(path, error) from error
