"""Submissions: each server's names, folders, values and counts; anything else is refused before a byte is written."""

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from allweather.data.datasets.encodings import LABEL_IDS
from allweather.submit import BENCHMARKS, Submission, archive, submit
from allweather.submit.servers import Benchmark

SIZE = (6, 4)
NAMES = {  # a prediction's path below RUN/labels, and the archive's file
    "acdc": (
        "rgb_anon/fog/test/GOPR0475/GOPR0475_frame_000041_rgb_anon", "GOPR0475_frame_000041_rgb_anon.png",
    ),
    "cityscapes": (
        "leftImg8bit/test/bonn/bonn_000001_000019_leftImg8bit", "bonn_000001_000019_pred_labelIds.png",
    ),
    "dark-zurich": ("rgb_anon/test/night/GP010376/GP010376_frame_000002_rgb_anon", "GP010376_frame_000002.png"),
    "muses": ("frame_camera/test/fog/day/REC0006_frame_043542_frame_camera", "REC0006_frame_043542.png"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    tiny = {name: replace(entry, count=1, size=SIZE) for name, entry in BENCHMARKS.items()}
    monkeypatch.setattr(archive, "BENCHMARKS", tiny)


def predict(run: Path, name: str, values: np.ndarray | None = None, folder: str = "labels") -> Path:
    path = run / folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.arange(24, dtype=np.uint8).reshape(SIZE[1], SIZE[0]) % 19 if values is None else values
    Image.fromarray(labels).save(path)
    return path


def submitted(benchmark: str, run: Path) -> Submission:
    return submit(benchmark, run, run / "x.zip")


def contents(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: np.array(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()}


def test_the_published_counts_and_sizes():
    found = {name: (entry.count, entry.size) for name, entry in BENCHMARKS.items()}
    assert found == {
        "acdc": (2000, (1920, 1080)), "cityscapes": (1525, (2048, 1024)),
        "dark-zurich": (151, (1920, 1080)), "muses": (750, (1920, 1080)),
    }  # fmt: skip


@pytest.mark.parametrize("entry", BENCHMARKS.values(), ids=lambda entry: entry.name)
def test_a_wrong_name_is_answered_with_a_right_one(entry: Benchmark, tmp_path: Path):
    assert re.fullmatch(entry.pattern, entry.example)
    predict(tmp_path, "mine")
    with refusal(f"expected names like {entry.example}.png"):
        submit(entry.name, tmp_path, tmp_path / "out.zip")


@pytest.mark.parametrize("benchmark", ["acdc", "muses"])
def test_train_ids_lie_flat_under_the_servers_names(tmp_path: Path, benchmark: str):
    name, archived = NAMES[benchmark]
    predict(tmp_path, name)
    made = submitted(benchmark, tmp_path)
    files = contents(made.path)
    assert list(files) == [archived] and made.images == made.files == 1
    assert files[archived].dtype == np.uint8 and files[archived].ravel().tolist() == [i % 19 for i in range(24)]


def test_cityscapes_wants_label_ids(tmp_path: Path):
    predict(tmp_path, NAMES["cityscapes"][0])
    files = contents(submitted("cityscapes", tmp_path).path)
    assert files[NAMES["cityscapes"][1]].ravel().tolist() == [LABEL_IDS[i % 19] for i in range(24)]


def test_dark_zurich_gets_three_folders(tmp_path: Path):
    name, archived = NAMES["dark-zurich"]
    predict(tmp_path, name)
    made = submitted("dark-zurich", tmp_path)
    files = contents(made.path)
    assert set(files) == {f"{folder}/{archived}" for folder in ("labelTrainIds", "labelTrainIds_invalid", "confidence")}
    assert files[f"confidence/{archived}"].dtype == np.uint16 and (files[f"confidence/{archived}"] == 65535).all()
    assert (files[f"labelTrainIds/{archived}"] == files[f"labelTrainIds_invalid/{archived}"]).all()
    assert made.files == 3 and "constant confidence" in made.note


def test_dark_zurich_takes_the_confidence_there_is(tmp_path: Path):
    name, archived = NAMES["dark-zurich"]
    predict(tmp_path, name)
    sure = np.arange(24, dtype=np.uint16).reshape(SIZE[1], SIZE[0]) * 2800
    predict(tmp_path, name, sure, "confidence")
    made = submitted("dark-zurich", tmp_path)
    assert (contents(made.path)[f"confidence/{archived}"] == sure).all() and not made.note


def test_the_same_predictions_make_the_same_archive(tmp_path: Path):
    predict(tmp_path, NAMES["acdc"][0])
    first, second = (submit("acdc", tmp_path, tmp_path / name).path.read_bytes() for name in ("a.zip", "b.zip"))
    assert first == second


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("frame_1", None, "no prediction of a test image of acdc"),
        (NAMES["acdc"][0], np.zeros((4, 5), np.uint8), "expected 6×4 pixels.*got 5×4"),
        (NAMES["acdc"][0], np.full((4, 6), 255, np.uint8), r"expected trainIds 0\.\.18, got 255"),
        (NAMES["acdc"][0], np.zeros((4, 6, 3), np.uint8), "cannot submit.*mode RGB"),
    ],
)
def test_what_the_server_would_refuse_is_refused(tmp_path: Path, name: str, values: np.ndarray | None, said: str):
    predict(tmp_path, name, values)
    with refusal(said):
        submitted("acdc", tmp_path)
    assert not (tmp_path / "x.zip").exists()


def test_counts_and_doubles_are_checked(tmp_path: Path):
    name = NAMES["acdc"][0]
    predict(tmp_path, name), predict(tmp_path, f"b/{Path(name).name}")
    with refusal("predictions of one frame"):
        submitted("acdc", tmp_path)
    other = tmp_path / "other"
    predict(other, name), predict(other, name.replace("000041", "000042"))
    with refusal("takes 1 predictions, got 2"):
        submit("acdc", other, tmp_path / "x.zip")


def test_predictions_of_other_classes_and_eight_bits_of_confidence_are_refused(tmp_path: Path):
    name = NAMES["dark-zurich"][0]
    predict(tmp_path, name)
    (tmp_path / "record.json").write_text('{"model": {"classes": "camvid11"}}')
    with refusal(r"holds the classes of 'camvid11'.*takes Cityscapes' 19"):
        submitted("dark-zurich", tmp_path)
    (tmp_path / "record.json").write_text('{"model": {"classes": "cityscapes"}}')
    predict(tmp_path, name, np.full((SIZE[1], SIZE[0]), 255, np.uint8), "confidence")
    with refusal(r"expected 16-bit grey, 0\.\.65535 for 0..1, got 8 bits a pixel"):
        submitted("dark-zurich", tmp_path)
    assert not (tmp_path / "x.zip").exists()


def test_unknown_benchmarks_and_empty_runs_are_said(tmp_path: Path):
    with refusal("Did you mean 'acdc'"):
        submitted("acd", tmp_path)
    with refusal("holds no labels/"):
        submitted("acdc", tmp_path)
