"""Raw Oxford RobotCar traversals -> the evaluation layout: one folder of `@UTM` images per condition, and `all`."""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.convert.record import REMEDY, STALE, Record, about_earlier, leftovers, refuse_leftovers
from datasets.files import soft_link, write_whole
from datasets.jobs import run_jobs, with_progress
from datasets.naming import CONDITIONS
from datasets.robotcar.bayer import demosaic
from datasets.robotcar.raw import Frames, Track, list_frames, read_track

ALL = "all"
JPEG_QUALITY = 95
MAX_GAP_S = 0.5
"""Longest time between two rows of the track within which positions are interpolated, in seconds."""
# rounding must not drop a frame that lies exactly the spacing from the last one
_TOLERANCE_M = 1e-6
_UNDECODABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Summary:
    """The outcome for a traversal's frames: `frames == kept + sum(dropped.values())`.

    Attributes
    ----------
    source : of the positions, `ins` or `rtk`.
    frames : those on the disk, and those that only `stereo.timestamps` lists.
    kept : frames that are in the condition's folder now; `written` of them are new.
    dropped : frames by reason: `near` (within the spacing of the last one kept), `outside`, `gap`, `jump`,
        `bad_status` (no position, see `Track.locate`), `missing` (listed, not on the disk), `unreadable`.
    stale : images of an earlier run whose frame is gone; they are in `OUT/.stale` now.
    others : images in the condition's folder that no existing frame explains; they stay.
    """

    traversal: Path
    condition: str
    source: str
    frames: int
    kept: int
    written: int
    dropped: dict[str, int]
    stale: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        dropped = ", ".join(f"{reason} {count}" for reason, count in self.dropped.items() if count) or "none"
        return (
            f"{self.traversal} -> {self.condition}, positions from {self.source}: {self.frames} frames, "
            f"{self.kept} kept ({self.written} new), dropped: {dropped}"
        ) + about_earlier(self.stale, self.others)


class _Plan(NamedTuple):
    """What is to be made of a traversal: file of each image to keep, by its frame; frames dropped, by reason."""

    traversal: Path
    source: str
    targets: dict[Path, Path]
    dropped: dict[str, int]
    stale: list[str]


def select_by_spacing(positions: np.ndarray, spacing_m: float) -> np.ndarray:
    """Indexes of (N, 2) positions at least `spacing_m` metres from the last one kept; NaN rows are passed over."""
    kept: list[int] = []
    for index, (east, north) in enumerate(positions.tolist()):
        if math.isnan(east):
            continue
        if not kept or math.dist((east, north), positions[kept[-1]]) >= spacing_m - _TOLERANCE_M:
            kept.append(index)
    return np.array(kept, np.int64)


def convert_traversals(
    traversals: Sequence[Path],
    condition: str,
    out: Path,
    spacing_m: float = 5.0,
    crop_bottom: int = 0,
    positions: str = "auto",
    workers: int | None = 1,
) -> list[Summary]:
    """Write `out/<condition>/@east@north@<timestamp>@.jpg` and bring `out/all` up to date.

    Parameters
    ----------
    traversals : folders as downloaded, with `stereo/centre/<timestamp>.png` and `gps/ins.csv` or `rtk.csv`.
    condition : one of `CONDITIONS`.
    spacing_m : least distance of a frame from the last one kept, in metres; 0 keeps every frame with a position.
    crop_bottom : rows of pixels to cut off, for the bonnet.
    positions : `ins`, `rtk`, or `auto`: RTK if a traversal has it, else INS.
    workers : processes.

    Raises
    ------
    ValueError, OSError
        Naming the file or the flag: a traversal lacks a part, a value is out of range, or `out` holds images of the same
        frames made with other settings. All traversals are looked at before anything is written.
    """
    record, plans = Record(Path(out)), []
    for traversal in dict.fromkeys(map(Path, traversals)):
        frames, track = list_frames(traversal), read_track(traversal, positions)
        plans.append(_plan(traversal, frames, track, record, condition, spacing_m))
        _check_crop(plans[-1].targets, crop_bottom)
    wanted = {os.path.relpath(target, record.out) for plan in plans for target in plan.targets.values()}
    summaries = []
    for plan in plans:
        summary = _develop_all(plan, record, condition, crop_bottom, workers)
        summaries.append(replace(summary, others=(*record.others(record.out / condition, wanted),)))
    link_all(record.out)
    return summaries


def _plan(traversal: Path, frames: Frames, track: Track, record: Record, condition: str, spacing_m: float) -> _Plan:
    """Choose the frames to keep; ValueError if none has a position, or if `out` holds them with other settings."""
    positions, reasons = track.locate(frames.times, MAX_GAP_S)
    kept = select_by_spacing(positions, spacing_m)
    counts = {reason: int((reasons == reason).sum()) for reason in ("outside", "gap", "jump", "bad_status")}
    if not len(kept):
        raise ValueError(
            f"{track.file}: no frame of {frames.folder} gets a position from it ("
            + ", ".join(f"{reason} {count}" for reason, count in counts.items())
            + f"; frames {frames.times[0]} to {frames.times[-1]}, track {track.times[0]} to {track.times[-1]}); "
            "is it the file of another traversal?"
        )
    names = {int(frames.times[i]): "@{:.3f}@{:.3f}@{}@.jpg".format(*positions[i], frames.times[i]) for i in kept}
    folder, subjects = record.out / condition, {f"{time}@.jpg" for time in frames.times.tolist()}
    refuse_leftovers(folder, set(names.values()), subjects)
    earlier = record.sources(os.path.realpath(frames.folder))
    elsewhere = sorted(target for target in earlier if Path(target).parts[0] != condition)
    if elsewhere:
        raise ValueError(leftovers(record.out, elsewhere, f"--condition {condition} would show them twice; "))
    stale = sorted(target for target in earlier if target.split("@", 3)[-1] not in subjects)
    near = len(frames.times) - sum(counts.values()) - len(kept)
    targets = {frames.path(time): folder / name for time, name in names.items()}
    return _Plan(traversal, track.source, targets, {"near": near, **counts, "missing": frames.missing}, stale)


