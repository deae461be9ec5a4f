"""What the options of a verb describe: a network, a session, a stream of frames."""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from allweather import methods
from allweather.app.console import narration, plain, warn
from allweather.app.options import check_sides, parse_size
from allweather.data import Stream, VideoStream, load_stream
from allweather.data.folder import open_files, tell_others
from allweather.data.video import suffixes
from allweather.errors import CheckpointError, ImageError, InputError, RandomWeightsWarning, SettingsError
from allweather.models import Segmenter, load_model
from allweather.models.catalogue import published_size
from allweather.models.placing import place
from allweather.session import ScaleAdvice, Session
from allweather.session.arguments import check_seed

_ENDLESS = re.compile(r"camera:|[a-zA-Z][a-zA-Z0-9+.-]+:/")  # no file: a Path has lost one slash


def open_session(
    model: str,
    weights: Path | None,
    method: str,
    preset: str,
    settings: dict[str, str],
    device: str = "cpu",
    network: Mapping[str, Any] | None = None,
    *,
    sha256: str | None = None,
    random_weights: bool = False,
    seed: int = 0,
    **options: Any,
) -> Session:
    """The session that the options describe; warnings of loading become narration.

    Args:
        network: more of `load_model`'s arguments.
        random_weights: takes a network without weights; it has those of `seed`.

    Raises:
        AllWeatherError: for anything unknown or unreadable among them.
    """
    methods.make(method, preset, settings)  # a misspelt method must not wait for a checkpoint
    loaded = open_network(model, weights, device, network, sha256=sha256, random_weights=random_weights, seed=seed)
    return Session(loaded, methods.make(method, preset, settings, model=loaded), seed=seed, **options)


def open_network(
    model: str,
    weights: Path | None,
    device: str = "cpu",
    network: Mapping[str, Any] | None = None,
    *,
    sha256: str | None = None,
    random_weights: bool = False,
    seed: int = 0,
) -> Segmenter:
    """The network that the options describe, on its device; as `open_session`."""
    check_seed(seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if random_weights:
            torch.manual_seed(seed)
        loaded = load_model(model, weights, sha256=sha256, **(network or {}))
    _check_weights(model, any(issubclass(each.category, RandomWeightsWarning) for each in caught), random_weights)
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            warn(str(warning.message))
    return place(loaded, device, "--device")


def open_inputs(inputs: list[Path], dataset: str | None, size: tuple[int, int] | None) -> Stream:
    """The frames of a dataset, of folders and files of images, or of one video.

    Raises:
        AllWeatherError: for inputs that are missing, empty, or do not go together.
    """
    if dataset is not None:
        if len(inputs) != 1:
            raise SettingsError(f"--dataset {dataset}: expected one INPUT, the dataset's root, got {len(inputs)}.")
        return load_stream(dataset, inputs[0], size)
    if not inputs:
        raise InputError("INPUT is missing: expected folders of images, image files, or one video.")
    for given in inputs:
        if _ENDLESS.match(str(given)) and not given.exists():
            raise InputError(
                f"{given}: expected files, got an address or a camera. `allweather live` adapts to those, picture "
                "by picture as they come."
            )
    videos = [given for given in inputs if given.suffix.lower() in suffixes and not given.is_dir()]
    if not videos:
        stream = open_files(inputs, size)
        tell_others(inputs)
        return stream
    if len(inputs) > 1:
        raise SettingsError(
            f"{videos[0]} is a video: expected it as the only INPUT, got {len(inputs)}. Run each alone, or each as a "
            "stream of its own: --streams-by folder."
        )
    if not videos[0].exists():
        raise InputError(f"no such input: {videos[0]}. Expected a folder of images, image files or a video.")
    return VideoStream(videos[0], size)


def frame_size(asked: str | None, model: str, option: str = "--size") -> tuple[int, int] | None:
    """The size asked for, or the one at which the network's authors evaluate it; None keeps each frame's own."""
    if asked is not None:
        return None if asked == "native" else parse_size(asked)
    size = published_size(model)
    if size:
        narration.print(f"frames are resampled to {size[0]}×{size[1]}, as the authors of {plain(model)} do ({option})")
    return size


def scaled(size: tuple[int, int] | None, scale: float) -> tuple[int, int]:
    """(width, height) times the scale.

    Raises:
        SettingsError: where frames keep their own sizes, or a side would be one that no network could take.
    """
    if size is None:
        raise SettingsError(
            "--scale: expected a size to enlarge; every frame keeps its own. Give it with --size WIDTHxHEIGHT."
        )
    width, height = size
    return check_sides((round(width * scale), round(height * scale)))


def readable(stream: Stream) -> Iterator[Tensor]:
    """The images of the frames that can be read, in order."""
    for name in stream.names:
        with suppress(ImageError):
            yield stream.read(name).image


def tell_scale(advice: ScaleAdvice) -> None:
    """Says what was chosen and why."""
    seen = f"{advice.frames} frame{'s' if advice.frames > 1 else ''}"
    verdict = f"enlarged by {advice.scale:g}" if advice.scale != 1 else "kept at their size"
    narration.print(
        f"frames are {verdict}: entropy at 1.5 times their size is {advice.ratio:.2f} of that at it ({seen})"
    )


def _check_weights(model: str, random: bool, allowed: bool) -> None:
    if random and not allowed:
        raise CheckpointError(
            f"{model} comes without weights, and none were given. Name its checkpoint: --weights FILE. To try things "
            "with random ones, add --random-weights."
        )
    if allowed and not random:
        raise SettingsError(f"--random-weights: {model} has weights here. Leave the option out.")
