"""Which true label answers a prediction: by equal names, or by the names publishers give to images and to labels."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from allweather.data.truth import Encoding, LabelsAs
from allweather.errors import InputError
from allweather.rgb import EXTENSIONS

IMAGE = re.compile(  # nothing else may follow: numbers of frames do, of which each has a label of its own
    r"_(?:leftImg8bit(?P<rendering>_blurred|_(?:foggy|rain)(?:_(?:alpha|beta|dropsize|pattern)_[\d.]+)+)?"
    r"|rgb(?P<ref>_ref)?_anon|frame_camera)$",
    re.IGNORECASE,
)
LABEL = re.compile(
    r"(?:_gt(?:Fine|Coarse)?(?P<ref>_ref)?)?_(?P<word>(?:label)?_?train_?ids?|label_?ids?|(?:label)?_?colou?rs?"
    r"|instance(?:train)?_?ids?|inv(?:ids|gray)|panoptic(?:train)?_?(?:ids?)?|(?-i:L))$",
    re.IGNORECASE,
)
FOLDER = re.compile(  # folders that say what a file is, not where it was taken
    r"gt(?:Fine|Coarse)?(?:_.*)?|leftImg8bit.*|rgb(?:_anon.*)?|frame_camera|images?|imgs?|labels?|lbl|annos?|masks?"
    r"|sem_seg|seg|10k|colou?rs?|colormaps|(?:label)?_?train_?ids?|label_?ids?",
    re.IGNORECASE,
)
TWIN = re.compile(rf"_(?:{'|'.join(suffix[1:] for suffix in EXTENSIONS)})$", re.IGNORECASE)
PREFERRED: tuple[Encoding | None, ...] = ("trainIds", "labelIds", None, "colors")


@dataclass
class Labelled:
    """The label files of one picture.

    Attributes:
        place: the folders that say where it was taken.
        base: its name, without the words that say what its label files are.
        files: by what each file's name says of how it holds classes; None where it says nothing.
    """

    place: tuple[str, ...]
    base: str
    files: dict[Encoding | None, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Place and name, as a path."""
        return "/".join((*self.place, self.base))

    def choose(self, labels_as: LabelsAs | None) -> tuple[Path, Encoding | None]:
        """The file to read, and what its name says: trainIds before labelIds before colors, unless told otherwise.

        A lone one of colors, as a camera's may be, is as told.

        Raises:
            AllWeatherError: when all its files say that they are something else.
        """
        free = labels_as is None or labels_as == "auto" or self.files.keys() == {"colors"}
        wanted = PREFERRED if free else (labels_as, None)
        for encoding in wanted:
            if encoding in self.files:
                return self.files[encoding], encoding
        said, path = next(iter(self.files.items()))
        raise InputError(
            f"{path}: asked for {labels_as}, its name says {said}. Do not ask for that, or give another folder."
        )


def labelled_pictures(labels: Mapping[str, Path], root: Path, predicted: bool = False) -> list[Labelled]:
    """The pictures that label files belong to, in the files' order; masks and instances are left out.

    Args:
        labels: files by their names below `root`, without suffix.
        predicted: whether they are predictions; else images, by their names, are left out where labels are beside them.

    Raises:
        AllWeatherError: for two files that would be the same label of one picture, or no label at all.
    """
    found: dict[str, Labelled] = {}
    worded = False
    for name, path in labels.items():
        place, base = _placed(name)
        match = LABEL.search(base)
        word = match["word"].lower() if match else ""
        if word.startswith(("inst", "inv", "pan")):
            continue
        made = Labelled(place, _without(base, match))
        scene = found.setdefault(made.name, made)
        said = _encoding(word) or _of_folders((root.absolute().name, *PurePosixPath(name).parts[:-1]))
        if said in scene.files:
            raise InputError(
                f"{scene.files[said]} and {path} would be labels of one picture. Give the folder of one kind of them."
            )
        scene.files[said], worded = path, worded or match is not None
    if not found:
        raise InputError(f"no label image in {root}: only masks or instances, e.g. {next(iter(labels))}.png.")
    named = {
        name: Labelled(each.place, _without(each.base, IMAGE.search(each.base))).name for name, each in found.items()
    }
    photographs = {
        name
        for name, label in named.items()
        if name != label and (label in found or (worded and found[name].files.keys() == {None}))
    }
    return [scene for name, scene in found.items() if predicted or name not in photographs]


