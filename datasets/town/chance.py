"""Random draws that depend on their keys alone, and arithmetic with colours (0 to 255).

A draw never depends on what was drawn before it elsewhere, so pictures can be drawn in any order.
"""

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Rgb = tuple[int, int, int]
Option = TypeVar("Option")


def keyed(*keys: str | int) -> np.random.Generator:
    """Return a random generator that depends on ``keys`` and on nothing else."""
    return np.random.default_rng([zlib.crc32(k.encode()) if isinstance(k, str) else int(k) & 0xFFFFFFFF for k in keys])


def pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """Return one of ``options``, all equally likely."""
    return options[int(rng.integers(len(options)))]


def tint(rng: np.random.Generator, rgb: Sequence[float], amount: float = 10.0) -> Rgb:
    """Return ``rgb`` moved by a common and a per-channel random step of about ``amount``."""
    step = rng.normal(0.0, amount) + rng.normal(0.0, amount * 0.3, 3)
    return tuple(int(min(max(c + s, 4), 250)) for c, s in zip(rgb, step))


def scale(rgb: Sequence[float], factor: float) -> Rgb:
    """Return ``rgb`` times ``factor``, clipped to 0 to 255."""
    return tuple(int(min(max(c * factor, 0), 255)) for c in rgb)


def mix(a: Sequence[float], b: Sequence[float], share: float) -> Rgb:
    """Return the colour ``share`` (0 to 1) of the way from ``a`` to ``b``."""
    return tuple(int(p + (q - p) * share) for p, q in zip(a, b))
