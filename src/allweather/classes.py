"""Class sets: the names, order and palette of what a network can say about a pixel, and classes matched by name."""

import re
from dataclasses import dataclass

from allweather.errors import SettingsError

_BYTE, _VALUES = 256, 65536  # how many values a label file of one byte a pixel can hold, and one of two


@dataclass(frozen=True)
class ClassSet:
    """An ordered set of classes; a label image holds indices into it, or `ignore`.

    Attributes:
        name: how the set is called.
        names: class names in index order.
        colors: one (red, green, blue) triple in 0..255 per class; without any, colors that differ from one to the next.
        ignore: the label value that no metric and no loss counts; no class's index.

    Raises:
        SettingsError: for names, colors or an ignored value that would not tell classes apart.

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
        if not self.colors:
            object.__setattr__(self, "colors", _differing(len(self.names)))
        if fault := self._fault():
            raise SettingsError(f"class set '{self.name}': {fault}")

    def _fault(self) -> str | None:
        if not self.names:
            return "expected at least one name."
        if len(self.names) != len(self.colors):
            return f"{len(self.names)} names but {len(self.colors)} colors: expected one each, or no color at all."
        if wrong := [color for color in self.colors if len(color) != 3 or not all(0 <= part <= 255 for part in color)]:
            return f"expected colors as red, green, blue in 0..255, got {wrong[0]}."
        if not len(self.names) <= self.ignore < _VALUES:
            return f"ignore: expected a label value of {len(self.names)} or more, no class's index; got {self.ignore}."
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
    """A class set for networks whose classes are no known set, with colors that differ from one to the next."""
    return ClassSet("own", names, ignore=_BYTE - 1 if len(names) < _BYTE else _VALUES - 1)


def _differing(count: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((67 * i % 256, 131 * i % 256, 197 * i % 256) for i in range(1, count + 1))
