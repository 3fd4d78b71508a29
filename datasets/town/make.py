"""Makes a town: checks the request, shares the drawing among processes, continues after an interruption."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from datasets.command_line import check_flags
from datasets.files import write_text
from datasets.jobs import run_jobs, with_progress
from datasets.town.passes import (
    PASSES,
    STANDARD_PASSES,
    VERSION,
    Chunk,
    Settings,
    chunks,
    pictures_in,
)
from datasets.town.world.difficulty import PRESETS, STANDARD, Knobs, difficulty_of

DONE, STARTED = "town.json", ".town-in-progress.json"


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
    """Draw the town into ``out``, or what is missing of it; returns ``out``. A complete town is left as it is.

    Parameters
    ----------
    out : folder of the town; made if absent.
    size, places, seed, knobs, passes : see :class:`datasets.town.passes.Settings`.
    workers : processes that draw; all cores by default. The pictures do not depend on it.
    progress : whether to show a progress bar.

    Raises
    ------
    ValueError : the parameters make no sense, or ``out`` holds something else.
    OSError : a file cannot be written, or a process that draws was killed.
    """
    out, settings = Path(out), Settings(tuple(int(v) for v in size), int(places), int(seed), knobs, tuple(passes))
    check_flags(settings)
    wanted = parameters(settings)
    if _is_complete(out, wanted):
        if progress:
            print(f"{out}: the town is complete, nothing to do")
        return out
    _write_json(out / STARTED, wanted)
    jobs = [(out, settings, chunk) for chunk in chunks(settings)]
    sizes = [pictures_in(settings, chunk) for *_, chunk in jobs]
    with_progress(run_jobs(_draw, jobs, workers), sizes, "town", quiet=not progress)
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


def _write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _draw(job: tuple[Path, Settings, Chunk]) -> None:
    from datasets.town.pictures import draw_chunk  # only here: naming a town must not load the drawing

    draw_chunk(*job)
