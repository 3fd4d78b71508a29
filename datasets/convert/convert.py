"""Photos -> the `@UTM` layout that training and evaluation read."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.convert.record import Record, about_earlier, leftovers, refuse_leftovers
from datasets.files import copy_file, soft_link
from datasets.jobs import run_jobs, with_progress
from datasets.naming import list_folder
from datasets.positions.find import Zone, locate, name_position, require_positions
from datasets.positions.report import PositionReport


@dataclass(frozen=True)
class Converted:
    """The outcome for the images of a folder: `images == kept + skipped`, `written` of the kept ones are new.

    Attributes
    ----------
    report : where their positions came from.
    stale : images of an earlier run whose photo is gone or has lost its position; they are in `OUT/.stale` now.
    others : images in OUT that no existing photo explains; they stay.
    """

    images: int
    kept: int
    written: int
    skipped: int
    zone: Zone | None
    report: PositionReport
    stale: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        zone = f", UTM zone {self.zone}" if self.zone else ""
        text = f"{self.images} images: {self.kept} kept ({self.written} new), {self.skipped} without a position{zone}"
        return text + about_earlier(self.stale, self.others)


def convert_images(
    images: Path,
    out: Path,
    positions: Path | None = None,
    link: bool = False,
    skip_missing: bool = False,
    zone: Zone | None = None,
    workers: int | None = None,
    allow_missing_rows: bool = False,
) -> Converted:
    """Copy each image below `images` to `out/<relative folder>/@east@north@<stem>@<suffix>`.

    A name that already states its position is kept as it is.

    Parameters
    ----------
    positions : CSV file, see `datasets.positions.find.csv_positions`.
    link : make links instead of copies.
    skip_missing : pass over images that have no position, instead of an error.
    zone : UTM zone for latitudes and longitudes, see `datasets.positions.find.locate`.
    workers : threads, by default one per core.
    allow_missing_rows : whether the CSV file may have rows that match no image.

    Raises
    ------
    ValueError, OSError
        Naming the file or the folder: no image, no position, one folder inside the other, or images in `out` of the same
        files at other positions. Nothing is written then.
    """
    images, out = Path(images), Path(out)
    _check_apart(images, out)
    paths, unread = list_folder(images)
    found, zone, report, faults = locate(paths, positions, images, zone, allow_missing_rows, unread)
    located = ~np.isnan(found).any(axis=1)
    if not skip_missing or not located.any():
        require_positions(paths, found, faults)
    root, record = os.path.realpath(images), Record(out)
    relative = [Path(path).relative_to(images) for path in paths]
    sources = [os.path.join(root, path) for path in relative]
    before = {source: Path(target) for target, source in record.sources(root).items()}
    taken = _taken_elsewhere(record, root, sources)
    targets = target_paths(relative, found, [before.get(source) for source in sources], taken)
    made = {str(target): source for source, target in zip(sources, targets) if target}
    stale = _stale(record, root, made)
    _refuse_others(record, [target for target in targets if target])
    record.set_aside(stale)
    jobs = {target: source for target, source in made.items() if not _is_done(record, source, target)}
    record.plan(jobs)
    pairs = [(Path(source), out / target) for target, source in jobs.items()]
    write = soft_link if link else copy_file
    writing = run_jobs(lambda pair: write(*pair), pairs, workers, processes=False)
    with_progress(writing, [1] * len(pairs), "convert")
    record.finish(made)
    others = record.others(out, made)
    return Converted(len(paths), len(made), len(jobs), len(paths) - len(made), zone, report, (*stale,), (*others,))


def _taken_elsewhere(record: Record, root: str, sources: Sequence[str]) -> list[str]:
    """Names that images of other folders have, unless they are copies of photos that only moved."""
    sizes = {(status.st_size, int(status.st_mtime)) for status in map(os.stat, sources)}
    taken = []
    for target, source in record.sources(root, below=False).items():
        image = record.out / target
        moved = not os.path.exists(source) and image.exists()
        if not (moved and (image.stat().st_size, int(image.stat().st_mtime)) in sizes):
            taken.append(target)
    return taken


def _stale(record: Record, root: str, made: dict[str, str]) -> list[str]:
    """Images of earlier runs whose photo is gone or has lost its position.

    ValueError if a photo is still used under another name: its position or its folder has changed.
    """
    listed = set(made.values())
    earlier = {target: source for target, source in record.sources(root).items() if made.get(target) != source}
    twice = [target for target, source in earlier.items() if source in listed]
    if twice:
        raise ValueError(leftovers(record.out, twice))
    return sorted(earlier)


def _refuse_others(record: Record, targets: Sequence[Path]) -> None:
    """ValueError if OUT holds one of the images at another position, from a run that left no record."""
    by_folder: dict[Path, set[str]] = {}
    for target in targets:
        by_folder.setdefault(target.parent, set()).add(target.name)
    for folder, names in by_folder.items():
        subjects = {name.split("@", 3)[3] for name in names}
        known = {Path(target).name for target in record.made if Path(target).parent == folder}
        refuse_leftovers(record.out / folder, names | known, subjects)


def target_paths(
    relative: Sequence[Path],
    positions: np.ndarray,
    before: Sequence[Path | None] | None = None,
    taken: Iterable[str] = (),
) -> list[Path | None]:
    """Where images go below OUT, None without a position; equal names in one folder get `_2`, `_3`... at their stem.

    Parameters
    ----------
    before : path below OUT that an earlier run gave each image. It is kept if it still fits.
    taken : paths below OUT that are in use.
    """
    before = before or [None] * len(relative)
    targets: list[Path | None] = [
        old if old and _fits(old, path, position) else None
        for path, old, position in zip(relative, before, positions.tolist())
    ]
    used = {str(path).casefold() for path in [*taken, *targets] if path}
    for index, (path, (east, north)) in enumerate(zip(relative, positions.tolist())):
        if targets[index] or np.isnan(east):
            continue
        number, stem = 1, path.stem.replace("@", "_")
        name = path.name if name_position(path) else f"@{east:.3f}@{north:.3f}@{stem}@{path.suffix}"
        while str(path.parent / name).casefold() in used:
            number += 1
            name = f"@{east:.3f}@{north:.3f}@{stem}_{number}@{path.suffix}"
        used.add(str(path.parent / name).casefold())
        targets[index] = path.parent / name
    return targets


def _fits(old: Path, path: Path, position: Sequence[float]) -> bool:
    """Whether an image may keep the path that it had below OUT."""
    east, north = position
    stem = re.escape(path.stem.replace("@", "_"))
    numbered = rf"@{east:.3f}@{north:.3f}@{stem}(_\d+)?@{re.escape(path.suffix)}"
    return old.parent == path.parent and (
        (name_position(path) is not None and old.name == path.name) or re.fullmatch(numbered, old.name) is not None
    )


def _check_apart(images: Path, out: Path) -> None:
    inner, outer = images.resolve(), out.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise ValueError(f"--out {out}: must lie apart from --images {images}, neither inside the other")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is not a folder")


def _is_done(record: Record, source: str, target: str) -> bool:
    """Whether the target is the source, or a whole copy of what it is now."""
    image = record.out / target
    if not image.is_file():
        return False
    original, copy = os.stat(source), image.stat()
    if os.path.samestat(original, copy):
        return True
    current = record.is_current(target, source)
    if current is None:  # a FAT file system keeps times to 2 s
        current = abs(original.st_mtime - copy.st_mtime) <= 2
    return current and original.st_size == copy.st_size
