"""Views of an image: what their names mean, what is refused, and the way back onto the image's grid."""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refusal
from tiny import CLASSES, frames, tiny
from torch import Tensor

from allweather import Guard, Session, methods
from allweather.errors import SettingsError
from allweather.methods.settings import parse_settings, settings_of
from allweather.methods.views import Network, View, brightened, parse_views, passes_of, size_told
from allweather.models.segmenter import Segmenter
from allweather.plugins import names_code
from allweather.session import adapted

FREE = Guard(enabled=False)
NAMES = {
    "mirror": View(mirror=True),
    "gamma-mirror": View(mirror=True, gamma=True),
    "source": View(source=True),
    "mirror-x1.5": View(mirror=True, scale=1.5),
    "source-gamma-x0.5": View(source=True, gamma=True, scale=0.5),
    "relit-mirror-x1.5-fit": View(mirror=True, gamma=True, grey=True, scale=1.5, fit=True),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_view(name: str):
    assert parse_views(("plain", name)) == (View(), NAMES[name])
    assert passes_of(parse_views(("plain", name))) == 1 + NAMES[name].scale ** 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("mirror",), "expected plain among them"),
        ((), "expected at least one value, got none"),
        (("plain", "miror"), "Did you mean 'mirror'"),
        (("plain", "mirror", "mirror"), "mirror is named twice"),
        (("plain", "x9"), "a scale of 0.25 to 4 other than 1, got 9"),
        (("plain", "x1"), "other than 1"),
        (("plain", "relit-gamma"), "unknown view 'relit-gamma'"),
        (("plain", "mirror-fit"), "expected one, as in x1.5-fit"),
        (("plain", "mirror-plain"), "unknown view 'mirror-plain'"),
        (("plain", "mirror-mirror"), "unknown view 'mirror-mirror'"),
        (("plain", 3), r"expected (values separated by commas|a tuple of text or functions).*, got \('plain', 3\)"),
    ],
)
def test_what_is_no_list_of_views_is_refused(names: tuple[str, ...], message: str):
    with refusal(message):
        methods.make("norm", settings={"views": names})
    with refusal(message):
        methods.Norm(views=names)


@pytest.mark.parametrize("view", [View(), View(mirror=True), View(scale=2.0), View(mirror=True, scale=0.5)])
def test_a_view_comes_back_onto_the_grid_of_the_image(view: View):
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 16, 32).clone()
    torch.testing.assert_close(view.back(view.of(ramp), (16, 32)), ramp, atol=0.04, rtol=0)


@pytest.mark.parametrize("level", [0.02, 0.2, 0.33, 0.8])
def test_gamma_brings_every_image_to_one_luminance(level: float):
    image = level * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).sqrt()
    weights = torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)
    bright = (weights * brightened(image)).sum(1).mean((1, 2))
    torch.testing.assert_close(bright, torch.full((2,), 0.33), atol=0.01, rtol=0)
    order = image[0].flatten().argsort()
    assert (brightened(image)[0].flatten()[order].diff() >= 0).all(), "brighter pixels stay brighter"


