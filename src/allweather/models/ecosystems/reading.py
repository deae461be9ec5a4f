"""Libraries at files that others wrote: a folder is read without the hub, and whatever a library raises is told."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import RLock
from typing import Any

from allweather.errors import AllWeatherError, NetworkError
from allweather.plugins import FAULTS

_turn = RLock()  # the libraries keep whether they are offline for the whole process


@contextmanager
def reading(name: str, failed: Callable[[Exception], AllWeatherError]) -> Iterator[None]:
    """Inside, a library reads `name`, a folder or a hub name.

    A configuration may name repositories of the hub. Of those that a folder names none is asked; what is in the cache
    is read there.

    Args:
        failed: the error for what a library raised.

    Raises:
        AllWeatherError: from `failed`, or NetworkError where a folder cannot be read without the hub.
    """
    local = os.path.exists(name)
    with _turn:
        constants: Any = import_module("huggingface_hub.constants")
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = before or local
        try:
            yield
        except (AllWeatherError, Warning):  # warnings that the user made errors are no faults of a file
            raise
        except FAULTS as error:
            if local and _was_offline(error):
                raise NetworkError(
                    f"{name} names more than lies in it, and nothing of the hub is fetched for a folder. Put what it "
                    "names into it (for a 'backbone', its configuration as 'backbone_config'), or load it by hub name."
                ) from error
            raise failed(error) from error
        finally:
            constants.HF_HUB_OFFLINE = before


def _was_offline(error: BaseException | None) -> bool:
    """Whether an error began with a request that was not made."""
    errors: Any = import_module("huggingface_hub.errors")
    while error is not None:
        if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False
