"""What the fidelity check runs, the product's side of it, and how far two runs are apart."""

import base64
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from allweather import ClassSet, Guard, Segmenter, Session, load_model, methods
from allweather.methods import memo, rotta
from allweather.rgb import read_rgb

FIXTURE = Path(__file__).parents[1] / "tests" / "data" / "fidelity.json.gz"
CLASSES = ClassSet("five", tuple("abcde"), tuple((shade, 0, 0) for shade in range(5)))
HEIGHT, WIDTH = 24, 32
SAMPLED_PIXELS, SAMPLED_LABELS, SAMPLED_PARAMETERS = 8, 400, 60  # of a frame, of a large frame, of a large network
TEACHER = 4e-6  # their product and sum of a teacher and ours round differently, by up to 4e-7 of its largest value
REAL = "espnetv2"  # suffix of cases on ESPNetv2 0.5 with real weights

Numbers = list[float]


@dataclass(frozen=True)
class Case:
    """One method on one network, as published.

    Attributes:
        name: of the case.
        method, settings: of the product; fields that differ from preset `paper`.
        frames: how many frames of the stream.
        seed, stream: of the tiny network; what differs in `frames`.
        limit, parameter_limit: the largest difference in probabilities and in parameters that the product may show; the
            measured ones are in benchmarks/records/fidelity.json.gz.
        same_labels: the least share of pixels whose label is the same, 0..1.
        deviation: what is known to differ, in words.
    """

    name: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    frames: int = 4
    seed: int = 5
    stream: dict[str, Any] = field(default_factory=dict)
    limit: float = 1e-5
    parameter_limit: float = 1e-6
    same_labels: float = 1.0
    deviation: str = ""


@dataclass
class Step:
    """What one frame left: the prediction, B×C×H×W or the labels alone, and every parameter that moves, by name."""

    labels: np.ndarray
    probabilities: np.ndarray | None
    parameters: dict[str, np.ndarray] = field(default_factory=dict)
    teacher: dict[str, np.ndarray] = field(default_factory=dict)


class Tiny(nn.Module):
    """Two convolutions with BatchNorm and a classifier, half the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6)
        self.classifier = nn.Conv2d(6, len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.classifier(torch.relu(self.bn2(self.conv2(x))))


def tiny(seed: int) -> Segmenter:
    """The seeded network; the fill is NumPy's, so that it is the same everywhere."""
    network, random = Tiny().eval(), np.random.RandomState(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(_fill(name, tuple(tensor.shape), random)))
    return Segmenter.wrap(network, classes=CLASSES, mean=(0.45,) * 3, std=(0.25,) * 3, name="fidelity")


