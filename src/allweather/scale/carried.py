"""A session's makings on their way to a worker: the network itself travels, so no worker needs the checkpoint."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from allweather.errors import AllWeatherError, first_line
from allweather.methods.method import Method
from allweather.methods.settings import from_anywhere
from allweather.models.placing import place
from allweather.models.segmenter import Segmenter
from allweather.plugins import FAULTS, files_that_ran, pickled, run_again
from allweather.runs.record import versions
from allweather.session import Session

NOT_OF_A_NUMBER = ("machine",)


@dataclass(frozen=True)
class Carried:
    """Network, method and options of a session, as bytes.

    Attributes:
        content: the pickled parts.
        files: the user's own files that have to run before they can be unpickled.
        device: as on the command line; `cuda` is one device a worker.
        threads: torch's in every worker. Results are those of a single process with as many.
        versions: of what can change a number, in the process that packed.
    """

    content: bytes = field(repr=False)
    files: list[tuple[str, str]]
    device: str
    threads: int
    versions: dict[str, str]

    @classmethod
    def pack(cls, model: Segmenter, method: Method, options: dict[str, Any], device: str, threads: int) -> "Carried":
        """Packs a network on the CPU; files and folders of the method become absolute paths.

        Raises:
            SettingsError: for a network or a method that cannot be taken to another process.
        """
        instead = "Its class and what it holds must stand at the top of a module; or leave --workers out."
        parts = model, from_anywhere(method), options
        content = pickled(parts, f"{model.name} cannot be taken to other processes", instead)
        return cls(content, files_that_ran(), device, threads, versions())

    def session(self, index: int) -> Session:
        """A fresh session in worker number `index`; torch has the threads that were asked for.

        Raises:
            AllWeatherError: where this worker has other versions, lacks the user's own files, or the device.
        """
        torch.set_num_threads(self.threads)
        check_versions(self.versions)
        model, method, options = self._parts()
        return Session(place(model, self._device(index), "--device"), method, **options)

    def _parts(self) -> tuple[Segmenter, Method, dict[str, Any]]:
        try:
            run_again(self.files)
            parts: tuple[Segmenter, Method, dict[str, Any]] = pickle.loads(self.content)
        except FAULTS as error:
            names = ", ".join(Path(path).name for path, _ in self.files) or "the packages that this run uses"
            raise AllWeatherError(
                f"a worker cannot make the network ({first_line(error)}). Install {names} on every machine, at the "
                "same place."
            ) from error
        return parts

    def _device(self, index: int) -> torch.device:
        """`cuda` without a number is another device for each worker."""
        if self.device == "cuda" and torch.cuda.device_count():
            return torch.device("cuda", index % torch.cuda.device_count())
        return torch.device(self.device)


def check_versions(there: Mapping[str, str]) -> None:
    """Refuses to work beside a process of other versions.

    Raises:
        AllWeatherError: naming the first that differs.
    """
    here = versions()
    for name, version in there.items():
        if name not in NOT_OF_A_NUMBER and here.get(name) != version:
            raise AllWeatherError(
                f"a worker has {name} {here.get(name)}, this process has {version}: labels could differ. "
                "Install the same version on every machine."
            )
