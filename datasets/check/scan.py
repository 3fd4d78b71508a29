"""What is in an image file and in its label."""

import os
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.naming import CLASS_NAMES, IGNORED, label_folder
from datasets.reading.transforms import read_image, read_label_of, size_of

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


def scan_file(job: tuple[str, bool]) -> Scanned:
    """Read an image, and its label as training does: (path, whether it must have one)."""
    path, needs_label = job
    try:
        size, faults = size_of(read_image(path)), []
    except (ValueError, OSError) as error:
        size, faults = None, [("unreadable images", str(error))]
    if not (needs_label or label_folder(os.path.dirname(path))):
        return Scanned(size, None, faults)
    try:
        label = read_label_of(path, size)
    except FileNotFoundError as error:
        return Scanned(size, None, [*faults, ("missing labels", str(error))])
    except (ValueError, OSError) as error:
        return Scanned(size, None, [*faults, ("odd labels", str(error))])
    return Scanned(size, np.array(Image.fromarray(label.numpy()).histogram())[COUNTED], faults)
