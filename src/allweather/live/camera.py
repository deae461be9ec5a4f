"""Cameras of this machine, by OpenCV."""

import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from allweather.data.stream import Frame
from allweather.errors import InputError, optional
from allweather.live.sources import Lost, Shot, Size, Source, known_rate

DEVICES = Path("/dev")


class CameraSource(Source):
    """A camera by its number, or by what OpenCV can open under a name, such as a device file.

    Args:
        which: what stands after `camera:`.
        size: (width, height) that frames are resampled to; None keeps each one's own.
    """

    endless = True

    def __init__(self, which: str, size: Size) -> None:
        self.label, self._which, self._size = f"camera:{which}", which, size
        self._numbers = count()
        self._check()
        self._cv2: Any = optional("cv2", "camera", "OpenCV")

    def connect(self) -> Iterator[Shot]:
        self._check()
        camera = self._cv2.VideoCapture(int(self._which) if self._which.isdecimal() else self._which)
        if not camera.isOpened():
            raise InputError(f"{self.label}: the camera cannot be opened; another program may be using it.")
        camera.set(self._cv2.CAP_PROP_BUFFERSIZE, 1)
        self.rate = known_rate(float(camera.get(self._cv2.CAP_PROP_FPS)))
        return self._shots(camera)

    def _shots(self, camera: Any) -> Iterator[Shot]:
        try:
            while True:
                there, pixels = camera.read()
                if not there:
                    raise Lost("the camera gives no pictures any more")
                name = f"{next(self._numbers):06d}"
                yield Shot(None, partial(Frame.of, name, np.ascontiguousarray(pixels[:, :, ::-1]), self._size))
        finally:
            camera.release()

    def _check(self) -> None:
        """Refuses a camera that is not there; OpenCV only says that it cannot open it.

        Raises:
            InputError: naming those that are.
        """
        if not self._which:
            raise InputError("camera: expected a number, as in camera:0, or the name of a device.")
        if not sys.platform.startswith("linux"):
            return
        device = DEVICES / f"video{self._which}" if self._which.isdecimal() else Path(self._which)
        if not device.exists():
            there = ", ".join(sorted(str(path) for path in DEVICES.glob("video*"))) or "none"
            hint = "" if self._which.isdecimal() else " Expected camera:NUMBER, or camera: and a device's path."
            raise InputError(f"{self.label}: no such camera: there is no {device}.{hint} Cameras here: {there}.")
