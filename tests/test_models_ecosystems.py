"""Networks that other libraries build: loading, NVlabs' SegFormer, mmseg, adapting; and windows over large images."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ecosystem_networks import assert_adapts_and_resets, nvlabs_names, save_network, tiny_network
from refusals import refusal
from safetensors.torch import save_file
from tiny import seeded
from torch import Tensor, nn
from torch.nn import functional

from allweather import NetworkError, Segmenter, load_model
from allweather.models.ecosystems.mmseg import _preprocessing
from allweather.models.ecosystems.nvlabs import SIZES, hub_names
from allweather.models.segmenter import Window

IMAGE = torch.rand(1, 3, 64, 96, generator=seeded())


def test_weights_go_into_a_folders_configuration(tmp_path: Path):
    library = pytest.importorskip("transformers")
    network = tiny_network(library, "segformer")
    save_network(network, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "mine.pth")
    model = load_model(f"transformers:{tmp_path}", tmp_path / "mine.pth")
    assert model.provenance
    assert model.provenance.nesting == "state_dict"
    for key, value in model.network.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[key])


def test_nvlabs_checkpoint_in_transformers_network(tmp_path: Path):
    """A network of transformers, its tensors under NVlabs' names, gives the same numbers when it comes back."""
    library = pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = library.SegformerForSemanticSegmentation(library.SegformerConfig(num_labels=19, **SIZES["b0"])).eval()
    state = nvlabs_names(network)
    state["decode_head.conv_seg.weight"] = torch.zeros(19, 128, 1, 1)
    torch.save({"meta": {"CLASSES": ("road",)}, "state_dict": state}, tmp_path / "segformer.b0.pth")
    model = load_model("nvlabs:segformer-b0", tmp_path / "segformer.b0.pth")
    with torch.no_grad():
        expected = network(pixel_values=IMAGE).logits
        assert torch.equal(model.network(IMAGE), expected)
    del state["backbone.block1.0.attn.kv.weight"]
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "less.safetensors")
    with refusal(r"less\.safetensors: 2 missing tensors \(first: .*attention"):
        load_model("nvlabs:segformer-b0", tmp_path / "less.safetensors")
    with refusal(r"head\.weight"):
        hub_names({"head.weight": torch.zeros(1)})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_nvlabs_checkpoint_with_numbers_that_are_not_finite_is_refused(value: float, tmp_path: Path):
    library = pytest.importorskip("transformers")
    state = nvlabs_names(
        library.SegformerForSemanticSegmentation(library.SegformerConfig(num_labels=19, **SIZES["b0"]))
    )
    state["backbone.norm1.bias"][3] = value
    torch.save(state, tmp_path / "damaged.pth")
    with refusal("holds NaN or infinite values; the checkpoint is damaged"):
        load_model("nvlabs:segformer-b0", tmp_path / "damaged.pth")


