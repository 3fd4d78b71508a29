"""The command lines of main.py, eval.py and the programs of utils; importing this does not import torch.

Flags stand with the settings that they fill.
"""

import argparse
from pathlib import Path
from typing import IO

from datasets.command_line import HelpFormatter, OneLineParser, add_flags, flags_of, number
from datasets.reading.augmentation_settings import AugmentationSettings
from models.config import NetworkConfig
from utils.options.data import EvaluationFolders, TrainingFolders
from utils.options.evaluation import EvaluationOptions, PhotoOptions
from utils.options.export import OnnxSettings
from utils.options.run import PRECISIONS, MachineSettings, OutputSettings, RunOptions
from utils.retrieval.settings import RetrievalSettings
from utils.system.launch import launched
from utils.training.settings import LossSettings, OptimizerSettings, TrainingSettings

MAIN = {
    NetworkConfig: "network",
    RunOptions: "saving and resuming",
    TrainingFolders: "training data",
    EvaluationFolders: "evaluation data",
    TrainingSettings: "protocol",
    OptimizerSettings: "protocol",
    LossSettings: "protocol",
    AugmentationSettings: "augmentation",
    MachineSettings: "machine and output",
    OutputSettings: "machine and output",
}
"""Settings that flags of main.py fill -> their title in `--help`."""
ABOUT = {
    "evaluation data": "Folders; '+' separates paired lists of galleries and queries.",
    "retrieval": "For evaluation and own photos; docs/scaling.md helps to choose.",
    "own photos": "Instead of evaluating: where were these photos taken? Only the gallery needs positions.",
}
EVAL = {
    EvaluationFolders: "evaluation data",
    EvaluationOptions: "evaluation",
    RetrievalSettings: "retrieval",
    PhotoOptions: "own photos",
    MachineSettings: "machine and output",
    OutputSettings: "machine and output",
}
"""The same for eval.py."""


def may_change() -> set[str]:
    """Flags of main.py that may have another value when a run goes on."""
    return {name for part in MAIN for name, f in flags_of(part).items() if f.metadata.get("may_change")}


class _Parser(argparse.ArgumentParser):
    """Speaks once, however many processes torchrun launched."""

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:
        if launched()[0] == 0:
            super()._print_message(message, file)


def _parser(description: str, parts: dict[type, str]) -> argparse.ArgumentParser:
    parser = _Parser(description=description, formatter_class=HelpFormatter, allow_abbrev=False)
    for part, title in parts.items():
        add_flags(parser, part, title, ABOUT)
    return parser


def main_parser() -> argparse.ArgumentParser:
    """Command line of main.py."""
    return _parser("Train SegVPR. With no data set flag it trains on the town that ships with the project.", MAIN)


def eval_parser() -> argparse.ArgumentParser:
    """Command line of eval.py."""
    parser = _parser(
        "Evaluate a SegVPR checkpoint, ours or a released one. With no data set flag it uses the town.", EVAL
    )
    scored = parser.add_mutually_exclusive_group()
    scored.add_argument(
        "--resume",
        type=Path,
        metavar="CKPT",
        help="the checkpoint to evaluate (own photos: the network for photos that ships, if not given)",
    )
    scored.add_argument(
        "--descriptors",
        nargs="+",
        metavar="FILE.npz",
        help="score these descriptors of any program instead, a set per file (arrays gallery, queries, gallery_paths, query_paths)",
    )
    return parser


def export_parser() -> argparse.ArgumentParser:
    """Command line of `python3 -m utils.export`."""
    parser = OneLineParser(
        prog="utils.export",
        description="Write the network that turns images into descriptors as an ONNX file, for any number of images of "
        "one size; or all weights, without the state of their run, as a .pth file that a new run can start from.",
    )
    parser.add_argument("--resume", type=Path, required=True, metavar="CKPT", help="checkpoint, ours or a released one")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write, .onnx or .pth")
    add_flags(parser, OnnxSettings, "ONNX")
    return parser


def summarize_parser() -> argparse.ArgumentParser:
    """Command line of `python3 -m utils.summarize`."""
    parser = OneLineParser(
        prog="utils.summarize",
        description="Recalls and mIoU of runs in percent: a row per configuration, mean and standard deviation over seeds.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or one that holds several")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write summary.md, summary.csv and summary.tex there"
    )
    parser.add_argument(
        "--label",
        nargs="+",
        metavar="NAME",
        help="what to call the configuration of each RUN, in their order (default: network and the flags that differ)",
    )
    parser.add_argument(
        "--threshold_m",
        type=number(float, {"above": 0}),
        metavar="M",
        help="only what was scored within M metres (default: all there is)",
    )
    return parser


def serve_parser() -> argparse.ArgumentParser:
    """Command line of `python3 -m utils.serve`."""
    parser = OneLineParser(prog="utils.serve", description="Answer over HTTP where photos were taken, and on a page.")
    parser.add_argument("--gallery", type=Path, required=True, metavar="DIR", help="images whose positions are known")
    parser.add_argument("--positions", type=Path, metavar="CSV", help="their positions (default: names or EXIF)")
    parser.add_argument("--resume", default="photos", metavar="CKPT", help="checkpoint (default: the one for photos)")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="numbers of the convolutions, as of eval.py (default: fp32)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument(
        "--port", type=number(int, {"least": 1, "most": 65535}), metavar="N", default=8000, help="port (default: 8000)"
    )
    parser.add_argument(
        "--limit_mb", type=number(float, {"above": 0}), default=32.0, metavar="MB", help="largest photo (default: 32)"
    )
    add_flags(parser, RetrievalSettings, "retrieval")
    return parser
