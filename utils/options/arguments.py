"""From a parsed command line to typed values. A namespace travels no further than main.py, eval.py and this module."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.command_line import read_flags
from datasets.naming import CLASS_NAMES, KINDS, Kind, count_suffixes, detect_kind, label_path, list_folder
from datasets.pairs import camera_text, kind_text, shared_files, shared_text, without_positive, without_positive_text
from datasets.places import ImageSet
from datasets.reading.transforms import common_size, why_no_decoder
from datasets.sizes import CROP, smallest_cropped, smallest_scaled
from models.encoder import MIN_SIDE
from utils.evaluation.recall import TOP_K, EvaluationSet
from utils.evaluation.results import file_name
from utils.evaluation.screening import Screening
from utils.evaluation.tables import align, printable
from utils.options.parsers import main_parser
from utils.retrieval.embedding import EmbeddingOptions
from utils.retrieval.settings import FLAT, RetrievalSettings
from utils.retrieval.store import default_folder
from utils.runs.folders import fresh_folder, new_run_folder
from utils.system.compute import Compute
from utils.system.logs import LOGGER
from utils.training.data import TrainingData, prepare_training
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


def split_folders(root: Path, folders: str) -> list[str]:
    """`a+b` -> [a, b]; a folder below the root that has a `+` in its name is taken as it is."""
    parts, found = folders.split("+"), []
    while parts:
        whole = next((n for n in range(len(parts), 1, -1) if (root / "+".join(parts[:n])).is_dir()), 1)
        found.append("+".join(parts[:whole]))
        del parts[:whole]
    return found


@dataclass(frozen=True)
class SetFlags:
    """The flags that name a set's root, its kind, and how far apart the same place may be ("" where there is none)."""

    root: str
    kind: str
    metres: str

    def overrule(self, kind: Kind) -> str:
        other = next(name for name in KINDS if name != kind.name)
        metres = f"{self.metres} M, " if self.metres else ""
        return f"to overrule: {self.kind} {other}, {metres}--eval_scale F"


def load_pair(
    flags: SetFlags,
    galleries: list[Path],
    queries: list[Path],
    kind: str,
    metres: tuple[float, ...],
    scale: float | None,
    screening: Screening,
    loaded: dict[tuple, object] | None = None,
) -> tuple[ImageSet, ImageSet, Kind]:
    """Gallery and queries of one set and its kind, logged with the reason and what follows; errors name the flag.

    Parameters
    ----------
    metres, scale : what the user gave instead of the kind's own, if anything.
    loaded : keeps what was listed and said before, so that a gallery of several sets is listed once, and a kind told once.
    """
    loaded = {} if loaded is None else loaded
    try:
        for folders in (galleries, queries):
            if tuple(folders) not in loaded:
                loaded[tuple(folders)] = screening.load(folders)
    except (ValueError, OSError) as error:
        several = len(galleries) > 1 or len(queries) > 1
        raise type(error)(f"{flags.root}: {error}{' (+ stands between two folders)' if several else ''}") from error
    gallery, query_set = loaded[tuple(galleries)], loaded[tuple(queries)]
    found, reason = detect_kind([*gallery.paths, *query_set.paths])
    found, reason = (found, reason) if kind == "auto" else (KINDS[kind], "as given")
    own = found.train_threshold_m if flags is TRAINING else found.eval_threshold_m
    follows = kind_text(found, metres or (own,), scale or found.eval_scale)
    said = f"{flags.root}: kind {found.name} ({reason}): {follows} ({flags.overrule(found)})"
    if said not in loaded.setdefault(("said",), set()):
        LOGGER.info("%s", said)
        loaded["said",].add(said)
    _check_pair(flags, gallery, query_set, found)
    return gallery, query_set, found


TRAINING = SetFlags("--dataset_root", "--kind", "--train_pos_dist_threshold")


def _check_pair(flags: SetFlags, gallery: ImageSet, queries: ImageSet, kind: Kind) -> None:
    """Say how many queries are in the gallery too, or have no image of their camera there.

    ValueError where training would learn from nothing else than queries that find themselves.
    """
    shared = shared_files(gallery.paths, queries.paths)
    if shared:
        text = f"{flags.root}: {shared_text(shared, len(queries))}"
        if len(shared) == len(queries) and flags is TRAINING:
            raise ValueError(text)
        LOGGER.warning("%s", text)
    lacking = camera_text(gallery, queries) if kind.same_camera else ""
    if lacking:
        LOGGER.warning("%s: %s (%s)", flags.root, lacking, flags.overrule(kind))