@pytest.mark.parametrize(
    "config", ["fcn_hr18_4xb2-40k_cityscapes-512x1024", "segformer_mit-b0_8xb1-160k_cityscapes-1024x1024"]
)
def test_mmseg_configs(config: str, tmp_path: Path):
    pytest.importorskip("mmseg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(f"mmseg:{config}")
    with torch.no_grad():
        before = model(IMAGE)
    assert before.shape == (1, 19, 64, 96)
    torch.save({"state_dict": model.network.network.state_dict(), "meta": {}}, tmp_path / "a.pth")
    again = load_model(f"mmseg:{config}", tmp_path / "a.pth")
    assert (again.window == Window(1024, 768)) == ("segformer" in config)
    with torch.no_grad():
        assert torch.equal(again(IMAGE), before)


class Settings(dict[str, Any]):
    """A configuration's, by attribute too."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Segmentor(nn.Conv2d):
    align_corners = False

    def encode_decode(self, images: Tensor, _: object) -> Tensor:
        return self(images)


@pytest.fixture
def mmseg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Stands in for the library; gives the name of a configuration file with such settings of the test."""
    made = Settings(test_cfg=Settings())
    library = SimpleNamespace(
        __file__=str(tmp_path / "mmseg/__init__.py"),
        Config=SimpleNamespace(fromfile=lambda _: SimpleNamespace(model=made)),
        MODELS=SimpleNamespace(build=lambda _: Segmentor(3, 19, 1)),
        register_all_modules=lambda **_: None,
    )
    monkeypatch.setattr("allweather.models.ecosystems.mmseg.optional", lambda *_: library)
    shipped = tmp_path / "mmseg/.mim/configs"
    shipped.mkdir(parents=True)
    for folder in (tmp_path, shipped):
        (folder / f"{'mine' if folder == tmp_path else 'theirs'}.py").write_text("")

    def configured(**test: Any) -> str:
        made.test_cfg = Settings(test)
        return str(tmp_path / "mine.py")

    return configured


@pytest.mark.filterwarnings("ignore::allweather.errors.RandomWeightsWarning")
@pytest.mark.parametrize(
    ("crop", "stride", "said"),
    [
        ((512, 512), (341, 341), None),
        (512, 341, None),
        ((512, 1024), (341, 341), r"crop_size = \(512, 1024\) \(height, width\); expected square"),
        ((512, 512), (341, 683), r"stride = \(341, 683\)"),
    ],
)
def test_windows_of_mmseg_are_square_or_refused(mmseg: Any, crop: Any, stride: Any, said: str | None):
    name = mmseg(mode="slide", crop_size=crop, stride=stride)
    if said is None:
        assert load_model(f"mmseg:{name}").window == Window(512, 341)
        assert load_model(f"mmseg:{mmseg(mode='whole', crop_size=crop)}").window is None
        return
    with refusal(rf"{said}.*test_cfg, or mode='whole'", NetworkError):
        load_model(f"mmseg:{name}")


@pytest.mark.filterwarnings("ignore::allweather.errors.RandomWeightsWarning")
def test_a_configuration_of_one_s_own_is_said_to_run(mmseg: Any, caplog: pytest.LogCaptureFixture):
    load_model("mmseg:theirs")
    assert not caplog.messages
    load_model(f"mmseg:{mmseg()}")
    assert caplog.messages == [f"running {mmseg()}, your own code"]


def test_mmseg_swaps_and_normalises_only_where_told():
    plain, told = (_preprocessing(each, Segmentor(3, 19, 1)) for each in ({}, {"rgb_to_bgr": True, "mean": [1] * 3}))
    assert plain.bgr and plain.mean == (0,) * 3 and not told.bgr and told.mean == (1,) * 3


def small_network(kind: str, folder: Path) -> Segmenter:
    """A network that a library builds, with random weights, the same each time."""
    torch.manual_seed(0)
    if kind in ("torchvision", "smp"):
        pytest.importorskip("torchvision" if kind == "torchvision" else "segmentation_models_pytorch")
        name = "lraspp_mobilenet_v3_large" if kind == "torchvision" else "fpn/resnet18"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load_model(f"{kind}:{name}")
    library = pytest.importorskip("transformers")
    if kind != "segformer":
        pytest.importorskip("scipy")
    return load_model(f"transformers:{save_network(tiny_network(library, kind), folder)}")


@pytest.mark.parametrize("kind", ["torchvision", "smp", "segformer", "mask2former", "oneformer", "eomt"])
def test_networks_of_libraries_adapt_and_reset(kind: str, tmp_path: Path):
    assert_adapts_and_resets(small_network(kind, tmp_path), IMAGE[0])


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    extras = {"smp:unet/resnet18": "smp", "mmseg:x": "mmseg", "nvlabs:segformer-b0": "transformers"}
    extras |= {"transformers:x": "transformers", "ultralytics:yolo26n-sem": "ultralytics"}
    for name, extra in extras.items():
        with monkeypatch.context() as without:
            for module in ("segmentation_models_pytorch", "mmseg", "mmcv", "transformers", "ultralytics"):
                without.setitem(__import__("sys").modules, module, None)
            with refusal(rf"allweather\[{extra}\]"):
                load_model(name)


class Position(nn.Module):
    """Logits that tell the mean of what the network sees, so that each window gives another number."""

    def forward(self, x: Tensor) -> Tensor:
        level = x.mean((1, 2, 3), keepdim=True).expand(-1, 1, *x.shape[2:])
        return torch.cat([level, x[:, :1]], 1)


def test_windows_slide_and_overlap_is_averaged():
    from allweather.classes import ClassSet

    classes = ClassSet("two", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    image = torch.rand(2, 3, 50, 70, generator=seeded(1))
    sliding = Segmenter(Position(), classes=classes, window=Window(32, 24))
    whole = Segmenter(Position(), classes=classes)
    total, count = torch.zeros(2, 2, 50, 70), torch.zeros(50, 70)
    for top in (0, 18):
        for left in (0, 24, 38):
            part = whole(image[..., top : top + 32, left : left + 32])
            total[..., top : top + 32, left : left + 32] += part
            count[top : top + 32, left : left + 32] += 1
    torch.testing.assert_close(sliding(image), total / count)
    small = functional.interpolate(image, (32, 32))
    assert torch.equal(sliding(small), whole(small))
    flat = sliding(image[..., :20, :])
    assert flat.shape == (2, 2, 20, 70)
