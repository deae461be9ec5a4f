"""Sessions on disk, copied and pickled: whole, of the same weights and settings, or refused with nothing changed."""

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from refusals import refusal
from safetensors.torch import save_file
from tiny import CLASSES, COPIES, Remembers, equal, frames, other_weights, read_file, tiny
from torch import Tensor, nn

from allweather import apply_delta, methods
from allweather.classes import ClassSet
from allweather.errors import CheckpointError
from allweather.methods.option import option
from allweather.methods.tent import Tent
from allweather.models.segmenter import AdaptationFacts, Preprocessing, Segmenter, Window
from allweather.scale.fleet import merge
from allweather.session import Guard, Session, Shift
from allweather.session.saved import open_saved
from allweather.session.storage import save_session

Tensors = dict[str, Tensor]


def session_of(**options: Any) -> Session:
    return Session(tiny(), methods.MallDomain(lr=1e-3), **options)


def saved(path: Path, **options: Any) -> Path:
    session = session_of(**options)
    for image in frames(3):
        session(image)
    session.save(path)
    return path


def handed_on(make: Callable[[], Session], count: int, folder: Path) -> tuple[Session, Session]:
    """A session that has adapted to so many frames, and another that goes on from its file."""
    one, other = make(), make()
    for image in frames(count):
        one(image)
    one.save(folder / "a.session")
    other.load(folder / "a.session")
    return one, other


def everything(session: Session) -> Tensors:
    optimizer = session._adapted.optimizer
    assert optimizer is not None
    state = {f"{i}.{k}": torch.as_tensor(v) for i, e in optimizer.state_dict()["state"].items() for k, v in e.items()}
    counters = {name: tensor.clone() for name, tensor in session._counters().items()}
    return {**{k: v.clone() for k, v in session.model.state_dict().items()}, **state, **counters}


def without(name: str) -> Callable[[Tensors], None]:
    def damage(tensors: Tensors):
        del tensors[name]

    return damage


