"""From a parsed command line to typed values. A namespace travels no further than main.py, eval.py and this module."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from datasets.command_line import read_flags
from datasets.reading.augmentation_settings import AugmentationSettings
from datasets.reading.transforms import why_no_decoder
from utils.options.parsers import main_parser
from utils.retrieval.embedding import EmbeddingOptions
from utils.retrieval.settings import FLAT, RetrievalSettings
from utils.retrieval.store import default_folder
from utils.runs.folders import fresh_folder, new_run_folder
from utils.system.compute import Compute
from utils.system.logs import LOGGER
from utils.training.settings import LossSettings, OptimizerSettings, TrainingSettings

TOWN = Path("data/town")


@contextmanager
def output_folder(args: argparse.Namespace) -> Iterator[Path]:
    """Where eval.py writes: `--output_dir`, or a new run folder; not left behind where what is within fails too early."""
    with ExitStack() as held:
        if args.output_dir is None:
            yield held.enter_context(new_run_folder(args.exp_name))
            return
        try:
            held.enter_context(fresh_folder(args.output_dir, exist_ok=True))
            (args.output_dir / "log.txt").open("a").close()
        except OSError as error:
            raise OSError(
                f"--output_dir {args.output_dir}: cannot make it, or write there ({error.strerror}); name another folder"
            ) from error
        yield args.output_dir


def use_town_if_no_data(args: argparse.Namespace) -> None:
    """Point every data set flag at the town unless one was given: made on first use, or as the user has drawn it."""
    flags = ("dataset_root", "dataset_root_val", "dataset_root_test", "DA_datasets")
    if any(getattr(args, flag, None) for flag in flags):
        return
    from datasets.town import DONE, make_town

    LOGGER.info("no data set flag given: using the town that ships with the project, %s", TOWN)
    if not (TOWN / DONE).is_file():
        make_town(TOWN)
    args.dataset_root_val, args.dataset_root_test = TOWN / "idda", TOWN / "robotcar"
    if hasattr(args, "dataset_root"):
        args.dataset_root, args.DA_datasets = TOWN / "idda", str(TOWN / "robotcar_all")


def embedding_options(args: argparse.Namespace, compute: Compute) -> EmbeddingOptions:
    """How images are embedded; ValueError where `--decode gpu` cannot be had."""
    if args.decode == "gpu":
        if compute.device.type != "cuda":
            raise ValueError(
                f"--decode gpu: needs a CUDA device, but this run is on {compute.device}; use --decode cpu"
            )
        reason = why_no_decoder(compute.device)
        if reason:
            raise ValueError(
                f"--decode gpu: torchvision cannot decode on {compute.device} ({reason}); use --decode cpu"
            )
    return EmbeddingOptions(args.cache_batch_size, args.num_workers, compute, args.decode)


def retrieval_settings(args: argparse.Namespace) -> RetrievalSettings:
    return read_flags(RetrievalSettings, args, seed=args.seed)


def evaluation_store(args: argparse.Namespace) -> Path | None:
    """Where an evaluation keeps descriptors and indexes: nowhere, unless it is told so or fills an index."""
    if args.store is None and (args.index != FLAT or args.engine is not None):
        return default_folder(args.resume)
    return args.store


def training_settings(args: argparse.Namespace) -> TrainingSettings:
    """Settings of a run; ValueError names flags that do not go together."""
    parts = {"losses": LossSettings, "optimizer": OptimizerSettings, "augmentation": AugmentationSettings}
    filled = {name: read_flags(part, args) for name, part in parts.items()}
    return read_flags(TrainingSettings, args, seed=args.seed, **filled)


def plain_values(args: argparse.Namespace) -> dict:
    """The arguments as plain values, for the checkpoint."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def recorded_arguments(record: dict) -> dict:
    """The arguments that a checkpoint's run was started with; flags that came after it stand at their defaults."""
    return {**plain_values(main_parser().parse_args([])), **record.get("arguments", {})}


def head_trained(training: dict) -> bool:
    """Whether a checkpoint's run had a semantic loss, by what it recorded; one that says nothing is taken to have had it."""
    return recorded_arguments(training.get("record") or {})["sem_loss_weight"] != 0
