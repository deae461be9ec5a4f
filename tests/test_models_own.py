"""Networks of one's own in Python: what a factory may give, whose weights it has, and every wrong thing instead."""

import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from refusals import refusal
from safetensors.torch import load_file, save_model
from tiny import equal_in
from torch import nn

import allweather as aw
from allweather import AllWeatherError, CheckpointError, NetworkError, SettingsError, methods
from allweather.data.datasets import find_dataset
from allweather.methods.tent import Tent
from allweather.models.catalogue import convert

SOURCE = """
from enum import Enum
from pathlib import Path
from typing import Literal
import torch
from torch import nn
import allweather as aw

class Kind(Enum):
    small = 4
    large = 8

class Net(nn.Sequential):
    def __init__(self, width: int = 4, classes: int = 19, *, deep: bool = False):
        super().__init__(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1))
        self.deep = deep

def fixed():
    torch.manual_seed(3)
    return Net()

def segmenter(kind: Kind = Kind.small):
    return aw.Segmenter.wrap(Net(kind.value, 11), classes=aw.CAMVID11, mean=(0.1, 0.2, 0.3), std=(1.0,) * 3)

def arguments(path: Path, mode: Literal["a", "b"], scale: float | None = None, sides: tuple[int, int] = (1, 2), n=3):
    net = Net()
    net.given = (path, mode, scale, sides, n)
    return net

def nothing(): pass
def a_class(): return Net
def fails(): return [][1]
def bare(width): return Net(width)
def anything(**options): return Net()
"""


@pytest.fixture
def nets(tmp_path: Path) -> str:
    (tmp_path / "mynets.py").write_text(SOURCE)
    return f"{tmp_path}/mynets.py"


def random(name: str, **options: Any) -> aw.Segmenter:
    with pytest.warns(UserWarning, match="randomly initialised"):
        return aw.load_model(name, **options)


def saved(network: nn.Module, path: Path) -> Path:
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, path)
    return path


