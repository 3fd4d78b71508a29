"""Which queries a report shows, and what it says about each retrieved image."""

from typing import NamedTuple

import numpy as np

from datasets.places import neighbours_within
from utils.evaluation.recall import SetResult
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
    """A query, its first retrieved images and, if the first is wrong, the nearest correct one (None: there is none).

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
    found, missed = np.flatnonzero(result.found), np.flatnonzero(~result.found)
    wanted = misses + hits
    misses = min(len(missed), max(misses, wanted - len(found)))
    hits = min(len(found), wanted - misses)
    near = np.argsort(result.descriptor_distance[found, 0], kind="stable")
    middle = (len(found) - 1) // 2
    typical = found[near[middle : middle + 1]][:hits]
    others = np.setdiff1d(found, typical)
    rng = generator(seed, "report", printable(result.set.name))
    drawn = np.sort(rng.choice(others, hits - len(typical), replace=False)) if hits > len(typical) else []
    return [describe_case(result, int(q)) for q in [*typical, *_hardest(result, missed)[:misses], *drawn]]


def _hardest(result: SetResult, missed: np.ndarray) -> np.ndarray:
    """Missed queries, the hardest first."""
    s = result.set
    correct = result.correct[s.thresholds_m[0]][missed]
    first = np.where(correct.any(1), correct.argmax(1), correct.shape[1])
    hopeless = neighbours_within(s.gallery, s.queries, s.thresholds_m[0], s.kind.same_camera).counts[missed] == 0
    return missed[np.lexsort((result.descriptor_distance[missed, 0], -first, hopeless))]


def describe_case(result: SetResult, query: int) -> Case:
    """What was retrieved for one query, in words."""
    s = result.set
    threshold = s.thresholds_m[0]
    correct = result.correct[threshold][query]
    camera = s.queries.cameras[query] if s.kind.same_camera else None
    tiles = []
    for k, g in enumerate(result.retrieved[query, :SHOWN]):
        distance = result.distance_m[query, k]
        caption = metres(distance)
        if camera is not None and distance <= threshold and s.gallery.cameras[g] != camera:
            caption += f", but camera {printable(s.gallery.cameras[g])}, not {printable(camera)}"
        tiles.append(Tile(s.gallery.paths[g], f"rank {k + 1}", caption, bool(correct[k])))
    found = bool(correct[0])
    truth = None if found else _nearest_true(result, query)
    if found:
        headline = "found at rank 1"
    elif correct.any():
        headline = f"missed, first correct at rank {correct.argmax() + 1}"
    elif truth is not None:
        headline = f"missed, nothing correct among the first {len(correct)}"
    else:
        headline = f"missed, and the gallery has no image of this place within {threshold:g} m"
    shown = Tile(s.queries.paths[query], "query", f"camera {printable(camera)}" if camera is not None else "", None)
    return Case(query, found, headline, shown, tuple(tiles), truth)


def _nearest_true(result: SetResult, query: int) -> Tile | None:
    """The gallery image of the query's place that lies nearest to it, and its rank."""
    s, retrieved = result.set, result.retrieved[query]
    distance = np.linalg.norm(s.gallery.positions - s.queries.positions[query], axis=1)
    if s.kind.same_camera:
        distance[s.gallery.cameras != s.queries.cameras[query]] = np.inf
    nearest = int(distance.argmin())
    if distance[nearest] > s.thresholds_m[0]:
        return None
    rank = np.flatnonzero(retrieved == nearest)
    where = f"rank {rank[0] + 1}" if len(rank) else f"not in first {len(retrieved)}"
    return Tile(s.gallery.paths[nearest], "nearest true", f"{metres(distance[nearest])}, {where}", True)


def metres(distance: float) -> str:
    """A distance in words."""
    return f"{distance:.1f} m" if distance < 100 else f"{distance:,.0f} m"
