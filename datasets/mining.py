"""Mining of hard triplets: what a refresh looks at, and the choice among it by distance of descriptors.

`full` mining looks at the whole gallery; `partial` at the positives, the remembered negatives and a random part of the gallery,
among which negatives are drawn; `random` at no descriptor: its triplets are drawn alone.

Random choices come from one stream of numbers per query, so that they depend on nothing but (key, query index).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.places import Neighbours
from datasets.triplets import Triplets

MINING_MODES = ("full", "partial", "random")
DESCRIPTOR_DTYPES = ("float32", "float16")
_SPARE = 3
"""Images on a shortlist beyond those wanted; where rounding leaves more in doubt, all candidates are compared exactly."""


# -- random numbers -----------------------------------------------------------------------------------------------------


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): uint64 -> uint64 that pass for independent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _stream(key: int, queries: np.ndarray, count: int) -> np.ndarray:
    """The first `count` numbers of each query's own SplitMix64 stream: (T, count) uint64."""
    step = np.uint64(0x9E3779B97F4A7C15)
    start = _mix(np.array([key], np.uint64) + step * (queries.astype(np.uint64) + np.uint64(1)))
    return _mix(start[:, None] + step * np.arange(1, count + 1, dtype=np.uint64))


def _below(bits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Random bits (T, n) -> whole numbers 0 <= x < sizes (T,), int64."""
    return ((bits >> np.uint64(11)) * 2.0**-53 * sizes[:, None]).astype(np.int64)


def draw_ranks(key: int, queries: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """For each query, `count` of the numbers 0 ... sizes - 1, uniformly without replacement.

    Returns
    -------
    (T, count) int64, ascending; where a size is below `count`, all its numbers and then -1.
    """
    ranks = np.empty((len(queries), count), np.int64)
    few = sizes <= 2 * count
    if few.any():
        ranks[few] = _draw_among_few(key, queries[few], sizes[few], count)
    if not few.all():
        ranks[~few] = _draw_among_many(key, queries[~few], sizes[~few], count)
    return ranks


def _draw_among_few(key: int, queries: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """The numbers whose random keys are the smallest."""
    keys = _stream(key, queries, max(int(sizes.max()), count))
    outside = np.arange(keys.shape[1]) >= sizes[:, None]
    keys[outside] = np.iinfo(np.uint64).max
    ranks = np.argpartition(keys, count - 1, axis=1)[:, :count]
    ranks.sort(axis=1)
    return np.where(ranks < sizes[:, None], ranks, -1)


def _draw_among_many(key: int, queries: np.ndarray, sizes: np.ndarray, count: int, length: int = 0) -> np.ndarray:
    """The first `count` different numbers of the query's stream, of which `length` are looked at."""
    if not length:
        smallest = float(sizes.min())
        length = int(-1.05 * smallest * np.log1p(-count / smallest)) + 16  # 5% more than are needed on average
    values = _below(_stream(key, queries, length), sizes)
    bits = length.bit_length()
    coded = (values << bits) | np.arange(length)  # sorted by value, then by place in the stream
    if int(sizes.max()) << bits < 2**31:
        coded = coded.astype(np.int32)  # sorts twice as fast
    coded.sort(axis=1)
    values, places = coded >> bits, coded & ((1 << bits) - 1)
    first = np.ones(values.shape, bool)
    np.not_equal(values[:, 1:], values[:, :-1], out=first[:, 1:])
    new = np.empty_like(first)
    np.put_along_axis(new, places, first, axis=1)
    number = np.cumsum(new, axis=1, dtype=np.int32)
    short = number[:, -1] < count
    taken = np.take_along_axis(new & (number <= count), places, axis=1)
    if not short.any():
        return values[taken].reshape(-1, count)
    ranks = np.empty((len(queries), count), np.int64)
    ranks[~short] = values[~short][taken[~short]].reshape(-1, count)
    # the same stream, further on: what a query draws does not depend on the others
    ranks[short] = _draw_among_many(key, queries[short], sizes[short], count, 2 * length)
    return ranks


def draw_negatives(key: int, queries: np.ndarray, size: int, excluded: Neighbours, count: int) -> np.ndarray:
    """For each query, `count` of the images 0 ... size - 1 that are not excluded, uniformly without replacement.

    Parameters
    ----------
    queries : (T,) query indexes, whose streams are drawn from.
    excluded : T lists, one for each of `queries`.

    Returns
    -------
    (T, count) int64, ascending; where fewer are left, all of them and then -1.
    """
    ranks = draw_ranks(key, queries, size - excluded.counts, count)
    # the k-th image that is left is k + (how many excluded e_j, j = 0, 1, ..., have e_j - j <= k)
    row = np.repeat(np.arange(len(queries)), excluded.counts)
    left_before = excluded.indexes - (np.arange(len(row)) - excluded.offsets[row])
    rows = np.arange(len(queries))[:, None] * (size + 1)
    passed = np.searchsorted(row * (size + 1) + left_before, rows + ranks, side="right") - excluded.offsets[:-1, None]
    return np.where(ranks < 0, -1, ranks + passed)


# -- what a refresh looks at --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MiningPlan:
    """What one refresh looks at.

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
    """Full mining (every gallery image is looked at), or partial: positives, what is remembered, and a random part.

    Parameters
    ----------
    queries : (T,) indexes of the drawn queries.
    positives, not_negative : per query of the whole set, the gallery images of the same place, and those too near to be negatives.
    hardest : (all queries, N) gallery indexes of the negatives chosen the last time, -1 for none.
    key : of the random choices of this refresh, 64 bits.
    cache_negatives : gallery images, drawn anew for every refresh, among which negatives are drawn; None for all.

    Notes
    -----
    A query with fewer than N negatives in the random part has N drawn from the whole gallery besides.
    """
    kept = hardest[queries]
    if cache_negatives is None or cache_negatives >= gallery_size:
        gallery = np.arange(gallery_size)
        return MiningPlan(queries, gallery, kept, gallery)
    pool = draw_ranks(key, np.array([-1]), np.array([gallery_size]), cache_negatives)[0]
    near, num_negatives = not_negative.of(queries), hardest.shape[1]
    short = len(pool) - near.within(pool).counts < num_negatives
    more = np.full(kept.shape, -1, np.int64)
    if short.any():
        some = queries[short]
        more[short] = draw_negatives(key, some, gallery_size, not_negative.of(some), num_negatives)
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
    """A random image of the same place and random negatives for each query; repeated where there are too few."""
    own = positives.of(queries)
    # a key of its own: the positive must not follow the first negative
    chosen = own.indexes[own.offsets[:-1] + _below(_stream(key ^ 1, queries, 1), own.counts)[:, 0]]
    negatives = draw_negatives(key, queries, gallery_size, not_negative.of(queries), num_negatives)
    there = np.minimum((negatives >= 0).sum(1), num_negatives)
    columns = np.arange(num_negatives) % there[:, None]
    return Triplets(np.asarray(queries, np.int64), chosen.astype(np.int64), np.take_along_axis(negatives, columns, 1))


# -- the choice ---------------------------------------------------------------------------------------------------------


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
    block: int = 1024,
    chunk: int = 8192,
) -> Triplets:
    """Choose each query's positive and negatives by descriptor distance (protocol, section 5).

    Parameters
    ----------
    query_descriptors, gallery_descriptors : (T, D) of `plan.queries` and (M, D) of `plan.images`, float32 or float16.
    positives, not_negative : as for `plan_mining`.
    key : of the random choices of this refresh, 64 bits.
    neg_samples : random negatives among which, with the kept ones, the `num_negatives` nearest are taken; those repeat
        where there are too few.
    device : where the matrix product runs; the descriptors stay where they are.
    block, chunk : queries and gallery images that are multiplied at once.

    Notes
    -----
    The choice is that of exact float32 distances, the lower index where two are equal. One matrix product in full float32
    gives a lower bound of every squared distance: with x and y the descriptors less a centre,
    (1 - 2e)|y|^2 - 2xy + (1 - 2e)|x|^2 <= |x - y|^2, where e = (D + 16) 2^-23 is twice what rounding can amount to.
    The exact distances of a shortlist decide, unless the best bound outside it is not beyond them.

    Memory beyond the descriptors, whatever the size of the gallery: on the device about
    4 (block + chunk) D + 4 block chunk + 24 block C bytes, plus a chunk as it is stored where the gallery lies elsewhere; on
    the host about 80 block C bytes. C is `neg_samples` and the kept, plus the most positives that a query has.
    """
    queries, gallery = torch.as_tensor(query_descriptors), torch.as_tensor(gallery_descriptors)
    # index -1 (no image) reads the last entry, which is -1 too
    row_of = np.full(max(int(plan.images[-1]), int(positives.indexes.max()), int(plan.kept.max())) + 2, -1, np.int64)
    row_of[plan.images] = np.arange(len(plan.images))
    chosen = []
    for start in range(0, len(plan.queries), block):
        part = plan.queries[start : start + block]
        own = positives.of(part).padded()
        candidates = np.concatenate([own, _candidates(plan, part, start, not_negative, key, neg_samples)], 1)
        rows = torch.from_numpy(row_of[candidates])
        search = _Search(queries[start : start + block], gallery, rows, device, chunk)
        width = own.shape[1]
        chosen.append(torch.cat([search.nearest(0, width, 1), search.nearest(width, None, num_negatives)], 1))
    images = plan.images[torch.cat(chosen).cpu().numpy()]
    return Triplets(np.asarray(plan.queries, np.int64), images[:, 0].copy(), images[:, 1:].copy())


def _candidates(
    plan: MiningPlan, part: np.ndarray, start: int, not_negative: Neighbours, key: int, neg_samples: int
) -> np.ndarray:
    """What the negatives of a block of queries are chosen from: (b, C) gallery indexes, ascending, each once, -1 for none."""
    near = not_negative.of(part).within(plan.pool)
    ranks = draw_negatives(key, part, len(plan.pool), near, min(neg_samples, len(plan.pool)))
    drawn = np.where(ranks < 0, -1, plan.pool[ranks])
    kept = plan.kept[start : start + len(part)]
    candidates = np.concatenate([drawn, kept], 1, dtype=np.int32, casting="same_kind")
    candidates.sort(axis=1)
    candidates[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = -1
    return candidates


class _Search:
    """A block of queries against the gallery: bounds of all candidates' distances, and the nearest of some of them.

    Parameters
    ----------
    queries, gallery : (b, D) and (M, D).
    rows : (b, C) rows of the gallery that are candidates of each query, -1 for none.
    """

    def __init__(self, queries: Tensor, gallery: Tensor, rows: Tensor, device: torch.device | str, chunk: int) -> None:
        self.queries, self.gallery, self.rows = queries.to(gallery.device, torch.float32), gallery, rows
        x = queries.to(device, torch.float32)
        centre = x.mean(0)  # near the gallery's too, so that little is lost to cancellation
        x = x - centre
        self.slack = 2 * (x.shape[1] + 16) * 2.0**-23
        squared = torch.linalg.vector_norm(x, dim=1).square()
        self.bounds = self._products(x, centre, rows.to(device), chunk) + (1 - self.slack) * squared[:, None]

    def _products(self, x: Tensor, centre: Tensor, rows: Tensor, chunk: int) -> Tensor:
        """(1 - slack)|y|^2 - 2xy for every candidate y, infinite for none: (b, C)."""
        found = torch.full(rows.shape, torch.inf, device=x.device)
        chunk = min(chunk, len(self.gallery))
        centred = torch.empty((chunk, x.shape[1]), device=x.device)
        product = torch.empty((len(x), chunk), device=x.device)
        for start in range(0, len(self.gallery), chunk):
            piece = self.gallery[start : start + chunk].to(x.device)
            y = torch.sub(piece, centre, out=centred[: len(piece)])
            norms = torch.linalg.vector_norm(y, dim=1).square() * (1 - self.slack)
            with _full_float32():
                torch.addmm(norms, x, y.T, alpha=-2, out=product[:, : len(piece)])
            here = rows - start
            inside = (here >= 0) & (here < len(piece))
            torch.where(inside, product.gather(1, here.clamp_(0, len(piece) - 1)), found, out=found)
        return found

    def nearest(self, first: int, last: int | None, count: int) -> Tensor:
        """The `count` nearest among some columns of the candidates: (b, count) rows of the gallery, nearest first."""
        bounds, rows = self.bounds[:, first:last], self.rows[:, first:last]
        width = bounds.shape[1]
        lowest, at = bounds.topk(min(count + _SPARE, width), dim=1, largest=False)
        lowest, at = lowest.to(self.gallery.device), at.to(rows.device)
        shortlist = rows.gather(1, at).sort(dim=1).values.to(self.gallery.device)
        chosen, distances = self._exact(torch.arange(len(rows)), shortlist, count)
        if lowest.shape[1] < width:
            farthest, outside = distances[:, -1].square() * (1 + self.slack), lowest[:, -1]
            for i in torch.nonzero((farthest >= outside) & outside.isfinite())[:, 0].tolist():
                whole = rows[i][rows[i] >= 0][None].to(self.gallery.device)
                chosen[i], distances[i] = (x[0] for x in self._exact(torch.tensor([i]), whole, count))
        there = distances.isfinite().sum(1, keepdim=True)
        return chosen.gather(1, torch.arange(count, device=chosen.device) % there)

    def _exact(self, which: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The nearest of `rows` (n, k) and their distances (n, count), infinite where there are fewer."""
        distances = torch.empty(rows.shape, device=rows.device)
        step = max(1, 2**20 // (rows.shape[1] * self.gallery.shape[1]))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            difference = self.gallery[part.clamp(0)].float()
            difference -= self.queries[which[start : start + step], None]
            distances[start : start + step] = torch.linalg.vector_norm(difference, dim=2)
        distances[rows < 0] = torch.inf
        distances, order = distances.sort(dim=1, stable=True)
        rows, missing = rows.gather(1, order)[:, :count], count - rows.shape[1]
        if missing > 0:
            rows = torch.nn.functional.pad(rows, (0, missing), value=-1)
            distances = torch.nn.functional.pad(distances, (0, missing), value=torch.inf)
        return rows, distances[:, :count]


@contextmanager
def _full_float32() -> Iterator[None]:
    """Keep matrix products from TF32 and bf16, whatever the process is set to, and leave that as it was."""
    parts = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [part.fp32_precision for part in parts]
    try:
        whole = torch.get_float32_matmul_precision()
    except RuntimeError:  # set part by part, which this older of torch's two interfaces does not show
        whole = None
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if whole is not None:
            torch.set_float32_matmul_precision(whole)
        for part, value in zip(parts, before):
            part.fp32_precision = value
