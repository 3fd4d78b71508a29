"""Which queries a report shows, and what it says about each retrieved image."""

from typing import NamedTuple

import numpy as np

from datasets.places import neighbours_within
from utils.evaluation.recall import SetResult
from utils.report.figures import found_at_1
from utils.system.seeding import generator
from utils.system.tables import printable

SHOWN = 5


class Tile(NamedTuple):
    """A photo and what is said below it.

    Attributes
    ----------
    correct : whether it shows the query's place; None for the query itself.
    """

    path: str
    role: str
    caption: str
    correct: bool | None


class Case(NamedTuple):
    """A query, its first retrieved images and, where the first is wrong, the nearest correct one (None: there is none).

    Attributes
    ----------
    index : the query's place in its set.
    """

    index: int
    found: bool
    headline: str
    query: Tile
    retrieved: tuple[Tile, ...]
    truth: Tile | None


def choose_cases(result: SetResult, misses: int, hits: int, seed: int = 0) -> list[Case]:
    """A typical hit, the hardest misses, then random hits; if there are too few of one sort, more of the other.

    Typical: its first image has the median descriptor distance of all hits. Hardest: the first correct image comes last, then
    the wrong one is nearest in descriptor space. Queries without any correct image in the gallery come after all others.
    """
    found = found_at_1(result)
    hit_indexes, missed = np.flatnonzero(found), np.flatnonzero(~found)
    wanted = misses + hits
    misses = min(len(missed), max(misses, wanted - len(hit_indexes)))
    hits = min(len(hit_indexes), wanted - misses)
    typical = _typical(result, hit_indexes)[:hits]
    others = np.setdiff1d(hit_indexes, typical)
    rng = generator(seed, "report", printable(result.set.name))
    drawn = np.sort(rng.choice(others, hits - len(typical), replace=False)) if hits > len(typical) else []
    return [describe_case(result, int(q)) for q in [*typical, *_hardest(result, missed)[:misses], *drawn]]


def _typical(result: SetResult, hits: np.ndarray) -> list[int]:
    """The hit in the middle when all are ordered by how near the first retrieved descriptor is; none without hits."""
    if not len(hits):
        return []
    order = np.argsort(result.descriptor_distance[hits, 0], kind="stable")
    return [int(hits[order[(len(hits) - 1) // 2]])]


def _hardest(result: SetResult, missed: np.ndarray) -> list[int]:
    correct = result.correct[result.set.thresholds_m[0]][missed]
    depth = correct.shape[1]
    first = np.where(correct.any(1), correct.argmax(1), depth) if depth else np.zeros(len(missed))
    s = result.set
    hopeless = neighbours_within(s.gallery, s.queries, s.thresholds_m[0], s.kind.same_camera).counts[missed] == 0
    nearest = result.descriptor_distance[missed, 0] if depth else np.zeros(len(missed))
    return missed[np.lexsort((nearest, -first, hopeless))].tolist()


def _true_images(result: SetResult, query: int) -> np.ndarray:
    """Gallery images that show the query's place, nearest first."""
    s = result.set
    distance = np.linalg.norm(s.gallery.positions - s.queries.positions[query], axis=1)
    right = distance <= s.thresholds_m[0]
    if s.kind.same_camera:
        right &= s.gallery.cameras == s.queries.cameras[query]
    indexes = np.flatnonzero(right)
    return indexes[np.argsort(distance[indexes], kind="stable")]


def describe_case(result: SetResult, query: int) -> Case:
    """What was retrieved for one query, in words."""
    s = result.set
    threshold = s.thresholds_m[0]
    correct, depth = result.correct[threshold][query], result.retrieved.shape[1]
    camera = s.queries.cameras[query] if s.kind.same_camera else None
    tiles = []
    for k in range(min(SHOWN, depth)):
        g = result.retrieved[query, k]
        if g < 0:
            continue
        distance = result.distance_m[query, k]
        caption = metres(distance)
        if camera is not None and distance <= threshold and s.gallery.cameras[g] != camera:
            caption += f", but camera {printable(s.gallery.cameras[g])}, not {printable(camera)}"
        tiles.append(Tile(s.gallery.paths[g], f"{k + 1}", caption, bool(correct[k])))
    found = bool(depth and correct[0])
    truths = [] if found else _true_images(result, query)
    truth = _truth_tile(result, query, int(truths[0])) if len(truths) else None
    headline = _headline(found, correct, threshold, depth, len(truths) > 0)
    shown = Tile(s.queries.paths[query], "query", f"camera {printable(camera)}" if camera is not None else "", None)
    return Case(query, found, headline, shown, tuple(tiles), truth)


def _truth_tile(result: SetResult, query: int, index: int) -> Tile:
    s, retrieved = result.set, result.retrieved[query]
    distance = np.linalg.norm(s.gallery.positions[index] - s.queries.positions[query])
    rank = np.flatnonzero(retrieved == index)
    where = f"rank {rank[0] + 1}" if len(rank) else f"not in first {len(retrieved)}"
    return Tile(s.gallery.paths[index], "nearest true", f"{metres(distance)}, {where}", True)


def _headline(found: bool, correct: np.ndarray, threshold: float, depth: int, possible: bool) -> str:
    if found:
        return "found at rank 1"
    if correct.any():
        return f"missed, first correct at rank {correct.argmax() + 1}"
    if possible:
        return f"missed, nothing correct among the first {depth}"
    return f"missed, and the gallery has no image of this place within {threshold:g} m"


def metres(distance: float) -> str:
    return f"{distance:.1f} m" if distance < 100 else f"{distance:,.0f} m"
