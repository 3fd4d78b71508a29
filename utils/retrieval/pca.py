"""Shorter descriptors by principal component analysis."""

from dataclasses import dataclass

import numpy as np

from utils.retrieval.exact import as_float32
from utils.system.seeding import generator

SAMPLE = 20_000
"""Descriptors that a projection is fitted to, at most: 0.5 GB of float64 at 3072 numbers each."""
ROWS_AT_ONCE = 8192
NO_VARIANCE = 1e-7
"""Share of the first component's variance below which float32 descriptors hold only rounding."""


@dataclass(frozen=True)
class Projection:
    """`(x - mean) @ matrix`, mean (D,) and matrix (D, d) float32."""

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, descriptors: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, d) float32."""
        return (as_float32(descriptors) - self.mean) @ self.matrix

    def write_into(self, projected: np.ndarray, descriptors: np.ndarray) -> None:
        """Project all rows into an array (N, d) of any float type, block by block."""
        for start in range(0, len(descriptors), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            projected[rows] = self(descriptors[rows])


def sample_rows(descriptors: np.ndarray, count: int, seed: int, purpose: str) -> np.ndarray:
    """`count` random rows in their order (all, if there are fewer), float32."""
    if count >= len(descriptors):
        return as_float32(descriptors)
    rows = generator(seed, purpose).choice(len(descriptors), count, replace=False)
    return as_float32(descriptors[np.sort(rows)])


def fit_projection(descriptors: np.ndarray, dim: int, whiten: bool = False, seed: int = 0) -> Projection:
    """The first `dim` principal components of (a sample of) descriptors (N, D); whitened ones have variance 1.

    Raises
    ------
    ValueError : `dim` is above N or D, or a whitened component has no variance.
    """
    rows, columns = descriptors.shape
    if dim > min(rows, columns):
        raise ValueError(f"--pca_dim {dim}: at most {min(rows, columns)} with {rows} descriptors of {columns} numbers")
    sample = sample_rows(descriptors, max(SAMPLE, dim), seed, "pca").astype(np.float64)
    if whiten and not (sample != sample[0]).any():
        raise ValueError("--pca_whiten: the gallery's descriptors are all the same")
    # of the two problems, the smaller one: columns by columns, or rows by rows
    from sklearn.decomposition import PCA  # takes a second to import

    pca = PCA(dim, svd_solver="covariance_eigh" if len(sample) > columns else "full").fit(sample)
    variance = pca.explained_variance_
    matrix = pca.components_.T
    if whiten:
        useful = int((variance > NO_VARIANCE * variance[0]).sum())
        if useful < dim:
            raise ValueError(
                f"--pca_whiten: only {useful} of {dim} components vary in this gallery of {rows} images; "
                f"give --pca_dim {useful} or less"
            )
        matrix = matrix / np.sqrt(variance)
    return Projection(pca.mean_.astype(np.float32), np.ascontiguousarray(matrix, np.float32))
