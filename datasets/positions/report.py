"""Sources of the positions of a folder: one line of summary, and warnings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from datasets.naming import count_suffixes

LONELY_M = 100_000.0


@dataclass(frozen=True)
class PositionReport:
    """Sources of the positions of a folder's images, and what was left out.

    Attributes
    ----------
    folder : or folders, as given.
    names, csv, exif : images whose position comes from there.
    without : images that have none.
    csv_file : the CSV file, "" for none.
    unmatched : its rows that match no image.
    overruled : its rows that are not used because the image's name states the position.
    unread : files that are not read because of their suffix.
    zone : the UTM zone of the positions and why, "" if all are given in metres.
    warnings : likely mistakes, a sentence each.
    """

    folder: str
    names: int = 0
    csv: int = 0
    exif: int = 0
    without: int = 0
    csv_file: str = ""
    unmatched: tuple[str, ...] = ()
    overruled: int = 0
    unread: tuple[str, ...] = ()
    zone: str = ""
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """The report in one line, without the warnings."""
        file = os.path.basename(self.csv_file)
        total = self.names + self.csv + self.exif + self.without
        sources = (
            (self.names, "from names"),
            (self.csv, f"from {file}"),
            (self.exif, "from EXIF"),
            (self.without, "none"),
        )
        parts = [
            f"positions of {counted(total, 'image')} in {self.folder}: "
            + ", ".join(f"{n} {what}" for n, what in sources if n),
        ]
        if self.unmatched:
            parts.append(f"{counted(len(self.unmatched), 'row')} of {file} without an image, first {self.unmatched[0]}")
        if self.overruled:
            parts.append(f"{counted(self.overruled, 'row')} of {file} not used, since names state the position")
        if self.unread:
            parts.append(f"not read: {count_suffixes(self.unread)}")
        if self.zone:
            parts.append(f"UTM zone {self.zone}")
        # names of files may hold anything, and this is one line
        return " ".join("; ".join(parts).encode(errors="backslashreplace").decode().split())


def counted(number: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number} {what}{'s' if number != 1 else ''}"


def first_of(paths: Sequence[str]) -> str:
    """The first of some files, and how many more there are."""
    return paths[0] + (f" and {counted(len(paths) - 1, 'other')}" if len(paths) > 1 else "")


def odd_names(folder: str, positions: np.ndarray) -> list[str]:
    """A warning if the names of a whole set, with positions (N, 2), seem to state degrees."""
    if not look_like_degrees(positions):
        return []
    return [
        f"{folder}: the names of all {len(positions)} images seem to state latitude and longitude in degrees, but they are "
        "taken as east and north in metres, so that every image may count as the same place; give them other names, and "
        "their positions to python3 -m datasets.convert in a CSV file"
    ]


def lonely(paths: Sequence[str], positions: np.ndarray) -> list[str]:
    """A warning that names images over 100 km away from all others, if these are less than half."""
    if len(paths) < 3:
        return []
    distances = KDTree(positions).query(positions, 2)[0][:, 1]
    odd = np.flatnonzero(distances > LONELY_M)
    if not 0 < 2 * len(odd) < len(paths):
        return []
    named, km = first_of([paths[index] for index in odd]), distances[odd[0]] / 1000
    return [f"{named}: {km:.0f} km from the nearest other image; is this position right?"]


def look_like_degrees(positions: np.ndarray) -> bool:
    """Whether the positions (N, 2) of a whole set seem to be latitudes and longitudes, not metres.

    All lie on the globe, and within a single metre or with more decimals than millimetres need. Frame numbers (whole
    numbers) and places along one axis (east 0) are no degrees.
    """
    if not len(positions) or (positions == 0).all(axis=0).any() or (positions % 1 == 0).all():
        return False
    largest = np.abs(positions).max(axis=0)
    if not ((largest <= (90, 180)).all() or (largest <= (180, 90)).all()):
        return False
    finer_than_mm = np.abs(positions - positions.round(3)) > 1e-9
    return bool(0 < np.ptp(positions, axis=0).max() < 1 or finer_than_mm.any(axis=1).mean() > 0.5)
