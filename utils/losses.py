"""The losses of SegVPR, computed in at least float32 (float64 is never cast down), and what they weigh."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.domain import SOURCE, TARGET
from models.pooling import widen

IGNORED = 255
DA_METHODS = ("grl", "alternating", "none")
GRL_SCHEDULES = ("constant", "dann")


@dataclass(frozen=True)
class LossSettings:
    """What the losses weigh (released defaults) and how the domains are adapted.

    `margin` is the square of the distance margin, as in the released parser. Without a semantic loss there is nothing that
    domain adaptation could move (`sem_weight` is a factor of its gradient), so both are left out together.
    """

    margin: float = 0.1
    sem_weight: float = 0.5
    adv_weight: float = 0.001
    da_weight: float = 0.5
    da_method: str = "grl"
    grl_schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.da_method not in DA_METHODS:
            raise ValueError(f"da_method: {self.da_method!r} is not one of {', '.join(DA_METHODS)}")
        if self.grl_schedule not in GRL_SCHEDULES:
            raise ValueError(f"grl_schedule: {self.grl_schedule!r} is not one of {', '.join(GRL_SCHEDULES)}")
        if self.da_method == "grl" and not self.da_weight > 0:
            raise ValueError("da_loss_weight: must be above 0 with da_method grl, whose reversal factor it divides")
        if self.margin < 0:
            raise ValueError(f"margin: {self.margin} is negative; its square root is the loss margin")

    def reversal_factor(self, progress: float = 1.0) -> float:
        """Scale of the reversed gradient, so that the network receives sem_weight * adv_weight of dL.

        Parameters
        ----------
        progress : share of the training that is done, 0 to 1; `dann` multiplies by 2 / (1 + exp(-10 progress)) - 1 (Ganin et
            al., JMLR 2016, section 5.2), `constant` does not look at it.
        """
        factor = self.sem_weight * self.adv_weight / self.da_weight
        return factor * math.tanh(5 * progress) if self.grl_schedule == "dann" else factor

    @property
    def uses_logits(self) -> bool:
        return self.sem_weight != 0

    @property
    def uses_target(self) -> bool:
        return self.da_method != "none" and self.uses_logits


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


def semantic_loss(logits: Tensor, labels: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Cross-entropy of (B, C, H, W) against labels (B, H, W) of any integer type, mean over pixels that are not 255.

    A batch in which every pixel is ignored gives 0, not NaN.

    Parameters
    ----------
    pixels : 0-dim number by which the sum is divided, where the batch is part of a larger one; default `count_pixels`.
    """
    pixels = count_pixels(labels) if pixels is None else pixels
    total = F.cross_entropy(widen(logits), labels.long(), ignore_index=IGNORED, reduction="sum")
    return total / pixels.clamp(min=1)


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