def training_data(args: argparse.Namespace, screening: Screening) -> TrainingData:
    """The training set that the flags name, checked; errors name the flag or the file."""
    root = args.dataset_root
    if not root:
        raise ValueError(
            "--dataset_root is missing: give the root of the training set, or no data set flag at all for the town"
        )
    galleries, queries = ([root / f for f in split_folders(root, part)] for part in (args.train_g, args.train_q))
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
    targets = target_paths(args, screening)
    data = prepare_training(
        gallery, query_set, kind, args.train_pos_dist_threshold, targets, args.DA_datasets, args.eval_scale
    )
    paths = [*gallery.paths, *query_set.paths]
    check_size(paths[0], common_size(paths), scale)
    return data


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


def evaluation_sets(
    args: argparse.Namespace, screening: Screening, val_threshold_m: float | None = None
) -> list[EvaluationSet]:
    """The validation set (named `val`, first) and the test sets that the flags name; others are skipped with a line."""
    sets: list[EvaluationSet] = []
    thresholds = tuple(getattr(args, "threshold_m", None) or ())
    if args.dataset_root_val:
        root = args.dataset_root_val
        galleries, queries = ([root / f for f in split_folders(root, part)] for part in (args.val_g, args.val_q))
        metres_flag = "--threshold_m" if hasattr(args, "threshold_m") else "--val_pos_dist_threshold"
        flags = SetFlags("--dataset_root_val", "--kind_val", metres_flag)
        own = thresholds or ((val_threshold_m,) if val_threshold_m else ())
        pair = load_pair(flags, galleries, queries, args.kind_val, own, args.eval_scale, screening)
        sets.append(_evaluation_set("val", *pair, own or (pair[2].eval_threshold_m,), args.eval_scale, screening))
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
    gallery, queries = (screening.usable(images, smallest_scaled(scale)) for images in (gallery, queries))
    for metres in thresholds:
        lacking = len(without_positive(gallery, queries, metres, kind.same_camera))
        if lacking:
            text = without_positive_text(lacking, len(queries), metres, kind.same_camera)
            LOGGER.warning("%s: %s", name, text)
    return EvaluationSet(name, gallery, queries, kind, thresholds, scale)


def _test_sets(
    args: argparse.Namespace, screening: Screening, thresholds: tuple[float, ...], taken: set[str]
) -> list[EvaluationSet]:
    root = args.dataset_root_test
    galleries, queries = split_folders(root, args.test_g), split_folders(root, args.test_q)
    flags = SetFlags("--dataset_root_test", "--kind_test", "--threshold_m" if hasattr(args, "threshold_m") else "")
    if len(galleries) == 1:
        galleries *= len(queries)
    if len(galleries) != len(queries):
        raise ValueError(
            f"--test_g names {len(galleries)} galleries but --test_q {len(queries)} query sets: give as many, or one gallery"
        )
    loaded: dict[tuple, ImageSet] = {}
    sets = []
    for g, q in zip(galleries, queries):
        name = q if file_name(q) not in taken else f"{q} in {g}"
        if file_name(name) in taken:
            raise ValueError(f"--test_q: {q} stands twice with the gallery {g}")
        taken.add(file_name(name))
        pair = load_pair(flags, [root / g], [root / q], args.kind_test, thresholds, args.eval_scale, screening, loaded)
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
    return read_flags(RetrievalSettings, args, seed=args.seed)


def evaluation_store(args: argparse.Namespace) -> Path | None:
    """Where an evaluation keeps descriptors and indexes: nowhere, unless it is told so or trains an index."""
    if args.store is None and args.index != FLAT:
        return default_folder(args.resume)
    return args.store


def training_settings(args: argparse.Namespace) -> TrainingSettings:
    """Settings of a run; ValueError names flags that do not go together."""
    losses, optimizer = read_flags(LossSettings, args), read_flags(OptimizerSettings, args)
    return read_flags(TrainingSettings, args, seed=args.seed, losses=losses, optimizer=optimizer)


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
