"""File names, folder layouts and the class table of IDDAv2 and RobotCar (protocol, section 2)."""

import colorsys
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""What every Pillow reads."""
OTHER_PHOTOS = (
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
    ".gif",
    ".dng",
    ".raw",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".orf",
    ".rw2",
)
"""Photos of formats that are not read."""
NO_DATA = (
    "@eadir", "__macosx", "$recycle.bin", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "lost+found",
    "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini",
)  # fmt: skip
"""Files and folders of operating systems, in lower case. Names that begin with a dot are no data either."""
CAMERAS = ("front", "rear", "left", "right")
CONDITIONS = ("overcast", "rain", "snow", "sun", "night")
"""Folders of RobotCar; the first is the gallery."""
IGNORED = 255

CLASS_NAMES = (
    "Road",
    "Sidewalk",
    "Building",
    "Wall",
    "Fence",
    "Pole",
    "TLight",
    "TSign",
    "Vegetation",
    "Terrain",
    "Sky",
    "Person",
    "Rider",
    "Vehicle",
    "Truck",
    "Motorcycle",
    "Bicycle",
)
CLASS_COLOURS = (
    *((128, 64, 128), (244, 35, 232), (90, 90, 90), (102, 102, 156), (210, 150, 130), (190, 190, 190)),
    *((250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60)),
    *((255, 0, 0), (0, 0, 142), (0, 60, 100), (0, 0, 230), (119, 11, 32)),
)
"""RGB 0..255 of each class: the colours in which street scenes are usually shown, some moved apart."""
RAW_IDS = 27
_CLASS_OF_RAW = {
    1: 2, 2: 4, 4: 11, 5: 5, 6: 0, 7: 0, 8: 1, 9: 8, 10: 13, 11: 3,
    12: 7, 13: 6, 16: 16, 17: 15, 18: 12, 19: 9, 20: 10, 26: 14,
}  # fmt: skip
RAW_TO_CLASS = np.full(256, IGNORED, np.uint8)
"""Raw id (red channel of a label) -> training class 0..16, or 255 (ignored)."""
RAW_TO_CLASS[list(_CLASS_OF_RAW)] = list(_CLASS_OF_RAW.values())


def class_names(num_classes: int) -> list[str]:
    """A name per class: `CLASS_NAMES` for the 17 classes, else numbers."""
    return list(CLASS_NAMES) if num_classes == len(CLASS_NAMES) else [f"class {i}" for i in range(num_classes)]


def class_colours(num_classes: int) -> np.ndarray:
    """A colour per class, uint8 (classes, 3): `CLASS_COLOURS` for the 17 classes, else hues far from each other."""
    if num_classes == len(CLASS_NAMES):
        return np.array(CLASS_COLOURS, np.uint8)
    golden = 0.618034  # its multiples, modulo 1, stay apart
    hues = [colorsys.hsv_to_rgb(i * golden % 1, 0.75, 0.95 - 0.35 * (i % 2)) for i in range(num_classes)]
    return (255 * np.array(hues)).round().astype(np.uint8)


@dataclass(frozen=True)
class Kind:
    """What a data set's layout implies.

    Attributes
    ----------
    train_threshold_m, eval_threshold_m : two images within this distance show the same place, in metres.
    same_camera : whether they must come from the same camera folder as well.
    eval_scale : factor by which images are resized for evaluation and mining.
    """

    name: str
    train_threshold_m: float
    eval_threshold_m: float
    same_camera: bool
    eval_scale: float


NEGATIVE_DISTANCE_M = 25.0
"""Images farther apart show different places: negatives of training lie beyond, answers of `utm` count up to it."""
KINDS = {
    "iddav2": Kind("iddav2", 3.0, 5.0, True, 0.5),
    "utm": Kind("utm", 10.0, NEGATIVE_DISTANCE_M, False, 1.0),
}
"""`iddav2` has camera and label folders; `utm` is RobotCar and any other folder of `@UTM` images."""


def parse_position(path: str | Path) -> tuple[float, float]:
    """UTM east and north in metres from a name such as ``@277456.815@110790.196@...@.jpg``.

    Only the base name counts. ValueError, naming the file and what is odd, if there is no position in it.
    """
    numbers = numbers_in_name(path)
    if numbers is None:
        odd = "it does not begin with two numbers"
    elif not all(map(math.isfinite, numbers)):
        odd = f"{numbers[0]} and {numbers[1]} are not both finite"
    elif beyond_utm(*numbers):
        odd = f"an east of {numbers[0]:.0f} m lies outside UTM: east and north seem to be swapped"
    else:
        return numbers
    raise ValueError(
        f"{path!s}: the name must begin @UTM_east@UTM_north@ (metres); {odd}; rename the file or move it away"
    )


def numbers_in_name(path: str | Path) -> tuple[float, float] | None:
    """The two numbers of a name that begins `@number@number@`; None for other names."""
    fields = os.path.basename(path).split("@")
    if len(fields) < 4 or fields[0] != "":
        return None
    try:
        return float(fields[1]), float(fields[2])
    except ValueError:
        return None


def beyond_utm(east: float, north: float) -> bool:
    """Whether an east is too large for UTM and the north is not: they are likely swapped."""
    return east >= 1_000_000 > north >= 0


def camera_of(path: str | Path) -> str:
    """The camera whose folder holds the image: front, rear, left or right; empty for any other folder."""
    folder = os.path.basename(os.path.dirname(path))
    return folder if folder in CAMERAS else ""


def is_no_data(name: str) -> bool:
    """Whether a file or folder of this name is hidden or belongs to a system: `.ipynb_checkpoints`, `@eaDir`."""
    return name.startswith(".") or name.lower() in NO_DATA


class Listing(NamedTuple):
    """Files below a folder: images that are read, and files of other suffixes, which are not; both sorted."""

    images: list[str]
    unread: list[str]


def list_folder(folder: str | Path) -> Listing:
    """All files below `folder`, without hidden ones and those of systems; links are followed, each folder once.

    FileNotFoundError or ValueError if the folder is missing or holds no image.
    """
    folder = str(folder)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder}: no such folder; name another")
    found, visited = [], set()
    for directory, subfolders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(directory)
        if real in visited:
            subfolders.clear()  # a link back to a folder seen before
            continue
        visited.add(real)
        # sorted: of two links to one folder, always the same wins
        subfolders[:] = sorted(name for name in subfolders if not is_no_data(name))
        found += [os.path.join(directory, name) for name in files if not is_no_data(name)]
    images = sorted(path for path in found if path.lower().endswith(IMAGE_SUFFIXES))
    unread = sorted(set(found) - set(images))
    if not images:
        others = f"; not read: {count_suffixes(unread)}" if unread else ""
        raise ValueError(
            f"{folder}: no image in it ({', '.join(IMAGE_SUFFIXES)}, any case){others}; fill it, or name another"
        )
    return Listing(images, unread)


def list_images(folder: str | Path) -> list[str]:
    """The images of `list_folder`."""
    return list_folder(folder).images


def count_suffixes(paths: Iterable[str | Path]) -> str:
    """Files by suffix, in words, most frequent first: `3 .heic (convert photos to JPEG), 1 .txt`; "" for none."""
    counts = Counter(os.path.splitext(path)[1].lower() or "without suffix" for path in paths)
    words = []
    for suffix, count in sorted(counts.items(), key=lambda item: (item[0] not in OTHER_PHOTOS, -item[1], item[0])):
        words.append(f"{count} {suffix}" + (" (convert these photos to JPEG)" if suffix in OTHER_PHOTOS else ""))
    return ", ".join(words)


def fingerprint(folder: str | Path, paths: Iterable[str]) -> str:
    """A digest of the files' paths relative to their folder. It does not change when the folder moves."""
    names = (os.path.relpath(path, folder).encode(errors="surrogateescape") for path in paths)
    return hashlib.sha256(b"\0".join(names)).hexdigest()[:16]


