"""Recall@N on pairs of gallery and queries, mIoU, and the files that hold the results."""

import csv
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from datasets.naming import CLASS_NAMES, Kind, label_folder, label_path
from datasets.places import ImageSet, correct_matches
from datasets.reading.batches import ImageBatches
from datasets.reading.transforms import image_size
from models.config import MIN_SIDE, NetworkConfig
from models.segvpr import SegVPR
from utils.evaluation.doubts import count_doubts, doubt_lines
from utils.evaluation.metrics import RECALL_AT, ConfusionMatrix, recall_at
from utils.retrieval.embedding import EmbeddingOptions, embed_images, iterate_batches
from utils.retrieval.exact import as_float32
from utils.retrieval.index import SearchableGallery
from utils.retrieval.screening import Screening
from utils.retrieval.settings import EXACT, RetrievalSettings, check_settings
from utils.retrieval.store import folder_of, stored_descriptors, weights_digest
from utils.runs.provenance import provenance
from utils.system.distributed import alone, from_first, is_first, share
from utils.system.logs import LOGGER
from utils.system.seeding import generator
from utils.system.tables import align

TOP_K = max(RECALL_AT)
SEGMENTATION_IMAGES = 500
COMPARED_QUERIES = 1000
"""Looked up by an exact search too, where an index is approximate: at most so many, drawn at random."""
MANY_BYTES = 2_000_000_000
PIXELS_PER_BATCH = 4_000_000
"""Bound on a segmentation batch, so that logits of full-size images fit in memory."""


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
    index : per threshold the `index` entry of `results.json`; empty for the plain exact search.
    """

    set: EvaluationSet
    retrieved: np.ndarray
    descriptor_distance: np.ndarray
    distance_m: np.ndarray
    correct: dict[float, np.ndarray]
    recalls: dict[float, dict[int, float]]
    gallery_descriptors: np.ndarray | None
    query_descriptors: np.ndarray | None
    index: dict[float, dict] = field(default_factory=dict)

    @property
    def recall(self) -> dict[int, float]:
        """Recalls at the set's first threshold."""
        return self.recalls[self.set.thresholds_m[0]]


def evaluate_places(
    model: SegVPR,
    sets: Sequence[EvaluationSet],
    options: EmbeddingOptions,
    keep_descriptors: bool = False,
    retrieval: RetrievalSettings = EXACT,
    store: Path | None = None,
) -> list[SetResult]:
    """Retrieve and score every set; a gallery that serves several sets is embedded and indexed once.

    Where several processes share the run, all embed, and the first alone searches; the others return nothing.

    Parameters
    ----------
    store : folder in which descriptors and indexes are kept; None keeps them in memory.
    """
    from_first(lambda: check_retrieval(model, sets, retrieval))
    digest = None if store is None else weights_digest(model)

    def embed(images: ImageSet, scale: float, description: str) -> np.ndarray:
        if store is not None:
            return stored_descriptors(model, digest, images.paths, scale, options, store, retrieval.dtype, description)
        size = np.dtype(retrieval.dtype).itemsize * len(images) * model.descriptor_dim
        if size > MANY_BYTES:
            LOGGER.info(
                "%s: descriptors take %.1f GB of memory; --store DIR keeps them on disk", description, size / 1e9
            )
        return embed_images(model, images.paths, scale, options, description, retrieval.dtype)

    def open_gallery(descriptors: np.ndarray) -> SearchableGallery | None:
        with alone():
            return SearchableGallery(descriptors, retrieval, folder_of(descriptors)) if is_first() else None

    uses = Counter(_gallery_key(s) for s in sets)
    galleries: dict[tuple, SearchableGallery | None] = {}
    results = []
    for s in sets:
        key = _gallery_key(s)
        if key not in galleries:
            galleries[key] = open_gallery(embed(s.gallery, s.scale, f"{s.name} gallery"))
        queries = embed(s.queries, s.scale, f"{s.name} queries")
        gallery = galleries[key]
        if gallery is None:
            continue
        with alone():
            start = time.perf_counter()
            retrieved, descriptor_distance = gallery.search(queries, TOP_K)
            seconds = time.perf_counter() - start
        correct, recalls = {}, {}
        for threshold in s.thresholds_m:
            correct[threshold], distance_m = correct_matches(
                s.gallery, s.queries, retrieved, threshold, s.kind.same_camera
            )
            recalls[threshold] = recall_at(correct[threshold])
        kept = (gallery.descriptors, queries) if keep_descriptors else (None, None)
        with alone():
            index = {} if retrieval.plain else _index_entries(s, gallery, queries, correct, len(queries) / seconds)
        results.append(SetResult(s, retrieved, descriptor_distance, distance_m, correct, recalls, *kept, index))
        uses[key] -= 1
        if not uses[key]:
            del galleries[key]
    return results


