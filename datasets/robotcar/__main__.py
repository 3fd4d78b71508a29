"""Raw Oxford RobotCar traversals -> the evaluation layout: one folder of `@UTM` images per condition, and `all`.

    python3 -m datasets.robotcar --traversal 2014-12-09-13-21-02 --condition overcast --out data/robotcar

An interrupted run goes on where it stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.command_line import OneLineParser, number, positive, run_tool
from datasets.naming import CONDITIONS
from datasets.robotcar.raw import SOURCES


def build_parser() -> OneLineParser:
    """Command line of `python3 -m datasets.robotcar`."""
    parser = OneLineParser(
        prog="datasets.robotcar",
        description="Turn raw Oxford RobotCar traversals into the evaluation layout: OUT/<condition> and OUT/all. "
        "An interrupted run goes on where it stopped.",
    )
    add = parser.add_argument
    folders = "traversals as downloaded and unpacked"
    add("--traversal", type=Path, nargs="+", required=True, metavar="DIR", help=folders)
    add("--condition", required=True, choices=CONDITIONS, help="condition that they show")
    add("--out", type=Path, required=True, metavar="ROOT", help="root of the layout, made if absent")
    metres, pixels = number(float, {"least": 0}), number(int, {"least": 0})
    add("--spacing_m", type=metres, default=5.0, metavar="M", help="least metres between frames")
    add("--crop_bottom", type=pixels, default=0, metavar="PIXELS", help="rows to cut off, for the bonnet")
    source = "source of positions; auto: RTK if a traversal has it, else INS"
    add("--positions", choices=SOURCES, default="auto", help=source)
    add("--workers", type=positive, metavar="N", help="processes (default: one per core)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = build_parser().parse_args(argv)

    def command() -> None:
        from datasets.robotcar.convert import convert_traversals  # only here: --help must not load it

        options = (args.spacing_m, args.crop_bottom, args.positions, args.workers)
        for summary in convert_traversals(args.traversal, args.condition, args.out, *options):
            print(summary)

    return run_tool("datasets.robotcar", command)


if __name__ == "__main__":
    sys.exit(main())
