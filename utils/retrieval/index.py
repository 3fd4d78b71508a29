"""A gallery ready for searching: on request shortened by PCA, put into a faiss index, and kept on disk."""

import errno
import hashlib
import json
import time
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from datasets.files import locked, write_text, write_whole
from datasets.places import ImageSet
from utils.retrieval.exact import BLOCK_BYTES, Rows, as_float32, joined, rerank, search
from utils.retrieval.pca import Projection, fit_projection, sample_rows
from utils.retrieval.settings import (
    ADVISED_PER_CENTROID,
    FLAT,
    OPQ_BITS,
    RetrievalSettings,
    default_nprobe,
    faiss_errors,
)
from utils.retrieval.store import LOCK
from utils.system.logs import LOGGER, progress_bar
from utils.system.seeding import seed_sequence

FORMAT = "index-1"
"""Part of every file's key: raise the number when the way from descriptors to an index changes."""
CANDIDATES = 100
"""At least so many are taken from an approximate index and put into exact order: its own order is approximate too."""
TRAINING_ROWS, TRAINING_ROWS_PER_LIST = 65_536, 64
ROWS_AT_ONCE = 65_536


class SearchableGallery:
    """Descriptors of a gallery, shortened and indexed as the settings say.

    Parameters
    ----------
    descriptors : (G, D) of a float type; memory-mapped ones stay so.
    folder : of these descriptors alone (see `utils.retrieval.store.folder_of`): projection, shortened descriptors and index
        are taken from it, or kept in it; None keeps nothing.

    Attributes
    ----------
    rows : (G, d), what is searched: the descriptors, after PCA if asked for.
    index : the trained index, None for the exact search.
    nprobe : lists that a query looks into, None for an index without lists.
    build_s : seconds that PCA, training and filling the index took, when they were done.
    bytes_per_image : of the index as a file (of `rows` for the exact search).
    """

    def __init__(self, descriptors: np.ndarray, settings: RetrievalSettings, folder: Path | None = None) -> None:
        self.settings = settings
        self.index: faiss.Index | None = None
        self._mapped: Path | None = None
        self.nprobe: int | None = None
        self.projection: Projection | None = None
        self.build_s = 0.0
        self.descriptors = self.rows = descriptors
        self._place_of: np.ndarray | None = None  # of the index's entries among the rows, -1 for removed ones
        self._held: np.ndarray | None = None
        indexed = settings.index != FLAT or settings.engine is not None
        if settings.pca_dim is None and not indexed:
            folder = None  # nothing is derived
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LOCK) if folder is not None else nullcontext():
            if settings.pca_dim is not None:
                self._project(folder)
            self.bytes_per_image = float(self.rows.itemsize * self.rows.shape[1])
            if indexed:
                self._set_index(folder)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The nearest k (all, in a smaller gallery) of each query (Q, D): indexes (Q, k) int64 and distances (Q, k) float32.

        Distances are Euclidean, between descriptors (after PCA), even if an approximate index chose the candidates.

        Parameters
        ----------
        allowed : (G,) bool, the images that may be found, by default all; among fewer, the search is exact.
        """
        queries = self.shortened(queries)
        if allowed is not None and not allowed.all():
            return self._search_among(np.flatnonzero(allowed), queries, k)
        if self.index is None:
            return search(self._searched(), queries, k)
        k = min(k, len(self.rows))
        indexes, distances = rerank(self.rows, queries, self.candidates(queries, max(k, CANDIDATES)), k)
        few = np.flatnonzero(indexes[:, -1] < 0)
        if len(few):  # the lists looked into hold fewer than k images, or a graph is not connected
            indexes[few], distances[few] = search(self.rows, queries[few], k)
        return indexes, distances

    def _search_among(self, places: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The exact search in some of the rows, ascending, for shortened queries."""
        if not len(places):
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        indexes, distances = search(Rows(self._searched(), places), queries, k)
        return places[indexes], distances

    def _searched(self) -> np.ndarray:
        """The rows; a gallery of a single block is read from the disk once."""
        if self._held is None and self.rows.shape[0] * self.rows.shape[1] * 4 <= BLOCK_BYTES:
            self._held = as_float32(self.rows)
        return self.rows if self._held is None else self._held

    def add(self, descriptors: np.ndarray, images: ImageSet | None = None) -> None:
        """Further images, (N, D), which are numbered from G on. The index takes them as it was trained.

        Parameters
        ----------
        images : these N images; an engine that keeps positions needs them.
        """
        shortened = self.shortened(descriptors)
        if self.index is not None:
            self._add_to_index(descriptors, shortened, images)
        self._held = None
        self.descriptors = joined(self.descriptors, descriptors)
        self.rows = self.descriptors if self.projection is None else joined(self.rows, shortened)

    def _add_to_index(self, descriptors: np.ndarray, shortened: np.ndarray, images: ImageSet | None) -> None:
        self._make_writable()
        self.index.add(as_float32(shortened))
        if self._place_of is not None:
            self._place_of = np.concatenate([self._place_of, len(self.rows) + np.arange(len(descriptors))])

    def _make_writable(self) -> None:
        """Read an index that is mapped from its file into memory: a mapped one takes no additions."""
        if self._mapped is not None:
            self.index, self._mapped = faiss.read_index(str(self._mapped)), None
            self._set_nprobe()

    def remove(self, places: np.ndarray) -> None:
        """Leave out some images, (N,) numbers; those after them move up."""
        kept = np.delete(np.arange(len(self.rows)), places)
        if self.index is not None:
            self._remove_from_index(places, kept)
        shortened = None if self.projection is None else Rows(self.rows, kept)
        self._held = None
        self.descriptors = Rows(self.descriptors, kept)
        self.rows = self.descriptors if shortened is None else shortened

    def _remove_from_index(self, places: np.ndarray, kept: np.ndarray) -> None:
        """An index of faiss keeps the entries, and they are ignored."""
        now = np.full(len(self.rows) + 1, -1)  # one more, for those that had been removed before
        now[kept] = np.arange(len(kept))
        self._place_of = now[self._place_of if self._place_of is not None else np.arange(len(self.rows))]

    def exact(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What an exact search in the same descriptors returns, see `search`."""
        return search(self.rows, self.shortened(queries), k)

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """What the index itself returns for shortened queries (Q, d): (Q, min(count, G)) int64, -1 for none."""
        removed = 0 if self._place_of is None else len(self._place_of) - len(self.rows)
        found = self.index.search(as_float32(queries), min(count + removed, self.index.ntotal))[1]
        # the last entry of the table stands for -1
        return found if self._place_of is None else np.append(self._place_of, -1)[found]

    def shortened(self, queries: np.ndarray) -> np.ndarray:
        """Queries (Q, D) in the space that is searched: (Q, d)."""
        return queries if self.projection is None else self.projection(queries).astype(self.settings.dtype)

    def description(self) -> dict:
        """What it is and costs, as plain values."""
        settings = self.settings
        return {
            "engine": settings.engine,
            "factory": settings.index,
            "nprobe": self.nprobe,
            "pca_dim": settings.pca_dim,
            "pca_whiten": settings.pca_whiten,
            "descriptor_dtype": settings.dtype,
            "bytes_per_image": self.bytes_per_image,
            "build_s": self.build_s,
        }

    def _project(self, folder: Path | None) -> None:
        settings, start = self.settings, time.perf_counter()
        name = projection_key(settings)
        if folder is not None and self._open_projection(folder / name):
            LOGGER.info("PCA to %d numbers is taken from %s", settings.pca_dim, folder)
            return
        projection = fit_projection(self.descriptors, settings.pca_dim, settings.pca_whiten, settings.seed)
        self.projection, shape = projection, (len(self.descriptors), settings.pca_dim)
        if folder is None:
            self.rows = np.empty(shape, settings.dtype)
            projection.write_into(self.rows, self.descriptors)
            self.build_s = time.perf_counter() - start
            return

        def write_rows(part: Path) -> None:
            rows = np.lib.format.open_memmap(part, "w+", settings.dtype, shape)
            projection.write_into(rows, self.descriptors)
            rows.flush()

        def write_matrices(part: Path) -> None:
            with open(part, "wb") as file:
                np.savez(file, mean=projection.mean, matrix=projection.matrix, build_s=self.build_s)

        rows_file, matrices_file = folder / f"{name}.npy", folder / f"{name}.npz"
        write_whole(rows_file, write_rows)
        self.build_s = time.perf_counter() - start
        write_whole(matrices_file, write_matrices)
        self.rows = np.load(rows_file, mmap_mode="r")

    def _open_projection(self, path: Path) -> bool:
        """Take a kept projection and what it made of the descriptors; False where they are absent or damaged."""
        with suppress(OSError, ValueError, KeyError, EOFError):
            with np.load(path.with_suffix(".npz")) as kept:
                projection, build_s = Projection(kept["mean"], kept["matrix"]), float(kept["build_s"])
            rows = np.load(path.with_suffix(".npy"), mmap_mode="r")
            if rows.shape == (len(self.descriptors), self.settings.pca_dim) and rows.dtype == self.settings.dtype:
                self.projection, self.rows, self.build_s = projection, rows, build_s
                return True
        return False

    def _set_index(self, folder: Path | None) -> None:
        settings = self.settings
        described = asdict(settings)
        del described["nprobe"], described["engine"]  # which change nothing in the file
        path = None if folder is None else folder / f"{_key('index', *described.values())}.faiss"
        kept = None if path is None else _open_index(path, self.rows.shape)
        if kept is not None:
            self.index, build_s, size = kept
            self._mapped = path
            LOGGER.info("index %s is taken from %s", settings.index, path)
        else:
            start = time.perf_counter()
            self.index = build_index(self.rows, settings.index, settings.seed)
            build_s = time.perf_counter() - start
            if path is None:
                size = faiss.serialize_index(self.index).nbytes
            else:
                size = _save_index(self.index, path, {**described, "build_s": build_s})
                self.index, self._mapped = _read_mapped(path, settings.index), path
                LOGGER.info("index %s is kept in %s (%.1f MB)", settings.index, path, size / 1e6)
        self.build_s += build_s
        self.bytes_per_image = size / len(self.rows)
        self._set_nprobe()

    def _set_nprobe(self) -> None:
        lists = faiss.try_extract_index_ivf(self.index)
        if lists is not None:
            self.nprobe = lists.nprobe = self.settings.nprobe or default_nprobe(lists.nlist)


def build_index(rows: np.ndarray, factory: str, seed: int = 0) -> faiss.Index:
    """Train an index on a sample of descriptors (G, d) and add them all, block by block.

    The same descriptors, string, seed and number of threads give the same index. One thread builds a graph: with several, it
    would depend on which comes first.
    """
    with faiss_errors(f"--index {factory}"), threadpool_limits(1 if "HNSW" in factory else None, "openmp"):
        index = faiss.index_factory(rows.shape[1], factory)
        lists = faiss.try_extract_index_ivf(index)
        wanted = max(TRAINING_ROWS, TRAINING_ROWS_PER_LIST * (lists.nlist if lists is not None else 0))
        if not index.is_trained:
            sample = sample_rows(rows, wanted, seed, "index")
            LOGGER.info("index %s: training on %d of %d descriptors", factory, len(sample), len(rows))
            if lists is not None and len(sample) < ADVISED_PER_CENTROID * lists.nlist:
                LOGGER.warning(
                    "--index %s: %d images make %.1f per list, and faiss advises %d; fewer lists may find more",
                    *(factory, len(rows), len(sample) / lists.nlist, ADVISED_PER_CENTROID),
                )
            rotations = _seed_training(index, int(seed_sequence(seed, "index").generate_state(1)[0] >> 1))
            index.train(sample)
            for transform in rotations:
                transform.pq = None
        for start in progress_bar(range(0, len(rows), ROWS_AT_ONCE), desc=f"index {factory}", unit="block"):
            index.add(as_float32(rows[start : start + ROWS_AT_ONCE]))
    return index


def _seed_training(index: faiss.Index, seed: int) -> list[faiss.OPQMatrix]:
    """Seed every clustering, and silence its warning about small galleries.

    Returns
    -------
    The OPQ transforms; their quantizers must be removed after training.
    """
    rotated, inner = [], index
    if isinstance(index, faiss.IndexPreTransform):
        for i in range(index.chain.size()):
            transform = faiss.downcast_VectorTransform(index.chain.at(i))
            if isinstance(transform, faiss.OPQMatrix):
                transform.own = faiss.ProductQuantizer(transform.d_out, transform.M, OPQ_BITS)
                transform.pq = transform.own  # the C++ side holds a bare pointer: the attribute above keeps it alive
                rotated.append(transform)
        inner = faiss.downcast_index(index.index)
    if isinstance(inner, faiss.IndexHNSW):
        inner = faiss.downcast_index(inner.storage)
    if hasattr(inner, "do_polysemous_training"):
        inner.do_polysemous_training = False  # takes minutes, and serves a filter that is not used here
    for part in (inner, *rotated):
        for clustering in (getattr(part, "cp", None), getattr(getattr(part, "pq", None), "cp", None)):
            if clustering is not None:
                clustering.seed, clustering.min_points_per_centroid = seed, 1
    return rotated


def _open_index(path: Path, shape: tuple[int, int]) -> tuple[faiss.Index, float, int] | None:
    """A kept index, the seconds that it took, and its bytes; None where it is absent or damaged."""
    try:
        about = json.loads(path.with_suffix(".json").read_text())
        if path.stat().st_size != about["bytes"]:
            raise ValueError("not its size")
        index = _read_mapped(path, about["index"])
        if (index.ntotal, index.d) != shape:
            raise ValueError(f"holds {index.ntotal} descriptors")
        return index, about["build_s"], about["bytes"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        LOGGER.warning("%s: cannot be used (%s); building anew", path, " ".join(str(error).split()))
        return None


def _read_mapped(path: Path, factory: str) -> faiss.Index:
    """Memory-mapped where this faiss can: lists always, graphs and flat codes from 1.11 on."""
    flags = faiss.IO_FLAG_MMAP if "IVF" in factory else getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
    return faiss.read_index(str(path), flags)


def _save_index(index: faiss.Index, path: Path, about: dict) -> int:
    """Write an index and what is known about it; returns its bytes."""

    def write(part: Path) -> None:
        try:
            faiss.write_index(index, str(part))
        except RuntimeError as error:  # what faiss raises where the disk is full
            raise OSError(errno.EIO, f"{' '.join(str(error).split())}; make room") from error

    write_whole(path, write)
    size = path.stat().st_size
    write_text(path.with_suffix(".json"), json.dumps({**about, "faiss": faiss.__version__, "bytes": size}) + "\n")
    return size


def projection_key(settings: RetrievalSettings) -> str:
    return _key("pca", settings.pca_dim, settings.pca_whiten, settings.dtype, settings.seed)


def _key(kind: str, *values) -> str:
    return f"{kind}-{hashlib.sha256(json.dumps([FORMAT, *values]).encode()).hexdigest()[:16]}"
