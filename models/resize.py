"""How SegVPR resizes feature maps, logits and attention; and photos."""

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, C, h, w) to `size` = (H, W), corners aligned; returns `x` itself where nothing changes."""
    size = tuple(size)
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def to_longer_side(images: Tensor, pixels: int) -> Tensor:
    """uint8 (B, 3, H, W) -> the same with a longer side of so many pixels, bilinear with antialias."""
    longer = max(images.shape[-2:])
    if longer == pixels:
        return images
    size = [max(1, round(side * (pixels / longer))) for side in images.shape[-2:]]
    on_cpu = images.device.type == "cpu"  # only a CPU interpolates 8 bits
    images = images.contiguous(memory_format=torch.channels_last)
    resized = F.interpolate(images if on_cpu else images.float(), size=size, mode="bilinear", antialias=True)
    return resized if on_cpu else resized.round().to(torch.uint8)
