"""The validation set and the test sets that flags name."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.naming import Kind
from datasets.pairs import without_positive, without_positive_text
from datasets.places import ImageSet
from datasets.sizes import smallest_scaled
from utils.evaluation.given import read_given
from utils.evaluation.recall import TOP_K, EvaluationSet
from utils.evaluation.results import file_name
from utils.options.pairs import SetFlags, folders_below, kind_of_pair, load_pair, split_folders
from utils.retrieval.screening import Screening
from utils.system.logs import LOGGER
from utils.system.tables import align, printable


def evaluation_sets(
    args: argparse.Namespace, screening: Screening, val_threshold_m: float | None = None
) -> list[EvaluationSet]:
    """The validation set (named `val`, first) and the test sets that the flags name; others are skipped with a line."""
    sets: list[EvaluationSet] = []
    thresholds = tuple(getattr(args, "threshold_m", None) or ())
    if args.dataset_root_val:
        root = args.dataset_root_val
        named = folders_below(root, "val", args.val_g, args.val_q)
        galleries, queries = ([root / f for f in split_folders(root, part)] for part in named)
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


def given_sets(args: argparse.Namespace) -> tuple[list[EvaluationSet], list[tuple[np.ndarray, np.ndarray]]]:
    """A set per file of `--descriptors`, named as the file, and its descriptors of gallery and queries."""
    if args.dataset_root_val or args.dataset_root_test:
        raise ValueError(
            "--descriptors: the files name the images; leave out --dataset_root_val and --dataset_root_test"
        )
    sets, descriptors, said = [], [], {}
    flags, thresholds = SetFlags("--descriptors", "--kind_test", "--threshold_m"), tuple(args.threshold_m or ())
    for file in args.descriptors:
        gallery, queries = read_given(file)
        name, pair = Path(file).stem, (gallery.images, queries.images)
        if name in {s.name for s in sets}:
            raise ValueError(f"--descriptors: two files are named {name}; rename one, since a set has its file's name")
        kind = kind_of_pair(flags, *pair, args.kind_test, thresholds, 1.0, said)
        sets.append(_evaluation_set(name, *pair, kind, thresholds or (kind.eval_threshold_m,), 1.0, Screening()))
        descriptors.append((gallery.descriptors, queries.descriptors))
    LOGGER.info("%s", format_sets(sets))
    return sets, descriptors


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
    named = folders_below(root, "test", args.test_g, args.test_q)
    galleries, queries = (split_folders(root, part) for part in named)
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
