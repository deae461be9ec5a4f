"""The folder where the page's uploads lie until they are read: one per process, gone with its last application."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

_kept: list["TemporaryDirectory[str]"] = []
_using: list[object] = []
_lock = threading.Lock()


@cache
def uploads_folder() -> Path:
    """Where the page's uploads lie.

    The page's library makes folders there when it is imported, so this must be called before.
    """
    folder = TemporaryDirectory(prefix="allweather-serve-")
    _kept.append(folder)
    os.environ["GRADIO_TEMP_DIR"] = folder.name
    return Path(folder.name)


@contextmanager
def uploads_here() -> Iterator[None]:
    """The folder is there within the block, and removed where no other application of the process is in one.

    A process that ends by a signal does not come to what Python does at its end.
    """
    folder, mine = uploads_folder(), object()
    with _lock:
        _using.append(mine)
        folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        with _lock:
            _using.remove(mine)
            if not _using:
                shutil.rmtree(folder, ignore_errors=True)
