"""Checkpoints: official nestings are undone; hostile, damaged and foreign files are refused without running them."""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from allweather.errors import AllWeatherError
from allweather.models.checkpoints import convert, load_weights


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


def test_safetensors_and_conversion_are_lossless(tmp_path: Path) -> None:
    weights = state()
    torch.save({"state_dict": weights}, tmp_path / "w.pth")
    convert(tmp_path / "w.pth", network(), tmp_path / "w.safetensors", name="tiny")
    target = network()
    load_weights(target, tmp_path / "w.safetensors", name="tiny")
    assert all(torch.equal(target.state_dict()[key], value) for key, value in weights.items())


def test_training_keys_are_dropped_by_rule_and_listed(tmp_path: Path) -> None:
    torch.save({**state(), "aux.weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(AllWeatherError, match=r"1 unexpected \(first: aux.weight\)"):
        load_weights(network(), tmp_path / "w.pth", name="tiny")
    assert load_weights(network(), tmp_path / "w.pth", name="tiny", drop=("aux.*",)).dropped == ("aux.weight",)


class Payload:
    """A pickle that would leave a mark if it ran."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for index, content in enumerate(({"state_dict": Payload(mark)}, Payload(mark))):
        path = tmp_path / f"evil{index}.pth"
        torch.save(content, path)
        with pytest.raises(AllWeatherError, match="holds code or objects"):
            load_weights(network(), path, name="tiny")
    raw = tmp_path / "raw.pth"
    raw.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(AllWeatherError):
        load_weights(network(), raw, name="tiny")
    assert not mark.exists()


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
    elif kind == "zip bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", b"0" * 50_000_000)
    elif kind == "broken directory":
        path.write_bytes(whole[: len(whole) // 2] + whole[-22:])
    elif kind == "NaN":
        torch.save(
            {key: value * float("nan") if value.is_floating_point() else value for key, value in state().items()}, path
        )


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "web page", "noise", "a list", "no tensors", "zip bomb", "broken directory", "NaN"]
)
def test_damaged_files_are_named_and_change_nothing(kind: str, tmp_path: Path) -> None:
    path, target = tmp_path / "w.pth", network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    damaged(kind, path)
    with pytest.raises(AllWeatherError) as error:
        load_weights(target, path, name="tiny")
    assert str(path) in str(error.value)
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


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
