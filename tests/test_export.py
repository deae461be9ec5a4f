"""The network handed back: the user's own class and keys, in ordinary layers, predicting as the session does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import PICTURE, probabilities, read_about, session_of, through
from PIL import Image
from refusals import refusal
from safetensors.torch import load_file, save_file
from tiny import CLASSES, Remembers, equal_in, frames, other_weights, read_file, tiny
from torch import Tensor, nn

from allweather import CITYSCAPES, Segmenter, Session, apply_delta, load_stream, methods
from allweather.errors import CheckpointError, NetworkError, SettingsError
from allweather.methods.moments import Seen
from allweather.models.digest import digest
from allweather.models.segmenter import Window
from allweather.session.averages import MEMORY
from allweather.session.guard.policy import Objection

Tensors = dict[str, Tensor]
EXPORTED = ("source", "norm", "tent", "mall-domain", "cotta", "rotta")


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    return tmp_path / "a.delta.safetensors"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("norm", ["batchnorm", "layernorm"])
@pytest.mark.parametrize("name", EXPORTED)
def test_the_network_is_the_users_own_and_predicts_as_the_session(name: str, norm: str):
    if (name, norm) == ("norm", "layernorm"):
        pytest.skip("norm refuses networks without BatchNorm")
    model = tiny(norm)
    session = session_of(model, name)
    expected, network = probabilities(session), session.network()
    assert [type(module) for module in network.modules()] == [type(module) for module in model.network.modules()]
    assert list(network.state_dict()) == list(model.network.state_dict()) and not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    torch.testing.assert_close(through(network, model), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(probabilities(session), expected), "the session goes on as if nothing had been asked"
    if name != "source":
        assert not torch.allclose(expected, through(model.network, model), atol=1e-4)


def test_layers_that_a_session_computes_at_less_cost_are_pytorchs_again():
    layers = nn.Conv2d(3, 6, 3), nn.PReLU(6), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.Conv2d(6, 19, 1)
    model = Segmenter.wrap(nn.Sequential(*layers), classes=CITYSCAPES)
    session = session_of(model)
    assert [type(module) for module in session.network().modules()] == [
        type(module) for module in model.network.modules()
    ]


def test_of_a_batch_each_image_has_its_own_statistics():
    network = session_of(tiny()).network()
    images = torch.cat([frames(1, seed=9), frames(1, seed=10) * 0.2])
    together = network(images)
    torch.testing.assert_close(together, torch.cat([network(image[None]) for image in images]), atol=1e-5, rtol=1e-5)


def test_stream_writes_the_mean_of_the_layers_moments_into_ordinary_buffers():
    model = tiny()
    session = session_of(model, "norm", share=0.3)
    network = session.network("stream")
    assert not any(module._forward_pre_hooks for module in network.modules())
    first = model.network.stem[0](model.preprocessing.apply(frames(4)))  # what the first BatchNorm sees
    layer = model.network.stem[1]
    expected = 0.7 * layer.running_mean + 0.3 * first.mean((0, 2, 3))
    torch.testing.assert_close(network.stem[1].running_mean, expected)
    expected = 0.7 * layer.running_var + 0.3 * first.var((2, 3), correction=0).mean(0)
    torch.testing.assert_close(network.stem[1].running_var, expected)
    pooled = network.pooled[2], model.network.pooled[2]
    assert torch.equal(pooled[0].running_mean, pooled[1].running_mean), "one value per channel has no variance"


@pytest.mark.parametrize("name", ["rotta", "cotta", "memo", "sar", "augco", "self-adaptive"])
def test_averages_are_of_the_frames_alone(name: str):
    more = {"lr": 0.0} | ({"every": 2, "side": 8} if name == "rotta" else {})
    of_frames = session_of(tiny("batchnorm"), "norm", count=3)._averages
    found = session_of(tiny("batchnorm"), name, count=3, **more)._averages
    assert found.count == 3
    for one, other in zip(of_frames.values()["stem.1"], found.values()["stem.1"], strict=True):
        torch.testing.assert_close(one, other)


def test_averages_leave_out_what_the_guard_refused(monkeypatch: pytest.MonkeyPatch):
    session = session_of(tiny(), count=2)
    with monkeypatch.context() as patch:
        harm = Objection("harm", session.predict(PICTURE)[None])
        patch.setattr(session._policy, "judge", lambda *given: harm)
        patch.setattr(session._policy, "accepts", lambda *given: False)
        assert session(PICTURE).decision.kind == "rolled-back"
    assert session._averages.count == 2
    assert session(PICTURE).decision.kind == "accepted"
    assert session._averages.count == 3


def test_averages_forget_beyond_their_memory():
    session = session_of(tiny(), "norm", count=0)
    averages = session._averages
    layer = next(iter(averages.layers.values()))
    for value in [*[0.0] * MEMORY, *[1.0] * MEMORY]:
        layer.seen = (Seen(torch.full((8,), value), torch.ones(8), 1),)
        averages.take()
    (mean, _), *_ = averages.values().values()
    assert 0.6 < float(mean[0]) < 0.65  # 1 − (1 − 1/100)^100
    session.reset()
    assert averages.count == 0 and not averages.values()


def test_all_windows_that_slide_over_an_image_count():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)).eval()
    model = Segmenter.wrap(network, classes=CLASSES, mean=(0,) * 3, std=(1,) * 3)
    model.window = Window(16, 16)
    picture = torch.rand(3, 32, 48)
    picture[:, 16:, 32:] *= 0.1  # the last window is unlike the first
    session = Session(model, methods.Norm(share=1.0))
    session(picture)
    layer = session.network("stream")[0]
    torch.testing.assert_close(layer.running_mean, picture.mean((1, 2)))
    torch.testing.assert_close(layer.running_var, picture.var((1, 2), correction=0))


def test_frames_given_stand_in_for_the_stream():
    model = tiny()
    seen, unseen = session_of(model, "norm"), session_of(model, "norm", count=0)
    with refusal(r"no statistics of a stream .*frames=…, --frames FOLDER", SettingsError):
        unseen.network("stream")
    given = unseen.network("stream", frames=list(frames(4)))
    for one, other in zip(given.buffers(), seen.network("stream").buffers(), strict=True):
        torch.testing.assert_close(one, other)
    assert unseen._averages.count == 0


def test_frames_are_of_every_kind_that_a_stream_is(tmp_path: Path):
    for index, frame in enumerate(frames(3)):
        Image.fromarray((frame * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    stream, session = load_stream("folder", tmp_path), session_of(tiny(), "norm")
    expected = session.network(frames=[frame.image for frame in stream]).state_dict()
    for given in (stream, sorted(tmp_path.glob("*.png"))):
        assert equal_in(session.network(frames=given).state_dict(), expected)


def test_frames_that_nothing_is_learnt_from_are_left_out():
    session = session_of(tiny(), count=0)
    good, constant = list(frames(3)), torch.full_like(PICTURE, 0.5)
    broken = PICTURE.clone()
    broken[0, 0, 0] = float("nan")
    wanted = session.network("stream", good).state_dict()
    found = session.network("stream", [broken, *good, constant]).state_dict()
    assert equal_in(found, wanted)
    with refusal(r"at least one picture .* finite and not constant", SettingsError):
        session.network("stream", [broken])


def test_frames_mean_the_stream_and_are_refused_beside_the_image(delta: Path):
    session = session_of(tiny(), count=0)
    wanted = session.network("stream", list(frames(3))).state_dict()
    found = session.network(frames=list(frames(3)))
    assert equal_in(found.state_dict(), wanted)
    assert not any(module._forward_pre_hooks for module in found.modules())
    session.export(delta, frames=list(frames(3)))
    assert read_about(delta)["statistics"] == "stream"
    with refusal("frames: only statistics='stream' averages over pictures", SettingsError):
        session.network("image", list(frames(3)))


def test_a_frame_that_cannot_be_read_leaves_the_networks_own_buffers():
    session = Session(Segmenter.wrap(Remembers().eval(), classes=CLASSES), "norm")
    session(PICTURE)
    before = session.model.network.seen.clone()
    with refusal(r"no/such\.png"):
        session.network("stream", frames=[frames(1)[0], "no/such.png"])
    assert torch.equal(session.model.network.seen, before)


class Wide(Remembers):
    """Its buffer grows to the picture's width."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.linspace(-1, 1, x.shape[3])
        return self.head(self.norm(x) + self.seen)


