"""The Segmenter: preprocessing, padding, output forms, what it refuses; the catalogue's names; other libraries."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allweather import CITYSCAPES, Segmenter, list_models, load_model
from allweather.errors import AllWeatherError
from allweather.models.catalogue import find_entry
from allweather.models.segmenter import Preprocessing


class Seen(nn.Module):
    """Remembers its input and answers in a given form, at half its resolution."""

    def __init__(self, classes: int = 19, form: str = "tensor") -> None:
        super().__init__()
        self.classes, self.form, self.input = classes, form, torch.empty(0)

    def forward(self, x: Tensor) -> Any:
        self.input = x
        logits = x.mean(1, keepdim=True)[..., ::2, ::2].expand(-1, self.classes, -1, -1)
        return {"tensor": logits, "dict": {"aux": 0, "out": logits}, "tuple": (logits, 1), "none": None}[self.form]


def test_preprocessing_is_what_it_says() -> None:
    network = Seen()
    images = torch.rand(1, 3, 5, 6)
    settings = Preprocessing(mean=(10, 20, 30), std=(2, 4, 8), value_range=255, bgr=True, size_multiple=4)
    output = Segmenter(network, preprocessing=settings)(images)
    assert output.shape == (1, 19, 5, 6)
    assert network.input.shape == (1, 3, 8, 8)
    torch.testing.assert_close(network.input[0, 0, 2, 3], (images[0, 2, 2, 3] * 255 - 10) / 2)
    assert torch.equal(network.input[..., 5, :], network.input[..., 4, :]), "edge pixels are repeated"


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25])
def test_a_scaled_input_comes_back_at_the_images_size(scale: float) -> None:
    network = Seen()
    output = Segmenter(network, preprocessing=Preprocessing(input_scale=scale, size_multiple=8))(
        torch.rand(2, 3, 40, 64)
    )
    assert output.shape == (2, 19, 40, 64)
    assert network.input.shape[3] == -(-int(64 * scale) // 8) * 8


@pytest.mark.parametrize("form", ["tensor", "dict", "tuple"])
def test_output_forms(form: str) -> None:
    assert Segmenter.wrap(Seen(form=form))(torch.rand(1, 3, 8, 8)).shape == (1, 19, 8, 8)


def test_extra_logits_are_dropped() -> None:
    assert Segmenter.wrap(Seen(20), extra_logits=1)(torch.rand(1, 3, 8, 8)).shape[1] == 19


@pytest.mark.parametrize(
    ("network", "images", "message"),
    [
        (Seen(21), torch.rand(1, 3, 8, 8), "the network gives 21"),
        (Seen(form="none"), torch.rand(1, 3, 8, 8), "expected logits B×C×H×W"),
        (Seen(), torch.rand(3, 8, 8), "expected images B×3×H×W"),
    ],
)
def test_what_does_not_fit_is_named(network: nn.Module, images: Tensor, message: str) -> None:
    with pytest.raises(AllWeatherError, match=message):
        Segmenter.wrap(network)(images)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("espnetv2:3.0", "Did you mean 'espnetv2:2.0'"),
        ("espnet2:2.0", "Did you mean 'espnetv2'"),
        ("espnetv2", "SCHEME:NAME"),
        ("torchvision:fcn_resnet5", "Did you mean 'fcn_resnet50'"),
    ],
)
def test_unknown_models_are_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(AllWeatherError) as error:
        load_model(name)
    assert message in str(error.value)


def test_a_network_without_weights_warns() -> None:
    with pytest.warns(UserWarning, match="randomly initialised"):
        model = load_model("espnetv2:0.5")
    assert not model.training


def test_the_list_has_what_programs_read() -> None:
    rows = {row["name"]: row for row in list_models()}
    row = rows["espnetv2:2.0"]
    assert row["parameters"] == 789242
    assert row["norms"] == {"BatchNorm2d": 67}
    assert row["preprocessing"]["size_multiple"] == 16
    assert row["fixture"] == "espnetv2/s2.0"
    assert row["licence"] == "MIT"


def test_the_shipped_network_loads_its_own_weights() -> None:
    model = load_model("demo:streetnet")
    assert model.provenance is not None
    packaged = find_entry("demo:streetnet").packaged
    assert packaged is not None
    assert packaged.stat().st_size <= 4 << 20


def test_torchvision_networks_load_a_checkpoint(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=19
    )
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model = load_model("torchvision:lraspp_mobilenet_v3_large", tmp_path / "w.pth")
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 96)).shape == (1, 19, 64, 96)


@pytest.mark.parametrize("classes", [19, 5])
def test_transformers_networks_load_from_a_folder(classes: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=classes, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=16,
        num_attention_heads=[1, 1, 2, 2],
    )  # fmt: skip
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    model = load_model(f"transformers:{tmp_path}", classes=CITYSCAPES if classes == 19 else None)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        logits = model(images)
        plain = network(pixel_values=model.preprocessing.apply(images)).logits
    assert logits.shape == (1, classes, 64, 96)
    torch.testing.assert_close(model.network(model.preprocessing.apply(images)), plain)
    assert (model.classes is CITYSCAPES) == (classes == 19)
    with pytest.raises(AllWeatherError, match="transformers cannot load"):
        load_model(f"transformers:{tmp_path / 'nothing'}")
