"""Command line of the procedural town: ``python3 -m datasets.town --out DIR``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from datasets.command_line import OneLineParser, run_tool
from datasets.sizes import smallest_cropped
from datasets.town.make import FEWEST_PLACES, make_town
from datasets.town.passes import PASSES, STANDARD_PASSES, Settings
from datasets.town.world.difficulty import PRESETS, STANDARD, Knobs, make_knobs


def build_parser() -> argparse.ArgumentParser:
    """Return the command line. The flags of the difficulty are made from the fields of :class:`Knobs`."""
    parser = OneLineParser(
        prog="python3 -m datasets.town",
        description="Draw the procedural town: two labelled synthetic towns, and one place in five conditions. The same command "
        "on an empty folder gives the same bytes. An interrupted run continues when the command is given again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the town, made if absent")
    sides = f"width and height of the pictures in pixels, each at least {smallest_cropped()}, as training needs"
    add("--size", type=int, nargs=2, default=(384, 216), metavar=("W", "H"), help=sides)
    add("--places", type=int, default=150, metavar="N", help=f"places per town, at least {FEWEST_PLACES}")
    add("--seed", type=int, default=0, metavar="S", help="seed of all random choices, 0 or more")
    workers = "processes that draw (None: all cores); the pictures do not depend on it"
    add("--workers", type=int, default=None, metavar="N", help=workers)
    preview = "also draw a contact sheet with captions and coloured labels; its default place is DIR/preview.png"
    add("--preview", type=Path, nargs="?", const=Path(), default=None, metavar="FILE", help=preview)
    more = ", ".join(name for name in PASSES if name not in STANDARD_PASSES)
    passes = f"what to draw; {more} are drawn only if named here"
    add("--passes", nargs="+", default=tuple(STANDARD_PASSES), metavar="PASS", help=passes)
    hard = parser.add_argument_group(
        "difficulty", "The values of a preset never change, so results can be compared. A knob replaces one of them."
    )
    hard.add_argument("--difficulty", default=STANDARD, metavar="NAME", help=f"preset: {', '.join(PRESETS)}")
    for knob in fields(Knobs):
        values = ", ".join(f"{getattr(preset, knob.name):g}" for preset in PRESETS.values())
        text = f"{knob.metadata['help']} (0 to {knob.metadata['high']:g}; presets: {values})"
        hard.add_argument(f"--{knob.name}", type=float, default=argparse.SUPPRESS, metavar="X", help=text)
    return parser


def draw(args: argparse.Namespace) -> None:
    """Draw the town, and its contact sheet if asked for."""
    if min(args.size) < smallest_cropped():
        size = f"size {args.size[0]} x {args.size[1]}"
        raise ValueError(
            f"{size}: training needs sides of at least {smallest_cropped()} pixels; give a larger --size W H"
        )
    knobs = make_knobs(args.difficulty, **{f.name: getattr(args, f.name, None) for f in fields(Knobs)})
    make_town(args.out, tuple(args.size), args.places, args.seed, args.workers, knobs=knobs, passes=args.passes)
    if args.preview is not None:
        from datasets.town.preview import contact_sheet

        target = args.out / "preview.png" if args.preview == Path() else args.preview
        contact_sheet(args.out, Settings(tuple(args.size), args.places, args.seed, knobs, tuple(args.passes)), target)
        print(f"contact sheet: {target}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a request that cannot be met)."""
    args = build_parser().parse_args(argv)
    return run_tool("datasets.town", lambda: draw(args))


if __name__ == "__main__":
    sys.exit(main())
