"""Time of one training step against the plain way (`benchmarks.harness.plain`), each in a process of its own, in turn.

    python3 -m benchmarks.speed.train_step [--arch resnet50] [--size 308 172] [--device cpu] [--compile] [--out step.json]

The protocol's sizes, for a GPU: `--size 1536 864 --target_size 768 432 --device cuda`.
"""

import sys
from collections.abc import Callable

import torch

from benchmarks.harness.command_line import benchmark_parser, settings_of, write_record
from benchmarks.harness.machine import processor
from benchmarks.harness.plain import PlainStep
from benchmarks.speed.processes import Child, clock_for, table, timed
from datasets.command_line import OneLineParser, positive
from models import build_model
from utils.system.compute import resolve_compute
from utils.system.tables import align
from utils.training.optimizers import build_optimizers
from utils.training.settings import LossSettings
from utils.training.step import train_step

PLAIN = "plain float32"


def random_batch(size: tuple[int, int], target_size: tuple[int, int], triplets: int) -> tuple[torch.Tensor, ...]:
    """8-bit images of `triplets` triplets, their labels, and as many target images."""
    rng = torch.Generator().manual_seed(0)
    images, target = (
        torch.randint(0, 256, (3 * triplets, h, w, 3), generator=rng, dtype=torch.uint8).permute(0, 3, 1, 2)
        for w, h in (size, target_size)
    )
    labels = torch.randint(0, 17, (3 * triplets, size[1], size[0]), generator=rng, dtype=torch.uint8)
    return images, labels, target


def build_plain(arch: str, device: str, batch_of: tuple) -> Callable[[], None]:
    torch.manual_seed(0)
    images, labels, target = random_batch(*batch_of)
    images, target = (x.flip(1).float().contiguous().to(device) for x in (images, target))
    labels = labels.to(device)
    step = PlainStep(build_model(arch).to(device), batch_of[2])

    def call() -> None:
        step(images, labels, target, batch_of[2])  # reads its losses back, so it is over

    return call


def build_ours(
    arch: str, device: str, batch_of: tuple, precision: str, method: str, compiled: bool
) -> Callable[[], None]:
    torch.manual_seed(0)
    compute = resolve_compute(device, precision, compiled)
    model = compute.place(build_model(arch)).train()
    images, labels, target = random_batch(*batch_of)
    images, target, labels = model.prepare(images), model.prepare(target), labels.to(compute.device)
    optimizers = build_optimizers(model, batch_of[2], scale_losses=precision == "fp16")
    settings = LossSettings(da_method=method)

    def call() -> None:
        train_step(
            model, optimizers, images, labels, target, num_queries=batch_of[2], settings=settings, compute=compute
        )

    return call


def build_parser() -> OneLineParser:
    parser = benchmark_parser("speed.train_step", __doc__, device="cpu")
    add = parser.add_argument
    add("--arch", default="resnet50", help="encoder")
    add("--size", type=positive, nargs=2, default=[308, 172], metavar=("W", "H"), help="of source crops")
    add("--target_size", type=positive, nargs=2, metavar=("W", "H"), help="of target images (default: --size)")
    add("--batch_size", type=positive, default=2, metavar="N", help="triplets")
    add("--precisions", nargs="+", default=["fp32", "auto"], metavar="NAME", help="ours")
    add("--compile", action="store_true", help="add compiled steps")
    add("--repeats", type=positive, default=5, metavar="N", help="rounds")
    add("--cpu_time", action="store_true", help="measure processor time, because others use the machine")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    batch_of = (tuple(args.size), tuple(args.target_size or args.size), args.batch_size)
    measure = clock_for(args.device, args.cpu_time)
    children = {PLAIN: Child(build_plain, args.arch, args.device, batch_of, measure=measure)}
    for precision in dict.fromkeys(resolve_compute(args.device, name).precision for name in args.precisions):
        ways = {f"{precision}, {method}": (method, False) for method in ("alternating", "grl")}
        if args.compile:
            ways[f"{precision}, grl, compiled"] = "grl", True
        for name, way in ways.items():
            children[name] = Child(build_ours, args.arch, args.device, batch_of, precision, *way, measure=measure)
    seconds = timed(children, args.repeats)
    print(f"{args.arch}, {args.batch_size} triplets of {args.size[0]}x{args.size[1]}, {processor(args.device)}")
    print("\n".join(align(table(seconds, "steps"))))
    write_record(args.out, {"settings": settings_of(args), "times": seconds}, args.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
