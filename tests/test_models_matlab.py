"""MatConvNet networks in MATLAB files of the structure that MGCDA saves, written here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import allweather
from refusals import refusal
from torch import Tensor

from allweather import CheckpointError, load_model
from allweather.models.matlab import read_matlab
from allweather.models.nets.mgcda import EPS, build, translate

h5py: Any = pytest.importorskip("h5py")
BLOCKS = {
    2: ["a", "b", "c"],
    3: ["a", "b1", "b2", "b3"],
    4: ["a", *(f"b{i}" for i in range(1, 23))],
    5: ["a", "b", "c"],
}


def matconvnet_names() -> dict[str, str]:
    """Every MatConvNet parameter of RefineNet on ResNet-101 and the layer of ours that it is."""
    names = {"conv1_filter": "conv1", "bn_conv1": "bn1"}
    for stage, letters in BLOCKS.items():
        for index, letter in enumerate(letters):
            block = f"layer{stage - 1}.{index}"
            for place, branch in enumerate("abc", 1):
                names[f"res{stage}{letter}_branch2{branch}_filter"] = f"{block}.conv{place}"
                names[f"bn{stage}{letter}_branch2{branch}"] = f"{block}.bn{place}"
            if index == 0:
                names[f"res{stage}{letter}_branch1_filter"] = f"{block}.downsample.0"
                names[f"bn{stage}{letter}_branch1"] = f"{block}.downsample.1"
    for group in range(1, 5):
        names[f"p_ims0d8_outl{group}_dimred_filter"] = f"p_ims1d2_outl{group}_dimred"
        for prefix, ours, units in (
            (f"adapt_input_path{group}", f"adapt_stage{group}_b.0", 2),
            (f"mflow_conv_g{group}", f"mflow_conv_g{group}_b.0", 3),
        ):
            for unit in range(1, units + 1):
                names[f"{prefix}_b{unit}_conv_filter"] = f"{ours}.{unit}_conv"
                names[f"{prefix}_b{unit}_conv_bias"] = f"{ours}.{unit}_conv"
                names[f"{prefix}_b{unit}_conv_relu_varout_dimred_filter"] = f"{ours}.{unit}_conv_relu_varout_dimred"
        if group > 1:
            joint = f"adapt_input_path{group}_b2_joint_varout_dimred_filter"
            names[joint] = f"adapt_stage{group}_b2_joint_varout_dimred"
        if group < 4:
            name = f"mflow_conv_g{group}_b3_joint_varout_dimred"
            names[f"{name}_filter"] = name
        for link in range(1, 5):
            before = "poolprev_relu_varout" if link == 1 else f"pool{link - 1}_outvar"
            names[f"mflow_conv_g{group}_{before}_pb{link}_filter"] = f"mflow_conv_g{group}_pool.0.{link}_outvar_dimred"
    return names


def as_matconvnet(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """A state dict as MATLAB arrays (height×width×inputs×outputs, moments N×2) by MatConvNet name."""
    arrays = {}
    for name, layer in matconvnet_names().items():
        if name.startswith("bn"):
            deviation = (state[f"{layer}.running_var"] + EPS).sqrt()
            arrays[f"{name}_mult"] = state[f"{layer}.weight"][:, None].numpy()
            arrays[f"{name}_bias"] = state[f"{layer}.bias"][:, None].numpy()
            arrays[f"{name}_moments"] = torch.stack([state[f"{layer}.running_mean"], deviation], 1).numpy()
        elif name.endswith("_bias"):
            arrays[name] = state[f"{layer}.bias"][None].numpy()
        else:
            arrays[name] = state[f"{layer}.weight"].permute(2, 3, 1, 0).numpy()
    return arrays


def write_mat(path: Path, groups: list[dict[str, np.ndarray]], classifier: tuple[np.ndarray, np.ndarray]):
    """What MATLAB's `save -v7.3` makes of a ref_obj: the variable a stub, the structures under #refs#."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        stub = file.create_dataset("net_config", data=np.array([[0xDD000000, 2, 1, 1, 1, 1]], dtype=np.uint32))
        stub.attrs["MATLAB_class"] = np.bytes_("ref_obj")
        stub.attrs["MATLAB_object_decode"] = np.int32(3)
        count = 0
        for index, parameters in enumerate(groups):
            structure = refs.create_group(f"params{index}")
            columns: dict[str, list[Any]] = {"name": [], "value": [], "learningRate": []}
            for name, value in parameters.items():
                text = refs.create_dataset(f"n{count}", data=np.array([[ord(c)] for c in name], dtype=np.uint16))
                text.attrs["MATLAB_class"] = np.bytes_("char")
                data = refs.create_dataset(f"v{count}", data=value.transpose(), chunks=None)
                rate = refs.create_dataset(f"r{count}", data=np.ones((1, 1)))
                for column, item in zip(columns.values(), (text, data, rate), strict=True):
                    column.append(item.ref)
                count += 1
            for column, references in columns.items():
                structure.create_dataset(column, data=np.array([references], dtype=object).T, dtype=h5py.ref_dtype)
        layer = refs.create_group("layer")
        layer.create_dataset("filters", data=classifier[0].transpose())
        layer.create_dataset("biases", data=classifier[1].transpose())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(0)
    network = build().eval()
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    state = network.state_dict()
    arrays = as_matconvnet(state)
    names = list(arrays)
    groups = [{name: arrays[name] for name in part} for part in (names[:300], names[300:])]
    classifier = state["clf_conv.weight"].permute(2, 3, 1, 0).numpy(), state["clf_conv.bias"][None].numpy()
    path = tmp_path_factory.mktemp("matlab") / "net-config.mat"
    write_mat(path, groups, classifier)
    return path, state


