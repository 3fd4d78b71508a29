"""How sure a match is: its distance beside that of the best match at another place, and the probability that follows."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from datasets.files import write_text
from datasets.naming import NEGATIVE_DISTANCE_M
from utils.retrieval.settings import RetrievalSettings
from utils.system.logs import LOGGER

DEEPER = 8
"""Factor by which a search goes deeper for queries whose first matches all lie at one place."""

Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Queries (Q, D) and k -> indexes and distances (Q, min(k, G)), see `utils.retrieval.index`."""


def place_ratios(
    search: Search, positions: np.ndarray, queries: np.ndarray, apart_m: float, found: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Distance to the best match over that to the best match at another place: near 0 if sure, 1 if two places are as good.

    Parameters
    ----------
    positions : (G, 2) of the gallery, metres.
    apart_m : images farther than this from the best match show another place.
    found : what `search` found for the queries (Q, D) at some k.

    Returns
    -------
    (Q,) float64 in 0..1, NaN where all images that `search` can find lie at one place.
    """
    ratios = np.full(len(queries), np.nan)
    rows = np.arange(len(queries))
    indexes, distances = found
    asked = 0
    while indexes.shape[1]:
        away = np.linalg.norm(positions[indexes] - positions[indexes[:, :1]], axis=-1) > apart_m
        has = away.any(1)
        other = distances[has, away[has].argmax(1)].astype(np.float64)
        with np.errstate(invalid="ignore"):
            ratios[rows[has]] = np.where(other > 0, distances[has, 0] / other, 1)
        rows, depth = rows[~has], indexes.shape[1]
        if not len(rows) or depth < asked or depth >= len(positions):
            break
        asked = depth * DEEPER
        indexes, distances = search(queries[rows], asked)
    return ratios


def apart(threshold_m: float) -> float:
    """How far an image must lie from another to show another place, where the same place is within `threshold_m`."""
    return max(threshold_m, NEGATIVE_DISTANCE_M)


@dataclass(frozen=True)
class Calibration:
    """The probability that a match is right, learnt on a validation set.

    It is Platt's: a logistic curve of the ratio. It has two parameters, so some hundred queries are enough, and keeps queries
    in the order of their ratios; isotonic regression needs many more, makes steps, and says 0 and 1 at its ends.

    Attributes
    ----------
    slope, intercept : of the logarithm of the odds.
    within_m : a match is right if it lies within so many metres.
    apart_m : see `place_ratios`.
    weights : `utils.retrieval.store.weights_digest` of the network.
    pca_dim, pca_whiten : of the descriptors; distances after another PCA have other ratios.
    queries, right : validation queries, and how many had a right first match.
    thresholds : precision -> least probability at which the validation set's answers were so precise; None: at none.
    """

    slope: float
    intercept: float
    within_m: float
    apart_m: float
    weights: str
    pca_dim: int | None
    pca_whiten: bool
    queries: int
    right: int
    thresholds: dict[str, float | None]

    def probability(self, ratios: np.ndarray) -> np.ndarray:
        """Of ratios of any shape; NaN stays NaN."""
        return 1 / (1 + np.exp(-(self.slope * ratios + self.intercept)))

    def check(self, file: Path, weights: str, retrieval: RetrievalSettings) -> None:
        """ValueError if it was made for other descriptors than these; `file` is where it was read."""
        remedy = "calibrate again: eval.py --resume CKPT --dataset_root_val DIR --calibrate"
        if self.weights != weights:
            raise ValueError(f"{file}: made for other weights than those of the checkpoint; {remedy}")
        if (self.pca_dim, self.pca_whiten) != (retrieval.pca_dim, retrieval.pca_whiten):
            raise ValueError(f"{file}: made with --pca_dim {self.pca_dim}, --pca_whiten {self.pca_whiten}; {remedy}")

    def save(self, file: Path) -> None:
        write_text(file, json.dumps(asdict(self), indent=2) + "\n")


def fit_curve(ratios: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of Platt's curve for ratios (Q,) and whether the match was right (Q,) bool.

    Ratios that are NaN are left out; ValueError if none is left. Where larger ratios are no worse, they say nothing: the slope
    is 0.
    """
    known = np.isfinite(ratios)
    ratios, right = ratios[known], right[known]
    if not len(ratios):
        raise ValueError("no confidence can be calibrated: the whole gallery of the validation set lies at one place")
    hits, misses = int(right.sum()), int((~right).sum())
    # Platt's targets stay off 0 and 1, so that no sample makes him certain
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2))
    mean, spread = ratios.mean(), ratios.std()
    slope = 0.0
    if spread > 0 and hits and misses:
        from sklearn.linear_model import LogisticRegression  # not at the top: it takes a second to import

        scaled = np.tile((ratios - mean) / spread, 2)[:, None]
        answers = np.repeat([1, 0], len(ratios))
        curve = LogisticRegression(C=np.inf, solver="newton-cholesky")
        curve.fit(scaled, answers, np.concatenate([target, 1 - target]))
        slope = float(curve.coef_[0, 0] / spread)
    if slope < 0:
        return slope, float(curve.intercept_[0] - slope * mean)
    share = target.mean()
    return 0.0, float(np.log(share / (1 - share)))


def calibration_file(checkpoint: str | Path) -> Path:
    """Where the calibration of a checkpoint lies: `best.pth` -> `best.confidence.json`."""
    return Path(checkpoint).with_suffix(".confidence.json")


def read_calibration(file: Path) -> Calibration:
    """ValueError or FileNotFoundError, naming the file, if there is none or it is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if set(content) != {f.name for f in fields(Calibration)}:
            raise ValueError("it has other entries")
        return Calibration(**content)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{file}: no such file: make it with eval.py --resume CKPT --dataset_root_val DIR --calibrate"
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: no calibration of this project ({error}); make it again with --calibrate") from error


def find_calibration(
    checkpoint: str | Path, weights: str, retrieval: RetrievalSettings, reject: float | None
) -> Calibration | None:
    """The calibration beside a checkpoint; None if there is none for these descriptors, which is an error if `reject` needs it."""
    file = calibration_file(checkpoint)
    if reject is None and not file.is_file():
        return None
    try:
        found = read_calibration(file)
        found.check(file, weights, retrieval)
    except (ValueError, OSError) as error:
        if reject is not None:
            raise type(error)(f"--reject {reject:g}: {error}") from error
        LOGGER.warning("no probabilities: %s", error)
        return None
    return found
