"""A raw Oxford RobotCar traversal: its frames and its track."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.positions.table import csv_rows

SOURCES = ("ins", "rtk", "auto")
GOOD_STATUS = "INS_SOLUTION_GOOD"
FASTEST_M_S, JITTER_M = 50.0, 2.0
"""Longest step of a track: what a car drives at this speed, plus what a good receiver corrects at once."""
_FOLDERS = {"ins": ("gps", "."), "rtk": (".", "gps", "rtk")}
_FARTHEST_M = 1e8
_AGAIN = "download the file again"


@dataclass(frozen=True)
class Frames:
    """Frames of a traversal.

    Attributes
    ----------
    folder : holds them, as `<timestamp>.png`.
    times : (N,) int64, those on the disk, microseconds, ascending.
    missing : number of frames that only `stereo.timestamps` lists.
    """

    folder: Path
    times: np.ndarray
    missing: int

    def path(self, time: int) -> Path:
        return self.folder / f"{time}.png"


def list_frames(traversal: Path) -> Frames:
    """Frames of the centre camera; errors name what is missing or odd in the traversal."""
    folder = traversal / "stereo" / "centre"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; --traversal wants the folder of one traversal, such as 2014-11-18-13-20-12, "
            "with the stereo archives unpacked in it"
        )
    times = []
    for path in folder.glob("*.png"):
        if path.name.startswith("."):
            continue
        time = _microseconds(path.stem)
        if time is None or str(time) != path.stem:
            raise ValueError(f"{path}: the name of a frame is its time in microseconds; move this file away")
        times.append(time)
    if not times:
        raise ValueError(f"{folder}: no frame in it (<timestamp>.png); unpack a stereo centre archive there")
    return Frames(folder, np.array(sorted(times), np.int64), len(_listed_times(traversal) - set(times)))


def _listed_times(traversal: Path) -> set[int]:
    file = traversal / "stereo.timestamps"
    if not file.is_file():
        return set()
    times = set()
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        for field in line.split()[:1]:
            time = _microseconds(field)
            if time is None:
                raise ValueError(
                    f"{file}:{number}: {field[:40]!r} is no timestamp; download the file again, or remove it"
                )
            times.add(time)
    return times


def _microseconds(text: str) -> int | None:
    """A time as an int64 holds it, or None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


