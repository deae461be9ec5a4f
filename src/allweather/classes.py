"""Class sets: the names, order and palette of what a network can say about a pixel."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassSet:
    """An ordered set of classes; a label image holds indices into it, or `ignore`.

    Attributes:
        name: how the set is called on the command line.
        names: class names in index order.
        colors: one (red, green, blue) triple in 0..255 per class.
        ignore: the label value that no metric and no loss counts.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore: int = 255

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise ValueError(f"{self.name}: {len(self.names)} names but {len(self.colors)} colors")

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


def numbered(names: tuple[str, ...]) -> ClassSet:
    """A class set for networks whose classes are no known set, with colors that differ from one to the next."""
    steps = [(67 * i % 256, 131 * i % 256, 197 * i % 256) for i in range(1, len(names) + 1)]
    return ClassSet("own", names, tuple(steps))
