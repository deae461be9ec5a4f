"""What each benchmark's server takes: names, sizes and the number of its test images."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """What a server takes.

    Attributes:
        name: as the command line takes it.
        pattern: of a prediction's file name without suffix; its group `key` names the frame.
        example: of such a name.
        named: the archive's file name for a frame's key.
        count: images of the test split.
        size: (width, height) of each.
        label_ids: whether labelIds are wanted instead of trainIds.
        confidence: whether the server also wants invalid masks and confidence.
        server: where to send it.
    """

    name: str
    pattern: str
    example: str
    named: str
    count: int
    size: tuple[int, int]
    server: str
    label_ids: bool = False
    confidence: bool = False


BENCHMARKS: Mapping[str, Benchmark] = {
    entry.name: entry
    for entry in (
        Benchmark(
            "acdc", r"(?P<key>\w+_frame_\d{6}_rgb_anon)", "GOPR0122_frame_000161_rgb_anon", "{key}.png", 2000,
            (1920, 1080), "https://acdc.vision.ee.ethz.ch/submit",
        ),
        Benchmark(
            "cityscapes", r"(?P<key>[a-z-]+_\d{6}_\d{6})_leftImg8bit", "berlin_000000_000019_leftImg8bit",
            "{key}_pred_labelIds.png", 1525, (2048, 1024), "https://www.cityscapes-dataset.com/submit", label_ids=True,
        ),
        Benchmark(
            "dark-zurich", r"(?P<key>\w+_frame_\d{6})_rgb_anon", "GP010594_frame_000048_rgb_anon", "{key}.png", 151,
            (1920, 1080), "https://codalab.lisn.upsaclay.fr/competitions/3783", confidence=True,
        ),
        Benchmark(
            "muses", r"(?P<key>REC\d{4}_frame_\d{6})_frame_camera", "REC0001_frame_000001_frame_camera", "{key}.png",
            750, (1920, 1080), "https://muses.ethz.ch",
        ),
    )
}  # fmt: skip
