"""How much of a network's recall depends on the running statistics of its batch norm, above all those of the first.

    python3 -m benchmarks.checks.running_statistics --resume runs/demo/<timestamp>/best.pth [--town data/demo_town]

It prints recall@1 three times: with the statistics that training left; with all of them collected anew over training images (as
many of the source as of the target domain; the weights stay); and with only those of the first batch norm collected anew.
"""

import copy
import sys
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness.command_line import write_record
from benchmarks.harness.machine import machine
from benchmarks.harness.town_sets import correct_first, town_parser, town_sets
from datasets.command_line import OneLineParser
from datasets.places import load_image_set
from datasets.reading.transforms import read_image
from models import SegVPR
from utils.evaluation.recall import evaluate_places
from utils.retrieval.embedding import EmbeddingOptions
from utils.runs.checkpoints import load_checkpoint
from utils.system.compute import resolve_compute
from utils.system.seeding import generator
from utils.system.tables import align

BATCHES, BATCH = 25, 6
FIRST = "encoder.bn1"


def batch_norms(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}


@torch.no_grad()
def collected_anew(model: SegVPR, town: Path) -> SegVPR:
    """A copy whose running statistics are means over batches of the training images, drawn with a fixed seed."""
    twin = copy.deepcopy(model).train()
    for norm in batch_norms(twin).values():
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    folders = ["idda/town10/gallery/front_rear", "idda/town10/queries_rain/front_rear"]
    source = [path for folder in folders for path in load_image_set([town / folder]).paths]
    target = load_image_set([town / "robotcar_all"]).paths
    rng = generator(0, "running statistics")
    for _ in range(BATCHES):
        for paths in (source, target):
            images = torch.stack([read_image(paths[i]) for i in rng.integers(0, len(paths), BATCH)])
            twin.segment(twin.prepare(images))
    return twin.eval()


def with_first_of(model: SegVPR, other: SegVPR) -> SegVPR:
    """A copy with the running statistics of `other`'s first batch norm."""
    twin = copy.deepcopy(model)
    batch_norms(twin)[FIRST].load_state_dict(batch_norms(other)[FIRST].state_dict())
    return twin


def shift(model: SegVPR, other: SegVPR) -> float:
    """How far the running means of the first batch norm lie apart, in standard deviations: mean over its channels."""
    a, b = (batch_norms(m)[FIRST] for m in (model, other))
    return float(((a.running_mean - b.running_mean) / b.running_var.sqrt()).abs().mean())


def build_parser() -> OneLineParser:
    return town_parser("checks.running_statistics", __doc__)


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    compute = resolve_compute(args.device)
    options = EmbeddingOptions(num_workers=args.num_workers, compute=compute)
    stored = compute.place(load_checkpoint(args.resume).build()).eval()
    anew = collected_anew(stored, args.town)
    ways = {"as stored": stored, "anew": anew, "first anew": with_first_of(stored, anew)}
    sets = town_sets(args.town)
    recalls = {
        way: [100 * float(correct_first(r).mean()) for r in evaluate_places(model, sets, options)]
        for way, model in ways.items()
    }
    rows = [["recall@1 in percent", *ways]]
    rows += [[s.name, *(f"{recalls[way][i]:.1f}" for way in ways)] for i, s in enumerate(sets)]
    apart = shift(stored, anew)
    print(machine())
    print(f"running means of the first batch norm: {apart:.3f} deviations apart")
    print("\n".join(align(rows)))
    write_record(args.out, {"shift": apart, "sets": [s.name for s in sets], "recall@1": recalls})
    return 0


if __name__ == "__main__":
    sys.exit(main())
