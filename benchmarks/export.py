"""Exports of five networks beside the session: labels that agree, and what folded statistics cost, dusk and day.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.export --every 4 --json benchmarks/records/export.json.gz

The state dict is read by a process that does not import allweather, where the network's class is not this package's.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from allweather import CAMVID11, CITYSCAPES, Segmenter, Session, load_model, methods
from allweather.data.folder import open_files
from allweather.data.images import read_labels
from allweather.data.labels import find_mapping
from allweather.pictures.enlarge import labels_at
from allweather.runs.record import versions
from allweather.scoring.confusion import ConfusionMatrix
from benchmarks import export_reader
from benchmarks.committed import command

SIZE = (480, 352)
CHECKED = 8  # frames whose labels are compared in every form
Predict = Callable[[Tensor], Tensor]  # an image 1×3×H×W in [0, 1] to labels H×W


def espnetv2(width: str) -> Segmenter:
    file = f"espnetv2_s_{width}_city_512x256.pth"
    return load_model(f"espnetv2:{width}", Path(os.environ["ALLWEATHER_ASSETS"]) / "weights" / "espnetv2" / file)


def seeded(build: Callable[[], nn.Module], multiple: int) -> Segmenter:
    """A network of another library or of one's own, random weights; classes centred, so that several occur."""
    torch.manual_seed(0)
    network = build()
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)
    model = Segmenter.wrap(network.eval(), classes=CITYSCAPES, size_multiple=multiple)
    image, *_ = next(frames("dusk", 1))
    with torch.no_grad():
        given = network(model.preprocessing.apply(image[None]))
        logits = given if isinstance(given, Tensor) else given.logits
        last = [value for name, value in network.named_parameters() if name.endswith("bias")][-1]
        last.sub_(logits.mean((0, 2, 3)))
    return model


