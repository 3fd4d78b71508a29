"""From a parsed command line to typed values. A namespace travels no further than main.py, eval.py and this module."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from datasets.naming import CLASS_NAMES, KINDS, Kind, detect_kind, label_path, list_images
from datasets.places import ImageSet
from datasets.transforms import CROP, common_size, why_no_decoder
from models.encoder import MIN_SIDE
from utils.compute import Compute
from utils.descriptor_store import default_folder
from utils.embedding import EmbeddingOptions
from utils.evaluation import TOP_K, EvaluationSet, file_name
from utils.fit import FitSettings, TrainingData, prepare_training
from utils.index_settings import FLAT, RetrievalSettings
from utils.logs import LOGGER
from utils.parsers import main_parser
from utils.runs import new_run_folder
from utils.screening import Screening
from utils.tables import align, printable
from utils.training import LossSettings

TOWN = Path("data/town")


def output_folder(args: argparse.Namespace) -> Path:
    """Where eval.py writes: `--output_dir`, or a new run folder."""
    if args.output_dir is None:
        return new_run_folder(args.exp_name)
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        (args.output_dir / "log.txt").open("a").close()
    except OSError as error:
        raise OSError(
            f"--output_dir {args.output_dir}: cannot make it, or write there ({error.strerror}); name another folder"
        ) from error
    return args.output_dir


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


def split_folders(root: Path, folders: str) -> list[Path]:
    """`a+b` below a root -> [root/a, root/b]."""
    return [root / folder for folder in folders.split("+")]


def load_pair(
    flag: str,
    galleries: list[Path],
    queries: list[Path],
    kind: str,
    screening: Screening,
    loaded: dict[tuple, object] | None = None,
) -> tuple[ImageSet, ImageSet, Kind]:
    """Gallery and queries of one set and its kind, logged with the reason; errors name the flag.

    `loaded` keeps what was listed and said before, so that a gallery of several sets is listed once, and a kind told once.
    """
    loaded = {} if loaded is None else loaded
    try:
        for folders in (galleries, queries):
            if tuple(folders) not in loaded:
                loaded[tuple(folders)] = screening.load(folders)
    except (ValueError, OSError) as error:
        raise type(error)(f"{flag}: {error}") from error
    gallery, query_set = loaded[tuple(galleries)], loaded[tuple(queries)]
    found, reason = detect_kind([*gallery.paths, *query_set.paths])
    name, reason = (found.name, reason) if kind == "auto" else (kind, "as given")
    said = f"{flag}: kind {name} ({reason})"
    if loaded.setdefault((said,), None) is None:
        LOGGER.info("%s", said)
        loaded[said,] = said
    return gallery, query_set, KINDS[name]


def training_data(args: argparse.Namespace, screening: Screening) -> TrainingData:
    """The training set that the flags name, checked; errors name the flag or the file."""
    root = args.dataset_root
    if not root:
        raise ValueError(
            "--dataset_root is missing: give the root of the training set, or no data set flag at all for the town"
        )
    galleries, queries = split_folders(root, args.train_g), split_folders(root, args.train_q)
    gallery, query_set, kind = load_pair("--dataset_root", galleries, queries, args.kind, screening)
    LOGGER.info("training set: gallery %r; queries %r", gallery, query_set)
    scale = args.eval_scale or kind.eval_scale
    with_labels = args.sem_loss_weight != 0
    if with_labels and args.num_classes < len(CLASS_NAMES):
        raise ValueError(
            f"--num_classes {args.num_classes}: labels have {len(CLASS_NAMES)} classes (or --sem_loss_weight 0)"
        )
    min_side = max(smallest_side(CROP), smallest_side(scale))
    gallery, query_set = (screening.usable(images, min_side, with_labels) for images in (gallery, query_set))
    targets = target_paths(args, screening)
    data = prepare_training(
        gallery, query_set, kind, args.train_pos_dist_threshold, targets, args.DA_datasets, args.eval_scale
    )
    paths = [*gallery.paths, *query_set.paths]
    width, height = common_size(paths)
    if min(width, height) < min_side:
        raise ValueError(
            f"{paths[0]}: {width}x{height} px is too small: training crops {CROP:.0%} of each side and mining scales by "
            f"{scale:g}, so sides must be at least {min_side} px (or give a larger --eval_scale)"
        )
    for path in paths if with_labels else ():
        label_path(path)
    return data


def smallest_side(factor: float) -> int:
    """Pixels that a side needs so that it is large enough for the network when it is scaled by `factor`."""
    side = int(MIN_SIDE / factor)
    while int(side * factor) < MIN_SIDE:
        side += 1
    return side


def evaluation_sets(
    args: argparse.Namespace, screening: Screening, val_threshold_m: float | None = None
) -> list[EvaluationSet]:
    """The validation set (named `val`, first) and the test sets that the flags name; others are skipped with a line."""
    sets: list[EvaluationSet] = []
    thresholds = tuple(getattr(args, "threshold_m", None) or ())
    if args.dataset_root_val:
        galleries, queries = (split_folders(args.dataset_root_val, part) for part in (args.val_g, args.val_q))
        pair = load_pair("--dataset_root_val", galleries, queries, args.kind_val, screening)
        own = thresholds or (val_threshold_m or pair[2].eval_threshold_m,)
        sets.append(_evaluation_set("val", *pair, own, args.eval_scale, screening))
    else:
        LOGGER.info("no --dataset_root_val: validation is skipped")
    if args.dataset_root_test:
        sets += _test_sets(args, screening, thresholds, {"val"})  # a test set never takes the validation's name
    else:
        LOGGER.info("no --dataset_root_test: test sets are skipped")
    if sets:
        LOGGER.info("%s", format_sets(sets))
    few = [f"{printable(s.name)} ({len(s.gallery)})" for s in sets if len(s.gallery) < TOP_K]
    if few:
        LOGGER.info("fewer than %d gallery images, so recalls count those there are: %s", TOP_K, ", ".join(few))
    return sets


def format_sets(sets: Sequence[EvaluationSet]) -> str:
    """What will be evaluated, a line per set: images of each side, which matches are correct, and where the two part."""
    rows = [["set", "queries", "gallery", "within", "camera", "scale"]]
    folders = ["folders"]
    for s in sets:
        within = " or ".join(f"{t:g} m" for t in s.thresholds_m)
        camera = "same" if s.kind.same_camera else "any"
        rows.append([printable(s.name), str(len(s.queries)), str(len(s.gallery)), within, camera, f"{s.scale:g}"])
        folders.append(printable(_side_by_side(s.queries.folder, s.gallery.folder)))
    head, rule, *lines = align(rows)
    # folders may be long: last, and flush left
    return "\n".join([f"{head}  {folders[0]}", rule, *(f"{line}  {text}" for line, text in zip(lines, folders[1:]))])


def _side_by_side(queries: str, gallery: str) -> str:
    """Both folders below what they have in common: the command line says where that is."""
    above = len(os.path.commonpath([os.path.dirname(os.path.abspath(folder)) for folder in (queries, gallery)]))
    return " in ".join(os.path.abspath(folder)[above:].strip("/") for folder in (queries, gallery))


def _evaluation_set(
    name: str,
    gallery: ImageSet,
    queries: ImageSet,
    kind: Kind,
    thresholds: tuple[float, ...],
    scale: float | None,
    screening: Screening,
) -> EvaluationSet:
    scale = scale or kind.eval_scale
    gallery, queries = (screening.usable(images, smallest_side(scale)) for images in (gallery, queries))
    return EvaluationSet(name, gallery, queries, kind, thresholds, scale)


def _test_sets(
    args: argparse.Namespace, screening: Screening, thresholds: tuple[float, ...], taken: set[str]
) -> list[EvaluationSet]:
    galleries, queries = args.test_g.split("+"), args.test_q.split("+")
    if len(galleries) == 1:
        galleries *= len(queries)
    if len(galleries) != len(queries):
        raise ValueError(
            f"--test_g names {len(galleries)} galleries but --test_q {len(queries)} query sets: give as many, or one gallery"
        )
    loaded: dict[tuple, ImageSet] = {}
    root = args.dataset_root_test
    sets = []
    for g, q in zip(galleries, queries):
        name = q if file_name(q) not in taken else f"{q} in {g}"
        if file_name(name) in taken:
            raise ValueError(f"--test_q: {q} stands twice with the gallery {g}")
        taken.add(file_name(name))
        pair = load_pair("--dataset_root_test", [root / g], [root / q], args.kind_test, screening, loaded)
        sets.append(_evaluation_set(name, *pair, thresholds or (pair[2].eval_threshold_m,), args.eval_scale, screening))
    return sets


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
    return RetrievalSettings(args.index, args.nprobe, args.pca_dim, args.pca_whiten, args.descriptor_dtype, args.seed)


def evaluation_store(args: argparse.Namespace) -> Path | None:
    """Where an evaluation keeps descriptors and indexes: nowhere, unless it is told so or trains an index."""
    if args.store is None and args.index != FLAT:
        return default_folder(args.resume)
    return args.store


def loss_settings(args: argparse.Namespace) -> LossSettings:
    return LossSettings(
        args.margin,
        args.sem_loss_weight,
        args.adv_loss_weight,
        args.da_loss_weight,
        args.da_method,
        args.grl_schedule,
    )


def fit_settings(args: argparse.Namespace) -> FitSettings:
    """Settings of a run; ValueError names flags that do not go together."""
    if args.queries_per_epoch % args.cache_refresh_rate:
        raise ValueError(
            f"--queries_per_epoch {args.queries_per_epoch} is not a multiple of --cache_refresh_rate {args.cache_refresh_rate}; "
            f"give {-(-args.queries_per_epoch // args.cache_refresh_rate) * args.cache_refresh_rate}"
        )
    return FitSettings(
        seed=args.seed,
        batch_size=args.batch_size,
        cache_refresh_rate=args.cache_refresh_rate,
        queries_per_epoch=args.queries_per_epoch,
        n_neg=args.n_neg,
        neg_samples=args.neg_samples,
        mining=args.mining,
        cache_negatives=args.cache_negatives,
        descriptor_dtype=args.descriptor_dtype,
        n_epochs=args.n_epochs,
        patience=args.patience,
        target_size=tuple(args.target_size),
        save_every_min=args.save_every_min,
        losses=loss_settings(args),
    )


def plain_values(args: argparse.Namespace) -> dict:
    """The arguments as plain values, for the checkpoint."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def recorded_arguments(record: dict) -> dict:
    """The arguments that a checkpoint's run was started with; flags that came after it stand at their defaults."""
    return {**plain_values(main_parser().parse_args([])), **record.get("arguments", {})}


def head_trained(training: dict) -> bool:
    """Whether a checkpoint's run had a semantic loss, by what it recorded; one that says nothing is taken to have had it."""
    return recorded_arguments(training.get("record") or {})["sem_loss_weight"] != 0


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
        paths = screening.usable_paths(list_images(args.DA_datasets))
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
    LOGGER.info("--DA_datasets: %s: %d images", args.DA_datasets, len(paths))
    return paths
