"""The output folder of `allweather adapt`: pictures, film and record, complete after every image."""

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from allweather.app.console import warn
from allweather.app.drawn import Drawn
from allweather.app.options import parse_names
from allweather.app.reel import Reel
from allweather.classes import ClassSet
from allweather.data.images import is_whole, write_json
from allweather.data.json_lines import JsonLines, encode_line
from allweather.errors import AllWeatherError, ImageError
from allweather.finite import or_none
from allweather.pictures.writing import write_image
from allweather.runs.decisions import decisions_of
from allweather.runs.evaluate import Outcome
from allweather.runs.holding import held
from allweather.runs.overlap import bytes_of
from allweather.runs.record import describe_result
from allweather.runs.record_file import HEADER, LINES, check_same_run, holds_run, read_adapted
from allweather.writing import Closing, check_folder, place_below, write_bytes

Kind = Literal["labels", "color", "overlay", "confidence", "video"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FOR_IMAGES: tuple[Kind, ...] = ("labels", "color", "overlay")
FOR_VIDEOS: tuple[Kind, ...] = ("video",)
SUFFIXES: dict[Kind, str] = {"labels": "png", "color": "png", "overlay": "jpg", "confidence": "png"}  # by folder of OUT
FILM = "overlay.mp4"
OF_RESULTS = (*SUFFIXES, FILM, HEADER, LINES)  # names in OUT


@dataclass(frozen=True, eq=False)
class Seen:
    """What became of one frame, and the source network's logits of it where the film shows them."""

    outcome: Outcome
    source: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of frame and logits."""
        frame = 0 if self.outcome.frame is None else bytes_of(self.outcome.frame)
        return frame + sum(logits.nbytes for logits in (self.outcome.logits, self.source) if logits is not None)


@dataclass(frozen=True, eq=False)
class Written:
    """A frame whose pictures are on the disk: its line in the record, and its picture in the film."""

    name: str
    line: dict[str, Any]
    picture: np.ndarray | None = field(default=None, repr=False)


@dataclass
class Output(Closing):
    """The output folder and its record, complete after every image: record.json says what made the results,
    record.jsonl has a line for each image.

    Attributes:
        folder: OUT.
        head: what made the results.
        kinds: what is written.
        reel: the film, where one is written.
        images: what became of each image, by name.
        failures: why an image has no prediction, by name.
    """

    folder: Path
    head: dict[str, Any]
    kinds: tuple[Kind, ...]
    reel: Reel | None = None
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    _lines: JsonLines = field(init=False, repr=False)
    _open: ExitStack = field(init=False, repr=False)

    @classmethod
    def open(
        cls,
        folder: Path,
        head: dict[str, Any],
        names: Sequence[str],
        resume: bool,
        kinds: tuple[Kind, ...] = FOR_IMAGES,
        reel: Reel | None = None,
    ) -> "Output":
        """An empty folder, or the state of an earlier run of the same settings over the frames of these names.

        Raises:
            AllWeatherError: when the folder already holds a run and `resume` is off, one of other settings, or one that
                goes on still.
            InputError: when its record is damaged.
        """
        made = cls(folder, json.loads(json.dumps(head)), kinds, reel)
        with ExitStack() as opened:
            opened.enter_context(held(made._header))
            if holds_run(made._header, resume):
                made._take_over(read_adapted(made._header), names)
            lines = [encode_line({"name": name, **entry}) for name, entry in made.images.items()]
            write_bytes(made._lines_path, b"".join(lines), durable=True)
            write_json(made._header, made.head)
            made._lines = JsonLines(made._lines_path)
            opened.callback(made._settle)
            made._open = opened.pop_all()
        return made

    def write(self, seen: Seen, classes: ClassSet) -> Written:
        """Writes the pictures of one frame; may run in several threads at once. One that is no picture is a failure."""
        outcome = seen.outcome
        if outcome.frame is None or outcome.logits is None:
            return Written(outcome.name, {"failure": outcome.failure or "no prediction"})
        drawn = Drawn(outcome.frame, outcome.logits, classes)
        try:
            for kind in SUFFIXES:
                if kind in self.kinds:
                    write_image(self._place(kind, outcome.name), getattr(drawn, kind))
            picture = None if self.reel is None else self.reel.picture(drawn, seen.source)
        except ImageError as error:
            return Written(outcome.name, {"failure": str(error)})
        return Written(outcome.name, _entry(outcome), picture)

    def keep(self, written: Written) -> None:
        """Adds a frame to the film and the record; in the frames' order."""
        if self.reel is not None and written.picture is not None:
            self.reel.add(written.picture)
        self._lines.append({"name": written.name, **written.line})
        if "failure" in written.line:
            self.failures[written.name] = written.line["failure"]
            warn(self.failures[written.name])
        else:
            self.images[written.name] = written.line

    def finish(self, damage: str | None = None) -> None:
        """Closes the film, and writes the record's header with the totals; `damage` is what the input lacks."""
        self._settle()
        totals: dict[str, Any] = {
            "decisions": decisions_of({"images": self.images}),
            "images": len(self.images),
            "failures": len(self.failures),
        }
        write_json(self._header, {**self.head, "totals": totals | ({"damage": damage} if damage else {})})

    def close(self) -> None:
        """Closes film and record as they are, and leaves the folder to others; a second call does nothing."""
        self._open.close()

    def _settle(self) -> None:
        try:
            if self.reel is not None:
                self.reel.close()
        finally:
            self._lines.close()

    def is_whole(self, name: str) -> bool:
        """Whether every picture of this image is there, and none empty or cut, as a power failure leaves them."""
        return all(is_whole(self._place(kind, name)) for kind in SUFFIXES if kind in self.kinds)

    @property
    def _header(self) -> Path:
        return self.folder / HEADER

    @property
    def _lines_path(self) -> Path:
        return self.folder / LINES

    def _take_over(self, earlier: dict[str, Any], names: Sequence[str]) -> None:
        """Goes on from what an earlier run recorded, in whichever format; a film that is not whole begins anew."""
        check_same_run(self._header, self.head, earlier)
        self.images = {name: entry for name, entry in earlier["images"].items() if self.is_whole(name)}
        filmed = "film" in earlier or "size" not in earlier  # the first headers said neither
        whole = filmed and "totals" in earlier and (self.folder / FILM).exists() and self.images.keys() >= set(names)
        if self.reel is None and whole and "film" in earlier:
            self.head["film"] = earlier["film"]
        if self.reel is not None and not whole:
            warn(f"{FILM} cannot be continued where it stopped: all frames are predicted again.")
            self.images = {}

    def _place(self, kind: Kind, name: str) -> Path:
        return place_below(self.folder / kind, f"{name}.{SUFFIXES[kind]}")


def check_results(folder: Path, searched: Iterable[Path]) -> None:
    """Refuses a folder that cannot be written, or in which pictures of another origin have the results' places.

    Those are inputs, or labels of theirs.

    Args:
        searched: the inputs. In a folder of them, searched to the bottom, results would be the next run's frames.

    Raises:
        AllWeatherError: naming the first.
    """
    check_folder(folder)
    place = folder.resolve()
    for given in searched:
        if given.is_dir() and place.is_relative_to(given.resolve()):
            raise AllWeatherError(
                f"--out {folder} lies in {given}, all of whose pictures are frames: the next run would take these "
                "results for frames too. Choose an --out beside it."
            )
    taken = next((folder / name for name in (*SUFFIXES, FILM) if _has_content(folder / name)), None)
    if taken is not None and not (folder / HEADER).exists():  # in this order: another rank may be at work
        raise AllWeatherError(
            f"{taken} is there already, and {folder} holds no {HEADER} of a run that wrote it: results would replace "
            "it. Choose another --out."
        )


def _has_content(place: Path) -> bool:
    return any(place.iterdir()) if place.is_dir() else place.exists()


def parse_kinds(text: str | None, usual: Sequence[Kind], confidence: bool = False) -> tuple[Kind, ...]:
    """What `--write` names, in one order, the usual where it is left out; and confidence where that is asked for.

    Raises:
        SettingsError: for an unknown name, or none.
    """
    asked = usual if text is None else parse_names("--write", "output", text, KINDS)
    return tuple(kind for kind in KINDS if kind in asked or (confidence and kind == "confidence"))


def _entry(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    if result is None:
        return {}
    return {
        "losses": or_none(round(loss, 6) for loss in result.losses),
        "watched": or_none(round(loss, 6) for loss in result.watched),
        **describe_result(result),
    }
