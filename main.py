"""Train SegVPR, then evaluate the best checkpoint. `python3 main.py --help` lists the flags."""

import argparse
import copy
import sys

from models import SegVPR, build_model
from utils import arguments
from utils.checkpoints import Checkpoint, describe_config, load_checkpoint
from utils.command import run_command
from utils.compute import resolve_compute
from utils.evaluation import EvaluationSet, evaluate_and_write, labelled_images, score
from utils.fit import Fit, TrainingData
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


def train(args: argparse.Namespace, command: list[str]) -> None:
    """Build, fit, and evaluate the best."""
    settings = arguments.fit_settings(args)
    compute = resolve_compute(args.device, args.precision, args.compile, args.deterministic)
    options = arguments.embedding_options(args, compute)
    args.precision = compute.precision  # what auto meant, so that a resumed run keeps to it
    start_logging()
    found = find_checkpoint(args.resume, args.exp_name)
    resumed = load_newest(found) if found else None
    folder = training_folder(args.exp_name, found)
    with locked(folder):
        start_logging(folder / "log.txt")
        log_environment(command)
        LOGGER.info("run folder: %s; machine: %s; seed: %d", folder, compute, args.seed)
        arguments.use_town_if_no_data(args)
        screening = Screening(args.on_bad_image)
        data = arguments.training_data(args, screening)
        sets = arguments.evaluation_sets(args, screening, args.val_pos_dist_threshold)
        labelled = labelled_images(sets, args.seed, screening)
        record = {"arguments": arguments.plain_values(args), "data": fingerprints(data, sets)}
        model = compute.place(starting_model(args, resumed))
        continued = resumed is not None and "run" in resumed.training
        before = None if continued or args.no_report else copy.deepcopy(model).cpu()
        if continued:
            check_record(resumed.training["record"], record)
        optimizers = build_optimizers(
            model,
            args.batch_size,
            args.lr,
            args.d_lr,
            args.momentum,
            args.weight_decay,
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
        if continued:
            fit.load_state_dict(resumed.training)
            bring_best(found, folder)
            replace_damaged(resumed.path, folder)
            LOGGER.info("resumed %s: %d epochs are done", resumed.path, fit.state.epoch)
        elif resumed:
            LOGGER.info("starting at epoch 0 from the weights of %s", found)
        best = fit.run()
        LOGGER.info("evaluating %s", best)
        load_checkpoint(best).load_into(model)
        evaluation = evaluate_and_write(model, best, sets, labelled, options, folder)
        if not args.no_report:
            before = compute.place(before) if before else None
            report = write_report(folder, model, *evaluation, options, fit.state.history, before, args.seed)
            LOGGER.info("report: %s", report)
        screening.log_summary()


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
    )
    if resumed:
        resumed.load_into(model)
    LOGGER.info("network: %s", describe_config(model.config))
    return model


if __name__ == "__main__":
    sys.exit(main())
