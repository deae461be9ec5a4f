"""A network is handed over with hooks only where they make it predict as the session does."""

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import PICTURE, probabilities, session_of, through
from tiny import CLASSES
from torch import Tensor, nn
from torch.nn import functional

from allweather import Segmenter, apply_delta
from allweather.errors import NetworkError

SHARE = 0.5


class Tokens(nn.Module):
    """One token per patch; BatchNorm of what `normalise` makes of them."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm1d, width: int = 8, patch: int = 8):
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, width, patch, patch), norm(width), nn.Linear(width, 3)

    def normalise(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        tokens = self.normalise(x.flatten(2).transpose(1, 2))
        return self.head(tokens.relu()).transpose(1, 2).reshape(x.shape[0], 3, *x.shape[2:])


class Flattened(Tokens):
    """All tokens as one batch, as LeViT has them."""

    def normalise(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens.flatten(0, 1)).reshape_as(tokens)


class Moving(nn.BatchNorm1d):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


class Activated(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.leaky_relu(x, -1.0))


class Plain(nn.Module):
    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d):
        super().__init__()
        self.stem, self.norm, self.middle = nn.Conv2d(3, 8, 3, 2, 1), norm(8), nn.Conv2d(8, 8, 3, 1, 1)
        self.last, self.head = norm(8), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.middle(self.norm(self.stem(x)).relu())).relu())


class Windows(Plain):
    """Halves of the picture as a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(super().forward(torch.cat(x.chunk(2, 2))).chunk(2), 2)


class Replaced(Plain):
    """A layer whose forward is another function: nothing is mixed in it."""

    def __init__(self):
        super().__init__()
        scaled = types.MethodType(lambda self, x: x * self.weight.view(1, -1, 1, 1), self.last)
        self.last.forward = scaled


class Pooled(Plain):
    """A layer of one row a picture, which a session leaves the source's statistics."""

    def __init__(self):
        super().__init__()
        self.row = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + self.row(logits.mean((2, 3)))[..., None, None]


class OneSize(Plain):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == PICTURE.shape[1:], "one size alone"
        return super().forward(x)


def wrapped(network: nn.Module) -> Segmenter:
    torch.manual_seed(5)
    for name, tensor in network.state_dict().items():
        if "running" in name:
            tensor.copy_(torch.rand_like(tensor) + (0.5 if "var" in name else -0.5))
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn_like(tensor) * tensor[0].numel() ** -0.5)
    return Segmenter.wrap(network.eval(), classes=CLASSES, name="mine")


@pytest.mark.parametrize(("network", "hooked"), [(Flattened, 1), (Replaced, 1), (Pooled, 2), (OneSize, 2), (Plain, 2)])
def test_what_is_handed_over_predicts_as_the_session(network: Any, hooked: int, tmp_path: Path):
    model = wrapped(network())
    session = session_of(model, "norm", share=SHARE)
    handed, expected = session.network(), probabilities(session)
    assert sum(bool(module._forward_pre_hooks) for module in handed.modules()) == hooked
    session.export(tmp_path / "a.delta.safetensors")
    for found in (handed, apply_delta(model.network, tmp_path / "a.delta.safetensors")):
        torch.testing.assert_close(through(found, model), expected, atol=1e-5, rtol=1e-5)


def test_a_graph_mixes_over_the_tokens_of_a_picture_of_any_size(tmp_path: Path):
    session = session_of(wrapped(Flattened()), "norm", share=SHARE)
    session.export(tmp_path / "a.pt2")
    for size in ((24, 32), (80, 48)):
        image = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
        found = torch.export.load(tmp_path / "a.pt2").module()(image[None])[0].log_softmax(0)
        torch.testing.assert_close(found, probabilities(session, image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Windows, r"^norm sees one picture as a batch, 2×8×56×112: .* statistics='stream'"),
        (lambda: Tokens(Moving), r"^Moving: expected an input B×8×… .*, got 1×784×8\. .* statistics='stream'"),
        (lambda: Tokens(Moving, 49, 32), r"^mine: .* otherwise than the session \(.* changes its input .*'stream'"),
        (lambda: Plain(Activated), r"^mine: .* otherwise than the session \(.* changes its input .*'stream'"),
    ],
    ids=["windows", "moved", "as many tokens as channels", "activated"],
)
def test_what_a_hook_cannot_do_is_refused_and_the_stream_is_not(network: Any, said: str, tmp_path: Path):
    session = session_of(wrapped(network()), "norm", count=0, share=SHARE)
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    session(image)
    for hand_over in (session.network, lambda: session.export(tmp_path / "a.delta.safetensors")):
        with pytest.raises(NetworkError, match=said):
            hand_over()
    session.network("stream")
