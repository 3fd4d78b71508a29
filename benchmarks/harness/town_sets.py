"""All query sets of the demo's town, for benchmarks that evaluate one network on them in several ways."""

from pathlib import Path

import numpy as np

from benchmarks.demo import FRESH, FRESH_NAME, TITLES, robotcar_sets
from benchmarks.harness.command_line import benchmark_parser
from datasets.command_line import OneLineParser
from datasets.naming import KINDS
from datasets.places import load_image_set
from utils.evaluation.recall import EvaluationSet, SetResult


def town_parser(name: str, about: str) -> OneLineParser:
    """Command line of such a benchmark."""
    parser = benchmark_parser(name, about, device="auto")
    parser.add_argument("--resume", type=Path, required=True, metavar="CKPT", help="the network")
    parser.add_argument("--town", type=Path, default=Path("data/demo_town"), metavar="DIR", help="the town")
    parser.add_argument("--num_workers", type=int, default=1, metavar="N", help="loader processes")
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
    """Whether the nearest image of each query shows its place: bool (Q,)."""
    return result.correct[result.set.thresholds_m[0]][:, 0]
