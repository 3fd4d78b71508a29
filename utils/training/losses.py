"""The losses of SegVPR, computed in at least float32 (float64 is never cast down)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.domain import SOURCE, TARGET
from models.pooling import widen

IGNORED = 255


def triplet_loss(queries: Tensor, positives: Tensor, negatives: Tensor, margin: float = 0.1) -> Tensor:
    """Mean hinge over all negatives: ``max(0, d(q, p) - d(q, n) + sqrt(margin))``.

    Parameters
    ----------
    queries, positives : (Q, D).
    negatives : (Q * N, D), the N negatives of the first query first.
    margin : as the released `--margin`; its square root is the distance margin.

    Notes
    -----
    Euclidean distance as `torch.nn.TripletMarginLoss` takes it: 1e-6 is added to the difference (protocol, section 5).
    """
    num_negatives = len(negatives) // len(queries)
    queries, positives, negatives = widen(queries), widen(positives), widen(negatives)
    to_positive = F.pairwise_distance(queries, positives).repeat_interleave(num_negatives)
    to_negative = F.pairwise_distance(queries.repeat_interleave(num_negatives, dim=0), negatives)
    return (to_positive - to_negative + margin**0.5).clamp(min=0).mean()


def pair_loss(queries: Tensor, candidates: Tensor, near: Tensor | None = None, temperature: float = 0.05) -> Tensor:
    """InfoNCE in both directions: each query finds its positive among all candidates, and each positive its query.

    Parameters
    ----------
    queries : (Q, D).
    candidates : (Q + N, D), the positives in the order of the queries, then further images.
    near : (Q, Q + N) bool, candidates too near a query to count as another place; its own positive always counts.
    temperature : by which cosine similarities are divided.

    Notes
    -----
    Source: van den Oord et al., 2018, equation 4, with cosine similarity.
    """
    queries, candidates = (F.normalize(widen(x), dim=1) for x in (queries, candidates))
    own = torch.arange(len(queries), device=queries.device)
    similarity = queries @ candidates.T / temperature
    if near is not None:
        others = near.clone()
        others[own, own] = False
        similarity = similarity.masked_fill(others, -torch.inf)
    backwards = similarity[:, : len(queries)].T
    return (F.cross_entropy(similarity, own) + F.cross_entropy(backwards, own)) / 2


def class_weights(counts: Tensor) -> Tensor:
    """Weights (C,) of classes by their pixels `counts` (C,): one over the square root, 1 in the mean over all pixels."""
    weights = counts.clamp(min=1).rsqrt()
    return weights * counts.sum() / (weights * counts).sum().clamp(min=1)


def semantic_loss(
    logits: Tensor, labels: Tensor, pixels: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of (B, C, H, W) against labels (B, H, W) of any integer type, mean over pixels that are not 255.

    A batch in which every pixel is ignored gives 0, not NaN.

    Parameters
    ----------
    pixels : 0-dim number by which the sum is divided, where the batch is part of a larger one; default `count_pixels`.
    weights : (C,) of the classes; default 1 each.
    """
    pixels = count_pixels(labels) if pixels is None else pixels
    total = F.cross_entropy(widen(logits), labels.long(), weights, ignore_index=IGNORED, reduction="sum")
    return total / pixels.clamp(min=1)


def count_classes(labels: Tensor, classes: int) -> Tensor:
    """Pixels of each class, (classes,) float32; 255 is not counted."""
    return torch.bincount(labels.flatten().long(), minlength=IGNORED + 1)[:classes].float()


def count_pixels(labels: Tensor) -> Tensor:
    """Number of pixels that are not 255, 0-dim int64."""
    return (labels != IGNORED).sum()


def class_probabilities(logits: Tensor) -> Tensor:
    """What the discriminator sees: softmax over the classes of (B, C, H, W)."""
    return widen(logits).softmax(dim=1)


def domain_bce(patch_logits: Tensor, domain: float) -> Tensor:
    """Binary cross-entropy of the discriminator's patch logits, any shape, against one domain (source 0, target 1)."""
    patch_logits = widen(patch_logits)
    return F.binary_cross_entropy_with_logits(patch_logits, torch.full_like(patch_logits, domain))


def discriminator_losses(discriminator, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Half the BCE on source and half the BCE on target class probabilities, each (B, C, H, W)."""
    return domain_bce(discriminator(source), SOURCE) / 2, domain_bce(discriminator(target), TARGET) / 2
