"""Positions of images: from `@UTM` names, a CSV file, or the GPS data that cameras write (EXIF)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from datasets.jobs import run_jobs, with_progress
from datasets.naming import camera_of, list_folder, numbers_in_name, parse_position
from datasets.places import ImageSet
from datasets.positions.exif import FASTEST_M_PER_S, Exif, contradicted, read_exif
from datasets.positions.report import PositionReport, counted, first_of, lonely, odd_names
from datasets.positions.table import CsvPositions, csv_positions, normal_path
from datasets.positions.zones import Zone, check_zone, common_zone

# images of one place whose positions are given in metres and in degrees should lie as near as the first, and are wrong
# beyond the second
_NEAR_M, _APART_M = 5_000.0, 100_000.0


class Located(NamedTuple):
    """Positions of N images.

    Attributes
    ----------
    positions : (N, 2) float64, east and north in metres, NaN for images without one.
    zone : their UTM zone, None if all positions were given in metres and the caller named no zone.
    report : sources of the positions.
    faults : why the EXIF position of an image is not used, by path.
    """

    positions: np.ndarray
    zone: Zone | None
    report: PositionReport
    faults: dict[str, str]


def name_position(path: str | Path) -> tuple[float, float] | None:
    """UTM east and north from an `@UTM` name, or None if the name is of another kind.

    ValueError if it states numbers that cannot be a position.
    """
    return parse_position(path) if numbers_in_name(path) else None


def locate(
    paths: Sequence[str | Path],
    csv_file: str | Path | None = None,
    folder: str | Path | None = None,
    zone: Zone | None = None,
    allow_missing_rows: bool = False,
    unread: Sequence[str] = (),
) -> Located:
    """Positions of images, each from its name, else from the CSV file, else from its EXIF data.

    Parameters
    ----------
    folder : of the images. A path in the CSV file is relative to the folder of that file or to this one.
    zone : UTM zone for latitudes and longitudes; by default that of most of them. All images get one zone, so that
        distances are right across its border.
    allow_missing_rows : whether the CSV file may have rows that match no image.
    unread : files of the folder that are no images, for the report.

    ValueError, naming the file: positions that contradict each other or the zone.
    """
    paths = [str(path) for path in paths]
    found = _read_sources(paths, csv_file, folder, zone, allow_missing_rows, unread)
    metres, degrees = dict(found.named), {i: photo.place for i, photo in found.photos.items() if photo.place}
    (degrees if found.table and found.table.geographic else metres).update(found.listed)
    positions, zone, why, warnings = _place(paths, metres, degrees, zone)
    placed = np.flatnonzero(~np.isnan(positions).any(axis=1))
    shown = str(folder) if folder is not None else "the list"
    csv_path = str(found.table.file) if found.table else ""
    report = PositionReport(
        shown,
        names=len(found.named),
        csv=len(found.listed),
        exif=len(placed) - len(found.named) - len(found.listed),
        without=len(paths) - len(placed),
        csv_file=csv_path,
        unmatched=tuple(found.unmatched),
        overruled=found.overruled,
        unread=tuple(file for file in unread if os.path.realpath(file) != os.path.realpath(csv_path)),
        zone=f"{zone} ({why})" if zone else "",
        warnings=(
            *odd_names(shown, positions[list(found.named)]),
            *warnings,
            *lonely([paths[index] for index in placed], positions[placed]),
            *_about_exif(paths, positions, found.photos),
        ),
    )
    return Located(positions, zone, report, {paths[i]: photo.fault for i, photo in found.photos.items() if photo.fault})


class _Sources(NamedTuple):
    """What states the position of each image, by its index: its name, a row of the CSV file, or else its EXIF data."""

    table: CsvPositions | None
    named: dict[int, tuple[float, float]]
    listed: dict[int, tuple[float, float]]
    photos: dict[int, Exif]
    unmatched: list[str]
    overruled: int


def _read_sources(
    paths: Sequence[str],
    csv_file: str | Path | None,
    folder: str | Path | None,
    zone: Zone | None,
    allow_missing_rows: bool,
    unread: Sequence[str],
) -> _Sources:
    table = csv_positions(csv_file) if csv_file is not None else None
    rows, unmatched = table.match(paths, folder) if table else ({}, [])
    if table and paths and unmatched and not allow_missing_rows:
        raise ValueError(_about_unmatched(table, unmatched, paths, unread))
    if table and zone:
        table.check_zone(zone)
    named = {index: pair for index, path in enumerate(paths) if (pair := name_position(path)) is not None}
    listed = {index: table.rows[row] for index, row in rows.items() if index not in named}
    others = [index for index in range(len(paths)) if index not in named and index not in listed]
    reading = run_jobs(read_exif, [paths[index] for index in others], 8, processes=False)
    photos = dict(zip(others, with_progress(reading, [1] * len(others), "EXIF")))
    return _Sources(table, named, listed, photos, unmatched, len(rows) - len(listed))


def _place(
    paths: Sequence[str],
    metres: dict[int, tuple[float, float]],
    degrees: dict[int, tuple[float, float]],
    zone: Zone | None,
) -> tuple[np.ndarray, Zone | None, str, list[str]]:
    """Positions (N, 2), their zone and in words why, and warnings; from pairs in metres and in degrees by index."""
    positions = np.full((len(paths), 2), np.nan)
    for index, pair in metres.items():
        positions[index] = pair
    if not degrees:
        return positions, zone, "as given", []
    indexes = sorted(degrees)
    places = np.array([degrees[index] for index in indexes])
    used, why = (zone, "as given") if zone else common_zone(places)
    check_zone(used, places, [paths[index] for index in indexes])
    positions[indexes] = used.project(*places.T)
    warnings = []
    if metres:
        pair = f"{paths[min(metres)]} (in metres) and {paths[indexes[0]]} (in degrees)"
        warnings = _check_mixed(pair, np.array([*metres.values()]), places, used, given=zone is not None)
    return positions, used, why, warnings


def _about_unmatched(table: CsvPositions, rows: Sequence[str], paths: Sequence[str], unread: Sequence[str]) -> str:
    """What is wrong with rows of the CSV file that match no image."""
    remedy = "write paths relative to the CSV file, or else to the image folder"
    if len(rows) == len(table.rows):
        which = f"none of its {len(rows)} paths, such as {rows[0]}, is one of the images, such as {paths[0]}"
    else:
        which = (
            f"{len(rows)} of its {len(table.rows)} rows match no image, first {rows[0]} (line {table.lines[rows[0]]})"
        )
    if any(normal_path(file).endswith("/" + rows[0]) for file in unread):
        which += ", a file that is not read because of its suffix"
    return f"{table.file}: {which}; {remedy}, or give --allow_missing_rows if such rows are right"


def _check_mixed(pair: str, metres: np.ndarray, places: np.ndarray, zone: Zone, given: bool) -> list[str]:
    """Whether positions given in metres, (M, 2), which do not say their zone, seem to be of another one than `zone`.

    A warning says so; ValueError if another zone brings them together and the user has not given this one.

    Parameters
    ----------
    pair : a file of each of the two kinds.
    places : (N, 2) latitudes and longitudes, which the zone is right for.
    """
    tree = KDTree(metres)

    def distance(other: Zone) -> float:
        return float(np.median(tree.query(other.project(*places.T))[0]))

    apart, nearest = distance(zone), min(zone.beside(), key=distance)
    shown = f"{pair} lie about {apart / 1000:.0f} km apart in UTM zone {zone}"
    if apart > _NEAR_M and distance(nearest) < apart / 10:
        message = f"{shown}, but not in {nearest}, which the metres seem to be of; give --zone {nearest}"
        if not given:
            raise ValueError(message)
        return [message]
    return [f"{shown}; give the --zone of the metres, or put them into sets of their own"] if apart > _APART_M else []


def _about_exif(paths: Sequence[str], positions: np.ndarray, photos: dict[int, Exif]) -> list[str]:
    """Warnings about EXIF positions that are not used, and those that their neighbours in time contradict."""
    warnings = []
    refused = [index for index, photo in photos.items() if photo.fault]
    if refused:
        what = counted(len(refused), "EXIF position")
        warnings.append(f"{what} not used, first {paths[refused[0]]}: {photos[refused[0]].fault}")
    located = [index for index, photo in photos.items() if photo.place]
    odd = [located[i] for i in contradicted(positions[located], [photos[index] for index in located])]
    if odd:
        named = first_of([paths[index] for index in odd])
        warnings.append(
            f"{named}: the photos before and after contradict this EXIF position (faster than {FASTEST_M_PER_S:.0f} m/s); "
            "correct it in a CSV file"
        )
    return warnings


def require_positions(
    paths: Sequence[str | Path], positions: np.ndarray, faults: Mapping[str, str] | None = None
) -> None:
    """ValueError, naming the first and counting the others, if an image has no position.

    Parameters
    ----------
    faults : why the EXIF position of an image is not used, by path, for those that have one.
    """
    lacking = np.flatnonzero(np.isnan(positions).any(axis=1))
    if len(lacking):
        first = str(paths[lacking[0]])
        others = f" (nor have {len(lacking) - 1} other images)" if len(lacking) > 1 else ""
        fault = f", whose position is not used: {faults[first]}" if faults and first in faults else ""
        raise ValueError(
            f"{first}: no position in its name (@east@north@...), in a CSV file or in its EXIF data{fault}{others}; "
            "list it in a CSV file with the header path,latitude,longitude, or move it away"
        )


def located_images(
    folder: str | Path,
    csv_file: str | Path | None = None,
    zone: Zone | None = None,
    allow_missing_rows: bool = False,
) -> tuple[ImageSet, Zone | None]:
    """All images below a folder with their positions, and the UTM zone if it is known.

    See `locate`; ValueError names the first image without a position.
    """
    listing = list_folder(folder)
    paths = listing.images
    found = locate(paths, csv_file, folder, zone, allow_missing_rows, listing.unread)
    require_positions(paths, found.positions, found.faults)
    cameras = np.array([camera_of(path) for path in paths])
    return ImageSet(str(folder), tuple(paths), found.positions, cameras, report=found.report), found.zone
