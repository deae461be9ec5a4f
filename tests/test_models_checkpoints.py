"""Checkpoints: official nestings are undone, conversion loses nothing, what does not fit is refused by name."""

import argparse
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from allweather import load_model
from allweather.errors import AllWeatherError
from allweather.models.catalogue import convert, find_entry
from allweather.models.checkpoints import fitting_tensors, load_weights, write_tensors


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, classes, 1))


def state(classes: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in network(classes).state_dict().items()
    }


NESTINGS: dict[str, Any] = {
    "raw": lambda s: s,
    "Scale., of initial weights": lambda s: {f"Scale.{k}": v for k, v in s.items()},
    "with scores of numpy": lambda s: {"model_state": s, "best_score": np.float64(0.7), "iou": np.arange(3.0)},
    "with settings": lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1), "meta": {"CLASSES": ("road",)}},
    "with an optimizer": lambda s: {
        "state_dict": s,
        "optimizer": torch.optim.Adam(network().parameters()).state_dict(),
    },
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model_state": lambda s: {"cur_itrs": 1, "model_state": s, "best_score": 0.7},
    "model_state_dict with module.": lambda s: {"model_state_dict": {f"module.{k}": v for k, v in s.items()}},
    "module.module.": lambda s: {f"module.module.{k}": v for k, v in s.items()},
    "without counters": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("form", NESTINGS)
@pytest.mark.parametrize("legacy", [False, True])
def test_official_forms_load(form: str, legacy: bool, tmp_path: Path) -> None:
    path, target, weights = tmp_path / "w.pth", network(), state()
    torch.save(NESTINGS[form](weights), path, _use_new_zipfile_serialization=not legacy)
    provenance = load_weights(target, path, name="tiny")
    assert len(provenance.sha256) == 64
    assert all(torch.equal(target.state_dict()[key], weights[key]) for key in weights if "num_batches" not in key)


def test_conversion_keeps_every_tensor_and_its_dtype_and_says_where_it_came_from(tmp_path: Path) -> None:
    weights = state()
    weights["0.weight"] = weights["0.weight"].double() / 3
    weights["2.weight"] = weights["2.weight"].half()
    del weights["1.num_batches_tracked"]
    content = {
        "state_dict": {f"module.{key}": value for key, value in {**weights, "aux.weight": torch.ones(2)}.items()}
    }
    torch.save(content, tmp_path / "w.pth")
    tensors, provenance = fitting_tensors(network(), tmp_path / "w.pth", name="tiny", drop=("aux.*",))
    write_tensors(tensors, tmp_path / "w.safetensors", name="tiny", provenance=provenance)
    written = load_file(tmp_path / "w.safetensors")
    assert written.keys() == weights.keys()
    assert all(written[key].dtype == value.dtype and torch.equal(written[key], value) for key, value in weights.items())
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        recorded = file.metadata()
    assert recorded["source_file"] == "w.pth"
    assert recorded["source_sha256"] == provenance.sha256
    assert (recorded["model"], recorded["nesting"], recorded["prefix"]) == ("tiny", "state_dict", "module.")
    assert json.loads(recorded["dropped"]) == ["aux.weight"]
    assert not list(tmp_path.glob("*.partial"))
    one, other = network(), network()
    load_weights(one, tmp_path / "w.pth", name="tiny", drop=("aux.*",))
    load_weights(other, tmp_path / "w.safetensors", name="tiny")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_a_converted_network_of_two_files_loads(tmp_path: Path) -> None:
    entry = find_entry("dannet:deeplab")
    torch.manual_seed(0)
    torch.save(entry.build().state_dict(), tmp_path / "a.pth")
    torch.save(find_entry("dannet:lightnet").build().state_dict(), tmp_path / "a_light.pth")
    convert("dannet:deeplab", tmp_path / "a.pth", tmp_path / "b.safetensors")
    before, after = (load_model("dannet:deeplab", tmp_path / name) for name in ("a.pth", "b.safetensors"))
    assert all(torch.equal(value, after.state_dict()[key]) for key, value in before.state_dict().items())


