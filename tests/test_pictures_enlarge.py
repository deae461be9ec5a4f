"""Predictions at a large size: the same bits in stripes as at once, and little memory a pixel."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from allweather.classes import CITYSCAPES, numbered
from allweather.pictures import enlarge
from allweather.pictures.drawing import blend, colorize, palette_of
from allweather.pictures.enlarge import classify, confidence_at, labels_at, stripes

SIZES = [(35, 48, 72, 96), (64, 128, 133, 217), (37, 91, 141, 101), (60, 80, 30, 45), (8, 16, 8, 50), (8, 9, 31, 9)]


def made(height: int, width: int, classes: int = 19) -> torch.Tensor:
    return torch.randn(classes, height, width, generator=torch.Generator().manual_seed(height))


def logits_at(logits: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """C×H×W, of all stripes."""
    return torch.cat([part for _, part in stripes(logits, shape)], 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stripe", [1, 20_000, 1 << 40], ids=["row by row", "some rows", "at once"])
def test_stripes_change_nothing(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int, int, int], stripe: int):
    logits, shape = made(*size[:2]), size[2:]
    whole = logits_at(logits, shape)
    monkeypatch.setattr(enlarge, "STRIPE", stripe)
    assert torch.equal(logits_at(logits, shape), whole)
    assert (labels_at(logits, shape[::-1]) == whole.argmax(0).numpy()).all()
    confidence, labels = classify(logits, shape)
    expected, same = whole.softmax(0).max(0)
    assert (labels == same.numpy()).all()
    np.testing.assert_allclose(confidence, expected, atol=1e-6)
    np.testing.assert_allclose(confidence_at(logits, shape[::-1]), expected * 65535, atol=1)


def test_confidence_is_float32_whatever_the_callers_default_is():
    logits = made(4, 5)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert classify(logits, (4, 5))[0].dtype == np.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_torchs_bilinear_enlarging(size: tuple[int, int, int, int]):
    logits, shape = made(*size[:2]), size[2:]
    torch.testing.assert_close(
        logits_at(logits, shape), functional.interpolate(logits[None], shape, mode="bilinear")[0], atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("fault", [0.0, float("nan")], ids=["ties", "NaN"])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=["channels first", "last"])
def test_labels_are_the_first_largest_of_the_rows_enlarged_bilinearly(fault: float, form: torch.memory_format):
    """As they were before it was made fast: argmax, and the two-dimensional enlarging of each row."""
    logits = made(24, 32, 19).round().clamp(-1, 1)  # many ties
    logits[3, 2:4, 5] = logits[7, 2:4, 5] = logits[9, 20, 9] = fault
    logits = logits[None].contiguous(memory_format=form)[0]
    above, below, share = enlarge._between(24, 61)
    rows = logits[:, above] * (1 - share[:, None]) + logits[:, below] * share[:, None]
    expected = functional.interpolate(rows[None].contiguous(), (61, 90), mode="bilinear")[0]
    assert torch.equal(logits_at(logits, (61, 90)).nan_to_num(7e7), expected.nan_to_num(7e7))
    if fault == 0:  # NaN is no class: test_not_finite.py
        assert (labels_at(logits, (90, 61)) == expected.argmax(0).numpy()).all()


def test_a_size_that_is_right_already_is_kept():
    logits = made(8, 9)
    ((rows, part),) = stripes(logits, (8, 9))
    assert rows == slice(0, 8) and part.data_ptr() == logits.data_ptr() and torch.equal(part, logits)


def test_many_classes_do_not_wrap_around():
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 256], [299, 1]]), 300).movedim(2, 0).float()
    labels = labels_at(logits, (2, 2))
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[0, 256], [299, 1]]
    classes = numbered(tuple(map(str, range(300))))
    assert tuple(colorize(labels, classes)[1, 0]) == classes.colors[299]


class Largest(TorchDispatchMode):
    """The most bytes that one tensor made within it takes."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("work", ["labels", "classify", "confidence"])
def test_no_tensor_takes_more_than_eight_bytes_a_pixel(work: str):
    logits, (height, width) = made(32, 64), (600, 900)
    does = {
        "labels": lambda: labels_at(logits, (width, height)),
        "classify": lambda: classify(logits, (height, width)),
        "confidence": lambda: confidence_at(logits, (width, height)),
    }[work]
    with Largest() as largest:
        does()
    assert largest.bytes <= 8 * height * width
    with Largest() as largest:
        logits_at(logits, (height, width)).argmax(0)
    assert largest.bytes >= 76 * height * width  # what it was, so that the measure above can fail


def test_an_overlay_is_the_same_in_stripes():
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (700, 900, 3), np.uint8), rng.integers(0, 19, (700, 900), np.uint8)
    for opacity in (0, 0.25, 0.5, 1):
        mixed = image * (1 - opacity) + palette_of(CITYSCAPES)[labels] * opacity
        assert (blend(image, colorize(labels, CITYSCAPES), opacity) == np.floor(mixed + 0.5)).all()
    assert (colorize(labels, CITYSCAPES) == palette_of(CITYSCAPES)[labels]).all()


PEAK = """
import re, sys
from allweather.app.cli import main
for name in ("small", "large"):
    sys.argv = ["allweather", "adapt", f"{name}.png", *sys.argv[-7:], "--out", name]
    try:
        main()
    except SystemExit as leaving:
        assert not leaving.code, leaving.code
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    sys.argv = sys.argv[:-2]
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux' process table")
def test_a_picture_of_48_megapixels_fits_in_two_gibibytes(tmp_path: Path):
    """Measured at an eighth of it: whatever the process needs beyond a small picture grows with the pixels at most."""
    for name, size in (("small", (80, 60)), ("large", (3000, 2000))):
        Image.new("RGB", size, "gray").save(tmp_path / f"{name}.png", compress_level=1)
    options = ("--model", "demo:streetnet", "--method", "source", "--size", "256x192", "--confidence")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    small, large = (int(line) for line in done.stdout.split())  # KiB
    assert small + 8 * (large - small) < 2 << 20
    with Image.open(tmp_path / "large/labels/large.png") as written:
        assert written.size == (3000, 2000)
