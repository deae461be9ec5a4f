"""Any picture as a tensor: every kind that people have gives the same pixels, and every mistake one clear line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal

import allweather as aw
from allweather import ImageError, read_image
from allweather.pictures import as_images
from allweather.pictures.convert import pixels_of

BYTES = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)  # H×W×3
FLOATS = BYTES.transpose(2, 0, 1).astype(np.float32) / np.float32(255)  # 3×H×W
GOOD = {
    "bytes": BYTES,
    "bytes, backwards": BYTES[::-1][::-1],
    "bytes, read-only": np.asarray(Image.fromarray(BYTES)),
    "bytes of a camera, blue turned last": np.ascontiguousarray(BYTES[..., ::-1])[..., ::-1],
    "PIL": Image.fromarray(BYTES),
    "PIL with transparency": Image.fromarray(np.dstack([BYTES, np.full((4, 6), 9, np.uint8)])),
    "bytes, channels first": BYTES.transpose(2, 0, 1),
    "byte tensor, channels first": torch.from_numpy(BYTES.transpose(2, 0, 1).copy()),
    "byte tensor, channels last": torch.from_numpy(BYTES),
    "floats": FLOATS,
    "floats, channels last": FLOATS.transpose(1, 2, 0),
    "doubles, the other byte order": FLOATS.astype(">f8"),
    "tensor": torch.from_numpy(FLOATS),
    "half tensor": torch.from_numpy(FLOATS).double(),
}


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_gives_the_same_pixels(kind: str):
    images, single = as_images(GOOD[kind])
    assert single
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, torch.from_numpy(FLOATS)[None], atol=1e-7, rtol=0)
    torch.testing.assert_close(read_image(GOOD[kind]), images[0], atol=0, rtol=0)


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_are_read(tmp_path: Path, kind: type):
    Image.fromarray(BYTES).save(tmp_path / "a.png")
    images, single = as_images(kind(tmp_path / "a.png"))
    assert single
    assert torch.equal(images[0], torch.from_numpy(FLOATS))
    with refusal(r"gone\.png", ImageError):
        as_images(kind(tmp_path / "gone.png"))


@pytest.mark.parametrize(
    "batch",
    [[BYTES, Image.fromarray(BYTES)], np.stack([BYTES, BYTES]), np.stack([FLOATS, FLOATS]), (FLOATS, BYTES)],
    ids=["list", "byte array", "float array", "tuple"],
)
def test_many_pictures_are_a_batch(batch: object):
    images, single = as_images(batch)
    assert not single
    assert torch.equal(images, torch.from_numpy(np.stack([FLOATS, FLOATS])))


def test_a_batch_of_one_stays_a_batch():
    assert as_images([BYTES])[0].shape == as_images(BYTES[None])[0].shape == (1, 3, 4, 6)
    assert not as_images([BYTES])[1]
    assert not as_images(torch.from_numpy(FLOATS)[None])[1]


@pytest.mark.parametrize("mode", ["L", "1", "P", "I;16", "LA"])
def test_grey_pil_images_become_rgb(mode: str):
    grey = Image.fromarray(np.array([[0, 65535]], np.uint16)) if mode == "I;16" else Image.new("L", (2, 1))
    if mode != "I;16":
        grey.putpixel((1, 0), 255)
        grey = grey.convert(mode)
    assert as_images(grey)[0].tolist() == [[[[0, 1]]] * 3]


@pytest.mark.parametrize("top", [1, 255])
def test_grey_floats_of_unknown_range_are_refused(tmp_path: Path, top: int):
    grey = Image.fromarray(np.array([[0, top]], np.float32))
    grey.save(tmp_path / "a.tif")
    if top == 1:
        assert as_images(grey)[0].tolist() == [[[[0, 1]]] * 3]
        return
    for picture in (grey, tmp_path / "a.tif"):
        with refusal(r"(a\.tif|the picture): expected grey floats in \[0, 1\], got 0\.\.255", ImageError):
            as_images(picture)


def test_the_orientation_of_a_pil_image_is_followed():
    image = Image.fromarray(BYTES)
    image.getexif()[0x0112] = 6
    assert as_images(image)[0].shape == (1, 3, 6, 4)


@pytest.mark.parametrize("turn", [3, 6])
def test_a_tiff_is_turned_once_however_it_comes(tmp_path: Path, turn: int):
    image = Image.fromarray(BYTES)
    exif = image.getexif()
    exif[0x0112] = turn
    image.save(tmp_path / "a.tif", exif=exif)
    with Image.open(tmp_path / "a.tif") as opened:
        assert torch.equal(as_images(opened)[0], as_images(tmp_path / "a.tif")[0])
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-40])
    with Image.open(tmp_path / "a.tif") as opened:
        opened.fp.close()
        with refusal("the picture: not a readable image", ImageError):
            as_images(opened)


UNIT = torch.from_numpy(FLOATS)
REFUSED = {
    "floats in 0..255": (UNIT * 255, r"0\.\.255.*divide by 255"),
    "floats in 0..65535": (UNIT * 65535, r"0\.\.65535.*divide by 65535"),
    "a little too bright": (UNIT * 0 + 1.51, r"0\.\.255.*divide by 255"),
    "normalised": ((UNIT - 0.45) / 0.225, "look normalised already"),
    "bytes less their mean": (UNIT * 255 - 120, "look normalised already"),
    "floats in 0..255, sharpened": (UNIT * 260 - 5, r"0\.\.255.*divide by 255"),
    "normalised to -1..1": (UNIT * 2 - 1, "look normalised already"),
    "negative": (UNIT - 0.2, "look normalised already"),
    "integers": (UNIT.long(), "got torch.int64.*uint8"),
    "sixteen bits": (np.zeros((4, 6, 3), np.uint16), "Divide 16-bit values by 65535"),
    "booleans": (UNIT > 0, "got torch.bool"),
    "grey": (BYTES[..., 0], r"got shape \(4, 6\).*np\.stack"),
    "one channel": (UNIT[:1], r"three channels.*repeat it three times"),
    "four channels": (np.zeros((4, 6, 4), np.uint8), r"transparency.*\[\.\.\., :3\]"),
    "four channels first": (torch.zeros(4, 5, 6), r"transparency.*\[\.\.\., :3, :, :\]"),
    "ambiguous": (np.zeros((3, 6, 3), np.uint8), "channels first or last"),
    "ambiguous batch": (np.zeros((2, 3, 6, 3), np.uint8), "channels first or last"),
    "five dimensions": (torch.zeros(1, 1, 3, 4, 6), r"got shape \(1, 1, 3, 4, 6\)"),
    "no picture": (torch.zeros(0, 3, 4, 6), "at least one image of at least one pixel"),
    "no pixel": (torch.zeros(3, 0, 0), "at least one pixel"),
    "empty list": ([], "got an empty list"),
    "several sizes": ([BYTES, BYTES[:, :5]], "one size in one batch, got 5×4, 6×4"),
    "a batch in a list": ([UNIT[None]], "a batch inside it"),
    "numbers": ([0.1, 0.2], "got float"),
    "nothing": (None, "got NoneType"),
    "sparse": (UNIT.to_sparse(), "got one of layout torch.sparse_coo"),
    "on meta": (torch.zeros(3, 4, 6, device="meta"), "which has no values"),
    "wide floats": (np.zeros((4, 6, 3), np.longdouble), "got an array of"),
    "masked": (np.ma.array(BYTES, mask=BYTES > 3), "Fill them first"),
    "texts": (np.array(["a"]), "got an array of <U1"),
    "a frame": (aw.Frame("a", UNIT, (6, 4)), r"Pass its `\.image`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_refused_by_name(case: str):
    value, message = REFUSED[case]
    with refusal(message):
        as_images(value)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_the_callers_to_judge(odd: float):
    picture = UNIT.clone()
    picture[0, 0, 0] = odd
    assert torch.equal(as_images(picture)[0][0].nan_to_num(), picture.nan_to_num())


def test_resampling_overshoots_a_little():
    picture = UNIT.clone()
    picture[0, 0, :2] = torch.tensor([-0.05, 1.2])
    assert torch.equal(as_images(picture)[0][0], picture)


@pytest.mark.parametrize("kind", ["path", "PIL", "array"])
def test_one_image_at_the_size_asked_for(tmp_path: Path, kind: str):
    smooth = np.linspace(0, 255, 40 * 60 * 3).astype(np.uint8).reshape(40, 60, 3)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    picture = {"path": tmp_path / "a.png", "PIL": Image.fromarray(smooth), "array": smooth}[kind]
    image = aw.read_image(picture, (30, 20))
    assert image.shape == (3, 20, 30)
    torch.testing.assert_close(image, aw.read_image(tmp_path / "a.png", (30, 20)), atol=0.02, rtol=0)
    with refusal(r"expected one picture, got a batch of 2\. .* batch_size=None"):
        aw.read_image(np.stack([smooth, smooth]))


@pytest.mark.parametrize("size", [(3, 2), (2, 3), (3, 3), (3, 7)], ids=str)
def test_a_picture_three_pixels_wide_or_high_is_read_as_it_is(size: tuple[int, int], tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "a.png")
    expected = torch.from_numpy(pixels).movedim(-1, 0) / 255
    for given in (picture, tmp_path / "a.png", expected):
        image = read_image(given)
        assert torch.equal(image, expected) and torch.equal(as_images(image)[0][0], expected)


def test_floats_become_the_bytes_they_came_from_and_never_wrap():
    assert (pixels_of(torch.from_numpy(FLOATS)) == BYTES).all()
    outside = torch.tensor([-0.1, 0.4999 / 255, 0.5001 / 255, 1.002, 7.0]).expand(3, 1, 5).requires_grad_()
    assert pixels_of(outside)[0, :, 0].tolist() == [0, 0, 1, 255, 255]
