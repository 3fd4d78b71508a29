"""Semantic heads: encoder stages -> class logits (B, classes, h, w).

A head names the stages that it reads in `stages`, and its `forward` takes them in that order.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.resize import resize_to


class Head(nn.Module):
    """Made from the channels of its `stages`, and the number of classes."""

    stages: tuple[int, ...] = (4,)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The groups of an optimiser, by name."""
        return {"head": list(self.parameters())}


class DeepLabHead(Head):
    """DeepLab v2: the sum of four dilated 3x3 convolutions (protocol, section 1); logits at stage 4's size."""

    def __init__(self, in_channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(in_channels[0], num_classes, 3, padding=dilation, dilation=dilation)
            for dilation in (6, 12, 18, 24)
        )
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        return sum(branch(features) for branch in self.branches)


class Pyramid(nn.Module):
    """PSPNet's pooled context: per bin, average pool, 1x1 conv, BN, ReLU, resize; concatenated behind the input."""

    def __init__(self, in_channels: int, channels: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(size),
                nn.Conv2d(in_channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
            for size in bins
        )

    def forward(self, features: Tensor) -> Tensor:
        context = [resize_to(level(features), features.shape[-2:]) for level in self.levels]
        return torch.cat([features, *context], dim=1)


class PSPNetHead(Head):
    """PSPNet: pyramid pooling, then a 3x3 and a 1x1 convolution (protocol, section 1); logits at stage 4's size."""

    def __init__(self, in_channels: tuple[int, ...], num_classes: int, hidden: int = 512) -> None:
        super().__init__()
        (channels,) = in_channels
        self.pyramid = Pyramid(channels, channels // 4)
        self.classifier = nn.Sequential(
            nn.Conv2d(channels * 2, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(hidden, num_classes, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.classifier(self.pyramid(features))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"head": list(self.classifier.parameters()), "pyramid": list(self.pyramid.parameters())}


class FCNHead(Head):
    """The sum of 1x1 classifiers on stages 2, 3 and 4, resized to stage 2's size: fine enough for poles and people.

    Input: the three stages, (B, C_i, h_i, w_i); output (B, classes, h_2, w_2), an eighth of the image's sides. Source: the
    skip connections of Long et al., CVPR 2015. Ours, not the reference's.
    """

    stages = (2, 3, 4)

    def __init__(self, in_channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for channels in in_channels)
        for classifier in self.classifiers:
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.zeros_(classifier.bias)

    def forward(self, *stages: Tensor) -> Tensor:
        size = stages[0].shape[-2:]
        return sum(resize_to(classifier(x), size) for classifier, x in zip(self.classifiers, stages))


def build_head(semnet: str, channels: Mapping[int, int], num_classes: int) -> Head:
    """Head by name, one of `models.config.HEADS`; `channels` says how many each encoder stage has."""
    head = {"deeplab": DeepLabHead, "pspnet": PSPNetHead, "fcn": FCNHead}[semnet]
    return head(tuple(channels[stage] for stage in head.stages), num_classes)
