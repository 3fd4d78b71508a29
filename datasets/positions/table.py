"""Positions from a CSV file: `path,latitude,longitude` in degrees or `path,easting,northing` in metres."""

import csv
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.naming import beyond_utm
from datasets.positions.zones import LIMITS, Zone

_FORMS = ("latitude", "longitude"), ("easting", "northing")
# no UTM coordinate is larger, in metres, and no local one of a set that is made up
_LARGEST_M = 1e7


def normal_path(path: str) -> str:
    """A path ready for comparison: `/` between folders, no `.` or `..`, accents in one form (Unicode NFC)."""
    return os.path.normpath(unicodedata.normalize("NFC", path).replace("\\", "/"))


@dataclass(frozen=True)
class CsvPositions:
    """Rows of a CSV file of positions.

    Attributes
    ----------
    file : the CSV file.
    geographic : whether they are latitude and longitude in degrees, or else UTM east and north in metres.
    rows : pair of numbers by path as written, normalised (`normal_path`).
    lines : line of the file by path.
    """

    file: Path
    geographic: bool
    rows: dict[str, tuple[float, float]]
    lines: dict[str, int]

    def match(self, paths: Sequence[str], folder: str | Path | None = None) -> tuple[dict[int, str], list[str]]:
        """Which row belongs to which image.

        A row's path is relative to the folder of the CSV file, or to `folder` if the former has no such file.

        Returns
        -------
        the row of each image that has one, by its index in `paths`; and the rows that belong to none of them.
        """
        images: dict[str, list[int]] = {}
        for index, path in enumerate(paths):
            images.setdefault(normal_path(os.path.abspath(path)), []).append(index)
        found: dict[int, str] = {}
        unmatched = []
        for row in self.rows:
            beside = os.path.abspath(self.file.parent / row)
            indexes = images.get(normal_path(beside))
            if not indexes and folder is not None and not os.path.exists(beside):
                indexes = images.get(normal_path(os.path.abspath(os.path.join(folder, row))))
            if indexes:
                self._take(row, indexes, paths, found)
            else:
                unmatched.append(row)
        return found, unmatched

    def _take(self, row: str, indexes: list[int], paths: Sequence[str], found: dict[int, str]) -> None:
        if len(indexes) > 1:
            names = " and ".join(paths[index] for index in indexes[:2])
            raise ValueError(f"{self.file}:{self.lines[row]}: {row} may be {names}; rename one of them")
        index = indexes[0]
        if index in found and self.rows[found[index]] != self.rows[row]:
            raise ValueError(
                f"{self.file}:{self.lines[row]}: {row} and {found[index]} are the same image at two positions; remove one row"
            )
        found[index] = row

    def check_zone(self, zone: Zone) -> None:
        """ValueError, naming the line, if metres cannot lie in the zone."""
        for path, (east, north) in {} if self.geographic else self.rows.items():
            if not zone.holds(east, north):
                raise ValueError(
                    f"{self.file}:{self.lines[path]}: easting {east:g}, northing {north:g} cannot lie in UTM zone {zone}; "
                    "correct the row, or the zone"
                )


def csv_rows(file: Path, remedy: str) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of each row that is not blank, the first line among them.

    ValueError, naming file and line, if the file is not a CSV file in UTF-8, or a row has more or fewer fields than the
    first.
    """
    with open(file, newline="", encoding="utf-8-sig") as stream:
        # strict: a quote that nothing closes is an error, not a field that swallows the rest of the file
        rows, width = csv.reader(stream, skipinitialspace=True, strict=True), 0
        try:
            for fields in rows:
                if any(field.strip() for field in fields):
                    width = width or len(fields)
                    if len(fields) != width:
                        shown = f"{file}:{rows.line_num}: {len(fields)} fields"
                        raise ValueError(f"{shown}, but the first line has {width}; {remedy}")
                    yield rows.line_num, fields
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{file}:{rows.line_num + 1}: not a CSV file in UTF-8 ({error}); {remedy}") from error


def csv_positions(file: str | Path) -> CsvPositions:
    """Read a CSV file with the header `path,latitude,longitude` (degrees) or `path,easting,northing` (metres).

    Columns may stand in any order among others. ValueError, naming file and line, for a missing header, a row with more
    or fewer fields than the header, a value that is not a number or out of range, and an image listed twice at
    different positions.
    """
    file, rows, lines = Path(file), {}, {}
    remedy = "correct the row: numbers take a decimal point, not a comma, and a path with a comma stands in quotes"
    table = csv_rows(file, remedy)
    try:
        header = [name.strip().lower() for name in next(table, (0, ()))[1]]
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: no such file of positions") from None
    form = _form(header, file)
    for line, fields in table:
        shown = f"{file}:{line}"
        path, pair = _csv_row(dict(zip(header, fields)), form, shown)
        if rows.setdefault(path, pair) != pair:
            raise ValueError(f"{shown}: {path} stands in a row above with another position; remove one of them")
        lines.setdefault(path, line)
    if not rows:
        raise ValueError(f"{file}: no row below the header; add one for each image")
    return CsvPositions(file, form is _FORMS[0], rows, lines)


def _form(header: list[str], file: Path) -> tuple[str, str]:
    form = next((form for form in _FORMS if {"path", *form} <= set(header)), None)
    if form is None:
        other = next((sign for sign in (";", "\t", "|") if any(sign in name for name in header)), None)
        remedy = f"its fields are separated by {other!r}, so save it with commas and decimal points" if other else ""
        raise ValueError(
            f"{file}: its first line must be path,latitude,longitude or path,easting,northing; "
            f"it is {','.join(header)[:80]!r}; {remedy or 'correct it'}"
        )
    twice = next((name for name in ("path", *form) if header.count(name) > 1), None)
    if twice:
        raise ValueError(f"{file}: {twice} stands twice in its first line; remove one column")
    return form


def _csv_row(row: dict[str, str], form: tuple[str, str], shown: str) -> tuple[str, tuple[float, float]]:
    path = row["path"].strip()
    if not path:
        raise ValueError(f"{shown}: no path in this row; add it, or remove the row")
    values = []
    for name in form:
        text = row[name].strip()
        try:
            value = float(text if "_" not in text else "no number")
        except ValueError:
            hint = ", with a decimal point" if "," in text else ""
            raise ValueError(
                f"{shown}: {name} {row[name]!r} is not a number; correct it{hint}, or remove the row"
            ) from None
        low, high = LIMITS.get(name, (-_LARGEST_M, _LARGEST_M))
        if not low <= value <= high:  # nor is NaN
            swapped = " (are latitude and longitude swapped?)" if name == "latitude" and abs(value) <= 180 else ""
            raise ValueError(
                f"{shown}: {name} {value:g} does not lie in {low:g} to {high:g}{swapped}; correct or remove the row"
            )
        values.append(value)
    if form is _FORMS[0] and values == [0, 0]:
        raise ValueError(
            f"{shown}: latitude 0, longitude 0 is no place that was photographed; correct or remove the row"
        )
    if form is _FORMS[1] and beyond_utm(*values):
        raise ValueError(
            f"{shown}: easting {values[0]:.0f} lies outside UTM: the columns seem to be swapped; correct or remove the row"
        )
    return normal_path(path), (values[0], values[1])
