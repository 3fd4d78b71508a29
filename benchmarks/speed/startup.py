"""Time and memory of finding every training query's positives and the images too near to be its negatives.

    python3 -m benchmarks.speed.startup [--size 100000] [--plain_size 8000] [--out startup.json]

Queries and gallery follow one grid of streets, with an image every few metres from each of several cameras. The plain way, as in
the reference, is a radius search that keeps its lists, and a list of negatives for each query. Its memory grows with queries x
gallery, so both ways are compared at `--plain_size` of each, and only ours goes up to `--size`. Each runs in a process of its own.
"""

import statistics
import sys

import numpy as np
from sklearn.neighbors import NearestNeighbors

from benchmarks.harness.command_line import benchmark_parser, write_record
from benchmarks.harness.machine import in_a_process_of_its_own, machine
from datasets.command_line import OneLineParser, positive
from datasets.naming import KINDS, NEGATIVE_DISTANCE_M
from datasets.places import ImageSet, neighbours_within
from utils.system.tables import align

SAME_PLACE_M = KINDS["iddav2"].train_threshold_m
CAMERAS = ("front", "left", "rear", "right")
BLOCK_M, TOWN_BLOCKS = 100.0, 10


def drive(size: int, spacing_m: float, seed: int) -> ImageSet:
    """A drive along every street of one town of 10 x 10 blocks after another; positions have noise of half a metre."""
    rng = np.random.default_rng(seed)
    along = np.arange(-(-size // len(CAMERAS))) * spacing_m
    length = BLOCK_M * TOWN_BLOCKS
    street, at = (along // length).astype(int), along % length
    town, number = street // (2 * TOWN_BLOCKS), street % (2 * TOWN_BLOCKS)
    across = (number // 2) * BLOCK_M
    east, north = np.where(number % 2, across, at), np.where(number % 2, at, across)
    origin = 277_000 + 2 * length * (town % 10), 110_000 + 2 * length * (town // 10)
    places = np.stack([east + origin[0], north + origin[1]], 1) + rng.normal(0, 0.5, (len(along), 2))
    positions = np.repeat(places, len(CAMERAS), axis=0)[:size]
    cameras = np.tile(np.array(CAMERAS), len(along))[:size]
    return ImageSet("drive", ("",) * size, positions, cameras)


def two_drives(size: int, spacing_m: float) -> tuple[ImageSet, ImageSet]:
    return drive(size, spacing_m, 0), drive(size, spacing_m, 1)


def ours(gallery: ImageSet, queries: ImageSet) -> tuple[float, float]:
    """As training starts; returns the mean numbers of positives and of images that are no negatives."""
    positives = neighbours_within(gallery, queries, SAME_PLACE_M, same_camera=True)
    not_negative = neighbours_within(gallery, queries, NEGATIVE_DISTANCE_M)
    return float(positives.counts.mean()), float(not_negative.counts.mean())


def plain(gallery: ImageSet, queries: ImageSet) -> tuple[float, float]:
    """The plain way; returns the same."""
    search = NearestNeighbors().fit(gallery.positions)
    near = search.radius_neighbors(queries.positions, SAME_PLACE_M, return_distance=False)
    positives = [
        np.sort(row[gallery.cameras[row] == camera]) for row, camera in zip(near, queries.cameras, strict=True)
    ]
    near = search.radius_neighbors(queries.positions, NEGATIVE_DISTANCE_M, return_distance=False)
    negatives = [np.setdiff1d(np.arange(len(gallery)), row, assume_unique=True) for row in near]
    counts = [len(gallery) - len(row) for row in negatives]
    return float(np.mean([len(row) for row in positives])), float(np.mean(counts))


def build_parser() -> OneLineParser:
    parser = benchmark_parser("speed.startup", __doc__)
    add = parser.add_argument
    add("--size", type=positive, default=100_000, metavar="N", help="queries, and gallery images")
    add("--plain_size", type=positive, default=8000, metavar="N", help="of each for the comparison")
    add("--spacing", type=float, default=4.0, metavar="M", help="metres between two images")
    add("--repeats", type=positive, default=3, metavar="N", help="rounds of each, in turn")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    cases = {"plain": (plain, args.plain_size), "ours": (ours, args.plain_size), "ours, all": (ours, args.size)}
    runs: dict[str, list[dict]] = {name: [] for name in cases}
    for _ in range(args.repeats):
        for name, (work, size) in cases.items():
            runs[name].append(in_a_process_of_its_own(two_drives, work, size, args.spacing))
    if runs["plain"][0]["result"] != runs["ours"][0]["result"]:
        raise AssertionError("the plain way and ours found different numbers of images")
    rows = []
    table = [["", "queries", "gallery", "positives each", "within 25 m each", "s", "MiB added", "MiB in all"]]
    for name, (_, size) in cases.items():
        way, (positives, near) = name.split(",")[0], runs[name][0]["result"]
        medians = {
            key: statistics.median(run[key] for run in runs[name]) for key in ("seconds", "added_mib", "peak_mib")
        }
        rows.append({"way": way, "queries": size, "gallery": size, "positives": positives, "near": near, **medians})
        seconds, *mib = medians.values()
        counts = str(size), str(size), f"{positives:.1f}", f"{near:.1f}"
        table.append([way, *counts, f"{seconds:.2f}", *(f"{m:.0f}" for m in mib)])
    print(machine())
    print("\n".join(align(table)))
    write_record(args.out, {"rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