def test_a_scene_that_lamps_light_is_grey_and_every_other_brightened():
    dusk = 0.4 * torch.rand(1, 3, 20, 24)
    by_lamps, warm = (dusk * torch.tensor([1.0, 0.8, part]).view(1, 3, 1, 1) for part in (0.5, 0.8))
    images = torch.cat((by_lamps, warm, (2.4 * by_lamps).clamp(0, 1), torch.zeros_like(dusk)))
    relit = View(gamma=True, grey=True)
    seen = relit.of(images)
    grey = (by_lamps * torch.tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(seen[:1], grey.expand(-1, 3, -1, -1))
    assert torch.equal(seen[1:], brightened(images)[1:]) and torch.equal(relit.of(warm), brightened(warm))
    unlit = View(grey=True).of(images)
    assert torch.equal(unlit[:1], seen[:1]) and torch.equal(unlit[1:], images[1:])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gamma_of_an_image_of_one_value_stays_finite(value: float):
    assert brightened(torch.full((1, 3, 8, 8), value)).isfinite().all()


@pytest.mark.parametrize("name", ["source", "norm", "tent", "cotta", "mall-domain", "diga", "crf"])
def test_a_prediction_is_the_mean_over_its_views(name: str):
    views, model, image = ("plain", "gamma-mirror", "x2", "source-mirror"), tiny("batchnorm"), frames(1)[0]
    unscaled = {"vector_rate": 0.0} if name == "mall-domain" else {}
    session = Session(model, methods.make(name, settings={"views": views, **unscaled}, model=model), guard=FREE)
    session(image)
    network = session._adapted
    one = image[None]
    expected = [network.method.predict(network.model, network.state, one).softmax(1)]
    gamma = brightened(one).flip(3)
    expected.append(network.method.predict(network.model, network.state, gamma).flip(3).softmax(1))
    large = torch.nn.functional.interpolate(one, scale_factor=2, mode="bilinear")
    back = network.method.predict(network.model, network.state, large)
    expected.append(torch.nn.functional.interpolate(back, one.shape[2:], mode="bilinear").softmax(1))
    expected.append(model(one.flip(3)).flip(3).softmax(1))
    found = session.predict(image).softmax(0)
    torch.testing.assert_close(found, torch.stack(expected).mean(0)[0], atol=1e-5, rtol=0)


def test_views_in_one_batch_are_normalised_as_if_alone(monkeypatch: pytest.MonkeyPatch):
    views, image = ("plain", "mirror", "gamma", "x2"), frames(1)[0]

    def predicted() -> Tensor:
        return Session(tiny("batchnorm"), methods.make("norm", settings={"views": views}), guard=FREE)(image).logits

    apart = predicted()
    monkeypatch.setattr(adapted, "ONE_BY_ONE", ())
    seen: list[int] = []
    forward = torch.nn.Conv2d.forward

    def counted(layer: torch.nn.Conv2d, input: Tensor) -> Tensor:
        seen.append(len(input))
        return forward(layer, input)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", counted)
    torch.testing.assert_close(predicted(), apart, atol=1e-5, rtol=1e-5)
    assert 2 in seen  # mirror and gamma; plain is the objective's own


def test_views_stay_apart_where_a_layer_has_no_statistics_but_the_batchs(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8, track_running_stats=False)
    network = torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 3, 1)).eval()
    method, dark = methods.make("source", settings={"views": ("plain", "gamma")}), 0.1 * frames(1)[0]
    found = []
    for kinds in (("cpu",), ()):
        monkeypatch.setattr(adapted, "ONE_BY_ONE", kinds)
        found.append(Session(Segmenter.wrap(network, classes=CLASSES), method).predict(dark))
    torch.testing.assert_close(*found)


class Unsure(torch.nn.Module):
    """Sure of narrow pictures and not of wide ones, and of neither where they are dark."""

    def forward(self, x: Tensor) -> Tensor:
        sure = 1.0 if x.shape[3] > 50 else 9.0
        return torch.where(x.mean((1, 2, 3), keepdim=True) > 0.3, sure * x, x)


