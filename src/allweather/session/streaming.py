"""A session over frames of one's own: one frame asked for, adapted to and given back at a time."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from allweather.errors import InputError
from allweather.pictures.convert import read_image
from allweather.plugins import FAULTS
from allweather.session.result import Result
from allweather.values import check_number

F = TypeVar("F")
OnFrame: TypeAlias = Callable[[F, Result], object]
Unreadable: TypeAlias = bool | Callable[[F | None, InputError], object]

_log = logging.getLogger(__name__)


class Adapts(Protocol):
    """What adapts to a picture, or to a batch of them, and predicts it."""

    def __call__(self, images: Tensor, /) -> Result: ...


class Streaming:
    """Gives what adapts to pictures the method that adapts to a stream of them."""

    def stream(
        self: Adapts,
        frames: Iterable[F],
        *,
        batch: int = 1,
        on_frame: OnFrame[F] | None = None,
        skip_unreadable: Unreadable[F] = False,
    ) -> Iterator[Result]:
        """Adapts to frames one after another: `for result in session.stream(frames)`.

        The next frame (or batch) is read only when its result is asked for. The loop may be left at any time. An error
        of `frames` or `on_frame` is raised as it is, after the results of the frames before it; the session then stands
        after the last frame that it adapted to.

        Args:
            frames: an iterable of pictures as `session(…)` takes them, or of objects with a picture as `image` or
                `pixels`: a list, a generator, a batch, a `load_stream(…)`, a `data.Video`.
            batch: number of frames that are adapted to together, at least 1; fewer at the end and where the size
                changes.
            on_frame: called as on_frame(frame, result) before each result is given.
            skip_unreadable: what to do with a frame that is no readable picture. False: raise. True: leave it out, with
                a warning in the log. A function: called as skip_unreadable(frame, error), with frame None where the
                frame itself could not be read. An error that ends a generator is always raised.

        Returns:
            One result per frame, logits C×H×W. Frames of one batch share losses, decision and seconds.

        Raises:
            InputError: for a frame that is no picture, or `frames` that cannot be iterated over.
            SettingsError: for a batch below 1.

        Example:
            >>> import allweather as aw, numpy as np
            >>> session = aw.Session(aw.load_model("demo:streetnet"), "tent")
            >>> camera = (np.zeros((64, 96, 3), np.uint8) + 9 * number for number in range(2))
            >>> [result.labels.shape for result in session.stream(camera)]
            [torch.Size([64, 96]), torch.Size([64, 96])]
        """
        check_number("Session.stream, batch", batch, whole=True, low=1)
        check_frames(frames, "Session.stream", "session(picture)")
        return _results(self, _Source(frames, skip_unreadable), batch, on_frame)


def _results(adapt: Adapts, source: _Source[F], batch: int, on_frame: OnFrame[F] | None) -> Iterator[Result]:
    for group in grouped(source, batch, lambda pair: pair[1].shape):
        frames, images = zip(*group, strict=True)
        together = adapt(images[0] if batch == 1 else torch.stack(images))
        for frame, result in zip(frames, [together] if batch == 1 else apart(together), strict=True):
            if on_frame is not None:
                on_frame(frame, result)
            yield result


def grouped(items: Iterable[F], most: int, size: Callable[[F], torch.Size | None]) -> Iterator[list[F]]:
    """The items, `most` at a time; fewer at the end, where the size changes, and before an error of `items`.

    One of size None goes with any.
    """
    group: list[F] = []
    last: torch.Size | None = None  # of the last item that has one
    try:
        for item in items:
            now = size(item) or last
            if group and last is not None and now != last:
                yield group
                group = []
            group.append(item)
            last = now
            if len(group) == most:
                yield group
                group = []
    except FAULTS:
        if group:
            yield group
        raise
    if group:
        yield group


def apart(together: Result) -> list[Result]:
    """The result of each image of a batch, in memory of its own; what concerns the batch as a whole is that of each."""
    several = len(together.logits) > 1
    images = [None] * len(together.logits) if together.images is None else together.images
    parts = [[each if each is None or not several else each.clone() for each in of] for of in (together.logits, images)]
    return [replace(together, logits=logits, images=image) for logits, image in zip(*parts, strict=True)]


class _Source(Iterator[tuple[F, Tensor]]):
    """The frames that can be read, each with its image."""

    def __init__(self, frames: Iterable[F], skip_unreadable: Unreadable[F]) -> None:
        self._frames = iter(frames)
        self._skip = skip_unreadable

    def __next__(self) -> tuple[F, Tensor]:
        while True:
            frame: F | None = None
            try:
                frame = next(self._frames)
                return frame, read_image(picture_of(frame))
            except InputError as error:
                if not self._skip or (frame is None and inspect.isgenerator(self._frames)):
                    raise  # a generator that raised gives nothing more: skipping would lose the rest in silence
                self._tell(frame, error)

    def _tell(self, frame: F | None, error: InputError) -> None:
        if callable(self._skip):
            self._skip(frame, error)
        else:
            _log.warning("skipped: %s", error)


def picture_of(frame: Any) -> Any:
    """The picture that a frame is, or has: its `image`, or its `pixels`."""
    if isinstance(frame, np.ndarray | Tensor):
        return frame
    for name in ("image", "pixels"):
        if isinstance(held := getattr(frame, name, None), np.ndarray | Tensor):
            return held
    return frame


def check_frames(frames: Any, who: str, single: str = "[picture]") -> None:
    """Refuses what is no stream of frames, for `who` asks; `single` is where one picture goes.

    Raises:
        InputError: for text, a path, one picture, and all else that cannot be iterated over.
    """
    if isinstance(frames, str | bytes) or not isinstance(frames, Iterable):
        what = repr(frames) if isinstance(frames, str | bytes) else f"a {type(frames).__name__}"
        raise InputError(
            f"{who}: expected frames one after another, such as a list, a generator or "
            f'allweather.load_stream("video", path); got {what}. A single picture is given as {single}.'
        )
    if isinstance(frames, np.ndarray | Tensor) and frames.ndim != 4:
        raise InputError(
            f"{who}: expected frames one after another, or a batch of them with four dimensions; got shape "
            f"{tuple(frames.shape)}. A single picture is given as {single}."
        )
