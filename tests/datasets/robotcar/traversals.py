"""A small raw traversal with known colours on a known path."""

from pathlib import Path

import numpy as np
from PIL import Image

from datasets.robotcar.convert import convert_traversals

START_US = 1_416_300_000_000_000
ORIGIN = (620_000.0, 5_735_000.0)
SPEED = np.array([4.0, 3.0])  # metres per second east and north: 5 m/s
SIZE = (64, 48)
INS_HEADER = (
    "timestamp,ins_status,latitude,longitude,altitude,northing,easting,down,utm_zone,"
    "velocity_north,velocity_east,velocity_down,roll,pitch,yaw"
)
RTK_HEADER = INS_HEADER.replace("ins_status,", "")


def mosaic(rgb: np.ndarray) -> np.ndarray:
    """What a GBRG sensor sees of uint8 (H, W, 3): uint8 (H, W)."""
    bayer = np.empty(rgb.shape[:2], np.uint8)
    bayer[::2, ::2], bayer[::2, 1::2] = rgb[::2, ::2, 1], rgb[::2, 1::2, 2]
    bayer[1::2, ::2], bayer[1::2, 1::2] = rgb[1::2, ::2, 0], rgb[1::2, 1::2, 1]
    return bayer


def colour(index: int) -> tuple[int, int, int]:
    """Of the upper part of a frame; the lower quarter, the bonnet, is dark."""
    return 40 + 5 * index, 200 - 3 * index, 60 + 2 * index


def frame(index: int) -> np.ndarray:
    picture = np.full((SIZE[1], SIZE[0], 3), colour(index), np.uint8)
    picture[SIZE[1] * 3 // 4 :] = 10
    return picture


def where(seconds: float) -> np.ndarray:
    return np.array(ORIGIN) + SPEED * seconds


def ins_row(seconds: float, status: str | None = "INS_SOLUTION_GOOD", offset: float = 0.0) -> str:
    east, north = where(seconds) + offset
    status = "" if status is None else status + ","
    return f"{START_US + round(seconds * 1e6)},{status}51.76,-1.26,110,{north:.6f},{east:.6f},-110,30U,3,4,0,0,0,0"


def write_traversal(
    folder: Path,
    frames: int = 30,
    start_s: float = 0.1,
    gap: tuple[float, float] = (0, 0),
    bad: tuple[float, float] = (0, 0),
) -> Path:
    """Two frames a second from `start_s`; INS rows at 4 Hz over 12 s, none within `gap`, of bad status within `bad`."""
    (folder / "stereo" / "centre").mkdir(parents=True)
    (folder / "gps").mkdir()
    lines = []
    for index in range(frames):
        time = START_US + round((start_s + index / 2) * 1e6)
        Image.fromarray(mosaic(frame(index))).save(folder / "stereo" / "centre" / f"{time}.png")
        lines.append(f"{time} 1\n")
    (folder / "stereo.timestamps").write_text("".join(lines))
    rows = [INS_HEADER]
    for seconds in np.arange(0, 12.01, 0.25):
        if not gap[0] < seconds < gap[1]:
            rows.append(ins_row(seconds, "INS_BAD_GPS_AGREE" if bad[0] < seconds < bad[1] else "INS_SOLUTION_GOOD"))
    (folder / "gps" / "ins.csv").write_text("\n".join(rows) + "\n")
    return folder


def convert_traversal(traversal: Path, condition: str, out: Path, **options):
    return convert_traversals([traversal], condition, out, **options)[0]


def seconds_of(image: Path) -> float:
    return (int(image.name.split("@")[3]) - START_US) / 1e6


def images(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jpg"), key=lambda image: image.name.split("@")[3])


def frames_of(traversal: Path) -> list[Path]:
    return sorted((traversal / "stereo" / "centre").iterdir())


def write_rtk(folder: Path, offset_at, step_s: float = 0.1) -> None:
    """RTK rows over 12 s, each moved by `offset_at(seconds)` metres to the east and north."""
    rows = [ins_row(t, None, offset=offset_at(t)) for t in np.arange(0, 12.01, step_s)]
    (folder / "rtk.csv").write_text("\n".join([RTK_HEADER, *rows]) + "\n")
