"""Read every image and label of a data set once, in parallel."""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from datasets.jobs import run_jobs, with_progress
from datasets.naming import CLASS_NAMES, IGNORED, label_folder, label_path
from datasets.reading.transforms import read_image, read_label

COUNTED = [*range(len(CLASS_NAMES)), IGNORED]


class Scanned(NamedTuple):
    """What is in the files of an image.

    size : width and height in pixels, None if it cannot be read.
    pixels : (18,) int64, pixels per class and then ignored ones; None without a sound label.
    faults : what is wrong, and the message.
    """

    size: tuple[int, int] | None
    pixels: np.ndarray | None
    faults: list[tuple[str, str]]


def scan_files(paths: list[str], need_label: set[str], workers: int, progress: bool, name: str) -> list[Scanned]:
    """Read images, and their labels as training does, by threads: decoding does not hold Python's lock."""
    results = run_jobs(_scan_file, [(path, path in need_label) for path in paths], workers, processes=False)
    return with_progress(results, [1] * len(paths), name, quiet=not progress)


def _scan_file(job: tuple[str, bool]) -> Scanned:
    path, needs_label = job
    image, message = _attempt(read_image, path)
    faults = [] if image is not None else [("unreadable images", message)]
    size = (image.shape[2], image.shape[1]) if image is not None else None
    if not (needs_label or label_folder(os.path.dirname(path))):
        return Scanned(size, None, faults)
    try:
        label_file = label_path(path)
    except FileNotFoundError as error:
        return Scanned(size, None, [*faults, ("missing labels", str(error))])
    label, message = _attempt(read_label, label_file)
    if label is not None and size not in (None, (label.shape[1], label.shape[0])):
        message = f"{label_file}: {label.shape[1]}x{label.shape[0]} px, but its image is {size[0]}x{size[1]} px"
        label = None
    if label is None:
        return Scanned(size, None, [*faults, ("odd labels", message)])
    return Scanned(size, np.array(Image.fromarray(label.numpy()).histogram())[COUNTED], faults)


def _attempt(read: Callable[[str], Tensor], path: str) -> tuple[Tensor | None, str]:
    """What `read` gives, or None and its message."""
    try:
        return read(path), ""
    except (ValueError, OSError) as error:
        return None, str(error)
    except Exception as error:  # decoders may raise anything at damaged files, and one file must not end the scan
        return None, f"{path}: {type(error).__name__} while decoding ({error})"