def test_a_class_with_a_checkpoint_and_its_own_normalisation(nets: str, tmp_path: Path):
    given = {"width": "6", "deep": "true"}
    with pytest.warns(UserWarning, match=r"mynets\.py:Net is randomly initialised"):
        first = aw.load_model(f"{nets}:Net", arguments=given)
    path = saved(first.network, tmp_path / "w.pth")
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.2, 0.1)
    model = aw.load_model(f"{nets}:Net", path, arguments=given, mean=mean, std=std)
    assert model.name == "mynets.py:Net" and not model.training and model.network.deep is True
    assert model.provenance.file == "w.pth" and model.provenance.prefix == "module."
    image = torch.rand(1, 3, 8, 8)
    seen = (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    assert torch.allclose(model(image), model.network(seen), atol=1e-6)
    with refusal("is not a checkpoint of mynets", CheckpointError):
        aw.load_model(f"{nets}:Net", saved(nn.Conv2d(3, 19, 1), tmp_path / "other.pth"))
    torch.save({"a": print}, tmp_path / "code.pth")
    with refusal("refused", CheckpointError):
        aw.load_model(f"{nets}:Net", tmp_path / "code.pth")


def test_a_conversion_holds_the_tensors_that_were_loaded(nets: str, tmp_path: Path):
    """Not those of the largest mapping in the file, as a discriminator trained beside it."""
    network = aw.load_model(f"{nets}:fixed").network
    state = {key: value.half() if key == "0.weight" else value for key, value in network.state_dict().items()}
    other = {f"conv{index}.weight": torch.zeros(1) for index in range(40)}
    torch.save({"netD": other, "netG": state}, tmp_path / "both.pth")
    provenance = convert(f"{nets}:fixed", tmp_path / "both.pth", tmp_path / "one.safetensors")
    assert provenance.nesting == "netG"
    written = load_file(tmp_path / "one.safetensors")
    assert written.keys() == state.keys() and written["0.weight"].dtype == torch.float16
    assert equal_in(state, written)
    aw.load_model(f"{nets}:fixed", tmp_path / "one.safetensors")


def test_weights_that_a_factory_loads_are_known_by_their_digest(nets: str):
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, two = aw.load_model(f"{nets}:fixed"), aw.load_model(f"{nets}:fixed")
    assert one.provenance == two.provenance and len(one.provenance.sha256) == 64
    torch.set_rng_state(state)
    model = random(f"{nets}:Net")
    assert model.provenance is None


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_means_are_numbers_of_any_kind(nets: str, kind: Any):
    mean, std = [0.25, 0.5, 0.75], [0.5, 0.25, 0.125]
    found = aw.load_model(f"{nets}:fixed", mean=kind(mean), std=kind(std)).preprocessing
    assert (found.mean, found.std) == (tuple(mean), tuple(std))
    for name, said in (("segmenter", "gives a Segmenter"), ("demo", "takes no arguments, mean or std")):
        with refusal(said, SettingsError):
            aw.load_model("demo:streetnet" if name == "demo" else f"{nets}:{name}", mean=kind(mean))


@pytest.mark.parametrize(("given", "missing"), [("mean", "std"), ("std", "mean")])
@pytest.mark.parametrize("value_range", [1, 255])
def test_a_mean_is_not_completed_by_anothers_deviation(given: str, missing: str, value_range: int):
    numbers: Any = {given: (0.5 * value_range,) * 3}
    with refusal(f"got {given} without {missing}: expected both, or neither", SettingsError):
        aw.Segmenter.wrap(torch.nn.Conv2d(3, 19, 1), value_range=value_range, **numbers)


@pytest.mark.parametrize("given", [{"mean": []}, {"std": ()}, {"mean": np.ones(2)}, {"mean": 0.5}], ids=str)
def test_means_that_are_none_are_refused(nets: str, given: dict[str, Any]):
    with refusal(r"(mean|std): expected (3|three) numbers", SettingsError):
        aw.load_model(f"{nets}:fixed", **given)
    with refusal("takes no arguments, mean or std", SettingsError):
        aw.load_model("demo:streetnet", **given)


def test_a_device_s_random_numbers_go_on(nets: str, monkeypatch: pytest.MonkeyPatch):
    """What the network is made of a second time for is drawn on the CPU; a user's seed of the device stays."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(7)
    before, own = list(seeded), torch.default_generator.initial_seed()
    random(f"{nets}:Net")
    assert seeded == before and torch.default_generator.initial_seed() == own


@pytest.mark.parametrize("seed", [-1, 2**64 - 1])
def test_random_weights_are_told_whatever_the_seed(nets: str, seed: int):
    torch.manual_seed(seed)
    random(f"{nets}:Net")


def test_a_segmenter_says_everything_itself(nets: str):
    model = random(f"{nets}:segmenter", arguments={"kind": "large"})
    assert (
        model.classes is aw.CAMVID11
        and model.preprocessing.mean == (0.1, 0.2, 0.3)
        and model.network[0].out_channels == 8
    )
    with refusal("gives a Segmenter, which has its own classes, mean and std", SettingsError):
        aw.load_model(f"{nets}:segmenter", mean=(0.5, 0.5, 0.5))


def test_arguments_are_of_the_signature_s_types(nets: str):
    given: dict[str, Any] = {"path": "a/b", "mode": "b", "scale": "none", "sides": "3, 4", "n": 7}
    model = random(f"{nets}:arguments", arguments=given)
    assert model.network.given == (Path("a/b"), "b", None, (3, 4), 7)


@pytest.mark.parametrize(
    ("name", "given", "error", "said"),
    [
        ("arguments", {}, SettingsError, "needs path (path), mode (a|b)"),
        ("arguments", {"path": "x", "mode": "c"}, SettingsError, "mode: expected a|b, got 'c'"),
        (
            "arguments",
            {"path": "x", "mode": "a", "sides": "3"},
            SettingsError,
            "expected 2 integers separated by commas",
        ),
        ("Net", {"deep": "perhaps"}, SettingsError, "deep: expected true|false, got 'perhaps'"),
        ("Net", {"width": "__import__('os')"}, SettingsError, "width: expected integer"),
        ("anything", {"width": 3}, SettingsError, "unknown argument of mynets.py:anything 'width'"),
        ("bare", {"width": 3}, SettingsError, "does not say what width is"),
        ("nothing", {}, NetworkError, "expected a torch.nn.Module that gives logits, or a Segmenter; got NoneType"),
        ("a_class", {}, NetworkError, "got the class Net; call it"),
        ("fails", {}, NetworkError, "line 32: IndexError: list index out of range"),
    ],
)
def test_what_a_factory_cannot_do_is_said(
    nets: str, name: str, given: dict[str, Any], error: type[AllWeatherError], said: str
):
    with pytest.raises(error) as caught:
        aw.load_model(f"{nets}:{name}", arguments=given)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:", "line 1: SyntaxError"),
        ("import nothing_of_that_name", "line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("x = 1\nraise RuntimeError('no GPU')", "line 2: RuntimeError: no GPU"),
    ],
)
def test_a_file_that_does_not_run_says_where(tmp_path: Path, text: str, said: str):
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(NetworkError) as caught:
        aw.load_model(f"{tmp_path}/a.py:build")
    assert said in str(caught.value)


def test_a_file_runs_once_until_it_changes_and_says_so(
    nets: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for _ in range(2):
        aw.load_model(f"{nets}:fixed")
    assert caplog.messages == [f"running {nets}, your own code"]
    then = Path(nets).stat().st_mtime_ns
    Path(nets).write_text(SOURCE.replace("manual_seed(3)", "manual_seed(4)"))
    os.utime(nets, ns=(then, then))  # as an editor is quick: of the same length and time
    changed = aw.load_model(f"{nets}:fixed")
    assert len(caplog.messages) == 2
    torch.manual_seed(4)
    assert torch.equal(changed.network[0].weight, nn.Conv2d(3, 4, 1).weight)


def test_a_module_that_can_be_imported_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "ourlab").mkdir()
    (tmp_path / "ourlab/nets.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    assert aw.load_model("ourlab.nets:fixed").name == "ourlab.nets:fixed"
    assert caplog.messages == ["running ourlab.nets, your own code"]
    with refusal(r"No module named 'ourlab\.net'", NetworkError):
        aw.load_model("ourlab.net:fixed")


@dataclass(frozen=True, kw_only=True)
class Nameless(Tent):
    """Has TENT's name."""


@dataclass(frozen=True, kw_only=True)
class Taken(Tent):
    """Says TENT's name again."""

    name: ClassVar[str] = "tent"


class Unmarked(Tent):
    """Is no dataclass of its own."""

    name: ClassVar[str] = "unmarked"


WRONG: list[tuple[Any, Any, str]] = [
    (aw.load_model, nn.Conv2d(3, 19, 1), "got the network Conv2d. Wrap it: aw.Segmenter.wrap(network"),
    (aw.load_model, nn.Conv2d, "got the class Conv2d. Make one and wrap it: aw.Segmenter.wrap(Conv2d(…)"),
    (aw.load_model, aw.Segmenter.wrap(nn.Conv2d(3, 19, 1)), "is a Segmenter already: aw.Session(model, …) takes it"),
    (aw.load_model, Path("w.pth"), "A checkpoint goes beside it: load_model('espnetv2:2.0', weights=PATH)"),
    (aw.load_model, "espnetv2:2", "Did you mean 'espnetv2:2.0'"),
    (methods.make, Tent, "got the class Tent. Make one and use it: aw.Session(model, Tent(…))"),
    (methods.make, Tent(), "Tent(…) is a method already: aw.Session(model, method) takes it"),
    (methods.make, None, "takes a name such as 'mall-domain', got NoneType"),
    (methods.make, "mall_domain", "Did you mean 'mall-domain'"),
    (methods.make, f"{__name__}:Nameless", 'name: ClassVar[str] = "my-tent"'),
    (methods.make, f"{__name__}:Taken", "records need a name that no other method has"),
    (methods.make, f"{__name__}:Unmarked", "write @dataclass(frozen=True, kw_only=True) above the class Unmarked"),
    (methods.make, "torch.nn:Conv2d", "expected a subclass of allweather.methods.Method"),
    (find_dataset, "torch.nn:ReLU", "expected an allweather.data.datasets.Dataset, or what makes one, got ReLU()"),
]


@pytest.mark.parametrize(
    ("call", "given", "said"), WRONG, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_the_wrong_thing_gets_the_call_that_works(call: Any, given: Any, said: str):
    with pytest.raises(AllWeatherError) as caught:
        call(given)
    assert said in str(caught.value)


def test_a_file_never_runs_with_the_helper_of_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = "from torch import nn\nfrom helper_blocks import make\n\ndef build():\n    return make()\n"
    helper = "from torch import nn\n\ndef make():\n    return nn.Conv2d(3, {}, 1)\n"
    for folder, width in (("first", 19), ("second", 19)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(text)
        (tmp_path / folder / "helper_blocks.py").write_text(helper.format(width))
    aw.load_model(f"{tmp_path}/first/net.py:build")
    with refusal(r"net\.py imports helper_blocks, which lies beside it as .*second.*, and ", SettingsError):
        aw.load_model(f"{tmp_path}/second/net.py:build")
    monkeypatch.delitem(sys.modules, "helper_blocks")
    monkeypatch.syspath_prepend(str(tmp_path / "first"))  # as the current folder is
    with refusal(r"first/helper_blocks\.py would be imported in its place\. Rename one", SettingsError):
        aw.load_model(f"{tmp_path}/second/net.py:build")
    assert aw.load_model(f"{tmp_path}/first/net.py:build")


TYPED = """
from __future__ import annotations
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional
import numpy as np
from torch import eye, nn as torch_nn
if TYPE_CHECKING:
    from torch import nn

class Kind(Enum):
    small = 4

def build(
    width: int = 4, checkpoint: Optional[Path] = Path("best.pth"), stages: list[str] | None = None, kind: Kind = None,
    table: dict | None = None, count: Annotated[int, "many"] = 3, mixed: Path | int = 1, other: nn.Module = None,
    window=(512, 1024), rates=[6, 12], anything: Any = None,
) -> nn.Module:
    given = dict(locals())
    net = torch_nn.Conv2d(3, 19, 1)
    net.given = given
    return net

class Typed(torch_nn.Conv2d):
    def __init__(self, kind: Kind):
        super().__init__(3, 19, 1)
        self.register_buffer("near", eye(2).to_sparse())
class Child(Typed): pass
part = partial(Child)

def odd(sides=(1, "a")): return build()
def array(table=np.ones(2)): return build(table={"held": table})
def lazy(): return torch_nn.LazyConv2d(19, 1)

class Extra(torch_nn.Conv2d):
    def get_extra_state(self): return {"version": 1}
    def set_extra_state(self, state): pass

def extra(): return Extra(3, 19, 1)

class Tied(torch_nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch_nn.Conv2d(3, 19, 1), torch_nn.Conv2d(3, 19, 1)
        self.b.weight = self.a.weight
        self.register_buffer("mask", torch_nn.Transformer.generate_square_subsequent_mask(4))
    def forward(self, images): return self.a(images) + self.b(images)
"""


@pytest.fixture
def typed(tmp_path: Path) -> str:
    (tmp_path / "typed.py").write_text(TYPED)
    return f"{tmp_path}/typed.py"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("checkpoint", "none", None), ("checkpoint", "a.pth", Path("a.pth")), ("stages", "none", None),
        ("stages", "a,b", ["a", "b"]), ("mixed", "3", 3), ("count", "9007199254740993", 9007199254740993),
        ("window", "256,512", (256, 512)), ("rates", [3, 6], [3, 6]), ("rates", "3,6", [3, 6]),
        ("table", {"a": 1}, {"a": 1}), ("anything", 5, 5), ("width", 2**70, 2**70),
    ],
)  # fmt: skip
def test_values_are_what_annotations_and_defaults_say(typed: str, name: str, value: Any, expected: Any):
    given = aw.load_model(f"{typed}:build", arguments={name: value}).network.given[name]
    assert given == expected and type(given) is type(expected)


def test_a_default_that_is_an_array_says_its_type(typed: str):
    given = np.zeros(2)
    assert aw.load_model(f"{typed}:array", arguments={"table": given}).network.given["table"]["held"] is given


def test_an_enum_s_member_is_one(typed: str):
    model = aw.load_model(f"{typed}:build", arguments={"kind": "small"})
    kind = model.network.given["kind"]
    assert aw.load_model(f"{typed}:build", arguments={"kind": kind}).network.given["kind"] is kind
    assert aw.load_model(f"{typed}:part", arguments={"kind": "small"})


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("build", {"other": "x"}, r"the annotation of other, nn\.Module, cannot be read .*Import what it names"),
        ("build", {"anything": "x"}, "expected"),
        ("odd", {"sides": "1,2"}, r"does not say what sides is\. Annotate it, such as sides: tuple\[int, \.\.\.\]"),
        ("lazy", {}, "whose weight has no shape yet. Call the network once on an image"),
    ],
)
def test_annotations_and_networks_that_cannot_be_used_are_named(
    typed: str, name: str, arguments: dict[str, Any], said: str
):
    with refusal(said):
        aw.load_model(f"{typed}:{name}", arguments=arguments)


