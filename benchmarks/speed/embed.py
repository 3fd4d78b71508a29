"""Embedding rate from memory, and a whole evaluation over four query sets from disk, against the plain way.

    python3 -m benchmarks.speed.embed [--arch resnet50] [--size 384 216] [--images 48] [--device cpu] [--out embed.json]

Each way runs in a process of its own, in turn. The evaluation has a gallery and four query sets of equal size, as RobotCar's
overcast, rain, snow, sun and night; the plain way embeds the gallery four times.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.harness.flops import embedding_flops, peak_flops
from benchmarks.harness.machine import processor, write_record
from benchmarks.harness.plain import plain_evaluation
from benchmarks.speed.processes import Child, clock_for, processor_time, table, timed
from datasets.naming import KINDS
from datasets.places import ImageSet, load_image_set
from models import build_model
from utils.evaluation.tables import align
from utils.retrieval.embedding import EmbeddingOptions
from utils.system.compute import resolve_compute

PLAIN = "plain float32"
CONDITIONS = ("overcast", "rain", "snow", "sun", "night")
BATCH = 24


def draw_images(folder: Path, size: tuple[int, int], count: int) -> None:
    """`count` JPEG files in each condition's folder: smooth noise, which costs a decoder what a photo does."""
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
    """The rates with images per second, and the share of the GPU's peak that they make use of (None where it is not known)."""
    flops = embedding_flops(arch, size)
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    for way, times in rate.items():
        images_per_s = batch / times["seconds"]
        peak = peak_flops(name, "fp32" if way == PLAIN else way.split(",")[0])
        share = None if peak is None else images_per_s * flops / peak
        times |= {"images_per_s": images_per_s, "flops_per_image": flops, "fraction_of_peak": share}
    return rate


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=[384, 216], metavar=("W", "H"))
    parser.add_argument("--images", type=int, default=48, help="per condition (default: 48)")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"images from memory at once (default: {BATCH})")
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "auto"], help="ours (default: fp32 auto)")
    parser.add_argument("--compile", action="store_true", help="add compiled embedding")
    parser.add_argument("--rate_only", action="store_true", help="from memory alone: no files, no faiss")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--cpu_time",
        action="store_true",
        help="processor time, where others use the machine; of whole evaluations with --num_workers 0 alone",
    )
    parser.add_argument("--out", type=Path, help="write the record here as JSON")
    args = parser.parse_args(argv)
    size = tuple(args.size)
    names = dict.fromkeys(resolve_compute(args.device, precision).precision for precision in args.precisions)
    measure = clock_for(args.device, args.cpu_time)
    children = {PLAIN: Child(build_plain_rate, args.arch, args.device, size, args.batch, measure=measure)}
    for precision in names:
        for compiled in (False, True) if args.compile else (False,):
            way = args.arch, args.device, size, args.batch, precision, compiled
            children[precision + ", compiled" * compiled] = Child(build_rate, *way, measure=measure)
    rate = with_flops(timed(children, args.repeats), args.arch, size, args.batch, args.device)
    print(
        f"{args.arch}, embedding {size[0]}x{size[1]} from memory, batches of {args.batch}, {processor(args.device)}, "
        f"{rate[PLAIN]['flops_per_image'] / 1e9:.1f} GFLOP per image"
    )
    rows = table(rate, "images", args.batch)
    shares = [times["fraction_of_peak"] for times in rate.values()]
    shown = ["of peak", *("unknown" if share is None else f"{share:.1%}" for share in shares)]
    print("\n".join(align([[*row, share] for row, share in zip(rows, shown)])))
    evaluation = {}
    if not args.rate_only:
        with tempfile.TemporaryDirectory() as name:
            draw_images(Path(name), size, args.images)
            machine_args = (args.arch, args.device, Path(name), args.num_workers)
            whole = processor_time if args.cpu_time and not args.num_workers else None
            children = {PLAIN: Child(build_plain_evaluation, *machine_args, measure=whole)}
            children |= {p: Child(build_evaluation, *machine_args, p, measure=whole) for p in names}
            evaluation = timed(children, args.repeats)
        print(f"\nevaluation of four query sets, gallery and sets of {args.images} files each")
        print("\n".join(align(table(evaluation, "sets", 4))))
    write_record(
        args.out, {"settings": vars(args) | {"out": None}, "rate": rate, "evaluation": evaluation}, args.device
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
