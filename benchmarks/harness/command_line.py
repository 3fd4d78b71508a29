"""The command line and the record that every benchmark has."""

import argparse
import json
from pathlib import Path

from benchmarks.harness.machine import processor
from datasets.command_line import OneLineParser
from datasets.files import write_text


def benchmark_parser(name: str, about: str, device: str = "") -> OneLineParser:
    """Parser of `python3 -m benchmarks.<name>` with `--out` and, if a default is given, `--device`.

    Parameters
    ----------
    about : docstring of the module; its first line becomes the description.
    """
    description = about.splitlines()[0]
    parser = OneLineParser(f"benchmarks.{name}", description=description)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the record there as JSON")
    if device:
        parser.add_argument("--device", default=device, help="where to compute")
    return parser


def settings_of(args: argparse.Namespace) -> dict:
    """The flags for the record, without the record's own path."""
    return {name: value for name, value in vars(args).items() if name != "out"}


def write_record(path: Path | None, content: dict, device: str = "cpu") -> None:
    """Write a benchmark's figures as JSON, the machine first; does nothing without a path."""
    if path is not None:
        write_text(path, json.dumps({"machine": processor(device), **content}, indent=1) + "\n")
