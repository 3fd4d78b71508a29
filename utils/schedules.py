"""Learning rate schedules."""

import torch
from torch import Tensor


def poly(base: float, step: float | Tensor, max_steps: float, power: float = 0.9) -> float | Tensor:
    """``base * (1 - step / max_steps) ** power``, zero from `max_steps` on (protocol, section 5).

    `step` may be a tensor on any device; the rate is then computed there: in float64 on a CPU, elsewhere in float32, which
    is what fused optimisers read on a GPU.
    """
    if isinstance(step, Tensor):
        wide = torch.float64 if step.device.type == "cpu" else torch.float32
        return base * (1 - step.to(wide).clamp(max=max_steps) / max_steps) ** power
    return base * (1 - min(step, max_steps) / max_steps) ** power