def check_retrieval(model: SegVPR, sets: Sequence[EvaluationSet], retrieval: RetrievalSettings) -> None:
    """ValueError where a gallery cannot be searched in this way."""
    for s in sets:
        check_settings(retrieval, model.descriptor_dim, s.gallery.folder, len(s.gallery))


def _gallery_key(s: EvaluationSet) -> tuple:
    return (id(s.gallery), s.scale)


def _index_entries(
    s: EvaluationSet,
    gallery: SearchableGallery,
    queries: np.ndarray,
    correct: dict[float, np.ndarray],
    queries_per_s: float,
) -> dict[float, dict]:
    """What an index costs, and per threshold its recalls beside those of an exact search in the same descriptors."""
    rows = np.arange(len(queries))
    if len(rows) > COMPARED_QUERIES:
        rows = np.sort(generator(gallery.settings.seed, "compared").choice(rows, COMPARED_QUERIES, replace=False))
    if gallery.index is None:
        exact = correct
        rows = np.arange(len(queries))
    else:
        some = replace(s.queries, positions=s.queries.positions[rows], cameras=s.queries.cameras[rows])
        retrieved, _ = gallery.exact(queries[rows], TOP_K)
        exact = {t: correct_matches(s.gallery, some, retrieved, t, s.kind.same_camera)[0] for t in correct}
    cost = gallery.description() | {"queries_per_s": queries_per_s, "compared_queries": len(rows)}
    return {
        t: cost | {"recall": _by_rank(recall_at(correct[t][rows])), "exact_recall": _by_rank(recall_at(exact[t]))}
        for t in correct
    }


def _by_rank(recalls: dict[int, float]) -> dict[str, float]:
    return {str(n): value for n, value in recalls.items()}


def semantic_subset(images: ImageSet, rng: np.random.Generator, count: int = SEGMENTATION_IMAGES) -> tuple[str, ...]:
    """`count` labelled images drawn at random (all, where there are fewer); none where they have no label folder."""
    labelled = [path for path in images.paths if label_folder(str(Path(path).parent))]
    if len(labelled) <= count:
        return tuple(labelled)
    return tuple(labelled[i] for i in np.sort(rng.choice(len(labelled), count, replace=False)))


def labelled_images(sets: Sequence[EvaluationSet], seed: int, screening: Screening) -> tuple[str, ...]:
    """The validation gallery's images on which mIoU is measured, drawn once per run; none without a validation set."""
    if not sets or sets[0].name != "val":
        return ()
    labelled = semantic_subset(sets[0].gallery, generator(seed, "semantic validation"))
    labelled = screening.usable_paths(labelled, MIN_SIDE, with_labels=True)
    for path in labelled:
        label_path(path)  # a missing one is found now, not after an epoch
    if 0 < len(labelled) < SEGMENTATION_IMAGES:
        LOGGER.info(
            "%d semantic validation images instead of %d: there are no more", len(labelled), SEGMENTATION_IMAGES
        )
    if not labelled:
        LOGGER.info("the validation gallery has no labels: mIoU is skipped")
    return labelled


