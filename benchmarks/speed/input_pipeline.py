"""Images per second of CPU time from file to network input, against a plain way of reading, and where the time goes.

python3 -m benchmarks.speed.input_pipeline [--rounds 9] [--images 4] [--out docs/input_pipeline.json]
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness.command_line import benchmark_parser, write_record
from benchmarks.harness.timing import alternate
from datasets.command_line import OneLineParser, positive
from datasets.naming import RAW_TO_CLASS
from datasets.places import ImageSet
from datasets.reading.batches import ImageBatches
from datasets.reading.transforms import crop_and_flip, read_image, resize_image, scale_image, stack_images
from datasets.reading.triplets import StepBatch, StepPlan, TrainingBatches
from models.input import CHANNEL_MEANS, to_network_input
from utils.retrieval.embedding import iterate_batches

LARGE, SMALL, TARGET = (1920, 1080), (1280, 960), (768, 432)
QUALITY = 92
CLOCK = time.process_time
"""CPU time: other work on the machine does not count."""


def write_photo(path: Path, size: tuple[int, int], seed: int, label: bool = False) -> str:
    """A JPEG with coarse structure and fine noise, about as costly to decode as a photo; with `label`, a label beside it."""
    rng = np.random.default_rng(seed)
    width, height = size
    coarse = Image.fromarray(rng.integers(0, 256, (height // 30, width // 30, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)) + rng.normal(0, 5, (height, width, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
    if label:
        raw = Image.fromarray(rng.integers(0, 21, (height // 60, width // 60), dtype=np.uint8))
        raw = raw.resize(size, Image.Resampling.NEAREST)
        opaque, empty = Image.new("L", size, 255), Image.new("L", size)
        label_file = Path(str(path).replace("/gallery/", "/gallery_labels/")).with_suffix(".png")
        label_file.parent.mkdir(parents=True, exist_ok=True)
        Image.merge("RGBA", (raw, empty, empty, opaque)).save(label_file)
    return str(path)


# -- the plain way ---------------------------------------------------------------------------------------------------


def plain_image(path: str) -> Tensor:
    """Decoded by Pillow and normalised in floating point on the CPU: float32 (3, H, W)."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)[..., ::-1]
    pixels = pixels - np.asarray(CHANNEL_MEANS, np.float32)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def plain_resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image[None], size=size, mode="bilinear")[0]


def plain_batch(paths: list[str], size: tuple[int, int] | None = None) -> Tensor:
    images = [plain_image(path) for path in paths]
    return torch.stack([plain_resize(image, size) for image in images] if size else images)


def plain_triplet(paths: list[str], top: int, left: int, flip: bool) -> tuple[Tensor, Tensor]:
    """Images and labels whole, then cropped and flipped."""
    rows, columns = slice(top, top + int(0.8 * LARGE[1])), slice(left, left + int(0.8 * LARGE[0]))
    images, labels = [], []
    for path in paths:
        raw = np.asarray(Image.open(path.replace("/gallery/", "/gallery_labels/").replace(".jpg", ".png")))[..., 0]
        label = np.full(raw.shape, 255, np.uint8)
        for value, found in enumerate(RAW_TO_CLASS[:27]):
            label[raw == value] = found
        image, label = plain_image(path)[:, rows, columns], torch.from_numpy(label)[rows, columns]
        images.append(image.flip(-1) if flip else image)
        labels.append(label.flip(-1) if flip else label)
    return torch.stack(images), torch.stack(labels)


