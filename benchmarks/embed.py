"""Embedding rate from memory, and a whole evaluation over four query sets from disk, against the plain way.

    python3 -m benchmarks.embed [--arch resnet50] [--size 384 216] [--images 48] [--device cpu] [--out embed.json]

Each way runs in a process of its own, in turn. The evaluation has a gallery and four query sets of equal size, as RobotCar's
overcast, rain, snow, sun and night; the plain way embeds the gallery four times.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.plain import plain_evaluation
from benchmarks.processes import Child, machine, table
from benchmarks.timing import alternate
from datasets.naming import KINDS
from datasets.places import ImageSet, load_image_set
from models import build_model
from utils.compute import resolve_compute
from utils.embedding import EmbeddingOptions
from utils.tables import align

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


def build_plain_rate(arch: str, device: str, size: tuple[int, int]) -> Callable[[], None]:
    torch.manual_seed(0)
    model = build_model(arch).to(device).eval()
    images = torch.rand(BATCH, 3, size[1], size[0], device=device) * 255

    @torch.no_grad()
    def call() -> None:
        model.embed(images).cpu()

    return call


def build_rate(arch: str, device: str, size: tuple[int, int], precision: str, compiled: bool) -> Callable[[], None]:
    torch.manual_seed(0)
    compute = resolve_compute(device, precision, compiled)
    embedder = compute.embedder(compute.place(build_model(arch)))
    images = compute.images(torch.randint(0, 256, (BATCH, 3, size[1], size[0]), dtype=torch.uint8))

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
    from utils.evaluation import EvaluationSet, evaluate_places  # needs faiss, which a GPU machine may lack

    torch.manual_seed(0)
    compute = resolve_compute(device, precision)
    model = compute.place(build_model(arch)).eval()
    gallery, *queries = image_sets(folder)
    sets = [EvaluationSet(name, gallery, q, KINDS["utm"], (25.0,), 1.0) for name, q in zip(CONDITIONS[1:], queries)]
    options = EmbeddingOptions(BATCH, workers, compute)
    return lambda: len(evaluate_places(model, sets, options))


def timed(children: dict[str, Child], repeats: int) -> dict[str, dict]:
    seconds = alternate(children, repeats)
    for child in children.values():
        child.close()
    return seconds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=[384, 216], metavar=("W", "H"))
    parser.add_argument("--images", type=int, default=48, help="per condition (default: 48)")
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "auto"], help="ours (default: fp32 auto)")
    parser.add_argument("--compile", action="store_true", help="add compiled embedding")
    parser.add_argument("--rate_only", action="store_true", help="from memory alone: no files, no faiss")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the record here as JSON")
    args = parser.parse_args(argv)
    size = tuple(args.size)
    names = {precision: resolve_compute(args.device, precision).precision for precision in args.precisions}
    where = torch.cuda.get_device_name() if args.device == "cuda" else machine()
    children = {PLAIN: Child(build_plain_rate, args.arch, args.device, size)}
    for precision, shown in names.items():
        children[shown] = Child(build_rate, args.arch, args.device, size, precision, False)
        if args.compile:
            children[f"{shown}, compiled"] = Child(build_rate, args.arch, args.device, size, precision, True)
    rate = timed(children, args.repeats)
    print(f"{args.arch}, embedding {size[0]}x{size[1]} from memory, batches of {BATCH}, {where}")
    print("\n".join(align(table(rate, "images", BATCH))))
    evaluation = {}
    if not args.rate_only:
        with tempfile.TemporaryDirectory() as name:
            draw_images(Path(name), size, args.images)
            machine_args = (args.arch, args.device, Path(name), args.num_workers)
            children = {PLAIN: Child(build_plain_evaluation, *machine_args)}
            children |= {shown: Child(build_evaluation, *machine_args, p) for p, shown in names.items()}
            evaluation = timed(children, args.repeats)
        print(f"\nevaluation of four query sets, gallery and sets of {args.images} files each")
        print("\n".join(align(table(evaluation, "sets", 4))))
    if args.out:
        settings = vars(args) | {"out": None}
        record = {"machine": where, "settings": settings, "rate": rate, "evaluation": evaluation, "batch": BATCH}
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
