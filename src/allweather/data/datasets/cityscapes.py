"""Cityscapes (Cordts et al., CVPR 2016) and its renderings in fog and rain, which share its labels."""

from allweather.data.datasets.dataset import Dataset, Split
from allweather.data.datasets.encodings import label_ids

PUBLISHER = "https://www.cityscapes-dataset.com"
TERMS = "registration, non-commercial"
COUNTS = {"train": 2975, "val": 500, "test": 1525}
BETAS = ("0.005", "0.01", "0.02")


def _clear(part: str, count: int) -> Split:
    labels = ((r"^leftImg8bit/(.*)_leftImg8bit\.png$", r"gtFine/\1_gtFine_labelIds.png"),)
    return Split((f"leftImg8bit/{part}/*/*_leftImg8bit.png",), labels if part != "test" else (), count=count)


def _foggy(part: str, beta: str, folder: str = "leftImg8bit_foggy") -> Split:
    labels = ((rf"^{folder}/(.*)_leftImg8bit_foggy_beta_.*\.png$", r"gtFine/\1_gtFine_labelIds.png"),)
    images = (f"{folder}/{part}/*/*_leftImg8bit_foggy_beta_{beta}.png",)
    return Split(images, labels if part != "test" else (), count=COUNTS[part] * (3 if beta == "*" else 1))


def _rainy(part: str, count: int | None) -> Split:
    labels = ((r"^leftImg8bit_rain/(.*)_leftImg8bit_rain.*\.png$", r"gtFine/\1_gtFine_labelIds.png"),)
    return Split((f"leftImg8bit_rain/{part}/*/*_leftImg8bit_rain*.png",), labels, count=count)


DATASET = Dataset(
    name="cityscapes",
    title="Cityscapes",
    publisher=PUBLISHER,
    terms=TERMS,
    splits={part: _clear(part, count) for part, count in COUNTS.items()},
    places=("leftImg8bit_trainvaltest", "gtFine_trainvaltest"),
    decoder=lambda root: label_ids,
    notes="The archives hold labelIds only; they are mapped on reading.",
)

FOGGY = Dataset(
    name="foggy-cityscapes",
    title="Foggy Cityscapes",
    publisher=PUBLISHER,
    terms=TERMS,
    splits={
        **{part: _foggy(part, "*") for part in COUNTS},
        **{f"{part}/{beta}": _foggy(part, beta) for part in COUNTS for beta in BETAS},
        **{f"dbf/{part}/{beta}": _foggy(part, beta, "leftImg8bit_foggyDBF") for part in COUNTS for beta in BETAS},
    },
    default="val/0.02",
    places=("leftImg8bit_trainvaltest_foggy", "leftImg8bit_trainvaltest_foggyDBF", "gtFine_trainvaltest"),
    decoder=lambda root: label_ids,
    notes="Splits name the attenuation β in 1/m; `dbf/` is the later version of the simulation.",
)

RAIN = Dataset(
    name="rain-cityscapes",
    title="Rain Cityscapes",
    publisher=PUBLISHER,
    terms=TERMS,
    splits={"train": _rainy("train", None), "val": _rainy("val", 1188)},
    places=("leftImg8bit_trainval_rain", "gtFine_trainvaltest"),
    decoder=lambda root: label_ids,
    notes="36 renderings of each scene.",
)
