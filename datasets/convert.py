"""Anybody's photos -> the `@UTM` layout that training and evaluation read.

    python3 -m datasets.convert --images photos --out data/mine [--positions photos.csv]

Positions come from names, a CSV file or EXIF data. An interrupted run goes on where it stopped.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.convert_files import (
    OneLineParser,
    copy_file,
    link_file,
    positive,
    refuse_leftovers,
    run_converter,
    run_jobs,
)
from datasets.naming import list_folder
from datasets.position_report import PositionReport
from datasets.positions import Zone, locate, name_position, require_positions


@dataclass(frozen=True)
class Converted:
    """What became of the images of a folder: `images == kept + skipped`, `written` of the kept ones are new.

    `report` says where their positions came from.
    """

    images: int
    kept: int
    written: int
    skipped: int
    zone: Zone | None
    report: PositionReport

    def __str__(self) -> str:
        zone = f", UTM zone {self.zone}" if self.zone else ""
        return f"{self.images} images: {self.kept} kept ({self.written} new), {self.skipped} without a position{zone}"


def convert_images(
    images: Path,
    out: Path,
    positions: Path | None = None,
    link: bool = False,
    skip_missing: bool = False,
    zone: Zone | None = None,
    workers: int = 1,
    allow_missing_rows: bool = False,
) -> Converted:
    """Copy each image below `images` to `out/<relative folder>/@east@north@<stem>@<suffix>`.

    A name that already states its position is kept as it is.

    Parameters
    ----------
    positions : CSV file, see `datasets.positions.csv_positions`.
    link : make links instead of copies.
    skip_missing : pass over images that have no position, instead of an error.
    zone : UTM zone for latitudes and longitudes, see `datasets.positions.locate`.
    workers : threads.
    allow_missing_rows : whether the CSV file may have rows that match no image.

    Raises
    ------
    ValueError, OSError
        Naming the file or the folder: no image, no position, one folder inside the other, or images in `out` that come
        from the same files at other positions. Nothing is written then.
    """
    images, out = Path(images), Path(out)
    _check_apart(images, out)
    paths, unread = list_folder(images)
    found, zone, report, faults = locate(paths, positions, images, zone, allow_missing_rows, unread)
    located = ~np.isnan(found).any(axis=1)
    if not skip_missing or not located.any():
        require_positions(paths, found, faults)
    targets = target_paths([Path(path).relative_to(images) for path in paths], found)
    by_folder: dict[Path, set[str]] = {}
    for target in targets:
        if target:
            by_folder.setdefault(out / target.parent, set()).add(target.name)
    for folder, names in by_folder.items():
        subjects = {name.split("@", 3)[3] for name in names}
        refuse_leftovers(folder, names, subjects, "remove the images of that run, or give another --out")
    for folder in by_folder:
        folder.mkdir(parents=True, exist_ok=True)
    pairs = [(Path(path), out / target) for path, target in zip(paths, targets) if target]
    jobs = [pair for pair in pairs if not _is_done(*pair)]
    run_jobs(_link if link else _copy, jobs, workers, "convert", processes=False)
    return Converted(len(paths), len(pairs), len(jobs), len(paths) - len(pairs), zone, report)


def target_paths(relative: Sequence[Path], positions: np.ndarray) -> list[Path | None]:
    """Where images go below OUT, None without a position; equal names in one folder get `_2`, `_3`... at their stem."""
    taken: set[str] = set()
    targets: list[Path | None] = []
    for path, (east, north) in zip(relative, positions.tolist()):
        if np.isnan(east):
            targets.append(None)
            continue
        number, stem = 1, path.stem.replace("@", "_")
        name = path.name if name_position(path) else f"@{east:.3f}@{north:.3f}@{stem}@{path.suffix}"
        while str(path.parent / name).casefold() in taken:
            number += 1
            name = f"@{east:.3f}@{north:.3f}@{stem}_{number}@{path.suffix}"
        taken.add(str(path.parent / name).casefold())
        targets.append(path.parent / name)
    return targets


def _check_apart(images: Path, out: Path) -> None:
    inner, outer = images.resolve(), out.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise ValueError(f"--out {out}: must lie apart from --images {images}, neither inside the other")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is not a folder")


def _is_done(source: Path, target: Path) -> bool:
    """Whether the target is the source, or a copy that is no older."""
    if not target.is_file():
        return False
    original, copy = source.stat(), target.stat()
    # a FAT file system keeps times to 2 s
    return os.path.samestat(original, copy) or (
        original.st_size == copy.st_size and original.st_mtime <= copy.st_mtime + 2
    )


def _copy(job: tuple[Path, Path]) -> None:
    copy_file(*job)


def _link(job: tuple[Path, Path]) -> None:
    link_file(*job)


def build_parser() -> OneLineParser:
    """Command line of `python3 -m datasets.convert`."""
    parser = OneLineParser(
        prog="datasets.convert",
        description="Give photos the names that training and evaluation read: OUT/<folder>/@east@north@<name>@.jpg. "
        "Positions come from @UTM names, a CSV file or EXIF data. An interrupted run goes on where it stopped.",
        allow_abbrev=False,
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of photos, searched in depth")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill, apart from --images")
    parser.add_argument(
        "--positions",
        type=Path,
        metavar="FILE.csv",
        help="positions: path,latitude,longitude or path,easting,northing in the first line; paths relative to the "
        "file or to --images",
    )
    parser.add_argument("--link", action="store_true", help="make links instead of copies")
    parser.add_argument("--skip_missing", action="store_true", help="pass over images without a position")
    parser.add_argument(
        "--allow_missing_rows", action="store_true", help="the CSV file may list images that are not in --images"
    )
    parser.add_argument(
        "--zone", metavar="ZONE", help="UTM zone as 30N or 30S (hemisphere); default: that of most images"
    )
    parser.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="threads (default: one per core)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = build_parser().parse_args(argv)

    def command() -> None:
        zone = Zone.parse(args.zone) if args.zone else None
        done = convert_images(
            args.images,
            args.out,
            args.positions,
            args.link,
            args.skip_missing,
            zone,
            args.workers,
            args.allow_missing_rows,
        )
        print(done)
        for warning in done.report.warnings:
            print(f"datasets.convert: warning: {warning}", file=sys.stderr)
        print(done.report.summary())

    return run_converter("datasets.convert", command)


if __name__ == "__main__":
    sys.exit(main())
