"""A network with parts that have names, for tests of checkpoints."""

import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 3, 1)


def small(seed: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in Small().state_dict().items()
    }
