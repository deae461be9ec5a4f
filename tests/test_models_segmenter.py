"""The Segmenter: preprocessing, padding, output forms, what it refuses; the catalogue's names."""

import collections
import dataclasses
import types
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from refusals import refusal
from tiny import seeded
from torch import Tensor, nn
from torch.testing import assert_close

from allweather import ClassSet, Segmenter, Session, list_models, load_model
from allweather.errors import AllWeatherError, InputError, NetworkError, SettingsError
from allweather.export.graph import Graph
from allweather.models.catalogue import find_entry
from allweather.models.scaling import resampled
from allweather.models.segmenter import AdaptationFacts, Preprocessing, Window


class Seen(nn.Module):
    """Remembers its input and answers in a given form, at half its resolution."""

    def __init__(self, classes: int = 19, form: str = "tensor"):
        super().__init__()
        self.classes, self.form, self.input = classes, form, torch.empty(0)

    def forward(self, x: Tensor) -> Any:
        self.input = x
        logits = x.mean(1, keepdim=True)[..., ::2, ::2].expand(-1, self.classes, -1, -1)
        return {"tensor": logits, "dict": {"aux": 0, "out": logits}, "tuple": (logits, 1), "none": None}[self.form]


def test_preprocessing_is_what_it_says():
    network = Seen()
    images = torch.rand(1, 3, 5, 6)
    settings = Preprocessing(mean=(10, 20, 30), std=(2, 4, 8), value_range=255, bgr=True, size_multiple=4)
    output = Segmenter(network, preprocessing=settings)(images)
    assert output.shape == (1, 19, 5, 6)
    assert network.input.shape == (1, 3, 8, 8)
    assert_close(network.input[0, 0, 2, 3], (images[0, 2, 2, 3] * 255 - 10) / 2)
    assert torch.equal(network.input[..., 5, :], network.input[..., 4, :]), "edge pixels are repeated"


@pytest.mark.parametrize("scale", [0.29, 0.35, 0.5, 0.57, 0.7, 0.75, 0.8, 1.15, 1.4, 2.3])
def test_a_scaled_input_comes_back_at_the_images_size_in_a_graph_too(scale: float):
    exact, images = Fraction(str(scale)), torch.rand(2, 3, 40, 180)
    for side in range(20, 2049, 20):
        assert resampled(torch.zeros(1, 1, side, 4), scale).shape[2] == int(side * exact)
    model = Segmenter(Seen(), preprocessing=Preprocessing(input_scale=scale, size_multiple=8))
    output = model(images)
    assert output.shape == (2, 19, 40, 180)
    assert model.network.input.shape[3] == -(-int(180 * exact) // 8) * 8
    assert_close(Graph(model, images)(images), output)


@pytest.mark.parametrize("form", ["tensor", "dict", "tuple"])
def test_output_forms(form: str):
    assert Segmenter.wrap(Seen(form=form))(torch.rand(1, 3, 8, 8)).shape == (1, 19, 8, 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_of_another_precision_are_enlarged_in_the_images(dtype: torch.dtype):
    coarse = torch.randn(1, 19, 4, 4, generator=seeded()).to(dtype)
    model = Segmenter.wrap(nn.Conv2d(3, 19, 1), output=lambda returned: coarse)
    expected = nn.functional.interpolate(coarse.float(), (8, 8), mode="bilinear")
    assert_close(model(torch.rand(1, 3, 8, 8)), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.rand(1, 3, 8, 8)).dtype == dtype, "under autocast, what the network gives"


@pytest.mark.parametrize("low", [-torch.inf, torch.finfo(torch.float32).min])
def test_classes_that_a_network_masks_stay_out_in_finite_numbers(low: float):
    class Masking(Seen):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x).clone()
            logits[:, 0], logits[:, 1, 0] = low, x[:, 0, 0, ::2] * torch.nan
            return logits

    found = Segmenter.wrap(Masking())(torch.rand(1, 3, 8, 8))
    assert found[:, 0].isfinite().all() and (found[:, 0] < -1e8).all() and found[:, 1].isnan().any()


def test_extra_logits_are_dropped():
    assert Segmenter.wrap(Seen(20), extra_logits=1)(torch.rand(1, 3, 8, 8)).shape[1] == 19


@pytest.mark.parametrize(
    ("network", "images", "message"),
    [
        (Seen(21), torch.rand(1, 3, 8, 8), "the network gives 21"),
        (Seen(form="none"), torch.rand(1, 3, 8, 8), "expected logits B×19×h×w from the network, got NoneType"),
        (Seen(), torch.rand(3, 8, 8), "expected images B×3×H×W"),
    ],
)
def test_what_does_not_fit_is_named(network: nn.Module, images: Tensor, message: str):
    with refusal(message):
        Segmenter.wrap(network)(images)


UNIT = torch.linspace(0, 1, 192).view(1, 3, 8, 8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((UNIT * 255).byte(), r"in floating point, got torch.uint8. Bytes are: images.float\(\) / 255"),
        ((UNIT * 255).long(), "in floating point, got torch.int64"),
        (UNIT > 0.5, "in floating point, got torch.bool"),
        (UNIT.cfloat(), "in floating point, got torch.complex64"),
        (UNIT.numpy(), "as a tensor, got ndarray"),
        ([UNIT], "as a tensor, got list"),
        (UNIT * 255, r"got 0\.\.255, which looks like 0\.\.255: divide by 255\.$"),
        ((UNIT - 0.5) / 0.25, "look normalised already"),
    ],
)
def test_what_are_no_floats_of_the_unit_range_is_refused(images: Any, message: str):
    model = Segmenter.wrap(Seen())
    for _ in range(2):
        with refusal(message, InputError):
            model(images)
    assert not model.network.input.numel(), "the network never saw them"
    assert model(UNIT).shape == (1, 19, 8, 8)


