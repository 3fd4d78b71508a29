"""Smooth noise that repeats without a seam."""

from functools import lru_cache

import numpy as np
from PIL import Image

from datasets.town.chance import keyed

SIZE = 256  # texels per side


@lru_cache(maxsize=8)
def noise_tile(cells: int) -> np.ndarray:
    """Return noise of mean 0 and deviation 1, float32 [SIZE, SIZE]; ``cells`` per side set how coarse it is."""
    rng = keyed("noise", SIZE, cells)
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(3):
        n = min(SIZE, cells * 2**octave)
        grid = np.tile(rng.normal(size=(n, n)).astype(np.float32), (3, 3))
        big = Image.fromarray(grid).resize((SIZE * 3, SIZE * 3), Image.Resampling.BICUBIC)
        total += np.asarray(big)[SIZE : 2 * SIZE, SIZE : 2 * SIZE] * 0.6**octave
    return (total - total.mean()) / total.std()


def noise_piece(cells: int, h: int, w: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random piece [h, w] of the noise, repeated if it is larger than the tile."""
    oy, ox = int(rng.integers(SIZE)), int(rng.integers(SIZE))
    return noise_tile(cells)[(np.arange(h) + oy)[:, None] % SIZE, (np.arange(w) + ox)[None] % SIZE]


def noise_at(cells: int, x: np.ndarray, y: np.ndarray, per_metre: float) -> np.ndarray:
    """Return the noise at ground points in metres."""
    return noise_tile(cells)[(y * per_metre).astype(np.int32) % SIZE, (x * per_metre).astype(np.int32) % SIZE]
