"""Nighttime Driving (Dai and Van Gool, ITSC 2018): fifty labelled frames at night, in two versions of the labels."""

from allweather.data.datasets.dataset import Dataset, Split
from allweather.data.datasets.encodings import by_name

IMAGES = ("leftImg8bit/test/night/*_leftImg8bit.png",)
NAME = r"^leftImg8bit/test/night/(.*)_leftImg8bit\.png$"


def _labels(folder: str) -> tuple[tuple[str, str], ...]:
    return tuple((NAME, rf"{folder}/\1_gtCoarse_{kind}.png") for kind in ("labelTrainIds", "labelIds"))


DATASET = Dataset(
    name="nighttime-driving",
    title="Nighttime Driving",
    publisher="http://data.vision.ee.ethz.ch/daid/NighttimeDriving",
    terms="free download",
    splits={
        "test": Split(IMAGES, _labels("gtCoarse_daytime_trainvaltest/test/night"), count=50),
        "test/corrected": Split(IMAGES, _labels("night"), count=50),
    },
    default="test",
    places=("NighttimeDrivingTest",),
    decoder=lambda root: by_name,
    notes="`test/corrected` reads the labels that CIConv's authors corrected, their folder `night` beside the others; "
    "figures of the two versions differ by about a point.",
)
