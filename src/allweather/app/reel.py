"""The film that `allweather adapt` writes: each frame's input, source and adapted prediction side by side."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from allweather.app.drawn import Drawn, shrunk
from allweather.app.options import parse_names
from allweather.data import Stream
from allweather.errors import SettingsError
from allweather.finite import all_finite
from allweather.pictures.drawing import overlay_of
from allweather.pictures.film import Film
from allweather.pictures.panels import fitted, side_by_side
from allweather.pictures.pyav import load_pyav

Panel = Literal["input", "source", "adapted"]
PANELS: tuple[Panel, ...] = get_args(Panel)
WIDEST = 3840  # pixels of all panels together: players take no wider film than 4096
IMAGES_RATE = Fraction(10)  # frames per second of a film of images


class Reel:
    """A film of panels; pictures are made in any thread, and added in order.

    Args:
        path: the film.
        panels: what it shows, from left to right.
        rate: frames per second.
        seconds: when each frame is shown, by name; None shows all at the rate.
        numbered: whether names are places at the rate: where frames are missing, those after them are not moved up.

    Raises:
        MissingLibraryError: when PyAV is not installed.
    """

    def __init__(
        self, path: Path, panels: Sequence[Panel], rate: Fraction, seconds: Mapping[str, float] | None = None,
        *, numbered: bool = False,
    ) -> None:  # fmt: skip
        load_pyav()
        self._path, self.panels, self._rate, self._seconds = path, tuple(panels), rate, seconds
        self._numbered = numbered
        self._begin = 0.0
        self._film: Film | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the record says of the film."""
        times = {} if self._seconds is None else {"times": "the video's"}
        return {"panels": list(self.panels), "rate": float(self._rate), **times}

    def picture(self, drawn: Drawn, source: Tensor | None) -> np.ndarray:
        """The panels of one frame, H×W×3 uint8; `source` are the source network's logits, C×h×w, where shown."""
        picture = shrunk(drawn.picture, WIDEST // len(self.panels))
        shown, captions = {"input": picture}, {panel: str(panel) for panel in self.panels}
        if "adapted" in self.panels:
            own = picture.shape == drawn.picture.shape
            shown["adapted"] = drawn.overlay if own else overlay_of(drawn.logits, picture, drawn.classes)
        if "source" in self.panels and source is not None:
            known = all_finite(source)
            shown["source"] = overlay_of(source, picture, drawn.classes) if known else np.zeros_like(picture)
            captions["source"] = "source" if known else "source: not finite"
        named = [captions[panel] if len(self.panels) > 1 else "" for panel in self.panels]
        return side_by_side([shown[panel] for panel in self.panels], named)

    def add(self, name: str, picture: np.ndarray) -> None:
        """Adds a frame's picture; one of another size than the first is fitted into that.

        Raises:
            AllWeatherError: when it cannot be written; what was written before plays.
        """
        film = self._film or Film(self._path, self._rate, picture.shape[1], picture.shape[0])
        when = self._seconds[name] if self._seconds else float(int(name) / film.rate) if self._numbered else None
        if self._film is None:
            self._film, self._begin = film, when or 0.0
        pixels = fitted(picture, self._film.width, self._film.height)
        self._film.write(pixels, None if when is None else when - self._begin)

    def close(self) -> None:
        """Makes an ordinary file of what was added."""
        if self._film is not None:
            self._film.close()


def open_reel(path: Path, panels: str | None, rate: float | None, stream: Stream, method: str) -> Reel:
    """The film that the options describe.

    Raises:
        SettingsError: for an unknown panel, or a rate that no film has.
        MissingLibraryError: when PyAV is not installed.
    """
    if rate is not None and not 0.001 <= rate <= 1000:
        raise SettingsError(f"--film-rate: expected frames per second of 0.001 to 1000, got {rate}.")
    shown = parse_panels(panels, method)
    if rate is not None:
        return Reel(path, shown, Fraction(rate).limit_denominator(1000))
    if stream.video is None:
        return Reel(path, shown, IMAGES_RATE)
    return Reel(path, shown, stream.video.rate, stream.seconds, numbered=True)


def parse_panels(text: str | None, method: str) -> tuple[Panel, ...]:
    """The panels of a comma list; all of them, or for the source method the two that differ, where there is none.

    Raises:
        SettingsError: for an unknown one, or none.
    """
    if text is None:
        return ("input", "source") if method == "source" else PANELS
    return parse_names("--panels", "panel", text, PANELS)
