"""Checkpoint files as the reference implementation wrote them, with weights by formula."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden_model import released_state
from utils.runs.released import PREFIXES


def to_released(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Our parameter names -> released ones, without a `module.` prefix."""
    prefix = {key: next((old, new) for old, new in PREFIXES if key.startswith(new)) for key in state_dict}
    return {old + key.removeprefix(new): state_dict[key] for key, (old, new) in prefix.items()}


def write_released(path: Path, arch: str = "resnet50", semnet: str = "deeplab", prefix: str = "") -> Path:
    """A released file, its NumPy scalars pickled under the names of NumPy 1."""
    state = {prefix + key: value for key, value in released_state(arch, semnet).items()}
    recalls = {n: np.float64(n / 100) for n in (1, 5, 10, 20)}
    content = {"state_dict": state, "recalls": recalls, "best_score": np.float64(0.5)}
    content |= {name: {"state": {}, "param_groups": []} for name in ("optimizer", "optimizer_d")}
    content |= {name: {"last_epoch": 3, "_last_lr": [np.float64(1e-3)]} for name in ("scheduler", "scheduler_d")}
    fresh = path.with_suffix(".fresh")
    torch.save(content, fresh)
    with zipfile.ZipFile(fresh) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(item, data)
    fresh.unlink()
    return path
