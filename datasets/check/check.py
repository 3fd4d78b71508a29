"""Scan a data set before training on it: `python3 -m datasets.check ROOT [ROOT ...]`.

Exit status: 0 where training and evaluation would work, 1 where they would fail, 2 for unusable arguments.
"""

import argparse
import json
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.neighbors import KDTree

from datasets import naming
from datasets.check.layout import PREVIEW, find_pairs, roots_below
from datasets.check.scan import Scan, scan_files
from datasets.naming import CLASS_NAMES, IGNORED, KINDS, Kind, label_folder, list_images, parse_position
from datasets.pairs import placed_images, shared_files, shared_text, without_positive_text
from datasets.places import neighbours_within
from datasets.positions.report import lonely, odd_names
from datasets.reading.transforms import scaled_size
from datasets.sizes import CROP
from models.config import MIN_SIDE

NEGATIVE_DISTANCE_M = 25.0
QUANTILES = (0, 25, 50, 75, 95, 100)
COLUMNS, SHOWN_FILES, SHOWN_SIZES = 100, 3, 6


@dataclass(frozen=True)
class PairReport:
    """Queries and the gallery in which they are looked up.

    Attributes
    ----------
    gallery, queries : their folders below the root.
    train_threshold_m, eval_threshold_m : same place within so many metres, of the same camera where the kind says so.
    no_positive_train, no_positive_eval : files of the queries that have no gallery image of their place.
    no_negative : files of the queries that have every gallery image within 25 m.
    nearest_m : distance from a query to the nearest gallery image that could be its positive, in metres: the quantiles
        of `QUANTILES`, in percent, over the queries that have one; None where none has.
    """

    gallery: str
    queries: str
    kind: str
    num_gallery: int
    num_queries: int
    train_threshold_m: float
    eval_threshold_m: float
    no_positive_train: tuple[str, ...]
    no_positive_eval: tuple[str, ...]
    no_negative: tuple[str, ...]
    nearest_m: dict[str, float] | None


@dataclass(frozen=True)
class Report:
    """What a scan found.

    Attributes
    ----------
    root : as given.
    layout, kind : in words, how galleries and queries were told apart, and of what kind they are and why.
    folders : folder below the root -> `images` and `labels` (sound ones) in it.
    sizes : `1920x1080`, in pixels -> number of images, most frequent first.
    faults : `unreadable images`, `missing labels`, `odd labels`, `names without position` -> one message per file.
    class_pixels : class name, or `ignored`, -> pixels over all sound labels.
    pairs : galleries with their queries.
    notes, problems : what is odd but stops nothing, and what would make training or evaluation fail.
    """

    root: str
    layout: str
    kind: str
    folders: dict[str, dict[str, int]]
    sizes: dict[str, int]
    faults: dict[str, list[str]]
    class_pixels: dict[str, int]
    pairs: tuple[PairReport, ...]
    notes: list[str]
    problems: list[str]

    @property
    def class_fractions(self) -> dict[str, float]:
        """Share of each class, and of `ignored`, in all labels' pixels; empty without labels."""
        total = sum(self.class_pixels.values())
        return {name: pixels / total for name, pixels in self.class_pixels.items()} if total else {}

    def count(self, what: str) -> int:
        """Number of `images` or of sound `labels`."""
        return sum(folder[what] for folder in self.folders.values())

    def to_dict(self) -> dict:
        """For JSON: the attributes of this class and of `PairReport`, and `ok`, `images`, `labels`, `class_fractions`."""
        totals = {what: self.count(what) for what in ("images", "labels")}
        return {"ok": not self.problems, **totals, **asdict(self), "class_fractions": self.class_fractions}


class _Group(NamedTuple):
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


def _read_groups(root: Path, kind: str) -> tuple[str, list[_Group], list[str], list[str]]:
    """Layout, groups, images that belong to none, and what is wrong with folders."""

    def group(gallery: Sequence[str], queries: Sequence[str], *folders: str) -> _Group:
        paths = [*gallery, *queries]
        found, reason = naming.detect_kind(paths) if kind == "auto" else (KINDS[kind], "as given")
        labelled = bool(gallery) or any(label_folder(os.path.dirname(path)) for path in paths)
        return _Group(tuple(gallery), tuple(queries), *folders, found, reason, found.name == "iddav2" and labelled)

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
    groups: list[_Group] = []
    wrong = [f"{len(apart)} data sets of their own below this root are not checked; {advice}"] if apart else []
    for folders in pairs:
        try:
            groups.append(group(*map(list_images, folders), *(str(folder.relative_to(root)) for folder in folders)))
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
    return (layout, groups, rest, wrong) if pairs else (layout, [group([], rest, "", ".")], [], wrong)


