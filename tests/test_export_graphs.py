"""Graphs: torch.export and ONNX predict as the session, at any size, or are refused by what stands in the way."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import probabilities, session_of
from refusals import refusal
from tiny import CLASSES, tiny
from torch import Tensor, nn
from torch.nn import functional

from allweather import Segmenter, Session, errors
from allweather.errors import MissingLibraryError, NetworkError
from allweather.export import onnx as to_onnx
from allweather.export.agreement import disagreement, picture
from allweather.export.pooling import adaptive_average
from allweather.models.segmenter import Preprocessing, Window

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
SIZES = ((96, 64), (61, 47))


def labels_in_onnx(path: Path, image: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    return np.asarray(logits.argmax(1)[0])


def labels_in_torch(path: Path, image: Tensor) -> np.ndarray:
    return torch.export.load(path).module()(image).argmax(1)[0].numpy()


class Pyramid(nn.Module):
    """Pooling to shares of the size, as a pyramid has it, logits at a quarter of the size and one more beside."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        small = functional.adaptive_avg_pool2d(x, (x.shape[2] // 3, x.shape[3] // 2))
        small = functional.interpolate(small, x.shape[2:], mode="bilinear", align_corners=True)
        return {"features": x, "out": self.head(torch.cat([x, small], 1))}


def pyramid() -> Segmenter:
    torch.manual_seed(2)
    facts = Preprocessing((0.2, 0.3, 0.4), (0.5, 0.6, 0.7), bgr=True, size_multiple=8)
    return Segmenter(Pyramid().eval(), classes=CLASSES, preprocessing=facts, extra_logits=1, name="pyramid")


MODELS = {"batchnorm": lambda: tiny(), "layernorm": lambda: tiny("layernorm"), "pyramid": pyramid}


@pytest.mark.parametrize(
    ("name", "statistics", "suffix"),
    [
        ("batchnorm", "image", ".pt2"),
        ("batchnorm", "image", ".onnx"),
        ("batchnorm", "stream", ".onnx"),
        ("layernorm", "image", ".pt2"),
        ("pyramid", "image", ".pt2"),
        ("pyramid", "image", ".onnx"),
    ],
)
def test_graphs_agree_with_the_session_at_any_size(name: str, statistics: Any, suffix: str, tmp_path: Path):
    session = session_of(MODELS[name]())
    network = session.network(statistics)
    source = session.model
    reference = Segmenter(
        network, classes=CLASSES, preprocessing=source.preprocessing, extra_logits=source.extra_logits
    )
    path = tmp_path / f"a{suffix}"
    session.export(path, statistics=statistics)
    for size in SIZES:
        image = picture(size)
        expected = probabilities(session, image[0]) if statistics == "image" else reference(image)[0]
        labels = labels_in_torch(path, image) if suffix == ".pt2" else labels_in_onnx(path, image)
        assert (labels == expected.argmax(0).numpy()).mean() >= 0.999
    assert list(tmp_path.iterdir()) == [path]


class Within(nn.Module):
    """A network within another."""

    def __init__(self):
        super().__init__()
        self.body = tiny().network