def pair(predictions: Iterable[str], labelled: Sequence[Labelled]) -> tuple[dict[str, Labelled], dict[str, str]]:
    """The scene that each prediction is of, and why others are of none, by the predictions' names.

    A prediction is named after its image, and its scene is the one of the same name, or of the same name once both lose
    what says "image" or "label" (`_leftImg8bit`, `_gtFine_labelIds`). Folders count as far as both have them, those
    that only say what a file is aside. A prediction of one of two images that differed in their suffix alone (`a_png`,
    `a_jpg`) is of scene `a`. Several renderings of one scene, such as densities of fog, share its label; of others that
    would, one that has the label file's own name has it alone.
    """
    by_base: dict[str, list[Labelled]] = {}
    for scene in labelled:
        for base in dict.fromkeys((scene.base, _without(scene.base, IMAGE.search(scene.base)))):
            by_base.setdefault(base, []).append(scene)
    found: dict[str, Labelled] = {}
    failed: dict[str, str] = {}
    for name in predictions:
        candidates = _candidates(name, by_base)
        if len(candidates) == 1:
            found[name] = candidates[0]
        elif candidates:
            failed[name] = f"it may be of {' or '.join(scene.name for scene in candidates[:3])}; its folders would tell"
    _drop_doubles(found, failed)
    return found, failed


def _placed(name: str) -> tuple[tuple[str, ...], str]:
    """The folders that say where a file was taken, and its name."""
    *folders, base = PurePosixPath(name).parts
    return tuple(folder for folder in folders if not FOLDER.fullmatch(folder)), base


def _without(base: str, match: re.Match[str] | None) -> str:
    """The name without what was matched; references stay told apart from the images that they are for."""
    if match is None or not match.start():
        return base
    return base[: match.start()] + (match.groupdict().get("ref") or "")


def _encoding(word: str) -> Encoding | None:
    plain = word.lower().replace("_", "")
    if "trainid" in plain:
        return "trainIds"
    if plain.startswith("labelid"):
        return "labelIds"
    return "colors" if "color" in plain or "colour" in plain else None


def _of_folders(folders: tuple[str, ...]) -> Encoding | None:
    """What the innermost folder says that says anything: `gt_labelIds`."""
    kinds = (_encoding(folder.lower().removeprefix("gt_")) for folder in reversed(folders) if FOLDER.fullmatch(folder))
    return next(filter(None, kinds), None)


def _spellings(base: str) -> Iterator[str]:
    """Names of the scene that a prediction may be of, the surest first."""
    told = _without(base, LABEL.search(base))  # NAME_labelIds of an image NAME
    for name in (base, TWIN.sub("", base), told, TWIN.sub("", told), told.removesuffix("_pred")):
        yield name
        for pattern in (LABEL, IMAGE):
            yield _without(name, pattern.search(name))


def _candidates(name: str, by_base: Mapping[str, Sequence[Labelled]]) -> list[Labelled]:
    """The scenes that a prediction may be of: those of the first spelling that has any, the same place first."""
    place, base = _placed(name)
    for spelling in _spellings(base):
        same = by_base.get(spelling, [])
        if exact := [scene for scene in same if scene.place == place]:
            return exact
        if near := [scene for scene in same if _agree(place, scene.place)]:
            return near
    return []


def _agree(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    shared = min(len(first), len(second))
    return first[len(first) - shared :] == second[len(second) - shared :]


def _drop_doubles(found: dict[str, Labelled], failed: dict[str, str]) -> None:
    """Moves to `failed` what cannot be: of predictions of one scene those in other folders, or of other names, than it.

    Where all are in one folder, and none has the name of its label, they are renderings or twins.
    """
    claims: dict[str, list[str]] = {}
    for name, scene in found.items():
        claims.setdefault(scene.name, []).append(name)
    for names in claims.values():
        scene, several = found[names[0]], len({_placed(name)[0] for name in names}) > 1
        own = [name for name in names if PurePosixPath(name).name in {path.stem for path in scene.files.values()}]
        for name in names:
            other = next((other for other in own or names if other != name), name)
            if several and _placed(name)[0] != scene.place:
                failed[name] = f"its label {scene.name} would be that of {other} too; its folders would tell"
            elif own and name not in own and not _is_rendering(name):
                failed[name] = f"it has no label of its own: that of {scene.name} has the name of {other}"
        for name in names:
            if name in failed:
                del found[name]


def _is_rendering(name: str) -> bool:
    return any(match["rendering"] for match in map(IMAGE.search, _spellings(name)) if match)