def test_a_buffer_that_passes_give_another_shape_is_exported_as_it_came(path: Path):
    session = Session(Segmenter.wrap(Wide().eval(), classes=CLASSES), "norm")
    session(PICTURE)
    session.export(path)
    other = Wide()
    other.load_state_dict(load_file(path))
    assert torch.equal(other.seen, torch.zeros(3))


@pytest.mark.parametrize("given", [[], (), iter(())], ids=["list", "tuple", "iterator"])
def test_frames_that_are_none_are_said(tmp_path: Path, path: Path, given: Any):
    session = Session(tiny(), "mall-domain", guard=False)
    session(frames(1)[0])
    with refusal("mall-domain, frames: expected at least one picture", SettingsError):
        session.export(path, frames=given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bn", ["running", "source", "batch"])
def test_other_statistics_are_those_of_the_session(bn: str):
    model = tiny()
    session = session_of(model, "mall-domain", bn=bn)
    torch.testing.assert_close(through(session.network(), model), probabilities(session), atol=1e-5, rtol=1e-5)
    if bn != "batch":
        assert not any(module._forward_pre_hooks for module in session.network().modules())


def test_averages_survive_saving_and_older_files_have_none(tmp_path: Path, path: Path):
    from allweather.session.storage import save_session

    session = session_of(tiny())
    session.save(path)
    again = session_of(tiny(), count=0)
    again.load(path)
    expected = session.network("stream").state_dict()
    assert equal_in(again.network("stream").state_dict(), expected)
    tensors = {name: t for name, t in load_file(path).items() if "statistics" not in name}
    save_session(tmp_path / "b.safetensors", tensors, again._identity())
    again.load(tmp_path / "b.safetensors")
    assert again._averages.count == 0
    tensors["counters.statistics.count"] = torch.tensor(1)
    tensors["counters.statistics.mean.stem.1"] = torch.ones(3)
    save_session(tmp_path / "c.safetensors", tensors, again._identity())
    with refusal(r"expected counters\.statistics\.mean\.stem\.1", CheckpointError):
        again.load(tmp_path / "c.safetensors")


class Frozen(nn.Module):
    """A BatchNorm of a class of its own, whose affine part are buffers."""

    def __init__(self, features: int):
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((features,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale.view(1, -1, 1, 1) + (self.bias - self.running_mean * scale).view(1, -1, 1, 1)


def test_layers_of_a_class_of_ones_own_come_back_as_they_were():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), Frozen(8), nn.ReLU(), nn.Conv2d(8, 3, 1)).eval()
    model = Segmenter.wrap(layers, classes=CLASSES)
    session = session_of(model)
    network = session.network()
    assert type(network[1]) is Frozen and "weight" in dict(network[1].named_buffers())
    assert list(network.state_dict()) == list(layers.state_dict())
    assert not torch.equal(network[1].weight, layers[1].weight)
    torch.testing.assert_close(through(network, model), probabilities(session), atol=1e-5, rtol=1e-5)


LOADER = """
import sys
import torch
from torch import nn
from safetensors.torch import load_file
sys.path.insert(0, sys.argv[1])
torch.manual_seed(1)
network = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)).eval()
network.load_state_dict(load_file(sys.argv[2]), strict=True)
torch.save(network(torch.load(sys.argv[3])), sys.argv[4])
assert "allweather" not in sys.modules
"""


@pytest.mark.slow
def test_a_state_dict_is_loaded_by_a_script_without_this_package(tmp_path: Path):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)).eval()
    model = Segmenter.wrap(layers, classes=CLASSES, mean=(0, 0, 0), std=(1, 1, 1))
    session = session_of(model)
    session.export(tmp_path / "new/adapted.safetensors")
    torch.save(PICTURE[None], tmp_path / "in.pt")
    paths = [tmp_path, tmp_path / "new/adapted.safetensors", tmp_path / "in.pt", tmp_path / "out.pt"]
    subprocess.run([sys.executable, "-c", LOADER, *map(str, paths)], check=True)
    expected = session.network("stream")(PICTURE[None])
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), expected)
    about = read_about(tmp_path / "new/adapted.safetensors")
    assert about["statistics"] == "stream" and about["expects"]["mean"] == [0, 0, 0]
    assert about["record"] == {"updates": 4, "batches averaged": 4}
    session.export(tmp_path / "image.safetensors", statistics="image")
    assert read_about(tmp_path / "image.safetensors")["shares"] == {"1": 0.05}


