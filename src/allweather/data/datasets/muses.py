"""MUSES (Brödermann et al., ECCV 2024): clear, fog, rain and snow, by day and by night."""

from allweather.data.datasets.dataset import Dataset, Split

COUNTS = {"train": 1500, "val": 250, "test": 750}
WEATHER, LIGHT = ("clear", "fog", "rain", "snow"), ("day", "night")
LABELS = ((r"^frame_camera/(.*)_frame_camera\.png$", r"gt_semantic/\1_gt_labelTrainIds.png"),)


def _split(part: str, folder: str, count: int | None = None) -> Split:
    return Split((f"frame_camera/{part}/{folder}/*_frame_camera.png",), LABELS, count=count)


DATASET = Dataset(
    name="muses",
    title="MUSES",
    publisher="https://muses.ethz.ch",
    terms="registration, non-commercial",
    splits={
        **{part: _split(part, "*/*", count) for part, count in COUNTS.items()},
        **{f"{part}/{w}/{l}": _split(part, f"{w}/{l}") for part in COUNTS for w in WEATHER for l in LIGHT},
    },
    notes="Labels of the test split are used where they are present.",
)
