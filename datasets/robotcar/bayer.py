"""Colours from the Bayer pattern of a raw frame."""

import numpy as np


def demosaic(bayer: np.ndarray) -> np.ndarray:
    """Bilinear colours from a GBRG pattern: uint8 (H, W) -> RGB uint8 (H, W, 3), H and W at least 2.

    The first row reads G B G B..., the second R G R G...; each missing value is the rounded mean of the 2 or 4 nearest
    pixels of its colour. Borders mirror, which keeps the pattern.
    """
    height, width = bayer.shape
    if min(height, width) < 2:
        raise ValueError(f"{width}x{height} px: a Bayer pattern has at least 2x2")
    padded = np.pad(bayer, 1, "reflect").astype(np.uint16)

    def mean(row: int, column: int, *offsets: tuple[int, int]) -> np.ndarray:
        """Mean over neighbours of the pixels whose row and column have these parities."""
        total = sum(
            padded[1 + row + dy : 1 + height + dy : 2, 1 + column + dx : 1 + width + dx : 2] for dy, dx in offsets
        )
        return (total + len(offsets) // 2) // len(offsets)

    beside, above = ((0, -1), (0, 1)), ((-1, 0), (1, 0))
    cross, corners = (*beside, *above), ((-1, -1), (-1, 1), (1, -1), (1, 1))
    rgb = np.empty((height, width, 3), np.uint8)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    # green among blue
    red[::2, ::2], green[::2, ::2], blue[::2, ::2] = mean(0, 0, *above), bayer[::2, ::2], mean(0, 0, *beside)
    # blue
    red[::2, 1::2], green[::2, 1::2], blue[::2, 1::2] = mean(0, 1, *corners), mean(0, 1, *cross), bayer[::2, 1::2]
    # red
    red[1::2, ::2], green[1::2, ::2], blue[1::2, ::2] = bayer[1::2, ::2], mean(1, 0, *cross), mean(1, 0, *corners)
    # green among red
    red[1::2, 1::2], green[1::2, 1::2], blue[1::2, 1::2] = mean(1, 1, *beside), bayer[1::2, 1::2], mean(1, 1, *above)
    return rgb
