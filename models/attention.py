"""Multi-scale attention: where in the picture to look."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.resize import resize_to


class MultiScaleAttention(nn.Module):
    """Three unpadded convolutions of growing size on stage 3, merged into one positive, unbounded map.

    Input (B, C, h, w) with h, w >= 7; output (B, 1, h - 2, w - 2). Source: protocol, section 1.
    """

    def __init__(self, in_channels: int, channels: int = 64, kernels: tuple[int, ...] = (3, 5, 7)) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, channels, kernel) for kernel in kernels)
        self.merge = nn.Conv2d(channels * len(kernels), 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        maps = [F.relu(conv(features)) for conv in self.convs]
        size = maps[0].shape[-2:]
        return F.softplus(self.merge(torch.cat([resize_to(m, size) for m in maps], dim=1)))


class UniformAttention(nn.Module):
    """No preference: a map of ones in the shape of `MultiScaleAttention`'s, without parameters."""

    def forward(self, features: Tensor) -> Tensor:
        batch, _, height, width = features.shape
        return features.new_ones(batch, 1, height - 2, width - 2)
