"""Positions of anybody's images: from `@UTM` names, a CSV file, or the GPS data that cameras write (EXIF)."""

import csv
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import utm
from PIL import Image
from tqdm import tqdm

from datasets.naming import camera_of, list_images, parse_position
from datasets.places import ImageSet

_GPS_IFD = 0x8825
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _STATUS = 1, 2, 3, 4, 9
_LIMITS = {"latitude": (-80.0, 84.0), "longitude": (-180.0, 180.0)}
_FORMS = ("latitude", "longitude"), ("easting", "northing")
# beyond this the projection is useless even for differences of positions
_FARTHEST_DEGREES = 30.0


class Zone(NamedTuple):
    """A UTM zone: number 1..60 and hemisphere."""

    number: int
    northern: bool

    def __str__(self) -> str:
        return f"{self.number}{'N' if self.northern else 'S'}"

    @classmethod
    def of(cls, latitude: float, longitude: float) -> "Zone":
        """The zone in which a point lies, the exceptions of Norway and Svalbard included."""
        return cls(int(utm.latlon_to_zone_number(latitude, longitude)), latitude >= 0)

    @classmethod
    def parse(cls, text: str) -> "Zone":
        """`30N` or `30S`: number and hemisphere (not the letter of a latitude band)."""
        number, hemisphere = text[:-1], text[-1:].upper()
        if not (number.isdecimal() and 1 <= int(number) <= 60 and hemisphere in ("N", "S")):
            raise ValueError(
                f"{text!r} is no UTM zone: give a number from 1 to 60 and N or S for the hemisphere, as 30N"
            )
        return cls(int(number), hemisphere == "N")

    def project(self, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """(N,) degrees -> (N, 2) east and north in metres in this zone, wherever the points lie."""
        east, north, *_ = utm.from_latlon(
            np.asarray(latitudes, np.float64),
            np.asarray(longitudes, np.float64),
            force_zone_number=self.number,
            force_northern=self.northern,
        )
        return np.stack([east, north], axis=-1)

    def unproject(self, positions: np.ndarray) -> np.ndarray:
        """(N, 2) east and north in metres in this zone -> (N, 2) latitude and longitude in degrees."""
        east, north = np.asarray(positions, np.float64).T
        return np.stack(utm.to_latlon(east, north, self.number, northern=self.northern, strict=False), axis=-1)

    def degrees_off(self, longitude: float) -> float:
        """Degrees of longitude between a point and the zone's central meridian."""
        return abs((longitude - (6 * self.number - 183) + 180) % 360 - 180)


@dataclass(frozen=True)
class CsvPositions:
    """Rows of a CSV file of positions.

    Attributes
    ----------
    file : where they stand.
    geographic : whether they are latitude and longitude in degrees, or else UTM east and north in metres.
    rows : pair of numbers by path as written, normalised.
    """

    file: Path
    geographic: bool
    rows: dict[str, tuple[float, float]]

    def by_image(self, folder: str | Path | None = None) -> dict[str, tuple[float, float]]:
        """The rows by absolute path, taken as relative to the file's folder and to `folder`."""
        found: dict[str, tuple[float, float]] = {}
        for base in (self.file.parent, folder):
            if base is not None:
                for path, pair in self.rows.items():
                    found.setdefault(os.path.abspath(os.path.join(base, path)), pair)
        return found


def csv_positions(file: str | Path) -> CsvPositions:
    """Read a CSV file with the header `path,latitude,longitude` (degrees) or `path,easting,northing` (metres).

    Columns may stand in any order among others. ValueError, naming file and line, for a missing header, a value that
    is not a number or out of range, and an image listed twice at different positions.
    """
    file, rows = Path(file), {}
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            header = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            form = next((form for form in _FORMS if {"path", *form} <= set(header)), None)
            if form is None:
                raise ValueError(
                    f"{file}: its first line must be path,latitude,longitude or path,easting,northing; "
                    f"it is {','.join(header)[:80]!r}"
                )
            reader.fieldnames = header
            for row in reader:
                path, pair = _csv_row(row, form, f"{file}:{reader.line_num}")
                if rows.setdefault(path, pair) != pair:
                    raise ValueError(f"{file}:{reader.line_num}: {path} stands in a row above with another position")
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: no such file of positions") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: not a CSV file in UTF-8 ({error}); save it as one") from error
    if not rows:
        raise ValueError(f"{file}: no row below the header")
    return CsvPositions(file, form is _FORMS[0], rows)


def _csv_row(row: dict[str, str], form: tuple[str, str], shown: str) -> tuple[str, tuple[float, float]]:
    if not (row["path"] or "").strip():
        raise ValueError(f"{shown}: no path in this row")
    values = []
    for name in form:
        try:
            value = float(row[name])
        except (TypeError, ValueError):
            raise ValueError(f"{shown}: {name} {row[name]!r} is not a number; mend or remove the row") from None
        low, high = _LIMITS.get(name, (-1e8, 1e8))
        if not low <= value <= high:  # nor is NaN
            raise ValueError(f"{shown}: {name} {value:g} does not lie in {low:g} to {high:g}; mend or remove the row")
        values.append(value)
    if form is _FORMS[1] and values[0] >= 1_000_000 > values[1] >= 0:
        raise ValueError(f"{shown}: easting {values[0]:.0f} lies outside UTM: the columns seem to be swapped")
    return os.path.normpath(row["path"].strip()), (values[0], values[1])


