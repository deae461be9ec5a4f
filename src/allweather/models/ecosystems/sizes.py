"""Image sizes that an architecture refuses, answered with sizes that work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from allweather.errors import InputError, first_line

LARGEST = 1024  # of the sides that are tried beside those near the image's, in pixels
Output = TypeVar("Output")


@dataclass(frozen=True)
class Sizes:
    """What is known of the image sizes that a network takes.

    Attributes:
        network: its name, for messages.
        own: (height, width) in pixels that it was built for; None where it was built for any.
        multiple: sides that are no multiple of this are unlikely to work, in pixels.
    """

    network: str
    own: tuple[int, int] | None = None
    multiple: int = 32

    def call(self, network: Callable[[Tensor], Output], pixels: Tensor) -> Output:
        """`network(pixels)`; where that fails, and succeeds at other sizes, the error tells these.

        Args:
            pixels: B×3×H×W as the network sees them.

        Raises:
            InputError: when the network takes other sizes, but not H×W.
        """
        try:
            return network(pixels)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, AssertionError) as error:
            working = self._working(network, pixels)
            if not working:
                raise
            height, width = pixels.shape[-2:]
            sizes = ", ".join(f"{w}x{h}" for h, w in working)
            raise InputError(
                f"{self.network} takes no image of {width}×{height} pixels, as it sees it ({first_line(error)}). "
                f"Sizes that work: {sizes} (WIDTHxHEIGHT). Resample images to one of them (command line: --size)."
            ) from error

    def _working(self, network: Callable[[Tensor], Output], pixels: Tensor) -> list[tuple[int, int]]:
        """Of its own size and sizes near that of `pixels`, those that the network takes."""
        height, width = pixels.shape[-2:]
        near = [max(1, round(side / self.multiple)) * self.multiple for side in (height, width)]
        candidates = [(near[0], near[1]), (min(near), min(near))]
        candidates += [(2 * h, 2 * w) for h, w in candidates if max(h, w) <= LARGEST // 2]
        if self.own is not None:
            candidates.insert(0, self.own)
        others = [size for size in dict.fromkeys(candidates) if size != (height, width)]
        return [size for size in others if self._takes(network, pixels, size)]

    @staticmethod
    def _takes(network: Callable[[Tensor], Output], pixels: Tensor, size: tuple[int, ...]) -> bool:
        with torch.no_grad():
            try:
                network(pixels.new_zeros(1, pixels.shape[1], *size))
            except (RuntimeError, ValueError, AssertionError):
                return False
        return True