DAMAGES: dict[str, Callable[[Tensors], None]] = {
    "no count of updates": without("counters.updates"),
    "no guard": without("counters.guard.counts"),
    "no thumbnail": without("counters.guard.thumbnail"),
    "no random state": without("counters.random"),
    "a short random state": lambda t: t.update({"counters.random": t["counters.random"][:9]}),
    "a NaN parameter": lambda t: t.update({"parameters.stem.1.weight": torch.full((8,), float("nan"))}),
    "an integer parameter": lambda t: t.update({"parameters.stem.1.weight": torch.ones(8, dtype=torch.int64)}),
    "a parameter of another shape": lambda t: t.update({"parameters.stem.1.weight": torch.ones(9)}),
    "no parameter": without("parameters.stem.1.weight"),
    "an optimizer of another shape": lambda t: t.update({"optimizer.0.exp_avg": torch.ones(3)}),
    "an optimizer without its average": without("optimizer.0.exp_avg"),
    "a strange optimizer entry": lambda t: t.update({"optimizer.x.y": torch.ones(8)}),
    "a parameter changed a little": lambda t: t.update({"parameters.stem.1.weight": torch.ones(8) + 1e-3}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_and_changes_nothing(damage: str, tmp_path: Path):
    tensors, metadata = read_file(saved(tmp_path / "a.safetensors"))
    DAMAGES[damage](tensors)
    save_file(tensors, tmp_path / "b.safetensors", metadata)
    session = session_of()
    session(frames(1)[0])
    before = everything(session)
    with refusal(r"b\.safetensors", CheckpointError):
        session.load(tmp_path / "b.safetensors")
    assert equal(everything(session), before)
    session(frames(1)[0])


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"network": 3}', "null", "[" * 100_000, "9" * 5000])
def test_unreadable_settings_are_refused(text: str, tmp_path: Path):
    tensors, metadata = read_file(saved(tmp_path / "a.safetensors"))
    save_file(tensors, tmp_path / "b.safetensors", metadata | {"allweather.session": text})
    with refusal(r"b\.safetensors is damaged", CheckpointError):
        session_of().load(tmp_path / "b.safetensors")


@pytest.mark.parametrize("what", ["counters.updates", "counters.random", "counters.guard.counts", "optimizer.0.step"])
def test_a_file_of_another_version_is_refused_by_what_it_lacks(what: str, tmp_path: Path):
    """Its digest is right: it is whole, but not what this version writes."""
    tensors, metadata = read_file(saved(tmp_path / "a.safetensors"))
    del tensors[what]
    save_session(tmp_path / "b.safetensors", tensors, json.loads(metadata["allweather.session"]))
    session = session_of()
    before = everything(session)
    with pytest.raises(CheckpointError):
        session.load(tmp_path / "b.safetensors")
    assert equal(everything(session), before)


def test_a_session_of_other_weights_is_refused_by_their_digest(tmp_path: Path):
    path = saved(tmp_path / "a.safetensors")
    with refusal("was saved with weights=", CheckpointError):
        Session(other_weights(), methods.MallDomain(lr=1e-3)).load(path)


class Twice(nn.Module):
    """Has its stem under two names."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.layers = nn.ModuleList([self.stem, nn.Conv2d(8, 3, 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("fields", [{}, {"parameters": "all"}, {"bn": "running"}], ids=str)
def test_a_module_under_two_names_is_one_source(fields: dict[str, Any], tmp_path: Path):
    torch.manual_seed(0)
    network = Twice().eval()
    model = Segmenter.wrap(network, classes=CLASSES)
    one, other = handed_on(lambda: Session(model, methods.MallDomain(**fields), guard=False), 3, tmp_path)
    image = frames(1, seed=1)[0]
    assert torch.equal(one.predict(image), other.predict(image))
    assert not torch.equal(one.predict(image), Session(model, one.method).predict(image))
    one.export(tmp_path / "a.delta.safetensors")
    apply_delta(network, tmp_path / "a.delta.safetensors")


def test_a_saved_session_goes_on_bit_for_bit_in_another_order_of_memory(tmp_path: Path):
    method = methods.MallDomain(parameters="all", lr=1e-2)
    one, other = handed_on(lambda: Session(tiny(), method, guard=False, channels_last=True), 3, tmp_path)
    moments = [each._adapted.optimizer.state_dict()["state"] for each in (one, other)]  # type: ignore[union-attr]
    for index, entries in moments[0].items():
        assert all(value.stride() == moments[1][index][key].stride() for key, value in entries.items())
    for image in frames(4, seed=1):
        assert torch.equal(one(image).logits, other(image).logits)


@dataclass(frozen=True, kw_only=True)
class Grouped(Tent):
    name: ClassVar[str] = "grouped"
    parameters: str = "all"
    episodic: bool = False
    shapes: ClassVar[bool] = False

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.shapes:  # moments that have not their parameters' shapes
            return torch.optim.Adafactor(parameters, lr=self.lr)
        matrices, vectors = ([p for p in parameters if (p.ndim > 1) == wide] for wide in (True, False))
        return torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=self.lr)


@pytest.mark.parametrize("shapes", [False, True])
def test_a_session_with_an_optimizer_of_ones_own_goes_on_bit_for_bit(
    shapes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Grouped, "shapes", shapes)
    one, other = handed_on(lambda: Session(tiny(), Grouped(), guard=False), 2, tmp_path)
    for image in frames(2, seed=1):
        assert torch.equal(one(image).logits, other(image).logits)


def test_of_another_method_the_method_is_named(tmp_path: Path):
    path = saved(tmp_path / "a.safetensors")
    with refusal("was saved with name=mall-domain, this session has name=tent", CheckpointError):
        Session(tiny(), methods.Tent(episodic=False)).load(path)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"guard": Guard(max_drift=0.3)}, "guard.max_drift=0.2"),
        ({"guard": False}, "guard.enabled=True"),
        ({"precision": "bf16"}, "precision=float32"),
        ({"seed": 4}, "seed=0"),
        ({"adapt_when": "shift"}, "adapt_when=always"),
    ],
)
def test_a_session_with_other_settings_is_refused_by_name(options: Any, word: str, tmp_path: Path):
    with refusal(f"was saved with {word}", CheckpointError):
        session_of(**options).load(saved(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"preprocessing": Preprocessing(std=(0.25, 0.25, 0.25))}, "preprocessing.std"),
        ({"preprocessing": Preprocessing(bgr=True)}, "preprocessing.bgr=False"),
        ({"preprocessing": Preprocessing(size_multiple=8)}, "preprocessing.size_multiple=1"),
        ({"classes": ClassSet("other", ("c", "b", "a"), CLASSES.colors)}, "classes=a, b, c"),
        ({"probabilities": True}, "probabilities=False"),
        ({"window": Window(16, 8)}, "window=None"),
        ({"facts": AdaptationFacts(bn_share=0.5)}, "bn_share=0.05"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_same_weights_under_another_meaning_are_refused(changed: Any, word: str, tmp_path: Path):
    path = saved(tmp_path / "a.safetensors")
    model = tiny()
    for name, value in changed.items():
        setattr(model, name, value)
    with refusal(f"was saved with {word}", CheckpointError):
        Session(model, methods.MallDomain(lr=1e-3)).load(path)
    with refusal(f"was saved with {word}", CheckpointError):
        open_saved(path, model)


class Heads(nn.Module):
    """A network with an auxiliary head."""

    def __init__(self):
        super().__init__()
        self.body, self.other = tiny().network, nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.body(x)
        return {"out": logits, "aux": self.other(logits)}


def main_head(returned: dict[str, Tensor]) -> Tensor:
    return returned["out"]


def other_head(returned: dict[str, Tensor]) -> Tensor:
    return returned["aux"]


def head(name: str, returned: dict[str, Tensor]) -> Tensor:
    return returned[name]


@pytest.mark.parametrize(
    ("output", "other"),
    [(None, "aux"), ("out", "aux"), (main_head, other_head), (partial(head, "out"), partial(head, "aux")),
     (itemgetter("out"), itemgetter("aux"))],
    ids=["default", "key", "function", "partial", "itemgetter"],
)  # fmt: skip
def test_a_session_of_another_output_of_the_network_is_refused(output: Any, other: Any, tmp_path: Path):
    network, paths = Heads().eval(), [tmp_path / "a.session", tmp_path / "b.session", tmp_path / "older.session"]
    sessions = [
        Session(Segmenter.wrap(network, classes=CLASSES, name="heads", output=which), "mall-domain")
        for which in (output, other)
    ]
    for session, path in zip(sessions, paths, strict=False):
        session(frames(1)[0])
        session.save(path)
    sessions[0].load(paths[0])
    with refusal(r"saved with network\.output=.*this session has network\.output=", CheckpointError):
        sessions[1].load(paths[0])
    with refusal(r"is of network\.output=", CheckpointError):
        merge(paths[:2], tmp_path / "merged.session")
    tensors, metadata = read_file(paths[0])
    about = json.loads(metadata["allweather.session"])
    del about["network.output"], about["surest"]  # of before there were these
    save_session(paths[2], tensors, about)
    sessions[0].load(paths[2])
    sessions[1].load(paths[2])
    one_view = Session(sessions[0].model, methods.make("mall-domain", settings={"views": "plain,x1.5", "surest": True}))
    with refusal("was saved with", CheckpointError):
        one_view.load(paths[2])


@dataclass(frozen=True, kw_only=True)
class Windowed(Tent):
    name: ClassVar[str] = "windowed"
    window: int = option(8, "frames that it looks back", low=1)


def test_a_field_named_as_a_networks_fact_hides_neither(tmp_path: Path):
    model, cut = tiny(), tiny()
    cut.window = Window(48, 24)
    Session(model, Windowed()).save(tmp_path / "s.safetensors")
    Session(model, Windowed()).load(tmp_path / "s.safetensors")
    with refusal(r"method\.window=8, this session has method\.window=9", CheckpointError):
        Session(model, Windowed(window=9)).load(tmp_path / "s.safetensors")
    with refusal("saved with window=None", CheckpointError):
        Session(cut, Windowed()).load(tmp_path / "s.safetensors")


def test_shift_detection_with_another_threshold_is_refused_by_name(tmp_path: Path):
    path = saved(tmp_path / "a.safetensors", adapt_when="shift")
    with refusal(r"shift\.threshold", CheckpointError):
        session_of(adapt_when="shift", shift=Shift(threshold=0.9)).load(path)


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved(tmp_path / "a.safetensors")
    before = path.read_bytes()

    def cut(tensors: Tensors, target: Path, metadata: dict[str, str]):
        target.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr("allweather.session.storage.save_file", cut)
    with refusal("no space left"):
        session_of().save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


class Counting(nn.Module):
    """A network that keeps a moving average and a count of its calls, whatever mode it is in, and replaces a buffer."""

    average: Tensor
    calls: Tensor
    last: Tensor

    def __init__(self):
        super().__init__()
        self.body = tiny().network
        self.register_buffer("average", torch.zeros(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        self.average.lerp_(logits.detach().mean((0, 2, 3)), 0.1)
        self.calls += 1
        self.last = logits.detach().mean((0, 2, 3))[:1] + self.last
        return logits + self.average.view(1, 3, 1, 1) + self.last


def counting() -> Segmenter:
    return Segmenter.wrap(Counting(), classes=tiny().classes, name="counting")


@pytest.mark.parametrize("name", ["source", "norm", "tent", "mall-sample", "mall-domain", "cotta"])
def test_buffers_that_a_network_moves_itself_come_back(name: str, tmp_path: Path):
    model, images = counting(), frames(4)
    session = Session(model, methods.make(name), guard=False)
    first = [session(image).logits for image in images]
    kept = session.predict(images[0])
    assert torch.equal(kept, session.predict(images[0])), "predict moves nothing"
    if session.method.episodic:
        again = Session(model, methods.make(name), guard=False)
        assert torch.equal(again(images[3]).logits, first[3]), "each image is on its own"
    session.save(tmp_path / "a.safetensors")
    resumed = Session(model, methods.make(name), guard=False)
    resumed.load(tmp_path / "a.safetensors")
    assert torch.equal(resumed(images[1]).logits, session(images[1]).logits)
    session.reset()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in session.model.state_dict().items())
    assert all(torch.equal(session(image).logits, before) for image, before in zip(images, first, strict=True))


@pytest.mark.parametrize("name", ["tent", "mall-domain", "cotta", "rotta", "diga", "eta"])
@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_goes_on_as_the_original(name: str, copied: Callable[[Session], Session]):
    images = frames(6)
    session = Session(tiny(), methods.make(name, settings={"bn": "running"}))
    for image in images[:3]:
        session(image)
    other = copied(session)
    expected = [session(image) for image in images[3:]]
    found = [other(image) for image in images[3:]]
    for one, two in zip(expected, found, strict=True):
        assert torch.equal(one.logits, two.logits) and one.decision == two.decision
    other.reset()
    session.reset()
    assert torch.equal(session(images[0]).logits, other(images[0]).logits)


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_knows_which_buffers_have_moved(copied: Callable[[Session], Session]):
    method = methods.Tent(episodic=False)
    session = Session(Segmenter.wrap(Remembers().eval(), classes=CLASSES), method, guard=False)
    images = frames(2)
    session(images[0])
    other = copied(session)
    for one in (session, other):
        one.reset()
        assert not one.model.network.seen.any()  # type: ignore[operator,union-attr]
    assert torch.equal(session(images[1]).logits, other(images[1]).logits)


def test_a_compiled_session_says_why_it_cannot_be_copied():
    session = session_of(compile=True)
    with refusal(r"compiled session cannot be copied or pickled\. Use save and load"):
        pickle.dumps(session)


def test_a_hook_that_copies_what_is_saved_hides_no_source(tmp_path: Path):
    def copying(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any):
        state.update({name: value.detach().clone() for name, value in state.items()})

    model = tiny()
    model.network._register_state_dict_hook(copying)
    one, other = handed_on(lambda: Session(model, "mall-domain", guard=False), 2, tmp_path)
    assert torch.equal(one.predict(frames(1)[0]), other.predict(frames(1)[0]))


class Versioned(nn.Conv2d):
    """Has what is no tensor in its state dict, as quantized layers have too."""

    extra: ClassVar[Any]

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any):
        assert state == self.extra


@pytest.mark.parametrize("extra", [{"version": 1}, (torch.ones(1), None), torch.qint8, None], ids=str)
def test_what_is_no_tensor_in_a_state_dict_stays_with_the_network(
    extra: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Versioned, "extra", extra, raising=False)
    network = nn.Sequential(Versioned(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1)).eval()
    model = Segmenter.wrap(network, classes=CLASSES)
    method = methods.MallDomain(views=("plain",), vector_rate=0.0)
    session, other = handed_on(lambda: Session(model, method, guard=False), 1, tmp_path)
    image = frames(1)
    expected = session.predict(image)
    assert torch.equal(other.predict(image), expected)
    session.export(tmp_path / "a.delta.safetensors")
    for handed in (session.network(), apply_delta(copy.deepcopy(network), tmp_path / "a.delta.safetensors")):
        assert handed[0].get_extra_state() == extra
        torch.testing.assert_close(Segmenter.wrap(handed, classes=CLASSES)(frames(1)), expected, atol=1e-5, rtol=1e-5)
    with refusal(r"holds 0\._extra_state, which is no tensor.* Write NAME\.delta\.safe"):
        session.export(tmp_path / "a.safetensors")
