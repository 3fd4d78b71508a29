"""Nearest neighbours of descriptors."""

import faiss
import numpy as np


def search(gallery: np.ndarray, queries: np.ndarray, k: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Exact L2 search.

    Parameters
    ----------
    gallery, queries : (G, D) and (Q, D) float32.

    Returns
    -------
    indexes (Q, min(k, G)) int64, nearest first, and Euclidean distances (Q, min(k, G)) float32.
    """
    index = faiss.IndexFlatL2(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery, np.float32))
    squared, indexes = index.search(np.ascontiguousarray(queries, np.float32), min(k, len(gallery)))
    return indexes, np.sqrt(np.maximum(squared, 0))
