"""The catalogue: from `scheme:name` to a network, of this project's own or of a library that is installed."""

import warnings
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from allweather.classes import ClassSet
from allweather.errors import AllWeatherError, SettingsError, unknown
from allweather.models.checkpoints import (
    check_digest,
    fitting_tensors,
    load_weights,
    read_state_dict,
    write_tensors,
)
from allweather.models.entry import Entry
from allweather.models.norm_layers import count_norms
from allweather.models.segmenter import Provenance, Segmenter

FAMILIES: dict[str, tuple[str, ...]] = {  # scheme: the files under nets/ that hold its networks
    "adaptsegnet": ("deeplabv2",),
    "advent": ("deeplabv2",),
    "bdl": ("deeplabv2",),
    "bisenetv2": ("bisenetv2",),
    "ciconv": ("ciconv",),
    "dannet": ("dannet",),
    "deeplabv3plus": ("deeplabv3plus", "deeplabv3plus_mmseg"),
    "demo": ("streetnet",),
    "espnet": ("espnet",),
    "espnetv2": ("espnetv2",),
    "gcnet": ("gcnet",),
    "isanet": ("isanet",),
    "lraspp": ("lraspp",),
    "mgcda": ("mgcda",),
    "mobilenetv2": ("mobilenetv2",),
    "robustnet": ("robustnet",),
    "segformer": ("segformer",),
    "stdc": ("stdc",),
}
ECOSYSTEMS = {  # schemes whose networks another library builds, and the licence of their weights
    "transformers": "the repository's",
    "nvlabs": "non-commercial (NVIDIA Source Code License)",
    "torchvision": "your file's",
    "smp": "the repository's, or your file's",
    "mmseg": "your file's",
    "ultralytics": "AGPL-3.0, the library's code too",
}


def load_model(
    name: str,
    weights: Path | str | None = None,
    *,
    classes: ClassSet | None = None,
    sha256: str | None = None,
) -> Segmenter:
    """The network `scheme:name` as a Segmenter in evaluation mode, with the checkpoint at `weights`.

    Without `weights` a network that the package ships has its own, one from a hub has the hub's, and any other is
    randomly initialised, with a warning.

    Args:
        name: such as `espnetv2:2.0` or `transformers:` and a hub name or local folder.
        classes: for libraries' networks, the class set that their outputs are, or become: names of a transformers or
            ultralytics network are matched with its; see `ecosystems.naming.choose`.
        sha256: expected digest of the checkpoint.

    Raises:
        AllWeatherError: for an unknown name, a library that is not installed, or a checkpoint that does not fit.
    """
    scheme, rest = _split(name)
    path = None if weights is None else Path(weights)
    if sha256 is not None:
        if path is None:
            raise SettingsError(f"{name}: sha256 is that of a checkpoint, and none was given. Name it: weights=FILE.")
        check_digest(path, sha256)
    if scheme in ECOSYSTEMS:
        ecosystem = import_module(f"allweather.models.ecosystems.{scheme}")
        loaded: Segmenter = ecosystem.load(rest, path, classes)
        return loaded
    entry = find_entry(name)
    if classes not in (None, entry.classes):
        raise SettingsError(f"{name} gives the classes of '{entry.classes.name}' and no others. Leave out `classes`.")
    model = entry.segmenter()
    if entry.enhancer:
        model.enhancer = find_entry(entry.enhancer).build().eval()
    path = path or entry.packaged
    if path is None:
        warnings.warn(f"{name} is randomly initialised: no weights were given", stacklevel=2)
        return model
    model.provenance = load_weights(model.network, path, name=name, drop=entry.drop, translate=entry.translate)
    if entry.enhancer:
        load_weights(cast(nn.Module, model.enhancer), _enhancers(path), name=entry.enhancer)
    return model