def _check_crop(targets: dict[Path, Path], crop_bottom: int) -> None:
    """ValueError if nothing would be left of a frame, or if an image at hand was cropped in another way."""
    done = [(frame, image) for frame, image in targets.items() if image.is_file()][:1]
    for frame, image in done or targets.items():
        height = _height(frame)
        if height is not None:
            left = _rows_left(frame, height, crop_bottom)
            if done and _height(image) != left:
                raise ValueError(f"{image}: made with another --crop_bottom than {crop_bottom}; {REMEDY}")
            return


def _height(frame: Path) -> int | None:
    """Rows of pixels; None for a file that cannot be decoded."""
    try:
        with Image.open(frame) as image:
            return image.height
    except _UNDECODABLE:
        return None


def _rows_left(frame: Path, height: int, crop_bottom: int) -> int:
    if crop_bottom >= height:
        raise ValueError(f"--crop_bottom {crop_bottom}: {frame} has {height} rows of pixels; give fewer")
    return height - crop_bottom


def _develop_all(plan: _Plan, record: Record, condition: str, crop_bottom: int, workers: int | None) -> Summary:
    record.set_aside(plan.stale)
    made = {
        os.path.relpath(image, record.out): os.path.join(os.path.realpath(frame.parent), frame.name)
        for frame, image in plan.targets.items()
    }
    # an image that an earlier release left has no entry in the record: it is taken as it is
    jobs = {
        target: source
        for target, source in made.items()
        if not (record.out / target).is_file() or record.is_current(target, source) is False
    }
    record.plan(jobs)
    todo = [(Path(source), record.out / target, crop_bottom) for target, source in jobs.items()]
    results = with_progress(run_jobs(develop, todo, workers, chunk=8), [1] * len(todo), condition)
    faults = {target: fault for target, fault in zip(jobs, results) if fault}
    broken = [target for target in faults if (record.out / target).is_file()]  # their frames could be decoded before
    record.set_aside(broken)
    record.finish({target: source for target, source in made.items() if target not in faults})
    if faults:
        first = next(iter(faults.values()))
        print(f"warning: {len(faults)} frames cannot be decoded, the first: {first}", file=sys.stderr)
    frames = len(plan.targets) + sum(plan.dropped.values())
    kept, written = len(plan.targets) - len(faults), len(jobs) - len(faults)
    dropped = {**plan.dropped, "unreadable": len(faults)}
    return Summary(plan.traversal, condition, plan.source, frames, kept, written, dropped, (*plan.stale, *broken))


def develop(job: tuple[Path, Path, int]) -> str | None:
    """Turn one frame into a JPEG file: (frame, target, rows to cut off at the bottom).

    Returns what is wrong with a frame that cannot be decoded. ValueError for a picture of another kind.
    """
    source, target, crop_bottom = job
    try:
        with Image.open(source) as image:
            mode, pixels = image.mode, np.asarray(image)
    except _UNDECODABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(f"{source}: cannot read it ({error.strerror})") from error
        return f"{source} ({' '.join(str(error).split())[:150]})"
    if mode not in ("L", "RGB"):
        raise ValueError(f"{source}: its mode is {mode}; a frame is 8-bit Bayer (one channel) or RGB; replace it")
    rgb = demosaic(pixels) if mode == "L" else pixels
    picture = Image.fromarray(rgb[: _rows_left(source, len(rgb), crop_bottom)])
    write_whole(target, lambda part: picture.save(part, format="JPEG", quality=JPEG_QUALITY))
    return None


def link_all(out: Path) -> int:
    """Make `out/all/<condition>_<name>` a link to every image of every condition; returns how many there are.

    Links to images that are gone are removed; copies of such images are moved to `out/.stale/all`.
    """
    folder = out / ALL
    for entry in list(folder.glob("*")):
        condition, _, name = entry.name.partition("_")
        if entry.is_symlink() and not entry.exists():
            entry.unlink()
        elif condition in CONDITIONS and name.startswith("@") and not (out / condition / name).exists():
            (out / STALE / ALL).mkdir(parents=True, exist_ok=True)
            os.replace(entry, out / STALE / ALL / entry.name)
    count = 0
    for condition in CONDITIONS:
        for image in sorted((out / condition).glob("@*.jpg")):
            target = folder / f"{condition}_{image.name}"
            if not target.exists() or _stamp(target) != _stamp(image):
                soft_link(image, target)
            count += 1
    return count


def _stamp(image: Path) -> tuple[int, float]:
    """Bytes and time of change of a file, or of the image behind a link; to 2 s, as FAT file systems keep it."""
    status = image.stat()
    return status.st_size, status.st_mtime // 2
