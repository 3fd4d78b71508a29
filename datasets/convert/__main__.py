"""Photos -> the `@UTM` layout that training and evaluation read.

    python3 -m datasets.convert --images photos --out data/mine [--positions photos.csv]

Positions come from names, a CSV file or EXIF data. An interrupted run goes on where it stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.command_line import OneLineParser, positive, run_tool


def build_parser() -> OneLineParser:
    """Command line of `python3 -m datasets.convert`."""
    parser = OneLineParser(
        prog="datasets.convert",
        description="Give photos the names that training and evaluation read: OUT/<folder>/@east@north@<name>@.jpg. "
        "Positions come from @UTM names, a CSV file or EXIF data. An interrupted run goes on where it stopped.",
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="folder of photos, searched in depth")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to fill, apart from --images")
    columns = "path,latitude,longitude or path,easting,northing"
    rows = f"positions: {columns} in the first line; paths relative to the file or to --images"
    add("--positions", type=Path, metavar="FILE.csv", help=rows)
    add("--link", action="store_true", help="make links instead of copies")
    add("--skip_missing", action="store_true", help="pass over images without a position")
    add("--allow_missing_rows", action="store_true", help="the CSV file may list images that are not in --images")
    zone = "UTM zone, such as 30N or 30S (hemisphere); default: that of most images"
    add("--zone", metavar="ZONE", help=zone)
    add("--workers", type=positive, metavar="N", help="threads (default: one per core)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = build_parser().parse_args(argv)

    def command() -> None:
        # only here: --help must not load them
        from datasets.convert.convert import convert_images
        from datasets.positions.zones import Zone

        zone = Zone.parse(args.zone) if args.zone else None
        options = (args.positions, args.link, args.skip_missing, zone, args.workers, args.allow_missing_rows)
        done = convert_images(args.images, args.out, *options)
        print(done)
        for warning in done.report.warnings:
            print(f"datasets.convert: warning: {warning}", file=sys.stderr)
        print(done.report.summary())

    return run_tool("datasets.convert", command)


if __name__ == "__main__":
    sys.exit(main())