NETWORKS: dict[str, tuple[Callable[[], Segmenter], str]] = {  # and the reader's name for its class, if it knows it
    "ESPNetv2 0.5": (lambda: espnetv2("0.5"), ""),
    "ESPNetv2 2.0": (lambda: espnetv2("2.0"), ""),
    "DeepLabv3+ MobileNetV2 (smp)": (lambda: seeded(export_reader.deeplab, 16), "deeplab"),
    "SegFormer B0 (transformers)": (lambda: seeded(export_reader.segformer, 32), "segformer"),
    "a module of one's own": (lambda: seeded(export_reader.own, 4), "own"),
}


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--every", type=int, default=4, help="only every n-th frame")
    parser.add_argument("--networks", default="", help="only those whose name starts with this; FILE keeps the others")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    if options.json and options.json.exists():
        kept = json.loads(options.json.read_text())
        if kept["every"] != options.every:
            raise SystemExit(f"{options.json} holds every {kept['every']}th frame, not every {options.every}th.")
        rows = kept["networks"]
    for name, (build, reader) in NETWORKS.items():
        if name.startswith(options.networks):
            rows[name] = measure(build(), reader, options.every)
            print(name, json.dumps(rows[name]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(_record(rows, options.every), indent=1) + "\n")


def _record(rows: dict[str, Any], every: int) -> dict[str, Any]:
    return {
        "benchmark": "export",
        "size": SIZE,
        "every": every,
        "method": "mall-domain, one view",
        "networks": {name: rows[name] for name in NETWORKS if name in rows},
        "versions": {**versions(), "onnxruntime": version("onnxruntime"), "onnx": version("onnx")},
    }


def measure(model: Segmenter, reader: str, every: int) -> dict[str, Any]:
    """Labels that agree after dusk, and where the weights are real the mIoU of each statistics, dusk and day."""
    dusk = session_after(model, "dusk", every)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forms = written(dusk, Path(folder), reader)
        found: dict[str, Any] = {"classes used": classes_used(dusk), "agreement": agreement(dusk, forms)}
    if not reader:
        day = session_after(model, "day", every)
        found["mIoU"] = {"dusk": scores(model, dusk, "dusk", every), "day": scores(model, day, "day", every)}
    return found


def session_after(model: Segmenter, split: str, every: int) -> Session:
    session = Session(
        model, methods.make("mall-domain", settings={"views": ("plain",), "vector_rate": 0.0}, model=model)
    )
    for image, _, _ in frames(split, every):
        session.adapt(image)
    return session


def written(session: Session, folder: Path, reader: str) -> dict[str, Predict]:
    """Each form, written and read back: what it predicts."""
    for suffix in (".safetensors", ".pt2", ".onnx"):
        session.export(folder / f"image{suffix}", statistics="image")
    program = torch.export.load(folder / "image.pt2").module()
    runtime = _onnx_session(folder / "image.onnx")
    state = outside(session.model, reader, folder) if reader else inside(session.model, folder)
    return {
        ".safetensors": state,
        ".pt2": lambda image: program(image).argmax(1)[0],
        ".onnx": lambda image: torch.from_numpy(runtime.run(None, {"image": image.numpy()})[0]).argmax(1)[0],
    }


def outside(model: Segmenter, reader: str, folder: Path) -> Predict:
    """The state dict read by a process without this package; cutting off what was padded is left to here."""
    images = [image for image, _, _ in islice(frames("dusk", 1), CHECKED)]
    torch.save([model.preprocessing.apply(image[None]) for image in images], folder / "frames.pt")
    arguments = [reader, *(str(folder / name) for name in ("image.safetensors", "frames.pt", "labels.pt"))]
    subprocess.run([sys.executable, "-m", "benchmarks.export_reader", *arguments], check=True)
    found = iter(torch.load(folder / "labels.pt"))
    return lambda image: next(found)[: image.shape[2], : image.shape[3]]


def inside(model: Segmenter, folder: Path) -> Predict:
    """The state dict in a fresh network of this package's own class, mixed in plain torch."""
    network = export_reader.load(load_model(model.name).network, str(folder / "image.safetensors"))

    def predict(image: Tensor) -> Tensor:
        found = export_reader.labels(network, model.preprocessing.apply(image))
        return found[: image.shape[2], : image.shape[3]]

    return predict


def agreement(session: Session, forms: dict[str, Predict]) -> dict[str, float]:
    """Share of the pixels, in %, on which each form gives the session's class; over frames it had not all seen."""
    shares: dict[str, list[float]] = {name: [] for name in forms}
    for image, _, _ in islice(frames("dusk", 1), CHECKED):
        expected = session.predict(image).argmax(0)
        for name, predict in forms.items():
            shares[name].append(float((predict(image[None]) == expected).float().mean()))
    return {name: round(100 * float(np.mean(values)), 4) for name, values in shares.items()}


def classes_used(session: Session) -> int:
    """How many classes the session predicts on the frames compared: one alone would agree in any case."""
    predicted = [session.predict(image).argmax(0).unique() for image, _, _ in islice(frames("dusk", 1), CHECKED)]
    return int(torch.cat(predicted).unique().numel())


def scores(model: Segmenter, session: Session, split: str, every: int) -> dict[str, float]:
    """mIoU in % of the source, of the session as it stands, and of the ordinary network with folded statistics."""
    folded = Segmenter(
        session.network("stream"), classes=model.classes, preprocessing=model.preprocessing,
        extra_logits=model.extra_logits,
    ).eval()  # fmt: skip
    plain = Segmenter(
        session.network("stream", frames=[image for image, _, _ in frames(split, every)]), classes=model.classes,
        preprocessing=model.preprocessing, extra_logits=model.extra_logits,
    ).eval()  # fmt: skip
    rows: dict[str, Callable[[Tensor], Tensor]] = {
        "source": lambda image: model(image[None])[0],
        "session": session.predict,
        "stream": lambda image: folded(image[None])[0],
        "stream, frames given": lambda image: plain(image[None])[0],
    }
    return {name: miou(predict, split, every) for name, predict in rows.items()}


@torch.no_grad()
def miou(predict: Callable[[Tensor], Tensor], split: str, every: int) -> float:
    table = np.asarray(find_mapping("cityscapes-camvid11").table)
    matrix = ConfusionMatrix(len(CAMVID11))
    for image, size, truth in frames(split, every):
        matrix.update(table[labels_at(predict(image), size)], np.where(truth == CAMVID11.ignore, -1, truth))
    return round(100 * matrix.mean_iou, 2)


def frames(split: str, every: int) -> Iterator[tuple[Tensor, tuple[int, int], np.ndarray]]:
    """Image 3×H×W at `SIZE`, the frame's own size, and its labels, one after another."""
    folder = Path(os.environ["ALLWEATHER_ASSETS"]) / "camvid" / split
    stream = open_files([folder / "images"], SIZE)
    for name in stream.names[::every]:
        frame = stream.read(name)
        yield frame.image, frame.size, read_labels(folder / "labels" / f"{name}.png")


def _onnx_session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