def check_dataset(
    root: Path, kind: str = "auto", threshold_m: float | None = None, workers: int | None = None, progress: bool = True
) -> Report:
    """Read every image and label below a root once, and say what would make training or evaluation fail.

    Pairs of kind `iddav2` must do for training (labels, one size, positives and negatives for every query); other pairs
    for evaluation; of a plain set without labels, such as a target domain, every image must be readable.

    Parameters
    ----------
    kind : `iddav2`, `utm`, or `auto`, which looks at the folders of each pair.
    threshold_m : replaces the kind's thresholds, of training and of evaluation, in metres.
    workers : number of processes, by default one per available processor.

    FileNotFoundError or ValueError where the root is missing or holds no image, or `kind` is unknown.
    """
    if kind != "auto" and kind not in KINDS:
        raise ValueError(f"kind {kind}: must be auto, {' or '.join(KINDS)}")
    base = Path(os.path.abspath(root))
    layout, groups, rest, problems = _read_groups(base, kind)
    paths = sorted({*rest, *(path for group in groups for path in group.paths)})
    need_label = {path for group in groups if group.trains and group.gallery for path in group.paths}
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    scan = scan_files([(path, path in need_label) for path in paths], workers, progress, f"reading {base.name}")

    faults, notes, pairs = _file_faults(scan, groups, problems), [], []
    size_of = {path: (int(w), int(h)) for path, (w, h) in zip(paths, scan.sizes) if w}
    if unread := naming.list_folder(base).unread:
        notes.append(f"files not read: {naming.count_suffixes(unread)}")
    for group in groups:
        _judge_sizes(group, size_of, problems, notes)
        _judge_names(group, problems, notes)
        if group.gallery:
            pairs.append(_measure(group, threshold_m))
            _judge_places(group, pairs[-1], problems, notes)
            shared = shared_files(group.gallery, group.queries)
            if shared:
                problems.append(f"{group.where}: {shared_text(shared, len(group.queries))}")
    if rest:
        notes.append(f"{len(rest)} of {len(paths)} images are in no pair of gallery and queries: {_some(rest)}")
    folders: dict[str, dict[str, int]] = {}
    for path, labelled in zip(paths, scan.labelled):
        folder = folders.setdefault(os.path.relpath(os.path.dirname(path), base), {"images": 0, "labels": 0})
        folder["images"] += 1
        folder["labels"] += int(labelled)
    pixels = {name: int(scan.pixels[c]) for c, name in [*enumerate(CLASS_NAMES), (IGNORED, "ignored")]}
    kinds = ", ".join(dict.fromkeys(f"{group.kind.name} ({group.reason})" for group in groups)) or "none"
    sizes = {f"{w}x{h}": images for (w, h), images in Counter(size_of.values()).most_common()}
    return Report(str(root), layout, kinds, folders, sizes, faults, pixels, tuple(pairs), notes, problems)


def _some(texts: Sequence[str], shown: int = SHOWN_FILES) -> str:
    more = [f"and {len(texts) - shown} more"] if len(texts) > shown else []
    return "; ".join([*texts[:shown], *more])


def _file_faults(scan: Scan, groups: list[_Group], problems: list[str]) -> dict[str, list[str]]:
    """Faults of single files, each file once; adds the problems that they are."""
    faults: dict[str, list[str]] = {}
    for what, message in scan.faults:
        faults.setdefault(what, []).append(message)
    for path in dict.fromkeys(path for group in groups if group.gallery or group.trains for path in group.paths):
        try:
            parse_position(path)
        except ValueError as error:
            faults.setdefault("names without position", []).append(str(error))
    remedies = {
        "unreadable images": "fetch them again, or move them away",
        "missing labels": "fetch them, or move the images away",
        "odd labels": "training refuses them",
        "names without position": "rename the files, or move them away",
    }
    for what, remedy in remedies.items():
        if what in faults:
            problems.append(f"{what}: {len(faults[what])} ({remedy}): {_some(faults[what])}")
    return faults