@pytest.mark.parametrize("statistics", ["image", "stream"])
def test_a_delta_makes_the_adapted_network_of_its_base(statistics: Any, delta: Path):
    model = tiny()
    session = session_of(model)
    session.export(delta, statistics=statistics)
    network = tiny().network
    assert apply_delta(network, delta) is network
    torch.testing.assert_close(through(network, model), through(session.network(statistics), model))
    moved = {name for name in load_file(delta) if "running" not in name}
    affine = {"stem.1.weight", "stem.1.bias", "head.1.weight", "head.1.bias", "pooled.2.weight", "pooled.2.bias"}
    assert moved and moved <= affine
    apply_delta(half := tiny().network.double(), delta)  # another precision of the same values
    assert half.stem[1].weight.dtype == torch.float64
    with refusal("a network that has had a delta is another one", CheckpointError):
        apply_delta(network, delta)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda: other_weights().network, "was made from tiny-batchnorm with weights of sha256"),
        (lambda: nn.Conv2d(3, 3, 1), "belongs to tiny-batchnorm: Conv2d has no"),
    ],
)
def test_a_delta_of_another_base_is_refused_and_changes_nothing(network: Any, said: str, delta: Path):
    session_of(tiny()).export(delta)
    other = network()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with refusal(said, CheckpointError):
        apply_delta(other, delta)
    assert equal_in(other.state_dict(), before)
    assert not any(module._forward_pre_hooks for module in other.modules())


