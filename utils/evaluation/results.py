"""What an evaluation found, as `results.json`, as files of predictions, and as a table."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.files import write_text, write_whole
from datasets.naming import class_names
from datasets.pairs import shared_files, without_positive
from datasets.places import ImageSet
from models.config import NetworkConfig
from models.segvpr import SegVPR
from utils.evaluation.metrics import PRECISIONS, RECALL_AT, ConfusionMatrix, recall_at_precision
from utils.evaluation.recall import EvaluationSet, SetResult, by_rank, evaluate_places
from utils.evaluation.segmentation import evaluate_segmentation, log_segmentation
from utils.retrieval.embedding import EmbeddingOptions
from utils.retrieval.exact import as_float32
from utils.retrieval.settings import EXACT, RetrievalSettings
from utils.runs.provenance import provenance
from utils.system.distributed import from_first, is_first
from utils.system.logs import LOGGER
from utils.system.tables import align


class Evaluation(NamedTuple):
    """All that an evaluation found: the content of `results.json`, what was retrieved, and the confusion of classes."""

    content: dict
    results: list[SetResult]
    confusion: ConfusionMatrix | None


class Measured(NamedTuple):
    """What a network retrieved in each set (nothing where another process searches), and its confusion of classes."""

    results: list[SetResult]
    confusion: ConfusionMatrix | None


def measure(
    model: SegVPR,
    sets: Sequence[EvaluationSet],
    labelled: Sequence[str],
    options: EmbeddingOptions,
    save_descriptors: bool = False,
    retrieval: RetrievalSettings = EXACT,
    store: Path | None = None,
) -> Measured:
    """Retrieve all sets, and segment the labelled images if there are any; several processes share the work."""
    results = evaluate_places(model, sets, options, save_descriptors, retrieval, store)
    return Measured(results, evaluate_segmentation(model, labelled, options) if labelled else None)


def score(measured: Measured) -> tuple[float | None, dict[str, float]]:
    """Validation recall@1, by which the best epoch is chosen (None without a validation set), and all figures in percent."""
    recalls = from_first(lambda: {r.set.name: r.recall for r in measured.results})
    figures = {f"{name}_recall@{n}": 100 * value for name, recall in recalls.items() for n, value in recall.items()}
    if measured.confusion is not None:
        figures["miou"] = 100 * measured.confusion.mean_iou()
    return (recalls["val"][1] if "val" in recalls else None), figures


def write_evaluation(
    checkpoint: str,
    config: NetworkConfig | None,
    results: list[SetResult],
    confusion: ConfusionMatrix | None,
    folder: Path,
    flags: Mapping[str, Any],
) -> Evaluation | None:
    """Print the table and write all result files into `folder`; of several processes, the first does so and returns.

    Parameters
    ----------
    checkpoint, config, results, confusion : as of `results_dict`.
    flags : value of every flag, which `results.json` keeps beside versions and commit.
    """
    if not is_first():
        return None
    content = results_dict(checkpoint, config, results, confusion) | provenance(flags)
    write_results(folder, content, results)
    if confusion is not None:
        log_segmentation(confusion)
    LOGGER.info("%s\n%s", folder / "results.json", format_table(content))
    return Evaluation(content, results, confusion)


def results_dict(
    checkpoint: str, config: NetworkConfig | None, results: Sequence[SetResult], confusion: ConfusionMatrix | None
) -> dict:
    """The content of `results.json`; recalls and IoU as fractions.

    Parameters
    ----------
    checkpoint, config : the network's; or the files of given descriptors, and None.
    """
    return {
        "checkpoint": checkpoint,
        "arch": config and config.arch,
        "semnet": config and config.semnet,
        "sets": [_set_entry(result, threshold) for result in results for threshold in result.recalls],
        "segmentation": None if confusion is None else _segmentation_entry(confusion),
    }


def _set_entry(result: SetResult, threshold_m: float) -> dict:
    s = result.set
    entry = {
        "name": s.name,
        "gallery": s.gallery.folder,
        "queries": s.queries.folder,
        "num_gallery": len(s.gallery),
        "num_queries": len(s.queries),
        "threshold_m": threshold_m,
        "recall": by_rank(result.recalls[threshold_m]),
        "recall_at_precision": recalls_at_precision(result, threshold_m),
        **count_doubts(s.gallery, s.queries, threshold_m, s.kind.same_camera),
    }
    return entry | ({"index": result.index[threshold_m]} if result.index else {})


def recalls_at_precision(result: SetResult, threshold_m: float) -> dict[str, float]:
    """Right answers as a share of all queries, where only sure ones are given, by precision."""
    right = result.correct[threshold_m][:, 0]
    return {f"{precision:g}": recall_at_precision(result.ratio, right, precision)[0] for precision in PRECISIONS}


def _segmentation_entry(confusion: ConfusionMatrix) -> dict:
    def plain(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    iou = confusion.class_iou()
    by_class = {name: plain(value) for name, value in zip(class_names(len(iou)), iou)}
    return {"miou": plain(confusion.mean_iou()), "class_iou": by_class}


def count_doubts(gallery: ImageSet, queries: ImageSet, threshold_m: float, same_camera: bool) -> dict[str, int]:
    """How many queries have no gallery image of their place, and how many are in the gallery too; zeros are left out."""
    counts = {
        "queries_without_positive": len(without_positive(gallery, queries, threshold_m, same_camera)),
        "queries_in_gallery": len(shared_files(gallery.paths, queries.paths)),
    }
    return {name: count for name, count in counts.items() if count}


def doubt_lines(entry: dict) -> list[str]:
    """The counts of `count_doubts` in words, for a set's entry in `results.json`."""
    lines, of = [], f"of {entry['num_queries']} queries"
    if lacking := entry.get("queries_without_positive"):
        within = f"within {entry['threshold_m']:g} m"
        lines.append(
            f"{entry['name']}: {lacking} {of} have no gallery image of their place {within}: they count as misses"
        )
    if shared := entry.get("queries_in_gallery"):
        lines.append(f"{entry['name']}: {shared} {of} are in the gallery too: each finds itself, so recall is too high")
    return lines


