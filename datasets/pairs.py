"""Doubts about a gallery and its queries: queries without an answer, queries that are in the gallery, missing cameras."""

import os
from collections.abc import Iterable, Sequence

import numpy as np

from datasets.naming import Kind, camera_of, parse_position
from datasets.places import ImageSet, neighbours_within


def placed_images(paths: Iterable[str]) -> ImageSet:
    """The images whose names state a position."""
    positions = {}
    for path in paths:
        try:
            positions[path] = parse_position(path)
        except ValueError:
            continue
    cameras = np.array([camera_of(path) for path in positions], str)
    return ImageSet("", tuple(positions), np.array([*positions.values()], np.float64).reshape(-1, 2), cameras)


def shared_files(gallery: Sequence[str], queries: Sequence[str]) -> list[str]:
    """The queries that are also files of the gallery, through symbolic or hard links too."""
    known = set(map(_identity, gallery))
    return [query for query in queries if _identity(query) in known]


def _identity(path: str) -> tuple:
    try:
        status = os.stat(path)
    except OSError:  # a link that leads nowhere is a fault of its own
        return (os.path.realpath(path),)
    # some file systems do not number their files
    return (status.st_dev, status.st_ino) if status.st_ino else (os.path.realpath(path),)


def shared_text(shared: Sequence[str], queries: int) -> str:
    """What is wrong with queries that are in the gallery."""
    return (
        f"{len(shared)} of {queries} queries are in the gallery too, so each finds itself (first: {shared[0]}); "
        "name other folders, or remove them from one side"
    )


def without_positive(gallery: ImageSet, queries: ImageSet, radius_m: float, same_camera: bool) -> np.ndarray:
    """Indexes of the queries that have no gallery image of their place."""
    return np.flatnonzero(neighbours_within(gallery, queries, radius_m, same_camera).counts == 0)


def without_positive_text(lacking: int, queries: int, radius_m: float, same_camera: bool) -> str:
    """What is wrong with queries that have no gallery image of their place."""
    camera = " of the same camera" if same_camera else ""
    remedy = "are these the same streets, in the same metres?" if lacking == queries else "they count as misses"
    return f"{lacking} of {queries} queries have no gallery image{camera} within {radius_m:g} m ({remedy})"


def camera_text(gallery: ImageSet, queries: ImageSet) -> str:
    """What is wrong with queries from cameras that the gallery lacks; "" if it has all cameras."""
    lacking = ~np.isin(queries.cameras, np.unique(gallery.cameras))
    if not lacking.any():
        return ""
    return (
        f"{int(lacking.sum())} of {len(queries)} queries come from folders of cameras that the gallery lacks (queries: "
        f"{_cameras(queries)}; gallery: {_cameras(gallery)}), and only the same camera counts"
    )


def _cameras(images: ImageSet) -> str:
    return ", ".join(name or "no camera folder" for name in np.unique(images.cameras).tolist())


def kind_text(kind: Kind, metres: Sequence[float], scale: float) -> str:
    """What follows from the kind of a data set."""
    camera = "the same camera" if kind.same_camera else "any camera"
    distance = " or ".join(f"{m:g}" for m in metres)
    return f"same place is within {distance} m, {camera}; images scaled by {scale:g}"
