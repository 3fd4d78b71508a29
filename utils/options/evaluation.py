"""What eval.py is asked to do, as flags."""

from dataclasses import dataclass
from pathlib import Path

from datasets.command_line import flag


@dataclass(frozen=True)
class EvaluationOptions:
    """How a checkpoint is scored, and what is kept of it."""

    threshold_m: tuple[float, ...] | None = flag(
        None,
        "same place within M metres, for all sets; several are scored at once (default: 5 for iddav2, 25 for utm)",
        above=0,
        metavar="M",
    )
    scale_indexes: tuple[int, ...] | None = flag(
        None, "pooled stages of a released checkpoint, which does not say (default: 3 4)", metavar="STAGE"
    )
    calibrate: tuple[float, ...] | None = flag(
        None,
        "learn on the validation set how sure an answer is, for --localize: writes CKPT's .confidence.json; P are precisions "
        "for which to choose a threshold, besides 1, 0.99 and 0.95",
        above=0,
        most=1,
        metavar="P",
        nargs="*",
    )
    save_descriptors: bool = flag(False, "write descriptors/<set>.npz")
    store: Path | None = flag(
        None,
        "keep descriptors and indexes here, and use those that are (default: beside CKPT for own photos, for an "
        "index other than Flat and with --engine, else in memory)",
        group="retrieval",
    )
    output_dir: Path | None = flag(None, "results go here instead", group="output")


@dataclass(frozen=True)
class PhotoOptions:
    """Own photos to look up in a gallery."""

    localize: Path | None = flag(
        None,
        "a photo, or a folder of photos, to look up; - reads paths from standard input, a line each, and answers each by a "
        "line of JSON",
        metavar="PHOTO",
    )
    gallery: Path | None = flag(None, "folder of images to look them up in, or a CSV file that lists them")
    image_size: int | None = flag(
        None,
        "longer side in pixels that photos and gallery are brought to (default: that of the network's training)",
        least=97,
    )
    near: tuple[float, float, float] | None = flag(
        None, "only gallery images so near to a place: UTM east, north, metres", metavar=("EAST", "NORTH", "METRES")
    )
    near_latlon: tuple[float, float, float] | None = flag(
        None, "the same by degrees", metavar=("LATITUDE", "LONGITUDE", "METRES")
    )
    camera: str | None = flag(None, "only gallery images in camera folders of this name")
    positions: Path | None = flag(
        None,
        "the gallery's positions, path,latitude,longitude or path,easting,northing (default: from names or EXIF)",
        metavar="CSV",
    )
    zone: str | None = flag(
        None,
        "UTM zone of the gallery's positions, as 30N or 30S (hemisphere; default: that of most of its latitudes and "
        "longitudes)",
        metavar="ZONE",
    )
    allow_missing_rows: bool = flag(False, "the CSV file may list images that are not in the gallery")
    reject: float | None = flag(
        None,
        "answer unknown where the probability that the first match is right is below P",
        above=0,
        most=1,
        metavar="P",
    )
    top: int = flag(5, "matches per photo", least=1)
    prune: bool = flag(
        False, "drop from the store all descriptors of this network and size that are not this gallery's"
    )
    json: bool = flag(False, "print JSON and nothing else")