def convert(name: str, checkpoint: Path, out: Path, *, sha256: str | None = None) -> Provenance:
    """Writes the checkpoint of the network `name` as safetensors: each tensor as it is, in the dtype it has.

    A second file that belongs to it (DANNet's) is converted beside `out`. What `load_model` makes of `out` equals what
    it makes of `checkpoint`; where it came from is kept in the file's metadata.

    Raises:
        AllWeatherError: as `load_model`, or when `out` cannot be written.
    """
    if _split(name)[0] in ECOSYSTEMS:
        loaded = load_model(name, checkpoint, sha256=sha256).provenance
        tensors, provenance = read_state_dict(checkpoint)
        provenance = loaded or provenance
        tensors = {key: value for key, value in tensors.items() if key not in provenance.dropped}
    else:
        entry = find_entry(name)
        with torch.device("meta"):
            network = entry.build()
        tensors, provenance = fitting_tensors(
            network, checkpoint, name=name, drop=entry.drop, sha256=sha256, translate=entry.translate
        )
        if entry.enhancer:
            convert(entry.enhancer, _enhancers(checkpoint), _enhancers(out))
    write_tensors(tensors, out, name=name, provenance=provenance)
    return provenance


def find_entry(name: str) -> Entry:
    """The catalogue's entry of one of this project's own networks.

    Raises:
        AllWeatherError: when there is none of that name.
    """
    entries = {entry.name: entry for entry in _entries(FAMILIES.get(_split(name)[0], ()))}
    if name not in entries:
        raise unknown("model", name, entries or [entry.name for entry in all_entries()])
    return entries[name]


def published_size(name: str) -> tuple[int, int] | None:
    """(width, height) to which the network's authors resample frames; None where they keep them, or are a library's.

    Raises:
        AllWeatherError: as `find_entry`.
    """
    return None if _split(name)[0] in ECOSYSTEMS else find_entry(name).size


def all_entries() -> list[Entry]:
    """Every network of this project's own, in the catalogue's order."""
    files = dict.fromkeys(file for files in FAMILIES.values() for file in files)
    return _entries(tuple(files))


def list_models() -> list[dict[str, Any]]:
    """One row per network of the catalogue, ready for JSON; libraries' schemes come last, without figures."""
    return [_row(entry) for entry in all_entries()] + [
        {"name": f"{scheme}:…", "family": f"any network of {scheme}", "licence": licence}
        for scheme, licence in ECOSYSTEMS.items()
    ]


def _row(entry: Entry) -> dict[str, Any]:
    with torch.device("meta"):
        network: nn.Module = entry.build()
    return {
        "name": entry.name,
        "family": entry.family,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "norms": count_norms(network),
        "size_multiple": entry.preprocessing.size_multiple,
        "preprocessing": asdict(entry.preprocessing),
        "adaptation": asdict(entry.facts),
        "size": entry.size,
        "window": entry.window and asdict(entry.window),
        "source": entry.source,
        "licence": entry.licence,
        "file": entry.file,
        "publisher": entry.publisher,
        "nesting": entry.nesting,
        "drop": entry.drop,
        "fixture": entry.fixture,
        "packaged": entry.packaged is not None,
    }


def _entries(files: tuple[str, ...]) -> list[Entry]:
    modules = [import_module(f"allweather.models.nets.{file}") for file in files]
    return [entry for module in modules for entry in module.ENTRIES]


def _enhancers(path: Path) -> Path:
    """The checkpoint of a network's enhancer, which lies beside the network's own."""
    return path.with_stem(f"{path.stem}_light")


def _split(name: str) -> tuple[str, str]:
    """Scheme and the rest of a name, the scheme a known one."""
    scheme, separator, rest = name.partition(":")
    if not separator:
        raise _without_scheme(name)
    if scheme not in (*FAMILIES, *ECOSYSTEMS):
        raise unknown("scheme", scheme, (*FAMILIES, *ECOSYSTEMS))
    return scheme, rest


def _without_scheme(name: str) -> AllWeatherError:
    names = [entry.name for entry in all_entries()]
    same = [known for known in names if name in (*known.split(":"), known.replace(":", ""))]
    spellings = same or [f"{scheme}:{name}" for scheme in ECOSYSTEMS]
    return SettingsError(
        f"expected a model as SCHEME:NAME, got '{name}'. Perhaps {' or '.join(spellings)}? Guessing could load other "
        "weights than you mean."
    )
