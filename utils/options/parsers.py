"""The command lines of main.py and eval.py. Flags stand with the settings that they fill; importing this does not import torch."""

import argparse
from pathlib import Path
from typing import IO

from datasets.command_line import HelpFormatter, add_flags, flags_of
from datasets.reading.augmentation_settings import AugmentationSettings
from models.config import NetworkConfig
from utils.options.data import EvaluationFolders, TrainingFolders
from utils.options.evaluation import EvaluationOptions, PhotoOptions
from utils.options.run import MachineSettings, OutputSettings, RunOptions
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
    scored = parser.add_mutually_exclusive_group(required=True)
    scored.add_argument("--resume", type=Path, metavar="CKPT", help="the checkpoint to evaluate")
    scored.add_argument(
        "--descriptors",
        nargs="+",
        metavar="FILE.npz",
        help="score these descriptors of any program instead, a set per file (arrays gallery, queries, gallery_paths, query_paths)",
    )
    return parser
