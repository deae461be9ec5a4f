"""The advice on the scale of the input: by the entropy of the predictions, from Python and the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import MODEL, allweather
from PIL import Image
from tiny import CLASSES, frames, tiny
from torch import Tensor, nn

import allweather as aw
from allweather.errors import AllWeatherError, NetworkError
from allweather.session.input_scale import FRAMES


class Surer(nn.Module):
    """Logits that grow with the image's width to the power `way`: surer of larger images, or of smaller ones."""

    def __init__(self, way: float):
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.shape[-1] / 32) ** self.way


@pytest.mark.parametrize(("way", "scale"), [(4.0, 1.5), (-4.0, 1.0), (0.0, 1.0)])
def test_the_surer_scale_is_advised(way: float, scale: float):
    model = aw.Segmenter.wrap(Surer(way), classes=CLASSES, mean=(0.5,) * 3, std=(0.2,) * 3)
    model.train()
    advice = aw.advise_scale(model, iter(frames(FRAMES + 3)))
    assert (advice.scale, advice.frames) == (scale, FRAMES) and model.training
    assert (advice.ratio < 0.92) == (scale > 1) and advice.ratio > 0
    assert aw.advise_scale(model, list(frames(1)), below=0.0).scale == 1


@pytest.mark.parametrize("pictures", [[], [torch.full((3, 24, 32), torch.nan)]], ids=["none", "not finite"])
def test_no_picture_is_no_advice(pictures: list[Tensor]):
    model = aw.Segmenter.wrap(Surer(1), classes=CLASSES)
    with pytest.raises(AllWeatherError, match="at least one picture to choose a scale by that is finite"):
        aw.advise_scale(model, pictures)


def test_a_picture_that_is_not_finite_changes_no_advice(folder: Path):
    model = tiny()
    clean = list(frames(3))
    assert aw.advise_scale(model, [clean[0], clean[0] * torch.nan, *clean[1:]]) == aw.advise_scale(model, clean)
    (folder / "broken.png").unlink()
    stream = aw.load_stream("folder", folder)
    assert aw.advise_scale(model, stream) == aw.advise_scale(model, [frame.image for frame in stream])


def test_the_network_is_left_as_it_is():
    model = tiny()  # a fresh Segmenter trains itself, and what it wraps does not
    model.train()
    model.network.eval()
    model.network.head.train()  # type: ignore[union-attr]
    modes, values = [m.training for m in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}
    aw.advise_scale(model, frames(2))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("given", "said"), [(nn.Conv2d(3, 3, 1), "the network itself"), ("demo:x", "a str itself")])
def test_anything_but_a_segmenter_is_refused(given: Any, said: str):
    with pytest.raises(NetworkError, match=f"advise_scale: expected a Segmenter, got {said}. Call advise_scale"):
        aw.advise_scale(given, frames(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(2):
        picture = (torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(number)) * 255).byte().numpy()
        Image.fromarray(picture).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--size", "64x48", "--scale", "auto"), 1, "entropy at 1.5 times their size is"),
        (("--size", "64x48", "--scale", "1.5"), 1, "2 of 3 images"),
        (("--size", "native", "--scale", "auto"), 2, "--scale: expected a size to enlarge"),
        (("--size", "64x48", "--scale", "9"), 2, "expected a factor of 0.25 to 4, or auto, got '9'"),
        (("--size", "64x48", "--scale", "big"), 2, "or auto, got 'big'"),
        (("--size", "64x48", "--scale", "auto", "--streams-by", "folder"), 2, "of many, give the factor"),
    ],
)
def test_the_option(folder: Path, tmp_path: Path, options: tuple[str, ...], status: int, said: str):
    done = allweather("adapt", folder, *MODEL, "--method", "source", *options, "--out", tmp_path / "out")
    assert said in done.said(status)
    if status == 1:
        assert json.loads((tmp_path / "out" / "record.json").read_text())
        with Image.open(tmp_path / "out" / "labels" / "0.png") as labels:
            assert labels.size == (64, 48)
