"""From feature maps to one descriptor: L2 norm at every location, then generalised mean (GeM)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def widen(x: Tensor) -> Tensor:
    """`x` in at least float32 (float64 is never cast down)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class MultiScalePooling(nn.Module):
    """GeM with one power for all stages; the descriptor is the concatenation, not normalised afterwards.

    Per stage: ``x / (||x||_2 + eps)`` over channels, clamped at ``eps``, ``mean(x ** p) ** (1 / p)`` over space.
    Source: protocol, section 1; GeM from Radenovic et al., TPAMI 2018. Powers are taken in at least float32.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        # A released checkpoint carries p, but no optimiser group holds it: it stays 3.
        self.p = nn.Parameter(torch.full((1,), p), requires_grad=False)
        self.eps = eps
        self.fixed_power: float | None = None

    def fix_power(self) -> None:
        """Take the power as a plain number from now on: for 3, x * x * x is much quicker than a general power."""
        self.fixed_power = float(self.p)

    def pool(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B, C, h, w) -> (B, C); `weight` (B, 1, h, w) multiplies the locations after their norm was taken."""
        x = widen(x)
        x = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + self.eps)
        if weight is not None:
            x = x * weight
        p = self.p.to(x.dtype) if self.fixed_power is None else self.fixed_power
        return x.clamp(min=self.eps).pow(p).mean(dim=(-2, -1)).pow(1 / p)

    def forward(self, stages: list[Tensor], weights: Sequence[Tensor | None] | None = None) -> Tensor:
        """Stages [(B, C_i, h_i, w_i), ...], each with a weight or None -> (B, sum of C_i)."""
        weights = weights or [None] * len(stages)
        return torch.cat([self.pool(x, weight) for x, weight in zip(stages, weights)], dim=1)
