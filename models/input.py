"""From 8-bit RGB images to what a network reads (protocol, section 3)."""

import math
from functools import cache

import torch
from torch import Tensor

from models.config import INPUTS

# Subtracted from B, G and R in this order, on a scale of 0..255: odd, but released checkpoints need exactly this.
CHANNEL_MEANS = (0.485, 0.456, 0.406)
MEDIAN, GAMMAS = 0.42, (0.35, 1.6)
"""Where `balance_exposure` brings the median, on a scale of 0..1, and how far it goes for that."""
MEDIAN_LOG = math.log(MEDIAN)
IMAGENET_MEANS, IMAGENET_DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_network_input(images: Tensor, dtype: torch.dtype = torch.float32, space: str = "released") -> Tensor:
    """RGB uint8 (..., 3, H, W), 0..255 -> network input of `dtype` on the same device.

    `SegVPR.prepare` does this in the network's own space.

    Parameters
    ----------
    space : `released`: BGR order, minus `CHANNEL_MEANS`, no other scaling. `imagenet`: RGB, scaled to 0..1, minus ImageNet's
        mean, divided by its standard deviation (torchvision's IMAGENET1K_V1 transforms), as pretrained encoders expect.
        `balanced`: the same of what `balance_exposure` gives.

    Raises
    ------
    ValueError : another space.
    """
    if space not in INPUTS:
        raise ValueError(f"input: {space!r} is not one of {', '.join(INPUTS)}")
    if space == "released":
        images = images.flip(-3).to(dtype)
        return images.sub_(_per_channel(CHANNEL_MEANS, dtype, images.device))  # in place: large tensors
    means, deviations = (tuple(255 * x for x in values) for values in (IMAGENET_MEANS, IMAGENET_DEVIATIONS))
    images = balance_exposure(images, dtype) if space == "balanced" else images.to(dtype)
    images = images.sub_(_per_channel(means, dtype, images.device))
    return images.div_(_per_channel(deviations, dtype, images.device))


def balance_exposure(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """RGB uint8 (..., 3, H, W) -> the same pictures of `dtype`, 0..255, each with its exposure balanced by itself.

    The darkest and the brightest hundredth of the values become black and white. Then a gamma within `GAMMAS` brings the
    median to `MEDIAN`. Hues stay, as all channels share one curve. A picture of one grey becomes black.
    """
    sample = images[..., ::4, ::4].to(dtype).flatten(-3).sort(-1).values
    last = int(sample.shape[-1]) - 1  # a number in a traced network too, as ONNX export makes it
    low, middle, high = (sample[..., round(share * last), None, None, None] for share in (0.01, 0.5, 0.99))
    span = (high - low).clamp(min=1)
    gamma = MEDIAN_LOG / ((middle - low) / span).clamp(1e-3, 1 - 1e-3).log()
    stretched = ((images.to(dtype) - low) / span).clamp_(0, 1)
    return stretched.pow_(gamma.clamp(*GAMMAS)).mul_(255)


def check_images(images: Tensor) -> None:
    """ValueError unless `images` is RGB uint8 (B, 3, H, W)."""
    if isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == 3:
        return
    remedy = "give the 8-bit pixels as they are decoded"
    if not isinstance(images, Tensor):
        found = type(images).__name__
    else:
        found = f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}"
        if images.ndim == 3 and images.shape[0] == 3:
            remedy = "for one image: images[None]"
        elif images.ndim == 4 and images.shape[-1] == 3 != images.shape[1]:
            remedy = "channels stand before height and width: images.permute(0, 3, 1, 2)"
    raise ValueError(f"images: RGB uint8 (B, 3, H, W) tensors are wanted, not {found}; {remedy}")


@cache
def _per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(3, 1, 1), made once: to bring it to a GPU waits for the GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).view(3, 1, 1)
