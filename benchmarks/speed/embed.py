"""Embedding rate from memory, and a whole evaluation over four query sets from disk, against the plain way.

    python3 -m benchmarks.speed.embed [--arch resnet50] [--size 384 216] [--images 48] [--device cpu] [--out embed.json]

Each way runs in a process of its own, in turn. The evaluation has a gallery and four query sets of equal size, like RobotCar's
overcast, rain, snow, sun and night. The plain way embeds the gallery four times.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.harness.command_line import benchmark_parser, settings_of, write_record
from benchmarks.harness.flops import embedding_flops, peak_flops
from benchmarks.harness.machine import processor
from benchmarks.harness.plain import plain_evaluation
from benchmarks.speed.processes import Child, clock_for, processor_time, table, timed
from datasets.command_line import OneLineParser, positive
from datasets.naming import KINDS
from datasets.places import ImageSet, load_image_set
from models import build_model
from utils.retrieval.embedding import EmbeddingOptions
from utils.system.compute import resolve_compute
from utils.system.tables import align

PLAIN = "plain float32"
CONDITIONS = ("overcast", "rain", "snow", "sun", "night")
BATCH = 24


def draw_images(folder: Path, size: tuple[int, int], count: int) -> None:
    """`count` JPEG files in each condition's folder: smooth noise, as costly to decode as a photo."""
    rng = np.random.default_rng(0)
    for condition in CONDITIONS:
        (folder / condition).mkdir(parents=True)
        for i in range(count):
            coarse = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
            image.save(folder / condition / f"@{30.0 * i}@0.0@.jpg", quality=90)


def image_sets(folder: Path) -> list[ImageSet]:
    return [load_image_set([folder / condition]) for condition in CONDITIONS]


def build_plain_rate(arch: str, device: str, size: tuple[int, int], batch: int) -> Callable[[], None]:
    torch.manual_seed(0)
    model = build_model(arch).to(device).eval()
    images = torch.rand(batch, 3, size[1], size[0], device=device) * 255

    @torch.no_grad()
    def call() -> None:
        model.embed(images).cpu()

    return call


def build_rate(
    arch: str, device: str, size: tuple[int, int], batch: int, precision: str, compiled: bool
) -> Callable[[], None]:
    torch.manual_seed(0)
    compute = resolve_compute(device, precision, compiled)
    embedder = compute.embedder(compute.place(build_model(arch)))
    images = embedder.prepare(torch.randint(0, 256, (batch, 3, size[1], size[0]), dtype=torch.uint8))

    @torch.inference_mode()
    def call() -> None:
        with compute.autocast():
            embedder.embed(images).cpu()

    return call


def build_plain_evaluation(arch: str, device: str, folder: Path, workers: int) -> Callable[[], None]:
    torch.manual_seed(0)
    model = build_model(arch).to(device)
    gallery, *queries = image_sets(folder)
    return lambda: len(plain_evaluation(model, gallery, queries, 1.0, device, workers))


def build_evaluation(arch: str, device: str, folder: Path, workers: int, precision: str) -> Callable[[], None]:
    from utils.evaluation.recall import EvaluationSet, evaluate_places  # needs faiss, which a GPU machine may lack

    torch.manual_seed(0)
    compute = resolve_compute(device, precision)
    model = compute.place(build_model(arch)).eval()
    gallery, *queries = image_sets(folder)
    kind = KINDS["utm"]
    metres = (kind.eval_threshold_m,)
    sets = [EvaluationSet(name, gallery, q, kind, metres, 1.0) for name, q in zip(CONDITIONS[1:], queries)]
    options = EmbeddingOptions(BATCH, workers, compute)
    return lambda: len(evaluate_places(model, sets, options))


