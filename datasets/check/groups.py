"""The images of a data set that are used together, and what is wrong with them."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from datasets.check.layout import PREVIEW, find_pairs, roots_below
from datasets.check.report import QUANTILES, PairReport, first_few
from datasets.naming import KINDS, NEGATIVE_DISTANCE_M, Kind, detect_kind, label_folder, list_images
from datasets.pairs import placed_images, shared_files, shared_text, without_positive_text
from datasets.places import ImageSet, neighbours_within
from datasets.positions.report import lonely, odd_names
from datasets.sizes import smallest_cropped, smallest_scaled
from models.config import MIN_SIDE


class Findings(NamedTuple):
    """What would make training or evaluation fail, and what is odd but stops nothing."""

    problems: list[str]
    notes: list[str]


class Group(NamedTuple):
    """Images that are used together: a pair, or one plain set, which has no gallery and the folder name `.`.

    `trains` says whether training must work on it, and not only evaluation.
    """

    gallery: tuple[str, ...]
    queries: tuple[str, ...]
    gallery_folder: str
    query_folder: str
    kind: Kind
    reason: str
    trains: bool

    @property
    def paths(self) -> tuple[str, ...]:
        return self.gallery + self.queries

    @property
    def where(self) -> str:
        return f"{self.query_folder} in {self.gallery_folder}" if self.gallery else "the set"


def _group(kind: str, gallery: Sequence[str], queries: Sequence[str], *folders: str) -> Group:
    paths = [*gallery, *queries]
    found, reason = detect_kind(paths) if kind == "auto" else (KINDS[kind], "as given")
    labelled = bool(gallery) or any(label_folder(os.path.dirname(path)) for path in paths)
    trains = (found.name == "iddav2" and labelled) or os.path.basename(os.path.dirname(folders[0])) == "train"
    return Group(tuple(gallery), tuple(queries), *folders, found, reason, trains)


def read_groups(root: Path, kind: str) -> tuple[str, list[Group], list[str], list[str]]:
    """Layout in words, groups, images that belong to none, and what is wrong with folders."""
    try:
        everything = list_images(root)
    except (ValueError, OSError) as error:
        raise type(error)(f"{error}, the folder of a data set") from error
    layout, pairs = find_pairs(root)
    apart = [r for r in roots_below(root) if not any(r in gallery.parents for gallery, _ in pairs)]
    advice = f"give {' '.join(map(str, apart))}"
    if apart and not pairs:
        raise ValueError(
            f"{root}: no data set itself (no gallery with queries), but {len(apart)} lie below it; {advice}"
        )
    groups: list[Group] = []
    wrong = [f"{len(apart)} data sets of their own below this root are not checked; {advice}"] if apart else []
    for folders in pairs:
        names = (str(folder.relative_to(root)) for folder in folders)
        try:
            groups.append(_group(kind, *map(list_images, folders), *names))
        except ValueError as error:
            wrong.append(str(error))
    used = {os.path.realpath(os.path.dirname(path)) for group in groups for path in group.paths}
    folders = {os.path.dirname(path) for path in everything}
    left = {f for f in folders if os.path.realpath(f) not in used and "_labels" not in os.path.relpath(f, root)}
    rest = [path for path in everything if os.path.dirname(path) in left and os.path.basename(path) != PREVIEW]
    if not groups and not rest:
        raise ValueError(
            f"{root}: no image in it, except in label folders and the town's {PREVIEW}; name another, the folder of a "
            "data set"
        )
    return (layout, groups, rest, wrong) if pairs else (layout, [_group(kind, [], rest, "", ".")], [], wrong)


def judge_group(
    group: Group, size_of: dict[str, tuple[int, int]], threshold_m: float | None, found: Findings
) -> PairReport | None:
    """Add to the findings what is wrong with a group; measure it if it is a pair.

    Parameters
    ----------
    size_of : width and height in pixels of the readable images.
    threshold_m : see `check_dataset`.
    """
    _judge_sizes(group, size_of, found)
    gallery, queries = placed_images(group.gallery), placed_images(group.queries)
    for where, placed in ((group.gallery_folder, gallery), (group.query_folder, queries)):
        # a plain set needs no positions
        degrees = found.problems if group.gallery else found.notes
        for into, texts in (
            (degrees, odd_names(where, placed.positions)),
            (found.notes, lonely(placed.paths, placed.positions)),
        ):
            into.extend(text for text in texts if text not in into)  # a gallery may have several query sets
    if not group.gallery:
        return None
    pair = _measure(group, gallery, queries, threshold_m)
    _judge_places(group, pair, found)
    shared = shared_files(group.gallery, group.queries)
    if shared:
        found.problems.append(f"{group.where}: {shared_text(shared, len(group.queries))}")
    return pair


def _judge_sizes(group: Group, size_of: dict[str, tuple[int, int]], found: Findings) -> None:
    """Several sizes in a training set, which needs one, and sides too small for the network."""
    readable = {path: size_of[path] for path in group.paths if path in size_of}
    sizes = [size for size, _ in Counter(readable.values()).most_common()]

    def files(odd: Sequence[tuple[int, int]]) -> list[str]:
        return [f"{path} ({w}x{h})" for path, (w, h) in readable.items() if (w, h) in odd]

    if group.trains and len(sizes) > 1:
        usual, others = f"{sizes[0][0]}x{sizes[0][1]}", files(sizes[1:])
        found.problems.append(
            f"{group.where}: {len(sizes)} sizes in one training set, which training refuses; {len(others)} of "
            f"{len(readable)} images are not {usual} px: {first_few(others)}"
        )
    least = smallest_cropped() if group.trains else MIN_SIDE
    small = [size for size in sizes if min(size) < least]
    if small:
        into = found.problems if group.gallery or group.trains else found.notes  # images of a target domain are resized
        too_small = f"{len(files(small))} of {len(readable)} images are too small"
        into.append(f"{group.where}: {too_small} (sides must be at least {least} px): {first_few(files(small))}")
    scale = group.kind.eval_scale
    if any(least <= min(size) < smallest_scaled(scale) for size in sizes):
        found.notes.append(
            f"{group.where}: give --eval_scale 1; at {scale:g}, the default, sides are below {MIN_SIDE} px"
        )


def _measure(group: Group, gallery: ImageSet, queries: ImageSet, threshold_m: float | None) -> PairReport:
    """Positives, negatives and distances of a pair, among the images whose names state a position."""
    kind = group.kind
    train_m, eval_m = (threshold_m or own for own in (kind.train_threshold_m, kind.eval_threshold_m))

    def files(chosen: np.ndarray) -> tuple[str, ...]:
        return tuple(queries.paths[i] for i in np.flatnonzero(chosen)) if len(gallery) else ()

    positives = [neighbours_within(gallery, queries, m, kind.same_camera).counts for m in (train_m, eval_m)]
    crowded = neighbours_within(gallery, queries, max(NEGATIVE_DISTANCE_M, train_m)).counts == len(gallery)
    distances: list[float] = []
    for camera in np.unique(queries.cameras) if kind.same_camera else [None]:
        chosen = [np.array([camera in (None, c) for c in side.cameras], bool) for side in (gallery, queries)]
        if chosen[0].any() and chosen[1].any():
            distances.extend(KDTree(gallery.positions[chosen[0]]).query(queries.positions[chosen[1]])[0])
    nearest_m = {str(q): float(np.percentile(distances, q)) for q in QUANTILES} if distances else None
    names = (group.gallery_folder, group.query_folder, kind.name)
    numbers = (len(group.gallery), len(group.queries), train_m, eval_m)
    return PairReport(*names, *numbers, *(files(counts == 0) for counts in positives), files(crowded), nearest_m)


def _judge_places(group: Group, pair: PairReport, found: Findings) -> None:
    """Queries without positives or negatives."""
    camera = " of the same camera" if group.kind.same_camera else ""

    def lacking(files: Sequence[str], what: str) -> str:
        return (
            f"{group.where}: {len(files)} of {pair.num_queries} queries have no gallery image{what}: {first_few(files)}"
        )

    if group.trains and pair.no_positive_train:
        remedy = "training refuses them: raise --train_pos_dist_threshold, or leave them out by --on_bad_image skip"
        found.problems.append(
            lacking(pair.no_positive_train, f"{camera} within {pair.train_threshold_m:g} m ({remedy})")
        )
    if group.trains and pair.no_negative:
        remedy = "so no negative, which training refuses: use a larger gallery"
        found.problems.append(lacking(pair.no_negative, f" beyond {NEGATIVE_DISTANCE_M:g} m ({remedy})"))
    if pair.no_positive_eval:
        files, total = pair.no_positive_eval, pair.num_queries
        text = without_positive_text(len(files), total, pair.eval_threshold_m, group.kind.same_camera)
        (found.problems if len(files) == total else found.notes).append(f"{group.where}: {text}: {first_few(files)}")