# -- cases -------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """The same images read both ways into a float32 batch in network input space.

    `eight_bit` is the part of ours that a loader process does; the device does the rest.
    """

    plain: Callable[[], Tensor | tuple[Tensor, Tensor]]
    eight_bit: Callable[[], Tensor | StepBatch]
    files: list[str]

    def ours(self) -> Tensor | tuple[Tensor, Tensor]:
        batch = self.eight_bit()
        if isinstance(batch, StepBatch):
            return to_network_input(batch.images), batch.labels
        return to_network_input(batch)


def cases(folder: Path, images: int) -> dict[str, Case]:
    large = [write_photo(folder / f"town/gallery/front_rear/front/@{i}@0@.jpg", LARGE, i, True) for i in range(images)]
    small = [write_photo(folder / f"small/{i}.jpg", SMALL, i) for i in range(images)]
    half = (LARGE[1] // 2, LARGE[0] // 2)

    def read(paths: list[str], scale: float) -> Tensor:
        (batch,) = ImageBatches(paths, scale)[range(len(paths))]
        return batch.images

    def read_target() -> Tensor:
        return stack_images([resize_image(read_image(path), TARGET[::-1]) for path in small])

    found = ImageSet("made", tuple(large), np.zeros((images, 2)), np.zeros(images, np.int64))
    triplets = TrainingBatches(found, found)
    plan = StepPlan((0,), (1,), ((2,),), (), ((0, 0, 0, 0),))
    cut = find_cut(plan)
    shown = f"{LARGE[0]}x{LARGE[1]}", f"{SMALL[0]}x{SMALL[1]}"
    return {
        f"evaluation, {shown[0]} at scale 0.5": Case(lambda: plain_batch(large, half), lambda: read(large, 0.5), large),
        f"evaluation, {shown[1]} at scale 1": Case(lambda: plain_batch(small), lambda: read(small, 1.0), small),
        f"target, {shown[1]} to {TARGET[0]}x{TARGET[1]}": Case(
            lambda: plain_batch(small, TARGET[::-1]), read_target, small
        ),
        f"triplet with labels, {shown[0]} cropped": Case(
            lambda: plain_triplet(large[:3], *cut), lambda: triplets[plan], large[:3]
        ),
    }


def find_cut(plan: StepPlan) -> tuple[int, int, bool]:
    """Top, left and flip of the crop that a plan's only triplet gets."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(plan.keys[0])))
    rows, columns, flip = crop_and_flip(rng, LARGE[1], LARGE[0])
    return rows.start, columns.start, flip


def largest_difference(a: Tensor | tuple[Tensor, ...], b: Tensor | tuple[Tensor, ...]) -> float:
    """In grey levels; labels must be equal."""
    if isinstance(a, tuple):
        if not torch.equal(a[1], b[1]):
            raise SystemExit("labels differ between the plain way and ours")
        a, b = a[0], b[0]
    return float((a - b).abs().max())


# -- where the time goes -------------------------------------------------------------------------------------------------