def with_flops(rate: dict[str, dict], arch: str, size: tuple[int, int], batch: int, device: str) -> dict[str, dict]:
    """The rates with images per second and the share of the GPU's peak that they use, None if the peak is not known."""
    flops = embedding_flops(arch, size)
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    for way, times in rate.items():
        images_per_s = batch / times["seconds"]
        peak = peak_flops(name, "fp32" if way == PLAIN else way.split(",")[0])
        share = None if peak is None else images_per_s * flops / peak
        times |= {"images_per_s": images_per_s, "flops_per_image": flops, "fraction_of_peak": share}
    return rate


def build_parser() -> OneLineParser:
    parser = benchmark_parser("speed.embed", __doc__, device="cpu")
    add = parser.add_argument
    add("--arch", default="resnet50", help="encoder")
    add("--size", type=positive, nargs=2, default=[384, 216], metavar=("W", "H"), help="of the images")
    add("--images", type=positive, default=48, metavar="N", help="files per condition")
    add("--batch", type=positive, default=BATCH, metavar="N", help="images from memory at once")
    add("--num_workers", type=int, default=1, metavar="N", help="loader processes")
    add("--precisions", nargs="+", default=["fp32", "auto"], metavar="NAME", help="ours")
    add("--compile", action="store_true", help="add compiled embedding")
    add("--rate_only", action="store_true", help="only from memory: no files, no faiss")
    add("--repeats", type=positive, default=3, metavar="N", help="rounds")
    cpu_time = "measure processor time, because others use the machine; whole evaluations only with --num_workers 0"
    add("--cpu_time", action="store_true", help=cpu_time)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    size = tuple(args.size)
    names = dict.fromkeys(resolve_compute(args.device, precision).precision for precision in args.precisions)
    rate = measure_rate(args, size, list(names))
    evaluation = {} if args.rate_only else measure_evaluation(args, size, list(names))
    write_record(args.out, {"settings": settings_of(args), "rate": rate, "evaluation": evaluation}, args.device)
    return 0


def measure_rate(args: argparse.Namespace, size: tuple[int, int], precisions: list[str]) -> dict[str, dict]:
    """Embedding from memory, printed as a table; returned by way."""
    measure = clock_for(args.device, args.cpu_time)
    children = {PLAIN: Child(build_plain_rate, args.arch, args.device, size, args.batch, measure=measure)}
    for precision in precisions:
        for compiled in (False, True) if args.compile else (False,):
            way = args.arch, args.device, size, args.batch, precision, compiled
            children[precision + ", compiled" * compiled] = Child(build_rate, *way, measure=measure)
    rate = with_flops(timed(children, args.repeats), args.arch, size, args.batch, args.device)
    print(
        f"{args.arch}, embedding {size[0]}x{size[1]} from memory, batches of {args.batch}, {processor(args.device)}, "
        f"{rate[PLAIN]['flops_per_image'] / 1e9:.1f} GFLOP per image"
    )
    shares = [times["fraction_of_peak"] for times in rate.values()]
    column = ["of peak", *("unknown" if share is None else f"{share:.1%}" for share in shares)]
    print("\n".join(align([[*row, share] for row, share in zip(table(rate, "images", args.batch), column)])))
    return rate


def measure_evaluation(args: argparse.Namespace, size: tuple[int, int], precisions: list[str]) -> dict[str, dict]:
    """Whole evaluations from files, printed as a table; returned by way."""
    with tempfile.TemporaryDirectory() as name:
        draw_images(Path(name), size, args.images)
        where = args.arch, args.device, Path(name), args.num_workers
        measure = processor_time if args.cpu_time and not args.num_workers else None
        children = {PLAIN: Child(build_plain_evaluation, *where, measure=measure)}
        children |= {p: Child(build_evaluation, *where, p, measure=measure) for p in precisions}
        evaluation = timed(children, args.repeats)
    print(f"\nevaluation of four query sets, gallery and sets of {args.images} files each")
    print("\n".join(align(table(evaluation, "sets", 4))))
    return evaluation


if __name__ == "__main__":
    sys.exit(main())
