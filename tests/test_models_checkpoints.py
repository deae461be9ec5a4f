"""Checkpoints: official nestings are undone, conversion loses nothing, what does not fit is refused by name."""

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import io
import json
import struct
import sys
import types
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import allweather
from PIL import Image
from refusals import refusal
from safetensors.torch import load_file, save_file
from small import Small, small
from tiny import equal_in, read_file
from torch import nn

from allweather import AllWeatherError, CheckpointError, SettingsError, load_model
from allweather.app.opening import open_session
from allweather.models.catalogue import convert, find_entry
from allweather.models.checkpoints import fitting_tensors, load_weights, write_tensors
from allweather.models.segmenter import Provenance


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, classes, 1))


def load(path: Path, **options: Any) -> Provenance:
    """Into a network of three classes."""
    return load_weights(network(), path, name="tiny", **options)


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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.pth"


@pytest.mark.parametrize("form", NESTINGS)
@pytest.mark.parametrize("legacy", [False, True])
def test_official_forms_load(form: str, legacy: bool, path: Path):
    target, weights = network(), state()
    torch.save(NESTINGS[form](weights), path, _use_new_zipfile_serialization=not legacy)
    provenance = load_weights(target, path, name="tiny")
    assert len(provenance.sha256) == 64
    assert all(torch.equal(target.state_dict()[key], weights[key]) for key in weights if "num_batches" not in key)


def test_conversion_keeps_every_tensor_and_its_dtype_and_says_where_it_came_from(tmp_path: Path, path: Path):
    weights = state()
    weights["0.weight"] = weights["0.weight"].double() / 3
    weights["2.weight"] = weights["2.weight"].half()
    del weights["1.num_batches_tracked"]
    content = {
        "state_dict": {f"module.{key}": value for key, value in {**weights, "aux.weight": torch.ones(2)}.items()}
    }
    torch.save(content, path)
    tensors, provenance = fitting_tensors(network(), path, name="tiny", drop=("aux.*",))
    write_tensors(tensors, tmp_path / "w.safetensors", name="tiny", provenance=provenance)
    written = load_file(tmp_path / "w.safetensors")
    assert written.keys() == weights.keys()
    assert all(written[key].dtype == value.dtype and torch.equal(written[key], value) for key, value in weights.items())
    _, recorded = read_file(tmp_path / "w.safetensors")
    assert recorded["source_file"] == "w.pth"
    assert recorded["source_sha256"] == provenance.sha256
    assert (recorded["model"], recorded["nesting"], recorded["prefix"]) == ("tiny", "state_dict", "module.")
    assert json.loads(recorded["dropped"]) == ["aux.weight"]
    assert not list(tmp_path.glob("*.partial"))
    one, other = network(), network()
    load_weights(one, path, name="tiny", drop=("aux.*",))
    load_weights(other, tmp_path / "w.safetensors", name="tiny")
    assert equal_in(one.state_dict(), other.state_dict())


class Renews(nn.Conv2d):
    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, about: Any, *rest: Any):
        state[f"{prefix}weight"] *= 1 if about.get("version") == 2 else -1
        state.setdefault(f"{prefix}bias", state.pop(f"{prefix}b", None))
        super()._load_from_state_dict(state, prefix, about, *rest)


@pytest.mark.parametrize("form", ["torch", "renamed"])
def test_a_module_is_asked_what_it_makes_of_its_tensors(form: str, path: Path):
    one, other = Renews(3, 3, 1), Renews(3, 3, 1)
    held = nn.ModuleDict({"module": one}).state_dict()
    if form == "renamed":
        held["module.b"] = held.pop("module.bias")
    torch.save(held, path)
    load_weights(other, path, name="tiny")
    assert torch.equal(other.weight, one.weight) and torch.equal(other.bias, one.bias)
    torch.save({"other": torch.ones(3)}, path)
    other.register_load_state_dict_post_hook(lambda _, keys: [each.clear() for each in keys] and None)
    with refusal("not a checkpoint", CheckpointError):
        load_weights(other, path, name="tiny")


