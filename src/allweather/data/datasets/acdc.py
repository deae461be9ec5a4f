"""ACDC (Sakaridis et al., ICCV 2021): fog, night, rain and snow with references in clear weather."""

from allweather.data.datasets.dataset import Dataset, Split

CONDITIONS = ("fog", "night", "rain", "snow")
REFERENCE_LABELS = ((r"^rgb_anon/(.*)_rgb_ref_anon\.png$", r"gt/\1_gt_ref_labelTrainIds.png"),)
LABELS = ((r"^rgb_anon/(.*)_rgb_anon\.png$", r"gt/\1_gt_labelTrainIds.png"),)
INVALID = ((r"^rgb_anon/(.*)_rgb_anon\.png$", r"gt/\1_gt_invIds.png"),)
COUNTS = {"train": 400, "val": 100, "test": 500}  # of a condition


def _split(part: str, condition: str, count: int) -> Split:
    public = part != "test"
    return Split(
        (f"rgb_anon/{condition}/{part}/*/*_rgb_anon.png",), LABELS if public else (), INVALID if public else (),
        count=count,
    )  # fmt: skip


def _reference(part: str, condition: str, only_labelled: bool = False) -> Split:
    labels = REFERENCE_LABELS if only_labelled else ()
    return Split((f"rgb_anon/{condition}/{part}_ref/*/*_rgb_ref_anon.png",), labels, only_labelled=only_labelled)


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
        **{f"{part}_ref": _reference(part, "*") for part in COUNTS},
        **{f"{part}_ref/{name}": _reference(part, name) for part in COUNTS for name in CONDITIONS},
        **{f"{part}_ref/labelled": _reference(part, "*", only_labelled=True) for part in COUNTS},
    },
    places=("rgb_anon_trainvaltest", "gt_trainval"),
    notes="Labels of the test split are held by the publisher's server. `*_ref` are the same places in clear weather; "
    "`*_ref/labelled` are those of them that are labelled, 1503 in all since the fourth release.",
)
