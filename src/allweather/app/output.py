"""The output folder of `allweather adapt`: pictures, film and record, complete after every image."""

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from allweather.app.console import warn
from allweather.app.options import parse_names
from allweather.app.pictures import KINDS, SUFFIXES, Kind, Pictures, Seen, Written
from allweather.app.reel import Reel
from allweather.classes import ClassSet
from allweather.data.images import write_json
from allweather.data.json_lines import JsonLines, encode_line
from allweather.errors import AllWeatherError
from allweather.runs.decisions import STREAM_PASSES, decisions_of
from allweather.runs.holding import held
from allweather.runs.passes import summed
from allweather.runs.record_file import HEADER, LINES, check_same_run, holds_run, read_adapted
from allweather.writing import Closing, check_folder, write_bytes

FOR_IMAGES: tuple[Kind, ...] = ("labels", "color", "overlay")
FOR_VIDEOS: tuple[Kind, ...] = ("video",)
FILM = "overlay.mp4"
OF_RESULTS = (*SUFFIXES, FILM, HEADER, LINES)  # names in OUT


@dataclass
class Output(Closing):
    """The output folder and its record, complete after every image: record.json says what made the results,
    record.jsonl has a line for each image.

    Attributes:
        pictures: what is written of a frame, and where.
        head: what made the results.
        reel: the film, where one is written.
        images: what became of each image, by name.
        failures: why an image has no prediction, by name.
    """

    pictures: Pictures
    head: dict[str, Any]
    reel: Reel | None = None
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    _filmed: bool = field(default=False, init=False)  # the film is there, of all frames but those that failed
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
        made = cls(Pictures(folder, kinds), json.loads(json.dumps(head)), reel)
        with ExitStack() as opened:
            opened.enter_context(held(made._header))
            if holds_run(made._header, resume):
                made._take_over(read_adapted(made._header), names)
            failed = {name: {"failure": why} for name, why in made.failures.items()}
            lines = [encode_line({"name": name, **entry}) for name, entry in (made.images | failed).items()]
            write_bytes(made._lines_path, b"".join(lines), durable=True)
            write_json(made._header, made.head)
            made._lines = JsonLines(made._lines_path)
            opened.callback(made._settle)
            made._open = opened.pop_all()
        return made

    def write(self, seen: Seen, classes: ClassSet) -> Written:
        """Writes the pictures of one frame; may run in several threads at once."""
        return self.pictures.write(seen, classes, self.reel)

    def keep(self, written: Written) -> None:
        """Adds a frame to the film and the record; in the frames' order."""
        name, line = written.name, written.line
        if "failure" not in line and self._filmed:
            self._outdate_film(name)
        if self.reel is not None and written.picture is not None:
            self.reel.add(name, written.picture)
        if "failure" not in line or self.failures.get(name) != line["failure"]:
            self._lines.append({"name": name, **line})
        if "failure" in line:
            self.failures[name] = line["failure"]
            warn(self.failures[name])
        else:
            self.failures.pop(name, None)
            self.images[name] = line

    def finish(self, damage: str | None = None) -> None:
        """Closes the film, and writes the record's header with the totals; `damage` is what the input lacks."""
        self._settle()
        totals: dict[str, Any] = {
            "decisions": decisions_of({"images": self.images}),
            "images": len(self.images),
            "failures": len(self.failures),
        }
        if passes := summed(self.images.values()):
            totals[STREAM_PASSES] = passes
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

    @property
    def folder(self) -> Path:
        """OUT."""
        return self.pictures.folder

    @property
    def _header(self) -> Path:
        return self.folder / HEADER

    @property
    def _lines_path(self) -> Path:
        return self.folder / LINES

    def _take_over(self, earlier: dict[str, Any], names: Sequence[str]) -> None:
        """Goes on from what an earlier run recorded, in whichever format; a film that is not whole begins anew.

        What failed is tried again. A whole film stays, and until a frame comes that it lacks the run is a finished one.
        """
        check_same_run(self._header, self.head, earlier)
        self.images = {name: entry for name, entry in earlier["images"].items() if self.pictures.is_whole(name)}
        self.failures = earlier["failures"]
        filmed = "film" in earlier or "size" not in earlier  # the first headers said neither
        known = (self.images | self.failures).keys() >= set(names)
        self._filmed = filmed and "totals" in earlier and (self.folder / FILM).exists() and known
        if self._filmed:
            self.head |= {key: earlier[key] for key in ("film", "totals") if key in earlier}
        elif self.reel is not None:
            warn(f"{FILM} is not whole, and none can be continued: all frames are predicted again.")
            self.images, self.failures = {}, {}

    def _outdate_film(self, name: str) -> None:
        """Says, in the record too, that the film lacks a frame, which goes between others."""
        self._filmed = False
        self.head = {key: value for key, value in self.head.items() if key not in ("film", "totals")}
        write_json(self._header, self.head)
        if self.reel is not None:
            self.reel = None
            warn(f"{FILM} lacks {name}, which failed before: --resume once more makes it anew, of all frames.")


def check_results(folder: Path, searched: Iterable[Path]) -> None:
    """Refuses a folder that cannot be written, or in which pictures of another origin have the results' places.

    Those are inputs, or labels of theirs.

    Args:
        searched: inputs, and what settings name. A folder of these is searched to the bottom, by the next run again.

    Raises:
        AllWeatherError: naming the first.
    """
    check_folder(folder)
    place = folder.resolve()
    for given in searched:
        if given.is_dir() and place.is_relative_to(given.resolve()):
            raise AllWeatherError(
                f"--out {folder} lies in {given}, all of whose pictures are read: the next run would read these "
                "results too. Choose an --out beside it."
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
