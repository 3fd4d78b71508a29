"""Read a data set once, and report what would make training or evaluation fail."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from datasets.check.groups import Findings, Group, judge_group, read_groups
from datasets.check.report import Report, first_few
from datasets.check.scan import scan_file
from datasets.jobs import run_jobs, with_progress
from datasets.naming import CLASS_NAMES, count_suffixes, list_folder, parse_position

REMEDIES = {
    "unreadable images": "fetch them again, or move them away",
    "missing labels": "fetch them, or move the images away",
    "odd labels": "training refuses them",
    "names without position": "rename the files, or move them away",
}


def check_dataset(
    root: Path, kind: str = "auto", threshold_m: float | None = None, workers: int | None = None, progress: bool = True
) -> Report:
    """Read every image and label below a root once, and say what would make training or evaluation fail.

    Pairs of kind `iddav2` must do for training (labels, one size, positives and negatives for every query), and so must those
    of a folder `train`, without labels; other pairs for evaluation; of a plain set without labels, such as a target domain,
    every image must be readable.

    Parameters
    ----------
    kind : `iddav2`, `utm`, or `auto`, which looks at the folders of each pair.
    threshold_m : replaces the kind's thresholds, of training and of evaluation, in metres.
    workers : number of threads, by default one per core.

    FileNotFoundError or ValueError if the root is missing or holds no image.
    """
    base = Path(os.path.abspath(root))
    layout, groups, rest, problems = read_groups(base, kind)
    paths = sorted({*rest, *(path for group in groups for path in group.paths)})
    with_labels = [group for group in groups if group.trains and group.gallery and group.kind.name == "iddav2"]
    need_label = {path for group in with_labels for path in group.paths}
    # threads: decoding does not hold Python's lock
    scanning = run_jobs(scan_file, [(path, path in need_label) for path in paths], workers, processes=False)
    scanned = dict(zip(paths, with_progress(scanning, [1] * len(paths), f"reading {base.name}", quiet=not progress)))

    found = Findings(problems, [])
    faults = _file_faults([fault for file in scanned.values() for fault in file.faults], groups, problems)
    size_of = {path: file.size for path, file in scanned.items() if file.size}
    if unread := list_folder(base).unread:
        found.notes.append(f"files not read: {count_suffixes(unread)}")
    pairs = [judge_group(group, size_of, threshold_m, found) for group in groups]
    if rest:
        found.notes.append(
            f"{len(rest)} of {len(paths)} images are in no pair of gallery and queries: {first_few(rest)}"
        )
    folders: dict[str, dict[str, int]] = {}
    for path, file in scanned.items():
        folder = folders.setdefault(os.path.relpath(os.path.dirname(path), base), {"images": 0, "labels": 0})
        folder["images"] += 1
        folder["labels"] += file.pixels is not None
    totals = sum((file.pixels for file in scanned.values() if file.pixels is not None), np.zeros(18, np.int64))
    pixels = dict(zip((*CLASS_NAMES, "ignored"), totals.tolist()))
    kinds = ", ".join(dict.fromkeys(f"{group.kind.name} ({group.reason})" for group in groups)) or "none"
    sizes = {f"{w}x{h}": images for (w, h), images in Counter(size_of.values()).most_common()}
    return Report(
        str(root), layout, kinds, folders, sizes, faults, pixels, (*filter(None, pairs),), found.notes, problems
    )


def _file_faults(found: list[tuple[str, str]], groups: list[Group], problems: list[str]) -> dict[str, list[str]]:
    """Faults of single files, each file once; adds the problems that they are."""
    faults: dict[str, list[str]] = {}
    for what, message in found:
        faults.setdefault(what, []).append(message)
    for path in dict.fromkeys(path for group in groups if group.gallery or group.trains for path in group.paths):
        try:
            parse_position(path)
        except ValueError as error:
            faults.setdefault("names without position", []).append(str(error))
    for what, remedy in REMEDIES.items():
        if what in faults:
            problems.append(f"{what}: {len(faults[what])} ({remedy}): {first_few(faults[what])}")
    return faults
