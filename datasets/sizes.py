"""How small an image may be."""

from collections.abc import Callable

from models.config import MIN_SIDE

CROP = 0.8
"""Training crops this share of each side."""


def smallest_cropped() -> int:
    """Pixels that a side needs for training, whose crops are rounded down."""
    return _smallest(CROP, int)


def smallest_scaled(scale: float) -> int:
    """Pixels that a side needs so that it is large enough once it is scaled, which rounds to the nearest."""
    return _smallest(scale, round)


def _smallest(factor: float, rounded: Callable[[float], int]) -> int:
    side = max(1, int((MIN_SIDE - 1) / factor))
    while rounded(side * factor) < MIN_SIDE:
        side += 1
    return side
