"""Domain adaptation: a discriminator tells source from target by their class probabilities; its gradient is reversed."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SOURCE, TARGET = 0.0, 1.0


class Discriminator(nn.Module):
    """Five 4x4 convolutions of stride 2 with LeakyReLU 0.2 between them (protocol, section 1).

    Input: class probabilities (B, classes, H, W), both sides at least 32 px. Output: patch logits (B, 1, ~H/32, ~W/32);
    0 stands for source, 1 for target.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        channels = (num_classes, width, 2 * width, 4 * width, 8 * width, 1)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 4, stride=2, padding=1) for i, o in zip(channels, channels[1:]))

    def forward(self, probabilities: Tensor) -> Tensor:
        x = probabilities
        for conv in self.convs[:-1]:
            x = F.leaky_relu(conv(x), 0.2)
        return self.convs[-1](x)


class GradientReversal(torch.autograd.Function):
    """Identity forward; backward multiplies the gradient by ``-factor``. Source: Ganin et al., JMLR 2016, section 4."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: float = 1.0) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * grad, None


def reverse_gradient(x: Tensor, factor: float = 1.0) -> Tensor:
    """`x` unchanged, any shape; its gradient comes back multiplied by ``-factor``."""
    return GradientReversal.apply(x, factor)
