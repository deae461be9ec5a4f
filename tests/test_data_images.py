"""Reading images of every awkward kind, and writing files whole or not at all."""

import json
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageOps
from refusals import refusal

from allweather import ImageError, read_image
from allweather.data.images import read_labels, write_json
from allweather.pictures.writing import write_image
from allweather.rgb import EXTENSIONS, read_rgb, read_upright, rgb_of
from allweather.sizes import LARGEST

GREY8 = np.array([[0, 128, 255]], np.uint8)
RED = [0, 128 / 255, 1]
SAVED = {  # what is stored, and the red channel that reading it must give
    "rgb.png": (np.dstack([GREY8, GREY8 * 0, GREY8 * 0]), RED),
    "grey.png": (GREY8, RED),
    "rgba.png": (np.dstack([GREY8, GREY8, GREY8, GREY8 * 0 + 7]), RED),
    "deep.png": (np.array([[0, 32896, 65535]], np.uint16), RED),
    "float.tif": (np.array([[0, 0.5, 1]], np.float32), RED),
    "one.png": (np.array([[[255, 0, 0]]], np.uint8), [1]),
}


@pytest.mark.parametrize("name", SAVED)
def test_any_image_becomes_rgb_in_unit_range(tmp_path: Path, name: str):
    stored, red = SAVED[name]
    Image.fromarray(stored).save(tmp_path / name)
    pixels, size = read_rgb(tmp_path / name)
    assert pixels.dtype == torch.float32 and pixels.shape == (3, 1, len(red)) and size == (len(red), 1)
    torch.testing.assert_close(pixels[0, 0], torch.tensor(red, dtype=torch.float32), atol=1e-6, rtol=0)


def test_palette_colors_are_followed(tmp_path: Path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "p.png")
    assert read_rgb(tmp_path / "p.png")[0][:, 0].tolist() == [[1, 0], [0, 0], [0, 1]]


