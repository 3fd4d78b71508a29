"""Evaluate a SegVPR checkpoint: recall@N and mIoU; or localise photos in a gallery. `python3 eval.py --help` lists the flags."""

from utils.options.parsers import eval_parser

if __name__ == "__main__":
    eval_parser().parse_args()  # before torch is imported: --help and a mistyped flag are answered at once

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets.command_line import flags_of
from datasets.naming import list_images
from datasets.positions.find import Zone
from datasets.sizes import Scale, scale_text, smallest_scaled
from utils.evaluation.calibration import calibrate
from utils.evaluation.given import evaluate_given
from utils.evaluation.recall import EvaluationSet, check_retrieval
from utils.evaluation.results import measure, write_evaluation
from utils.evaluation.segmentation import labelled_images
from utils.options import arguments
from utils.options.evaluation import PhotoOptions
from utils.options.evaluation_sets import evaluation_sets, given_sets
from utils.retrieval.embedding import EmbeddingOptions
from utils.retrieval.localize import format_localisations, photo_paths, to_json, usable_gallery, usable_photos
from utils.retrieval.localizer import Localizer, open_gallery, photo_scale
from utils.retrieval.screening import Screening, log_positions
from utils.runs.checkpoints import SHIPPED_FOR_PHOTOS, Checkpoint, load_checkpoint
from utils.runs.folders import check_exp_name
from utils.runs.provenance import log_environment
from utils.system import distributed
from utils.system.command import run_command
from utils.system.compute import Compute, resolve_compute, resolve_device
from utils.system.launch import launched
from utils.system.logs import LOGGER, start_logging


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = eval_parser().parse_args(argv)
    if any(getattr(args, name) != f.default for name, f in flags_of(PhotoOptions).items()):
        return run_command("eval.py", lambda: localize_photos(args))
    command = sys.argv if argv is None else ["eval.py", *argv]
    return run_command("eval.py", lambda: score_given(args, command) if args.descriptors else evaluate(args, command))


def evaluate(args: argparse.Namespace, command: list[str]) -> None:
    """Read the checkpoint, retrieve, score, and write the results."""
    if args.resume is None:
        raise ValueError("give --resume CKPT, the checkpoint to evaluate, or --descriptors FILE.npz of another program")
    check_exp_name(args.exp_name)
    if args.calibrate is not None and not args.dataset_root_val:
        raise ValueError("--calibrate: needs a validation set; give --dataset_root_val DIR")
    screening = Screening(args.on_bad_image)
    with distributed.started(resolve_device(args.device)), ExitStack() as held:
        compute = resolve_compute(args.device, args.precision, args.compile, args.deterministic)
        options = arguments.embedding_options(args, compute)
        start = distributed.from_first(lambda: set_up(args, compute, screening, command, held))
        folder, checkpoint, sets, labelled, head_trained = start
        model = compute.place(checkpoint.build())
        retrieval = arguments.retrieval_settings(args)
        distributed.from_first(lambda: check_retrieval(model, sets, retrieval))  # before a folder is made
        store = distributed.from_first(lambda: arguments.evaluation_store(args))
        measured = measure(model, sets, labelled, options, args.save_descriptors, retrieval, store)
        evaluation = write_evaluation(str(args.resume), model.config, *measured, folder, arguments.plain_values(args))
        if evaluation and args.calibrate is not None:
            calibrate(args.resume, model, evaluation.results[0], retrieval, args.calibrate)
        if evaluation and not args.no_report:
            from utils.report.write import write_report  # not at the top: matplotlib takes a second to import

            report = write_report(folder, model, *evaluation, options, seed=args.seed, head_trained=head_trained)
            LOGGER.info("report: %s", report)
        screening.log_summary()


def score_given(args: argparse.Namespace, command: list[str]) -> None:
    """Score descriptors that another program made, and write the same results."""
    if launched()[1] > 1:
        raise ValueError("--descriptors: for one process only; start without torchrun")
    check_exp_name(args.exp_name)
    with ExitStack() as held:
        folder = held.enter_context(arguments.output_folder(args))
        start_logging(folder / "log.txt")
        log_environment(command)
        sets, descriptors = given_sets(args)
        results = evaluate_given(sets, descriptors, arguments.retrieval_settings(args), args.save_descriptors)
    evaluation = write_evaluation(" ".join(args.descriptors), None, results, None, folder, arguments.plain_values(args))
    if not args.no_report:
        from utils.report.write import write_report

        LOGGER.info("report: %s", write_report(folder, None, *evaluation, EmbeddingOptions(), seed=args.seed))


class Start(NamedTuple):
    """What an evaluation starts with; the first process finds it out for all.

    Attributes
    ----------
    labelled : images on which mIoU is measured.
    head_trained : whether the checkpoint's training had a semantic loss.
    """

    folder: Path
    checkpoint: Checkpoint
    sets: list[EvaluationSet]
    labelled: tuple[str, ...]
    head_trained: bool


