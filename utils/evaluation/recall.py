"""Recall@N of queries that are looked up in a gallery."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from datasets.naming import Kind
from datasets.places import ImageSet, correct_matches
from models.segvpr import SegVPR
from utils.evaluation.metrics import RECALL_AT, recall_at
from utils.retrieval.confidence import apart, place_ratios
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.retrieval.engines.choice import searchable
from utils.retrieval.index import SearchableGallery
from utils.retrieval.settings import EXACT, RetrievalSettings, check_settings
from utils.retrieval.store import DescriptorStore, weights_digest
from utils.system.distributed import alone, from_first, is_first
from utils.system.logs import LOGGER
from utils.system.seeding import generator

TOP_K = max(RECALL_AT)
COMPARED_QUERIES = 1000
"""Most queries, drawn at random, for which an approximate index is compared with an exact search."""
MANY_BYTES = 2_000_000_000


@dataclass(frozen=True)
class EvaluationSet:
    """A gallery, the queries looked up in it, and within how many metres a match is correct.

    Attributes
    ----------
    name : `val` or the query folder, made unique.
    scale : factor by which both sides' images are resized.
    """

    name: str
    gallery: ImageSet
    queries: ImageSet
    kind: Kind
    thresholds_m: tuple[float, ...]
    scale: float

    def __repr__(self) -> str:
        return f"{self.name}: gallery {self.gallery!r}, queries {self.queries!r}"


@dataclass(frozen=True)
class SetResult:
    """What was retrieved for one set: indexes and distances (Q, K), correctness per threshold, and recalls.

    Attributes
    ----------
    ratio : (Q,) how unsure the first match is, see `utils.retrieval.confidence.place_ratios`.
    index : per threshold the `index` entry of `results.json`; empty for the plain exact search.
    """

    set: EvaluationSet
    retrieved: np.ndarray
    descriptor_distance: np.ndarray
    distance_m: np.ndarray
    ratio: np.ndarray
    correct: dict[float, np.ndarray]
    recalls: dict[float, dict[int, float]]
    gallery_descriptors: np.ndarray | None = None
    query_descriptors: np.ndarray | None = None
    index: dict[float, dict] = field(default_factory=dict)

    @property
    def recall(self) -> dict[int, float]:
        """Recalls at the set's first threshold."""
        return self.recalls[self.set.thresholds_m[0]]

    @property
    def found(self) -> np.ndarray:
        """(Q,) bool: whether the first image retrieved is correct at the set's first threshold."""
        return self.correct[self.set.thresholds_m[0]][:, 0]


def evaluate_places(
    model: SegVPR,
    sets: Sequence[EvaluationSet],
    options: EmbeddingOptions,
    keep_descriptors: bool = False,
    retrieval: RetrievalSettings = EXACT,
    store: Path | None = None,
) -> list[SetResult]:
    """Retrieve and score every set; a gallery that serves several sets is embedded and indexed once.

    If several processes share the run, all embed, and only the first searches; the others return nothing.

    Parameters
    ----------
    store : folder in which descriptors and indexes are kept; None keeps them in memory.
    """
    from_first(lambda: check_retrieval(model, sets, retrieval))
    digest = None if store is None else weights_digest(model)

    def embed(images: ImageSet, scale: float, description: str) -> np.ndarray:
        if store is not None:
            kept = DescriptorStore(model, digest, scale, options, store, retrieval.dtype)
            return kept.descriptors(images.paths, description)
        size = np.dtype(retrieval.dtype).itemsize * len(images) * model.descriptor_dim
        if size > MANY_BYTES:
            LOGGER.info(
                "%s: descriptors take %.1f GB of memory; --store DIR keeps them on disk", description, size / 1e9
            )
        return embed_images(model, images.paths, scale, options, description, retrieval.dtype)

    def open_gallery(descriptors: np.ndarray, images: ImageSet) -> SearchableGallery | None:
        with alone():
            return searchable(descriptors, retrieval, images) if is_first() else None

    uses = Counter(map(_gallery_key, sets))
    galleries: dict[tuple, SearchableGallery | None] = {}
    results = []
    for s in sets:
        key = _gallery_key(s)
        if key not in galleries:
            galleries[key] = open_gallery(embed(s.gallery, s.scale, f"{s.name} gallery"), s.gallery)
        queries = embed(s.queries, s.scale, f"{s.name} queries")
        gallery = galleries[key]
        if gallery is not None:
            with alone():
                results.append(retrieve(s, gallery, queries, keep_descriptors))
        uses[key] -= 1
        if not uses[key]:
            del galleries[key]
    return results


def check_retrieval(model: SegVPR, sets: Sequence[EvaluationSet], retrieval: RetrievalSettings) -> None:
    """ValueError if a gallery cannot be searched in this way."""
    for s in sets:
        check_settings(retrieval, model.descriptor_dim, s.gallery.folder, len(s.gallery))


def _gallery_key(s: EvaluationSet) -> tuple:
    return (id(s.gallery), s.scale)


def retrieve(s: EvaluationSet, gallery: SearchableGallery, queries: np.ndarray, keep_descriptors: bool) -> SetResult:
    """Retrieve and score one set."""
    start = time.perf_counter()
    retrieved, descriptor_distance = gallery.search(queries, TOP_K)
    queries_per_s = len(queries) / (time.perf_counter() - start)
    found = retrieved, descriptor_distance
    ratio = place_ratios(gallery.search, s.gallery.positions, queries, apart(s.thresholds_m[0]), found)
    correct = {}
    for threshold in s.thresholds_m:
        correct[threshold], distance_m = correct_matches(s.gallery, s.queries, retrieved, threshold, s.kind.same_camera)
    recalls = {threshold: recall_at(found) for threshold, found in correct.items()}
    kept = (gallery.descriptors, queries) if keep_descriptors else (None, None)
    index = {} if gallery.settings.plain else _index_entries(s, gallery, queries, correct, queries_per_s)
    return SetResult(s, retrieved, descriptor_distance, distance_m, ratio, correct, recalls, *kept, index)


def _index_entries(
    s: EvaluationSet,
    gallery: SearchableGallery,
    queries: np.ndarray,
    correct: dict[float, np.ndarray],
    queries_per_s: float,
) -> dict[float, dict]:
    """What an index costs, and per threshold its recalls beside those of an exact search in the same descriptors."""
    rows = np.arange(len(queries))
    exact = correct
    if gallery.index is not None:
        if len(rows) > COMPARED_QUERIES:
            rows = np.sort(generator(gallery.settings.seed, "compared").choice(rows, COMPARED_QUERIES, replace=False))
        some = replace(s.queries, positions=s.queries.positions[rows], cameras=s.queries.cameras[rows])
        retrieved, _ = gallery.exact(queries[rows], TOP_K)
        exact = {t: correct_matches(s.gallery, some, retrieved, t, s.kind.same_camera)[0] for t in correct}
    cost = gallery.description() | {"queries_per_s": queries_per_s, "compared_queries": len(rows)}
    return {
        t: cost | {"recall": by_rank(recall_at(correct[t][rows])), "exact_recall": by_rank(recall_at(exact[t]))}
        for t in correct
    }


def by_rank(recalls: dict[int, float]) -> dict[str, float]:
    """Recalls as `results.json` has them."""
    return {str(n): value for n, value in recalls.items()}
