"""Reading labels, true or predicted, in whatever way they hold classes, and no guess where two ways fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from allweather.classes import CAMVID11, CITYSCAPES, ClassSet
from allweather.data.datasets.encodings import label_ids_of
from allweather.data.images import INDEX_MODES, indices_of
from allweather.data.labels import ClassMapping
from allweather.errors import ImageError, InputError, SettingsError, unknown
from allweather.rgb import open_image

Encoding = Literal["trainIds", "labelIds", "colors"]
LabelsAs = Literal["trainIds", "labelIds", "colors", "auto"]
NAMED: dict[Encoding, str] = {"trainIds": "labelTrainIds", "labelIds": "labelIds", "colors": "color"}  # by names
ONLY_LABEL_IDS = frozenset({*range(19, 34), -1, 65535})  # values that labelIds have and trainIds have not

CITYSCAPES_VOID = (  # unlabeled, dynamic, ground, parking, rail track, guard rail, bridge, tunnel, caravan, trailer
    (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100),
    (150, 120, 90), (0, 0, 90), (0, 0, 110),
)  # fmt: skip
CAMVID_COLORS = {  # of the 32 classes that CamVid was published with, by what the eleven count them as
    "sky": ((128, 128, 128),),
    "building": ((128, 0, 0), (0, 128, 64), (64, 192, 0), (64, 0, 64), (192, 0, 128)),
    "pole": ((192, 192, 128), (0, 0, 64)),
    "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64), (255, 69, 0)),
    "sidewalk": ((60, 40, 222), (0, 0, 192), (64, 192, 128), (128, 128, 192)),
    "tree": ((128, 128, 0), (192, 192, 0)),
    "sign": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),
    "fence": ((64, 64, 128),),
    "car": ((64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)),
    "pedestrian": ((64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)),
    "bicyclist": ((0, 128, 192), (192, 0, 192)),
}


@dataclass(frozen=True)
class TruthReader:
    """Reads label files of one class set.

    Attributes:
        mapping: whose true classes the files hold; of predictions one from their classes to themselves.
        labels_as: how they hold them; None as each file's name says, class indices where it says nothing; `auto` the
            same, but refuses where the name says nothing and both trainIds and labelIds are possible.
        predicted: whether the files are predictions, whose names alone say it.
        option: how its user gives `labels_as`; {} is the value.

    Raises:
        SettingsError: for an unknown `labels_as`, or labelIds of a set that has none.
    """

    mapping: ClassMapping
    labels_as: LabelsAs | None = None
    predicted: bool = False
    option: str = "--labels-as {}"

    def __post_init__(self) -> None:
        if self.labels_as not in (None, *get_args(LabelsAs)):
            raise unknown("way of writing labels", str(self.labels_as), get_args(LabelsAs))
        if self.labels_as == "labelIds" and self.mapping.truth != CITYSCAPES:
            raise SettingsError(f"labelIds are Cityscapes'; {self.mapping.truth.name} has none.")

    def read(self, path: Path, said: Encoding | None = None) -> tuple[np.ndarray, Encoding]:
        """The class of each pixel, H×W, −1 where there is none, and how the file held it.

        Args:
            said: what the file's name says.

        Raises:
            ImageError: for an unreadable file, or values or colors that the encoding does not have.
            AllWeatherError: where it cannot be known how the file holds its classes.
        """
        image = open_image(path)
        encoding = self._encoding(image, path, said)
        if encoding == "colors":
            return _from_colors(image, path, self.mapping.truth, self._say("trainIds", "labelIds")), encoding
        values = indices_of(_one_channel(image), path)
        if encoding == "labelIds":
            return label_ids_of(values, path), encoding
        if self.labels_as is None and said in (None, "colors"):
            self._check_values(values, path)
        return self.mapping.labels(values, path), encoding

    def _encoding(self, image: Image.Image, path: Path, said: Encoding | None) -> Encoding:
        if self.labels_as is not None and self.labels_as != "auto":
            return self.labels_as
        if said == "labelIds" and self.mapping.truth != CITYSCAPES:
            raise InputError(
                f"{path}: its name says labelIds, which are Cityscapes'; {self.mapping.truth.name} has none: "
                f"{self._say('trainIds')}"
            )
        # cameras write a_color.png
        named_after_image = said == "colors" and image.mode in INDEX_MODES and (self.predicted or image.mode != "P")
        if said is not None and not named_after_image:
            return said
        if image.mode not in INDEX_MODES:
            return "colors"
        if image.mode == "P":
            _check_palette(image, path, self.mapping.truth, self._say("colors", "trainIds"))
        if self.labels_as == "auto" and self.mapping.truth == CITYSCAPES:
            raise InputError(
                f"{path}: its name does not say whether it holds trainIds or labelIds, and numbers alone cannot: "
                f"{self._say('trainIds', 'labelIds')}"
            )
        return "trainIds"

    def _check_values(self, values: np.ndarray, path: Path) -> None:
        """Refuses all where one file shows that the others' numbers may be misread."""
        found = set(np.unique(values).tolist()) - set(range(len(self.mapping.truth))) - {self.mapping.truth.ignore}
        if self.mapping.truth == CITYSCAPES and found and found <= ONLY_LABEL_IDS:
            raise InputError(
                f"{path} holds {', '.join(map(str, sorted(found)[:5]))}: labelIds have that and trainIds have not, and "
                f"its name says neither. Nothing was scored: {self._say('labelIds')}"
            )

    def _say(self, *encodings: Encoding) -> str:
        """How to say what the files hold; labelIds only where the class set has them."""
        fit = [each for each in encodings if each != "labelIds" or self.mapping.truth == CITYSCAPES]
        if self.predicted:
            return f"name it {' or '.join(f'NAME_{NAMED[encoding]}.png' for encoding in fit)}."
        return f"say {' or '.join(map(self.option.format, fit))}."


