"""Exact search against brute force."""

import numpy as np
import pytest

from utils.retrieval.exact import search


@pytest.mark.parametrize("num_queries", [1, 60])
def test_descriptors_that_lie_close_together_are_told_apart(num_queries):
    rng = np.random.default_rng(0)
    # those of a network with random weights: all of norm 1.4, a few thousandths apart
    centre = np.full(768, 0.05)
    gallery, queries = ((centre + rng.normal(0, 1e-4, (n, 768))).astype(np.float32) for n in (300, num_queries))
    expected = np.linalg.norm(gallery[None].astype(np.float64) - queries[:, None], axis=-1)
    indexes, distances = search(gallery, queries, block_bytes=4 * 768 * 128)
    np.testing.assert_array_equal(indexes, expected.argsort(axis=1)[:, :20])
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :20], rtol=1e-5)


def test_a_small_gallery_gives_what_it_has():
    indexes, distances = search(np.eye(3, 8, dtype=np.float32), np.eye(2, 8, dtype=np.float32))
    assert indexes.shape == distances.shape == (2, 3) and indexes[:, 0].tolist() == [0, 1] and distances[0, 0] == 0