def test_pixels_are_looked_at_in_the_first_call_alone(monkeypatch: pytest.MonkeyPatch):
    looks: list[Tensor] = []
    model = Segmenter.wrap(nn.Conv2d(3, 19, 1))
    plain = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda values: looks.append(values) or plain(values))
    for _ in range(3):
        model(UNIT)
    assert len(looks) == 1


FORMS: dict[str, tuple[Callable[[Segmenter], Any], str]] = {  # of a network that normalises pixels itself
    "itself": (lambda model: model, "a Segmenter already: use it as it is"),
    "compiled": (lambda model: torch.compile(model, backend="eager"), "within torch.compile or DataParallel"),
    "data parallel": (nn.DataParallel, "within torch.compile or DataParallel"),
    "traced": (lambda model: torch.jit.trace(model, UNIT, check_trace=False), "traced or exported"),
    "exported": (lambda model: torch.export.export(model, (UNIT,)).module(), "traced or exported"),
    "a program": (
        lambda model: torch.export.export(model, (UNIT,)),
        r"instance of torch.nn.*its module: exported\.module",
    ),
    "a session": (lambda model: Session(model, "source"), "got Session.* Pass the module itself"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("form", FORMS)
def test_a_segmenter_is_not_wrapped_again(form: str):
    make, message = FORMS[form]
    made = make(Segmenter.wrap(nn.Conv2d(3, 19, 1)).eval())
    for take in (Segmenter, Segmenter.wrap):
        with refusal(message, NetworkError):
            take(made)
    if form not in ("itself", "a program", "a session"):
        with refusal(f"Session: expected a Segmenter, got a .*{message}", NetworkError):
            Session(made, "source")


def test_a_network_of_several_segmenters_is_a_network():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(Segmenter.wrap(nn.Conv2d(3, 19, 1)) for _ in range(2))

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([part(images) for part in self.parts]).mean(0)

    network = Mean()
    model = Segmenter.wrap(network, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert_close(model(UNIT), network(UNIT))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptationFacts(bn_share=-1), "AdaptationFacts.bn_share: expected a number at least 0 and at most 1"),
        (lambda: AdaptationFacts(bn_share=5), "bn_share: .* got 5"),
        (lambda: AdaptationFacts(bn_share="x"), "bn_share: .* got 'x'"),
        (lambda: AdaptationFacts(bn_share=float("nan")), "bn_share: .* got nan"),
        (lambda: AdaptationFacts(frozen_affine="no"), "frozen_affine: expected True or False"),
        (lambda: Window(8, 0), "Window.stride: expected a whole number at least 1 and at most 8, got 0"),
        (lambda: Window(20, 30), "Window.stride: .* at most 20, got 30"),
        (
            lambda: Segmenter(nn.Conv2d(3, 19, 1), preprocessing=Preprocessing(logit_weights=(1.0, 2.0))),
            r"logit_weights: expected 19 numbers, got \(1.0, 2.0\)",
        ),
        (lambda: Preprocessing(input_scale=0), "input_scale: expected a number above 0, got 0"),
        (lambda: Preprocessing(logit_weights=("a",)), "logit_weights: expected a number, got 'a'"),
        (lambda: Preprocessing(mean=5), "mean: expected 3 numbers, got 5"),
    ],
)
def test_facts_of_a_network_that_make_no_sense_are_refused(make: Callable[[], Any], message: str):
    with refusal(message, SettingsError):
        make()


