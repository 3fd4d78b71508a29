"""What size images are brought to, and how small one may be."""

from collections.abc import Callable
from dataclasses import dataclass

from models.config import MIN_SIDE

CROP = 0.8
"""Training crops this share of each side."""


@dataclass(frozen=True)
class LongerSide:
    """Images of any size are brought to this longer side, in pixels."""

    pixels: int


Scale = float | LongerSide
"""How images are resized: by a factor, as data sets are, or to a longer side, as photos are."""


def scale_text(scale: Scale) -> str:
    """`scaled by 0.5`, or `brought to a longer side of 480 px`."""
    by_side = isinstance(scale, LongerSide)
    return f"brought to a longer side of {scale.pixels} px" if by_side else f"scaled by {scale:g}"


def scaled_size(height: int, width: int, scale: Scale) -> tuple[int, int]:
    """Height and width after scaling, rounded to whole pixels, at least 1."""
    factor = scale.pixels / max(height, width) if isinstance(scale, LongerSide) else scale
    return max(1, round(height * factor)), max(1, round(width * factor))


def smallest_cropped() -> int:
    """Pixels that a side needs for training, whose crops are rounded down."""
    return _smallest(CROP, int)


def smallest_scaled(scale: Scale) -> int | LongerSide:
    """Pixels that a side needs so that it is large enough once it is scaled, which rounds to the nearest.

    A longer side asks for a shape instead, see `size_fault`, and is returned as it is.
    """
    return scale if isinstance(scale, LongerSide) else _smallest(scale, round)


def size_fault(width: int, height: int, least: int | LongerSide) -> str:
    """What is wrong with the size of an image, "" for nothing.

    Parameters
    ----------
    least : least number of pixels on either side, or what the longer one is brought to.
    """
    if not isinstance(least, LongerSide):
        fits = min(width, height) >= least
        return "" if fits else f"{width}x{height} px is too small: both sides must be at least {least} px"
    if min(scaled_size(height, width, least)) >= MIN_SIDE:
        return ""
    return (
        f"{width}x{height} px is too narrow: {scale_text(least)}, its other side has fewer than {MIN_SIDE} px; crop it, "
        "or give a larger --image_size"
    )


def _smallest(factor: float, rounded: Callable[[float], int]) -> int:
    side = max(1, int((MIN_SIDE - 1) / factor))
    while rounded(side * factor) < MIN_SIDE:
        side += 1
    return side
