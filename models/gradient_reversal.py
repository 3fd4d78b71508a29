"""The gradient reversal layer of domain-adversarial training."""

import torch
from torch import Tensor


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
