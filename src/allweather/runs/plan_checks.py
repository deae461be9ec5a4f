"""What a plan's values must be beside their types, so that a mistake is said when the plan is read, not by its runs."""

from collections.abc import Iterable
from typing import Any

import torch

from allweather.data.datasets import find_split
from allweather.data.scenes import scene_stream
from allweather.errors import SettingsError
from allweather.models.catalogue import published_size
from allweather.runs.shape import LARGEST

SCENES = "scenes:"


def check_values(where: str, value: Any) -> None:
    """Refuses what a record could not hold or nobody can mean: dates, numbers without end, text that names nothing.

    Args:
        value: as TOML gives it; a table holds the fields of a method or the arguments of a network.

    Raises:
        SettingsError: naming the first of them.
    """
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is not None:
        for name, each in inner:
            check_values(f"{where} {name}" if isinstance(value, dict) else where, each)
    elif value == "":
        raise SettingsError(f"{where}: expected a value, got an empty text. Leave the key out, or say which.")
    elif isinstance(value, str) and "\0" in value:
        raise SettingsError(
            f"{where}: expected text without a NUL character, which no name or path has, got {value!r}."
        )
    elif isinstance(value, int | float) and not abs(value) < LARGEST:
        raise SettingsError(f"{where}: expected a finite number below 2^63, got {value}.")
    elif not isinstance(value, str | int | float):
        raise SettingsError(f"{where}: expected text, a number, true or false, or a list of those, got {value}.")


def check_seeds(seeds: Iterable[int]) -> None:
    """Refuses seeds that no generator takes.

    Raises:
        SettingsError: for a negative one, or one of more than 63 bits.
    """
    for seed in seeds:
        if not 0 <= seed < LARGEST:
            raise SettingsError(f"seeds: expected 0 or more, and below 2^63; got {seed}.")


def check_device(name: str) -> None:
    """Refuses what is no device's name; whether this machine has it, only a run can tell, which may be elsewhere.

    Raises:
        SettingsError: for another name than torch's.
    """
    try:
        torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"[run] device: expected a device such as cpu, cuda or cuda:1, got '{name}'.") from error


def size_of_network(name: str) -> str | None:
    """WIDTHxHEIGHT at which a network's authors evaluate it, None where they keep frames; no network is built.

    Raises:
        AllWeatherError: for a network that is neither in the catalogue, of a library nor of one's own.
    """
    size = published_size(name)
    return None if size is None else f"{size[0]}x{size[1]}"


def check_pieces(pieces: Iterable[str], *, procedural: bool) -> None:
    """Refuses splits and weathers that do not exist.

    Args:
        pieces: `dataset:split`, or where procedural `scenes:WEATHER`, as they are found from here.

    Raises:
        AllWeatherError: for another name.
    """
    for piece in pieces:
        if procedural:
            scene_stream(piece.removeprefix(SCENES), range(1))
        else:
            dataset, split = find_split(piece)
            dataset.split(split)