def test_json_is_short_and_loses_nothing(tmp_path: Path):
    content = {
        "a": {"ü": 0.1, "none": None, "empty": {}, "no": []},
        "pair": [1, 2],
        "rows": [[1, [2]], {"x": {"y": [True]}}, "text"],
    }
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == content and list(json.loads(text)) == list(content)
    assert ' "pair": [1, 2],\n' in text and '\n  {"x": {"y": [true]}},\n' in text and text.endswith("\n}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"a": float("nan")})


def test_the_orientation_tag_is_followed(tmp_path: Path):
    image = Image.fromarray(np.zeros((4, 8, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was held upright
    image.save(tmp_path / "o.jpg", exif=exif)
    pixels, stored = read_rgb(tmp_path / "o.jpg")
    assert pixels.shape == (3, 8, 4) and stored == (4, 8)


UNKNOWN = {  # numbers of which nothing says what is white
    "int32": (np.array([[0, 128, 255]], np.int32), r"got whole numbers 0\.\.255 of unknown range"),
    "deep int32": (np.array([[0, 128, 65535]], np.int32), "0..65535 of unknown range. Save bytes"),
    "normalised": (np.array([[-2, 0, 1.4]], np.float32), r"grey floats in \[0, 1\], got -2\.\.1\.4, of unknown range"),
    "bytes as floats": (np.array([[0, 128, 255]], np.float32), "got 0..255, of unknown range"),
    "NaN": (np.array([[0, np.nan, 1]], np.float32), "got NaN or infinite ones"),
    "infinite": (np.array([[0, -np.inf, 1]], np.float32), "got NaN or infinite ones"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_ranges_are_refused(tmp_path: Path, kind: str):
    values, said = UNKNOWN[kind]
    image = Image.fromarray(values)
    image.save(tmp_path / "x.tif")
    for picture in (tmp_path / "x.tif", image):
        with refusal(said, ImageError):
            read_image(picture)


@pytest.mark.parametrize("format", ["PNG", "PPM"])
def test_older_pillows_give_sixteen_bits_as_mode_i(format: str):
    image = Image.fromarray(np.array([[0, 32896, 65535]], np.int32))
    image.format = format
    assert np.asarray(rgb_of(image))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm", "big.tif"])
def test_sixteen_bits_are_known(tmp_path: Path, name: str):
    values = np.array([[0, 32896, 65535]], ">u2" if name == "big.tif" else "<u2")
    Image.fromarray(values).save(tmp_path / name)
    assert np.asarray(read_upright(tmp_path / name))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(("highest", "warned"), [(255, True), (4095, True), (16383, True), (16384, False), (0, False)])
def test_a_cameras_fewer_bits_in_sixteen_are_warned_of(tmp_path: Path, highest: int, warned: bool):
    Image.fromarray(np.array([[0, highest]], "<u2")).save(tmp_path / "x.png")
    with pytest.warns(UserWarning, match="12 bits, save values · 16") if warned else nullcontext():
        read = read_upright(tmp_path / "x.png")
    assert np.asarray(read)[0, 1, 0] == round(highest / 257)


def png(width: int, bits: int, color: int, row: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, 1, bits, color, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))
    packed = (struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


COLOR = {  # a pixel of 16 bits
    "rgb.png": lambda v: png(1, 16, 2, struct.pack(">3H", v, 0, v)),
    "la.png": lambda v: png(1, 16, 4, struct.pack(">2H", v, 65535)),
    "rgb.ppm": lambda v: b"P6 1 1 65535\n" + struct.pack(">3H", v, 0, v),
}


@pytest.mark.parametrize("name", COLOR)
def test_color_of_fewer_bits_too(tmp_path: Path, name: str):
    for highest in (255, 4095):
        (tmp_path / name).write_bytes(COLOR[name](highest))
        for picture in (tmp_path / name, Image.open(tmp_path / name)):
            with pytest.warns(UserWarning, match="12 bits, save values · 16"):
                read_image(picture)
    (tmp_path / name).write_bytes(COLOR[name](16640))
    assert np.asarray(read_upright(tmp_path / name))[0, 0, 0] == 65


def test_deep_planes_that_pillow_garbles_are_refused(tmp_path: Path):
    one, three = {256: 1, 257: 1, 259: 1, 262: 2, 277: 3, 278: 1, 284: 2}, {258: 134, 273: 140, 279: 146}
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in one.items()]
    entries += [struct.pack("<HHII", tag, 3, 3, place) for tag, place in three.items()]
    numbers = struct.pack("<12H", 16, 16, 16, 152, 154, 156, 2, 2, 2, 3000, 3000, 3000)
    file = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(sorted(entries)) + bytes(4) + numbers
    (tmp_path / "planes.tif").write_bytes(file)
    with refusal("uncompressed planes of 16 bits", ImageError):
        read_upright(tmp_path / "planes.tif")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("exif", [b"XXgarbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_a_damaged_orientation_tag_is_ignored(tmp_path: Path, exif: bytes, suffix: str):
    Image.new("RGB", (8, 4), "gray").save(tmp_path / f"x{suffix}", exif=exif)
    assert read_rgb(tmp_path / f"x{suffix}")[0].shape == (3, 4, 8)


@pytest.mark.parametrize("turned", range(1, 9))
def test_every_orientation_is_as_pillow_has_it(tmp_path: Path, turned: int):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 8, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = turned
    image.save(tmp_path / "o.png", exif=exif)
    with Image.open(tmp_path / "o.png") as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))
    assert (np.asarray(read_upright(tmp_path / "o.png")) == upright).all()


def test_whatever_a_reader_raises_is_of_that_file_alone(tmp_path: Path):
    header = b"DDS " + struct.pack("<7I", 124, 0x1007, 4, 4, 0, 0, 0) + bytes(44) + struct.pack("<2I", 32, 4)
    (tmp_path / "x.png").write_bytes(header + b"ZZZZ" + bytes(200))
    for read in (read_rgb, read_labels):
        with refusal(r"x\.png: not a readable image", ImageError):
            read(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["EPS", "GIF"])
def test_no_reader_of_another_kind_is_asked(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    """Whatever a file is called: the reader of EPS starts Ghostscript."""
    Image.new("RGB", (8, 4)).save(tmp_path / "x.png", kind)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was started"))
    for read in (read_rgb, read_labels, read_image):
        with refusal(r"x\.png: not a readable image \(it is none of PNG, JPEG, WEBP, BMP, TIFF, ", ImageError):
            read(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", EXTENSIONS)
def test_every_ending_that_is_taken_has_its_format(tmp_path: Path, suffix: str):
    Image.new("L", (8, 4)).save(tmp_path / f"x{suffix}")
    assert read_rgb(tmp_path / f"x{suffix}")[1] == (8, 4)


def test_a_jpeg_of_several_pictures_gives_the_first(tmp_path: Path):
    """As phones save them: MPO, which is a JPEG with more behind it."""
    first, second = (Image.new("RGB", (8, 4), color) for color in ("white", "black"))
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_rgb(tmp_path / "x.jpg")[0].min() == 1


@pytest.mark.parametrize("read", [read_rgb, read_image, read_labels])
@pytest.mark.parametrize("name", ["x.tiff", "x.webp", "x.png"])
def test_further_pages_are_warned_of_whoever_reads(
    tmp_path: Path, name: str, read: Callable[[Path], object], recwarn: pytest.WarningsRecorder
):
    pages = [Image.new("L", (8, 4), number) for number in (0, 60, 120)]
    pages[0].save(tmp_path / "alone.png")
    read(tmp_path / "alone.png")
    assert not recwarn.list
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with suppress(ImageError):  # a WebP, which has colors only, holds no labels
        read(tmp_path / name)
    assert ["only the first is read. Save each page" in str(each.message) for each in recwarn.list] == [True]


def test_resampling_keeps_the_stored_size(tmp_path: Path):
    Image.fromarray(np.full((6, 10, 3), 255, np.uint8)).save(tmp_path / "a.png")
    pixels, stored = read_rgb(tmp_path / "a.png", (4, 2))
    assert pixels.shape == (3, 2, 4) and stored == (10, 6) and pixels.min() == 1


def broken(path: Path, kind: str) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"not an image"}[kind])
    return path


def test_a_library_that_replaces_pillows_opening_changes_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def opens(*_: object, **__: object) -> Image.Image:
        raise ModuleNotFoundError("No module named 'pi_heif'")

    monkeypatch.setattr(Image, "open", opens)
    (tmp_path / "x.png").write_bytes(b"no picture")
    with refusal(r"x.png: not a readable image \(it is none of PNG, ", ImageError):
        read_rgb(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("kind", ["empty", "truncated", "text"])
def test_unreadable_files_are_named(tmp_path: Path, kind: str, suffix: str):
    path = broken(tmp_path / f"x{suffix}", kind)
    with refusal(f"x{suffix}: not a readable image", ImageError):
        read_rgb(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with refusal(r"gone\.png", ImageError):
        read_rgb(tmp_path / "gone.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_keep_their_values(tmp_path: Path, dtype: type):
    values = np.array([[0, 11, 255]], dtype)
    Image.fromarray(values).save(tmp_path / "l.png")
    assert read_labels(tmp_path / "l.png").tolist() == values.tolist()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_labels_of_few_bits_are_refused_and_palettes_are_not(bits: int, tmp_path: Path):
    """A reader may take 3 of two bits for 3 or for white; Pillow does the one or the other by the depth."""
    image = Image.fromarray(np.array([[0, 1, 1, 0]], np.uint8))
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "p.png", bits=bits)
    assert read_labels(tmp_path / "p.png").tolist() == [[0, 1, 1, 0]]
    (tmp_path / "g.png").write_bytes(png(8 // bits, bits, 0, b"\x81"))
    with refusal(rf"g\.png: .* grey of 8 bits or more; got {bits}-bit grey", ImageError):
        read_labels(tmp_path / "g.png")
    assert read_rgb(tmp_path / "g.png")[1] == (8 // bits, 1)


def test_color_pictures_are_no_labels(tmp_path: Path):
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "c.png")
    with refusal("mode RGB", ImageError):
        read_labels(tmp_path / "c.png")


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_a_jpeg_has_sides_of_65500_at_most(tmp_path: Path, turned: bool):
    """The longest size that may be asked for is one that can be written."""
    for side in (LARGEST, LARGEST + 1):
        pixels = np.zeros((side, 1, 3) if turned else (1, side, 3), np.uint8)
        write_image(tmp_path / "x.png", pixels)
        with nullcontext() if side == LARGEST else refusal(r"x\.jpg: a JPEG has at most 65500", ImageError):
            write_image(tmp_path / "x.jpg", pixels)


def test_written_images_read_back(tmp_path: Path):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_image(tmp_path / "deep/er/l.png", labels)
    assert (read_labels(tmp_path / "deep/er/l.png") == labels).all()
