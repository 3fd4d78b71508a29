"""Makes a town: checks the request, shares the drawing among processes, continues after an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from datasets.files import write_text
from datasets.jobs import run_jobs, with_progress
from datasets.town.passes import (
    MERGED,
    PASSES,
    STANDARD_PASSES,
    VERSION,
    Chunk,
    Settings,
    chunks,
    pictures_in,
)
from datasets.town.world.difficulty import PRESETS, STANDARD, Knobs, check_knobs, difficulty_of
from models.config import MIN_SIDE

DONE, STARTED = "town.json", ".town-in-progress.json"
SMALLEST_SIDE, LARGEST_SIDE, FEWEST_PLACES = MIN_SIDE, 4096, 4


def make_town(
    out: Path,
    size: tuple[int, int] = (384, 216),
    places: int = 150,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    knobs: Knobs = PRESETS[STANDARD],
    passes: Sequence[str] = tuple(STANDARD_PASSES),
) -> Path:
    """Draw the town into ``out``, or what is missing of it. A complete town is left as it is.

    Parameters
    ----------
    out : Path
        Folder of the town; made if absent.
    size : tuple of int
        Width and height of the pictures in pixels, each at least 97.
    places : int
        Places per town, at least 4.
    seed : int
        Seed of all random choices, 0 or more.
    workers : int, optional
        Processes that draw; all cores by default. The pictures do not depend on it.
    progress : bool
        Show a progress bar.
    knobs : Knobs
        How hard the town is; see :func:`datasets.town.world.difficulty.make_knobs`.
    passes : sequence of str
        What to draw, names in ``PASSES``.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        If the parameters make no sense or ``out`` holds something else.
    OSError
        If a file cannot be written, or a process that draws was killed.
    """
    out, settings = Path(out), Settings(tuple(int(v) for v in size), int(places), int(seed), knobs, tuple(passes))
    _check(settings, workers)
    wanted = parameters(settings)
    if _is_complete(out, wanted):
        if progress:
            print(f"{out}: the town is complete, nothing to do")
        return out
    _make_folders(out, settings)
    for leftover in out.rglob(".*.part"):  # of an interrupted run
        leftover.unlink()
    _write_json(out / STARTED, wanted)
    jobs = [(out, settings, chunk) for chunk in chunks(settings)]
    sizes = [pictures_in(settings, chunk) for *_, chunk in jobs]
    with_progress(run_jobs(_draw, jobs, workers or os.cpu_count() or 1), sizes, "town", quiet=not progress)
    _write_json(out / DONE, wanted)
    (out / STARTED).unlink(missing_ok=True)
    return out


def parameters(settings: Settings) -> dict:
    """Return what ``town.json`` records."""
    passes = [name for name in PASSES if name in settings.passes]
    return {
        "version": VERSION,
        "size": list(settings.size),
        "places": settings.places,
        "seed": settings.seed,
        "difficulty": difficulty_of(settings.knobs),
        "knobs": asdict(settings.knobs),
        "passes": passes,
    }


def _check(settings: Settings, workers: int | None) -> None:
    """Raise ValueError, in one line that names the flag, for a request that cannot be met."""
    width, height = settings.size
    size = f"size {width} x {height}"
    if min(width, height) < SMALLEST_SIDE:
        raise ValueError(f"{size}: each side must be at least {SMALLEST_SIDE} pixels; give a larger --size W H")
    if max(width, height) > LARGEST_SIDE:
        raise ValueError(f"{size}: no side may exceed {LARGEST_SIDE} pixels; give a smaller --size W H")
    if settings.places < FEWEST_PLACES:
        raise ValueError(f"{settings.places} places: at least {FEWEST_PLACES} are needed; give a larger --places N")
    if settings.seed < 0:
        raise ValueError(f"seed {settings.seed}: give a --seed of 0 or more")
    unknown = [name for name in settings.passes if name not in PASSES]
    if unknown or not settings.passes:
        raise ValueError(f"passes {' '.join(unknown) or 'none'}: no such pass; give --passes {' '.join(PASSES)}")
    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers: give a --workers of 1 or more")
    check_knobs(settings.knobs)


def _is_complete(out: Path, wanted: dict) -> bool:
    """Return whether ``out`` holds the wanted town, False for a part of it; raise ValueError for anything else."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder; give another --out")
    for name in (DONE, STARTED):
        if (out / name).is_file():
            try:
                found = json.loads((out / name).read_text())
            except ValueError:
                found = None
            if _drawn(found) != _drawn(wanted):
                raise ValueError(
                    f"{out} holds a town drawn with other parameters; give another --out or remove that folder"
                )
            return name == DONE
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no town; give another --out or empty that folder")
    return False


def _drawn(record: object) -> object:
    """Return the part of a record that the pictures depend on. The oldest records name no difficulty and no passes."""
    if not isinstance(record, dict):
        return record
    return {k: v for k, v in ({"passes": list(STANDARD_PASSES)} | record).items() if k != "difficulty"}


def _make_folders(out: Path, settings: Settings) -> None:
    folders = {MERGED} if settings.drawn("robotcar") else set()
    for run in (PASSES[name] for name in settings.passes):
        if run.labels is None:
            folders.add(run.images)
        else:
            folders |= {f"{folder}/{camera}" for folder in (run.images, run.labels) for camera in run.cameras}
    for folder in folders:
        try:
            (out / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"{out / folder}: cannot make this folder ({error.strerror}); give another --out") from error


def _write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _draw(job: tuple[Path, Settings, Chunk]) -> None:
    from datasets.town.pictures import draw_chunk  # only here: naming a town must not load the drawing

    draw_chunk(*job)