def stages(path: str) -> dict[str, dict[str, Callable[[], object]]]:
    """The parts of reading one large image at scale 0.5, both ways."""
    opened = Image.open(path).convert("RGB")
    array = np.asarray(opened, np.float32)
    normalised, image = plain_image(path), read_image(path)
    halves = [scale_image(image, 0.5)] * 4
    half = (LARGE[1] // 2, LARGE[0] // 2)
    plain_halves, batch = [plain_resize(normalised, half)] * 4, stack_images(halves)

    def normalise() -> Tensor:
        pixels = array[..., ::-1] - np.asarray(CHANNEL_MEANS, np.float32)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    return {
        "plain": {
            "decode": lambda: Image.open(path).load(),
            "to RGB and float": lambda: np.asarray(opened.convert("RGB"), np.float32),
            "normalise, transpose": normalise,
            "resize": lambda: plain_resize(normalised, half),
            "stack 4": lambda: torch.stack(plain_halves),
        },
        "ours": {
            "header": lambda: Image.open(path).getexif(),
            "decode": lambda: read_image(path),
            "resize": lambda: scale_image(image, 0.5),
            "stack 4": lambda: stack_images(halves),
            "normalise 4 (on the device)": lambda: to_network_input(batch),
        },
    }


def reduced_decoding(path: str) -> dict[str, float]:
    """How far decoding at half size (Pillow's draft mode) lies from the 2x2 mean, in grey levels."""
    with Image.open(path) as image:
        image.draft("RGB", (LARGE[0] // 2, LARGE[1] // 2))
        reduced = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    difference = (reduced.int() - scale_image(read_image(path), 0.5).int()).abs()
    return {"largest": int(difference.max()), "share_above_1": float((difference > 1).float().mean())}


def start_up(folder: Path, workers: int) -> float:
    """Seconds for a pass over eight tiny images per worker."""
    paths = []
    for i in range(8 * max(1, workers)):
        path = folder / f"tiny/{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
        paths.append(str(path))
    start = time.perf_counter()
    for _ in iterate_batches(ImageBatches(paths), 8, workers, "start-up"):
        pass
    return time.perf_counter() - start


def build_parser() -> OneLineParser:
    parser = benchmark_parser("speed.input_pipeline", __doc__)
    parser.add_argument("--rounds", type=positive, default=9, metavar="N", help="alternations")
    parser.add_argument("--images", type=positive, default=4, metavar="N", help="files per case, at least 3")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        record = run(Path(name), args.rounds, max(3, args.images))
    print_tables(record)
    write_record(args.out, record)
    return 0


def run(folder: Path, rounds: int, images: int) -> dict:
    """Time everything; the content of the JSON record."""
    versions = {"torchvision": torchvision.__version__, "pillow": PIL.__version__}
    record = {"threads": 1, "versions": versions, "rounds": rounds, "cases": {}, "milliseconds": {}}
    made = cases(folder, images)
    for name, case in made.items():
        difference = largest_difference(case.plain(), case.ours())
        if difference > 1.01:
            raise SystemExit(f"{name}: {difference} grey levels apart")
        timed = alternate({"plain": case.plain, "ours": case.ours, "eight_bit": case.eight_bit}, rounds, clock=CLOCK)
        record["cases"][name] = {
            **{f"{way}_images_per_s": len(case.files) / timed[way]["seconds"] for way in timed},
            "speedup": timed["ours"]["speedup"],
            "speedup_eight_bit": timed["eight_bit"]["speedup"],
            "largest_difference": difference,
            "kilobytes_per_image": sum(map(os.path.getsize, case.files)) / len(case.files) / 1000,
        }
    first = next(iter(made.values())).files[0]
    for way, parts in stages(first).items():
        timed = alternate(parts, rounds, clock=CLOCK)
        record["milliseconds"][way] = {part: 1000 * timed[part]["seconds"] for part in parts}
    record["decoding_at_half_size"] = reduced_decoding(first)
    timed = alternate({str(workers): lambda n=workers: start_up(folder, n) for workers in (0, 1, 2)}, min(rounds, 5))
    record["start_up_s_by_workers"] = {workers: t["seconds"] for workers, t in timed.items()}
    return record


def print_tables(record: dict) -> None:
    columns = ("plain", "ours", "ratio", "8-bit", "ratio", "apart")
    print(f"{'images/s per core':44s} " + " ".join(f"{column:>7s}" for column in columns))
    for name, case in record["cases"].items():
        ours = f"{case['ours_images_per_s']:7.1f} {case['speedup']:6.2f}x"
        eight_bit = f"{case['eight_bit_images_per_s']:7.1f} {case['speedup_eight_bit']:6.2f}x"
        plain = f"{case['plain_images_per_s']:7.1f}"
        print(f"{name:44s} {plain} {ours} {eight_bit} {case['largest_difference']:7.2f}")
    print("8-bit: what a loader process does if a GPU makes the floating-point numbers")
    for way, parts in record["milliseconds"].items():
        print(f"\nms, {way}: " + ", ".join(f"{part} {value:.1f}" for part, value in parts.items()))
    half = record["decoding_at_half_size"]
    print(
        f"\ndecoding at half size: up to {half['largest']} grey levels off, {half['share_above_1']:.1%} by more than 1"
    )
    starts = ", ".join(f"{n} workers {s:.2f} s" for n, s in record["start_up_s_by_workers"].items())
    print(f"start-up of a pass: {starts}")


if __name__ == "__main__":
    sys.exit(main())
