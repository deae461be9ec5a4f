"""The catalogue: from `scheme:name` to a network, of this project's own or of a library that is installed."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from allweather.classes import ClassSet
from allweather.errors import RandomWeightsWarning, SettingsError, unknown
from allweather.models.checkpoints import (
    check_digest,
    fitting_tensors,
    load_weights,
    taken_tensors,
    write_tensors,
)
from allweather.models.entry import Entry
from allweather.models.norm_layers import count_norms
from allweather.models.own import NETWORKS, build_own, find_maker
from allweather.models.recognised import no_weights_by_name
from allweather.models.segmenter import Provenance, Segmenter, own_network
from allweather.plugins import find_place, installed, without_name
from allweather.writing import check_apart

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
    "realtime": (
        "adscnet",
        "cfpnet",
        "cgnet",
        "dabnet",
        "edanet",
        "enet",
        "fddwnet",
        "fpenet",
        "fssnet",
        "mininetv2",
    ),
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
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    arguments: Mapping[str, Any] | None = None,
    sha256: str | None = None,
) -> Segmenter:
    """A network by name, as a `Segmenter` in evaluation mode, with the weights of a checkpoint.

    Without `weights`, a network that comes with this package has its own weights, one from a hub the hub's, and one of
    your own whatever its factory loads. Any other is randomly initialised, with a warning.

    Args:
        name: `scheme:name`, such as `espnetv2:2.0` (see `list_models`); `transformers:` and a hub name or folder; or
            your own factory or class: `mynets.py:build`, `package.module:build`, or the name that an installed package
            gives. Your own code runs, and a line on stderr says so.
        weights: the checkpoint file; it is read as data, and no code in it runs.
        classes: for networks of libraries and your own: the class set of the outputs. Names that a transformers or
            ultralytics network has are matched with it.
        mean, std: for networks of your own: three numbers in RGB order, for pixels in [0, 1]; ImageNet's where None.
        arguments: for a factory of your own, by name, as values or as text.
        sha256: expected digest of the checkpoint, 64 hexadecimal digits.

    Raises:
        SettingsError: for an unknown name, or an argument that does not belong to it.
        NetworkError: when the network cannot be built.
        CheckpointError: when the checkpoint cannot be read or does not fit.
        MissingLibraryError: when the library that builds the network is not installed.

    Example:
        >>> import allweather as aw
        >>> model = aw.load_model("demo:streetnet")
        >>> len(model.classes), model.classes.names[0]
        (19, 'road')
    """
    if not isinstance(name, str):
        raise _no_name(name)
    if weights is not None and not isinstance(weights, str | PathLike):
        raise SettingsError(f"{name}: weights: expected a checkpoint's path, got {weights!r:.80}.")
    path = None if weights is None else Path(weights)
    if sha256 is not None:
        if path is None:
            raise SettingsError(f"{name}: sha256 is that of a checkpoint, and none was given. Name it: weights=FILE.")
        check_digest(path, sha256)
    own = _find_own(name)
    if own is not None:
        return build_own(*own, path, classes=classes, mean=mean, std=std, arguments=arguments)
    scheme, rest = _split(name)
    if arguments or mean is not None or std is not None:
        raise SettingsError(
            f"{name} takes no arguments, mean or std: those are for networks of your own. Leave them out."
        )
    if scheme in ECOSYSTEMS:
        ecosystem = import_module(f"allweather.models.ecosystems.{scheme}")
        loaded: Segmenter = ecosystem.load(rest, path, classes)
        return loaded
    entry = find_entry(name)
    if classes not in (None, entry.classes):
        raise SettingsError(
            f"{name} gives the classes of '{entry.classes.name}' and no others. Leave out `classes`; for a checkpoint "
            "of other classes bring the network itself, --model mynets.py:build with --classes."
        )
    model = entry.segmenter()
    if entry.enhancer:
        model.enhancer = find_entry(entry.enhancer).build().eval()
    path = path or entry.packaged
    if path is None:
        warnings.warn(RandomWeightsWarning(name), stacklevel=2)
        return model
    model.provenance = load_weights(model.network, path, name=name, drop=entry.drop, translate=entry.translate)
    if entry.enhancer:
        load_weights(cast(nn.Module, model.enhancer), enhancers(path), name=entry.enhancer)
    return model


def convert(
    name: str,
    checkpoint: Path | str,
    out: Path | str,
    *,
    sha256: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    classes: ClassSet | None = None,
) -> Provenance:
    """Writes the checkpoint of the network `name` as safetensors: each tensor as it is, in the dtype it has.

    `out` ends in .safetensors: by that it is read again. A second file that belongs to it (DANNet's) is converted
    beside it. What `load_model` makes of `out` equals what it makes of `checkpoint`; where it came from is kept in the
    file's metadata.

    Raises:
        AllWeatherError: as `load_model`; for an `out` of another suffix, that is the checkpoint, or cannot be written.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if out.suffix.lower() != ".safetensors":
        raise SettingsError(f"{out}: a conversion writes safetensors. Name it {out.with_suffix('.safetensors')}.")
    for made in (out, enhancers(out)):
        check_apart(made, (checkpoint, enhancers(checkpoint), *files_of(name)))
    library = is_own(name) or _split(name)[0] in ECOSYSTEMS
    entry = None if library else find_entry(name)
    if entry is None or classes not in (None, entry.classes):  # which is refused
        model = load_model(name, checkpoint, arguments=arguments, classes=classes, sha256=sha256)
        tensors = taken_tensors(own_network(model), checkpoint, name=model.name)
        provenance = model.provenance or Provenance(checkpoint.name, check_digest(checkpoint))
    else:
        with torch.device("meta"):
            network = entry.build()
        tensors, provenance = fitting_tensors(
            network, checkpoint, name=name, drop=entry.drop, sha256=sha256, translate=entry.translate
        )
        if entry.enhancer:
            convert(entry.enhancer, enhancers(checkpoint), enhancers(out))
    write_tensors(tensors, out, name=name, provenance=provenance)
    return provenance


def files_of(name: str) -> list[Path]:
    """The weights of a network that is read from a folder, transformers:FOLDER or smp:FOLDER."""
    library, _, place = name.partition(":")
    names = ("model.safetensors*", "model-*-of-*.safetensors", "pytorch_model*.bin*")
    return [path for name in names for path in Path(place).glob(name)] if library in ("transformers", "smp") else []


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
    return None if is_own(name) or _split(name)[0] in ECOSYSTEMS else find_entry(name).size


def is_own(name: str) -> bool:
    """Whether a name means a network of the user's own or of an installed package; nothing of it runs."""
    return _scheme(name) is None and (find_place(name) is not None or name in installed(NETWORKS))


def all_entries() -> list[Entry]:
    """Every network of this project's own, in the catalogue's order."""
    files = dict.fromkeys(file for files in FAMILIES.values() for file in files)
    return _entries(tuple(files))


def list_models() -> list[dict[str, Any]]:
    """One row per network of the catalogue, ready for JSON; libraries' schemes come last, without figures.

    Networks of installed packages: `allweather.models.own.list_own`.
    """
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


def enhancers(path: Path) -> Path:
    """The checkpoint of a network's enhancer, which lies beside the network's own."""
    return path.with_stem(f"{path.stem}_light")


def _find_own(name: str) -> tuple[str, Callable[..., Any]] | None:
    return find_maker(name) if _scheme(name) is None else None


def _scheme(name: str) -> str | None:
    """The catalogue's scheme that a name begins with; None where it begins with none."""
    scheme, separator, _ = name.partition(":")
    return scheme if separator and scheme in (*FAMILIES, *ECOSYSTEMS) else None


def _split(name: str) -> tuple[str, str]:
    """Scheme and the rest of a name, the scheme a known one."""
    scheme, separator, rest = name.partition(":")
    if not separator:
        raise _without_scheme(name)
    if _scheme(name) is None:
        near = unknown("scheme", scheme, (*FAMILIES, *ECOSYSTEMS))
        raise SettingsError(f"{near} A network of your own is FILE.py:NAME or, where it can be imported, MODULE:NAME.")
    return scheme, rest


def _no_name(given: object) -> SettingsError:
    """The error for anything but a name, with the call that takes it."""
    if isinstance(given, Segmenter):
        return SettingsError("load_model takes a name, and this is a Segmenter already: aw.Session(model, …) takes it.")
    if isinstance(given, nn.Module):
        call = "aw.Segmenter.wrap(network, classes=aw.CITYSCAPES, mean=…, std=…)"
        return SettingsError(f"load_model takes a name, got the network {type(given).__name__}. Wrap it: {call}.")
    if isinstance(given, type) and issubclass(given, nn.Module):
        call = f"aw.Segmenter.wrap({given.__name__}(…), classes=aw.CITYSCAPES, mean=…, std=…)"
        return SettingsError(f"load_model takes a name, got the class {given.__name__}. Make one and wrap it: {call}.")
    return SettingsError(
        f"load_model takes a name such as 'espnetv2:2.0', got {type(given).__name__} ({str(given)[:80]}). A checkpoint "
        "goes beside it: load_model('espnetv2:2.0', weights=PATH)."
    )


def _without_scheme(name: str) -> SettingsError:
    if nameless := without_name(name, NETWORKS):
        return nameless
    if said := no_weights_by_name(name):
        return SettingsError(f"expected a model as SCHEME:NAME, and '{name}' is {said}.")
    if name.lower().endswith((".pth", ".pt", ".tar", ".ckpt", ".safetensors", ".bin", ".mat")):
        return SettingsError(
            f"'{name}' is a checkpoint's name; say which network it belongs to: SCHEME:NAME, with the file as weights "
            f"(--weights {name}, or load_model('SCHEME:NAME', weights='{name}'))."
        )
    names = [entry.name for entry in all_entries()]
    packages = list(installed(NETWORKS))
    if near := get_close_matches(name, packages, n=1, cutoff=0.8):
        return SettingsError(f"unknown model '{name}'. Did you mean '{near[0]}'?")
    same = [known for known in names if name in (*known.split(":"), known.replace(":", ""))]
    spellings = same or [f"{scheme}:{name}" for scheme in ECOSYSTEMS]
    return SettingsError(
        f"expected a model as SCHEME:NAME, got '{name}'. Perhaps {' or '.join(spellings)}? Guessing could load other "
        "weights than you mean."
    )