def _judge_sizes(group: _Group, size_of: dict[str, tuple[int, int]], problems: list[str], notes: list[str]) -> None:
    """Sizes that differ where training needs one, and sides too small for the network."""
    readable = {path: size_of[path] for path in group.paths if path in size_of}
    sizes = [size for size, _ in Counter(readable.values()).most_common()]

    def files(odd: Sequence[tuple[int, int]]) -> list[str]:
        return [f"{path} ({w}x{h})" for path, (w, h) in readable.items() if (w, h) in odd]

    if group.trains and len(sizes) > 1:
        usual, others = f"{sizes[0][0]}x{sizes[0][1]}", files(sizes[1:])
        problems.append(
            f"{group.where}: {len(sizes)} sizes in one training set, which training refuses; {len(others)} of "
            f"{len(readable)} images are not {usual} px: {_some(others)}"
        )
    share = CROP if group.trains else 1.0
    small = [size for size in sizes if int(share * min(size)) < MIN_SIDE]
    if small:
        into = problems if group.gallery or group.trains else notes  # images of a target domain are resized
        least = f"{share:.0%} of each side must be at least {MIN_SIDE} px"
        into.append(
            f"{group.where}: {len(files(small))} of {len(readable)} images are too small ({least}): {_some(files(small))}"
        )
    scale = group.kind.eval_scale
    if any(size not in small and min(scaled_size(*size, scale)) < MIN_SIDE for size in sizes):
        notes.append(f"{group.where}: give --eval_scale 1; at {scale:g}, the default, sides are below {MIN_SIDE} px")


def _judge_names(group: _Group, problems: list[str], notes: list[str]) -> None:
    """Names that seem to state degrees, and images far from all others; a plain set needs no positions."""
    for where, paths in ((group.gallery_folder, group.gallery), (group.query_folder, group.queries)):
        placed = placed_images(paths)
        for into, texts in (
            (problems if group.gallery else notes, odd_names(where, placed.positions)),
            (notes, lonely(placed.paths, placed.positions)),
        ):
            into.extend(text for text in texts if text not in into)  # a gallery may have several query sets


def _measure(group: _Group, threshold_m: float | None) -> PairReport:
    """Positives, negatives and distances of a pair, among the images whose names say a position."""
    kind, gallery, queries = group.kind, placed_images(group.gallery), placed_images(group.queries)
    train_m, eval_m = (threshold_m or own for own in (kind.train_threshold_m, kind.eval_threshold_m))

    def files(chosen: np.ndarray) -> tuple[str, ...]:
        return tuple(queries.paths[i] for i in np.flatnonzero(chosen)) if len(gallery) else ()

    positives = [neighbours_within(gallery, queries, m, kind.same_camera).counts for m in (train_m, eval_m)]
    crowded = neighbours_within(gallery, queries, max(NEGATIVE_DISTANCE_M, train_m)).counts == len(gallery)
    distances: list[float] = []
    for camera in np.unique(queries.cameras) if kind.same_camera else [None]:
        chosen = [np.array([camera in (None, c) for c in side.cameras], bool) for side in (gallery, queries)]
        if chosen[0].any() and chosen[1].any():
            distances.extend(KDTree(gallery.positions[chosen[0]]).query(queries.positions[chosen[1]])[0][:, 0])
    nearest_m = {str(q): float(np.percentile(distances, q)) for q in QUANTILES} if distances else None
    names = (group.gallery_folder, group.query_folder, kind.name)
    numbers = (len(group.gallery), len(group.queries), train_m, eval_m)
    return PairReport(*names, *numbers, *(files(counts == 0) for counts in positives), files(crowded), nearest_m)


def _judge_places(group: _Group, pair: PairReport, problems: list[str], notes: list[str]) -> None:
    """Queries without positives or negatives."""
    camera = " of the same camera" if group.kind.same_camera else ""

    def lacking(files: Sequence[str], what: str) -> str:
        return f"{group.where}: {len(files)} of {pair.num_queries} queries have no gallery image{what}: {_some(files)}"

    if group.trains and pair.no_positive_train:
        remedy = "training refuses them: move them away, or raise --train_pos_dist_threshold"
        problems.append(lacking(pair.no_positive_train, f"{camera} within {pair.train_threshold_m:g} m ({remedy})"))
    if group.trains and pair.no_negative:
        remedy = "so no negative, which training refuses: use a larger gallery"
        problems.append(lacking(pair.no_negative, f" beyond {NEGATIVE_DISTANCE_M:g} m ({remedy})"))
    if pair.no_positive_eval:
        files, total = pair.no_positive_eval, pair.num_queries
        text = without_positive_text(len(files), total, pair.eval_threshold_m, group.kind.same_camera)
        (problems if len(files) == total else notes).append(f"{group.where}: {text}: {_some(files)}")