def _fill(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
    drawn = random.standard_normal(shape)
    if name.endswith("running_var"):
        return (0.7 + 0.6 * random.random_sample(shape)).astype(np.float32)
    if "bn" in name:
        return ((1.0 if name.endswith(".weight") else 0.0) + 0.2 * drawn).astype(np.float32)
    scale = {"classifier.weight": 8.0, "classifier.bias": 4.0}.get(name, 1.4)
    return (scale * drawn / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)


def frames(count: int, seed: int = 0, block: int = 4, noise: float = 0.2, last: float = 0.6) -> Tensor:
    """Seeded blocks of colour under noise, ever darker down to `last`: count×3×24×32, each value a byte over 255."""
    random = np.random.RandomState(seed)
    drawn = random.random_sample((count, 3, HEIGHT // block, WIDTH // block))
    blocks = np.kron(drawn, np.ones((1, 1, block, block)))
    noisy = (1 - noise) * blocks + noise * random.random_sample((count, 3, HEIGHT, WIDTH))
    darker = noisy * np.linspace(1.0, last, count).reshape(-1, 1, 1, 1)
    return torch.from_numpy(np.round(darker * 255).astype(np.float32) / 255)


def views(images: Tensor, count: int) -> Tensor:
    """Seeded recolourings of one image 1×3×H×W, for MEMO on both sides: count×3×H×W in [0, 1]."""
    random = np.random.RandomState(int(images.sum() * 100) % 2**31)
    gains = 0.7 + 0.6 * random.random_sample((count, 3, 1, 1))
    return (images * torch.from_numpy(gains.astype(np.float32))).clamp(0, 1)


def strong_view(images: Tensor, strength: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
    """RoTTA's view for the student on both sides: darker."""
    return 0.6 * images


def dusk(count: int) -> Tensor:
    """Real frames at 240×176: count×3×176×240."""
    folder = Path(os.environ["ALLWEATHER_ASSETS"]) / "camvid" / "dusk" / "images"
    paths = sorted(folder.iterdir())[:: 124 // count][:count]
    return torch.stack([read_rgb(path, (240, 176))[0] for path in paths])


def espnetv2() -> Segmenter:
    """The real network of `dusk`."""
    weights = Path(os.environ["ALLWEATHER_ASSETS"]) / "weights" / "espnetv2" / "espnetv2_s_0.5_city_512x256.pth"
    return load_model("espnetv2:0.5", weights=weights)


@contextmanager
def source_folder() -> Iterator[tuple[Path, Tensor]]:
    """A folder of images of the source domain, and what they hold."""
    images = frames(3, seed=9)
    with TemporaryDirectory() as folder:
        for index, image in enumerate(images):
            pixels = (image.movedim(0, 2) * 255).round().to(torch.uint8).numpy()
            Image.fromarray(pixels).save(Path(folder) / f"{index}.png")
        yield Path(folder), images


def material(case: Case) -> tuple[Segmenter, Tensor]:
    """The network and the frames of a case."""
    if case.name.endswith(REAL):
        return espnetv2(), dusk(case.frames)
    return tiny(case.seed), frames(case.frames, **case.stream)


def run(case: Case) -> list[Step]:
    """The product's steps."""
    model, images = material(case)
    with (
        source_folder() as (folder, _),
        patch.multiple(memo, recoloured=_Supply(case)),
        patch.multiple(rotta, recoloured=strong_view),
    ):
        settings = case.settings | ({"source_images": str(folder)} if case.method == "eata" else {})
        method = methods.make(case.method, "paper", settings)
        session = Session(model, method, guard=Guard(enabled=False), seed=0)
        return [_step(session, image, case) for image in images]


@contextmanager
def _same_views(case: Case) -> Iterator[None]:
    with patch.object(memo, "recoloured", _Supply(case)), patch.object(rotta, "recoloured", strong_view):
        yield


class _Supply:
    """In place of `recoloured`: the same views that public code saw, one after the other."""

    def __init__(self, case: Case) -> None:
        self.case, self.given = case, 0

    def __call__(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        count = self.case.settings["augmentations"]
        self.given += 1
        return views(images, count)[[(self.given - 1) % count]]


def _step(session: Session, image: Tensor, case: Case) -> Step:
    logits = session(image).logits
    state = session.state
    parameters = {} if method_forgets(session) else {name: _array(p) for name, p in state.parameters.items()}
    teacher = {name: _array(state.memory[name]) for name in state.parameters if name in state.memory}
    return Step(_array(logits.argmax(0)), _array(logits.softmax(0)), parameters, teacher)


def method_forgets(session: Session) -> bool:
    """Whether nothing of a step can be read after it."""
    return bool(session.method.episodic)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()


@dataclass(frozen=True)
class Distance:
    """How far two runs are apart at one step; None where one of them does not say."""

    probabilities: float | None
    same_labels: float
    parameters: float | None
    teacher: float | None
    moved: float

    def within(self, case: Case) -> bool:
        """Whether the product is as near as the case asks for."""
        return (
            self.same_labels >= case.same_labels
            and (self.probabilities or 0.0) <= case.limit
            and (self.parameters or 0.0) <= case.parameter_limit
            and (self.teacher or 0.0) <= max(case.parameter_limit, TEACHER)
        )


def distances(case: Case, record: dict[str, Any], steps: list[Step]) -> list[Distance]:
    """Each step of the product against the recorded one of public code."""
    start = record["start"]
    return [_distance(case, found, step, start) for found, step in zip(record["steps"], steps, strict=True)]


def _distance(case: Case, found: dict[str, Any], step: Step, start: Numbers) -> Distance:
    mine = pack(case, step)
    labels, own = (np.frombuffer(_unpacked(one["labels"]), np.uint8) for one in (found, mine))
    return Distance(
        probabilities=_apart(found["probabilities"], mine["probabilities"]),
        same_labels=float((labels == own).mean()),
        parameters=_apart(found["parameters"], mine["parameters"]),
        teacher=_apart(found["teacher"], mine["teacher"]),
        moved=_apart(found["parameters"], start) or 0.0,
    )


def _apart(one: Numbers, other: Numbers) -> float | None:
    """The largest difference; None where either is empty."""
    return float(np.abs(np.subtract(one, other)).max()) if one and other else None


def pack(case: Case, step: Step) -> dict[str, Any]:
    """A step as numbers for JSON: sampled predictions, all labels, all parameters (of a large network: some)."""
    real = case.name.endswith(REAL)
    labels = step.labels.astype(np.uint8).ravel()
    probabilities = np.zeros((1, 0)) if step.probabilities is None else step.probabilities
    return {
        "labels": _packed(_sample(labels, SAMPLED_LABELS if real else labels.size).tobytes()),
        "probabilities": _numbers(_sample(probabilities.reshape(len(probabilities), -1).T, SAMPLED_PIXELS)),
        "parameters": flat(step.parameters, real),
        "teacher": flat(step.teacher, real),
    }


def flat(tensors: dict[str, np.ndarray], some: bool) -> Numbers:
    """All values in the order of names, or an even choice of them."""
    if not tensors:
        return []
    values = np.concatenate([tensors[name].ravel() for name in sorted(tensors)])
    return _numbers(_sample(values, SAMPLED_PARAMETERS if some else values.size))


def _sample(values: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows, evenly spaced."""
    taken = min(count, len(values))
    return values[[index * len(values) // taken for index in range(taken)]] if taken else values


def _numbers(values: np.ndarray) -> Numbers:
    return [round(value, 8) for value in values.ravel().tolist()]


def _packed(data: bytes) -> str:
    return base64.b85encode(zlib.compress(data, 9)).decode()


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(text))


def read_fixture() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(gzip.decompress(FIXTURE.read_bytes()))
    return loaded


def write_fixture(found: Mapping[str, Any]) -> None:
    """Writes the same bytes for the same numbers."""
    FIXTURE.parent.mkdir(exist_ok=True)
    FIXTURE.write_bytes(gzip.compress(json.dumps(found, separators=(",", ":")).encode(), mtime=0))


BIASED = "variance estimated with bias, theirs without"
SHARED = "student and teacher share one set of statistics, constant to the gradient"
ROTTA: dict[str, Any] = {"capacity": 6, "every": 3}
CASES: tuple[Case, ...] = (
    Case("tent", "tent"),
    Case("tent, 3 steps", "tent", {"iterations": 3, "episodic": True}),
    Case("norm", "norm", limit=3e-4, same_labels=0.998, deviation=BIASED),
    Case("norm, no prior", "norm", {"bn": "batch"}),
    Case("eta", "eta"),
    Case("eata", "eata", {"source_count": 3}),
    Case("sar", "sar"),
    Case("sar, resets", "sar", frames=6, seed=3, stream={"seed": 223, "block": 8, "noise": 0.1, "last": 1.0}),
    Case("cotta", "cotta", frames=3),
    Case("diga", "diga"),
    Case("rotta", "rotta", ROTTA, frames=6, parameter_limit=3e-4, deviation=SHARED),
    Case(
        "rotta, SGD",
        "rotta",
        {**ROTTA, "optimizer": "sgd", "lr": 0.01},
        frames=6,
        parameter_limit=5e-3,
        deviation=SHARED,
    ),
    Case("memo", "memo", {"augmentations": 8}, limit=3e-4, same_labels=0.998, deviation=BIASED),
    # Adam divides by the root of a gradient's square: where that is near zero, another processor's rounding shows.
    Case(f"tent {REAL}", "tent", frames=3, limit=1e-4, parameter_limit=1e-4),
    Case(f"norm {REAL}", "norm", frames=3, limit=3e-3, same_labels=0.99, deviation=BIASED),
    Case(f"eta {REAL}", "eta", frames=3),
    Case(f"sar {REAL}", "sar", frames=3),
    Case(f"cotta {REAL}", "cotta", frames=2),
)
BY_NAME: dict[str, Case] = {case.name: case for case in CASES}
