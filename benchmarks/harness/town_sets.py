"""All query sets of a town, for benchmarks that ask one network about them in several ways."""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.demo import FRESH, FRESH_NAME, TITLES, robotcar_sets
from datasets.naming import KINDS
from datasets.places import load_image_set
from utils.evaluation.recall import EvaluationSet, SetResult


def build_parser(description: str) -> argparse.ArgumentParser:
    """Command line of such a benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--resume", type=Path, required=True, help="the network")
    parser.add_argument("--town", type=Path, default=Path("data/demo_town"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the record here as JSON")
    return parser


def town_sets(town: Path) -> list[EvaluationSet]:
    """The fresh rain pass, the held-out town, and the four conditions of the other camera, at the pictures' own size."""
    kind = KINDS["iddav2"]

    def of_idda(name: str, gallery: str, queries: str) -> EvaluationSet:
        folders = (load_image_set([town / "idda" / folder]) for folder in (gallery, queries))
        return EvaluationSet(name, *folders, kind, (kind.eval_threshold_m,), 1.0)

    held_out = "town3/gallery/left_right", "town3/queries_rain/left_right"
    sets = [of_idda(FRESH_NAME, FRESH["val_g"], FRESH["val_q"]), of_idda(TITLES["val"], *held_out)]
    return sets + robotcar_sets(town, {name: TITLES[name] for name in ("rain", "snow", "sun", "night")})


def correct_first(result: SetResult) -> np.ndarray:
    """Whether each query's nearest image is of its place, bool (Q,)."""
    return result.correct[result.set.thresholds_m[0]][:, 0]
