"""Files that hold no weights are told as what they are, given as weights or as a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import session_of
from refusals import refusal
from safetensors.torch import save
from tiny import TinyNetwork, equal_in, tiny
from torch import nn

from allweather import CheckpointError, NetworkError, SettingsError, load_model
from allweather.models.checkpoints import load_weights
from allweather.models.own import build_own

SIZE = {"size": (48, 32)}


def export(**settings: Any) -> Callable[[Path], object]:
    return lambda path: session_of(tiny()).export(path, **settings)


def save_session(path: Path):
    session_of(tiny()).save(path)


def program(path: Path | None = None) -> torch.export.ExportedProgram:
    made = torch.export.export(nn.Conv2d(3, 19, 1).eval(), (torch.rand(1, 3, 8, 8),))
    if path is not None:
        torch.export.save(made, path)
    return made


def hdf5(path: Path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {  # a name, what writes the file, and what is said of it
    "night.session": (save_session, r"a saved session, no weights.*--from-session"),
    "night.safetensors": (save_session, r"a saved session, no weights.*--from-session"),
    "night.delta.safetensors": (export(), r"a delta, .*apply_delta\(network"),
    "night.pt2": (export(**SIZE), r"a graph that an export wrote.*NAME\.safetensors"),
    "theirs.pt2": (program, r"a program of torch\.export.*torch\.export\.load\(FILE\)\.module\(\)"),
    "night.onnx": (export(**SIZE), r"an ONNX graph.*NAME\.safetensors"),
    "arrays.npz": (lambda path: np.savez(path, a=np.zeros(3)), "NumPy's arrays.*load_state_dict"),
    "array.npy": (lambda path: np.save(path, np.zeros(3)), "NumPy's arrays.*load_state_dict"),
    "keras.h5": (hdf5, "an HDF5 file"),
    "m.index.json": (lambda path: path.write_text('{"weight_map": {"a": "m-1-of-2.bin"}}'), "a list of the parts"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_without_weights_is_told_as_what_it_is(name: str, tmp_path: Path):
    if name.endswith(".onnx"):
        pytest.importorskip("onnxscript")
    write, said = KINDS[name]
    path = tmp_path / name
    write(path)
    for content in (path, tmp_path / "renamed.pth"):
        if content != path:
            path.rename(content)
        with refusal(rf"is {said}", CheckpointError):
            load_weights(TinyNetwork(nn.BatchNorm2d), content, name="tiny")
        with refusal(rf"expected a model as SCHEME:NAME, and '.*' is {said}", SettingsError):
            load_model(str(content))


@pytest.mark.parametrize("name", [name for name in KINDS if name != "night.safetensors"])
def test_a_model_named_by_such_a_file_that_is_not_there_is_told_by_its_suffix(name: str):
    with refusal(r"expected a model as SCHEME:NAME, and '.*' is an? |NumPy's", SettingsError):
        load_model(name.upper())


def test_a_name_too_long_for_a_file_is_a_name():
    with refusal("expected a model as SCHEME:NAME, got 'aaa", SettingsError):
        load_model("a" * 5000)


def test_weights_of_safetensors_load_under_any_name(tmp_path: Path):
    model = tiny()
    (tmp_path / "weights.bin").write_bytes(save(model.network.state_dict()))
    fresh = TinyNetwork(nn.BatchNorm2d)
    load_weights(fresh, tmp_path / "weights.bin", name="tiny")
    assert equal_in(model.network.state_dict(), fresh.state_dict())
    (tmp_path / "cut.session").write_bytes((tmp_path / "weights.bin").read_bytes()[:200])
    with refusal("truncated or no safetensors"):
        load_weights(fresh, tmp_path / "cut.session", name="tiny")


def test_a_function_that_gives_a_program_is_told_of_its_module():
    with refusal(r"got ExportedProgram: return its module, exported\.module\(\)", NetworkError):
        build_own("mynets.py:build", lambda: program())
    assert not build_own("mynets.py:build", lambda: program().module()).training
