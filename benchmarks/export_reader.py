"""Loads an exported state dict and predicts with it in plain torch; nothing of allweather is imported.

    python -m benchmarks.export_reader NETWORK FILE.safetensors FRAMES.pt LABELS.pt

NETWORK is a function of this file. FRAMES.pt holds what the network takes, a list of 1×3×H×W; LABELS.pt gets a list of
label maps, H×W at the network's own size.
"""

import json
import sys
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 19


class Own(nn.Module):
    """A network as a user writes it: strided convolutions with BatchNorm, logits at a quarter of the size."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = [(3, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1)]
        self.body = nn.Sequential(*(_block(inputs, outputs, stride) for inputs, outputs, stride in sizes))
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * width, 2 * width, 1), nn.ReLU())
        self.head = nn.Conv2d(2 * width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(x + self.pooled(x))


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def own() -> nn.Module:
    return Own()


def deeplab() -> nn.Module:
    """DeepLabv3+ with MobileNetV2, of segmentation-models-pytorch."""
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=CLASSES)


def segformer() -> nn.Module:
    """SegFormer B0, of transformers."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES))


def load(network: nn.Module, path: str) -> nn.Module:
    """The network with the file's values, and the mixing of statistics that its metadata asks for."""
    with safe_open(path, framework="pt") as file:
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()}, strict=True)  # noqa: SIM118
        shares = json.loads(file.metadata()["allweather"]).get("shares", {})
    for name, share in shares.items():
        network.get_submodule(name).register_forward_pre_hook(_mixing(share))
    return network.eval()


def _mixing(share: float) -> Any:
    def before(layer: Any, inputs: tuple[Tensor, ...]) -> Tensor:
        (x,) = inputs
        if x.shape[2:].numel() == 1:
            return x
        mean, var = layer.running_mean.view(1, -1, 1, 1), layer.running_var.view(1, -1, 1, 1)
        own, spread = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        gain = ((var + layer.eps) / (torch.lerp(var, spread, share) + layer.eps)).sqrt()
        return (x - torch.lerp(mean, own, share)) * gain + mean

    return before


@torch.no_grad()
def labels(network: nn.Module, seen: Tensor) -> Tensor:
    """The class of each pixel of one picture, H×W, logits enlarged where they are smaller."""
    given = network(seen)
    logits = given if isinstance(given, Tensor) else given.logits
    if logits.shape[2:] != seen.shape[2:]:
        logits = functional.interpolate(logits, seen.shape[2:], mode="bilinear")
    return logits[:, :CLASSES].argmax(1)[0]


def main() -> None:
    name, path, frames, out = sys.argv[1:]
    network = load({"own": own, "deeplab": deeplab, "segformer": segformer}[name](), path)
    torch.save([labels(network, seen) for seen in torch.load(frames)], out)
    assert "allweather" not in sys.modules


if __name__ == "__main__":
    main()
