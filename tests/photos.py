"""Photos with the EXIF data that cameras write, and CSV files of positions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from datasets.positions.exif import read_exif
from datasets.positions.find import locate, require_positions

OXFORD = (51.7520, -1.2577)


def dms(value: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes and seconds to 1e-5 of a second (0.3 mm)."""
    value = abs(value)
    degrees, minutes = int(value), int(value * 60) % 60
    return IFDRational(degrees), IFDRational(minutes), IFDRational(round((value * 3600 % 60) * 100_000), 100_000)


def gps_of(latitude: float, longitude: float) -> dict[int, object]:
    return {
        1: "N" if latitude >= 0 else "S",
        2: dms(latitude),
        3: "E" if longitude >= 0 else "W",
        4: dms(longitude),
    }


def photo(
    path: Path, place: tuple[float, float] | dict[int, object] | None = None, shade: int = 100, taken: str = ""
) -> Path:
    """An image at a place: latitude and longitude, or GPS tags; taken at `2024:05:31 12:00:07`, or nobody knows when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    if place is not None:
        exif.get_ifd(0x8825).update(place if isinstance(place, dict) else gps_of(*place))
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    # a TIFF takes no sub-directories but those of finished EXIF data
    exif = exif.tobytes() if path.suffix.lower() in (".tif", ".tiff") else exif
    Image.new("RGB", (32, 24), (shade, 90, 30)).save(path, exif=exif)
    return path


def write_csv(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def exif_position(path: Path) -> tuple[float, float] | None:
    return read_exif(path).place


def read_positions(paths: Sequence[Path], csv_file: Path | None = None, **options) -> np.ndarray:
    """(N, 2) positions of images that must all have one."""
    found = locate(paths, csv_file, **options)
    require_positions(paths, found.positions, found.faults)
    return found.positions
