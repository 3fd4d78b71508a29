"""Where and when a photo was taken, as the camera wrote it into the file (EXIF)."""

import math
import struct
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from datasets.positions.zones import LIMITS

_WGS84 = ("WGS84", "WGS1984", "WORLDGEODETICSYSTEM1984", "WORLDGEODETICSYSTEM84")
_PARSE_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, OverflowError, ZeroDivisionError, struct.error)
FASTEST_M_PER_S = 100.0
_LOOK_BACK = 1000


class Exif(NamedTuple):
    """What a photo states about itself.

    Attributes
    ----------
    place : latitude and longitude in degrees, WGS 84; None if the photo states none that makes sense.
    fault : why a stated place is not used, else "".
    clock : the camera and the clock of it that gave `seconds`; "" without a time.
    seconds : when it was taken, by that clock.
    """

    place: tuple[float, float] | None = None
    fault: str = ""
    clock: str = ""
    seconds: float = 0.0


def read_exif(path: str | Path) -> Exif:
    """Place and time of a photo; ValueError if the file is not an image.

    A place is not used if a value or hemisphere is missing, a denominator is zero, a value is negative (its letter
    says the hemisphere) or out of UTM's range (84 degrees north to 80 south), the receiver marked it void, its map datum
    is not WGS 84, or it is 0, 0 (what some cameras write before they know).
    """
    try:
        with Image.open(path) as image:
            gps, tags = _tags(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot read this image ({' '.join(str(error).split())[:150]})") from error
    if GPS.GPSLatitude not in gps and GPS.GPSLongitude not in gps:
        return Exif()
    place = _place(gps)
    if isinstance(place, str):
        return Exif(fault=place)
    camera = " ".join(_text(tags.get(tag)) for tag in (Base.Make, Base.Model, Base.BodySerialNumber))
    clocks = {
        "camera": _seconds(tags.get(Base.DateTimeOriginal)),
        "GPS": _gps_seconds(gps),
        "file": _seconds(tags.get(Base.DateTime)),
    }
    for clock, seconds in clocks.items():
        if seconds is not None:
            return Exif(place, "", f"{clock} {camera}", seconds)
    return Exif(place)


def _tags(image: Image.Image) -> tuple[dict[int, object], dict[int, object]]:
    """GPS tags and all other tags of an image; empty if they cannot be read."""
    gps: dict[int, object] = {}
    try:
        exif = image.getexif()
        gps = dict(exif.get_ifd(IFD.GPSInfo))
        return gps, {**exif, **exif.get_ifd(IFD.Exif)}
    except _PARSE_ERRORS:
        return gps, {}


def _place(gps: dict[int, object]) -> tuple[float, float] | str:
    """Latitude and longitude, or why there is none."""
    datum = _text(gps.get(GPS.GPSMapDatum))
    if datum and not "".join(filter(str.isalnum, datum.upper())).startswith(_WGS84):
        return f"its map datum {datum[:30]!r} is not WGS-84"
    if _text(gps.get(GPS.GPSStatus)).upper()[:1] == "V":
        return "the receiver marked it void"
    place = []
    for tag, ref_tag, name, signs in (
        (GPS.GPSLatitude, GPS.GPSLatitudeRef, "latitude", "NS"),
        (GPS.GPSLongitude, GPS.GPSLongitudeRef, "longitude", "EW"),
    ):
        letter, value = _text(gps.get(ref_tag)).upper()[:1], _degrees(gps.get(tag))
        low, high = LIMITS[name]
        if value is None or letter not in tuple(signs):
            return f"its {name} is incomplete"
        if value < 0:
            return f"its {name} is negative, {value:.4f}, beside the hemisphere {letter}"
        value = value if letter == signs[0] else -value
        if not low <= value <= high:  # nor is NaN
            return f"its {name} {value:g} does not lie in {low:g} to {high:g}"
        place.append(value)
    if place == [0, 0]:
        return "it is 0, 0: not known when the photo was taken"
    return place[0], place[1]


def _text(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 ")


def _numbers(value: object) -> list[float] | None:
    try:
        return [float(part) for part in (value if isinstance(value, tuple | list) else (value,))]
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _degrees(value: object) -> float | None:
    """Degrees, minutes and seconds -> degrees; a minus sign before any of them makes all negative."""
    parts = _numbers(value)
    if parts is None or not 1 <= len(parts) <= 3 or any(abs(part) > 60 for part in parts[1:]):
        return None
    degrees = sum(abs(part) / 60**power for power, part in enumerate(parts))
    return -degrees if any(part < 0 for part in parts) else degrees


def _seconds(value: object) -> float | None:
    """`2024:05:31 12:00:07` -> seconds; None if a camera without a clock wrote something else."""
    try:
        return (datetime.strptime(_text(value)[:19], "%Y:%m:%d %H:%M:%S") - datetime(1970, 1, 1)).total_seconds()
    except ValueError:
        return None


def _gps_seconds(gps: dict[int, object]) -> float | None:
    day, time = _seconds(f"{_text(gps.get(GPS.GPSDateStamp))} 00:00:00"), _numbers(gps.get(GPS.GPSTimeStamp))
    if day is None or time is None or len(time) != 3 or not all(map(math.isfinite, time)):
        return None
    return day + time[0] * 3600 + time[1] * 60 + time[2]


def contradicted(positions: np.ndarray, photos: Sequence[Exif]) -> list[int]:
    """Photos whose place the photos before and after them contradict: nobody moves at 100 m/s.

    Of each camera's photos in the order of time, the longest chain that can be travelled is believed. The others are
    returned, unless they are half of the photos or more (two cameras that call themselves the same).

    Parameters
    ----------
    positions : (N, 2) east and north in metres.
    """
    clocks: dict[str, list[int]] = {}
    for index, photo in enumerate(photos):
        if photo.clock:
            clocks.setdefault(photo.clock, []).append(index)
    doubted: list[int] = []
    for indexes in clocks.values():
        ordered = np.array(sorted(indexes, key=lambda index: photos[index].seconds))
        believed = _longest_journey(positions[ordered], np.array([photos[index].seconds for index in ordered]))
        odd = np.setdiff1d(ordered, ordered[believed])
        if 2 * len(odd) < len(ordered):
            doubted += odd.tolist()
    return sorted(doubted)


def _longest_journey(positions: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Indexes of the longest chain of points, in the order of time, each of which can be reached from the one before."""
    length, before = np.ones(len(positions), int), np.full(len(positions), -1)
    for i in range(1, len(positions)):
        start = max(0, i - _LOOK_BACK)
        metres = np.linalg.norm(positions[start:i] - positions[i], axis=1)
        # clocks give whole seconds
        lengths = np.where(metres <= FASTEST_M_PER_S * (seconds[i] - seconds[start:i] + 1), length[start:i], 0)
        best = int(lengths.argmax())
        if lengths[best]:
            length[i], before[i] = lengths[best] + 1, start + best
    chain = [int(length.argmax())]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    return np.array(chain[::-1])