@pytest.fixture(scope="module")
def loaded(saved: tuple[Path, dict[str, Tensor]]) -> dict[str, Tensor]:
    return load_model("mgcda:refinenet", saved[0]).network.state_dict()


def test_a_file_gives_the_network_that_wrote_it(saved: tuple[Path, dict[str, Tensor]], loaded: dict[str, Tensor]):
    _, state = saved
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(loaded[key], value, rtol=1e-5, atol=1e-6)


def test_the_command_line_converts_it(saved: tuple[Path, dict[str, Tensor]], loaded: dict[str, Tensor], tmp_path: Path):
    out = tmp_path / "mgcda.safetensors"
    allweather("convert", saved[0], "--model", "mgcda:refinenet", "--out", out).ok()
    again = load_model("mgcda:refinenet", out).network.state_dict()
    assert again.keys() == loaded.keys() and all(torch.equal(again[key], loaded[key]) for key in loaded)


def test_height_and_width_are_not_exchanged(tmp_path: Path):
    value = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # height×width×inputs×outputs
    write_mat(tmp_path / "a.mat", [{"x_filter": value}], (value, np.zeros((1, 5), dtype=np.float32)))
    found = read_matlab(tmp_path / "a.mat")
    assert found["x_filter"].shape == (5, 4, 2, 3)
    assert float(found["x_filter"][4, 3, 1, 2]) == value[1, 2, 3, 4]


def test_the_first_convolutions_bias_goes_into_the_mean():
    found = {"conv1_bias": torch.tensor([2.0]), "bn_conv1_moments": torch.tensor([[5.0, 1.0]])}
    assert float(translate(found)["bn1.running_mean"]) == 3