def test_networks_of_libraries_are_converted_too(tmp_path: Path) -> None:
    library = pytest.importorskip("torchvision")
    made = library.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=19, aux_loss=True
    )  # fmt: skip
    torch.save({"model": made.state_dict(), "epoch": 1}, tmp_path / "a.pth")
    provenance = convert("torchvision:fcn_resnet50", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert provenance.dropped
    assert all(key.startswith("aux_classifier.") for key in provenance.dropped)
    loaded = load_model("torchvision:fcn_resnet50", tmp_path / "a.safetensors").network.state_dict()
    assert all(torch.equal(made.state_dict()[key], value) for key, value in loaded.items())


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    packaged = find_entry("demo:streetnet").packaged
    assert packaged
    with pytest.raises(AllWeatherError, match="cannot write"):
        convert("demo:streetnet", packaged, tmp_path / "absent" / "a.safetensors")


def test_a_conversion_that_fails_leaves_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"of before")

    def cut(tensors: dict[str, torch.Tensor], target: Path, metadata: dict[str, str]) -> None:
        target.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr("allweather.models.checkpoints.save_file", cut)
    packaged = find_entry("demo:streetnet").packaged
    assert packaged
    with pytest.raises(AllWeatherError, match="no space left"):
        convert("demo:streetnet", packaged, out)
    assert out.read_bytes() == b"of before" and [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_training_keys_are_dropped_by_rule_and_listed(tmp_path: Path) -> None:
    torch.save({**state(), "aux.weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(AllWeatherError, match=r"1 unexpected \(first: aux.weight\)"):
        load_weights(network(), tmp_path / "w.pth", name="tiny")
    assert load_weights(network(), tmp_path / "w.pth", name="tiny", drop=("aux.*",)).dropped == ("aux.weight",)


def damaged(kind: str, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    whole = buffer.getvalue()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "web page":
        path.write_bytes(b"<!DOCTYPE html><html>Google Drive - Quota exceeded</html>")
    elif kind == "noise":
        path.write_bytes(bytes(range(256)) * 20)
    elif kind == "a list":
        torch.save([torch.ones(2)], path)
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    elif kind == "numbered":
        torch.save({0: torch.ones(2)}, path)
    elif kind == "more than tensors":
        torch.save({"state_dict": {**state(), "note": 3}}, path)
    elif kind == "in itself":
        content: dict[str, Any] = {}
        content["state_dict"] = content
        torch.save(content, path)
    elif kind == "broken directory":
        path.write_bytes(whole[: len(whole) // 2] + whole[-22:])
    elif kind == "NaN":
        torch.save(
            {key: value * float("nan") if value.is_floating_point() else value for key, value in state().items()}, path
        )


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "empty",
        "web page",
        "noise",
        "a list",
        "no tensors",
        "broken directory",
        "NaN",
        "numbered",
        "more than tensors",
        "in itself",
    ],
)
def test_damaged_files_are_named_and_change_nothing(kind: str, tmp_path: Path) -> None:
    path, target = tmp_path / "w.pth", network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    damaged(kind, path)
    with pytest.raises(AllWeatherError) as error:
        load_weights(target, path, name="tiny")
    assert str(path) in str(error.value)
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


KINDS = {
    "complex": torch.zeros(4, 3, 3, 3, dtype=torch.complex64),
    "integers": torch.zeros(4, 3, 3, 3, dtype=torch.int64),
    "sparse": torch.zeros(4, 3, 3, 3).to_sparse(),
    "without values": torch.zeros(4, 3, 3, 3, device="meta"),
    "eight bits": torch.zeros(4, 3, 3, 3).to(torch.float8_e4m3fn),
    "too large for float32": torch.full((4, 3, 3, 3), 1e200, dtype=torch.float64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_another_kind_are_named(kind: str, tmp_path: Path) -> None:
    torch.save({**state(), "0.weight": KINDS[kind]}, tmp_path / "w.pth")
    with pytest.raises(AllWeatherError, match=r"0\.weight (is|holds)"):
        load_weights(network(), tmp_path / "w.pth", name="tiny")


def test_a_tensor_without_axes_is_named(tmp_path: Path) -> None:
    torch.save({**state(), "0.bias": torch.tensor(1.0)}, tmp_path / "w.pth")
    with pytest.raises(AllWeatherError, match=r"0\.bias of shape \(4,\), the file has \(\)"):
        load_weights(network(), tmp_path / "w.pth", name="tiny")


@pytest.mark.parametrize("claimed", [10 << 30, 2**63, 200])
def test_a_safetensors_header_that_claims_too_much_is_refused(claimed: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + b"{}" + b" " * 20)
    with pytest.raises(AllWeatherError, match="the header claims"):
        load_weights(network(), path, name="tiny")


def test_a_truncated_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state(), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AllWeatherError, match="not a readable safetensors"):
        load_weights(network(), path, name="tiny")


def test_another_network_and_another_class_count_are_named(tmp_path: Path) -> None:
    torch.save(state(5), tmp_path / "five.pth")
    with pytest.raises(AllWeatherError, match="trained for 5 classes, the network has 3"):
        load_weights(network(), tmp_path / "five.pth", name="tiny")
    torch.save({"other.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(
        AllWeatherError, match=r"keys missing \(first: 0.weight\), 1 unexpected \(first: other.weight\)"
    ):
        load_weights(network(), tmp_path / "other.pth", name="tiny")


def test_the_digest_is_checked_when_given(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pth")
    digest = load_weights(network(), tmp_path / "w.pth", name="tiny").sha256
    load_weights(network(), tmp_path / "w.pth", name="tiny", sha256=digest.upper())
    with pytest.raises(AllWeatherError, match="expected sha256"):
        load_weights(network(), tmp_path / "w.pth", name="tiny", sha256="0" * 64)


def test_the_digest_of_a_librarys_checkpoint_is_checked_too(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    torch.save(state(), tmp_path / "w.pth")
    with pytest.raises(AllWeatherError, match="expected sha256"):
        load_model("torchvision:fcn_resnet50", tmp_path / "w.pth", sha256="0" * 64)
    with pytest.raises(AllWeatherError, match="weights=FILE"):
        load_model("espnetv2:0.5", sha256="0" * 64)
