"""Recall@N and segmentation scores."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from utils.system.distributed import sum_tensors

RECALL_AT = (1, 5, 10, 20)
PRECISIONS = (1.0, 0.99, 0.95)
"""At which recall is given, for answers that may be withheld."""


def recall_at(correct: np.ndarray, ns: Sequence[int] = RECALL_AT) -> dict[int, float]:
    """Fraction of queries with a correct image among their first N.

    Parameters
    ----------
    correct : (Q, K) bool; whether the k-th retrieved image shows the query's place. A query without any positive is a row
        of False, so it counts as a miss.
    """
    if len(correct) == 0:
        raise ValueError("recall needs at least one query")
    found = np.maximum.accumulate(correct, axis=1)
    return {n: float(found[:, min(n, found.shape[1]) - 1].mean()) for n in ns}


def precision_recall(ratios: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is gained by answering only the queries that are sure, from the surest on.

    Parameters
    ----------
    ratios : (Q,) small where the match is sure, see `utils.retrieval.confidence`; NaN is the least sure.
    right : (Q,) bool, whether the first match is right.

    Returns
    -------
    precision : right among the answers given.
    recall : right answers among all queries; the last one is recall@1.
    ratio : the largest that is answered (N,); queries of one ratio are answered together.
    """
    ratios = np.where(np.isnan(ratios), np.inf, ratios)
    order = np.argsort(ratios, kind="stable")
    ratios, hits = ratios[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.append(ratios[1:] != ratios[:-1], True))
    return hits[ends] / (ends + 1), hits[ends] / len(right), ratios[ends]


def recall_at_precision(ratios: np.ndarray, right: np.ndarray, least: float) -> tuple[float, float | None]:
    """Most right answers, as a share of all queries, at a precision of `least` or more, and the ratio up to which to answer.

    0 and None where no ratio gives that precision. Arguments as of `precision_recall`.
    """
    precision, recall, ratio = precision_recall(ratios, right)
    enough = np.flatnonzero((precision >= least) & np.isfinite(ratio))
    return (float(recall[enough[-1]]), float(ratio[enough[-1]])) if len(enough) else (0.0, None)


class ConfusionMatrix:
    """Counts of (label, prediction) pairs over a whole set, kept on the device of the predictions."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: Tensor | None = None

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add integer class maps of any equal shape; labels outside 0..num_classes-1 (255) are ignored."""
        predictions, labels = predictions.flatten().long(), labels.flatten().long()
        valid = labels < self.num_classes
        pairs = labels[valid] * self.num_classes + predictions[valid]
        counts = torch.bincount(pairs, minlength=self.num_classes**2).view(self.num_classes, self.num_classes)
        self.counts = counts if self.counts is None else self.counts + counts

    def sum_over_processes(self) -> None:
        """Add up what the processes of a run counted, each on its share of the images."""
        self.counts = torch.from_numpy(self.matrix)
        sum_tensors([self.counts], patient=True)

    @property
    def matrix(self) -> np.ndarray:
        """(classes, classes) int64: rows are labels, columns predictions."""
        if self.counts is None:
            return np.zeros((self.num_classes, self.num_classes), np.int64)
        return self.counts.cpu().numpy()

    def class_iou(self) -> np.ndarray:
        """(classes,) intersection over union, 0..1; NaN for a class that no label shows."""
        matrix = self.matrix.astype(np.float64)
        hits, labelled, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = hits / (labelled + predicted - hits)
        return np.where(labelled > 0, iou, np.nan)

    def mean_iou(self) -> float:
        """Mean over the classes present in the labels, 0..1; NaN if there are none."""
        iou = self.class_iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")