@pytest.mark.parametrize("content", [b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n truncated"])
def test_another_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "old.mat"
    path.write_bytes(content)
    with refusal(r"v7\.3"):
        load_model("mgcda:refinenet", path)


def test_a_file_without_a_network_is_refused(tmp_path: Path):
    path = tmp_path / "other.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(3))
    with refusal("MatConvNet"):
        load_model("mgcda:refinenet", path)


def test_a_file_that_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path):
    path = tmp_path / "zeros.mat"
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer")
        layer.create_dataset("filters", (19, 256, 1 << 10, 1 << 10), "f4", chunks=(1, 1, 64, 64), compression="gzip")
        layer.create_dataset("biases", (19, 1), "f4")
    assert path.stat().st_size < 1 << 20
    with refusal("20,401,094,732 bytes; expected at most"):
        load_model("mgcda:refinenet", path)


SECRET = b"-----BEGIN KEY-----".ljust(32, b"!")


def stored(group: Any, name: str, dtype: str, folder: Path):
    count = len(SECRET) // np.dtype(dtype).itemsize
    group.create_dataset(name, (count,), dtype, external=[(str(folder / "secret"), 0, len(SECRET))])


def virtual(group: Any, name: str, dtype: str, folder: Path):
    values = np.frombuffer(SECRET, dtype)
    layout = h5py.VirtualLayout(values.shape, dtype)
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), dtype, values.shape)
    group.create_virtual_dataset(name, layout)


def linked(group: Any, name: str, dtype: str, folder: Path):
    group[name] = h5py.ExternalLink(str(folder / "secret.h5"), dtype)


def linked_twice(group: Any, name: str, dtype: str, folder: Path):
    linked(group.file, "there", dtype, folder)
    group[name] = h5py.SoftLink("/there")


@pytest.mark.parametrize("place", ["filters", "biases", "text", "value"])
@pytest.mark.parametrize("way", [stored, virtual, linked, linked_twice])
def test_no_byte_of_another_file_is_taken_in(way: Callable[..., None], place: str, tmp_path: Path):
    """HDF5 lets a dataset name any file of the disk as where its bytes are."""
    (tmp_path / "secret").write_bytes(SECRET)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        for dtype in ("f4", "u2"):
            file[dtype] = np.frombuffer(SECRET, dtype)
    with h5py.File(tmp_path / "odd.mat", "w") as file:
        if place in ("filters", "biases"):
            layer = file.create_group("layer")
            way(layer, place, "f4", tmp_path)
            layer["biases" if place == "filters" else "filters"] = np.zeros(3, "f4")
        elif way in (stored, virtual):
            file["value" if place == "text" else "text"] = np.array([[ord("x")]], "u2")
            way(file, place, "u2" if place == "text" else "f4", tmp_path)
            file["text"].attrs["MATLAB_class"] = np.bytes_("char")
            for field, item in (("params/name", file["text"]), ("params/value", file["value"])):
                file.create_dataset(field, data=np.array([[item.ref]], dtype=object), dtype=h5py.ref_dtype)
        else:  # references lead nowhere else, the columns that hold them may
            file["params/name"] = np.zeros(3, "f4")
            way(file["params"], "value", "f4", tmp_path)
    with refusal(r"odd\.mat: .* is kept in other files", CheckpointError):
        read_matlab(tmp_path / "odd.mat")


@pytest.mark.parametrize("kind", ["group", "text"])
def test_a_value_that_is_no_array_is_refused(kind: str, tmp_path: Path):
    path = tmp_path / "odd.mat"
    with h5py.File(path, "w") as file:
        name = file.create_dataset("n", data=np.array([[ord("x")]], dtype=np.uint16))
        name.attrs["MATLAB_class"] = np.bytes_("char")
        value = file.create_group("v") if kind == "group" else file.create_dataset("v", data="words")
        params = file.create_group("params")
        for field, item in (("name", name), ("value", value)):
            params.create_dataset(field, data=np.array([[item.ref]], dtype=object), dtype=h5py.ref_dtype)
    with refusal(r"odd\.mat"):
        load_model("mgcda:refinenet", path)


def test_a_parameter_of_another_network_is_named():
    with refusal("fc1000_filter"):
        translate({"fc1000_filter": torch.zeros(1)})