class Halved(Within):
    """Logits in half precision at a quarter of the size, as a network gives that is run under autocast within."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.body(x), 2).to(torch.bfloat16)


@pytest.mark.parametrize(("suffix", "size"), [(".pt2", None), (".onnx", (64, 48))])
def test_logits_are_float32_in_a_graph_whatever_the_network_gives(size: Any, suffix: str, tmp_path: Path):
    session = fresh(Halved())
    torch.set_default_dtype(torch.float64)
    try:
        session.export(tmp_path / f"a{suffix}", size=size)
    finally:
        torch.set_default_dtype(torch.float32)
    image = picture((64, 48))
    if suffix == ".pt2":
        assert torch.export.load(tmp_path / "a.pt2").module()(image).dtype == torch.float32
    else:
        graph = onnxruntime.InferenceSession(tmp_path / "a.onnx")
        assert graph.run(None, {"image": image.numpy()})[0].dtype == np.float32


@pytest.mark.parametrize("kind", ["NotImplemented", "InvalidArgument", "Fail", "RuntimeException"])
def test_what_onnx_runtime_cannot_run_is_said(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object):
        raise getattr(onnxruntime.capi.onnxruntime_pybind11_state, kind)("no kernel for Resize")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with refusal(r"ONNX Runtime cannot run the file: no kernel for Resize\. Write NAME\.pt2", NetworkError):
        to_onnx._run(tmp_path / "a.onnx", picture((64, 48)), "mine")


def test_an_onnx_file_has_standard_operations_and_says_what_it_is(tmp_path: Path):
    session_of(tiny()).export(tmp_path / "a.onnx", opset=19)
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 19)]
    sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == [1, 3, "height", "width"]
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}["allweather"])
    assert about["input"]["size"] == "height 3 to ∞, width 3 to ∞"
    assert about["opset"] == 19 and about["statistics"] == "image" and set(about["shares"].values()) == {0.05}
    assert "inside the graph" in about["preprocessing"] and about["settings"]["method"]["name"] == "mall-domain"


def test_a_fixed_size_is_one_size_and_cuts_windows(tmp_path: Path):
    model = tiny()
    model.window = Window(40, 30)
    session = session_of(model)
    session.export(tmp_path / "a.pt2", size=(64, 48))
    image = picture((64, 48))
    expected = probabilities(session, image[0]).argmax(0).numpy()
    assert (labels_in_torch(tmp_path / "a.pt2", image) == expected).mean() >= 0.999
    with pytest.raises(AssertionError, match="Guard failed"):
        labels_in_torch(tmp_path / "a.pt2", picture((32, 24)))


@pytest.mark.parametrize("size", [(5, 31), (1, 1), (17, 4), (40, 23)])
def test_adaptive_pooling_in_plain_operations_is_torchs(size: tuple[int, int]):
    values = torch.randn(2, 3, 17, 23, dtype=torch.float64)
    torch.testing.assert_close(adaptive_average(values, size), functional.adaptive_avg_pool2d(values, size))


class Deciding(Within):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return self.body(x)
        return self.body(x.flip(3))


class OneSize(Within):
    """A position embedding of one size alone, as many transformers have."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.zeros(1, 3, 187, 251))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x + self.places[..., : x.shape[2], : x.shape[3]])


class Branching(Within):
    def __init__(self, flips: Callable[[int, int], bool]):
        super().__init__()
        self.flips = flips

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flip(2) if self.flips(*x.shape[2:]) else x)


