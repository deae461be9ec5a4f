"""ACDC (Sakaridis et al., ICCV 2021): fog, night, rain and snow with references in clear weather."""

from allweather.data.datasets.dataset import Dataset, Split

CONDITIONS = ("fog", "night", "rain", "snow")
LABELS = ((r"^rgb_anon/(.*)_rgb_anon\.png$", r"gt/\1_gt_labelTrainIds.png"),)
INVALID = ((r"^rgb_anon/(.*)_rgb_anon\.png$", r"gt/\1_gt_invIds.png"),)
COUNTS = {"train": 400, "val": 100, "test": 500}  # of a condition


def _split(part: str, condition: str, count: int) -> Split:
    public = part != "test"
    return Split(
        (f"rgb_anon/{condition}/{part}/*/*_rgb_anon.png",), LABELS if public else (), INVALID if public else (),
        count=count,
    )  # fmt: skip


def _count(part: str, condition: str) -> int:
    return 106 if (part, condition) == ("val", "night") else COUNTS[part]


DATASET = Dataset(
    name="acdc",
    title="ACDC",
    publisher="https://acdc.vision.ee.ethz.ch",
    terms="registration, non-commercial",
    splits={
        **{part: _split(part, "*", sum(_count(part, name) for name in CONDITIONS)) for part in COUNTS},
        **{f"{part}/{name}": _split(part, name, _count(part, name)) for part in COUNTS for name in CONDITIONS},
        **{f"{part}_ref": Split((f"rgb_anon/*/{part}_ref/*/*_rgb_ref_anon.png",)) for part in COUNTS},
    },
    places=("rgb_anon_trainvaltest", "gt_trainval"),
    notes="Labels of the test split are held by the publisher's server.",
)
