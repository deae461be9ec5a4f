"""Dark Zurich (Sakaridis et al., ICCV 2019 and TPAMI 2020): night with references by day."""

from allweather.data.datasets.dataset import Dataset, Split

LABELS = ((r"^rgb_anon/(.*)_rgb_anon\.png$", r"gt/\1_gt_labelTrainIds.png"),)
INVALID = ((r"^rgb_anon/(.*)_rgb_anon\.png$", r"gt/\1_gt_invIds.png"),)


def _images(folder: str) -> tuple[str, ...]:
    return (f"rgb_anon/{folder}/*/*_rgb_anon.png",)


DATASET = Dataset(
    name="dark-zurich",
    title="Dark Zurich",
    publisher="https://www.trace.ethz.ch/publications/2019/GCMA_UIoU",
    terms="free download, non-commercial",
    splits={
        "val": Split(_images("val/night"), LABELS, INVALID, count=50),
        "test": Split(_images("test/night"), count=151),
        "train": Split(_images("train/night"), count=2416),
        "train/twilight": Split(_images("train/twilight")),
        "train/day": Split(_images("train/day")),
        "val_ref": Split(_images("val_ref/day")),
        "test_ref": Split(_images("test_ref/day")),
    },
    places=("Dark_Zurich_train_anon", "Dark_Zurich_val_anon", "Dark_Zurich_test_anon_withoutGt"),
    notes="Labels of the test split are held by the publisher's server.",
)
