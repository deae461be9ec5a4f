"""transformers: pixel values, classes and sizes as the library has them, by folder and by hub name offline."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ecosystem_networks import ALPHABETICAL, hub, labels, nothing_is_asked, nvlabs_names, save_network, tiny_network
from refusals import refusal
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from allweather import CITYSCAPES, NetworkError, Segmenter, load_model
from allweather.models.ecosystems.nvlabs import hub_names

library = pytest.importorskip("transformers")
NOISE = np.random.default_rng(0).integers(0, 256, (101, 151, 3), dtype=np.uint8)
IMAGE = torch.from_numpy(NOISE).permute(2, 0, 1)[None] / 255
HALF = [0.5, 0.5, 0.5]
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {  # what a processor can say about pixel values
    "the architecture's own": ("segformer", {}),
    "mean and std": ("segformer", {"image_mean": HALF, "image_std": [0.25, 0.5, 1.0]}),
    "one number for all": ("segformer", {"image_mean": HALF, "image_std": HALF, "rescale_factor": 1 / 127.5}),
    "not normalised": ("segformer", {"do_normalize": False}),
    "not rescaled": ("segformer", {"do_rescale": False, "image_mean": [123.0] * 3, "image_std": [58.0] * 3}),
    "neither": ("segformer", {"do_rescale": False, "do_normalize": False}),
    "blue first": ("mobilevit", {}),
    "red first": ("mobilevit", {"do_flip_channel_order": False}),
    "an old name": ("segformer", {"feature_extractor_type": "SegformerFeatureExtractor", "reduce_labels": True}),
    "with sizes": ("segformer", {"do_resize": True, "size": {"height": 32, "width": 32}}),
    "a mask network": ("mask2former", {"image_mean": HALF, "ignore_index": 255, "size_divisor": 32}),
}


def tiny(kind: str, **fields: Any) -> Any:
    return tiny_network(library, kind, **fields)


def segformer(folder: Path, names: tuple[str, ...] = CITYSCAPES.names, processor: Any = None) -> Path:
    return save_network(tiny("segformer", **labels(names)), folder, processor)


def load(place: object, **options: Any) -> Segmenter:
    return load_model(f"transformers:{place}", **options)


def seen_by(model: nn.Module, image: Tensor) -> Tensor:
    """The pixel values that reach the library's network."""
    seen: list[Tensor] = []
    network: Any = model.network
    hook = network.network.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["pixel_values"]), with_kwargs=True
    )
    with torch.no_grad():
        model(image)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("named", [False, True], ids=["folder", "hub name"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_pixel_values_are_the_processors(settings: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kind, processor = SETTINGS[settings]
    name = str(save_network(tiny(kind), tmp_path / "folder", processor))
    publish = hub(tmp_path / "cache", monkeypatch)
    if named:
        publish("someone/network", tmp_path / "folder")
        name = "someone/network"
    model = load(name)
    reference = library.AutoImageProcessor.from_pretrained(name)
    off = {"do_resize": False} | ({"do_center_crop": False} if kind == "mobilevit" else {})
    expected = reference(images=NOISE, return_tensors="pt", **off)["pixel_values"].float()
    torch.testing.assert_close(seen_by(model, IMAGE), expected, rtol=1e-5, atol=1e-5)


def test_without_a_processor_the_architectures_own_is_taken_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = save_network(tiny("beit"), tmp_path / "folder")
    (folder / "preprocessor_config.json").unlink()
    publish = hub(tmp_path / "cache", monkeypatch)
    publish("someone/network", folder)
    with pytest.warns(UserWarning, match=r"has no preprocessor_config.json: .*default for beit"):
        model = load(folder)
    assert model.preprocessing.mean == (0.5, 0.5, 0.5)
    assert model.provenance
    # offline, a repository that has none and one whose file was never fetched look alike
    with refusal(r"would be a guess.*preprocessor_config.json"):
        load("someone/network")
    absent = tmp_path / "cache/models--someone--network/.no_exist" / ("0" * 40)
    absent.mkdir(parents=True)
    for file in ("preprocessor_config.json", "processor_config.json"):
        (absent / file).touch()
    with pytest.warns(UserWarning, match="default for beit"):
        assert load("someone/network").preprocessing == model.preprocessing


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        ("{", "would be a guess"),
        ('{"image_mean": [0.5], "image_std": [0.5]}', "normalises 1 channels"),
        ('{"image_processor_type": "NothingImageProcessor"}', "would be a guess"),
        ('{"image_processor_type": "SuperPointImageProcessor", "do_grayscale": true}', "SuperPoint.* more to pixel"),
        ('{"auto_map": {"AutoImageProcessor": "mine.Mine"}, "image_processor_type": "Mine"}', "custom code"),
    ],
)
def test_a_processor_that_cannot_be_followed_is_refused(processor: str, message: str, tmp_path: Path):
    folder = segformer(tmp_path)
    (folder / "preprocessor_config.json").write_text(processor)
    with refusal(message):
        load(folder)


def says_only(network: Any, name: str) -> Any:
    """The network, saying `name` at every pixel."""
    index = network.config.label2id[name]
    head = network.decode_head.classifier if hasattr(network, "decode_head") else network.class_predictor
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()[index] = 5.0
    return network


@pytest.mark.parametrize("kind", ["segformer", "mask2former", "eomt"])
@pytest.mark.parametrize(
    "spelling", [str, str.title, lambda name: name.replace(" ", "_").upper()], ids=["plain", "Title", "UNDER_SCORES"]
)
def test_names_in_another_order_are_trainids(kind: str, spelling: Any, tmp_path: Path):
    names = tuple(map(spelling, ALPHABETICAL))
    network = says_only(tiny(kind, **labels(names)), spelling("road"))
    model = load(save_network(network, tmp_path))
    assert model.classes is CITYSCAPES
    with torch.no_grad():
        assert model(IMAGE).argmax(1).unique().tolist() == [CITYSCAPES.names.index("road")]


def test_every_class_keeps_its_logits(tmp_path: Path):
    network = tiny("segformer", **labels(ALPHABETICAL))
    model = load(save_network(network, tmp_path))
    with torch.no_grad():
        given = network(pixel_values=model.preprocessing.apply(IMAGE)).logits
        found = model.network(model.preprocessing.apply(IMAGE))
    for index, name in enumerate(CITYSCAPES.names):
        assert torch.equal(found[:, index], given[:, ALPHABETICAL.index(name)])


def test_nineteen_other_things_are_not_cityscapes(tmp_path: Path):
    names = tuple(f"organ {letter}" for letter in "abcdefghijklmnopqrs")
    folder = segformer(tmp_path, names)
    model = load(folder)
    assert (model.classes.name, model.classes.names) == ("own", names)
    with refusal(r"none of its classes is one of 'cityscapes': it has organ a, .* 13 more"):
        load(folder, classes=CITYSCAPES)


def test_classes_without_names_are_what_the_caller_says(tmp_path: Path):
    nameless = labels(tuple(f"LABEL_{index}" for index in range(19)))
    folder = save_network(tiny("segformer", **nameless), tmp_path / "19")
    with pytest.warns(UserWarning, match=r"does not name its 19 classes.*classes=cityscapes"):
        assert load(folder).classes.name == "own"
    assert load(folder, classes=CITYSCAPES).classes is CITYSCAPES
    nameless = labels(tuple(f"LABEL_{index}" for index in range(20)))
    folder = save_network(tiny("segformer", **nameless), tmp_path / "20")
    with refusal("20 classes without names, 'cityscapes' has 19"):
        load(folder, classes=CITYSCAPES)


ADE20K = ("wall", "building, edifice", "sky", "tree", "road, route", "bed", "house", "plant", "person, individual")


@pytest.mark.parametrize("kind", ["segformer", "mask2former"])
def test_names_of_ade20k_become_cityscapes_on_request(kind: str, tmp_path: Path):
    network = tiny(kind, **labels(ADE20K))
    folder = save_network(network, tmp_path)
    assert load(folder).classes.names == ADE20K
    with pytest.warns(UserWarning, match=r"never predicts sidewalk, .*; its own bed are left out"):
        model = load(folder, classes=CITYSCAPES)
    own = load(folder)
    with torch.no_grad():
        found, given = model(IMAGE).softmax(1), own(IMAGE).softmax(1)
    assert set(found.argmax(1).unique().tolist()) <= {0, 2, 3, 8, 10, 11}
    # probabilities of what means one class add up; those of bed are shared out
    joined = given[:, [1, 6]].sum(1) / (1 - given[:, 5])
    close = {"rtol": 0.02, "atol": 2e-3} if kind == "segformer" else {}  # it is joined before it is enlarged
    torch.testing.assert_close(found[:, CITYSCAPES.names.index("building")], joined, **close)


@pytest.mark.parametrize(
    ("vistas", "meant"),
    [
        ("Traffic Sign (Front)", "traffic sign"), ("On Rails", "train"), ("Motorcyclist", "rider"),
        ("Lane Marking - General", "road"), ("Utility Pole", "pole"), ("Traffic Light", "traffic light"),
        ("Bird", None), ("Traffic Sign (Back)", None),
    ],
)  # fmt: skip
def test_names_of_mapillary_vistas(vistas: str, meant: str | None):
    from allweather.classes import sources

    found = [name for name, indices in zip(CITYSCAPES.names, sources((vistas,), CITYSCAPES), strict=True) if indices]
    assert found == ([] if meant is None else [meant])


def test_cityscapes_among_more_classes_is_pointed_out(tmp_path: Path):
    names = ("unlabeled", *CITYSCAPES.names, "license plate")
    folder = save_network(says_only(tiny("segformer", **labels(names)), "road"), tmp_path)
    with pytest.warns(UserWarning, match="knows 21 classes, all of 'cityscapes' among them"):
        assert load(folder).classes.names == names
    with pytest.warns(UserWarning, match="its own unlabeled, license plate are left out"):
        model = load(folder, classes=CITYSCAPES)
    with torch.no_grad():
        assert model(IMAGE).argmax(1).unique().tolist() == [0]


@pytest.mark.parametrize("flag", ["do_reduce_labels", "reduce_labels"])
def test_reduced_labels_move_the_names(flag: str, tmp_path: Path):
    """The files' label 0 is not trained, so the first logit is the name that comes second."""
    names = ("background", *CITYSCAPES.names[:-1])
    folder = segformer(tmp_path, names, {flag: True})
    assert load(folder).classes.names == (*CITYSCAPES.names[:-1], "unused")
    segformer(tmp_path, names, {flag: False})
    assert load(folder).classes.names == names


@pytest.mark.parametrize("kind", ["segformer", "upernet", "mobilevit"])
@pytest.mark.parametrize("size", [(96, 128), (101, 151)])
def test_networks_of_any_size_see_the_image_as_it_is(kind: str, size: tuple[int, int], tmp_path: Path):
    network = tiny(kind)
    folder = save_network(network, tmp_path)
    model = load(folder)
    processor = library.AutoImageProcessor.from_pretrained(folder)
    image = IMAGE[..., : size[0], : size[1]]
    with torch.no_grad():
        output = network(pixel_values=model.preprocessing.apply(image))
        logits = model(image)
    enlarged = functional.interpolate(output.logits, size, mode="bilinear")
    torch.testing.assert_close(logits, enlarged, rtol=1e-6, atol=1e-6)
    labels_ = processor.post_process_semantic_segmentation(output, target_sizes=[size])[0]
    assert torch.equal(logits.argmax(1)[0], labels_)


@pytest.mark.parametrize(("kind", "works"), [("dpt", "64x64"), ("data2vec-vision", "64x64")])
def test_sizes_that_an_architecture_refuses(kind: str, works: str, tmp_path: Path):
    model = load(save_network(tiny(kind), tmp_path))
    with torch.no_grad(), refusal(f"takes no image of 160×128.*work: {works}"):
        model(IMAGE.repeat(1, 1, 2, 2)[..., :128, :160])
    with torch.no_grad():
        assert model(IMAGE[..., :64, :64]).shape == (1, 19, 64, 64)


@pytest.mark.parametrize("kind", ["beit", "sapiens2"])
def test_patches_that_do_not_fill_an_image_are_padded(kind: str, tmp_path: Path):
    """A plain vision transformer cuts off what is left over, and its logits would be stretched over the whole."""
    network = tiny(kind)
    model = load(save_network(network, tmp_path))
    image = IMAGE[..., :90, :100]
    padded = functional.pad(image, (0, 12, 0, 6), mode="replicate")
    with torch.no_grad():
        logits = network(pixel_values=model.preprocessing.apply(padded)).logits
        expected = functional.interpolate(logits, (96, 112), mode="bilinear")
        torch.testing.assert_close(model(image), expected[..., :90, :100])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_become_float32(dtype: torch.dtype, tmp_path: Path):
    network = tiny("segformer").to(dtype)
    model = load(save_network(network, tmp_path))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(model.network(IMAGE), network.float()(pixel_values=IMAGE).logits)


@pytest.mark.parametrize("named", [False, True], ids=["folder", "hub name"])
def test_old_repositories_with_pickled_weights_under_old_names(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = tiny("segformer")
    name = str(save_network(network, tmp_path / "folder"))
    (tmp_path / "folder/model.safetensors").unlink()
    old = hub_names(nvlabs_names(network))
    assert not old.keys() <= network.state_dict().keys()
    torch.save(old, tmp_path / "folder/pytorch_model.bin")
    publish = hub(tmp_path / "cache", monkeypatch)
    if named:
        publish("someone/old", tmp_path / "folder")
        name = "someone/old"
    model = load(name)
    assert model.provenance.file == "pytorch_model.bin"
    with torch.no_grad():
        assert torch.equal(model.network(IMAGE), network(pixel_values=IMAGE).logits)


def test_an_encoder_alone_is_refused(tmp_path: Path):
    """The library would go on with a random head."""
    config = tiny("segformer").config
    library.SegformerForImageClassification(config).save_pretrained(tmp_path)
    with refusal(r"missing tensors \(first: decode_head.*its head included"):
        load(tmp_path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a video network": ({"model_type": "videomt"}, "type 'videomt', which is not supported. Supported: beit, .*eomt"),
    "a detector": ({"model_type": "detr"}, "type 'detr', which is not supported"),
    "a text network": ({"model_type": "bert"}, "type 'bert', which is not supported"),
    "an unknown type": ({"model_type": "nothing"}, "cannot load"),
    "code of its own": ({"auto_map": {"AutoConfig": "mine.Mine"}, "model_type": "mine"}, "custom code"),
    "four channels": ({"model_type": "segformer", "num_channels": 4}, "takes images of 4 channels"),
    "no weights": ({"model_type": "segformer"}, "model.safetensors"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_network_of_this_kind_is_named(what: str, tmp_path: Path):
    config, message = REFUSED[what]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with refusal(message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


ELSEWHERE: dict[str, dict[str, Any]] = {  # configurations that name another repository
    "upernet": {"model_type": "upernet", "backbone": "evil/repo", "use_pretrained_backbone": True},
    "upernet, not of timm": {"model_type": "upernet", "backbone": "evil/repo", "use_timm_backbone": False},
    "dpt": {"model_type": "dpt", "backbone": "evil/repo", "is_hybrid": False},
    "mask2former": {"model_type": "mask2former", "backbone": "evil/repo", "backbone_config": None},
    "timm": {"model_type": "upernet", "backbone_config": {"model_type": "timm_backbone", "backbone": "hf-hub:a/b"}},
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_folder_asks_the_hub_for_nothing(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text(json.dumps(ELSEWHERE[what]))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with nothing_is_asked(monkeypatch), refusal("nothing of the hub is fetched for a folder", NetworkError):
        load(tmp_path)


ODD: dict[str, tuple[str, str, str]] = {  # a file of the folder, what stands in it, what is said
    "a list": ("config.json", "[]", "cannot load"),
    "a type of no kind": ("config.json", '{"model_type": []}', "cannot load"),
    "depths in letters": ("config.json", '{"model_type": "segformer", "depths": "x"}', "cannot load .*'depths'"),
    "names in a list": ("config.json", '{"model_type": "segformer", "id2label": [1]}', "cannot load"),
    "nested without end": ("config.json", "[" * 50_000, "cannot load .*recursion"),
    "a processor's list": ("preprocessor_config.json", "[]", "the image processor of"),
    "a processor's type": ("preprocessor_config.json", '{"image_processor_type": 5}', "the image processor of"),
    "a processor without end": ("preprocessor_config.json", "[" * 50_000, "the image processor of"),
    "a mean in letters": ("preprocessor_config.json", '{"image_mean": "abc"}', "the image processor of .*to float"),
    "means of means": ("preprocessor_config.json", '{"image_mean": [[1], [2], [3]]}', "the image processor of"),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_configurations_are_told(what: str, tmp_path: Path):
    file, written, said = ODD[what]
    folder = segformer(tmp_path)
    (folder / file).write_text(written)
    with refusal(said, NetworkError):
        load(folder)


def test_a_network_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hub's client has errors of its own, which are neither OSError nor this package's."""

    class Unreachable(Exception):
        pass

    def asks(*_: object, **__: object):
        raise Unreachable("no route to host")

    hub(tmp_path, monkeypatch)
    monkeypatch.setattr(library.AutoConfig, "from_pretrained", asks)
    with refusal("cannot load 'someone/net': no route to host", NetworkError):
        load("someone/net")


def test_a_hub_name_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub(tmp_path, monkeypatch)
    reasons = {
        "someone/nothing": "couldn't find them in the cached files", "": "no name was given",
        str(tmp_path): "the folder has no config.json", "./nothing": "no such folder", "/no/folder": "no such folder",
    }  # fmt: skip
    hint = "Expected a hub name, or a folder"
    for name, reason in reasons.items():
        with refusal(rf"cannot load '{name}': .*{reason}.*{hint}"):
            load(name)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"1234", "cannot load .*header"),
        ("pytorch_model.bin", b"1234", "pytorch_model.bin"),
        ("pytorch_model.bin", {"a": torch.zeros(1)}, r"missing tensors \(first: decode_head"),
        ("pytorch_model.bin", {"a": len}, "pytorch_model.bin"),
    ],
)
def test_weights_that_are_damaged(file: str, content: Any, message: str, tmp_path: Path):
    folder = segformer(tmp_path)
    (folder / "model.safetensors").unlink()
    if isinstance(content, bytes):
        (folder / file).write_bytes(content)
    else:
        torch.save(content, folder / file)
    with refusal(message):
        load(folder)


def test_a_head_of_another_class_count_is_named(tmp_path: Path):
    folder = segformer(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **labels(("road", "car"))}))
    with refusal(r"2 mismatched tensors \(first: .*bias, \(19,\) in the file, \(2,\)"):
        load(folder)


def test_loading_warns_of_nothing_where_all_is_known(tmp_path: Path):
    folder = segformer(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder, classes=CITYSCAPES)
