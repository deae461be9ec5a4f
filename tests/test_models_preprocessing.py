"""What the publishers' code does to images and logits, pinned per family, and applied by default."""

from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refusal
from torch import Tensor, nn

from allweather import AllWeatherError, Segmenter, load_model
from allweather.app import opening
from allweather.app.cli import main
from allweather.models.catalogue import all_entries, find_entry
from allweather.models.nets.dannet import LightNet, class_weights
from allweather.models.segmenter import Preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "value_range": 1.0, "bgr": False}
CAFFE = {
    "mean": (104.00698793, 116.66876762, 122.67891434), "std": (1.0, 1.0, 1.0), "value_range": 255.0, "bgr": True,
    "align_corners": True,
}  # fmt: skip
CELLS, CORNERS = ({**IMAGENET, "align_corners": aligned} for aligned in (False, True))
FAMILIES = {  # scheme, or the name of one network: what its publisher's evaluation does
    "adaptsegnet": CAFFE,
    "advent": CAFFE,
    "bdl": {**CAFFE, "probabilities": True},
    "bisenetv2:mmseg": CELLS,
    "bisenetv2:coincheung": {
        "mean": (0.3257, 0.3690, 0.3223), "std": (0.2112, 0.2148, 0.2115), "value_range": 1.0, "bgr": False,
    },
    "ciconv:rgb": CORNERS,
    "ciconv:w": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "value_range": 1.0, "bgr": False},
    "dannet": CORNERS,
    "deeplabv3plus": CELLS,
    "espnet": {"bgr": True},
    "espnetv2": {**CORNERS, "size_multiple": 16},
    "gcnet": CELLS,
    "isanet": CELLS,
    "lraspp": CELLS,
    "mgcda": {
        "mean": (128.0, 128.0, 128.0), "std": (1.0, 1.0, 1.0), "value_range": 255.0, "bgr": False, "input_scale": 0.8,
    },
    "mobilenetv2": CELLS,
    "realtime:cgnet": {**CORNERS, "size_multiple": 8},
    "realtime:edanet": {**CORNERS, "size_multiple": 4},
    "realtime:dabnet": {**CORNERS, "size_multiple": 1},
    **{
        f"realtime:{name}": {**CORNERS, "size_multiple": 8}
        for name in ("enet", "fssnet", "cfpnet", "fpenet", "adscnet", "mininetv2", "fddwnet")
    },
    "robustnet": CORNERS,
    "segformer": CELLS,
    "stdc:1": {**CORNERS, "input_scale": 0.75},
    "stdc:2": {**CORNERS, "input_scale": 0.75},
    "stdc:1-50": {**CORNERS, "input_scale": 0.5},
    "stdc:2-50": {**CORNERS, "input_scale": 0.5},
    "stdc:1-mmseg": CORNERS,
    "stdc:2-mmseg": CORNERS,
}  # fmt: skip


PINNED = [
    (family, entry.name)
    for family in FAMILIES
    for entry in all_entries()
    if family in (entry.name, entry.name.partition(":")[0])
]


@pytest.mark.parametrize(("family", "name"), PINNED)
def test_every_network_has_its_publishers_preprocessing(family: str, name: str):
    pinned, settings = FAMILIES[family], find_entry(name).preprocessing
    assert {field: getattr(settings, field) for field in pinned} == pinned


def test_every_pin_is_of_a_network():
    assert {family for family, _ in PINNED} == set(FAMILIES)


def test_windows_and_sizes():
    assert [find_entry(f"segformer:b{size}").window for size in (0, 5)] == [find_entry("segformer:b1").window] * 2
    window = find_entry("segformer:b0").window
    assert (window.size, window.stride) == (1024, 768)
    assert find_entry("dannet:pspnet").size == (960, 540)
    assert find_entry("adaptsegnet:multi").size == find_entry("ciconv:w").size == (1024, 512)


@pytest.mark.parametrize(
    ("options", "expected"), [([], (960, 540)), (["--size", "native"], None), (["--size", "512x256"], (512, 256))]
)
def test_frames_are_resampled_as_the_authors_do_unless_told(
    options: list[str], expected: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def far_enough(_: Any, size: tuple[int, int] | None):
        asked.append(size)
        raise AllWeatherError("far enough")

    monkeypatch.setattr(opening, "open_files", far_enough)
    monkeypatch.setattr(
        "sys.argv", ["allweather", "adapt", "frames", "--model", "dannet:pspnet", "--out", "o", *options]
    )
    with pytest.raises(SystemExit):
        main()
    assert asked == [expected]


class Fixed(nn.Module):
    """The same coarse logits for every image."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1, -1, -1)


def coarse() -> Tensor:
    return torch.randn(1, 19, 5, 7, generator=torch.Generator().manual_seed(0)) * 4


@pytest.mark.parametrize(
    ("align_corners", "expected"), [(False, [0, 0.25, 0.75, 1]), (True, [0, 1 / 3, 2 / 3, 1])], ids=["cells", "corners"]
)
def test_logits_are_upsampled_between_cells_or_corners_as_the_authors_do(align_corners: bool, expected: list[float]):
    ramp = torch.tensor([0.0, 1.0]).expand(1, 19, 2, 2)
    for made in (
        Segmenter(Fixed(ramp), preprocessing=Preprocessing(align_corners=align_corners)),
        Segmenter.wrap(Fixed(ramp), align_corners=align_corners),
    ):
        found = made(torch.rand(1, 3, 4, 4))
        torch.testing.assert_close(found, torch.tensor(expected).expand(1, 19, 4, 4))
    assert not Preprocessing().align_corners


def test_probabilities_are_upsampled_where_the_authors_do():
    model = Segmenter(Fixed(coarse()), preprocessing=Preprocessing(align_corners=True, probabilities=True))
    found = model(torch.rand(1, 3, 40, 56)).softmax(1)
    expected = nn.functional.interpolate(coarse().softmax(1), (40, 56), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected)


def test_dannets_logits_are_weighted_by_class():
    weights = torch.tensor(class_weights())
    assert abs(float(weights.mean()) - 1) < 1e-6
    assert abs(float(weights.std()) - 0.16) < 1e-6
    assert weights[0] < weights[17], "road is common, motorcycles are rare"
    entry = find_entry("dannet:pspnet")
    model = Segmenter(Fixed(coarse()), preprocessing=entry.preprocessing)
    expected = nn.functional.interpolate(
        coarse() * weights.view(1, -1, 1, 1), (40, 56), mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(model(torch.rand(1, 3, 40, 56)), expected)


@pytest.mark.slow
def test_dannet_takes_its_two_files(tmp_path: Path):
    torch.manual_seed(0)
    network, light = find_entry("dannet:deeplab").build().eval(), LightNet().eval()
    torch.save(network.state_dict(), tmp_path / "dannet_deeplab.pth")
    with refusal(r"dannet_deeplab_light\.pth"):
        load_model("dannet:deeplab", tmp_path / "dannet_deeplab.pth")
    torch.save(light.state_dict(), tmp_path / "dannet_deeplab_light.pth")
    model = load_model("dannet:deeplab", tmp_path / "dannet_deeplab.pth")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        seen = model.preprocessing.apply(image)
        expected = model.preprocessing.restore(network(seen + light(seen)), (64, 96))
        torch.testing.assert_close(model(image), expected)


def test_a_part_of_a_network_does_not_segment():
    with pytest.warns(UserWarning, match="randomly"):
        model = load_model("dannet:lightnet")
    with refusal("expected 19 logits per pixel"):
        model(torch.rand(1, 3, 32, 32))