def with_share(layer: str, share: Any) -> Callable[[Tensors, dict[str, Any]], Any]:
    return lambda tensors, about: about | {"shares": {"stem.1": 0.3, layer: share}}


def with_values(change: Callable[[Tensor], Tensor]) -> Callable[[Tensors, dict[str, Any]], Any]:
    """A delta whose first tensor is another."""

    def changed(tensors: Tensors, about: dict[str, Any]) -> Any:
        name = min(tensors)
        tensors[name] = change(tensors[name])
        return about

    return changed


DAMAGED: dict[str, Callable[[Tensors, dict[str, Any]], Any]] = {
    "NaN": with_values(lambda tensor: torch.full_like(tensor, float("nan"))),
    "infinite": with_values(lambda tensor: tensor.double() / 0),
    "eight bits": with_values(lambda tensor: tensor.to(torch.float8_e4m3fn)),
    "complex": with_values(lambda tensor: tensor.to(torch.complex64)),
    "whole numbers": with_values(lambda tensor: tensor.to(torch.int64)),
    "share 5": with_share("stem.1", 5.0),
    "share NaN": with_share("stem.1", float("nan")),
    "share below 0": with_share("stem.1", -1),
    "share true": with_share("stem.1", True),
    "share of text": with_share("stem.1", "x"),
    "share in a list": with_share("stem.1", [0.5]),
    "share of the network": with_share("", 0.5),
    "share of no layer": with_share("nowhere", 0.5),
    "share of a convolution": with_share("stem.0", 0.5),
    "shares in a list": lambda tensors, about: about | {"shares": ["stem.1"]},
    "no network": lambda tensors, about: {"base": about["base"]},
    "no base": lambda tensors, about: {"network": about["network"]},
    "a number for the base": lambda tensors, about: about | {"base": 5},
    "nothing": lambda tensors, about: None,
    "no JSON": lambda tensors, about: "{",
    "a list": lambda tensors, about: [],
    "deep": lambda tensors, about: "[" * 100_000,
    "deep settings": lambda tensors, about: about | {"settings": json.loads("[" * 30 + "]" * 30)},
    "digits": lambda tensors, about: '{"base": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_delta_is_checked_whole_before_the_network_changes(damage: str, delta: Path):
    session_of(tiny()).export(delta, statistics="image")
    tensors, metadata = read_file(delta)
    about = DAMAGED[damage](tensors, json.loads(metadata.pop("allweather")))
    told = {} if about is None else {"allweather": about if isinstance(about, str) else json.dumps(about)}
    save_file(tensors, delta, metadata | told | {"allweather.digest": digest(tensors)})
    network = tiny().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with refusal(r"a\.delta\.safetensors", CheckpointError):
        apply_delta(network, delta)
    assert equal_in(network.state_dict(), before)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_what_is_no_delta_is_refused(tmp_path: Path, delta: Path):
    session = session_of(tiny())
    session.export(delta)
    tensors, metadata = read_file(delta)
    save_file({name: value + 1 for name, value in tensors.items()}, delta, metadata)
    with refusal("is damaged", CheckpointError):
        apply_delta(tiny().network, delta)
    session.export(tmp_path / "b.safetensors")
    with refusal(r"no delta.*load_state_dict", CheckpointError):
        apply_delta(tiny().network, tmp_path / "b.safetensors")
    with refusal("cannot read a delta", CheckpointError):
        apply_delta(tiny().network, tmp_path / "none.delta.safetensors")
    with refusal(r"expected a torch\.nn\.Module, got str", NetworkError):
        apply_delta("net", delta)


@pytest.mark.parametrize("name", ["diga", "crf"])
def test_a_method_that_predicts_with_more_than_its_network_is_refused_by_name(name: str, tmp_path: Path, path: Path):
    session = session_of(tiny(), name)
    with refusal(f"{name} predicts with more than its network", SettingsError):
        session.export(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tent", "mall-sample"])
def test_a_method_that_forgets_what_it_learns_is_refused_by_name(name: str):
    session = Session(tiny(), methods.make(name))
    with refusal(f"{name} returns to the source network .*episodic=false", SettingsError):
        session.network()


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("a.trt", {}, r"expected one of NAME\.delta\.safetensors .*NAME\.onnx"),
        ("a", {}, "expected one of"),
        (".onnx", {}, "expected one of"),
        ("a.safetensors", {"size": (32, 24)}, "only a graph"),
        ("a.pt2", {"opset": 18}, r"only \.onnx has an opset"),
        ("a.onnx", {"opset": 9}, "opset: expected 18 to 23, got 9"),
        ("a.safetensors", {"statistics": "steam"}, "unknown statistics 'steam'. Did you mean 'stream'"),
        ("file/a.safetensors", {}, "cannot write .*file/a.safetensors"),
        ("folder.safetensors", {}, "it is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    path: str, options: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    session = session_of(tiny())
    with refusal(said):
        session.export(tmp_path / path, **options)
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["file", "folder.safetensors"]


def test_statistics_are_not_mixed_in_twice(delta: Path):
    model = tiny()
    session = session_of(model, "norm")
    session.export(delta)
    network = apply_delta(tiny().network, delta)
    hooks = [len(module._forward_pre_hooks) for module in network.modules()]
    with refusal(r"a\.delta\.safetensors would mix .* in twice: stem\.1 has a hook.*afresh", NetworkError):
        apply_delta(network, delta)
    assert [len(module._forward_pre_hooks) for module in network.modules()] == hooks
    mixing = Segmenter(network, classes=CLASSES, preprocessing=model.preprocessing)
    with refusal(r"tent would mix .* Take Session\.network\(statistics='stream'\)", NetworkError):
        Session(mixing, "tent")
    assert Session(mixing, "source").predict(PICTURE).shape == session.predict(PICTURE).shape
    Session(Segmenter(session.network("stream"), classes=CLASSES), "tent")


@pytest.mark.parametrize("within", [False, True])
def test_a_delta_finds_the_network_within_data_parallelism(within: bool, delta: Path):
    model = tiny()
    session = session_of(model)
    session.export(delta)
    if within:
        other = tiny()
        other.network = nn.DataParallel(other.network)
        apply_delta(other, delta)
        network = other.network.module
    else:
        network = apply_delta(nn.DataParallel(tiny().network), delta).module
    torch.testing.assert_close(through(network, model), through(session.network(), model))


@pytest.mark.parametrize("by", ["network", "delta"])
def test_statistics_are_mixed_in_where_the_network_was_compiled_before(by: str, delta: Path):
    model = tiny()
    session, image = session_of(model), model.preprocessing.apply(PICTURE[None])
    compiled = torch.compile(model.network, backend="eager")
    with torch.no_grad():
        source = compiled(image)
        if by == "network":
            mixed = torch.compile(session.network(), backend="eager")(image)
        else:
            session.export(delta)
            mixed = apply_delta(compiled, delta)(image)
        torch.testing.assert_close(mixed, session.network()(image), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(mixed, source, atol=1e-3)


@pytest.mark.parametrize(
    ("wrapper", "inner"), [(nn.DataParallel, "module"), (lambda n: torch.compile(n, backend="eager"), "_orig_mod")]
)
def test_a_state_dict_is_of_the_network_that_another_wraps(wrapper: Any, inner: str, path: Path):
    wrapped = wrapper(tiny().network)
    session = session_of(Segmenter.wrap(wrapped, classes=CLASSES))
    session.export(path)
    getattr(wrapped, inner).load_state_dict(load_file(path), strict=True)
