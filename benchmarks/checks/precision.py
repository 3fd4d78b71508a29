"""Recall@1 of one network in float32 and in bf16, on all query sets of a town.

    python3 -m benchmarks.checks.precision --resume runs/demo/<timestamp>/best.pth [--town data/demo_town] [--out precision.json]

The town of `make demo` has more than a thousand queries. The figure that decides is recall@1 over all of them together.
"""

import sys

import numpy as np

from benchmarks.harness.command_line import write_record
from benchmarks.harness.machine import machine
from benchmarks.harness.town_sets import correct_first, town_parser, town_sets
from datasets.command_line import OneLineParser
from utils.evaluation.recall import evaluate_places
from utils.retrieval.embedding import EmbeddingOptions
from utils.runs.checkpoints import load_checkpoint
from utils.system.compute import resolve_compute
from utils.system.tables import align

PRECISIONS = ("fp32", "bf16")


def build_parser() -> OneLineParser:
    return town_parser("checks.precision", __doc__)


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    checkpoint, sets = load_checkpoint(args.resume), town_sets(args.town)
    correct: dict[str, list[np.ndarray]] = {}
    for precision in PRECISIONS:
        compute = resolve_compute(args.device, precision)
        options = EmbeddingOptions(num_workers=args.num_workers, compute=compute)
        found = [correct_first(r) for r in evaluate_places(compute.place(checkpoint.build()), sets, options)]
        correct[precision] = [*found, np.concatenate(found)]
    rows, record = [["recall@1 in percent", "queries", *PRECISIONS, "difference"]], []
    for name, exact, rough in zip([*(s.name for s in sets), "all"], *correct.values()):
        recalls = 100 * exact.mean(), 100 * rough.mean()
        rows.append([name, str(len(exact)), *(f"{r:.2f}" for r in recalls), f"{recalls[1] - recalls[0]:+.2f}"])
        record.append({"set": name, "queries": len(exact), **dict(zip(PRECISIONS, recalls))})
    print(machine())
    print("\n".join(align(rows)))
    write_record(args.out, {"sets": record})
    return 0


if __name__ == "__main__":
    sys.exit(main())