@dataclass(frozen=True)
class Track:
    """Where the car was.

    Attributes
    ----------
    file : the CSV file it was read from.
    source : `ins` or `rtk`.
    times : (R,) int64 microseconds, strictly ascending.
    positions : (R, 2) float64, UTM east and north in metres; NaN if not good.
    good : (R,) bool, false for a status other than INS_SOLUTION_GOOD, and for `jumps`.
    jumps : (R,) bool, whether the position was dropped because no car drives so fast, see `find_jumps`.
    """

    file: Path
    source: str
    times: np.ndarray
    positions: np.ndarray
    good: np.ndarray
    jumps: np.ndarray

    def locate(self, times: np.ndarray, max_gap_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Positions at (N,) times in microseconds, linear between the rows before and after.

        Returns
        -------
        positions (N, 2), NaN for frames without one; and (N,) str, the reason: `outside` the covered time, in a
        `gap` of more than `max_gap_s` seconds, next to a row that `jump`s, next to one of `bad_status`, or empty.
        """
        after = np.searchsorted(self.times, times)
        outside = (times < self.times[0]) | (times > self.times[-1])
        after = after.clip(0, len(self.times) - 1)
        before = np.where(self.times[after] == times, after, after - 1).clip(0)
        span = self.times[after] - self.times[before]
        weight = np.where(span > 0, (times - self.times[before]) / np.maximum(span, 1), 0.0)[:, None]
        # a weighted sum of 7-digit northings would round
        start = self.positions[before]
        positions = start + weight * (self.positions[after] - start)
        bad = ~(self.good[before] & self.good[after])
        jump = self.jumps[before] | self.jumps[after]
        reasons = np.select([outside, span > max_gap_s * 1e6, jump, bad], ["outside", "gap", "jump", "bad_status"], "")
        positions[reasons != ""] = np.nan
        return positions, reasons


def read_track(traversal: Path, source: str = "auto") -> Track:
    """The track of a traversal from `ins.csv` or `rtk.csv`; `auto` takes RTK if it exists."""
    found = {
        name: next((f for folder in folders if (f := traversal / folder / f"{name}.csv").is_file()), None)
        for name, folders in _FOLDERS.items()
    }
    if source == "auto":
        source = "rtk" if found["rtk"] else "ins"
    file = found[source]
    if file is None:
        places = ", ".join(str(traversal / folder / f"{source}.csv") for folder in _FOLDERS[source])
        advice = {"ins": "unpack the gps archive into the traversal", "rtk": "copy it there, or use --positions ins"}
        raise FileNotFoundError(f"{places}: no such file; {advice[source]}")
    return _read_csv(file, source)


def _read_csv(file: Path, source: str) -> Track:
    wanted = ["timestamp", "northing", "easting", "utm_zone"] + ["ins_status"] * (source == "ins")
    times, positions, good, zone = [], [], [], None
    rows = csv_rows(file, _AGAIN)
    _, header = next(rows, (0, []))
    lacking = [name for name in wanted if name not in header]
    if lacking:
        raise ValueError(f"{file}: its header lacks {', '.join(lacking)}; {_AGAIN}")
    for line, fields in rows:
        row = dict(zip(header, fields))
        is_good = source == "rtk" or row["ins_status"].strip() == GOOD_STATUS
        try:
            time = _microseconds(row["timestamp"].strip())
            if time is None:
                raise ValueError(f"timestamp {row['timestamp'][:40]!r}")
            times.append(time)
            positions.append(_row_position(row) if is_good else (math.nan, math.nan))
        except ValueError as error:
            raise ValueError(f"{file}:{line}: not a row of time and position ({error}); {_AGAIN}") from error
        good.append(is_good)
        if is_good:
            zone = zone or row["utm_zone"]
            if row["utm_zone"] != zone:
                raise ValueError(
                    f"{file}:{line}: UTM zone {row['utm_zone']} after {zone}: distances across zones make no sense; "
                    "split the traversal there"
                )
    if not any(good):
        raise ValueError(f"{file}: no row with a position; use --positions {'rtk' if source == 'ins' else 'ins'}")
    order = np.argsort(np.array(times, np.int64), kind="stable")
    ordered, placed, sound = np.array(times, np.int64)[order], np.array(positions)[order], np.array(good)[order]
    jumps = np.zeros(len(ordered), bool)
    jumps[sound] = find_jumps(ordered[sound], placed[sound])
    placed[jumps] = math.nan
    unique, first = np.unique(ordered, return_index=True)
    return Track(file, source, unique, placed[first], (sound & ~jumps)[first], jumps[first])


def _row_position(row: dict[str, str]) -> tuple[float, float]:
    """UTM east and north in metres; ValueError if they are no numbers, or absurd ones."""
    east, north = float(row["easting"]), float(row["northing"])
    if not max(abs(east), abs(north)) <= _FARTHEST_M or math.isnan(north):
        raise ValueError(f"easting {row['easting'][:40]}, northing {row['northing'][:40]}")
    return east, north


def find_jumps(times: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Which rows of a track imply an impossible speed.

    The track is cut at each step that is too long. Kept are the sections that a car could drive one after the other, in the
    choice that holds the most rows.

    Parameters
    ----------
    times : (R,) int64 microseconds, ascending.
    positions : (R, 2) metres, all finite.

    Returns
    -------
    (R,) bool, true for the rows of the sections that are not kept.
    """
    if not len(times):
        return np.zeros(0, bool)
    cuts = np.flatnonzero(~_drivable(times[:-1], positions[:-1], times[1:], positions[1:])) + 1
    if not len(cuts):
        return np.zeros(len(times), bool)
    starts, ends = np.concatenate([[0], cuts]), np.concatenate([cuts, [len(times)]]) - 1
    rows = ends - starts + 1
    most, before = rows.copy(), np.full(len(rows), -1)
    for section in range(1, len(rows)):
        start, earlier = starts[section], ends[:section]
        reached = _drivable(times[earlier], positions[earlier], times[start], positions[start])
        if reached.any():
            best = int(np.where(reached, most[:section], -1).argmax())
            most[section], before[section] = most[best] + rows[section], best
    jumps, section = np.ones(len(times), bool), int(most.argmax())
    while section >= 0:
        jumps[starts[section] : ends[section] + 1] = False
        section = int(before[section])
    return jumps


def _drivable(times: np.ndarray, positions: np.ndarray, later: np.ndarray, there: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(there - positions, axis=-1)
    return distance <= JITTER_M + FASTEST_M_S * (later - times) / 1e6