def _one_channel(image: Image.Image) -> Image.Image:
    """The image, or one channel of it where all three are equal: indices that were written as grey RGB."""
    if image.mode not in ("RGB", "RGBA") or not _is_grey(np.asarray(image)):
        return image
    return image.getchannel(0)


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())


def _colors_of(classes: ClassSet) -> Mapping[tuple[int, int, int], int]:
    """What each color counts as, −1 for none."""
    known = dict(zip(classes.colors, range(len(classes)), strict=True))
    if classes == CAMVID11:
        known |= {color: classes.names.index(name) for name, colors in CAMVID_COLORS.items() for color in colors}
    void = CITYSCAPES_VOID if classes == CITYSCAPES else ((0, 0, 0),)
    return dict.fromkeys(void, -1) | known


def _from_colors(image: Image.Image, path: Path, classes: ClassSet, say: str) -> np.ndarray:
    """Classes by color; Cityscapes' pole groups and licence plates share the colors of poles and cars.

    `say` is the way out for indices.
    """
    if image.mode not in ("RGB", "RGBA", "P"):
        raise ImageError(f"{path}: expected a color for each class, got an image of mode {image.mode}.")
    pixels = np.asarray(image.convert("RGB"))
    codes = pixels[..., 0].astype(np.int32) << 16 | pixels[..., 1].astype(np.int32) << 8 | pixels[..., 2]
    known = _colors_of(classes)
    order = sorted((red << 16 | green << 8 | blue, value) for (red, green, blue), value in known.items())
    keys, values = np.array([key for key, _ in order]), np.array([value for _, value in order], np.int16)
    place = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
    wrong = codes[keys[place] != codes]
    if wrong.size:
        found = ", ".join(str((int(c) >> 16, int(c) >> 8 & 255, int(c) & 255)) for c in np.unique(wrong)[:3])
        hint = f" All three channels are equal: {say}" if _is_grey(pixels) else ""
        raise ImageError(f"{path}: {found} are no colors of {classes.name}'s classes.{hint}")
    return values[place]


def _check_palette(image: Image.Image, path: Path, classes: ClassSet, say: str) -> None:
    """Refuses a palette image whose colors are all classes', but of others than its indices say; `say`: the way out."""
    palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    used = [index for index in np.unique(np.asarray(image)).tolist() if index < len(palette)]
    known = _colors_of(classes)
    said = {index: known.get(tuple(palette[index].tolist())) for index in used}
    if None in said.values():
        return  # a palette for the eye
    indexed = {index: index if index < len(classes) else -1 for index in used}
    if said != indexed and set(said.values()) != {-1}:
        raise InputError(f"{path}: its palette's colors and its indices say different classes: {say}")
