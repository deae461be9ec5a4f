"""Class sets: the names, order and palette of what a network can say about a pixel, and classes matched by name."""

import re
from collections import Counter
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from allweather.errors import SettingsError

_BYTE, _VALUES = 256, 65536  # how many values a label file of one byte a pixel can hold, and one of two


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_color(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(_is_whole(part) and 0 <= part <= 255 for part in value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass(frozen=True)
class ClassSet:
    """An ordered set of classes; a label image holds indices into it, or `ignore`.

    Attributes:
        name: how the set is called.
        names: class names in index order, no two the same; a list becomes a tuple.
        colors: one (red, green, blue) triple in 0..255 per class; without any, colors that differ from one to the next.
        ignore: the label value that no metric and no loss counts; no class's index.

    Raises:
        SettingsError: for names that would not tell classes apart, colors that are none, and an ignored value that is
            none or a class's index.

    Example:
        >>> import allweather as aw
        >>> aw.ClassSet("yard", ("track", "rail", "person")).ignore
        255
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] = ()
    ignore: int = 255

    def __post_init__(self) -> None:
        if isinstance(self.names, list):
            object.__setattr__(self, "names", tuple(self.names))
        if fault := self._fault_of_names():
            raise SettingsError(f"class set '{self.name}': {fault}")
        if isinstance(self.colors, list):
            object.__setattr__(self, "colors", tuple(map(_as_tuple, self.colors)))
        if isinstance(self.colors, tuple) and not self.colors:
            object.__setattr__(self, "colors", _differing(len(self.names)))
        if fault := self._fault_of_values():
            raise SettingsError(f"class set '{self.name}': {fault}")
        object.__setattr__(self, "colors", tuple(tuple(map(int, color)) for color in self.colors))
        object.__setattr__(self, "ignore", int(self.ignore))  # NumPy's integers would not go into JSON

    def _fault_of_names(self) -> str | None:
        if not isinstance(self.names, tuple):
            return f"expected names as a tuple of text, got {self.names!r}."
        if not self.names:
            return "expected at least one name."
        if wrong := [name for name in self.names if not isinstance(name, str) or not name.strip()]:
            return f"expected names as text that is not empty, got {wrong[0]!r}."
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            return f"expected names that differ, got {twice[0]!r} twice."
        return None

    def _fault_of_values(self) -> str | None:
        if not isinstance(self.colors, tuple):
            return f"expected colors as a tuple of (red, green, blue), got {self.colors!r}."
        if len(self.names) != len(self.colors):
            return f"{len(self.names)} names but {len(self.colors)} colors: expected one each, or no color at all."
        if wrong := [color for color in self.colors if not _is_color(color)]:
            return f"expected colors as red, green, blue, whole numbers in 0..255, got {wrong[0]!r}."
        if not _is_whole(self.ignore) or not len(self.names) <= self.ignore < _VALUES:
            wanted = f"a label value of {len(self.names)} to {_VALUES - 1}, no class's index"
            return f"ignore: expected {wanted}; got {self.ignore!r}."
        return None

    def __len__(self) -> int:
        return len(self.names)


CITYSCAPES = ClassSet(
    name="cityscapes",
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    colors=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
        (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip
ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN = range(10)  # Cityscapes trainIds
SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(10, 19)

CAMVID11 = ClassSet(
    name="camvid11",
    names=(
        "sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
    colors=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    ignore=11,
)  # fmt: skip

CLASS_SETS = {classes.name: classes for classes in (CITYSCAPES, CAMVID11)}

SYNONYMS: dict[str, tuple[str, ...]] = {  # what ADE20K, Mapillary Vistas and others call parts of Cityscapes' classes
    "road": (
        "street", "service lane", "bike lane", "crosswalk - plain", "lane marking - crosswalk",
        "lane marking - general",
    ),
    "sidewalk": ("pavement", "pedestrian area"),
    "building": ("house", "skyscraper"),
    "pole": ("utility pole",),
    "traffic light": ("traffic lights", "traffic signal"),
    "traffic sign": ("traffic signs", "traffic sign (front)", "signboard", "sign"),
    "vegetation": ("tree", "plant", "palm"),
    "terrain": ("grass", "earth", "field"),
    "person": ("pedestrian",),
    "rider": ("bicyclist", "motorcyclist", "other rider"),
    "car": ("van",),
    "train": ("tram", "on rails"),
    "motorcycle": ("motorbike", "minibike"),
    "bicycle": ("bike",),
}  # fmt: skip


def recognise(names: tuple[str, ...]) -> ClassSet | None:
    """The known class set that has exactly these names, in whatever order and spelling; None where there is none.

    Case, spaces, hyphens and underscores make no difference: `Traffic_Light` is `traffic light`.
    """
    plain = sorted(_plain(name) for name in names)
    return next((known for known in CLASS_SETS.values() if sorted(map(_plain, known.names)) == plain), None)


def sources(names: tuple[str, ...], classes: ClassSet) -> tuple[tuple[int, ...], ...]:
    """For each class of `classes`, which of `names` mean it: by its own name, or by a word of `SYNONYMS`.

    A name may hold several words for one thing, as ADE20K's do (`road, route`). Each name means one class at most.

    Returns:
        Indices into `names`, one tuple per class, empty where no name means the class.
    """
    own = {_plain(name): index for index, name in enumerate(classes.names)}
    other = {_plain(word): own[_plain(name)] for name in classes.names for word in SYNONYMS.get(name, ())}
    meant = [_meaning(name, own, other) for name in names]
    return tuple(tuple(i for i, index in enumerate(meant) if index == wanted) for wanted in range(len(classes)))


def _meaning(name: str, own: dict[str, int], other: dict[str, int]) -> int | None:
    words = [_plain(name), *(_plain(word) for word in re.split("[,;]", name))]
    return next((table[word] for table in (own, other) for word in words if word in table), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def numbered(names: tuple[str, ...]) -> ClassSet:
    """A class set for networks whose classes are no known set, with colors that differ from one to the next.

    A name that stands there again, or that is empty, gets its index: a network may have several that it calls `N/A`.
    """
    own: list[str] = []
    for index, name in enumerate(names):
        new = name if name.strip() and name not in own else f"{name} {index}".strip()
        while new in own or (new != name and new in names):
            new += "'"
        own.append(new)
    return ClassSet("own", tuple(own), ignore=largest_value(len(own)))


def largest_value(count: int) -> int:
    """The last label value of files for `count` classes, ignored where nothing else is said: of a byte, or of two."""
    return _BYTE - 1 if count < _BYTE else _VALUES - 1


def _differing(count: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((67 * i % 256, 131 * i % 256, 197 * i % 256) for i in range(1, count + 1))
