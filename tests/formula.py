"""Weights, pictures and labels that follow from a name alone; the golden numbers belong to them.

Every stream is PCG64 seeded with the CRC-32 of the name. The golden files were computed with the reference implementation on
exactly these arrays, so nothing here may change.
"""

import zlib

import numpy as np

SHRUNK = "sem_branch.encoder.conv1.weight"


def stream(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of one entry of a released state_dict: float32, but int64 for batch counters."""
    noise = stream(key).standard_normal(shape)
    kind = key.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.zeros((), np.int64)
    if key == "vpr_pooling.p":
        value = np.full(shape, 3.0)
    elif kind == "running_mean" or (kind == "bias" and noise.ndim != 4):
        value = 0.1 * noise
    elif kind == "running_var":
        value = np.exp(0.2 * noise)
    elif noise.ndim == 4:
        value = noise * np.sqrt(2.0 / np.prod(shape[1:]))
        value = value / 128.0 if key == SHRUNK else value
    elif kind == "weight":
        value = 1.0 + 0.1 * noise
        value = 0.5 * value if ".bn3." in key else value
    else:
        raise KeyError(key)
    return value.astype(np.float32)


def picture(name: str, height: int, width: int) -> np.ndarray:
    """Smooth random picture in network input space: float32 (3, height, width), 0..255."""
    coarse = stream(name).uniform(0, 255, (3, max(2, height // 16), max(2, width // 16)))
    rows, row_part = _positions(height, coarse.shape[1])
    cols, col_part = _positions(width, coarse.shape[2])
    row_part, col_part = row_part[None, :, None], col_part[None, None, :]

    def along_row(r: np.ndarray) -> np.ndarray:
        line = coarse[:, r]
        return line[:, :, cols] * (1 - col_part) + line[:, :, cols + 1] * col_part

    return (along_row(rows) * (1 - row_part) + along_row(rows + 1) * row_part).astype(np.float32)


def _positions(length: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    exact = np.linspace(0, cells - 1, length)
    cell = np.floor(exact).astype(int).clip(0, cells - 2)
    return cell, exact - cell


def label_map(name: str, height: int, width: int, classes: int = 17) -> np.ndarray:
    """Random class map of 8x8 blocks, int64 (height, width); about one pixel in ten is 255, ignored."""
    rng = stream(name)
    blocks = rng.integers(0, classes, (height // 8, width // 8))
    full = np.kron(blocks, np.ones((8, 8), np.int64))
    return np.where(rng.uniform(size=full.shape) < 0.1, 255, full).astype(np.int64)
