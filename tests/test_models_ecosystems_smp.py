"""segmentation-models-pytorch: hub names and folders with their own parameters, classes and pixel values."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ecosystem_networks import hub, nothing_is_asked
from refusals import refusal
from safetensors.torch import load_file

from allweather import CITYSCAPES, NetworkError, Segmenter, load_model
from allweather.classes import numbered
from allweather.models.digest import digest
from allweather.models.segmenter import IMAGENET_MEAN, IMAGENET_STD

library = pytest.importorskip("segmentation_models_pytorch")
IMAGE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
Publish = Callable[[str, Path], None]


@pytest.fixture(autouse=True)
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    return hub(tmp_path / "cache", monkeypatch)


def load(place: object, weights: Path | None = None, **options: Any) -> Segmenter:
    return load_model(f"smp:{place}", weights, **options)


def untrained(name: str, **options: Any) -> Segmenter:
    with pytest.warns(UserWarning, match="randomly initialised"):
        return load(name, **options)


def saved(folder: Path, architecture: str = "fpn", encoder: str = "resnet18", classes: int = 19, **fields: Any) -> Any:
    """A random network that `save_pretrained` wrote to `folder`; `fields` change its config.json."""
    torch.manual_seed(0)
    network = library.create_model(architecture, encoder, encoder_weights=None, classes=classes).eval()
    network.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return network


def transform(folder: Path, *steps: dict[str, Any]):
    """An evaluation transform as albumentations writes it beside a network."""
    written = [{"__class_fullname__": step.pop("name"), "p": 1.0, **step} for step in steps]
    content = {"__version__": "2.0.8", "transform": {"__class_fullname__": "Compose", "transforms": written}}
    (folder / "albumentations_config_eval.json").write_text(json.dumps(content))


def test_networks_by_architecture_and_encoder(tmp_path: Path):
    model = untrained("fpn/resnet18")
    assert model(IMAGE).shape == (1, 19, 64, 96)
    torch.save(model.network.network.state_dict(), tmp_path / "fpn.pth")
    again = load("fpn/resnet18", tmp_path / "fpn.pth")
    with torch.no_grad():
        assert torch.equal(again(IMAGE), model(IMAGE))


@pytest.mark.parametrize("named", [False, True], ids=["folder", "hub name"])
@pytest.mark.parametrize("encoder_weights", [None, "imagenet"])
def test_a_repository_brings_its_parameters(
    named: bool, encoder_weights: str | None, tmp_path: Path, publish: Publish, capsys: Any
):
    folder = tmp_path / "folder"
    network = saved(folder, "segformer", "mit_b0", decoder_segmentation_channels=256, encoder_weights=encoder_weights)
    publish("smp-hub/segformer-b0-city", folder)
    model = load_model("smp:smp-hub/segformer-b0-city" if named else f"smp:{folder}", classes=CITYSCAPES)
    held = model.network.network.state_dict()
    assert all(torch.equal(held[key], value) for key, value in load_file(folder / "model.safetensors").items())
    assert model.provenance and model.provenance.sha256 == digest(held) and not capsys.readouterr().out
    pixels = model.preprocessing.apply(IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE), network(pixels))


def test_weights_of_a_file_go_into_a_repositorys_configuration(tmp_path: Path, publish: Publish):
    network = saved(tmp_path / "folder")
    (tmp_path / "folder/model.safetensors").unlink()
    publish("someone/fpn", tmp_path / "folder")
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    model = load_model("smp:someone/fpn", tmp_path / "mine.pth", classes=CITYSCAPES)
    assert model.provenance.file == "mine.pth"
    with torch.no_grad():
        assert torch.equal(model(IMAGE), network(model.preprocessing.apply(IMAGE)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes": 1}, "expected logits of two classes at least, got .* of 1"),
        ({"activation": "sigmoid"}, "ends in the activation 'sigmoid'; expected logits of classes that exclude"),
        ({"in_channels": 4}, "takes 4 channels; expected a network of RGB pictures, 3"),
    ],
)
def test_networks_of_something_else_than_classes_of_pictures_are_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
):
    saved(tmp_path, **settings)
    with refusal(said, NetworkError):
        load(tmp_path)


def test_a_softmax_at_the_end_is_known_and_other_trainings_are_warned_of(tmp_path: Path):
    network = saved(tmp_path, activation="softmax2d")
    model = load(tmp_path, classes=CITYSCAPES)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE).softmax(1), network(model.preprocessing.apply(IMAGE)).softmax(1))
    config = json.loads((tmp_path / "config.json").read_text())
    for trained, mean in (("advprop", 0.5), ("exotic", IMAGENET_MEAN[0])):
        (tmp_path / "config.json").write_text(json.dumps({**config, "encoder_weights": trained}))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert load(tmp_path, classes=CITYSCAPES).preprocessing.mean[0] == mean
        told = [str(warning.message) for warning in caught if "taken for ImageNet's" in str(warning.message)]
        assert bool(told) == (trained == "exotic")


NORMALIZE = {"name": "Normalize", "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "max_pixel_value": 255.0}
STEPS: dict[str, tuple[list[dict[str, Any]], Any]] = {  # and what becomes of a byte in the three channels
    "normalised": ([NORMALIZE], lambda byte: (byte / 255 - NORMALIZE_MEAN) / NORMALIZE_STD),
    "with sizes": (
        [{"name": "Resize", "height": 8}, {**NORMALIZE, "normalization": "standard"}, {"name": "ToTensorV2"}],
        lambda byte: (byte / 255 - NORMALIZE_MEAN) / NORMALIZE_STD,
    ),
    "bytes": ([{"name": "Resize", "height": 8, "width": 8}, {"name": "pytorch.ToTensorV2"}], lambda byte: byte),
    "of bytes": (
        [{**NORMALIZE, "max_pixel_value": 1.0}],
        lambda byte: (byte - NORMALIZE_MEAN) / NORMALIZE_STD,
    ),
    "floats": ([{"name": "ToFloat", "max_value": 255.0}], lambda byte: byte / 255),
}  # fmt: skip
NORMALIZE_MEAN = torch.tensor(NORMALIZE["mean"]).view(3, 1, 1)
NORMALIZE_STD = torch.tensor(NORMALIZE["std"]).view(3, 1, 1)


@pytest.mark.parametrize("steps", STEPS)
def test_pixel_values_are_those_of_the_evaluation_transform(steps: str, tmp_path: Path, publish: Publish):
    saved(tmp_path / "folder")
    written, expected = STEPS[steps]
    transform(tmp_path / "folder", *map(dict, written))
    publish("someone/fpn", tmp_path / "folder")
    bytes_ = torch.arange(3 * 64 * 96).view(3, 64, 96) % 256
    for name in (str(tmp_path / "folder"), "someone/fpn"):
        found = load(name, classes=CITYSCAPES).preprocessing.apply(bytes_[None] / 255)
        torch.testing.assert_close(found[0], expected(bytes_.float()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "CLAHE"}, "step CLAHE, which cannot be followed"),
        ({**NORMALIZE, "normalization": "image"}, "step Normalize, which cannot"),
        ({**NORMALIZE, "mean": None}, "no transform of albumentations"),
    ],
)
def test_a_transform_that_cannot_be_followed_is_refused(step: dict[str, Any], message: str, tmp_path: Path):
    saved(tmp_path)
    transform(tmp_path, dict(step))
    with refusal(message):
        load(tmp_path, classes=CITYSCAPES)


@pytest.mark.parametrize(
    ("encoder", "mean", "std"),
    [
        ("resnet18", IMAGENET_MEAN, IMAGENET_STD),
        ("xception", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("tu-tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_an_encoder_is_fed_as_it_was_trained(encoder: str, mean: Any, std: Any, tmp_path: Path):
    model = untrained(f"fpn/{encoder}")
    assert (model.preprocessing.mean, model.preprocessing.std) == (mean, std)
    saved(tmp_path, encoder=encoder)
    assert load(tmp_path, classes=CITYSCAPES).preprocessing == model.preprocessing


def test_settings_of_an_encoder_in_the_cache_are_taken(tmp_path: Path, publish: Any):
    """smp's hub keeps mean, std, range and order of channels of the encoders' training."""
    settings = library.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    folder = tmp_path / "encoder"
    folder.mkdir()
    values = {"mean": [103.0, 116.0, 123.0], "std": [57.0, 57.0, 58.0], "input_range": [0, 255], "input_space": "BGR"}
    (folder / "config.json").write_text(json.dumps(values))
    publish(settings["repo_id"], folder, settings["revision"])
    seen = untrained("fpn/resnet18").preprocessing.apply(IMAGE)
    blue = (IMAGE[:, 2] * 255 - 103) / 57
    torch.testing.assert_close(seen[:, 0], blue)


def test_class_counts_and_names(tmp_path: Path):
    saved(tmp_path / "19")
    with pytest.warns(UserWarning, match="taken for Cityscapes', in trainIds' order"):
        assert load(tmp_path / "19").classes is CITYSCAPES
    saved(tmp_path / "5", classes=5)
    assert load(tmp_path / "5").classes.names == tuple(f"class {index}" for index in range(5))
    own = numbered(("road", "lane", "other", "moving", "mine"))
    assert load(tmp_path / "5", classes=own).classes is own
    with refusal("gives 5 classes, 'cityscapes' has 19"):
        load(tmp_path / "5", classes=CITYSCAPES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fpn", "names no encoder.*smp:fpn/resnet18"),
        ("fpn/resnet19", "unknown encoder of smp 'resnet19'. Did you mean 'resnet18'"),
        ("fpn/tu-nothing", r"cannot make 'fpn/tu-nothing': Unknown model.*Segmenter.wrap"),
        ("unett/resnet18", "Did you mean 'unet'.*no repository of the hub"),
        ("smp-hub/segformer-b2-1024x1024-city-160k", "no repository of the hub that can be reached or is in its cache"),
    ],
)
def test_names_that_are_nothing(name: str, message: str):
    with refusal(message) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_configurations_that_are_not_smps(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "segformer"}')
    with refusal(r"not one of segmentation-models-pytorch.*transformers:"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with refusal("damaged"):
        load(tmp_path)
    saved(tmp_path, classes=19, encoder_name="resnet34")
    with refusal("cannot make"):
        load(tmp_path, classes=CITYSCAPES)


ODD: dict[str, Any] = {  # config.json as it is, or fields of a good one
    "a list": ("[]", "not one of segmentation-models-pytorch"),
    "nested without end": ("[" * 50_000, "damaged"),
    "a function that loads": ({"_model_class": "from_pretrained"}, "_model_class is 'from_pretrained'"),
    "a function that makes": ({"_model_class": "create_model", "arch": "fpn"}, "_model_class is 'create_model'"),
    "a class of no kind": ({"_model_class": ["FPN"]}, r"_model_class is \['FPN'\]"),
    "classes in letters": ({"classes": "x"}, "has 'x' as 'classes'.*a whole number from 1"),
    "classes below none": ({"classes": -1}, "has -1 as 'classes'"),
    "an encoder of the hub": ({"encoder_name": "tu-hf-hub:evil/repo"}, "names 'tu-hf-hub:evil/repo'; expected an enc"),
    "under its old name": ({"encoder_name": "tu-hf_hub:evil/repo"}, "names 'tu-hf_hub:evil/repo'"),
    "an encoder of the disk": ({"encoder_name": "tu-local-dir:/etc"}, "names 'tu-local-dir:/etc'"),
    "an encoder that is none": ({"encoder_name": 5}, "names 5; expected an encoder"),
    "a file of the disk": ({"encoder_name": "tu-resnet18", "checkpoint_path": "/etc/passwd"}, "names '/etc/passwd'"),
    "depths in letters": ({"encoder_depth": "x"}, "cannot make"),
    "what no network takes": ({"decoder_interpolation": {"x": 1}, "upsampling": "x"}, "cannot make"),
}  # fmt: skip


@pytest.mark.parametrize("own", [False, True], ids=["its weights", "others"])
@pytest.mark.parametrize("what", ODD)
def test_odd_configurations_are_told_and_nothing_else_is_read(
    what: str, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = saved(tmp_path)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    written, said = ODD[what]
    config = {**json.loads((tmp_path / "config.json").read_text()), **(written if isinstance(written, dict) else {})}
    (tmp_path / "config.json").write_text(written if isinstance(written, str) else json.dumps(config))
    with nothing_is_asked(monkeypatch), refusal(said, NetworkError):
        load(tmp_path, tmp_path / "mine.pth" if own else None, classes=CITYSCAPES)


@pytest.mark.parametrize(
    ("name", "size", "works"),
    [("pan/resnet18", (64, 64), "128x128"), ("dpt/tu-vit_tiny_patch16_224", (64, 96), "224x224")],
)
def test_sizes_that_an_architecture_refuses(name: str, size: tuple[int, int], works: str):
    model = untrained(name)
    with torch.no_grad(), refusal(rf"takes no image of .*Sizes that work: {works}"):
        model(torch.zeros(1, 3, *size))
    width, height = map(int, works.split("x"))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, height, width)).shape == (1, 19, height, width)


@pytest.mark.parametrize(("name", "multiple"), [("unet/resnet18", 1), ("fpn/resnet18", 32), ("pspnet/resnet18", 8)])
def test_images_are_padded_to_what_the_network_divides_by(name: str, multiple: int):
    model = untrained(name)
    assert model.preprocessing.size_multiple == multiple
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model(torch.rand(1, 3, 101, 151)).shape == (1, 19, 101, 151)
