"""BDD100K semantic segmentation (Yu et al., CVPR 2020), in the old and the new layout, with its night subset."""

from allweather.data.datasets.dataset import Dataset, Split

COUNTS = {"train": 7000, "val": 1000, "test": 2000}
LABELS = (
    (r"^images/10k/(.*)\.jpg$", r"labels/sem_seg/masks/\1.png"),
    (r"^seg/images/(.*)\.jpg$", r"seg/labels/\1_train_id.png"),
)


def _split(part: str, count: int) -> Split:
    return Split(
        (f"images/10k/{part}/*.jpg", f"seg/images/{part}/*.jpg"), LABELS if part != "test" else (), count=count
    )


DATASET = Dataset(
    name="bdd100k",
    title="BDD100K",
    publisher="http://bdd-data.berkeley.edu",
    terms="registration",
    splits={
        **{part: _split(part, count) for part, count in COUNTS.items()},
        "night": Split(
            (),
            LABELS,
            listed="lists_file_names/images_trainval_night_correct_filenames.txt",
            moved=((r"^seg/images/", "images/10k/"), (r"^images/10k/", "seg/images/")),
            count=87,
        ),
    },
    places=("bdd100k",),
    notes="`night` is MGCDA's list of the 87 correctly labelled night images, put into `lists_file_names/`; "
    "it is written for the old layout and is read for both.",
)
