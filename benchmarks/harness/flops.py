"""Floating point operations of the network, and how many a GPU can do."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from models import build_model

PEAKS = {
    "H200": (989.4e12, 494.7e12),
    "H100 PCIe": (756e12, 378e12),
    "H100": (989.4e12, 494.7e12),
    "A100": (312e12, 156e12),
    "L40S": (362e12, 183e12),
    "L4": (121e12, 60e12),
    "RTX 4090": (165.2e12, 82.6e12),
    "T4": (65e12, 8.1e12),
    "V100": (125e12, 15.7e12),
}
"""Part of the GPU's name (the first that fits counts) -> dense operations per second in 16 bits, and in float32 with TF32 if the
GPU has it. From the makers' data sheets."""


def peak_flops(gpu: str, precision: str) -> float | None:
    """Operations per second that a GPU can do at most; None if it is not listed.

    Parameters
    ----------
    gpu : its name, as `torch.cuda.get_device_name` gives it.
    precision : `fp32`, `bf16` or `fp16`.
    """
    for name, (half, full) in PEAKS.items():
        if name in gpu:
            if precision == "bf16" and name in ("T4", "V100"):
                return None  # has no such units
            return full if precision == "fp32" else half
    return None


def embedding_flops(arch: str, size: tuple[int, int]) -> int:
    """Operations (two per multiplication and addition) that one image of `size` (width, height) takes to embed."""
    model, image = build_model(arch).to("meta"), torch.empty(1, 3, size[1], size[0], device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.embed(image)
    return counter.get_total_flops()
