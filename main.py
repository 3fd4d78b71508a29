"""Train SegVPR, then evaluate the best checkpoint. `python3 main.py --help` lists the flags."""

import argparse
import copy
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import datasets  # noqa: F401  first: says in one line which package is missing

# isort: split
import torch

from models import SegVPR, build_model
from utils import arguments, distributed
from utils.checkpoints import Checkpoint, describe_config, load_checkpoint
from utils.command import run_command
from utils.compute import Compute, check_sync_bn, resolve_compute
from utils.evaluation import EvaluationSet, evaluate_and_write, labelled_images, score
from utils.fit import Fit, FitSettings, TrainingData, check_batches_divide
from utils.logs import LOGGER, log_environment, start_logging
from utils.parsers import main_parser
from utils.report import write_report
from utils.runs import bring_best, check_record, find_checkpoint, load_newest, locked, replace_damaged, training_folder
from utils.screening import Screening
from utils.seeding import seed_torch
from utils.training import build_optimizers

PICTURED = 3
"""Images whose attention and classes TensorBoard shows after every epoch."""


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = main_parser().parse_args(argv)
    return run_command("main.py", lambda: train(args, sys.argv if argv is None else ["main.py", *argv]))


class Start(NamedTuple):
    """What a run starts with; the first process finds it out for all.

    Attributes
    ----------
    labelled : images on which mIoU is measured.
    model : on the CPU, with the weights that training starts from.
    training : state of the run that goes on, empty where a checkpoint gave its weights alone, None for a new run.
    """

    folder: Path
    data: TrainingData
    sets: list[EvaluationSet]
    labelled: tuple[str, ...]
    record: dict
    model: SegVPR
    training: dict | None


def train(args: argparse.Namespace, command: list[str]) -> None:
    """Build, fit, and evaluate the best."""
    settings = arguments.fit_settings(args)
    compute = resolve_compute(args.device, args.precision, args.compile, args.deterministic)
    options = arguments.embedding_options(args, compute)
    args.precision = compute.precision  # what auto meant, so that a resumed run keeps to it
    screening = Screening(args.on_bad_image)
    with distributed.started(compute.device), ExitStack() as held:
        if args.sync_bn:
            check_sync_bn(compute.device)
        start_logging()
        start = distributed.from_first(lambda: set_up(args, settings, compute, screening, command, held))
        folder, data, sets, labelled, record, model, training = start
        if args.sync_bn:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model = compute.place(model)
        before = None if training or args.no_report else copy.deepcopy(model).cpu()
        optimizers = build_optimizers(
            model,
            args.batch_size,
            args.lr,
            args.d_lr,
            args.momentum,
            args.weight_decay,
            args.lr_triplets / args.batch_size,
            scale_losses=args.precision == "fp16",
        )
        fit = Fit(
            model,
            optimizers,
            data,
            settings,
            options,
            folder,
            lambda m: score(m, sets, labelled, options),
            record,
            pictured=(labelled or data.queries.paths)[:PICTURED],
        )
        if training:
            fit.load_state_dict(training)
            LOGGER.info("%d epochs are done", fit.state.epoch)
        best = fit.run()
        LOGGER.info("evaluating %s", best)
        distributed.from_first(lambda: replace(load_checkpoint(best), training={})).load_into(model)
        flags = arguments.plain_values(args)
        evaluation = evaluate_and_write(model, best, sets, labelled, options, folder, flags=flags)
        if evaluation and not args.no_report:
            before = compute.place(before) if before else None
            report = write_report(folder, model, *evaluation, options, fit.state.history, before, args.seed)
            LOGGER.info("report: %s", report)
        screening.log_summary()


def set_up(
    args: argparse.Namespace,
    settings: FitSettings,
    compute: Compute,
    screening: Screening,
    command: list[str],
    held: ExitStack,
) -> Start:
    """Run folder, data and network of a run; errors name the flag or the file. The folder stays locked until `held` ends."""
    found = find_checkpoint(args.resume, args.exp_name)
    resumed = load_newest(found) if found else None
    folder = training_folder(args.exp_name, found)
    held.enter_context(locked(folder))
    start_logging(folder / "log.txt")
    log_environment(command)
    LOGGER.info("run folder: %s; machine: %s; seed: %d", folder, compute, args.seed)
    if distributed.world_size() > 1:
        LOGGER.info("%d processes share the run", distributed.world_size())
    arguments.use_town_if_no_data(args)
    data = arguments.training_data(args, screening)
    check_batches_divide(settings, len(data.queries), distributed.world_size())
    sets = arguments.evaluation_sets(args, screening, args.val_pos_dist_threshold)
    labelled = labelled_images(sets, args.seed, screening)
    record = {"arguments": arguments.plain_values(args), "data": fingerprints(data, sets)}
    model = starting_model(args, resumed)
    training = None if resumed is None else {}
    if resumed and "run" in resumed.training:
        saved = resumed.training["record"]
        check_record({**saved, "arguments": arguments.recorded_arguments(saved)}, record)
        training = resumed.training
        bring_best(found, folder)
        replace_damaged(resumed.path, folder)
        LOGGER.info("resuming %s", resumed.path)
    elif resumed:
        LOGGER.info("starting at epoch 0 from the weights of %s", found)
    return Start(folder, data, sets, labelled, record, model, training)


def fingerprints(data: TrainingData, sets: list[EvaluationSet]) -> dict[str, str]:
    """Digests of all file lists that a run depends on."""
    lists = {"the training gallery": data.gallery.fingerprint, "the training queries": data.queries.fingerprint}
    lists["the target domain"] = data.target_fingerprint
    for s in sets:
        lists[f"the gallery of {s.name}"], lists[f"the queries of {s.name}"] = (
            s.gallery.fingerprint,
            s.queries.fingerprint,
        )
    return lists


def starting_model(args: argparse.Namespace, resumed: Checkpoint | None) -> SegVPR:
    """The network as training starts: seeded, pretrained or taken from a checkpoint (which never fetches weights)."""
    seed_torch(args.seed, "weights")
    model = build_model(
        args.arch,
        args.semnet,
        args.num_classes,
        args.scale_indexes,
        None if resumed else args.pretrain,
        args.train_enc_from,
        args.attention,
        args.guidance,
        args.input,
    )
    if resumed:
        resumed.load_into(model)
    LOGGER.info("network: %s", describe_config(model.config))
    return model


if __name__ == "__main__":
    sys.exit(main())
