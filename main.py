"""Train SegVPR, then evaluate the best checkpoint. `python3 main.py --help` lists the flags."""

import argparse
import shutil
import sys
from pathlib import Path

from datasets.transforms import CROP, common_size
from models import SegVPR, build_model
from models.encoder import MIN_SIDE
from utils import arguments
from utils.checkpoints import Checkpoint, describe_config, load_checkpoint
from utils.command import run_command
from utils.compute import resolve_compute
from utils.evaluation import evaluate_and_write, labelled_images, score
from utils.fit import Fit, TrainingData, prepare_training
from utils.logs import LOGGER, log_environment, start_logging
from utils.seeding import seed_torch
from utils.training import build_optimizers


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = arguments.main_parser().parse_args(argv)
    return run_command("main.py", lambda: train(args, sys.argv if argv is None else ["main.py", *argv]))


def train(args: argparse.Namespace, command: list[str]) -> None:
    """Build, fit, and evaluate the best."""
    settings = arguments.fit_settings(args)
    compute = resolve_compute(args.device, args.precision)
    resumed = load_checkpoint(args.resume) if args.resume else None
    folder = arguments.training_folder(args.exp_name, args.resume)
    start_logging(folder / "log.txt")
    log_environment(command)
    LOGGER.info("run folder: %s; machine: %s; seed: %d", folder, compute, args.seed)
    arguments.use_town_if_no_data(args)
    data = training_data(args)
    sets = arguments.evaluation_sets(args, args.val_pos_dist_threshold)
    model = compute.place(starting_model(args, resumed))
    optimizers = build_optimizers(
        model,
        args.batch_size,
        args.lr,
        args.d_lr,
        args.momentum,
        args.weight_decay,
        scale_losses=args.precision == "fp16",
    )
    options = arguments.embedding_options(args, compute)
    labelled = labelled_images(sets, args.seed)
    record = {"arguments": vars_of(args)}
    fit = Fit(model, optimizers, data, settings, options, folder, lambda m: score(m, sets, labelled, options), record)
    if resumed and not resumed.released:
        fit.load_state_dict(resumed.training)
        bring_best(args.resume.with_name("best.pth"), folder)
        LOGGER.info("resumed %s: %d epochs are done", args.resume, fit.state.epoch)
    elif resumed:
        LOGGER.info("starting at epoch 0 from the released checkpoint %s", args.resume)
    best = fit.run()
    LOGGER.info("evaluating %s", best)
    load_checkpoint(best).load_into(model)
    evaluate_and_write(model, best, sets, labelled, options, folder)


def training_data(args: argparse.Namespace) -> TrainingData:
    if not args.dataset_root:
        raise ValueError(
            "--dataset_root is missing: give the root of the training set, or no data set flag at all for the town"
        )
    root = args.dataset_root
    galleries, queries = arguments.split_folders(root, args.train_g), arguments.split_folders(root, args.train_q)
    gallery, query_set, kind = arguments.load_pair("--dataset_root", galleries, queries, args.kind)
    targets = arguments.target_paths(args)
    data = prepare_training(gallery, query_set, kind, args.train_pos_dist_threshold, targets, args.eval_scale)
    width, height = common_size([*gallery.paths, *query_set.paths])
    if min(int(CROP * width), int(CROP * height)) < MIN_SIDE:
        raise ValueError(
            f"{gallery.paths[0]}: {width}x{height} px is too small to train on: 80% of each side must be at least {MIN_SIDE} px"
        )
    return data


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


def bring_best(best: Path, folder: Path) -> None:
    """Take along the best checkpoint so far where a run goes on in another folder."""
    if best.is_file() and best.resolve().parent != folder.resolve():
        shutil.copyfile(best, folder / "best.pth")


def vars_of(args: argparse.Namespace) -> dict:
    """The arguments as plain values, for the checkpoint."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


if __name__ == "__main__":
    sys.exit(main())