def test_a_converted_network_of_two_files_loads(tmp_path: Path):
    entry = find_entry("dannet:deeplab")
    torch.manual_seed(0)
    torch.save(entry.build().state_dict(), tmp_path / "a.pth")
    torch.save(find_entry("dannet:lightnet").build().state_dict(), tmp_path / "a_light.pth")
    convert("dannet:deeplab", tmp_path / "a.pth", tmp_path / "b.safetensors")
    before, after = (load_model("dannet:deeplab", tmp_path / name) for name in ("a.pth", "b.safetensors"))
    assert equal_in(before.state_dict(), after.state_dict())


def test_networks_of_libraries_are_converted_too(tmp_path: Path):
    library = pytest.importorskip("torchvision")
    made = library.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=19, aux_loss=True
    )  # fmt: skip
    other = {f"conv{index}.weight": torch.zeros(1) for index in range(2 * len(made.state_dict()))}
    torch.save({"netD": other, "netG": made.state_dict(), "epoch": 1}, tmp_path / "a.pth")
    provenance = convert("torchvision:fcn_resnet50", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert provenance.dropped
    assert all(key.startswith("aux_classifier.") for key in provenance.dropped)
    loaded = load_model("torchvision:fcn_resnet50", tmp_path / "a.safetensors").network.state_dict()
    assert equal_in(loaded, made.state_dict())


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path):
    packaged = find_entry("demo:streetnet").packaged
    (tmp_path / "file").write_text("")
    with refusal("cannot write"):
        convert("demo:streetnet", packaged, tmp_path / "file/a.safetensors")


def test_a_conversion_that_fails_leaves_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"of before")

    def cut(tensors: dict[str, torch.Tensor], target: Path, metadata: dict[str, str]):
        target.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr("allweather.models.checkpoints.save_file", cut)
    packaged = find_entry("demo:streetnet").packaged
    with refusal("no space left"):
        convert("demo:streetnet", packaged, out)
    assert out.read_bytes() == b"of before" and [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_training_keys_are_dropped_by_rule_and_listed(path: Path):
    torch.save({**state(), "aux.weight": torch.ones(2)}, path)
    with refusal(r"1 unexpected among them \(first: aux.weight\)"):
        load(path)
    assert load(path, drop=("aux.*",)).dropped == ("aux.weight",)


METADATA: dict[str, Any] = {
    "paths": Path("runs") / "a",
    "dates": datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
    "durations": datetime.timedelta(hours=3),
    "namespaces": argparse.Namespace(out=Path("a"), lr=0.1, shape=torch.Size([3, 4])),
    "default dictionaries": collections.defaultdict(list, {"iou": [0.1, 0.2]}),
    "queues": collections.deque([1, 2], maxlen=4),
    "ordered dictionaries": collections.OrderedDict(a=1),
    "scores of numpy": [np.float32(0.5), np.bool_(True), np.arange(3), np.dtype("f4")],
    "numpy's random state": np.random.RandomState(0).get_state(),
    "ids": [uuid.UUID(int=3), decimal.Decimal("0.1"), fractions.Fraction(1, 3)],
    "settings": types.SimpleNamespace(a=1),
    "sets and ranges": [{1}, frozenset((1,)), range(3), slice(1)],
    "torch's": [torch.Size([1]), torch.float16, torch.device("cpu")],
}


def assert_loads(path: Path):
    """Into a `Small`, the weights of `small`."""
    load_weights(target := Small(), path, name="small")
    assert torch.equal(target.state_dict()["head.weight"], small()["head.weight"])


@pytest.mark.parametrize("kind", METADATA)
@pytest.mark.parametrize("legacy", [False, True])
def test_harmless_metadata_is_tolerated(kind: str, legacy: bool, path: Path):
    content = {"meta": {"value": METADATA[kind]}, "state_dict": small(), "more": [METADATA[kind]]}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert_loads(path)


def test_weights_in_a_default_dictionary_load(path: Path):
    torch.save(collections.defaultdict(dict, {"state_dict": collections.defaultdict(int, small())}), path)
    assert_loads(path)


@pytest.mark.parametrize("name", ["yacs.config.CfgNode", "omegaconf.dictconfig.DictConfig", "addict.addict.Dict"])
def test_settings_of_libraries_are_tolerated_without_importing_them(
    name: str, path: Path, monkeypatch: pytest.MonkeyPatch
):
    module, _, name = name.rpartition(".")
    made = type(name, (dict,) if name != "DictConfig" else (), {"__module__": module})
    library, stand_in = types.ModuleType(module.partition(".")[0]), types.ModuleType(module)
    setattr(stand_in, name, made)
    content = made()
    content.__dict__.update(a=1, b=[2])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, library.__name__, library)
        patch.setitem(sys.modules, module, stand_in)
        torch.save({"cfg": content, "state_dict": small()}, path)
    assert_loads(path)
    assert module not in sys.modules


