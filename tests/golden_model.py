"""Helpers shared by the tests that hold the network against the golden numbers."""

import json
from pathlib import Path

import numpy as np
import torch

from models import build_model
from tests.formula import label_map, picture, weight
from utils.runs.released import from_released

GOLDEN = Path(__file__).parent / "golden"
CONFIGURATIONS = [(arch, semnet) for arch in ("resnet50", "resnet101") for semnet in ("deeplab", "pspnet")]


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def released_state(arch: str, semnet: str) -> dict[str, torch.Tensor]:
    """A released state_dict, its values by formula."""
    shapes = json.loads((GOLDEN / f"state_dict_{arch}_{semnet}.json").read_text())
    return {key: torch.from_numpy(weight(key, tuple(shape))) for key, shape in shapes.items()}


def formula_model(arch: str, semnet: str):
    model = build_model(arch, semnet)
    model.load_state_dict(from_released(released_state(arch, semnet)), strict=True)
    return model.eval()


def pictures(name: str, count: int, height: int, width: int, dtype=torch.float32) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture(f"{name}/{i}", height, width)) for i in range(count)]).to(dtype)


def labels(name: str, count: int, height: int, width: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(label_map(f"{name}/{i}", height, width)) for i in range(count)])
