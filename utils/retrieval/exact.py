"""Nearest neighbours of descriptors, exactly, in memory or beyond it."""

import faiss
import numpy as np

from utils.system.logs import progress_bar

BLOCK_BYTES = 256_000_000
"""Size of the block of the gallery that is compared at a time."""
CENTRE_OF = 4096
"""Number of gallery descriptors, evenly spaced, whose mean serves as the gallery's centre."""
QUERIES_AT_ONCE = 16384


class Rows:
    """Some rows of an array, in any order, read when they are asked for; otherwise like an array (N, D).

    Parameters
    ----------
    array : (R, D), which may lie on a disk.
    order : (N,) the rows that are meant.
    """

    def __init__(self, array: "np.ndarray | Rows", order: np.ndarray) -> None:
        if isinstance(array, Rows):
            array, order = array.array, array.order[order]
        self.array, self.order = array, order
        self.shape, self.dtype, self.itemsize = (len(order), array.shape[1]), array.dtype, array.dtype.itemsize

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, key) -> np.ndarray:
        return self.array[self.order[key]]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def joined(first: "np.ndarray | Rows", then: "np.ndarray | Rows") -> "np.ndarray | Rows":
    """Rows of both, in memory unless the second ones lie in the same file, grown since, as the first."""
    files = [getattr(part.array, "filename", None) for part in (first, then) if isinstance(part, Rows)]
    if len(files) == 2 and files[0] is not None and files[0] == files[1]:
        return Rows(then.array, np.concatenate([first.order, then.order]))
    return np.concatenate([np.asarray(first), np.asarray(then)])


def search(
    gallery: np.ndarray, queries: np.ndarray, k: int = 20, block_bytes: int = BLOCK_BYTES
) -> tuple[np.ndarray, np.ndarray]:
    """Exact L2 search, block by block.

    Parameters
    ----------
    gallery, queries : (G, D) and (Q, D) of a float type, compared in float32; memory-mapped ones are never read whole.
    block_bytes : size of a block of the gallery in float32.

    Returns
    -------
    indexes (Q, min(k, G)) int64, nearest first, and Euclidean distances (Q, min(k, G)) float32.
    """
    # faiss computes distances from products: around the gallery's centre, little is lost to cancellation
    centre = gallery[:: -(-len(gallery) // CENTRE_OF)].mean(axis=0, dtype=np.float64).astype(np.float32)
    k = min(k, len(gallery))
    rows = max(1, block_bytes // (4 * gallery.shape[1]))
    indexes = np.empty((len(queries), 0), np.int64)
    squared = np.empty((len(queries), 0), np.float32)
    for start in progress_bar(range(0, len(gallery), rows), desc="exact search", unit="block"):
        block = as_float32(gallery[start : start + rows] - centre)
        found = [
            faiss.knn(as_float32(queries[q : q + QUERIES_AT_ONCE] - centre), block, min(k, len(block)))
            for q in range(0, len(queries), QUERIES_AT_ONCE)
        ]
        indexes = np.hstack([indexes, start + np.vstack([i for _, i in found])])
        squared = np.hstack([squared, np.vstack([d for d, _ in found])])
        best = np.argsort(squared, axis=1, kind="stable")[:, :k]
        indexes, squared = np.take_along_axis(indexes, best, 1), np.take_along_axis(squared, best, 1)
    return indexes, np.sqrt(np.maximum(squared, 0))


def rerank(gallery: np.ndarray, queries: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest k of each query's candidates, as `search` returns them.

    Parameters
    ----------
    candidates : (Q, C) gallery indexes in any order, -1 for none.

    Returns
    -------
    indexes (Q, min(k, C)), -1 where there are fewer candidates, and Euclidean distances, there infinite.
    """
    k = min(k, candidates.shape[1])
    indexes = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.inf, np.float32)
    for q, row in enumerate(candidates):
        row = np.sort(row[row >= 0])  # ascending: faster on a disk
        exact = np.linalg.norm(as_float32(gallery[row]) - as_float32(queries[q]), axis=1)
        best = np.argsort(exact, kind="stable")[:k]
        indexes[q, : len(best)], distances[q, : len(best)] = row[best], exact[best]
    return indexes, distances


def as_float32(descriptors: np.ndarray) -> np.ndarray:
    """In float32 and contiguous rows; the same array where it is that already."""
    return np.ascontiguousarray(descriptors, np.float32)
