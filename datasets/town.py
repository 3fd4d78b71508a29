"""Draw the procedural town: the data set that SegVPR is trained and tested on where no recorded one is at hand.

Two synthetic towns with labels (``idda/town10``, ``idda/town3``) and a third place seen by another camera in
five conditions (``robotcar``), in the folder layout and with the file names of the recorded data sets::

    python3 -m datasets.town --out data/town

The same parameters always give the same bytes, whatever the number of workers. An interrupted run goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from tqdm import tqdm

from datasets.convert_files import OneLineParser
from datasets.sizes import MIN_SIDE, smallest_cropped
from datasets.town_difficulty import PRESETS, STANDARD, Knobs, check_knobs, difficulty_of, make_knobs
from datasets.town_jobs import MERGED, PASSES, STANDARD_PASSES, Chunk, Settings, chunks, draw_chunk
from datasets.town_style import VERSION

DONE, STARTED = "town.json", ".town-in-progress.json"
SMALLEST_SIDE, FEWEST_PLACES = MIN_SIDE, 4


class TownError(ValueError):
    """A request that cannot be met, in one line that says what to do."""


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
    """Draw the town into ``out``, or complete it, or leave it as it is when it is complete.

    Parameters
    ----------
    out : Path
        Folder of the town; made if absent.
    size : tuple of int
        Width and height of the pictures in pixels, each at least 97.
    places : int
        Places per town, at least 4.
    seed : int
        Seed of everything that is random, 0 or more.
    workers : int, optional
        Processes that draw; all cores by default. The pictures do not depend on it.
    progress : bool
        Show a progress bar.
    knobs : Knobs
        How hard the town is; see :func:`datasets.town_difficulty.make_knobs`.
    passes : sequence of str
        What is drawn, names of ``PASSES``: fewer passes are drawn sooner, and the two synthetic towns can be had in
        more conditions.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    TownError
        If the parameters make no sense or ``out`` holds something else.
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
    jobs = [(out, settings, c) for c in chunks(settings)]
    total = sum(_pictures(settings, c) for _, _, c in jobs)
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    with tqdm(total=total, unit="image", desc="town", disable=not progress) as bar:
        if workers == 1:
            for job in jobs:
                bar.update(_draw(job))
        else:
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                for count in pool.imap_unordered(_draw, jobs):
                    bar.update(count)
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
    width, height = settings.size
    if min(width, height) < SMALLEST_SIDE:
        raise TownError(
            f"size {width} x {height}: each side must be at least {SMALLEST_SIDE} pixels; give a larger --size W H"
        )
    if max(width, height) > 4096:
        raise TownError(f"size {width} x {height}: no side may exceed 4096 pixels; give a smaller --size W H")
    if settings.places < FEWEST_PLACES:
        raise TownError(f"{settings.places} places: at least {FEWEST_PLACES} are needed; give a larger --places N")
    if settings.seed < 0:
        raise TownError(f"seed {settings.seed}: give a --seed of 0 or more")
    unknown = [name for name in settings.passes if name not in PASSES]
    if unknown or not settings.passes:
        raise TownError(f"passes {' '.join(unknown) or 'none'}: no such pass; give --passes {' '.join(PASSES)}")
    if workers is not None and workers < 1:
        raise TownError(f"{workers} workers: give a --workers of 1 or more")
    try:
        check_knobs(settings.knobs)
    except ValueError as error:
        raise TownError(str(error)) from None


def check_trainable(size: Sequence[int]) -> None:
    """TownError where training would refuse pictures of this width and height."""
    if min(size) < smallest_cropped():
        raise TownError(
            f"size {size[0]} x {size[1]}: training needs sides of at least {smallest_cropped()} pixels; give a larger --size W H"
        )


def _is_complete(out: Path, wanted: dict) -> bool:
    """Return whether ``out`` holds the wanted town; raise where it holds anything else but a part of it."""
    if out.exists() and not out.is_dir():
        raise TownError(f"{out} is not a folder; give another --out")
    for name in (DONE, STARTED):
        if (out / name).is_file():
            try:
                found = json.loads((out / name).read_text())
            except ValueError:
                found = None
            if _drawn(found) != _drawn(wanted):
                raise TownError(
                    f"{out} holds a town drawn with other parameters; give another --out or remove that folder"
                )
            return name == DONE
    if out.is_dir() and any(out.iterdir()):
        raise TownError(f"{out} is not empty and holds no town; give another --out or empty that folder")
    return False


