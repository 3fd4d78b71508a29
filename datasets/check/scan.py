"""Read every image and label of a data set once, in parallel."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datasets.naming import label_folder, label_path
from datasets.reading.transforms import read_image, read_label

CHUNK = 16
"""Images that a worker reads between two reports."""


class Scan(NamedTuple):
    """What is in n images' files.

    sizes : (n, 2) int32, width and height in pixels, 0 where unreadable.
    labelled : (n,) bool, whether the image has a sound label.
    pixels : (256,) int64, pixels per class over the sound labels.
    faults : what is wrong, and the message.
    """

    sizes: np.ndarray
    labelled: np.ndarray
    pixels: np.ndarray
    faults: list[tuple[str, str]]

    @classmethod
    def empty(cls, n: int) -> "Scan":
        return cls(np.zeros((n, 2), np.int32), np.zeros(n, bool), np.zeros(256, np.int64), [])


def _scan_chunk(chunk: Sequence[tuple[str, bool]]) -> Scan:
    """Read images and their labels as training does; each image comes with whether it must have a label."""
    scan = Scan.empty(len(chunk))
    for i, (path, needs_label) in enumerate(chunk):
        image, message = _attempt(read_image, path)
        if image is None:
            scan.faults.append(("unreadable images", message))
        else:
            scan.sizes[i] = image.shape[2], image.shape[1]
        if not (needs_label or label_folder(os.path.dirname(path))):
            continue
        try:
            label_file = label_path(path)
        except FileNotFoundError as error:
            scan.faults.append(("missing labels", str(error)))
            continue
        label, message = _attempt(read_label, label_file)
        if label is not None and image is not None and label.shape != image.shape[1:]:
            (h, w), (height, width) = label.shape, image.shape[1:]
            label, message = None, f"{label_file}: {w}x{h} px, but its image is {width}x{height} px"
        if label is None:
            scan.faults.append(("odd labels", message))
        else:
            scan.labelled[i] = True
            scan.pixels[:] += Image.fromarray(label.numpy()).histogram()
    return scan


def _attempt(read: Callable[[str], Tensor], path: str) -> tuple[Tensor | None, str]:
    """What `read` gives, or None and its message."""
    try:
        return read(path), ""
    except (ValueError, OSError) as error:
        return None, str(error)
    except Exception as error:  # decoders raise what they like at damaged files, and one file must not end the scan
        return None, f"{path}: {type(error).__name__} while decoding ({error})"


def scan_files(items: list[tuple[str, bool]], workers: int, progress: bool, name: str) -> Scan:
    """`_scan_chunk` over all images, in parallel; the result does not depend on the number of workers."""
    scan, done = Scan.empty(len(items)), 0
    quiet = {} if sys.stderr.isatty() else {"mininterval": 30, "delay": 30}
    with tqdm(total=len(items), desc=name, unit="img", leave=False, disable=not progress, **quiet) as bar:
        for part in _scan_chunks([items[i : i + CHUNK] for i in range(0, len(items), CHUNK)], workers):
            rows = slice(done, done + len(part.sizes))
            scan.sizes[rows], scan.labelled[rows] = part.sizes, part.labelled
            scan.pixels[:] += part.pixels
            scan.faults.extend(part.faults)
            done = rows.stop
            bar.update(len(part.sizes))
    return scan


def _scan_chunks(chunks: list[list[tuple[str, bool]]], workers: int) -> Iterator[Scan]:
    if min(workers, len(chunks)) <= 1:
        yield from map(_scan_chunk, chunks)
        return
    pool = ProcessPoolExecutor(min(workers, len(chunks)))
    try:
        yield from pool.map(_scan_chunk, chunks)
    except BrokenProcessPool as error:
        raise OSError("a process that reads images was ended from outside (memory?): give fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)