class Ceiling(Within):
    """Sizes in floating point."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return functional.interpolate(logits, [math.ceil(side * 0.7) for side in logits.shape[2:]])


class Unknown(Within):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(torch.special.spherical_bessel_j0(x))


class Raising(Within):
    """Fails in a graph alone, by an error of its own kind."""

    class Odd(Exception):
        pass

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            raise self.Odd("not in a graph")
        return self.body(x)


def scripted() -> nn.Module:
    return torch.jit.script(tiny().network)


def traced() -> nn.Module:
    return torch.jit.trace(tiny().network, torch.rand(1, 3, 24, 32))


def partly_scripted() -> nn.Module:
    return nn.Sequential(nn.Identity(), scripted())


def fresh(network: nn.Module) -> Session:
    return Session(Segmenter.wrap(network.eval(), classes=CLASSES, name="mine"), "source")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Deciding, r"mine cannot become a graph.* test_export_graphs\.py:\d+, `if x\.mean\(\) > 0:`.*torch\.where.*N"),
        (OneSize, r"mine.* --size WIDTHxHEIGHT\), or write NAME\.saf"),
        (lambda: Branching(lambda h, w: w > 499), r"mine.* --size WIDTHxHEIGHT\), or write NAME\.saf"),
        (lambda: Branching(lambda h, w: h > w), r"every size .*Guard.* Fix the size"),
        (lambda: Branching(lambda h, w: w > 1024), r"every size .*a width to 1024 alone"),
        (lambda: Branching(lambda h, w: h * w > 2**21), r"every size .*Guard.*\*"),
        (lambda: Branching(lambda h, w: w > 2 * h), r"every size .*Guard.*<= 2"),
        (lambda: Branching(lambda h, w: (h, w) == (480, 640)), r"every size .*Guard.*!= 480"),
        (lambda: Branching(lambda h, w: {0: 0}[w % 2]), r"takes no picture of 251×187 .* --size .*size_multiple"),
        (
            Raising,
            r"mine cannot become a graph.* at test_export_graphs\.py:.*\(Odd: not in a graph\).*NAME\.safetensors",
        ),
        (Unknown, r"mine cannot be written as ONNX: .*spherical_bessel_j0.* Write NAME\.pt2"),
    ],
)
def test_what_a_graph_cannot_hold_is_named(network: Any, said: str, tmp_path: Path):
    with refusal(said, NetworkError):
        fresh(network()).export(tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(("form", "which"), [(scripted, "it"), (traced, "it"), (partly_scripted, "its 1")])
def test_torchscript_becomes_no_graph_and_is_written_as_tensors(form: Any, which: str, suffix: str, tmp_path: Path):
    session = fresh(form())
    for size in (None, (64, 48)):
        with refusal(rf"mine cannot become a graph: {which} is TorchScript.* NAME\.safetens", NetworkError):
            session.export(tmp_path / f"a{suffix}", size=size)
    assert not list(tmp_path.iterdir())
    session.export(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size


def test_sizes_in_floating_point_are_named_for_a_program(tmp_path: Path):
    with refusal(r"mine cannot be written as \.pt2: .*ceil.* --size WIDTHxHEIGHT", NetworkError):
        fresh(Ceiling()).export(tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_a_file_that_disagrees_in_onnx_runtime_is_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = session_of(tiny())
    (tmp_path / "a.onnx").write_text("an older file")
    run = to_onnx._run
    monkeypatch.setattr(to_onnx, "_run", lambda *given: run(*given).flip(1))
    with refusal(r"a\.onnx was refused and removed: in ONNX Runtime [\d.]+% of the pixels", NetworkError):
        session.export(tmp_path / "a.onnx")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["an older file"]


def test_what_an_older_exporter_cannot_do_is_said_with_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object):
        try:
            raise RuntimeError("SymIntArrayRef expected to contain only concrete integers.")
        except RuntimeError as error:
            raise torch.onnx.errors.OnnxExporterError("Failed. \x1b[96mThis is step 2/3\x1b[0m of exporting") from error

    monkeypatch.setattr(torch.onnx, "export", refuse)
    why = r"cannot be written as ONNX: SymIntArrayRef expected to contain only concrete integers\. "
    with refusal(why + r"Fix the pictures' size \(.*--size .*\), take a newer torch", NetworkError):
        session_of(tiny()).export(tmp_path / "a.onnx")
    with refusal(why + r"Write NAME\.pt2", NetworkError):
        session_of(tiny()).export(tmp_path / "a.onnx", size=(64, 48))


def test_disagreement_is_told_from_rounding():
    logits = torch.randn(1, 5, 20, 20)
    assert not disagreement(logits + 1e-5, logits)
    assert "another class" in disagreement(logits.flip(1), logits)
    one_class = torch.randn(1, 5, 20, 20) + torch.tensor([9.0, 0, 0, 0, 0]).view(1, 5, 1, 1)
    assert "0.00% of the pixels" in disagreement(one_class.roll(3, 2), one_class)
    large = torch.randn(1, 5, 64, 64)
    one_pixel = large.clone()
    one_pixel[0, :, 3, 3] = one_pixel[0, :, 3, 3].flip(0)
    assert not disagreement(one_pixel, large)
    assert "not finite" in disagreement(logits * float("nan"), logits)
    assert "shape" in disagreement(logits[..., 1:], logits)


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("onnxscript"):
            raise ModuleNotFoundError("No module named 'onnxscript'")
        return real(name, *rest, **more)

    real = errors.import_module
    monkeypatch.setattr(errors, "import_module", without)
    with pytest.raises(MissingLibraryError, match=r"pip install 'allweather\[onnx\]'"):
        session_of(tiny()).export(tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, content: bytes) -> int:
        open(path, "wb").close()
        raise OSError(28, "No space left on device")

    session = session_of(tiny())
    monkeypatch.setattr(Path, "write_bytes", full)
    for suffix in (".safetensors", ".delta.safetensors", ".pt2"):
        with refusal(r"cannot write .*No space left on device\. .*make room"):
            session.export(tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())
