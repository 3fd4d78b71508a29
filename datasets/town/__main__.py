"""Command line of the procedural town: ``python3 -m datasets.town --out DIR``."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from datasets.command_line import OneLineParser, add_flags, flags_of, number, positive, read_flags, run_tool
from datasets.sizes import smallest_cropped
from datasets.town.make import make_town
from datasets.town.passes import Settings
from datasets.town.world.difficulty import PRESETS, STANDARD, Knobs


def build_parser() -> argparse.ArgumentParser:
    """Return the command line. The flags of the difficulty are made from the fields of :class:`Knobs`."""
    parser = OneLineParser(
        prog="python3 -m datasets.town",
        description="Draw the procedural town: two labelled synthetic towns, and one place in five conditions. The same command "
        "on an empty folder gives the same bytes. An interrupted run continues when the command is given again.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the town, made if absent")
    add_flags(parser, Settings, "pictures")
    workers = "processes that draw (default: one per core); the pictures do not depend on it"
    parser.add_argument("--workers", type=positive, metavar="N", help=workers)
    preview = "also draw a contact sheet with captions and coloured labels; its default place is DIR/preview.png"
    parser.add_argument("--preview", type=Path, nargs="?", const=Path(), metavar="FILE", help=preview)
    hard = parser.add_argument_group(
        "difficulty", "The values of a preset never change, so results can be compared. A knob replaces one of them."
    )
    hard.add_argument("--difficulty", default=STANDARD, choices=tuple(PRESETS), help="preset")
    for name, knob in flags_of(Knobs).items():
        values = ", ".join(f"{getattr(preset, name):g}" for preset in PRESETS.values())
        text = f"{knob.metadata['help']} (0 to {knob.metadata['most']:g}; presets: {values})"
        kind = number(float, knob.metadata)
        hard.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, metavar="X", help=text)
    return parser


def draw(args: argparse.Namespace) -> None:
    """Draw the town, and its contact sheet if asked for."""
    if min(args.size) < smallest_cropped():
        size = f"size {args.size[0]} x {args.size[1]}"
        raise ValueError(
            f"{size}: training needs sides of at least {smallest_cropped()} pixels; give a larger --size W H"
        )
    given = {name: value for name, value in vars(args).items() if name in flags_of(Knobs)}
    settings = read_flags(Settings, args, knobs=replace(PRESETS[args.difficulty], **given))
    make_town(args.out, workers=args.workers, **vars(settings))
    if args.preview is not None:
        from datasets.town.preview import contact_sheet

        target = args.out / "preview.png" if args.preview == Path() else args.preview
        contact_sheet(args.out, settings, target)
        print(f"contact sheet: {target}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a request that cannot be met)."""
    args = build_parser().parse_args(argv)
    return run_tool("datasets.town", lambda: draw(args))


if __name__ == "__main__":
    sys.exit(main())
