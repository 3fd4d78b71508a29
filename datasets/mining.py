"""Mining of hard triplets: the images that a refresh looks at, and the choice among them by distance of descriptors.

`full` mining looks at the whole gallery. `partial` looks at the positives, the remembered negatives and a random part of the
gallery. `random` needs no descriptors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.places import Neighbours
from datasets.reading.triplets import Triplets

MOST_QUERIES, MOST_DISTANCES = 1024, 2**24
"""Most queries compared with the gallery at once, and most distances in memory (64 MB)."""


def generator_of(key: int, query: int | None = None) -> np.random.Generator:
    """The random numbers of one query, or of the pool, in one refresh; they depend on nothing else.

    Parameters
    ----------
    key : number of the refresh, at most 64 bits.
    query : None for the pool.
    """
    return np.random.default_rng([key, 0 if query is None else query + 1])


def draw_negatives(rng: np.random.Generator, size: int, excluded: np.ndarray, count: int) -> np.ndarray:
    """`count` of the numbers 0 ... size - 1 that are not excluded, uniformly without replacement; all if fewer are left.

    Parameters
    ----------
    excluded : ascending.
    """
    left = size - len(excluded)
    ranks = rng.choice(left, min(count, left), replace=False, shuffle=False)
    # the k-th number that is left is k + (how many of the excluded e_0, e_1, ... have e_j - j <= k)
    return ranks + np.searchsorted(excluded - np.arange(len(excluded)), ranks, side="right")


@dataclass(frozen=True)
class MiningPlan:
    """The images that one refresh looks at.

    Attributes
    ----------
    queries : (T,) indexes of the drawn queries.
    pool : (P,) gallery images that random negatives are drawn from, ascending.
    kept : (T, K) further candidates for each query's negatives, -1 for none.
    images : (M,) gallery images whose descriptors are needed, ascending.
    """

    queries: np.ndarray
    pool: np.ndarray
    kept: np.ndarray
    images: np.ndarray


def plan_mining(
    queries: np.ndarray,
    gallery_size: int,
    positives: Neighbours,
    not_negative: Neighbours,
    hardest: np.ndarray,
    key: int,
    cache_negatives: int | None = None,
) -> MiningPlan:
    """Full mining (every gallery image), or partial: positives, remembered negatives, and a random part of the gallery.

    Parameters
    ----------
    queries : (T,) indexes of the drawn queries.
    positives, not_negative : per query of the whole set, the gallery images of its place, and those too near for negatives.
    hardest : (all queries, N) gallery indexes of the negatives chosen last, -1 for none.
    key : number of the refresh, at most 64 bits.
    cache_negatives : size of the random part, drawn anew in every refresh; None for the whole gallery.

    Notes
    -----
    A query with fewer than N negatives in the random part gets N more from the whole gallery.
    """
    kept = hardest[queries]
    if cache_negatives is None or cache_negatives >= gallery_size:
        gallery = np.arange(gallery_size)
        return MiningPlan(queries, gallery, kept, gallery)
    pool = np.sort(generator_of(key).choice(gallery_size, cache_negatives, replace=False))
    num_negatives = hardest.shape[1]
    more = np.full(kept.shape, -1, np.int64)
    in_pool = len(pool) - not_negative.of(queries).within(pool).counts
    for t in np.flatnonzero(in_pool < num_negatives):
        query = queries[t]
        drawn = draw_negatives(generator_of(key, query), gallery_size, not_negative[query], num_negatives)
        more[t, : len(drawn)] = drawn
    kept = np.concatenate([kept, more], 1)
    images = np.unique(np.concatenate([pool, positives.of(queries).indexes, kept.ravel()]))
    return MiningPlan(queries, pool, kept, images[images >= 0])


def random_triplets(
    queries: np.ndarray,
    gallery_size: int,
    positives: Neighbours,
    not_negative: Neighbours,
    num_negatives: int,
    key: int,
) -> Triplets:
    """A random image of the same place and random negatives for each query; too few negatives are repeated."""
    chosen = np.empty(len(queries), np.int64)
    negatives = np.empty((len(queries), num_negatives), np.int64)
    for t, query in enumerate(queries):
        rng = generator_of(key, query)
        chosen[t] = rng.choice(positives[query])
        drawn = draw_negatives(rng, gallery_size, not_negative[query], num_negatives)
        negatives[t] = np.resize(drawn, num_negatives)
    return Triplets(np.asarray(queries, np.int64), chosen, negatives)


def mine_triplets(
    plan: MiningPlan,
    query_descriptors: np.ndarray | Tensor,
    gallery_descriptors: np.ndarray | Tensor,
    positives: Neighbours,
    not_negative: Neighbours,
    key: int,
    num_negatives: int = 1,
    neg_samples: int = 1000,
    device: torch.device | str = "cpu",
    block: int | None = None,
    chunk: int = 8192,
) -> Triplets:
    """Choose each query's positive and negatives by descriptor distance (protocol, section 5).

    Parameters
    ----------
    query_descriptors, gallery_descriptors : (T, D) of `plan.queries` and (M, D) of `plan.images`, float32 or float16.
    positives, not_negative : as for `plan_mining`.
    key : number of the refresh, at most 64 bits.
    neg_samples : random negatives. Of these and the kept ones, the `num_negatives` nearest are taken; too few are repeated.
    device : computes the distances; the descriptors stay on theirs.
    block, chunk : queries and gallery images compared at once; the default block follows from `MOST_DISTANCES`.

    Notes
    -----
    Distances come from a matrix product in float32 of centred descriptors. If two images differ by less than its rounding,
    either may be taken.

    Memory beyond the descriptors is at most about 4 block (M + chunk) + 16 (block + chunk) D + 32 block C bytes. C is the
    number of candidates of a query: `neg_samples` and the kept ones, or its positives if these are more.
    """
    gallery, everything = torch.as_tensor(gallery_descriptors), torch.as_tensor(query_descriptors)
    centre = everything.float().mean(0).to(device)  # centred, a product loses less to rounding
    near = not_negative.of(plan.queries).within(plan.pool)
    column_of = np.zeros(plan.images[-1] + 1, np.int64)
    column_of[plan.images] = np.arange(len(plan.images))
    block = block or max(1, min(MOST_QUERIES, MOST_DISTANCES // len(gallery)))
    chosen = []
    for start in range(0, len(plan.queries), block):
        part = range(start, min(start + block, len(plan.queries)))
        distances = _distances(everything[part.start : part.stop], gallery, centre, chunk)
        same_place = [column_of[positives[plan.queries[t]]] for t in part]
        negatives = [column_of[_candidates(plan, t, near[t], key, neg_samples)] for t in part]
        chosen.append(torch.cat([_nearest(distances, same_place, 1), _nearest(distances, negatives, num_negatives)], 1))
        del distances  # before the next block's are made
    images = plan.images[torch.cat(chosen).cpu().numpy()]
    return Triplets(np.asarray(plan.queries, np.int64), images[:, 0].copy(), images[:, 1:].copy())


def _candidates(plan: MiningPlan, t: int, near: np.ndarray, key: int, neg_samples: int) -> np.ndarray:
    """The candidates for negatives of the plan's query `t`: random gallery images and kept ones, each once.

    Parameters
    ----------
    near : places in the pool of the images too near to be negatives.
    """
    drawn = plan.pool[draw_negatives(generator_of(key, plan.queries[t]), len(plan.pool), near, neg_samples)]
    kept = plan.kept[t]
    return np.union1d(drawn, kept[kept >= 0])


def _distances(queries: Tensor, gallery: Tensor, centre: Tensor, chunk: int) -> Tensor:
    """Euclidean distances (b, M) of descriptors (b, D) and (M, D), on the device of `centre` (D,)."""
    x = queries.to(centre.device, torch.float32) - centre
    found = torch.empty(len(x), len(gallery), device=x.device)
    for start in range(0, len(gallery), chunk):
        y = gallery[start : start + chunk].to(x.device, torch.float32) - centre
        found[:, start : start + chunk] = torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")
    return found


def _nearest(distances: Tensor, candidates: list[np.ndarray], count: int) -> Tensor:
    """For each row of `distances` (b, M) the `count` nearest of its candidates, nearest first; too few are repeated.

    Parameters
    ----------
    candidates : b lists of columns, none of them empty.
    """
    table = np.full((len(candidates), max(map(len, candidates))), -1)
    for row, columns in zip(table, candidates):
        row[: len(columns)] = columns
    columns = torch.from_numpy(table).to(distances.device)
    found = distances.gather(1, columns.clamp(min=0)).masked_fill_(columns < 0, torch.inf)
    lowest, at = found.topk(min(count, table.shape[1]), largest=False)
    there = lowest.isfinite().sum(1, keepdim=True)
    return columns.gather(1, at.gather(1, torch.arange(count, device=at.device) % there))
