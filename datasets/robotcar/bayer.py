"""Colours from the Bayer pattern of a raw frame."""

import numpy as np

NEAREST = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.uint16)
CROSS = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.uint16)
"""Weights of the pixels around one, in quarters, among the red or blue ones, and among the green ones."""


def demosaic(bayer: np.ndarray) -> np.ndarray:
    """Bilinear colours from a GBRG pattern: uint8 (H, W) -> RGB uint8 (H, W, 3), H and W at least 2.

    The first row reads G B G B..., the second R G R G...; each missing value is the rounded mean of the 2 or 4 nearest
    pixels of its colour. Borders mirror, which keeps the pattern.
    """
    height, width = bayer.shape
    if min(height, width) < 2:
        raise ValueError(f"{width}x{height} px: a Bayer pattern has at least 2x2")
    padded = np.pad(bayer, 1, "reflect").astype(np.uint16)
    odd_row, odd_column = np.arange(-1, height + 1)[:, None] % 2, np.arange(-1, width + 1) % 2
    rgb = np.empty((height, width, 3), np.uint8)
    for colour, (where, weights) in enumerate(
        ((odd_row > odd_column, NEAREST), (odd_row == odd_column, CROSS), (odd_row < odd_column, NEAREST))
    ):
        known = padded * where
        around = (w * known[y : y + height, x : x + width] for (y, x), w in np.ndenumerate(weights) if w)
        rgb[..., colour] = (sum(around) + 2) // 4
    return rgb