def write_results(folder: Path, content: dict, results: Sequence[SetResult]) -> None:
    """Write `predictions/<name>.csv`, `descriptors/<name>.npz` if descriptors were kept, and last `results.json`."""
    for result in results:
        predictions = folder / "predictions" / f"{file_name(result.set.name)}.csv"
        write_whole(predictions, lambda part, result=result: _write_predictions(part, result))
        if result.query_descriptors is not None:
            descriptors = folder / "descriptors" / f"{file_name(result.set.name)}.npz"
            write_whole(descriptors, lambda part, result=result: _write_descriptors(part, result))
    # last: a folder that has it is whole
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n")


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


def _write_descriptors(path: Path, result: SetResult) -> None:
    with open(path, "wb") as file:
        np.savez(
            file,
            gallery=as_float32(result.gallery_descriptors),
            queries=as_float32(result.query_descriptors),
            gallery_paths=np.array(result.set.gallery.paths),
            query_paths=np.array(result.set.queries.paths),
        )


def format_table(content: dict) -> str:
    """The recalls of `results_dict` as text, in percent, and the mIoU below."""
    sets = content["sets"]
    header = ["set", "queries", "gallery", "within", *(f"R@{n}" for n in RECALL_AT)]
    rows = [
        [s["name"], str(s["num_queries"]), str(s["num_gallery"]), f"{s['threshold_m']:g} m"]
        + [f"{100 * s['recall'][str(n)]:.1f}" for n in RECALL_AT]
        for s in sets
    ]
    lines = align([header, *rows]) if rows else []
    lines += [line for s in sets for line in doubt_lines(s)]
    if sets and "index" in sets[0]:
        lines += ["", *_index_table(sets), ""]
    if content["segmentation"] and content["segmentation"]["miou"] is not None:
        lines.append(f"segmentation: mIoU {100 * content['segmentation']['miou']:.1f}%")
    return "\n".join(lines)


def _index_table(sets: list[dict]) -> list[str]:
    """Recalls of each set's index beside those of an exact search, and what the index costs."""
    first = sets[0]["index"]
    about = [f"index {first['factory']}{' in Milvus' if first['engine'] else ''}"]
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
