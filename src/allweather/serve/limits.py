"""How much a visitor may ask for: bytes, pixels, pictures, updates, time, and how many may ask at once."""

from dataclasses import dataclass

from allweather.methods.option import check_ranges, option


@dataclass(frozen=True)
class Limits:
    """Bounds of everything that comes from outside; each is a number above 0.

    Raises:
        AllWeatherError: for a number out of its range.
    """

    picture_bytes: int = option(32 << 20, "bytes of one picture, as a file", low=1)
    upload_bytes: int = option(256 << 20, "bytes of one upload of the page: a clip, or pictures together", low=1)
    disk_bytes: int = option(1 << 30, "bytes of all uploads that lie on the disk or are on their way", low=1)
    pixels: int = option(50_000_000, "pixels of one picture", low=1)
    clip_pixels: int = option(9_500_000, "pixels of one frame of a clip", low=1)
    pictures: int = option(200, "pictures of one upload, or frames of one clip, that are kept", low=1)
    held_bytes: int = option(256 << 20, "bytes of decoded pictures that one visitor holds", low=1)
    network_pixels: int = option(1 << 20, "pixels that a network of no published size is given", low=256)
    waiting: int = option(16, "requests at once, running or waiting; one more is answered 429", low=1)
    streams: int = option(32, "streams with a session of their own", low=1)
    visitors: int = option(16, "visitors of the page with a session of their own", low=1)
    idle: float = option(900.0, "seconds without a request after which a stream or a visitor is freed", above=0)
    body_seconds: float = option(30.0, "seconds that a request may take to arrive", above=0)
    iterations: int = option(100, "updates on one picture, and the like: whatever multiplies the work", low=1)
    passes: int = option(20, "times that the page goes over its pictures", low=1)

    def __post_init__(self) -> None:
        check_ranges(self, "limits")
