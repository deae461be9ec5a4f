"""One record of all streams: record.json says what made it, record.jsonl has a line for each frame, as it came."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from allweather.data.images import write_json
from allweather.data.json_lines import JsonLines, each_json_line, encode_line
from allweather.runs.decisions import decisions_in
from allweather.runs.holding import held
from allweather.runs.record_file import HEADER, LINE, LINES, check_same_run, holds_run, read_json
from allweather.runs.shape import check
from allweather.scale.streams import Source
from allweather.session.guard import KINDS, Kind
from allweather.writing import Closing, unwritable, whole

LOOKING = 8  # threads that look whether pictures are whole


class MergedRecord(Closing):
    """The record of an output folder, as `Output` writes it, in which a frame has one line however often it came.

    Only names and counts are kept in memory, so a million frames take some hundred megabytes.

    Args:
        folder: OUT.
        head: what made the results.
        is_whole: whether all that was to be written of a frame is there.
        parts: files of more lines of the run that the folder holds, which are then gone.

    Raises:
        AllWeatherError: when the folder holds a run and `resume` is off, one of other settings, or one that goes on
            still.
        InputError: when its record is damaged.
    """

    def __init__(
        self, folder: Path, head: Mapping[str, Any], resume: bool, is_whole: Callable[[str], bool] = lambda name: True,
        parts: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        self.folder, self.head = folder, json.loads(json.dumps(head))
        self.done: set[str] = set()
        self.failures: dict[str, str] = {}
        self._decisions: Counter[Kind] = Counter()
        with ExitStack() as opened:
            opened.enter_context(held(self._header))
            if holds_run(self._header, resume):
                check_same_run(self._header, self.head, read_json(self._header))
                self._gather(parts)
            self._take_over(is_whole)
            write_json(self._header, self.head)
            self._lines = opened.enter_context(JsonLines(self._path))
            self._open = opened.pop_all()

    def keep(self, lines: Iterable[Mapping[str, Any]]) -> list[str]:
        """Adds frames; one that is known already is not added again. Gives the new failures.

        Raises:
            AllWeatherError: when the file cannot be written.
        """
        failed = []
        for line in lines:
            name = line["name"]
            if name in self.done or ("failure" in line and name in self.failures):
                continue
            self._lines.append(line)
            self._count(line)
            if "failure" in line:
                failed.append(name)
        return failed

    def known_of(self, source: Source) -> frozenset[str]:
        """The frames of a stream that have their line, be it a prediction's or a failure's."""
        return frozenset(name for name in source.names if name in self.done or name in self.failures)

    def finish(self, more: Mapping[str, Any]) -> None:
        """Writes the header with the totals, and what else there is to say.

        Raises:
            AllWeatherError: when it cannot be written.
        """
        self._lines.close()
        totals = {"decisions": self.decisions, "images": len(self.done), "failures": len(self.failures), **more}
        write_json(self._header, {**self.head, "totals": totals})

    @property
    def decisions(self) -> dict[Kind, int]:
        """How many frames met each kind of decision, once in every pass, 0 included."""
        return {kind: self._decisions[kind] for kind in KINDS}

    def close(self) -> None:
        """Waits until the disk has every line, and leaves the folder to others."""
        self._open.close()

    @property
    def _header(self) -> Path:
        return self.folder / HEADER

    @property
    def _path(self) -> Path:
        return self.folder / LINES

    def _count(self, line: Mapping[str, Any]) -> None:
        name = line["name"]
        if "failure" in line:
            self.failures[name] = line["failure"]
            return
        self.failures.pop(name, None)
        self.done.add(name)
        self._decisions.update(decision.kind for decision in decisions_in(line))

    def _gather(self, parts: Sequence[Path]) -> None:
        """Adds what a process of an earlier run wrote into files of its own, which then are gone."""
        with JsonLines(self._path) as lines:
            for part in parts:
                for line in each_json_line(part):
                    lines.append(line)
        for part in parts:
            part.unlink(missing_ok=True)

    def _take_over(self, is_whole: Callable[[str], bool]) -> None:
        """Keeps the lines of frames whose pictures are whole, one each; failures are tried again and get new lines."""
        names = list(dict.fromkeys(line["name"] for line in self._read() if "failure" not in line))
        with ThreadPoolExecutor(LOOKING) as threads:
            kept = {name for name, there in zip(names, threads.map(is_whole, names), strict=True) if there}
        try:
            with whole(self._path, durable=True) as temporary, temporary.open("wb") as file:
                for line in self._read():
                    if line["name"] in kept and "failure" not in line:
                        kept.discard(line["name"])
                        self._count(line)
                        file.write(encode_line(line))
        except OSError as error:
            raise unwritable(self._path, error) from error

    def _read(self) -> Iterable[dict[str, Any]]:
        for line in each_json_line(self._path):
            check(line, LINE)
            yield line