class Kind(enum.Enum):
    ONE = 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Conv2d(3, 3, 1), r"holds code or objects beside tensors.*torch\.nn\.modules\.conv\.Conv2d"),
        ({"state_dict": small(), "kind": Kind.ONE}, r"refused \(test_models_checkpoints\.Kind\)"),
        ({"state_dict": small(), "run": exec}, r"refused \(builtins\.exec\)"),
    ],
)
def test_objects_are_refused_by_name(content: Any, message: str, path: Path):
    torch.save(content, path)
    with refusal(message):
        load_weights(Small(), path, name="small")


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("depth", [1, 12])  # of more layers the sources are larger than the archive they are packed in
def test_a_scripted_network_is_named_as_one(depth: int, tmp_path: Path):
    layers = [nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(depth)]
    torch.jit.save(torch.jit.script(nn.Sequential(*layers).eval()), tmp_path / "w.pt")
    with refusal(r"TorchScript program.*torch\.jit\.load"):
        load_weights(Small(), tmp_path / "w.pt", name="small")


def test_a_file_that_is_too_large_is_not_even_hashed(path: Path):
    with path.open("wb") as file:
        file.truncate(17 << 30)
    with refusal("expected at most"):
        load_weights(Small(), path, name="small")


def test_a_flipped_byte_in_a_tensor_is_found(path: Path):
    torch.save(state(), path)
    whole = bytearray(path.read_bytes())
    place = whole.index(state()["0.weight"].numpy().tobytes())
    whole[place] ^= 1  # the lowest bit of a number: nothing else tells
    path.write_bytes(whole)
    with refusal(r"not a readable torch checkpoint .*Bad CRC-32.*Fetch it again", CheckpointError):
        load(path)


def test_an_archive_that_torch_wrote_without_sums_loads(path: Path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state(), path)
    finally:
        torch.serialization.set_crc32_options(before)
    loaded = network()
    load_weights(loaded, path, name="tiny")
    assert equal_in(loaded.state_dict(), state())


def test_a_suffix_in_capitals_says_the_same(tmp_path: Path):
    save_file(state(), tmp_path / "W.SAFETENSORS")
    load(tmp_path / "W.SAFETENSORS")
    with refusal("is a checkpoint's name", SettingsError):
        load_model("W.PTH")


def pickled(content: Any) -> bytes:
    torch.save(content, buffer := io.BytesIO())
    return buffer.getvalue()