def test_a_view_that_is_to_fit_is_unscaled_for_images_of_which_the_network_is_less_sure_enlarged():
    stripes = torch.eye(3)[torch.arange(32) // 4 % 3].T[:, None].repeat(1, 24, 1)
    bright, dark = stripes, 0.1 * stripes
    model, asked = Segmenter.wrap(Unsure(), classes=CLASSES), []
    model.network.register_forward_pre_hook(lambda _, given: asked.append(tuple(given[0].shape[2:])))

    def predicted(*images: Tensor, views: str) -> Tensor:
        method = methods.make("source", settings={"views": f"plain,{views}"})
        return Session(model, method).predict(torch.stack(images))

    both, large, small = (predicted(bright, dark, views=f"mirror{end}") for end in ("-x2-fit", "-x2", ""))
    assert torch.equal(both, torch.stack([small[0], large[1]])) and not torch.allclose(small[0], large[0])
    asked.clear()
    assert torch.equal(predicted(dark, views="mirror-x2-fit")[0], large[1])
    assert asked == [(24, 32), (48, 64)]  # nothing to compare with where the larger view is as sure


class Learning(Unsure):
    """The same with something to learn, and surer of wide pictures."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(30 * x if x.shape[3] > 50 else super().forward(x))


def test_the_surest_view_is_chosen_where_the_network_learns_and_looked_at_alone_between(tmp_path: Path):
    image = torch.eye(3)[torch.arange(32) // 4 % 3].T[:, None].repeat(1, 24, 1)
    settings = {"views": "plain,x2", "surest": True, "adapt_every": 3, "episodic": False, "lr": 0.0, "share": 0.0}
    model, asked = Segmenter.wrap(Learning().eval(), classes=CLASSES), []
    session = Session(model, methods.make("tent", settings=settings), guard=FREE)
    session.model.network.register_forward_pre_hook(lambda _, given: asked.append(given[0].shape[3]))
    unknown = session.predict(image)
    assert asked == [32, 64] and torch.equal(session(image).logits, unknown)
    asked.clear()
    assert torch.equal(session(0.1 * image).logits, session.predict(0.1 * image)) and asked == [64, 64]
    session.save(tmp_path / "a.session")
    loaded = Session(model, methods.make("tent", settings=settings), guard=FREE)
    loaded.load(tmp_path / "a.session")
    assert torch.equal(loaded.predict(image), session.predict(image))
    session.reset()
    for seen in ([32, 64], [64]):
        asked.clear()
        session.predict(image)
        assert asked == seen
        session.adapt(image)
    assert not methods.make("mall-domain", "fast", {"views": "plain"}).surest  # the preset's, of its own views
    for views in ("plain", "plain,x2-fit"):
        with refusal(r"surest=true chooses among several views.*plain,grey-x1\.2", SettingsError):
            methods.make("tent", settings={"views": views, "surest": True})


def turned(network, images):  # type: ignore[no-untyped-def]
    return network(images.flip(2)).flip(2)


def lost(network, images):  # type: ignore[no-untyped-def]
    return network(images)[:, :, 1:]


@dataclass
class Twofold:  # which compares, and so has no hash
    times: float = 2.0

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        return self.times * network(images)


@pytest.mark.parametrize("view", [partial(Twofold.__call__, Twofold()), Twofold()])
def test_a_view_of_ones_own_may_be_any_callable(view: Any, tmp_path: Path):
    session = Session(tiny("batchnorm"), methods.MallDomain(views=("plain", view)))
    session(frames(1)[0])
    session.save(tmp_path / "a.session")
    session.export(tmp_path / "a.safetensors")
    assert f"{__name__}:Twofold" in session.settings()["method"]["views"][1]
    with refusal(r"got .*Twofold", SettingsError):
        methods.MallDomain(views=(view,))


def test_a_view_of_ones_own_is_a_function(tmp_path: Path):
    (tmp_path / "own.py").write_text("def turned(network, images):\n    return network(images.flip(2)).flip(2)\n")
    image, model = frames(1)[0], tiny("batchnorm")
    direct = Session(model, methods.Norm(views=("plain", turned)), guard=FREE)(image).logits
    named = methods.make("norm", settings={"views": f"plain,{tmp_path}/own.py:turned"})
    assert torch.equal(Session(model, named, guard=FREE)(image).logits, direct)
    plain = Session(model, methods.Norm(), guard=FREE)(image).logits
    assert not torch.allclose(direct, plain)
    assert settings_of(methods.Norm(views=("plain", turned)))["views"] == ["plain", "test_methods_views:turned"]
    with refusal("logits B×C×H×W on the images' own grid"):
        Session(model, methods.Norm(views=("plain", lost)), guard=FREE)(image)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("own.py:turned", True),
        ("plain, dir/own.py:turned ,mirror", True),
        (("plain", "own.py:turned"), True),
        ([["os.path:join"]], True),
        ("not_here:turned", True),
        ("plain,gamma-mirror,x1.5", False),
        (("plain", turned), False),
        ("C:\\frames", False),
        (0.5, False),
        (None, False),
    ],
)
def test_values_that_name_code_are_known_without_running_it(value: object, code: bool):
    assert names_code(value) is code


class OneSize(torch.nn.Module):
    """A network with a weight for every place, as of position embeddings; it may say so itself."""

    def __init__(self, asserts: bool = False):
        super().__init__()
        self.asserts = asserts
        self.places = torch.nn.Parameter(torch.zeros(3, 24, 32))
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        assert not self.asserts or x.shape[2:] == self.places.shape[1:], "input size does not match"
        return self.norm(x) + self.places


def test_default_views_of_a_network_without_batchnorm_may_be_refused_too():
    model = Segmenter.wrap(OneSize().eval(), classes=CLASSES)
    model.network.norm = torch.nn.GroupNorm(1, 3)
    session = Session(model, "mall-sample", guard=FREE)
    assert session.method.views == ("plain", "relit-mirror-x1.5-fit")
    with pytest.warns(UserWarning, match="taken at the images' own size"):
        assert session(frames(1)[0]).logits.isfinite().all()


@pytest.mark.parametrize("name", ["mall-sample", "mall-domain"])
@pytest.mark.parametrize("preset", ["recommended", "best"])
@pytest.mark.parametrize("asserts", [False, True])
def test_a_network_of_one_size_gets_the_default_views_at_that_size(name: str, preset: str, asserts: bool):
    model, images = Segmenter.wrap(OneSize(asserts).eval(), classes=CLASSES), frames(3)
    session = Session(model, methods.make(name, preset, model=model), guard=FREE)
    with pytest.warns(UserWarning, match=r"at x1\.5, 48x36 .* taken at the images' own size") as told:
        first = session(images[0])
    assert len(told) == (1 if preset == "recommended" else 2)  # of its scaled views
    wanted = methods.make(name, settings={"views": "plain,relit-mirror"}, model=model)
    other = Session(model, wanted, guard=FREE)
    torch.testing.assert_close(first.logits, other(images[0]).logits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        for image in images[1:]:
            torch.testing.assert_close(session(image).logits, other(image).logits)


def test_whatever_a_network_of_one_size_raises_is_told():
    for fault in (IndexError, KeyError, type("Own", (Exception,), {})):
        told = pytest.raises(SettingsError, match=r"views: the network does not take .* x2, 4x4 .*; leave it")
        with told, size_told(torch.rand(1, 3, 4, 4), 2.0, "views", "leave it"):
            raise fault("no such size")


class Narrow(torch.nn.Module):
    """Takes no picture wider than 50."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[3] > 50:
            raise ValueError("at most 50 wide")
        return self.norm(x)


class Hungry(Narrow):
    """Has no memory for wide pictures."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[3] > 50:
            raise torch.OutOfMemoryError("out of memory")
        return self.norm(x)


def test_a_view_that_memory_is_too_small_for_is_not_left_out_without_a_word():
    session = Session(Segmenter.wrap(Hungry().eval(), classes=CLASSES), "mall-domain", guard=FREE)
    with pytest.raises(torch.OutOfMemoryError):
        session.predict(torch.rand(3, 24, 40))
    assert not session._adapted._looks._refused


@pytest.mark.filterwarnings("ignore:views")
def test_a_view_that_is_refused_at_one_size_is_taken_at_another():
    model = Segmenter.wrap(Narrow().eval(), classes=CLASSES)
    small, large = frames(1)[0], torch.rand(3, 24, 40)
    alone, after = (Session(model, methods.make("mall-domain", model=model), guard=FREE) for _ in range(2))
    plain = Session(
        model, methods.make("mall-domain", settings={"views": "plain,gamma-mirror"}, model=model), guard=FREE
    )
    assert torch.equal(after.predict(large), plain.predict(large))
    assert torch.equal(after.predict(small), alone.predict(small))
    assert not alone._adapted._looks._refused and len(after._adapted._looks._refused) == 1


@pytest.mark.parametrize("asserts", [False, True])
@pytest.mark.parametrize(
    ("name", "settings", "said", "mended"),
    [
        (
            "mall-domain",
            {"views": "plain,x2"},
            r"^views: .* at x2, 64x48 .*views=plain,r",
            {"views": "plain"},
        ),
        (
            "mall-domain",
            {"adapt_scale": 0.5},
            r"^adapt_scale.* at x0\.5, 16x12 .*; adapt_scale=1",
            {"views": "plain"},
        ),
        ("cotta", {}, r"^scales: .* at x0\.75, 24x18 .*; scales=1\.0 ", {"scales": (1.0,)}),
        ("self-adaptive", {}, r"^scales: .* at x0\.75, 24x18 .*; scales=1\.0 ", {"scales": (1.0,)}),
    ],
)
def test_a_scale_that_a_network_refuses_is_an_error_that_names_the_option(
    name: str, settings: dict[str, Any], said: str, mended: dict[str, Any], asserts: bool
):
    model, image = Segmenter.wrap(OneSize(asserts).eval(), classes=CLASSES), frames(1)[0]
    with refusal(said, SettingsError):
        Session(model, methods.make(name, settings=settings, model=model), guard=FREE)(image)
    assert Session(model, methods.make(name, settings=mended, model=model), guard=FREE)(image).logits.isfinite().all()


def test_mirror_is_an_old_word_for_two_views():
    assert parse_settings(methods.Tent, {"mirror": "true"}) == {"views": ("plain", "mirror")}
    assert parse_settings(methods.Tent, {"mirror": False}) == {"views": ("plain",)}
    with refusal("mirror is an old word"):
        parse_settings(methods.Tent, {"mirror": True, "views": "plain"})
