"""Recalls of one network in bf16 against float32, over all query sets of a town.

    python3 -m benchmarks.precision --resume runs/demo/<timestamp>/best.pth [--town data/demo_town] [--out precision.json]

The town of `make demo` has more than a thousand queries. One figure decides: recall@1 over all of them together.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.demo import FRESH, FRESH_NAME, TITLES
from benchmarks.machine import machine, write_record
from datasets.naming import KINDS, Kind
from datasets.places import load_image_set
from utils.checkpoints import load_checkpoint
from utils.compute import resolve_compute
from utils.embedding import EmbeddingOptions
from utils.evaluation import EvaluationSet, evaluate_places
from utils.tables import align

PRECISIONS = ("fp32", "bf16")


def town_sets(town: Path) -> list[EvaluationSet]:
    """The fresh rain pass, the held-out town, and the four conditions of the other camera, at the pictures' own size."""
    iddav2, utm = KINDS["iddav2"], KINDS["utm"]
    overcast = load_image_set([town / "robotcar/overcast"])

    def of_idda(name: str, gallery: str, queries: str, kind: Kind = iddav2) -> EvaluationSet:
        folders = (load_image_set([town / "idda" / folder]) for folder in (gallery, queries))
        return EvaluationSet(name, *folders, kind, (kind.eval_threshold_m,), 1.0)

    held_out = "town3/gallery/left_right", "town3/queries_rain/left_right"
    sets = [of_idda(FRESH_NAME, FRESH["val_g"], FRESH["val_q"]), of_idda(TITLES["val"], *held_out)]
    for name in ("rain", "snow", "sun", "night"):
        queries = load_image_set([town / "robotcar" / name])
        sets.append(EvaluationSet(TITLES[name], overcast, queries, utm, (utm.eval_threshold_m,), 1.0))
    return sets


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resume", type=Path, required=True, help="the network")
    parser.add_argument("--town", type=Path, default=Path("data/demo_town"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the record here as JSON")
    args = parser.parse_args(argv)
    checkpoint, sets = load_checkpoint(args.resume), town_sets(args.town)
    correct: dict[str, list[np.ndarray]] = {}
    for precision in PRECISIONS:
        compute = resolve_compute(args.device, precision)
        options = EmbeddingOptions(num_workers=args.num_workers, compute=compute)
        results = evaluate_places(compute.place(checkpoint.build()), sets, options)
        correct[precision] = [r.correct[r.set.thresholds_m[0]][:, 0] for r in results]
    rows, record = [["recall@1 in percent", "queries", *PRECISIONS, "difference"]], []
    names = [*(s.name for s in sets), "all"]
    pooled = {p: [*found, np.concatenate(found)] for p, found in correct.items()}
    for name, exact, rough in zip(names, *pooled.values()):
        recalls = 100 * exact.mean(), 100 * rough.mean()
        rows.append([name, str(len(exact)), *(f"{r:.2f}" for r in recalls), f"{recalls[1] - recalls[0]:+.2f}"])
        record.append({"set": name, "queries": len(exact), **dict(zip(PRECISIONS, recalls))})
    print(machine())
    print("\n".join(align(rows)))
    write_record(args.out, {"sets": record})
    return 0


if __name__ == "__main__":
    sys.exit(main())
