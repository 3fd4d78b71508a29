"""Indexes, PCA and block-wise search of galleries, in memory and kept on disk."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from utils.retrieval import index as indexing
from utils.retrieval.exact import rerank, search
from utils.retrieval.index import SearchableGallery, build_index
from utils.retrieval.pca import fit_projection
from utils.retrieval.settings import FLAT, RetrievalSettings, check_settings, default_nprobe
from utils.retrieval.store import LOCK, folder_of

IMAGES, DIM = 300, 32
FACTORIES = [
    *("HNSW8", "HNSW8,SQ8", "HNSW8,PQ8x4", "IVF7,Flat", "IVF7_HNSW4,SQfp16", "IVF4,PQ8x4fs", "PQ8", "SQ8"),
    *("OPQ4_16,IVF4,PQ8x6", "OPQ4,Flat"),
]


def vectors(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Clustered, with components of falling variance."""
    rng = np.random.default_rng(seed)
    spectrum = 1 / np.sqrt(1 + np.arange(dim))
    return (
        (rng.normal(size=(20, dim))[rng.integers(20, size=count)] + rng.normal(size=(count, dim))) * spectrum
    ).astype(np.float32)


GALLERY, QUERIES = vectors(IMAGES), vectors(25, seed=1)


def by_hand(gallery: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = np.linalg.norm(gallery.astype(np.float64) - queries.astype(np.float64)[:, None], axis=-1)
    indexes = distances.argsort(1)[:, :k]
    return indexes, np.take_along_axis(distances, indexes, 1)


def mapped(folder: Path, descriptors: np.ndarray = GALLERY) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    np.save(folder / "descriptors.npy", descriptors)
    return np.load(folder / "descriptors.npy", mmap_mode="r")


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 25), st.integers(1, 3000))
def test_search_in_blocks_equals_search_by_hand(count, k, queries, block_bytes):
    indexes, distances = search(GALLERY[:count], QUERIES[:queries], k, block_bytes)
    expected, expected_distances = by_hand(GALLERY[:count], QUERIES[:queries], k)
    np.testing.assert_array_equal(indexes, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-4, atol=1e-5)
    assert indexes.dtype == np.int64 and distances.dtype == np.float32


def test_search_on_disk_reads_blocks_and_equals_one_in_memory(tmp_path, monkeypatch):
    on_disk, blocks = mapped(tmp_path), []
    knn = faiss.knn

    def counted(queries, block, k):
        blocks.append(len(block))
        return knn(queries, block, k)

    monkeypatch.setattr(faiss, "knn", counted)
    monkeypatch.setattr("utils.retrieval.exact.QUERIES_AT_ONCE", 10)
    indexes, distances = search(on_disk, QUERIES, 20, block_bytes=4 * DIM * 64)
    assert blocks == [64] * 12 + [44] * 3
    expected, expected_distances = search(GALLERY, QUERIES, 20)
    np.testing.assert_array_equal(indexes, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-5)


def test_ties_go_to_the_first_image():
    same = np.repeat(GALLERY[:1], 6, 0)
    np.testing.assert_array_equal(search(same, QUERIES[:2], 4, block_bytes=4 * DIM * 2)[0], [[0, 1, 2, 3]] * 2)


def test_reranking_by_hand():
    candidates = np.array([[5, 2, -1, 9], [-1, -1, -1, 3]])
    indexes, distances = rerank(GALLERY, QUERIES[:2], candidates, 3)
    near = np.linalg.norm(GALLERY[[2, 5, 9]] - QUERIES[0], axis=1)
    np.testing.assert_array_equal(indexes[0], np.array([2, 5, 9])[near.argsort()])
    np.testing.assert_allclose(distances[0], np.sort(near))
    assert indexes[1].tolist() == [3, -1, -1] and np.isinf(distances[1, 1:]).all()


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_index_finds_reports_and_is_opened_again(factory, tmp_path, monkeypatch):
    wanted = RetrievalSettings(factory)
    check_settings(wanted, DIM, "gallery", IMAGES)
    gallery = SearchableGallery(mapped(tmp_path), wanted, tmp_path)
    indexes, distances = gallery.search(QUERIES, 10)
    exact, _ = gallery.exact(QUERIES, 10)
    assert (indexes == exact).mean() > 0.5 and (indexes >= 0).all()
    # Euclidean distances, nearest first, whatever the index stores
    np.testing.assert_allclose(distances, np.linalg.norm(GALLERY[indexes] - QUERIES[:, None], axis=-1), rtol=1e-5)
    assert (np.diff(distances) >= 0).all()
    (file,) = tmp_path.glob("index-*.faiss")
    assert gallery.bytes_per_image == file.stat().st_size / IMAGES and gallery.build_s > 0
    assert gallery.nprobe == (None if "IVF" not in factory else default_nprobe(int(factory.split("IVF")[1][0])))
    monkeypatch.setattr(indexing, "build_index", None)
    again = SearchableGallery(mapped(tmp_path), wanted, tmp_path)
    np.testing.assert_array_equal(again.search(QUERIES, 10)[0], indexes)
    assert again.description() == gallery.description()


