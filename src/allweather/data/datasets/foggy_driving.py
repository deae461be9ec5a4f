"""Foggy Driving and its dense part (Sakaridis et al., IJCV 2018): real fog, finely and coarsely labelled."""

from allweather.data.datasets.dataset import Dataset, Split
from allweather.data.datasets.encodings import by_name

FINE = tuple(
    (r"^leftImg8bit/test/(.*)_leftImg8bit\.png$", rf"gtFine/test/\1_gtFine_{kind}.png")
    for kind in ("labelTrainIds", "labelIds")
)
COARSE = tuple(
    (r"^leftImg8bit/test_extra/(.*)_leftImg8bit\.png$", rf"gtCoarse/test_extra/\1_gtCoarse_{kind}.png")
    for kind in ("labelTrainIds", "labelIds")
)
FLAT = tuple(
    (r"^leftImg8bit/dense/(.*)_leftImg8bit\.png$", rf"gtFine/dense/\1_{kind}.png")
    for kind in ("gtFine_labelTrainIds", "gtFine_labelIds", "gtCoarse_labelTrainIds", "gtCoarse_labelIds")
)
PUBLISHER = "https://people.ee.ethz.ch/~csakarid/SFSU_synthetic"
TERMS = "non-commercial"

DATASET = Dataset(
    name="foggy-driving",
    title="Foggy Driving",
    publisher=PUBLISHER,
    terms=TERMS,
    splits={
        "test_all": Split(("leftImg8bit/test*/*/*_leftImg8bit.png",), FINE + COARSE, count=101),
        "test": Split(("leftImg8bit/test/*/*_leftImg8bit.png",), FINE, count=33),
        "test_extra": Split(("leftImg8bit/test_extra/*/*_leftImg8bit.png",), COARSE, count=68),
    },
    default="test_all",
    places=("Foggy_Driving",),
    decoder=lambda root: by_name,
    notes="33 images are labelled finely and 68 coarsely; `test_all` joins them.",
)

DENSE = Dataset(
    name="foggy-driving-dense",
    title="Foggy Driving Dense",
    publisher=PUBLISHER,
    terms=TERMS,
    splits={
        "test": Split(
            ("leftImg8bit/dense/*_leftImg8bit.png",),
            FINE + COARSE + FLAT,
            listed="lists_file_names/leftImg8bit_testdense_filenames.txt",
            count=21,
        )
    },
    default="test",
    places=("Foggy_Driving",),
    decoder=lambda root: by_name,
    notes="The 21 images of Foggy Driving that its list names, or the flat copies in `leftImg8bit/dense`.",
)