def set_up(
    args: argparse.Namespace, compute: Compute, screening: Screening, command: list[str], held: ExitStack
) -> Start:
    """Checkpoint, output folder and data; errors name the flag or the file. A new folder is removed if `held` ends too early."""
    checkpoint = with_scales(load_checkpoint(args.resume), args.scale_indexes)
    folder = held.enter_context(arguments.output_folder(args))
    start_logging(folder / "log.txt")
    log_environment(command)
    LOGGER.info("results go to %s; machine: %s; seed: %d", folder, compute, args.seed)
    origin = "released checkpoint" if checkpoint.released else "checkpoint"
    LOGGER.info("%s %s: %s", origin, args.resume, checkpoint.config)
    arguments.use_town_if_no_data(args)
    sets = evaluation_sets(args, screening)
    labelled = labelled_images(sets, args.seed, screening)
    head_trained = arguments.head_trained(checkpoint.training)
    return Start(folder, replace(checkpoint, training={}), sets, labelled, head_trained)


def localize_photos(args: argparse.Namespace) -> None:
    """Look up photos in a gallery and print what was found."""
    check_exp_name(args.exp_name)
    if args.descriptors:
        raise ValueError("--descriptors does not go with --localize, which needs the network of --resume CKPT")
    if not (args.localize and args.gallery):
        raise ValueError("--localize PHOTO and --gallery DIR go together")
    if launched()[1] > 1:
        raise ValueError("--localize: for one process only; start without torchrun")
    from_stdin = str(args.localize) == "-"
    if not (args.json or from_stdin):
        start_logging()
    screening = Screening(args.on_bad_image)
    if args.resume is None:
        args.resume = SHIPPED_FOR_PHOTOS
        LOGGER.info("no --resume: using the network for photos that ships, %s", args.resume)
    checkpoint = with_scales(load_checkpoint(args.resume), args.scale_indexes)
    photos = [] if from_stdin else photo_paths(args.localize)
    scale = photo_scale(checkpoint, partial(gallery_files, args.gallery), args.image_size, args.eval_scale)
    photos, faults = usable_photos(photos, smallest_scaled(scale)) if photos else ([], {})
    localizer = opened_gallery(args, checkpoint, scale, screening)
    prior = {"near": args.near, "near_latlon": args.near_latlon, "camera": args.camera}
    allowed = localizer.allowed(**prior)
    if allowed is not None and not allowed.any():
        raise ValueError("--near, --near_latlon, --camera: no gallery image agrees with them; correct them")
    if args.prune:
        LOGGER.info("%d descriptors were dropped from the store", localizer.prune())
    if from_stdin:
        answer_lines(localizer, args.top, prior)
        return
    found = localizer.locate(photos, args.top, **prior)
    if args.json:
        print(to_json(found, faults))
        return
    LOGGER.info("%s", format_localisations(found, localizer.images))
    if faults:
        LOGGER.info("%d of %d photos were looked up", len(photos), len(photos) + len(faults))
    screening.log_summary()


def gallery_files(gallery: Path) -> list[str]:
    """The images of a gallery's folder; none of a CSV file, whose images are sized as any photos."""
    return list_images(gallery) if gallery.is_dir() else []


def opened_gallery(args: argparse.Namespace, checkpoint: Checkpoint, scale: Scale, screening: Screening) -> Localizer:
    """The gallery that the flags name, ready to be asked."""
    compute = resolve_compute(args.device, args.precision, args.compile, args.deterministic)
    options = arguments.embedding_options(args, compute)
    zone = Zone.parse(args.zone) if args.zone else None
    if args.gallery.is_dir():
        gallery, zone = usable_gallery(
            args.gallery, args.positions, zone, args.allow_missing_rows, screening, smallest_scaled(scale)
        )
    else:
        gallery, zone = open_gallery(args.gallery, args.positions, zone)
    log_positions(gallery.report)
    LOGGER.info("gallery %r, %s; machine: %s", gallery, scale_text(scale), compute)
    retrieval = arguments.retrieval_settings(args)
    return Localizer(
        checkpoint,
        gallery,
        store=args.store,
        scale=scale,
        zone=zone,
        retrieval=retrieval,
        options=options,
        reject=args.reject,
    )


def answer_lines(localizer: Localizer, top: int, prior: dict) -> None:
    """Look up the photo of each line of standard input, and answer by a line of JSON: what was found, or what is wrong."""
    for line in sys.stdin:
        photo = line.rstrip("\r\n")
        if not photo:
            continue
        try:
            answer = localizer.locate(photo, top, **prior).to_json()
        except (ValueError, OSError) as error:
            answer = json.dumps({"photo": photo, "error": " ".join(str(error).split())})
        print(answer, flush=True)


def with_scales(checkpoint: Checkpoint, scale_indexes: list[int] | None) -> Checkpoint:
    """A released checkpoint with the pooled stages that the user names. A checkpoint of ours records its own."""
    if scale_indexes is None:
        return checkpoint
    config = replace(checkpoint.config, scale_indexes=tuple(scale_indexes))
    if not checkpoint.released and config != checkpoint.config:
        pooled = " ".join(map(str, checkpoint.config.scale_indexes))
        raise ValueError(f"--scale_indexes: {checkpoint.path} pools {pooled}; leave the flag out")
    return replace(checkpoint, config=config)


if __name__ == "__main__":
    sys.exit(main())