def test_state_of_a_module_s_own_kind_is_the_factory_s(typed: str, tmp_path: Path):
    model = aw.load_model(f"{typed}:extra")
    torch.save({"weight": torch.zeros(19, 3, 1, 1), "bias": torch.zeros(19)}, tmp_path / "w.pth")
    with refusal("_extra_state is dict, no tensor, and a checkpoint is data", NetworkError):
        aw.load_model(f"{typed}:extra", weights=tmp_path / "w.pth")
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 19, 8, 8)


def test_shared_tensors_under_one_name_and_masks_of_infinity_load(typed: str, tmp_path: Path):
    source = aw.load_model(f"{typed}:Tied").network
    save_model(source, str(tmp_path / "tied.safetensors"))
    assert len(load_file(tmp_path / "tied.safetensors")) == len(source.state_dict()) - 1
    loaded = aw.load_model(f"{typed}:Tied", weights=tmp_path / "tied.safetensors").network
    assert equal_in(source.state_dict(), loaded.state_dict())
    broken = source.state_dict()
    broken["mask"] = torch.full((4, 4), -torch.inf)
    torch.save(broken, tmp_path / "broken.pth")
    with refusal("mask holds NaN or infinite values", CheckpointError):
        aw.load_model(f"{typed}:Tied", weights=tmp_path / "broken.pth")


def test_one_class_is_no_choice():
    with refusal("expected logits of two classes at least, got 'yard' of 1", NetworkError):
        aw.Segmenter.wrap(nn.Conv2d(3, 1, 1), classes=aw.ClassSet("yard", ("track",)))
