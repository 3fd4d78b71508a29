"""Scan a data set before training on it: `python3 -m datasets.check ROOT [ROOT ...]`.

Exit status: 0 if training and evaluation would work, 1 if they would fail, 2 for unusable arguments.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.command_line import OneLineParser, number, positive, run_tool
from datasets.files import write_text
from datasets.naming import KINDS


def build_parser() -> OneLineParser:
    """Command line of `python3 -m datasets.check`."""
    parser = OneLineParser(prog="datasets.check", description="Scan data sets before training on them.")
    add = parser.add_argument
    add("roots", nargs="+", type=Path, metavar="ROOT", help="folder of a data set")
    add("--json", type=Path, metavar="FILE", help="write {'reports': [Report.to_dict(), ...]} there")
    add("--workers", type=positive, metavar="N", help="threads (default: one per core)")
    add("--kind", choices=["auto", *KINDS], default="auto", help="auto looks at the folders")
    same_place = "same place within M metres (default: the kind's)"
    add("--threshold_m", type=number(float, {"above": 0}), metavar="M", help=same_place)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.json and not (args.json.parent.is_dir() and not args.json.is_dir()):
        parser.error(f"--json {args.json}: cannot be written, name a file in a folder that exists")

    def command() -> int:
        # only here: --help must not load torch
        from datasets.check.check import check_dataset
        from datasets.check.groups import read_groups
        from datasets.check.report import format_report

        for root in args.roots:
            read_groups(Path(os.path.abspath(root)), args.kind)  # before hours of reading another one
        reports = []
        for root in args.roots:
            reports.append(check_dataset(root, args.kind, args.threshold_m, args.workers))
            print(format_report(reports[-1]).encode(errors="backslashreplace").decode(), end="\n\n")
        if args.json:
            write_text(args.json, json.dumps({"reports": [r.to_dict() for r in reports]}, indent=2) + "\n")
        return int(any(report.problems for report in reports))

    return run_tool("datasets.check", command)


if __name__ == "__main__":
    sys.exit(main())
