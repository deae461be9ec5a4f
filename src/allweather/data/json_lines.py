"""Files of one JSON object a line that grow line by line; what was cut by whatever ended the process is dropped."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

from allweather.data.images import encode_json
from allweather.errors import InputError
from allweather.writing import file_at, unwritable


class JsonLines:
    """A file open for more lines; each is on its way to the disk when `append` returns.

    Args:
        path: the file, made with its folders where it is missing; a last line without its end is cut off.

    Raises:
        AllWeatherError: when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = file_at(path).open("ab", buffering=0)
            self._end = _last_end(path)
            self._file.truncate(self._end)
        except OSError as error:
            raise unwritable(path, error) from error

    def append(self, content: Mapping[str, Any]) -> None:
        """Adds a line, whole or not at all.

        Raises:
            AllWeatherError: when it cannot be written.
            ValueError: for a number that is not finite.
        """
        line = memoryview(encode_line(content))
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            self._file.truncate(self._end)
            raise unwritable(self.path, error) from error
        self._end += len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits until the disk has every line."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def encode_line(content: Mapping[str, Any]) -> bytes:
    """One line of such a file, its end included.

    Raises:
        ValueError: for a number that is not finite.
    """
    return encode_json(json.dumps(content, ensure_ascii=False, allow_nan=False))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, in order, their numbers finite; none where there is no file. A cut last line is left out.

    Raises:
        InputError: when it cannot be read, or another line is no JSON object.
    """
    return list(each_json_line(path))


def each_json_line(path: Path) -> Iterator[dict[str, Any]]:
    """As `read_json_lines`, one object at a time, for files that are larger than memory should be.

    Raises:
        InputError: as `read_json_lines`.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _object(path, number, line[:-1])
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number}: expected a JSON object ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}, line {number}: expected a JSON object, got {str(line[:40])[2:-1]}.")
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _last_end(path: Path) -> int:
    """The length of the file up to the end of its last whole line."""
    with path.open("rb") as file:
        place = file.seek(0, os.SEEK_END)
        while place > 0:
            start = max(0, place - 65536)
            file.seek(start)
            found = file.read(place - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            place = start
    return 0
