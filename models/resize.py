"""The one way SegVPR resizes feature maps, logits and attention."""

from torch import Tensor
from torch.nn import functional as F


def resize_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, C, h, w) to `size` = (H, W), corners aligned; returns `x` itself where nothing changes."""
    size = tuple(size)
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