def _drawn(record: object) -> object:
    """Return the part of a record that the pictures depend on; the first records named neither difficulty nor passes."""
    if not isinstance(record, dict):
        return record
    return {k: v for k, v in ({"passes": list(STANDARD_PASSES)} | record).items() if k != "difficulty"}


def _make_folders(out: Path, settings: Settings) -> None:
    for run in (PASSES[name] for name in settings.passes):
        leaves = [""] if run.labels is None else list(run.cameras)
        for leaf in leaves:
            (out / run.images / leaf).mkdir(parents=True, exist_ok=True)
            if run.labels is not None:
                (out / run.labels / leaf).mkdir(parents=True, exist_ok=True)
    if settings.drawn("robotcar"):
        (out / MERGED).mkdir(parents=True, exist_ok=True)


def _write_json(path: Path, content: dict) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, path)


def _pictures(settings: Settings, chunk: Chunk) -> int:
    return (chunk.stop - chunk.first) * sum(len(p.cameras) for p in settings.drawn(chunk.town))


def _draw(job: tuple[Path, Settings, Chunk]) -> int:
    return draw_chunk(*job)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``python3 -m datasets.town``."""
    parser = OneLineParser(
        prog="python3 -m datasets.town",
        description="Draw the procedural town (two labelled synthetic towns, one place in five "
        "conditions), as hard as you like. The same parameters give the same bytes; an interrupted run goes on where it stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the town, made if absent")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(384, 216),
        metavar=("W", "H"),
        help=f"width and height of the pictures in pixels, each at least {smallest_cropped()}, below which training refuses them",
    )
    parser.add_argument("--places", type=int, default=150, metavar="N", help="places per town, at least 4")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of everything random, 0 or more")
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="processes that draw (None: all cores); the pictures do not depend on it",
    )
    parser.add_argument(
        "--preview",
        type=Path,
        nargs="?",
        const=Path(),
        default=None,
        metavar="FILE",
        help="also draw a contact sheet with captions and coloured labels; without FILE it goes to DIR/preview.png",
    )
    parser.add_argument(
        "--passes",
        nargs="+",
        default=tuple(STANDARD_PASSES),
        metavar="PASS",
        help="what is drawn; beside the standard ones there are "
        + ", ".join(name for name in PASSES if name not in STANDARD_PASSES),
    )
    hard = parser.add_argument_group(
        "difficulty",
        "a preset has fixed values, so that figures can be compared; a knob given beside it replaces its value",
    )
    hard.add_argument("--difficulty", default=STANDARD, metavar="NAME", help=f"preset: {', '.join(PRESETS)}")
    for knob in fields(Knobs):
        values = ", ".join(f"{getattr(preset, knob.name):g}" for preset in PRESETS.values())
        hard.add_argument(
            f"--{knob.name}",
            type=float,
            default=argparse.SUPPRESS,
            metavar="X",
            help=f"{knob.metadata['help']} (0 to {knob.metadata['high']:g}; presets: {values})",
        )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a request that cannot be met)."""
    args = build_parser().parse_args(argv)
    try:
        check_trainable(args.size)
        knobs = make_knobs(args.difficulty, **{f.name: getattr(args, f.name, None) for f in fields(Knobs)})
        make_town(args.out, tuple(args.size), args.places, args.seed, args.workers, knobs=knobs, passes=args.passes)
    except ValueError as error:
        print(f"datasets.town: {error}", file=sys.stderr)
        return 2
    if args.preview is not None:
        from datasets.town_preview import contact_sheet

        settings = Settings(tuple(args.size), args.places, args.seed, knobs, tuple(args.passes))
        target = args.out / "preview.png" if args.preview == Path() else args.preview
        contact_sheet(args.out, settings, target)
        print(f"contact sheet: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
