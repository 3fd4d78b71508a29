"""The training set as mining and steps see it: which images may be paired, and what each step reads."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from datasets.naming import NEGATIVE_DISTANCE_M, Kind, fingerprint
from datasets.places import ImageSet, Neighbours, neighbours_within
from datasets.reading.triplets import StepPlan, TrainingBatches, Triplets
from utils.system.distributed import own_part
from utils.system.logs import LOGGER
from utils.system.seeding import generator
from utils.training.settings import TrainingSettings


def near_candidates(plan: StepPlan, not_negative: Neighbours) -> Tensor:
    """(Q, Q + N) bool: which positives and negatives of a step are too near a query to count as another place."""
    candidates = [*plan.positives, *(i for negatives in plan.negatives for i in negatives)]
    return torch.from_numpy(np.stack([np.isin(candidates, not_negative[query]) for query in plan.queries]))


def own_plan(plan: StepPlan) -> StepPlan:
    """What this process reads of a step."""
    return StepPlan(*map(own_part, plan))


@dataclass(frozen=True)
class TrainingData:
    """The training set, ready to be mined.

    Attributes
    ----------
    positives, not_negative : per query, gallery images of its place, and those too near to be negatives.
    target_paths : target-domain images, empty without domain adaptation.
    scale : factor by which images are resized for mining.
    """

    gallery: ImageSet
    queries: ImageSet
    kind: Kind
    positives: Neighbours
    not_negative: Neighbours
    target_paths: tuple[str, ...]
    target_fingerprint: str
    scale: float


def prepare_training(
    gallery: ImageSet,
    queries: ImageSet,
    kind: Kind,
    threshold_m: float | None = None,
    target_paths: tuple[str, ...] = (),
    target_folder: str | None = None,
    scale: float | None = None,
) -> TrainingData:
    """Find each query's positives and negatives; ValueError names queries that have none.

    Parameters
    ----------
    threshold_m, scale : default those of the data set's kind.
    """
    threshold_m = kind.train_threshold_m if threshold_m is None else threshold_m
    positives = neighbours_within(gallery, queries, threshold_m, kind.same_camera)
    lonely = np.flatnonzero(positives.counts == 0)
    if len(lonely):
        camera = " of the same camera" if kind.same_camera else ""
        files = ", ".join(queries.paths[i] for i in lonely[:20]) + (", ..." if len(lonely) > 20 else "")
        raise ValueError(
            f"{len(lonely)} of {len(queries)} training queries have no gallery image{camera} within {threshold_m:g} m "
            f"(raise --train_pos_dist_threshold, or leave them out by --on_bad_image skip): {files}"
        )
    far = max(NEGATIVE_DISTANCE_M, threshold_m)
    not_negative = neighbours_within(gallery, queries, far)
    crowded = np.flatnonzero(not_negative.counts == len(gallery))
    if len(crowded):
        raise ValueError(
            f"{queries.paths[crowded[0]]}: no gallery image is farther than {far:g} m, so this query has no negative "
            f"(as {len(crowded)} of {len(queries)} queries); use a larger gallery"
        )
    return TrainingData(
        gallery,
        queries,
        kind,
        positives,
        not_negative,
        target_paths,
        fingerprint(target_folder or ".", target_paths),
        kind.eval_scale if scale is None else scale,
    )


def log_shortages(data: TrainingData, settings: TrainingSettings) -> None:
    """Say where the training set has fewer queries or negatives than the settings ask for."""
    if len(data.queries) < settings.cache_refresh_rate:
        shown = len(data.queries), settings.cache_refresh_rate
        LOGGER.info("%d queries instead of %d per refresh: there are no more", *shown)
    fewest = len(data.gallery) - int(data.not_negative.counts.max())
    wanted = settings.n_neg if settings.mining == "random" else settings.neg_samples
    if fewest < wanted:
        LOGGER.info("fewer than %d negatives for some queries: %d at the least", wanted, fewest)
    if settings.mining == "partial" and settings.cache_negatives < wanted:
        LOGGER.info("%d negatives instead of %d: --cache_negatives is less", settings.cache_negatives, wanted)
    if min(fewest, wanted) < settings.n_neg:
        LOGGER.info("some queries have fewer than %d negatives: theirs are repeated", settings.n_neg)


def training_batches(data: TrainingData, settings: TrainingSettings) -> TrainingBatches:
    """What reads the images of a step, and their labels if there is a semantic loss."""
    return TrainingBatches(
        data.gallery,
        data.queries,
        data.target_paths,
        settings.target_size,
        settings.losses.uses_logits,
        settings.augmentation,
    )


def step_plans(
    triplets: Triplets, data: TrainingData, settings: TrainingSettings, epoch: int, refresh: int
) -> list[StepPlan]:
    """What each step on the triplets of one refresh reads."""
    per_triplet = 2 + settings.n_neg
    before = (epoch * settings.refreshes_per_epoch + refresh) * settings.queries_per_refresh(len(data.queries))
    plans = []
    for start in range(0, len(triplets), settings.batch_size):
        rows = range(start, min(start + settings.batch_size, len(triplets)))
        targets = range((before + rows.start) * per_triplet, (before + rows.stop) * per_triplet)
        plans.append(
            StepPlan(
                tuple(int(triplets.queries[i]) for i in rows),
                tuple(int(triplets.positives[i]) for i in rows),
                tuple(tuple(map(int, triplets.negatives[i])) for i in rows),
                tuple(target_at(n, len(data.target_paths), settings.seed) for n in targets if data.target_paths),
                tuple((settings.seed, epoch, refresh, i) for i in rows),
            )
        )
    return plans


def target_at(n: int, total: int, seed: int) -> int:
    """The target image that is read as the n-th of a run: all of them in a random order, anew at every pass."""
    return int(_target_order(seed, n // total, total)[n % total])


@lru_cache(maxsize=2)
def _target_order(seed: int, which: int, total: int) -> np.ndarray:
    return generator(seed, "target", which).permutation(total)
