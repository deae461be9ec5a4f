"""The networks that a visitor may choose: those that this server was started with, and checkpoints of one folder."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic

from allweather.errors import SettingsError, unknown
from allweather.methods import Source
from allweather.models import Segmenter, load_model
from allweather.models.catalogue import all_entries, enhancers, published_size
from allweather.serve.access import inside
from allweather.session import Session
from allweather.sizes import check_asked

SHIPPED = "demo:streetnet"
CHECKPOINTS = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt", ".mat")
MOST_LISTED = 500  # checkpoints and folders that the page lists
LISTED_FOR = 5.0  # seconds that their list is kept
KEPT = 4  # networks with checkpoints of a visitor's choice that stay loaded


@dataclass(frozen=True)
class Network:
    """A network at work here.

    Attributes:
        model: what sessions copy; itself it never changes.
        source: predicts as the network came.
        size: (width, height) that pictures are resampled to; None leaves them as they are.
    """

    model: Segmenter
    source: Session
    size: tuple[int, int] | None


def as_network(model: Segmenter, size: tuple[int, int] | None) -> Network:
    """A loaded network, ready for visitors."""
    return Network(model, Session(model, Source()), size)


@dataclass(frozen=True)
class Offer:
    """A network that this server was started with.

    Attributes:
        name: by which visitors choose it.
        load: gives it; called once, when it is first asked for.
        size: as in `Network`.
    """

    name: str
    load: Callable[[], Segmenter]
    size: tuple[int, int] | None


class Networks:
    """Networks by name, each loaded once and shared by all: sessions work on copies.

    Args:
        offers: the first is the default.
        allowed: folder whose checkpoints visitors may name; None for none.

    Raises:
        SettingsError: for no network, or two of one name.
    """

    def __init__(self, offers: list[Offer], allowed: Path | None = None) -> None:
        self.offers = {offer.name: offer for offer in offers}
        if not offers or len(self.offers) < len(offers):
            raise SettingsError("expected networks to serve, each with a name of its own.")
        if allowed is not None and not allowed.is_dir():
            raise SettingsError(f"--allow-dir {allowed}: expected a folder.")
        self.allowed = allowed
        self._loaded: dict[str, Network] = {}
        self._chosen: OrderedDict[tuple[str, Path], tuple[object, Network]] = OrderedDict()
        self._lock = threading.Lock()
        self._listed: tuple[float, tuple[list[str], list[str]]] | None = None
        self._walking = threading.Lock()

    @property
    def default(self) -> str:
        """The name of the network that is taken where none is named."""
        return next(iter(self.offers))

    def get(self, name: str = "") -> Network:
        """The network of that name; the first where the name is empty.

        Raises:
            SettingsError: for a name that is not offered.
            AllWeatherError: where it cannot be loaded.
        """
        offer = self.offers.get(name or self.default)
        if offer is None:
            raise unknown("network of this server", name[:100], self.offers)
        with self._lock:
            if offer.name not in self._loaded:
                self._loaded[offer.name] = as_network(offer.load(), offer.size)
            return self._loaded[offer.name]

    def open(self, name: str, checkpoint: str) -> Network:
        """A network of the catalogue with a checkpoint of the allowed folder; checkpoints are read as data.

        Args:
            name: of the catalogue; neither code nor libraries' networks.
            checkpoint: its path, relative to the folder.

        Raises:
            SettingsError: for another name, a path that is not inside, or where no folder is allowed.
            CheckpointError: for a file that is damaged, hostile, or of another network.
        """
        if self.allowed is None:
            raise SettingsError("this server does not let visitors name files of its own (--allow-dir).")
        if name not in catalogue():
            raise unknown("network of the catalogue", name[:100], catalogue())
        path = inside(self.allowed, checkpoint)
        with self._lock:
            state, kept = _state(path), self._chosen.pop((name, path), None)
            if kept is None or kept[0] != state:  # a replaced file's network is let go
                kept = state, as_network(load_model(name, path), published_size(name))
            self._chosen[name, path] = kept
            while len(self._chosen) > KEPT:
                self._chosen.popitem(last=False)
            return kept[1]

    def checkpoints(self) -> list[str]:
        """Checkpoints below the allowed folder, by their relative paths."""
        return self._below()[1]

    def folders(self) -> list[str]:
        """Folders below the allowed one, itself included, by their relative paths."""
        return [] if self.allowed is None else [".", *self._below()[0]]

    def _below(self) -> tuple[list[str], list[str]]:
        if self.allowed is None:
            return [], []
        with self._walking:
            if self._listed is None or monotonic() > self._listed[0] + LISTED_FOR:
                found = _walk(self.allowed)
                self._listed = monotonic(), found
            return self._listed[1]


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Folders and checkpoints below one; follows no links."""
    folders: list[str] = []
    checkpoints: list[str] = []
    for place, below, files in os.walk(root):
        here = Path(place).relative_to(root)
        folders += [(here / name).as_posix() for name in below[: MOST_LISTED - len(folders)]]
        named = ((here / name).as_posix() for name in files if name.lower().endswith(CHECKPOINTS))
        checkpoints += islice((path for path in named if (root / path).is_file()), MOST_LISTED - len(checkpoints))
        if len(folders) == len(checkpoints) == MOST_LISTED:
            break
    return sorted(folders), sorted(checkpoints)


def _state(path: Path) -> list[tuple[int, int, int]]:
    """What is another once a checkpoint is replaced, or the second file that belongs to some."""
    found = [file.stat() for file in (path, enhancers(path)) if file.exists()]
    return [(file.st_mtime_ns, file.st_size, file.st_ino) for file in found]


def shipped() -> Offer:
    """The network that this package ships."""
    return Offer(SHIPPED, lambda: load_model(SHIPPED), published_size(SHIPPED))


def given(networks: Segmenter | Mapping[str, Segmenter], size: tuple[int, int] | None) -> list[Offer]:
    """Networks that are loaded already, by the names given or their own.

    Raises:
        SettingsError: for anything else.
    """
    named = {networks.name: networks} if isinstance(networks, Segmenter) else networks
    if not isinstance(named, Mapping) or not all(isinstance(model, Segmenter) for model in named.values()):
        raise SettingsError("serve: expected a Segmenter, or Segmenters by name, as allweather.load_model gives them.")
    size = check_asked(size)
    return [Offer(name, partial(_itself, model), size) for name, model in named.items()]


def _itself(model: Segmenter) -> Segmenter:
    return model


def catalogue() -> list[str]:
    """Names of this project's own networks that segment."""
    return [entry.name for entry in all_entries() if entry.segments]
