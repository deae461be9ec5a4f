"""MatConvNet networks in MATLAB 7.3 files: the named parameters within, without decoding MATLAB's objects.

Such a file is HDF5. MATLAB keeps a handle object (RefineNet's `ref_obj`) in an undocumented form, yet all structures
within it lie in ordinary groups: a list of parameters is a group whose `name` and `value` hold references, in order,
and a plain convolution layer one with `filters` and `biases`. Both are found wherever they are.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allweather.errors import CheckpointError, optional

CLASSIFIER = "classifier"  # what the layer without a name is called here
LONGEST_NAME = 200  # characters
LARGEST = 4 << 30  # bytes unpacked: compressed zeros may claim any number; RefineNet on ResNet-101 has half a gigabyte


def read_matlab(path: Path) -> dict[str, Tensor]:
    """Parameters by their MatConvNet names; filters as outputs×inputs×height×width, others flat or N×2.

    Args:
        path: a `.mat` file that MATLAB saved with `-v7.3`.

    Raises:
        AllWeatherError: when h5py is missing, the file is no HDF5, it holds no such parameters, or their bytes lie in
            other files.
    """
    h5py: Any = optional("h5py", "matlab")
    groups: list[Any] = []
    try:
        with h5py.File(path) as file:
            file.visititems(lambda _, item: groups.append(item) if isinstance(item, h5py.Group) else None)
            items: dict[str, Any] = {}
            for group in [file, *groups]:
                items |= _parameters(file, group, h5py)
            claimed = sum(item.size * item.dtype.itemsize for item in items.values())
            if claimed > LARGEST:
                raise CheckpointError(f"{path}: parameters of {claimed:,} bytes; expected at most {LARGEST:,}.")
            found = {name: _array(item) for name, item in items.items()}
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a readable MATLAB 7.3 file ({error}). Older ones are not HDF5: save it again with '-v7.3'."
        ) from error
    if not found:
        raise CheckpointError(
            f"{path}: no parameters of a MatConvNet network in it (structures with 'name' and 'value', or 'filters' "
            "and 'biases'). Expected the net-config file that MGCDA or RefineNet saves."
        )
    return found


def _parameters(file: Any, group: Any, h5py: Any) -> dict[str, Any]:
    """The parameters that one structure lists, if it does, as datasets that are not read yet."""
    names, values = _fields(group, ("name", "value"), h5py)
    if all(item is not None and item.dtype == h5py.ref_dtype for item in (names, values)):
        pairs = zip(names[()].flatten(), values[()].flatten(), strict=True)
        texts = ((_own(file[name]), value) for name, value in pairs)
        return {_text(text): _own(file[value]) for text, value in texts if _is_text(text)}
    filters, biases = _fields(group, ("filters", "biases"), h5py)
    if all(item is not None and item.dtype.kind == "f" for item in (filters, biases)):
        return {f"{CLASSIFIER}_filter": filters, f"{CLASSIFIER}_bias": biases}
    return {}


def _fields(group: Any, fields: tuple[str, ...], h5py: Any) -> list[Any]:
    """The datasets of a structure by name, None for each that it has not.

    Raises:
        CheckpointError: as `_own`, and for a name that leads elsewhere; another file is not even opened.
    """
    links = [group.get(field, getlink=True) for field in fields]
    if not all(link is None or isinstance(link, h5py.HardLink) for link in links):
        raise _elsewhere(group)
    items = [group.get(field) for field in fields]
    return [_own(item) if isinstance(item, h5py.Dataset) else None for item in items]


def _own(item: Any) -> Any:
    """The same dataset, whose bytes lie in this file.

    Raises:
        CheckpointError: where HDF5 would read them from others, which may be any of the disk.
    """
    if getattr(item, "external", None) or getattr(item, "is_virtual", False):
        raise _elsewhere(item)
    return item


def _elsewhere(item: Any) -> CheckpointError:
    return CheckpointError(
        f"{item.file.filename}: {item.name} is kept in other files; expected parameters within this one. Save it again "
        "with '-v7.3'."
    )


def _is_text(dataset: Any) -> bool:
    is_char = dataset.dtype.kind == "u" and dataset.attrs.get("MATLAB_class") == b"char"
    return bool(is_char and dataset.size <= LONGEST_NAME)


def _text(dataset: Any) -> str:
    return "".join(chr(code) for code in dataset[()].flatten())


def _array(dataset: Any) -> Tensor:
    """MATLAB stores columns first, so HDF5 shows its axes backwards: filters as outputs×inputs×width×height."""
    values = np.asarray(dataset[()], dtype=np.float32)
    if values.ndim == 4:
        values = values.transpose(0, 1, 3, 2)
    elif values.ndim == 2:
        values = values.T if min(values.shape) > 1 else values.flatten()
    return torch.from_numpy(np.ascontiguousarray(values))