def exif_position(path: str | Path) -> tuple[float, float] | None:
    """Latitude and longitude in degrees from an image's EXIF data, or None where there are none that make sense.

    No position: a value or hemisphere missing, a zero denominator, out of UTM's range (84 degrees north to 80 south),
    marked void by the receiver, or 0, 0 (what some cameras write before they know). ValueError where the file is not
    an image.
    """
    try:
        with Image.open(path) as image:
            try:
                gps = image.getexif().get_ifd(_GPS_IFD)
            except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
                return None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot read this image ({' '.join(str(error).split())[:150]})") from error
    latitude = _degrees(gps.get(_LATITUDE), gps.get(_LATITUDE_REF), "NS", _LIMITS["latitude"])
    longitude = _degrees(gps.get(_LONGITUDE), gps.get(_LONGITUDE_REF), "EW", _LIMITS["longitude"])
    if latitude is None or longitude is None or latitude == longitude == 0 or _letter(gps.get(_STATUS)) == "V":
        return None
    return latitude, longitude


def _letter(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 ").upper()[:1]


def _degrees(value: object, reference: object, signs: str, limits: tuple[float, float]) -> float | None:
    """Degrees, minutes and seconds with a hemisphere, `signs[0]` positive -> degrees."""
    letter = _letter(reference)
    if letter not in tuple(signs):
        return None
    try:
        parts = [float(part) for part in (value if isinstance(value, tuple | list) else (value,))]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not 1 <= len(parts) <= 3:
        return None
    degrees = sum(part / 60**power for power, part in enumerate(parts)) * (1 if letter == signs[0] else -1)
    return degrees if limits[0] <= degrees <= limits[1] else None  # None for NaN as well


def name_position(path: str | Path) -> tuple[float, float] | None:
    """UTM east and north from an `@UTM` name, or None where the name is of another kind."""
    try:
        return parse_position(path)
    except ValueError:
        return None


def find_positions(
    paths: Sequence[str | Path],
    csv_file: str | Path | None = None,
    folder: str | Path | None = None,
    zone: Zone | None = None,
) -> tuple[np.ndarray, Zone | None]:
    """Positions of images, each from its name, else from the CSV file, else from its EXIF data.

    Parameters
    ----------
    folder : of the images, to which paths in the CSV file may be relative; they may be so to the CSV file's as well.
    zone : UTM zone for latitudes and longitudes; by default that of the first image that has them. One zone holds for
        all, so that distances are right across its border.

    Returns
    -------
    positions (N, 2) float64, east and north in metres, NaN where there is none; and the zone, None where all positions
    were given as east and north.
    """
    paths = [str(path) for path in paths]
    positions = np.full((len(paths), 2), np.nan)
    table = csv_positions(csv_file) if csv_file is not None else None
    listed = table.by_image(folder) if table else {}
    keys = [os.path.abspath(path) for path in paths]
    if table and paths and not any(key in listed for key in keys):
        raise ValueError(
            f"{table.file}: none of its {len(table.rows)} paths, such as {next(iter(table.rows))}, is one of the images, "
            f"such as {paths[0]}; write paths relative to the CSV file or to the image folder"
        )
    degrees: dict[int, tuple[float, float]] = {}
    rest = []
    for index, (path, key) in enumerate(zip(paths, keys)):
        if (named := name_position(path)) is not None:
            positions[index] = named
        elif key not in listed:
            rest.append(index)
        elif table.geographic:
            degrees[index] = listed[key]
        else:
            positions[index] = listed[key]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(exif_position, [paths[index] for index in rest])
        progress = tqdm(found, "EXIF", len(rest), unit="image", dynamic_ncols=True, delay=1, leave=False)
        degrees.update((index, pair) for index, pair in zip(rest, progress) if pair is not None)
    if not degrees:
        return positions, zone
    zone = zone or Zone.of(*degrees[min(degrees)])
    for index, (latitude, longitude) in sorted(degrees.items()):
        if zone.degrees_off(longitude) > _FARTHEST_DEGREES:
            raise ValueError(
                f"{paths[index]}: {latitude:.4f}, {longitude:.4f} is too far from UTM zone {zone} of this set; "
                "put the images of distant regions into sets of their own"
            )
    indexes = list(degrees)
    positions[indexes] = zone.project(*np.array(list(degrees.values())).T)
    return positions, zone


def read_positions(
    paths: Sequence[str | Path],
    csv_file: str | Path | None = None,
    folder: str | Path | None = None,
    zone: Zone | None = None,
) -> np.ndarray:
    """`find_positions` of images that must all have one: (N, 2); ValueError names the first that has none."""
    positions, _ = find_positions(paths, csv_file, folder, zone)
    require_positions(paths, positions)
    return positions


def require_positions(paths: Sequence[str | Path], positions: np.ndarray) -> None:
    """ValueError, naming the first and counting the others, where an image has no position."""
    lacking = np.flatnonzero(np.isnan(positions).any(axis=1))
    if len(lacking):
        others = f" (nor have {len(lacking) - 1} other images)" if len(lacking) > 1 else ""
        raise ValueError(
            f"{paths[lacking[0]]}: no position in its name (@east@north@...), in a CSV file or in its EXIF data{others}; "
            "list it in a CSV file with the header path,latitude,longitude, or move it away"
        )


def located_images(
    folder: str | Path, csv_file: str | Path | None = None, zone: Zone | None = None
) -> tuple[ImageSet, Zone | None]:
    """All images below a folder with their positions, and the UTM zone of these where it is known.

    See `find_positions`; ValueError names the first image that has no position.
    """
    paths = list_images(folder)
    positions, zone = find_positions(paths, csv_file, folder, zone)
    require_positions(paths, positions)
    return ImageSet(str(folder), tuple(paths), positions, np.array([camera_of(path) for path in paths])), zone


def located_image_set(folder: str | Path, csv_file: str | Path | None = None, zone: Zone | None = None) -> ImageSet:
    """`located_images` without the zone."""
    return located_images(folder, csv_file, zone)[0]