def format_report(report: Report) -> str:
    """The report as text of about 100 columns, files as paths below the root; what would fail comes last."""
    faults = ", ".join(f"{what} {len(messages)}" for what, messages in report.faults.items())
    sizes = [f"{size} ({images})" for size, images in report.sizes.items()]
    head = {
        "layout": report.layout,
        "kind": report.kind,
        "files": f"{report.count('images')} images, {report.count('labels')} sound labels; {faults or 'none faulty'}",
        "sizes": _some(sizes, SHOWN_SIZES) or "none",
    }
    lines = [report.root]
    for name, text in head.items():
        lines += _wrap(text, f"  {name:<8}", " " * 10)
    width = max(map(len, [*report.folders, "folder"]))
    lines += ["", f"  {'folder':<{width}}   images   labels"]
    lines += [f"  {name:<{width}}{n['images']:>9}{n['labels']:>9}" for name, n in report.folders.items()]
    for p in report.pairs:
        lines += ["", f"  {p.queries} in {p.gallery}: {p.num_queries} queries, {p.num_gallery} gallery images"]
        lines.append(
            f"    without positive: {len(p.no_positive_train)} within {p.train_threshold_m:g} m (training), "
            f"{len(p.no_positive_eval)} within {p.eval_threshold_m:g} m (evaluation); without negative: {len(p.no_negative)}"
        )
        lines.append("    nearest in metres: " + ", ".join(f"{q}% {m:.2f}" for q, m in (p.nearest_m or {}).items()))
    cells = [f"{name:<11}{100 * share:8.3f}%" for name, share in report.class_fractions.items()]
    lines += ["", "  pixels of the labels"] if cells else []
    lines += ["  " + "    ".join(cells[i : i + 4]) for i in range(0, len(cells), 4)]
    for title, texts in (("notes", report.notes), ("problems", report.problems)):
        lines += ["", f"  {title}: {len(texts)}"] if texts else []
        for text in texts:
            lines += _wrap(text.replace(f"{os.path.abspath(report.root)}{os.sep}", ""), "  - ", "    ")
    return "\n".join(lines if report.problems else [*lines, "", "  no problems"])


def _wrap(text: str, first: str, others: str) -> list[str]:
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, COLUMNS, initial_indent=first, subsequent_indent=others, **options)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="datasets.check", description="Scan data sets before training on them.")
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT", help="folder of a data set")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write {'reports': [Report.to_dict(), ...]} there")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per processor)")
    parser.add_argument("--kind", choices=["auto", *KINDS], default="auto", help="auto looks at the folders (default)")
    parser.add_argument(
        "--threshold_m", type=float, metavar="M", help="same place within M metres (default: the kind's)"
    )
    args = parser.parse_args(argv)
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers {args.workers}: must be at least 1")
    if args.threshold_m is not None and not 0 < args.threshold_m < float("inf"):
        parser.error(f"--threshold_m {args.threshold_m}: must be a distance above 0 m")
    if args.json and not (args.json.parent.is_dir() and not args.json.is_dir()):
        parser.error(f"--json {args.json}: cannot be written, name a file in a folder that exists")
    try:
        for root in args.roots:
            _read_groups(Path(os.path.abspath(root)), args.kind)  # before hours of reading another one
        reports = []
        for root in args.roots:
            reports.append(check_dataset(root, args.kind, args.threshold_m, args.workers))
            print(format_report(reports[-1]).encode(errors="backslashreplace").decode(), end="\n\n")
        if args.json:
            args.json.write_text(json.dumps({"reports": [r.to_dict() for r in reports]}, indent=2) + "\n")
    except (ValueError, OSError) as error:
        print(f"datasets.check: error: {error}", file=sys.stderr)
        return 2
    return int(any(report.problems for report in reports))


if __name__ == "__main__":
    sys.exit(main())
