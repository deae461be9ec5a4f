"""Archives for the benchmarks' servers, checked before they are written: names, sizes, values and counts."""

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allweather.classes import CITYSCAPES
from allweather.data.datasets.encodings import to_label_ids
from allweather.data.images import read_labels
from allweather.data.labels import label_files
from allweather.errors import AllWeatherError, ImageError, InputError, SettingsError, check_known
from allweather.pictures.writing import encode_image
from allweather.runs.record_file import written_classes
from allweather.submit.servers import BENCHMARKS, Benchmark
from allweather.writing import write_bytes

EPOCH = (1980, 1, 1, 0, 0, 0)  # the same predictions make the same archive


@dataclass(frozen=True)
class Submission:
    """What `submit` wrote.

    Attributes:
        path: the archive.
        images: number of images in it.
        files: number of files in it.
        server: address of the benchmark's server.
        note: what a sender should know.
    """

    path: Path
    images: int
    files: int
    server: str
    note: str


def submit(benchmark: str, run: Path | str, out: Path | str) -> Submission:
    """Packs predictions of a benchmark's test images for its server.

    `labels/` holds trainIds at the images' own size. Where a server wants confidence, `confidence/` may hold it as
    16-bit grey (0..65535 = 0..1) under the same names. Without it confidence is constant and nothing is invalid, which
    makes the uncertainty-aware figure the plain mIoU.

    Args:
        benchmark: a key of `BENCHMARKS`.
        run: the folder that `allweather adapt --out` wrote.
        out: the archive to write, a .zip.

    Raises:
        AllWeatherError: for an unknown benchmark, another suffix, predictions of other classes, or when names, sizes,
            values or counts are not what the server takes; everything wrong is counted, the first is named.
    """
    run, out = Path(run), Path(out)
    check_known("benchmark", benchmark, BENCHMARKS)
    if out.suffix.lower() != ".zip":
        raise SettingsError(f"{out}: servers take a zip archive. Name it {out.with_suffix('.zip')}.")
    target = BENCHMARKS[benchmark]
    folder, sure = run / "labels", run / "confidence"
    if not folder.is_dir():
        raise InputError(f"{run} holds no labels/: expected the output folder of `allweather adapt`.")
    if (written := written_classes(folder)) is not None and tuple(written[1]) != CITYSCAPES.names:
        raise InputError(
            f"{folder} holds the classes of '{written[0]}', as {written[2]} says; {target.name} takes "
            "Cityscapes' 19. Adapt a network of those."
        )
    frames = _frames(target, label_files(folder))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, path in frames.items():
            _pack(archive, target, key, path, sure / path.relative_to(folder) if sure.is_dir() else None)
    write_bytes(out, buffer.getvalue())
    constant = target.confidence and not sure.is_dir()
    note = "constant confidence: the uncertainty-aware figure will equal the plain one" if constant else ""
    return Submission(out, len(frames), len(frames) * (3 if target.confidence else 1), target.server, note)


def _frames(target: Benchmark, files: Mapping[str, Path]) -> dict[str, Path]:
    """The prediction of each frame by its key, in order."""
    frames: dict[str, Path] = {}
    for name, path in files.items():
        match = re.fullmatch(target.pattern, Path(name).name)
        if not match:
            raise InputError(
                f"{path} is no prediction of a test image of {target.name}: expected names like {target.example}.png."
            )
        if match["key"] in frames:
            raise InputError(f"{path} and {frames[match['key']]} are predictions of one frame.")
        frames[match["key"]] = path
    if len(frames) != target.count:
        raise InputError(f"{target.name} takes {target.count} predictions, got {len(frames)}. Adapt to all of them.")
    return frames


def _pack(archive: zipfile.ZipFile, target: Benchmark, key: str, path: Path, confidence: Path | None) -> None:
    labels = _checked(target, path)
    name = target.named.format(key=key)
    if not target.confidence:
        _add(archive, name, to_label_ids(labels) if target.label_ids else labels)
        return
    sure = np.full(labels.shape, 65535) if confidence is None else _confidence(target, confidence)
    _add(archive, f"labelTrainIds/{name}", labels)
    _add(archive, f"labelTrainIds_invalid/{name}", labels)
    _add(archive, f"confidence/{name}", sure.astype(np.uint16))


def _checked(target: Benchmark, path: Path) -> np.ndarray:
    labels = _sized(target, path)
    if labels.min() < 0 or labels.max() >= len(CITYSCAPES):
        raise InputError(f"{path}: expected trainIds 0..18, got {labels.min()}..{labels.max()}.")
    return labels.astype(np.uint8)


def _confidence(target: Benchmark, path: Path) -> np.ndarray:
    values = _sized(target, path)
    if values.dtype == np.int16:  # as `read_labels` gives eight bits
        raise InputError(f"{path}: expected 16-bit grey, 0..65535 for 0..1, got 8 bits a pixel.")
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: expected 0..65535, got {values.min()}..{values.max()}.")
    return values


def _sized(target: Benchmark, path: Path) -> np.ndarray:
    try:
        values = read_labels(path)
    except ImageError as error:
        raise AllWeatherError(f"cannot submit: {error}") from error
    width, height = target.size
    if values.shape != (height, width):
        raise InputError(
            f"{path}: expected {width}×{height} pixels, the test images' own size, got "
            f"{values.shape[1]}×{values.shape[0]}."
        )
    return values


def _add(archive: zipfile.ZipFile, name: str, pixels: np.ndarray) -> None:
    archive.writestr(zipfile.ZipInfo(name, EPOCH), encode_image(pixels), zipfile.ZIP_STORED)  # PNG is compressed
