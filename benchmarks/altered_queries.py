"""Altered copies of query photos, for measuring what bad light, weather and cameras cost.

    python3 -m benchmarks.altered_queries --queries data/photos/queries --gallery data/photos/gallery --out data/altered
    python3 eval.py --resume FILE --dataset_root_test data/altered --test_g gallery --test_q dark+night+noisy+blurred+grey+fog

Each kind gets a folder of its own below --out, with the names (so the positions) of the queries; the queries as they are (`clean`)
and the gallery are linked beside them. A copy depends on its name, its kind and the seed alone.
"""

import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from datasets.command_line import OneLineParser, add_flags, flag, read_flags
from datasets.files import soft_link, write_whole
from datasets.jobs import run_jobs, with_progress
from datasets.naming import list_images
from utils.system.command import run_command

JPEG_QUALITY = 92
CLEAN = "clean"
"""Folder of the queries as they are."""


def dark(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A twenty-fifth of the light: little contrast, and shot noise."""
    electrons = rng.poisson((x / 255) ** 2.2 * 60).astype(np.float32)
    return 255 * (electrons / 60 / 25) ** (1 / 2.2)


def night(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black sky, sodium lamps and their light on the street, sensor noise."""
    height, width = x.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32) / height
    upper = np.clip(1.5 - 3 * rows, 0, 1)
    sky = upper * np.clip((x.min(-1) - 110) / 60, 0, 1)
    light = np.full((height, width, 3), 0.10, np.float32)
    for _ in range(int(rng.integers(2, 6))):
        row, column, reach = rng.uniform(0.1, 0.5), rng.uniform(0, width / height), rng.uniform(0.1, 0.3)
        far = np.hypot((rows - row) * 0.6, columns - column) / reach
        light += (0.5 * np.exp(-(far**2)))[..., None] * np.array([1.0, 0.72, 0.35], np.float32)
        x = x + (500 * np.exp(-((far * 6) ** 2)))[..., None]
    x = x * (1 - 0.95 * sky[..., None]) * light
    return x + rng.normal(0, 6, x.shape)


def noisy(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal noise of 40 grey levels."""
    return x + rng.normal(0, 40, x.shape)


def blurred(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian of a hundredth of the longer side."""
    image = Image.fromarray(x.astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(max(image.size) / 100)), np.float32)


def grey(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Luma alone."""
    return np.repeat((x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None], 3, -1)


def fog(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White air that leaves 12% of the horizon and half of the lower edge."""
    rows = np.linspace(0, 1, len(x), dtype=np.float32)[:, None, None]
    left = 0.12 + 0.38 * np.clip(2 * rows - 1, 0, 1)
    return left * x + (1 - left) * rng.uniform(190, 225)


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "dark": dark,
    "night": night,
    "noisy": noisy,
    "blurred": blurred,
    "grey": grey,
    "fog": fog,
}
"""Kind -> function of pixels float32 (H, W, 3), 0..255, and a generator."""


def altered(image: Image.Image, kind: str, name: str, seed: int = 0) -> Image.Image:
    """One altered copy of an RGB image, the same for the same kind, name and seed."""
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), zlib.crc32(name.encode())])
    pixels = KINDS[kind](np.asarray(image, np.float32), rng)
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Settings:
    """What is altered, how, and where the copies go."""

    queries: Path | None = flag(None, "query photos, searched recursively")
    gallery: Path | None = flag(None, "gallery to link beside the copies, so that one root has both")
    out: Path | None = flag(None, "a folder per kind is written here")
    every: int = flag(1, "takes each N-th photo alone, by name", least=1)
    kinds: tuple[str, ...] = flag(tuple(KINDS), "what is made", choices=tuple(KINDS), metavar="KIND")
    seed: int = flag(0, "seed of everything random", least=0)
    workers: int = flag(1, "processes; the copies do not depend on it", least=1)


@dataclass(frozen=True)
class Job:
    """One query photo and where its copies go."""

    source: Path
    name: str
    out: Path
    kinds: tuple[str, ...]
    seed: int


def write_copies(job: Job) -> None:
    """Write one photo's copies; ValueError, naming the file, where it cannot be decoded."""
    try:
        with Image.open(job.source) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{job.source}: cannot decode this image ({error}); replace or remove it") from error
    for kind in job.kinds:
        target = job.out / kind / job.name
        target.parent.mkdir(parents=True, exist_ok=True)
        save = partial(altered(image, kind, job.name, job.seed).save, format=_format(target))
        write_whole(target, partial(save, quality=JPEG_QUALITY) if _format(target) == "JPEG" else save)


def _format(path: Path) -> str:
    return "PNG" if path.suffix.lower() == ".png" else "JPEG"


def make(settings: Settings) -> None:
    """Write all copies, and link the gallery; ValueError or OSError say what is wrong."""
    queries, gallery, out = settings.queries, settings.gallery, settings.out
    if queries is None or out is None:
        raise ValueError("give --queries DIR, which is read, and --out DIR, which is written")
    for source in filter(None, (queries, gallery)):
        if source.resolve() == out.resolve() or source.resolve() in out.resolve().parents:
            raise ValueError(f"--out {out}: lies in {source}, which is read; give another folder")
    jobs = [
        Job(path, path.relative_to(queries).as_posix(), out, settings.kinds, settings.seed)
        for path in map(Path, list_images(queries)[:: settings.every])
    ]
    names = {job.name for job in jobs}
    for folder in (out / kind for kind in (*settings.kinds, CLEAN)):
        if folder.is_dir() and any(Path(p).relative_to(folder).as_posix() not in names for p in list_images(folder)):
            raise ValueError(f"--out {out}: {folder.name} holds other photos; give another folder")
    with_progress(run_jobs(write_copies, jobs, settings.workers, chunk=8), [len(settings.kinds)] * len(jobs), "altered")
    originals = [(job.source, out / CLEAN / job.name) for job in jobs]
    for path in map(Path, list_images(gallery) if gallery else ()):
        originals.append((path, out / "gallery" / path.relative_to(gallery)))
    for path, target in originals:
        target.parent.mkdir(parents=True, exist_ok=True)
        soft_link(path, target)
    print(f"{len(jobs)} queries in {len(settings.kinds)} kinds: {out}")


def build_parser() -> OneLineParser:
    """Command line of `python3 -m benchmarks.altered_queries`."""
    parser = OneLineParser(prog="benchmarks.altered_queries", description=__doc__.split("\n")[0])
    add_flags(parser, Settings, "options")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = build_parser().parse_args(argv)
    return run_command("benchmarks.altered_queries", lambda: make(read_flags(Settings, args)))


if __name__ == "__main__":
    sys.exit(main())
