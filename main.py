"""Train SegVPR, then evaluate the best checkpoint. `python3 main.py --help` lists the flags."""

from utils.options.parsers import main_parser

if __name__ == "__main__":
    main_parser().parse_args()  # before torch is imported: --help and a mistyped flag are answered at once

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.command_line import read_flags
from datasets.reading.transforms import image_size
from datasets.sizes import scaled_size
from models.config import NetworkConfig
from models.encoder import load_pretrained
from models.segvpr import SegVPR
from utils.evaluation.calibration import calibrate
from utils.evaluation.recall import EvaluationSet
from utils.evaluation.results import Measured, measure, score, write_evaluation
from utils.evaluation.segmentation import labelled_images
from utils.options import arguments
from utils.options.evaluation_sets import evaluation_sets
from utils.options.parsers import may_change
from utils.options.training_set import training_data
from utils.retrieval.embedding import EmbeddingOptions
from utils.retrieval.screening import Screening
from utils.runs.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from utils.runs.folders import (
    START,
    bring_along,
    check_exp_name,
    check_format,
    check_record,
    find_checkpoint,
    has_results,
    load_newest,
    locked,
    new_run_folder,
    nothing_found,
    own_folder,
    replace_damaged,
    weights_of_run,
)
from utils.runs.provenance import log_environment
from utils.system import distributed
from utils.system.command import run_command
from utils.system.compute import Compute, check_sync_bn, resolve_compute, resolve_device
from utils.system.logs import LOGGER, start_logging
from utils.system.seeding import seed_torch
from utils.training.data import TrainingData
from utils.training.estimate import log_estimate
from utils.training.loop import TrainingRun
from utils.training.optimizers import build_optimizers
from utils.training.settings import TrainingSettings, check_batches_divide

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
    notice : what is said again at the end.
    finished : whether nothing is left to do; all has then been said.
    """

    folder: Path
    data: TrainingData
    sets: list[EvaluationSet]
    labelled: tuple[str, ...]
    record: dict
    model: SegVPR
    training: dict | None
    notice: str
    finished: bool


def train(args: argparse.Namespace, command: list[str]) -> None:
    """Build, fit, and evaluate the best."""
    check_exp_name(args.exp_name)
    settings = arguments.training_settings(args)
    if args.train_enc_from == "none" and args.attention == "none" and args.sem_loss_weight == 0:
        raise ValueError("--train_enc_from none: leaves nothing to train without attention and head; give a stage")
    screening = Screening(args.on_bad_image)
    with distributed.started(resolve_device(args.device)), ExitStack() as held:
        compute = resolve_compute(args.device, args.precision, args.compile, args.deterministic)
        options = arguments.embedding_options(args, compute)
        if args.sync_bn:
            check_sync_bn(compute.device)
        start_logging()
        start = distributed.from_first(lambda: set_up(args, settings, compute, screening, command, held))
        folder, data, sets, labelled, record, model, training, notice, finished = start
        if finished:
            return
        compute = compute.in_precision(record["arguments"]["precision"])
        options = replace(options, compute=compute)
        if args.sync_bn:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model = compute.place(model)
        optimizers = build_optimizers(
            model, settings.batch_size, settings.optimizer, scale_losses=compute.precision == "fp16"
        )
        latest: list[Measured] = []

        def evaluate(network: SegVPR) -> tuple[float | None, dict[str, float]]:
            latest[:] = [measure(network, sets, labelled, options)]
            return score(latest[0])

        training_run = TrainingRun(
            model,
            optimizers,
            data,
            settings,
            options,
            folder,
            evaluate,
            record,
            pictured=(labelled or data.queries.paths)[:PICTURED],
        )
        if training:
            training_run.load_state_dict(training)
            LOGGER.info("%d epochs are done", training_run.state.epoch)
        log_estimate(model, data, settings, sets, labelled, options, training_run.state.epoch)
        best = training_run.run()
        if not (latest and training_run.best_is_last):
            LOGGER.info("evaluating %s", best)
            distributed.from_first(lambda: replace(load_checkpoint(best), training={})).load_into(model)
            evaluate(model)
        conclude(args, best, model, latest[0], folder, options, training_run.state.history)
        screening.log_summary()
        if notice:
            LOGGER.info(notice)


def conclude(
    args: argparse.Namespace,
    best: Path,
    model: SegVPR,
    measured: Measured,
    folder: Path,
    options: EmbeddingOptions,
    history: list[dict],
) -> None:
    """Write what the best network found, how far its answers can be trusted, and the report."""
    evaluation = write_evaluation(str(best), model.config, *measured, folder, arguments.plain_values(args))
    if evaluation and args.dataset_root_val:
        try:
            calibrate(best, model, evaluation.results[0])
        except ValueError as error:
            LOGGER.warning("%s", error)
    if evaluation and not args.no_report:
        from utils.report.write import write_report  # not at the top: matplotlib takes a second to import

        start = folder / START
        before = options.compute.place(load_checkpoint(start).build()) if start.is_file() else None
        head_trained = args.sem_loss_weight != 0
        report = write_report(folder, model, *evaluation, options, history, before, args.seed, head_trained)
        LOGGER.info("report: %s", report)


def set_up(
    args: argparse.Namespace,
    settings: TrainingSettings,
    compute: Compute,
    screening: Screening,
    command: list[str],
    held: ExitStack,
) -> Start:
    """Run folder, data and network of a run; errors name the flag or the file. The folder stays locked until `held` ends."""
    found = find_checkpoint(args.resume, args.exp_name)
    resumed = load_newest(found) if found else None
    going_on = resumed is not None and "run" in resumed.training
    if args.precision == "auto":  # kept in the record: a run that goes on has what auto meant at its start
        saved = arguments.recorded_arguments(resumed.training["record"]) if going_on else {}
        args.precision = saved.get("precision", compute.precision)
    compute = compute.in_precision(args.precision)
    notice = nothing_found(args.exp_name) if args.resume == "auto" and not found else ""
    folder = own_folder(args.exp_name, found) or held.enter_context(new_run_folder(args.exp_name))
    held.enter_context(locked(folder))
    start_logging(folder / "log.txt")
    if notice:
        LOGGER.info(notice)
    log_environment(command)
    LOGGER.info("run folder: %s; machine: %s; seed: %d", folder, compute, args.seed)
    if distributed.world_size() > 1:
        LOGGER.info("%d processes share the run", distributed.world_size())
    arguments.use_town_if_no_data(args)
    data = training_data(args, screening)
    check_batches_divide(settings, len(data.queries), distributed.world_size())
    sets = evaluation_sets(args, screening, args.val_pos_dist_threshold)
    labelled = labelled_images(sets, args.seed, screening)
    record = {"arguments": arguments.plain_values(args), "data": fingerprints(data, sets)}
    model = starting_model(args, resumed)
    model.image_size = photo_size(data)
    training = None if resumed is None else {}
    if going_on:
        check_format(resumed)
        saved = resumed.training["record"]
        check_record({**saved, "arguments": arguments.recorded_arguments(saved)}, record, may_change())
        training = resumed.training
        bring_along(found, folder)
        replace_damaged(resumed.path, folder)
        LOGGER.info("resuming %s", resumed.path)
    elif resumed:
        LOGGER.info("starting at epoch 0 from the weights of %s", found)
    if not training and not args.no_report:
        save_checkpoint(folder / START, model, {})
    finished = bool(training) and is_finished(training["run"], settings, folder, not args.no_report)
    return Start(folder, data, sets, labelled, record, model, training, notice, finished)


def is_finished(run: dict, settings: TrainingSettings, folder: Path, reported: bool) -> bool:
    """Whether a run has reached its end and its results; then says so, and what can be done with it."""
    epochs, without_gain = run.get("epoch", 0), run.get("epochs_without_gain", 0)
    out_of_patience = without_gain > settings.patience
    if not (epochs >= settings.n_epochs or out_of_patience) or not has_results(folder, reported):
        return False
    if out_of_patience:
        why, further = f"{without_gain} epochs in a row without a better validation recall@1", "a larger --patience"
    else:
        why, further = f"--n_epochs {settings.n_epochs}", "a larger --n_epochs"
    LOGGER.info(
        "this run is finished: %d epochs are done (%s), and its results are in %s, which stay as they are. To train on, give %s; "
        "to evaluate again: python3 eval.py --resume %s",
        *(epochs, why, folder, further, weights_of_run(folder)),
    )
    return True


def photo_size(data: TrainingData) -> int:
    """Longer side in pixels of the training images, scaled as mining and validation scale them."""
    width, height = image_size(data.gallery.paths[0])
    return max(scaled_size(height, width, data.scale))


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
    model = SegVPR(read_flags(NetworkConfig, args), args.train_enc_from, args.freeze_bn)
    if resumed:
        resumed.load_into(model)
    else:
        load_pretrained(model.encoder, args.arch, args.pretrain)
    LOGGER.info("network: %s", model.config)
    return model


if __name__ == "__main__":
    sys.exit(main())