def score(
    model: SegVPR, sets: Sequence[EvaluationSet], labelled: Sequence[str], options: EmbeddingOptions
) -> tuple[float | None, dict[str, float]]:
    """Validation recall@1 (None without a validation set), which decides, and all figures of one epoch in percent."""
    results = evaluate_places(model, sets, options)
    results = from_first(lambda: [(r.set.name, r.recall) for r in results])
    figures = {f"{name}_recall@{n}": 100 * value for name, recall in results for n, value in recall.items()}
    if labelled:
        figures["miou"] = 100 * evaluate_segmentation(model, labelled, options).mean_iou()
    validation = [recall[1] for name, recall in results if name == "val"]
    return (validation[0] if validation else None), figures


@torch.inference_mode()
def evaluate_segmentation(model: SegVPR, paths: Sequence[str], options: EmbeddingOptions) -> ConfusionMatrix:
    """Confusion matrix of unweighted predictions on labelled images at full size; several processes share the images."""
    was_training = model.training
    model.eval()
    width, height = image_size(paths[0])
    batch_size = max(1, min(options.batch_size, PIXELS_PER_BATCH // (width * height)))
    confusion = ConfusionMatrix(model.config.num_classes)
    own = share(len(paths), batch_size)
    dataset = ImageBatches(paths[own.start : own.stop], with_labels=True)
    for batch in iterate_batches(dataset, batch_size, options.num_workers, "segmentation", options.compute.device):
        with options.compute.autocast():
            predictions = model.segment(model.prepare(batch.images)).argmax(dim=1)
        confusion.update(predictions, batch.labels.to(predictions.device))
    confusion.sum_over_processes()
    model.train(was_training)
    return confusion


class Evaluation(NamedTuple):
    """All that an evaluation found: the content of `results.json`, what was retrieved, and the confusion of classes."""

    content: dict
    results: list[SetResult]
    confusion: ConfusionMatrix | None


def evaluate_and_write(
    model: SegVPR,
    checkpoint: str | Path,
    sets: Sequence[EvaluationSet],
    labelled: Sequence[str],
    options: EmbeddingOptions,
    folder: Path,
    save_descriptors: bool = False,
    retrieval: RetrievalSettings = EXACT,
    store: Path | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Evaluation | None:
    """Evaluate, print the table and write all result files into `folder`; of several processes, the first writes and returns.

    Parameters
    ----------
    flags : value of every flag, which `results.json` keeps beside versions and commit.
    """
    results = evaluate_places(model, sets, options, save_descriptors, retrieval, store)
    confusion = evaluate_segmentation(model, labelled, options) if labelled else None
    if not is_first():
        return None
    content = results_dict(str(checkpoint), model.config, results, confusion) | provenance(flags or {})
    write_results(folder, content, results)
    if confusion is not None:
        log_segmentation(confusion)
    LOGGER.info("%s\n%s", folder / "results.json", format_table(content))
    return Evaluation(content, results, confusion)


def class_names(num_classes: int) -> list[str]:
    return list(CLASS_NAMES) if num_classes == len(CLASS_NAMES) else [f"class {i}" for i in range(num_classes)]


def results_dict(
    checkpoint: str, config: NetworkConfig, results: Sequence[SetResult], confusion: ConfusionMatrix | None
) -> dict:
    """The content of `results.json`; recalls and IoU as fractions."""
    sets = [
        {
            "name": result.set.name,
            "gallery": result.set.gallery.folder,
            "queries": result.set.queries.folder,
            "num_gallery": len(result.set.gallery),
            "num_queries": len(result.set.queries),
            "threshold_m": threshold,
            "recall": _by_rank(recalls),
        }
        | count_doubts(result.set.gallery, result.set.queries, threshold, result.set.kind.same_camera)
        | ({"index": result.index[threshold]} if result.index else {})
        for result in results
        for threshold, recalls in result.recalls.items()
    ]
    segmentation = None
    if confusion is not None:
        iou = confusion.class_iou()
        named = zip(class_names(len(iou)), iou)
        miou = confusion.mean_iou()
        segmentation = {
            "miou": miou if np.isfinite(miou) else None,
            "class_iou": {name: None if np.isnan(value) else float(value) for name, value in named},
        }
    return {
        "checkpoint": checkpoint,
        "arch": config.arch,
        "semnet": config.semnet,
        "sets": sets,
        "segmentation": segmentation,
    }


def write_results(folder: Path, content: dict, results: Sequence[SetResult]) -> None:
    """Write `predictions/<name>.csv`, where descriptors were kept `descriptors/<name>.npz`, and last `results.json`."""
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    for result in results:
        _write_predictions(folder / "predictions" / f"{file_name(result.set.name)}.csv", result)
        if result.query_descriptors is not None:
            (folder / "descriptors").mkdir(exist_ok=True)
            np.savez(
                folder / "descriptors" / f"{file_name(result.set.name)}.npz",
                gallery=as_float32(result.gallery_descriptors),
                queries=as_float32(result.query_descriptors),
                gallery_paths=np.array(result.set.gallery.paths),
                query_paths=np.array(result.set.queries.paths),
            )
    # last: a folder that has it is whole
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")


def file_name(set_name: str) -> str:
    """A set's name as a file name: `town10/queries_rain` -> `town10_queries_rain`."""
    return set_name.strip("/").replace("/", "_")


def _write_predictions(path: Path, result: SetResult) -> None:
    """One row per query and rank; `correct` is judged at the set's first threshold."""
    s = result.set
    correct = result.correct[s.thresholds_m[0]]
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "rank", "path", "descriptor_distance", "distance_m", "correct"])
        for q, query in enumerate(s.queries.paths):
            for k, g in enumerate(result.retrieved[q]):
                distances = f"{result.descriptor_distance[q, k]:.6g}", f"{result.distance_m[q, k]:.3f}"
                writer.writerow([query, k + 1, s.gallery.paths[g], *distances, int(correct[q, k])])


def format_table(content: dict) -> str:
    """The recalls of `results_dict` as text, in percent, and the mIoU below."""
    header = ["set", "queries", "gallery", "within", *(f"R@{n}" for n in RECALL_AT)]
    rows = [
        [s["name"], str(s["num_queries"]), str(s["num_gallery"]), f"{s['threshold_m']:g} m"]
        + [f"{100 * s['recall'][str(n)]:.1f}" for n in RECALL_AT]
        for s in content["sets"]
    ]
    lines = align([header, *rows]) if rows else []
    lines += [line for s in content["sets"] for line in doubt_lines(s)]
    if any("index" in s for s in content["sets"]):
        lines += ["", *_index_table(content["sets"]), ""]
    if content["segmentation"] and content["segmentation"]["miou"] is not None:
        lines.append(f"segmentation: mIoU {100 * content['segmentation']['miou']:.1f}%")
    return "\n".join(lines)


def _index_table(sets: list[dict]) -> list[str]:
    """What the index of each set found of what an exact search finds, and what it costs."""
    first = sets[0]["index"]
    about = [f"index {first['factory']}"]
    about += [f"PCA to {first['pca_dim']}{', whitened' if first['pca_whiten'] else ''}"] if first["pca_dim"] else []
    about += [first["descriptor_dtype"], "beside an exact search in the same descriptors"]
    header = ["set", "within", "nprobe", "compared"]
    header += [word for n in RECALL_AT for word in (f"R@{n}", "exact")] + ["bytes/image", "build s", "queries/s"]
    rows = []
    for s in sets:
        index = s["index"]
        recalls = [f"{100 * index[which][str(n)]:.1f}" for n in RECALL_AT for which in ("recall", "exact_recall")]
        cost = [f"{index['bytes_per_image']:.1f}", f"{index['build_s']:.2f}", f"{index['queries_per_s']:.0f}"]
        probed = "-" if index["nprobe"] is None else str(index["nprobe"])
        rows.append([s["name"], f"{s['threshold_m']:g} m", probed, str(index["compared_queries"]), *recalls, *cost])
    return ["; ".join(about), *align([header, *rows])]


def log_segmentation(confusion: ConfusionMatrix) -> None:
    """Log the IoU of every class."""
    iou = confusion.class_iou()
    shown = (f"{name} {'-' if np.isnan(v) else f'{100 * v:.1f}'}" for name, v in zip(class_names(len(iou)), iou))
    LOGGER.info("IoU per class in percent: %s", ", ".join(shown))
