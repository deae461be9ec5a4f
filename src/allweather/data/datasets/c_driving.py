"""C-Driving (Liu et al., CVPR 2020): rainy, snowy, cloudy and overcast frames of BDD100K."""

from allweather.data.datasets.dataset import Dataset, Split

LABELS = ((r"\.jpg$", "_train_id.png"),)
COUNTS = {"rainy": 215, "snowy": 242, "cloudy": 346, "overcast": 627}


def _images(condition: str) -> tuple[str, ...]:
    return (f"val/*/{condition}/*.jpg", f"val/{condition}/*.jpg")


DATASET = Dataset(
    name="c-driving",
    title="C-Driving",
    publisher="https://github.com/XingangPan/OCDA-Driving-Example",
    terms="those of BDD100K",
    splits={
        "val": Split(("val/compound/*/*.jpg",), LABELS, count=803),
        **{f"val/{name}": Split(_images(name), LABELS, count=count) for name, count in COUNTS.items()},
        "train": Split(("train/compound/*/*.jpg", "train/compound/*.jpg"), count=14697),
    },
    places=("C-Driving",),
    notes="Labels are trainIds already; `val` is the compound domain (rainy, snowy, cloudy), overcast the open one.",
)
