"""Where to compute."""

import torch


def resolve_device(name: str = "auto") -> torch.device:
    """`auto` (the first of cuda, mps, cpu that is there), or a device by name; ValueError where it is absent."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: not available here; use --device cpu or auto")
    return device
