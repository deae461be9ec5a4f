"""Files that hold no weights to load, told by their content, and what to do with each."""

import zipfile
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open

from allweather.models.passed_on import DELTA, SESSION

_START = 4096  # bytes
ARCHIVE = b"PK\x03\x04"  # opens a zip archive
_TENSORS = b'{"'  # opens the header of safetensors, after 8 bytes with its length
_PROGRAMS = ("archive_format", "serialized_exported_program.json")  # in archives of torch.export, and in older ones
_IN_PYTHON = "from a function of a file, --model mynets.py:build"
_OURS = "a graph that an export wrote, which no longer adapts"
_NAME_IT = (
    "Name the network that was adapted, --model SCHEME:NAME; its adapted weights are what `allweather export` or "
    "session.export writes as NAME.safetensors"
)
JOIN_PARTS = (
    "Save all parts as one file (of safetensors.torch, save_file({key: value for part in PARTS for key, value in "
    "load_file(part).items()}, 'all.safetensors')) and give that; a whole folder of transformers loads as "
    "--model transformers:FOLDER"
)
_SAID = {
    "session": (
        "a saved session, no weights. Name the network that was adapted, --model SCHEME:NAME, and go on by "
        "--from-session FILE, in Python session.load(FILE); `allweather export FILE` makes weights of it"
    ),
    "delta": (
        "a delta, what adaptation moved and no more. Load the network that was adapted and return "
        f"allweather.apply_delta(network, FILE) {_IN_PYTHON}"
    ),
    "program of ours": f"{_OURS}. {_NAME_IT}",
    "program": f"a program of torch.export. Return torch.export.load(FILE).module() {_IN_PYTHON}",
    "onnx": f"an ONNX graph, which PyTorch does not run. {_NAME_IT}",
    "numpy": f"NumPy's arrays. Give them to the network, load_state_dict, and return it {_IN_PYTHON}",
    "index": f"a list of the parts of a checkpoint. {JOIN_PARTS}",
    "hdf5": f"an HDF5 file, as Keras writes them. Give its arrays to the network and return it {_IN_PYTHON}",
}
_SUFFIXES = {
    ".json": "index",
    ".session": "session",
    ".pt2": "program",
    ".onnx": "onnx",
    ".npz": "numpy",
    ".npy": "numpy",
    ".h5": "hdf5",
}


def no_weights(path: Path) -> str | None:
    """What a file is that holds no weights to load, and what to do; None for every other, and for a damaged one."""
    kind = _kind(path)
    return None if kind is None else _SAID[kind]


def no_weights_by_name(name: str) -> str | None:
    """The same of a file that need not be there: then its suffix decides."""
    path = Path(name)
    with suppress(OSError):  # too long for a file's name, or not to be read
        if path.is_file():
            return no_weights(path)
    kind = "delta" if name.lower().endswith(".delta.safetensors") else _SUFFIXES.get(path.suffix.lower())
    return None if kind is None else _SAID[kind]


def is_safetensors(head: bytes) -> bool:
    """Whether a file that opens so is of safetensors, whatever it is called."""
    return head[8:10] == _TENSORS


def _kind(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(_START)
    head = start[:16]
    if is_safetensors(head):
        return _of_tensors(path)
    if head.startswith(ARCHIVE):
        return _of_archive(path)
    if head.startswith(b"{"):
        return "index" if b'"weight_map"' in start else None
    if head.startswith(b"\x08"):  # the first field of ONNX's model, and no pickle's first byte
        return "onnx"
    if head.startswith(b"\x93NUMPY"):
        return "numpy"
    return "hdf5" if head.startswith(b"\x89HDF\r\n\x1a\n") else None


def _of_tensors(path: Path) -> str | None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    return next((kind for key, kind in ((SESSION, "session"), (DELTA, "delta")) if key in metadata), None)


def _of_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return None
    if any(name.rpartition("/")[2] in _PROGRAMS for name in names):
        return "program of ours" if any(name.endswith("/allweather.json") for name in names) else "program"
    return "numpy" if names and all(name.endswith(".npy") for name in names) else None