@pytest.mark.parametrize("factory", ["HNSW8", "OPQ4_16,IVF4,PQ8x6", "IVF7_HNSW4,SQ8"])
def test_the_same_descriptors_and_seed_give_the_same_index(factory):
    first, second, other = (faiss.serialize_index(build_index(GALLERY, factory, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert factory == "HNSW8" or not np.array_equal(first, other)


def test_an_index_with_all_lists_looked_into_is_exact_and_needs_no_disk():
    gallery = SearchableGallery(GALLERY, RetrievalSettings("IVF7,Flat", nprobe=7))
    np.testing.assert_array_equal(gallery.search(QUERIES, 20)[0], search(GALLERY, QUERIES, 20)[0])
    assert gallery.bytes_per_image > 4 * DIM


def test_queries_that_an_index_finds_too_little_for_are_searched_exactly():
    gallery = SearchableGallery(GALLERY[:40], RetrievalSettings("IVF20,Flat", nprobe=1))
    assert (gallery.candidates(QUERIES, 20) < 0).any()
    np.testing.assert_array_equal(gallery.search(QUERIES, 20)[0][:, -1] >= 0, True)
    assert gallery.search(QUERIES, 99)[0].shape == (25, 40)


@pytest.mark.parametrize(
    "damage", [lambda f: f.write_bytes(f.read_bytes()[:-5]), lambda f: f.with_suffix(".json").write_text("[]")]
)
def test_a_damaged_index_is_built_anew(damage, tmp_path):
    wanted = RetrievalSettings("IVF7,Flat")
    expected = SearchableGallery(mapped(tmp_path), wanted, tmp_path).search(QUERIES, 5)[0]
    (file,) = tmp_path.glob("index-*.faiss")
    damage(file)
    np.testing.assert_array_equal(SearchableGallery(mapped(tmp_path), wanted, tmp_path).search(QUERIES, 5)[0], expected)


def test_whatever_an_index_follows_from_makes_another_file(tmp_path):
    for wanted in (
        RetrievalSettings("IVF7,Flat"),
        RetrievalSettings("IVF7,Flat", nprobe=3),  # as the first
        RetrievalSettings("IVF7,Flat", seed=1),
        RetrievalSettings("IVF7,Flat", pca_dim=8),
        RetrievalSettings("IVF7,Flat", pca_dim=8, pca_whiten=True),
        RetrievalSettings("IVF8,Flat"),
    ):
        SearchableGallery(mapped(tmp_path), wanted, tmp_path)
    assert len(list(tmp_path.glob("index-*.faiss"))) == 5 and len(list(tmp_path.glob("pca-*.npy"))) == 2
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("images", [IMAGES, 20])
def test_pca_equals_scikit_learns(whiten, images):
    projected = fit_projection(GALLERY[:images], 6, whiten)(QUERIES)
    expected = PCA(6, whiten=whiten, svd_solver="full").fit(GALLERY[:images].astype(np.float64)).transform(QUERIES)
    np.testing.assert_allclose(projected, expected, rtol=1e-3, atol=1e-4)
    if whiten:
        own = fit_projection(GALLERY[:images], 6, True)(GALLERY[:images])
        np.testing.assert_allclose(np.cov(own.T), np.eye(6), atol=1e-3)


def test_pca_of_all_dimensions_keeps_distances_and_a_sample_is_bounded(monkeypatch):
    gallery = SearchableGallery(GALLERY, RetrievalSettings(pca_dim=DIM))
    assert gallery.index is None
    indexes, distances = gallery.search(QUERIES, 5)
    expected, expected_distances = search(GALLERY, QUERIES, 5)
    np.testing.assert_array_equal(indexes, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-3)
    monkeypatch.setattr("utils.retrieval.pca.SAMPLE", 50)
    assert np.array_equal(fit_projection(GALLERY, 4, seed=1).matrix, fit_projection(GALLERY, 4, seed=1).matrix)
    assert not np.array_equal(fit_projection(GALLERY, 4, seed=1).matrix, fit_projection(GALLERY, 4, seed=2).matrix)


def test_a_store_that_may_only_be_read_is_searched(tmp_path):
    kept = mapped(tmp_path)
    (tmp_path / LOCK).mkdir()  # cannot be opened, whoever runs the test
    SearchableGallery(kept, RetrievalSettings(pca_dim=4), tmp_path)
    again = SearchableGallery(kept, RetrievalSettings(), tmp_path).search(QUERIES, 3)
    np.testing.assert_array_equal(again[0], search(GALLERY, QUERIES, 3)[0])


def test_shortened_descriptors_are_kept(tmp_path, monkeypatch):
    wanted = RetrievalSettings(pca_dim=8, dtype="float16")
    half = GALLERY.astype(np.float16)
    first = SearchableGallery(mapped(tmp_path, half), wanted, tmp_path)
    assert first.rows.dtype == np.float16 and first.bytes_per_image == 16
    monkeypatch.setattr(indexing, "fit_projection", None)
    second = SearchableGallery(mapped(tmp_path, half), wanted, tmp_path)
    assert folder_of(second.rows) == tmp_path and second.build_s == first.build_s
    for a, b in zip(first.search(QUERIES, 5), second.search(QUERIES, 5)):
        np.testing.assert_array_equal(a, b)


def test_float16_is_compared_in_float32():
    half = GALLERY.astype(np.float16)
    indexes, distances = search(half, QUERIES, 5)
    expected, expected_distances = by_hand(half, QUERIES, 5)
    np.testing.assert_array_equal(indexes, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-4)


def test_whitening_what_does_not_vary_is_refused():
    flat = GALLERY.copy()
    flat[:, 3:] = 0
    with pytest.raises(ValueError, match=r"--pca_whiten: only 3 of 5 components vary .* give --pca_dim 3 or less"):
        fit_projection(flat, 5, whiten=True)
    with pytest.raises(ValueError, match="all the same"):
        fit_projection(np.ones((9, 4), np.float32), 2, whiten=True)
    with pytest.raises(ValueError, match="--pca_dim 9: at most 4"):
        fit_projection(GALLERY[:4], 9)


@pytest.mark.parametrize(
    "wanted, message",
    [
        (dict(index="Flatt"), "no index that is known"),
        (dict(index=""), "no index that is known"),
        (dict(index="IVF4096"), "no index that is known"),
        (
            dict(index="IVF301,Flat"),
            "1 to 300 lists are possible: the gallery town/gallery has 300 images, so IVF7 fits",
        ),
        (dict(index="IVF0,Flat"), "1 to 300 lists"),
        (dict(index="HNSW1"), "4 to 256 links"),
        (dict(index="IVF4_HNSW999,Flat"), "4 to 256 links"),
        (dict(index="PQ5"), r"--index PQ5: faiss refuses it \(The dimension of the vector"),
        (dict(index="PQ99"), "should be a multiple of the number of subquantizers"),
        (dict(index="PQ8x9"), r"training takes 512 images or more .* 300 images; give PQ8x8 or an index without"),
        (dict(index="PQ8x13"), "4 to 12 bits"),
        (dict(index="PQ8fs"), "could not parse index string PQ8fs"),
        (dict(index="OPQ5,PQ5"), "OPQ5 does not divide"),
        (dict(index="OPQ4_64,PQ4"), "1 to 32 of a descriptor's 32 numbers"),
        (dict(index="OPQ8_16,PQ32"), "should be a multiple of the number of subquantizers"),
        (dict(index="OPQ8_16"), "no index that is known"),
        (dict(index="OPQ8_16,"), "faiss refuses it"),
        (dict(pca_dim=33), "descriptors have 32 numbers and .*; give at most 32"),
        (dict(pca_whiten=True), "give --pca_dim"),
        (dict(nprobe=4), "--nprobe 4: --index Flat has no lists"),
        (dict(index="IVF8,Flat", nprobe=9), "--nprobe 9: --index IVF8,Flat has 8 lists; give no more"),
        (dict(index="PQ64", pca_dim=16), "should be a multiple of the number of subquantizers"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_is_possible(wanted, message):
    with pytest.raises(ValueError, match=message) as error:
        check_settings(RetrievalSettings(**wanted), DIM, "town/gallery", IMAGES)
    assert str(error.value).startswith("--") and "\n" not in str(error.value)


def test_small_galleries_are_told_what_is_possible():
    for wanted, message in [
        (RetrievalSettings(pca_dim=20), "town/gallery has 6 images; give at most 6"),
        (
            RetrievalSettings("OPQ4,PQ4"),
            "training takes 256 images or more and the gallery town/gallery has 6 images; give an index without",
        ),
        (RetrievalSettings("PQ4"), "256 images or more .* give an index without PQ and OPQ"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_settings(wanted, DIM, "town/gallery", 6)


PARTS = st.sampled_from(
    ["OPQ4", "OPQ8_16", "IVF4", "IVF8_HNSW4", "HNSW8", "Flat", "SQ8", "PQ8x4", "PQ4x4fs", "PQ2x5", "X", ""]
)


@settings(max_examples=25)
@given(st.lists(PARTS, min_size=1, max_size=4).map(",".join))
def test_every_string_that_passes_the_check_makes_an_index(factory):
    try:
        check_settings(RetrievalSettings(factory), DIM, "gallery", IMAGES)
    except ValueError as error:
        assert str(error).startswith(f"--index {factory}")
        return
    gallery = SearchableGallery(GALLERY, RetrievalSettings(factory))
    indexes, _ = gallery.search(QUERIES[:3], 5)
    assert (indexes >= 0).all() and (factory == FLAT) == (gallery.index is None)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    "wanted, least_found",
    [
        (RetrievalSettings(), 1.0),
        (RetrievalSettings(pca_dim=8, dtype="float16"), 1.0),
        (RetrievalSettings("IVF7,Flat", nprobe=7), 1.0),
        (RetrievalSettings("HNSW8"), 0.8),
        (RetrievalSettings("IVF4,PQ8x6", nprobe=4, pca_dim=16), 0.8),
    ],
)
def test_a_gallery_that_changes_is_searched_as_it_is_now(tmp_path, wanted, least_found, on_disk):
    vectors = GALLERY.astype(wanted.dtype)
    gallery = SearchableGallery(
        mapped(tmp_path, vectors[:200]) if on_disk else vectors[:200], wanted, tmp_path if on_disk else None
    )
    gallery.remove(np.array([3, 50, 199]))
    gallery.add(vectors[200:260])
    gallery.remove(np.array([0, 250, 1]))
    gallery.add(vectors[260:])
    now = np.concatenate([np.delete(vectors[:200], [3, 50, 199], 0), vectors[200:260]])
    now = np.concatenate([np.delete(now, [0, 250, 1], 0), vectors[260:]])
    np.testing.assert_array_equal(np.asarray(gallery.descriptors), now)
    shortened, queries = gallery.shortened(now), gallery.shortened(QUERIES)
    expected, _ = by_hand(shortened, queries, 5)
    indexes, distances = gallery.search(QUERIES, 5)
    assert np.mean([len(np.intersect1d(*rows)) / 5 for rows in zip(indexes, expected)]) >= least_found
    true = np.linalg.norm(shortened[indexes].astype(np.float64) - queries[:, None], axis=-1)
    np.testing.assert_allclose(distances, true, rtol=1e-2 if wanted.dtype == "float16" else 1e-4, atol=1e-5)
    allowed = np.arange(len(now)) % 7 == 2
    places = np.flatnonzero(allowed)
    indexes, _ = gallery.search(QUERIES, 5, allowed)
    np.testing.assert_array_equal(indexes, places[by_hand(shortened[places], queries, 5)[0]])
    assert gallery.search(QUERIES, 5, np.zeros(len(now), bool))[0].shape == (len(QUERIES), 0)
