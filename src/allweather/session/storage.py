"""A session on disk: one safetensors file of all that moved, checked whole before the session that reads it changes."""

import json
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from allweather.errors import CheckpointError
from allweather.models.digest import digest
from allweather.models.passed_on import SESSION, check_finite, read_object
from allweather.writing import whole

LOG = logging.getLogger(__name__)
_BEFORE = {"surest": "False"}  # settings that older files do not say, and what they were made with
OUTPUT = "network.output"  # which entry of what the network returns; older files do not say, and fit any
_TELLING = ("name", "network", "weights")  # other settings differ because these do
_DIGEST = "allweather.digest"


class UnlikeError(CheckpointError):
    """A session of another network, method or setting than the one that would go on from it."""


def save_session(path: Path, tensors: Mapping[str, Tensor], identity: Mapping[str, str]) -> None:
    """Writes the file whole or not at all; missing folders are made.

    Raises:
        CheckpointError: when it cannot be written, would replace a file that holds no session, or could not be loaded
            for numbers that are not finite.
    """
    check_replaceable(path)
    try:
        check_finite(path, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"cannot write the session: {error} None goes on from those: reset it.") from error
    tensors = {name: tensor.detach().contiguous().cpu().clone() for name, tensor in tensors.items()}
    metadata = {SESSION: json.dumps(identity), _DIGEST: digest(tensors)}
    try:
        with whole(path, durable=True) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write the session to {path}: {error}.") from error


def check_replaceable(path: Path) -> None:
    """Refuses to put a session in the place of weights, pictures or whatever else is there.

    Raises:
        CheckpointError: for a file with anything but a session in it.
    """
    if path.is_file() and path.stat().st_size and not holds_session(path):
        raise CheckpointError(
            f"{path} is there already, and no session: saving one would replace it. Name another file, or remove it."
        )


def holds_session(path: Path) -> bool:
    """Whether there is a file that `save_session` wrote; its tensors are not looked at."""
    try:
        with safe_open(path, framework="pt") as file:
            return SESSION in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def load_session(path: Path, moved: Mapping[str, Tensor], identity: Mapping[str, str]) -> dict[str, Tensor]:
    """The file's tensors, all of them there and of the right shape and type; nothing is changed by reading them.

    Args:
        moved: the tensors that the session must find in it.
        identity: what the session that wrote it must have been.

    Raises:
        CheckpointError: for an unreadable or damaged file, or one of another version; UnlikeError for one of another
            network, method or setting.
    """
    tensors, metadata = _read(path)
    found = _identity(path, metadata)
    if (version := found.get("format")) != identity["format"]:
        raise CheckpointError(
            f"{path} was saved by another version of allweather: its format is {version}, this one reads "
            f"{identity['format']}. Load it with the version that saved it, or adapt again."
        )
    for key in sorted(identity.keys() | found.keys(), key=lambda key: (key not in _TELLING, key)):
        if not same(key, identity, found):
            raise UnlikeError(
                f"{path} was saved with {key}={found.get(key)}, this session has {key}={identity.get(key)}. "
                "Make the session with the same network, weights, preprocessing and settings. To predict without going "
                "on: `allweather export`, and what that writes as --weights; in Python `session.predict`."
            )
    _check_digest(path, tensors, metadata)
    tell_names(found["network"], identity["network"])
    for name, tensor in moved.items():
        came = tensors.get(name)
        if came is None or came.shape != tensor.shape or came.dtype != tensor.dtype:
            said = "nothing" if came is None else f"{came.dtype} of shape {tuple(came.shape)}"
            raise CheckpointError(f"{path}: expected {name}, {tensor.dtype} of {tuple(tensor.shape)}; found {said}.")
    check_finite(path, tensors)
    return tensors


def read_saved(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a saved session, and what the session was, setting by setting.

    Raises:
        CheckpointError: for a file that is none, or damaged.
    """
    tensors, metadata = _read(path)
    identity = _identity(path, metadata)
    _check_digest(path, tensors, metadata)
    return tensors, identity


def read_identity(path: Path) -> dict[str, str]:
    """What the session that wrote the file was, setting by setting.

    Raises:
        CheckpointError: for a file that is none, or damaged.
    """
    return _identity(path, _read(path)[1])


def is_same_network(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two sessions are of one network by its weights, whatever it is called."""
    return one.get("weights") is not None and one.get("weights") == other.get("weights")


@cache
def tell_names(saved: str, here: str) -> None:
    """Says once that a network goes by two names."""
    if saved != here:
        LOG.warning("a session of %s is taken for one of %s: weights, preprocessing and classes are equal", saved, here)


def same(key: str, one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two sessions are one in a setting; older files have whole numbers as they were given.

    A worker's session has absolute paths: a relative one is of the current folder, or, in the file that the worker
    begins from, `other`, the same where `one` ends so.

    Python and files name one network differently: of equal weights, any names are one. What its input and output mean
    are settings of their own.
    """
    if key not in one or key not in other:
        return key == OUTPUT or _BEFORE.get(key) == one.get(key, other.get(key))
    if key == "network" and is_same_network(one, other):
        return True
    here, there = one[key], other[key]
    return _as_number(here) == _as_number(there) or _is_one_place(here, there)


def _is_one_place(here: str, there: str) -> bool:
    one, other = Path(here), Path(there)
    if not here or not there or one.is_absolute() == other.is_absolute():
        return False
    ends_so = one.is_absolute() and one.parts[-len(other.parts) :] == other.parts
    return ends_so or one.absolute() == other.absolute()


def _as_number(text: str) -> str:
    return text.removesuffix(".0") if text.removesuffix(".0").lstrip("-").isdecimal() else text


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # copies: where a file is mapped, Windows refuses to replace or remove it
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read a session from {path}: {error}.") from error
    return tensors, metadata


def _check_digest(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    if metadata.get(_DIGEST) != digest(tensors):
        raise CheckpointError(f"{path} is damaged: its contents are not those that were saved. Save the session again.")


def _identity(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """What the session that wrote the file was: setting by setting."""
    if SESSION not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file, but not one that Session.save wrote. What `allweather export` wrote is a "
            "checkpoint: give it as the network's weights."
        )
    identity = read_object(path, metadata, SESSION)
    if not all(isinstance(value, str) for value in identity.values()):
        raise CheckpointError(f"{path} is damaged: expected its settings as names and texts.")
    return identity