def label_folder(image_folder: str) -> str | None:
    """Folder of the labels that belong to the images of a folder, or None.

    The last path component named `gallery` or `queries*` is replaced: `gallery` by `gallery_labels`; `queries_rain` by
    `queries_labels_rain`, else `queries_labels`, else the first `queries_labels*` that has the folder.
    """
    parts = Path(image_folder).parts
    for i in reversed(range(len(parts))):
        part, rest = parts[i], parts[i + 1 :]
        if (part != "gallery" and not part.startswith("queries")) or part.startswith("queries_labels"):
            continue
        parent = Path(*parts[:i])
        if part == "gallery":
            names = ["gallery_labels"]
        else:
            names = ["queries_labels" + part.removeprefix("queries"), "queries_labels"]
            names += sorted(entry.name for entry in parent.glob("queries_labels*"))
        for name in names:
            candidate = parent.joinpath(name, *rest)
            if candidate.is_dir():
                return str(candidate)
    return None


def label_path(image: str) -> str:
    """Path of an image's label: same base name, `.png`. FileNotFoundError if it is missing."""
    folder = label_folder(os.path.dirname(image))
    if folder is None:
        raise FileNotFoundError(
            f"{image}: no label folder beside it (gallery_labels, queries_labels*); add it, or leave the image out"
        )
    label = os.path.join(folder, os.path.splitext(os.path.basename(image))[0] + ".png")
    if not os.path.isfile(label):
        raise FileNotFoundError(f"{label}: label missing for {image}; add it, or leave the image out")
    return label


def detect_kind(paths: list[str]) -> tuple[Kind, str]:
    """Kind of a data set by its layout, and in words why."""
    folders = {os.path.dirname(path) for path in paths}
    cameras = {camera_of(path) for path in paths}
    if paths and cameras <= set(CAMERAS):
        return KINDS["iddav2"], "camera folders " + ", ".join(sorted(cameras))
    if paths and all(label_folder(folder) for folder in folders):
        return KINDS["iddav2"], "label folders beside the images"
    return KINDS["utm"], "neither camera nor label folders"
