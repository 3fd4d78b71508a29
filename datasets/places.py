"""Images with positions, and which of them show the same place."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from datasets.naming import camera_of, fingerprint, list_folder, parse_position
from datasets.positions.report import PositionReport, lonely, odd_names


@dataclass(frozen=True, repr=False)
class ImageSet:
    """Images of one gallery or of one set of queries.

    Attributes
    ----------
    folder : the folders it was read from, as given, joined by `+`.
    paths : N file paths, sorted within each folder.
    positions : (N, 2) float64, UTM east and north in metres.
    cameras : (N,) names of the camera folders the files lie in, "" for other folders.
    origin : the first of the folders, by default `folder`.
    report : sources of the positions, and the files left out.
    """

    folder: str
    paths: tuple[str, ...]
    positions: np.ndarray
    cameras: np.ndarray
    origin: str = ""
    report: PositionReport | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"{self.folder}: {len(self)} images"

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the file list relative to `origin`."""
        return fingerprint(self.origin or self.folder, self.paths)

    def without(self, rejected: Container[str]) -> "ImageSet":
        """The set without some files; ValueError if no image is left."""
        keep = [i for i, path in enumerate(self.paths) if path not in rejected]
        if not keep:
            raise ValueError(f"{self.folder}: none of its {len(self)} images can be used; replace them")
        paths = tuple(self.paths[i] for i in keep)
        return replace(self, paths=paths, positions=self.positions[keep], cameras=self.cameras[keep])


def load_image_set(folders: Sequence[str | Path], reject: Callable[[str, str], None] | None = None) -> ImageSet:
    """List images and read their positions from their names.

    Parameters
    ----------
    reject : called with each file whose name has no position, and why; the file is left out. By default it is an error.

    Raises
    ------
    ValueError, OSError : a folder or a name is odd; it is named.
    """
    listed = {str(folder): list_folder(folder) for folder in folders}
    paths, positions, unread, total = [], [], [], 0
    for folder, found in listed.items():
        for path in found.images:
            try:
                positions.append(parse_position(path))
                paths.append(path)
            except ValueError as error:
                if reject is None:
                    raise
                reject(path, str(error))
        if not paths:
            count = len(found.images)
            raise ValueError(f"{folder}: none of its {count} images is named @UTM_east@UTM_north@...; rename them")
        unread += found.unread
        total += len(found.images)
    shown, places = "+".join(listed), np.array(positions, np.float64)
    report = PositionReport(
        shown,
        names=len(paths),
        without=total - len(paths),
        unread=tuple(unread),
        warnings=(*odd_names(shown, places), *lonely(paths, places)),
    )
    cameras = np.array([camera_of(path) for path in paths])
    return ImageSet(shown, tuple(paths), places, cameras, next(iter(listed)), report)


@dataclass(frozen=True)
class Neighbours:
    """For each of Q queries a list of gallery indexes, stored end to end (memory grows with the pairs, not with Q x G).

    Attributes
    ----------
    offsets : (Q + 1,) int64; the list of query i is `indexes[offsets[i]:offsets[i + 1]]`, ascending.
    indexes : (pairs,) int32.
    """

    offsets: np.ndarray
    indexes: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, query: int) -> np.ndarray:
        return self.indexes[self.offsets[query] : self.offsets[query + 1]]

    @property
    def counts(self) -> np.ndarray:
        """(Q,) number of neighbours of each query."""
        return np.diff(self.offsets)

    def of(self, queries: np.ndarray) -> "Neighbours":
        """The lists of some queries (T,), in that order."""
        offsets = np.concatenate([[0], np.cumsum(self.counts[queries])])
        shift = np.repeat(self.offsets[queries] - offsets[:-1], np.diff(offsets))
        return Neighbours(offsets, self.indexes[np.arange(offsets[-1]) + shift])

    def within(self, images: np.ndarray) -> "Neighbours":
        """What of the lists is among `images` (P,), ascending, as places 0 ... P - 1 in it."""
        places = np.searchsorted(images, self.indexes)
        inside = images[np.minimum(places, len(images) - 1)] == self.indexes
        kept_before = np.concatenate([[0], np.cumsum(inside)])
        return Neighbours(kept_before[self.offsets], places[inside].astype(np.int32))


def neighbours_within(
    gallery: ImageSet, queries: ImageSet, radius_m: float, same_camera: bool = False, block: int = 4096
) -> Neighbours:
    """Gallery images at most `radius_m` metres from each query, on request of the same camera only, by a k-d tree.

    Memory: 4 bytes per pair in the result, and about 60 per pair of one `block` of queries on the way.
    """
    counts = np.zeros(len(queries), np.int64)
    pieces: list[tuple[np.ndarray, np.ndarray]] = []
    for camera in np.unique(queries.cameras) if same_camera else [None]:
        in_gallery = np.arange(len(gallery)) if camera is None else np.flatnonzero(gallery.cameras == camera)
        of_query = np.arange(len(queries)) if camera is None else np.flatnonzero(queries.cameras == camera)
        if not len(in_gallery):
            continue
        tree = KDTree(gallery.positions[in_gallery])
        for start in range(0, len(of_query), block):
            rows = of_query[start : start + block]
            near = KDTree(queries.positions[rows]).sparse_distance_matrix(tree, radius_m, output_type="ndarray")
            counts[rows] = np.bincount(near["i"], minlength=len(rows))
            pairs = near["i"] * len(gallery) + in_gallery[near["j"]]
            pairs.sort()  # by query, then by image
            pieces.append((rows, (pairs % len(gallery)).astype(np.int32)))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    indexes = np.empty(offsets[-1], np.int32)
    while pieces:  # frees each once it is copied, so that the pairs are not held twice
        rows, flat = pieces.pop()
        # destination of every pair: its query's offset plus its place within the query's list
        starts = np.cumsum(counts[rows]) - counts[rows]
        indexes[np.arange(len(flat)) + np.repeat(offsets[rows] - starts, counts[rows])] = flat
    return Neighbours(offsets, indexes)


def correct_matches(
    gallery: ImageSet, queries: ImageSet, retrieved: np.ndarray, radius_m: float, same_camera: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Whether retrieved images show their query's place.

    Parameters
    ----------
    retrieved : (Q, K) gallery indexes, best first; -1 for none.

    Returns
    -------
    correct (Q, K) bool, and distance_m (Q, K) float64, NaN for -1.
    """
    distance = np.linalg.norm(gallery.positions[retrieved] - queries.positions[:, None], axis=-1)
    distance[retrieved < 0] = np.nan
    with np.errstate(invalid="ignore"):
        correct = distance <= radius_m
    if same_camera:
        correct &= gallery.cameras[retrieved] == queries.cameras[:, None]
    return correct, distance
