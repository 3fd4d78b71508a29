"""Nearest neighbours of descriptors."""

import faiss
import numpy as np

BLOCK = 8192
"""Gallery descriptors that are centred at once, so that no second copy of all is made."""


def search(gallery: np.ndarray, queries: np.ndarray, k: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Exact L2 search.

    Parameters
    ----------
    gallery, queries : (G, D) and (Q, D) float32.

    Returns
    -------
    indexes (Q, min(k, G)) int64, nearest first, and Euclidean distances (Q, min(k, G)) float32.
    """
    # faiss takes distances of many queries from products: around the gallery's mean, little is lost to cancellation
    centre = gallery.mean(axis=0, dtype=np.float64).astype(np.float32)
    index = faiss.IndexFlatL2(gallery.shape[1])
    for start in range(0, len(gallery), BLOCK):
        index.add(np.ascontiguousarray(gallery[start : start + BLOCK] - centre, np.float32))
    squared, indexes = index.search(np.ascontiguousarray(queries - centre, np.float32), min(k, len(gallery)))
    return indexes, np.sqrt(np.maximum(squared, 0))
