"""The training set and the target domain that flags name, checked before anything long starts."""

import argparse

from datasets.naming import CLASS_NAMES, Kind, count_suffixes, label_path, list_folder
from datasets.pairs import without_positive
from datasets.places import ImageSet
from datasets.reading.transforms import common_size
from datasets.sizes import CROP, smallest_cropped, smallest_scaled
from models.config import MIN_SIDE
from utils.options.pairs import TRAINING, folders_below, load_pair, split_folders
from utils.retrieval.screening import Screening
from utils.system.logs import LOGGER
from utils.training.data import TrainingData, prepare_training


def training_data(args: argparse.Namespace, screening: Screening) -> TrainingData:
    """The training set that the flags name, checked; errors name the flag or the file."""
    root = args.dataset_root
    if not root:
        raise ValueError(
            "--dataset_root is missing: give the root of the training set, or no data set flag at all for the town"
        )
    named = folders_below(root, "train", args.train_g, args.train_q)
    galleries, queries = ([root / f for f in split_folders(root, part)] for part in named)
    metres = (args.train_pos_dist_threshold,) if args.train_pos_dist_threshold else ()
    gallery, query_set, kind = load_pair(TRAINING, galleries, queries, args.kind, metres, args.eval_scale, screening)
    LOGGER.info("training set: gallery %r; queries %r", gallery, query_set)
    scale = args.eval_scale or kind.eval_scale
    with_labels = args.sem_loss_weight != 0
    if with_labels:
        if args.num_classes < len(CLASS_NAMES):
            raise ValueError(
                f"--num_classes {args.num_classes}: labels have {len(CLASS_NAMES)} classes (or --sem_loss_weight 0)"
            )
        require_labels([*gallery.paths, *query_set.paths], screening.skip)
    min_side = max(smallest_cropped(), smallest_scaled(scale))
    gallery, query_set = (screening.usable(images, min_side, with_labels) for images in (gallery, query_set))
    if screening.skip:
        query_set = with_positive(gallery, query_set, args.train_pos_dist_threshold or kind.train_threshold_m, kind)
    targets = target_paths(args, screening)
    data = prepare_training(
        gallery, query_set, kind, args.train_pos_dist_threshold, targets, args.DA_datasets, args.eval_scale
    )
    paths = [*gallery.paths, *query_set.paths]
    check_size(paths[0], common_size(paths), scale)
    return data


def with_positive(gallery: ImageSet, queries: ImageSet, metres: float, kind: Kind) -> ImageSet:
    """The queries that training can use, the others counted in the log; all of them where none has a positive."""
    lacking = without_positive(gallery, queries, metres, kind.same_camera)
    if not 0 < len(lacking) < len(queries):
        return queries
    LOGGER.warning(
        "--on_bad_image skip: %d of %d training queries are left out: no gallery image within %g m",
        *(len(lacking), len(queries), metres),
    )
    return queries.without({queries.paths[i] for i in lacking})


def require_labels(paths: list[str], skip: bool) -> None:
    """ValueError where images have no label; with `skip`, which leaves them out, only where none has."""
    lacking = [path for path in paths if not has_label(path)]
    if not lacking or (skip and len(lacking) < len(paths)):
        return
    try:
        label_path(lacking[0])
    except FileNotFoundError as error:
        ways = "" if skip or len(lacking) == len(paths) else "leave them out with --on_bad_image skip, or "
        raise ValueError(
            f"{error} ({len(lacking)} of {len(paths)} training images have none); {ways}train without labels: "
            "--sem_loss_weight 0, which ends domain adaptation too (--da_method none, no --DA_datasets)"
        ) from error


def has_label(path: str) -> bool:
    try:
        return bool(label_path(path))
    except FileNotFoundError:
        return False


def check_size(path: str, size: tuple[int, int], scale: float) -> None:
    """ValueError where images of this width and height are too small for training's crops or for mining's scale."""
    side, cropped, scaled = min(size), smallest_cropped(), smallest_scaled(scale)
    if side >= max(cropped, scaled):
        return
    small = f"{path}: {size[0]}x{size[1]} px is too small: "
    if side < cropped:
        also = f", and {scaled} px for --eval_scale {scale:g}" if scaled > cropped else ""
        raise ValueError(
            f"{small}training crops {CROP:.0%} of each side, so sides must be at least {cropped} px{also}; use larger images"
        )
    enough = next(f for f in (n / 100 for n in range(1, 101)) if smallest_scaled(f) <= side)
    raise ValueError(
        f"{small}mining scales by {scale:g}, so sides must be at least {scaled} px; give --eval_scale {enough:g} or more, "
        "or use larger images"
    )


def target_paths(args: argparse.Namespace, screening: Screening) -> tuple[str, ...]:
    """Images of the target domain; ValueError where the method needs them and there are too few."""
    if args.da_method == "none":
        return ()
    if not args.sem_loss_weight:
        LOGGER.info("--sem_loss_weight 0: no segmentation, and so no domain adaptation, which works through it")
        return ()
    if not args.DA_datasets:
        raise ValueError(
            f"--da_method {args.da_method} needs target-domain images: give --DA_datasets DIR, or --da_method none"
        )
    try:
        listing = list_folder(args.DA_datasets)
        paths = screening.usable_paths(listing.images)
    except (ValueError, OSError) as error:
        raise type(error)(f"--DA_datasets: {error}") from error
    per_step = args.batch_size * (2 + args.n_neg)
    if len(paths) < per_step:
        raise ValueError(
            f"--DA_datasets: {args.DA_datasets} has {len(paths)} images, but a step takes {per_step}: add images, or lower "
            "--batch_size or --n_neg"
        )
    if min(args.target_size) < MIN_SIDE:
        raise ValueError(f"--target_size: both sides must be at least {MIN_SIDE} px")
    unread = f"; not read: {count_suffixes(listing.unread)}" if listing.unread else ""
    LOGGER.info("--DA_datasets: %s: %d images%s", args.DA_datasets, len(paths), unread)
    return paths