class Answer(nn.Module):
    """Returns whatever it is told to make of the main logits (1 everywhere) and the auxiliary ones (0 everywhere)."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        main = torch.ones(len(x), 19, 4, 4)
        return self.make(main, torch.zeros_like(main))


@dataclasses.dataclass
class Found:
    main: Tensor
    aux: Tensor


@dataclasses.dataclass(slots=True)
class Slotted:
    logits: Tensor
    aux: Tensor


Pair = collections.namedtuple("Pair", ["aux", "main"])
TAKEN: dict[str, tuple[Callable[[Tensor, Tensor], Any], Any]] = {  # what a network returns, and `output`
    "a tuple with features": (lambda main, aux: (torch.zeros(1, 7, 4, 4), main, torch.zeros(1, 19)), None),
    "a tuple with a list": (lambda main, aux: (main, [aux, aux]), None),
    "a list of one": (lambda main, aux: [main], None),
    "torchvision's": (lambda main, aux: {"aux": aux, "out": main}, None),
    "transformers'": (lambda main, aux: {"loss": None, "hidden": aux, "logits": main}, None),
    "a dictionary with one that fits": (lambda main, aux: {"seg": main, "edge": torch.zeros(1, 1, 4, 4)}, None),
    "an object": (lambda main, aux: types.SimpleNamespace(aux=aux, logits=main), None),
    "an index": (lambda main, aux: (aux, main), 1),
    "an index from the end": (lambda main, aux: [aux, aux, main], -1),
    "a key": (lambda main, aux: {"aux": aux, "main": main}, "main"),
    "a number as key": (lambda main, aux: {8: aux, 4: main}, 4),
    "an attribute of a dataclass": (Found, "main"),
    "a dataclass with slots": (Slotted, None),
    "an attribute of a dataclass with slots": (Slotted, "logits"),
    "a field of a named tuple": (lambda main, aux: Pair(aux, main), "main"),
    "a key beside `out`": (lambda main, aux: {"out": aux, "main": main}, "main"),
    "a function": (lambda main, aux: ([aux, [main]], 3), lambda returned: returned[0][1][0]),
    "a function of a tensor": (lambda main, aux: torch.cat((aux, main), 1), lambda returned: returned[:, 19:]),
}


@pytest.mark.parametrize("form", TAKEN)
def test_the_logits_are_found_in_what_a_network_returns(form: str):
    make, output = TAKEN[form]
    assert torch.equal(Segmenter.wrap(Answer(make), output=output)(torch.rand(1, 3, 4, 4)), torch.ones(1, 19, 4, 4))


REFUSED: dict[str, tuple[Callable[[Tensor, Tensor], Any], Any, str]] = {
    "two that fit": (
        lambda main, aux: (aux, main),
        None,
        r"several .* 0: 1×19×4×4 of float32, 1: 1×19×4×4 of float32. Say which: Segmenter.wrap\(network, output=0\)",
    ),
    "two keys that fit": (lambda main, aux: {"aux": aux, "main": main}, None, r"'aux': .*'main': .*output='aux'"),
    "none that fits": (
        lambda main, aux: {"p3": main[:, :5], "p4": [aux]},
        None,
        r"expected logits B×19×h×w from the network, got dict with 'p3': 1×5×4×4 of float32, 'p4': list of 1",
    ),
    "nothing": (lambda main, aux: (), None, "got tuple"),
    "an absent key": (lambda main, aux: {"aux": aux}, "main", "output='main' is not in .* dict with 'aux'"),
    "an absent index": (lambda main, aux: (aux, main), 2, "output=2 is not in .* tuple with 0: "),
    "an absent attribute": (Found, "logits", "output='logits' is not in .* Found with 'main'"),
    "an index of a tensor": (lambda main, aux: main, 0, "returns one tensor. Leave `output` out"),
    "a strange output": (lambda main, aux: (aux, main), 1.5, "an index, a key, an attribute or a function, got 1.5"),
    "an entry that does not fit": (lambda main, aux: (main, main[:, :5]), 1, "the network gives 5"),
    "a function's nonsense": (lambda main, aux: main, lambda returned: None, "got NoneType"),
    "labels": (lambda main, aux: main.argmax(1), None, r"map of labels \(1×4×4 of int64\)"),
    "labels with a channel": (lambda main, aux: main.argmax(1, keepdim=True), None, "map of labels"),
    "labels as floats": (lambda main, aux: main.argmax(1, keepdim=True).float(), None, "map of labels"),
    "labels without a channel as floats": (lambda main, aux: main.argmax(1).float(), None, "map of labels"),
    "one-hot labels": (lambda main, aux: main.long(), None, "map of labels"),
    "tokens": (lambda main, aux: main.flatten(2).transpose(1, 2), None, r"tokens \(1×16×19 of .*transpose\(1, 2\)\.un"),
    "tokens last": (lambda main, aux: main.flatten(2), None, r"tokens \(1×19×16 of float32\)\. Return y\.unflatten\(2"),
    "channels last": (lambda main, aux: main.movedim(1, 3), None, r"classes last \(1×4×4×19 .* y\.permute\(0, 3, 1,"),
    **{
        f"masks, {output}": (
            lambda main, aux: types.SimpleNamespace(class_queries_logits=aux[:, :, 0], masks_queries_logits=main),
            output,
            r"masks_queries_logits: 1×19×4×4 of .*load_model\('transformers:FOLDER'\) .*MaskLogits",
        )
        for output in (None, "masks_queries_logits")
    },
    "a softmax": (lambda main, aux: main.softmax(1), None, "softmax already.*probabilities=True"),
    "a softmax in half precision": (lambda main, aux: (main.half() * 3).softmax(1), None, "softmax already"),
    "one-hot floats": (
        lambda main, aux: nn.functional.one_hot(main.argmax(1), 19).movedim(3, 1).float(),
        None,
        "softm",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_holds_no_logits_is_named(form: str):
    make, output, message = REFUSED[form]
    with refusal(message):
        Segmenter.wrap(Answer(make), output=output)(torch.rand(1, 3, 4, 4))


def test_one_logit_is_told_from_a_map_of_labels():
    def ask(output: Any) -> Tensor:
        network = Answer(lambda main, aux: 3 * main[:, :1])
        return Segmenter.wrap(network, classes=ClassSet("two", ("a", "b")), output=output)(torch.rand(1, 3, 4, 4))

    with refusal(r"gives one \(1×1×4×4 of float32\)\..* torch\.cat\(\(0 \* y, y\), 1\)", NetworkError):
        ask(None)
    with refusal("map of labels", NetworkError):
        ask(Tensor.long)
    assert ask(lambda y: torch.cat((0 * y, y), 1)).argmax(1).all()


def test_an_output_or_a_batch_without_pixels_is_said_to_be_empty():
    for probabilities in (False, True):
        flat = Segmenter.wrap(Answer(lambda main, aux: main[:, :, :0]), probabilities=probabilities)
        with refusal(r"gives an empty output, 1×19×0×4 of float32", NetworkError):
            flat(torch.rand(1, 3, 4, 4))
    model = Segmenter.wrap(Answer(lambda main, aux: main))
    model(torch.rand(1, 3, 4, 4))
    with refusal(r"expected images with pixels, got none in \(0, 3, 4, 4\)", InputError):
        model(torch.rand(0, 3, 4, 4))


def test_a_softmax_is_taken_on_request():
    coarse = torch.randn(1, 20, 4, 4, generator=seeded()).softmax(1)
    model = Segmenter.wrap(Answer(lambda *_: coarse), probabilities=True, extra_logits=1)
    expected = nn.functional.interpolate(coarse[:, :19] / coarse[:, :19].sum(1, True), (8, 8), mode="bilinear")
    assert_close(model(torch.rand(1, 3, 8, 8)).softmax(1), expected)
    hard = nn.functional.one_hot(torch.zeros(1, 4, 4, dtype=torch.long), 19).movedim(3, 1).float()
    assert Segmenter.wrap(Answer(lambda *_: hard), probabilities=True)(torch.rand(1, 3, 4, 4)).isfinite().all()


def test_of_what_could_be_a_sigmoids_there_is_a_warning():
    logits = 9 * torch.randn(1, 19, 4, 4, generator=seeded())
    with pytest.warns(UserWarning, match=r"as a sigmoid's is.* return what comes before it"):
        Segmenter.wrap(Answer(lambda *_: logits.sigmoid()))(torch.rand(1, 3, 4, 4))
    for other in (logits, logits.clamp(0, 1), 0.8 * logits.sigmoid()):  # the suite takes a warning for an error
        Segmenter.wrap(Answer(lambda *_, other=other: other))(torch.rand(1, 3, 4, 4))


def test_logits_where_a_softmax_was_promised_are_refused():
    with refusal(r"as probabilities=True says; .* from 1 to 1"):
        Segmenter.wrap(Answer(lambda main, aux: main), probabilities=True)(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (123.7, 116.3, 103.5)}, "divide both by 255.*value_range=255.*--model FILE"),
        ({"mean": (0, 0, 0), "std": (57.0, 57.0, 57.0)}, "divide both by 255.*value_range=255.*--model FILE"),
        ({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "value_range": 255}, "multiply by 255, or leave"),
        ({"std": (1.0, 0.0, 1.0)}, "std: expected a number above 0, got 0.0"),
        ({"mean": (0.5, 0.5)}, "mean: expected 3 numbers"),
        ({"value_range": 0}, "value_range: expected a number above 0, got 0"),
        ({"value_range": "255"}, "value_range: expected a number above 0, got '255'"),
        ({"mean": (0.5, 0.5, 0.5), "value_range": 255}, "got mean without std"),
        ({"mean": (float("nan"),) * 3}, "mean: expected a number, got nan"),
        ({"value_range": float("nan")}, "value_range: expected a number above 0"),
        ({"mean": 0.5}, "mean: expected three numbers, one per channel, got 0.5"),
        ({"size_multiple": 0}, "size_multiple: expected a whole number at least 1, got 0"),
        ({"size_multiple": 2.5}, "size_multiple: expected a whole number"),
        ({"size_multiple": True}, "size_multiple: expected a whole number"),
        ({"align_corners": 1}, "align_corners: expected True or False, got 1"),
        ({"bgr": "no"}, "bgr: expected True or False, got 'no'"),
        ({"extra_logits": -1}, "extra_logits: expected a whole number at least 0, got -1"),
        ({"extra_logits": "1"}, "extra_logits: expected a whole number"),
    ],
)
def test_a_normalisation_on_another_scale_is_refused(options: dict[str, Any], message: str):
    with refusal(message):
        Segmenter.wrap(Seen(), **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.5 - 0.485) / 0.229),
        ({"value_range": 255}, (0.5 - 0.485) / 0.229),
        ({"value_range": 255, "mean": (123.675, 116.28, 103.53), "std": [58.395, 57.12, 57.375]}, 0.0655022),
        ({"value_range": 255, "mean": (0, 0, 0), "std": (1, 1, 1)}, 127.5),
        ({"mean": torch.tensor([0.5, 0.5, 0.5]), "std": (0.5, 0.5, 0.5)}, 0.0),
        ({"bgr": True}, (0.5 - 0.406) / 0.225),  # blue comes first, and blue's numbers
        ({"bgr": True, "mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}, 0.4),
    ],
)
def test_the_value_range_scales_pixels_and_the_default_normalisation(options: dict[str, Any], expected: float):
    network = Seen()
    Segmenter.wrap(network, **options)(torch.full((1, 3, 4, 4), 0.5))
    assert float(network.input[0, 0, 0, 0]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_is_called_in_it(dtype: torch.dtype):
    network = nn.Conv2d(3, 19, 1).to(dtype)
    images = torch.rand(1, 3, 4, 4)
    logits = Segmenter.wrap(network)(images)
    assert logits.dtype == torch.float32
    assert_close(logits, Segmenter.wrap(network.float())(images), atol=0.05, rtol=0)


def test_a_class_is_no_network():
    with refusal("For a class, call it first"):
        Segmenter.wrap(Seen)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("espnetv2:3.0", "Did you mean 'espnetv2:2.0'"),
        ("espnet2:2.0", "Did you mean 'espnetv2'"),
        ("espnetv2", "SCHEME:NAME"),
        ("torchvision:fcn_resnet5", "Did you mean 'fcn_resnet50'"),
    ],
)
def test_unknown_models_are_answered_with_the_nearest(name: str, message: str):
    with pytest.raises(AllWeatherError) as error:
        load_model(name)
    assert message in str(error.value)


@pytest.mark.parametrize("weights", [5, True, b"w.pth"])
def test_weights_are_a_file(weights: Any):
    with refusal("weights: expected a checkpoint's path, got", SettingsError):
        load_model("demo:streetnet", weights)


def test_a_network_without_weights_warns():
    with pytest.warns(UserWarning, match="randomly initialised"):
        model = load_model("espnetv2:0.5")
    assert not model.training


@pytest.mark.slow
def test_the_list_has_what_programs_read():
    rows = {row["name"]: row for row in list_models()}
    row = rows["espnetv2:2.0"]
    assert row["parameters"] == 789242
    assert row["norms"] == {"BatchNorm2d": 67}
    assert row["preprocessing"]["size_multiple"] == 16
    assert row["fixture"] == "espnetv2/s2.0"
    assert row["licence"] == "MIT"


def test_the_shipped_network_loads_its_own_weights():
    model = load_model("demo:streetnet")
    assert model.provenance is not None
    packaged = find_entry("demo:streetnet").packaged
    assert packaged.stat().st_size <= 4 << 20


@pytest.mark.parametrize("classes", ["cityscapes", ("road", "sky"), 19], ids=str)
def test_classes_that_are_no_class_set_are_refused(classes: Any):
    with refusal(r"expected classes as a ClassSet, such as allweather.CITYSCAPES, got", NetworkError):
        Segmenter.wrap(nn.Conv2d(3, 19, 1), classes=classes)
