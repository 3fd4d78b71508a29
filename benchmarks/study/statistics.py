"""Paired differences between two variants, with intervals over seeds and over queries."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
RESAMPLES = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """One variant minus another on one set, in percentage points.

    Attributes
    ----------
    per_seed : one value per seed that both have.
    over_seeds : Student's t over seeds; None for a single seed. It includes what another training would change.
    over_queries : bootstrap over queries of the mean over seeds; None for figures without queries. It includes only the choice
        of queries, so it is too narrow for a claim about the method.
    """

    per_seed: tuple[float, ...]
    over_seeds: Interval | None
    over_queries: Interval | None

    @property
    def mean(self) -> float:
        return float(np.mean(self.per_seed))


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Interval of the mean of independent values, Student's t with n - 1 degrees of freedom; None for fewer than two."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2) * np.std(values, ddof=1) / len(values) ** 0.5)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def bootstrap_interval(
    differences: np.ndarray, rng: np.random.Generator, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """Percentile interval of the mean of `differences` (S, Q); each resample draws the same queries for all S seeds."""
    per_query = differences.mean(axis=0)
    means = per_query[rng.integers(0, len(per_query), (resamples, len(per_query)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def found_within(path: Path, rank: int) -> dict[str, bool]:
    """Query name -> whether one of its first `rank` images in a `predictions/<set>.csv` is correct."""
    found: dict[str, bool] = {}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.DictReader(file):
            name = Path(row["query"]).name
            found[name] = found.get(name, False) or (int(row["rank"]) <= rank and row["correct"] == "1")
    return found


def paired(first: Sequence[dict[str, bool]], second: Sequence[dict[str, bool]], rng: np.random.Generator) -> Difference:
    """`first` minus `second`; each has one result of `found_within` per seed, in the same order of seeds.

    Raises
    ------
    ValueError : the queries differ, or there are none.
    """
    names = list(first[0])
    if not names or any(found.keys() != first[0].keys() for found in [*first, *second]):
        raise ValueError(
            "the runs were evaluated on different queries: the town was drawn anew between them; use another --name"
        )
    a, b = (np.array([[found[name] for name in names] for found in side], float) for side in (first, second))
    differences = 100 * (a - b)
    per_seed = tuple(map(float, differences.mean(axis=1)))
    return Difference(per_seed, t_interval(per_seed), bootstrap_interval(differences, rng))


def over_seeds_alone(per_seed: Sequence[float]) -> Difference:
    """Differences of figures without queries, such as mIoU: one value per seed."""
    values = tuple(map(float, per_seed))
    return Difference(values, t_interval(values), None)


def shown(difference: Difference | None, interval: Interval | None) -> str:
    """`+5.3 [+1.2, +9.4]`, bold in Markdown if zero lies outside the interval."""
    if difference is None:
        return "-"
    if interval is None:
        return f"{difference.mean:+.1f}"
    text = f"{difference.mean:+.1f} [{interval[0]:+.1f}, {interval[1]:+.1f}]"
    return f"**{text}**" if interval[0] > 0 or interval[1] < 0 else text