WHOLE, ITSELF = pickled(state()), {}
ITSELF["state_dict"] = ITSELF
DAMAGED = {
    "truncated": WHOLE[: len(WHOLE) // 2],
    "empty": b"",
    "web page": b"<!DOCTYPE html><html>Google Drive - Quota exceeded</html>",
    "noise": bytes(range(256)) * 20,
    "a list": pickled([torch.ones(2)]),
    "no tensors": pickled({"epoch": 3}),
    "broken directory": WHOLE[: len(WHOLE) // 2] + WHOLE[-22:],
    "NaN": pickled({k: v * float("nan") if v.is_floating_point() else v for k, v in state().items()}),
    "numbered": pickled({0: torch.ones(2)}),
    "a name that holds no tensor": pickled({"state_dict": {**state(), "0.weight": 3}}),
    "in itself": pickled(ITSELF),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_named_and_change_nothing(kind: str, path: Path):
    target = network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(AllWeatherError) as error:
        load_weights(target, path, name="tiny")
    assert str(path) in str(error.value)
    assert equal_in(target.state_dict(), before)


KINDS = {
    "complex": torch.zeros(4, 3, 3, 3, dtype=torch.complex64),
    "integers": torch.zeros(4, 3, 3, 3, dtype=torch.int64),
    "sparse": torch.zeros(4, 3, 3, 3).to_sparse(),
    "without values": torch.zeros(4, 3, 3, 3, device="meta"),
    "eight bits": torch.zeros(4, 3, 3, 3).to(torch.float8_e4m3fn),
    "too large for float32": torch.full((4, 3, 3, 3), 1e200, dtype=torch.float64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_another_kind_are_named(kind: str, path: Path):
    torch.save({**state(), "0.weight": KINDS[kind]}, path)
    with refusal(r"0\.weight (is|holds)"):
        load(path)


def test_a_tensor_without_axes_is_named(path: Path):
    torch.save({**state(), "0.bias": torch.tensor(1.0)}, path)
    with refusal(r"0\.bias of shape \(4,\), the file has \(\)"):
        load(path)


@pytest.mark.parametrize("claimed", [10 << 30, 2**63, 200])
def test_a_safetensors_header_that_claims_too_much_is_refused(claimed: int, tmp_path: Path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + b"{}" + b" " * 20)
    with refusal("the header claims"):
        load(path)


def test_another_network_and_another_class_count_are_named(tmp_path: Path):
    torch.save(state(5), tmp_path / "five.pth")
    with refusal(r"for 5 classes, the network has 3\. .*--classes .*--model-arg.*extra_"):
        load(tmp_path / "five.pth")
    torch.save({"other.weight": torch.ones(2)}, tmp_path / "other.pth")
    with refusal(r"keys missing \(first: 0.weight\), 1 unexpected \(first: other.weight\)"):
        load(tmp_path / "other.pth")


def test_the_digest_is_checked_when_given(path: Path):
    torch.save(state(), path)
    digest = load(path).sha256
    fitting_tensors(network(), path, name="tiny", sha256=digest.upper())
    with refusal("expected sha256"):
        fitting_tensors(network(), path, name="tiny", sha256="0" * 64)


def test_the_digest_of_a_librarys_checkpoint_is_checked_too(path: Path):
    pytest.importorskip("torchvision")
    torch.save(state(), path)
    with refusal("expected sha256"):
        load_model("torchvision:fcn_resnet50", path, sha256="0" * 64)
    with refusal("weights=FILE"):
        load_model("espnetv2:0.5", sha256="0" * 64)


@pytest.mark.parametrize(
    "name", ["espnetv2:0.5", "torchvision:lraspp_mobilenet_v3_large", "nvlabs:segformer-b0", "smp:unet/resnet18"]
)
def test_a_network_without_weights_is_refused_by_adapt_unless_asked_for(name: str, tmp_path: Path):
    libraries = {"nvlabs": "transformers", "smp": "segmentation_models_pytorch", "torchvision": "torchvision"}
    pytest.importorskip(libraries.get(name.partition(":")[0], "torch"))
    options: tuple[Any, ...] = (name, None, "source", "recommended", {})
    with refusal(f"{name} comes without weights.*--weights FILE.*--random-weights", CheckpointError):
        open_session(*options)
    one, other = (open_session(*options, random_weights=True, seed=4).model.state_dict() for _ in range(2))
    assert equal_in(one, other)


def test_random_weights_are_not_put_in_place_of_real_ones(tmp_path: Path):
    with refusal("demo:streetnet has weights here", SettingsError):
        open_session("demo:streetnet", None, "source", "recommended", {}, random_weights=True)


def test_adapt_says_so_before_it_writes(tmp_path: Path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    command = ("adapt", tmp_path / "a.png", "--model", "espnetv2:0.5", "--method", "source", "--out", tmp_path / "out")
    allweather(*command).said(2)
    assert not (tmp_path / "out").exists()
    allweather(*command, "--random-weights").ok()
    assert (tmp_path / "out/labels/a.png").exists()
