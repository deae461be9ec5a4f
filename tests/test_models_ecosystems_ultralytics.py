"""ultralytics: semantic networks from .pt files and by name, as the library itself would run them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ecosystem_networks import ALPHABETICAL, assert_adapts_and_resets
from refusals import refusal
from torch import nn

from allweather import load_model
from allweather.classes import CITYSCAPES
from allweather.models.catalogue import ECOSYSTEMS

NOISE = np.random.default_rng(0).integers(0, 256, (70, 101, 3), dtype=np.uint8)
IMAGE = torch.from_numpy(NOISE).permute(2, 0, 1)[None] / 255


@pytest.fixture
def tasks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.getbasetemp()))  # where it writes its settings
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setattr(torch, "save", torch.save)  # it replaces this
    pytest.importorskip("ultralytics")
    return pytest.importorskip("ultralytics.nn.tasks")


def tiny(tasks: Any, names: tuple[str, ...] = CITYSCAPES.names) -> Any:
    """YOLO26's semantic network at an eighth of its smallest width; statistics of noise keep its signals from dying."""
    torch.manual_seed(0)
    settings = {**tasks.yaml_model_load("yolo26n-sem.yaml"), "scales": {"n": [0.5, 0.125, 64]}}
    network = tasks.SemanticSegmentationModel(settings, nc=len(names), verbose=False)
    network.names = dict(enumerate(names))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64))
    return network.eval()


def saved(network: nn.Module, file: Path, **entries: Any) -> Path:
    """A checkpoint as the library's trainer writes it: the averaged network, pickled, in half precision."""
    torch.save({"epoch": -1, "model": None, "ema": network.half(), "optimizer": None, **entries}, file)
    network.float()
    return file


def test_names_in_another_order_are_trainids(tasks: Any, tmp_path: Path):
    network = tiny(tasks, ALPHABETICAL)
    head = network.model[-1].classifier[-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()[ALPHABETICAL.index("road")] = 5.0
    model = load_model(f"ultralytics:{saved(network, tmp_path / 'a.pt')}")
    assert model.classes is CITYSCAPES
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (model.provenance.file, model.provenance.nesting) == ("a.pt", "ema")
    with torch.no_grad():
        assert model(IMAGE).argmax(1).unique().tolist() == [0]


@pytest.mark.parametrize("size", [(64, 96), (70, 101), (65, 95)])
def test_labels_equal_the_librarys(size: tuple[int, int], tasks: Any, tmp_path: Path):
    """Its padding, its network and its way back, at an image size that it does not resample."""
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.ops import scale_masks

    network = tiny(tasks).half().float()
    model = load_model(f"ultralytics:{saved(network, tmp_path / 'a.pt')}")
    picture = np.ascontiguousarray(NOISE[: size[0], : size[1]])
    whole = (-(-size[0] // 32) * 32, -(-size[1] // 32) * 32)
    boxed = LetterBox(whole, scaleup=False)(image=picture)
    pixels = torch.from_numpy(np.ascontiguousarray(boxed)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(network(pixels), pixels.shape[2:], mode="bilinear")
        margins = ((whole[1] - size[1]) / 2, (whole[0] - size[0]) / 2)
        expected = scale_masks(logits, size, ratio_pad=((1.0, 1.0), margins))
        found = model(IMAGE[..., : size[0], : size[1]])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.argmax(1), expected.argmax(1))


def test_other_classes_are_not_cityscapes(tasks: Any, tmp_path: Path):
    organs = tuple(f"organ {letter}" for letter in "abcdefghijklmnopqrs")
    assert load_model(f"ultralytics:{saved(tiny(tasks, organs), tmp_path / 'a.pt')}").classes.names == organs
    numbers = tuple(map(str, range(19)))
    file = saved(tiny(tasks, numbers), tmp_path / "b.pt")
    with pytest.warns(UserWarning, match="does not name its 19 classes"):
        assert load_model(f"ultralytics:{file}").classes.name == "own"
    assert load_model(f"ultralytics:{file}", classes=CITYSCAPES).classes is CITYSCAPES


def test_by_name_with_weights_of_each_kind(tasks: Any, tmp_path: Path):
    with pytest.warns(UserWarning, match="randomly initialised"):
        source = load_model("ultralytics:yolo26n-sem")
    network: Any = source.network.network
    network.half().float()
    torch.save(network.state_dict(), tmp_path / "state.pth")
    files = [tmp_path / "state.pth", saved(network, tmp_path / "network.pt"), tmp_path / "state.pt"]
    torch.save(network.state_dict(), files[2])
    with torch.no_grad():
        expected = source(IMAGE)
        for file in files:
            assert torch.equal(load_model("ultralytics:yolo26n-sem", file)(IMAGE), expected)


class Hostile:
    """A pickle that runs something."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_files_that_are_refused(tasks: Any, tmp_path: Path):
    torch.save({"model": Hostile(tmp_path / "ran")}, tmp_path / "hostile.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "tensors.pt")
    settings = {**tasks.yaml_model_load("yolo26n.yaml"), "scales": {"n": [0.5, 0.125, 64]}}
    saved(tasks.DetectionModel(settings, verbose=False), tmp_path / "detector.pt")
    refused = {
        "hostile.pt": "without running its code", "text.pt": "damaged", "tensors.pt": "tensors but no network",
        "detector.pt": "holds a DetectionModel; expected a semantic network", "missing.pt": "no checkpoint at",
    }  # fmt: skip
    for file, message in refused.items():
        with refusal(message) as caught:
            load_model(f"ultralytics:{tmp_path / file}")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    other = saved(tiny(tasks), tmp_path / "tiny.pt")
    with refusal("another network than yolo26n-sem"):
        load_model("ultralytics:yolo26n-sem", other)
    with refusal("Leave out the other weights"):
        load_model(f"ultralytics:{other}", other)
    with refusal(r"Did you mean 'yolo26.-sem'"):
        load_model("ultralytics:yolo26-sem")


def test_reading_leaves_no_permission_behind(tasks: Any, tmp_path: Path):
    before = torch.serialization.get_safe_globals()
    file = saved(tiny(tasks), tmp_path / "a.pt")
    for _ in range(2):
        load_model(f"ultralytics:{file}")
    assert set(map(str, torch.serialization.get_safe_globals())) == set(map(str, before))


def test_it_adapts_and_resets(tasks: Any, tmp_path: Path):
    assert_adapts_and_resets(load_model(f"ultralytics:{saved(tiny(tasks), tmp_path / 'a.pt')}"), IMAGE[0])


def test_importing_it_leaves_the_process_as_it_was(tasks: Any, tmp_path: Path):
    """It replaces torch.save, sets the number of threads, and would ask the network whether it is there."""
    program = """
import os, sys, warnings
import torch
import allweather
assert "ultralytics" not in sys.modules
save, before = torch.save, dict(os.environ)
warnings.simplefilter("ignore")
allweather.load_model("ultralytics:yolo26n-sem")
assert torch.save is save
assert dict(os.environ) == before, {k: v for k, v in os.environ.items() if before.get(k) != v}
assert not sys.modules["ultralytics.utils"].ONLINE
"""
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "YOLO_OFFLINE")}
    environment |= {"YOLO_CONFIG_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_catalogue_states_its_licence():
    assert "AGPL-3.0" in ECOSYSTEMS["ultralytics"]
    assert all(ECOSYSTEMS.values())
