"""Where were these photos taken? Each is looked up in a gallery of images whose positions are known."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.naming import KINDS, camera_of, count_suffixes, list_folder
from datasets.places import ImageSet
from datasets.positions.find import Zone, locate, located_images, name_position, require_positions
from datasets.reading.batches import find_unusable
from datasets.sizes import LongerSide
from utils.retrieval.screening import Screening
from utils.system.logs import LOGGER
from utils.system.tables import align, printable

SPREAD_AT = 5
SAME_PLACE_M = KINDS["utm"].eval_threshold_m


@dataclass(frozen=True)
class Match:
    """A gallery image: its UTM east and north in metres, and how far its descriptor is from the photo's (Euclidean).

    Attributes
    ----------
    latitude, longitude : the same position in degrees, None where the UTM zone is not known.
    """

    path: str
    east: float
    north: float
    descriptor_distance: float
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True)
class Localisation:
    """What was found for a photo.

    Attributes
    ----------
    matches : gallery images, nearest descriptor first; the first one's position is the answer. Empty if none was allowed.
    spread_m : the largest distance in metres between any two positions among the first five matches, however many `matches`
        holds: small if they agree on a place, large if in doubt. None if fewer than five images were searched.
    zone : UTM zone of the positions, None if it is not known.
    probability : that the first match is right, 0..1; None if the checkpoint has no calibration, or all images searched lie
        at one place.
    unknown : whether the photo is taken to show none of the places: its probability is too low, or None.
    """

    photo: str
    matches: tuple[Match, ...]
    spread_m: float | None
    zone: str | None = None
    probability: float | None = None
    unknown: bool = False

    def to_json(self) -> str:
        """One line of ASCII."""
        return json.dumps(asdict(self))


def photo_paths(path: str | Path) -> list[str]:
    """A photo, or all images below a folder; FileNotFoundError or ValueError if there are none."""
    path = Path(path)
    if path.is_dir():
        listing = list_folder(path)
        if listing.unread:
            LOGGER.info("%s: not read: %s", path, count_suffixes(listing.unread))
        return listing.images
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such photo or folder of photos")
    return [str(path)]


def usable_photos(photos: Sequence[str], least: int | LongerSide) -> tuple[list[str], dict[str, str]]:
    """The photos that can be looked up, and what is wrong with each other one, which is logged; ValueError if none can.

    Parameters
    ----------
    least : see `datasets.sizes.size_fault`.
    """
    faults = {path: fault for path, fault in find_unusable(photos, least) if fault}
    if len(faults) == len(photos):
        others = f" (nor can {len(faults) - 1} other photos be used)" if len(faults) > 1 else ""
        raise ValueError(f"{next(iter(faults.values()))}{others}")
    for fault in faults.values():
        LOGGER.warning("not looked up: %s", fault)
    return [path for path in photos if path not in faults], faults


def usable_gallery(
    folder: Path,
    csv_file: Path | None,
    zone: Zone | None,
    allow_missing_rows: bool,
    screening: Screening,
    least: int | LongerSide,
) -> tuple[ImageSet, Zone | None]:
    """A gallery and its zone, on request without the images that cannot be used or have no position.

    Arguments as of `datasets.positions.find.located_images`; `screening` says whether images may be left out.
    """
    if not screening.skip:
        return located_images(folder, csv_file, zone, allow_missing_rows)
    listing = list_folder(folder)
    for path in listing.images:
        try:
            name_position(path)
        except ValueError as error:
            screening.reject(path, str(error))
    usable = screening.usable_paths([path for path in listing.images if path not in screening.rejected], least)
    some_left_out = len(usable) < len(listing.images)  # the CSV file may list them
    found = locate(usable, csv_file, folder, zone, allow_missing_rows or some_left_out, listing.unread)
    placed = ~np.isnan(found.positions).any(axis=1)
    if not placed.any():
        require_positions(usable, found.positions, found.faults)
        raise ValueError(f"{folder}: none of its {len(listing.images)} images can be used; replace them")
    for path in np.array(usable)[~placed].tolist():
        screening.reject(path, f"{path}: no position in its name, in a CSV file or in its EXIF data")
    paths = tuple(np.array(usable)[placed].tolist())
    cameras = np.array([camera_of(path) for path in paths])
    return ImageSet(str(folder), paths, found.positions[placed], cameras, report=found.report), found.zone


def spread(positions: np.ndarray) -> float:
    """The largest distance between any two of N positions (N, 2), in their unit; 0 for a single one."""
    return float(np.linalg.norm(positions[:, None] - positions[None], axis=-1).max())


def format_localisations(localisations: Sequence[Localisation], gallery: ImageSet) -> str:
    """A table per photo: matches, nearest descriptor first, with paths relative to the gallery's folder.

    The spread of the first five is given only if five gallery images lie at the place found: a gallery with one image of
    each place has no five that could agree.
    """
    blocks = []
    for found in localisations:
        rows = [["match", "east m", "north m", "descriptor distance"]]
        for rank, m in enumerate(found.matches, 1):
            path = printable(os.path.relpath(m.path, gallery.folder))
            rows.append([f"{rank} {path}", f"{m.east:.2f}", f"{m.north:.2f}", f"{m.descriptor_distance:.4f}"])
        if not found.matches:
            blocks.append(f"{printable(found.photo)}: no gallery image was allowed")
            continue
        best = found.matches[0]
        where = "unknown; the best match lies at" if found.unknown else "at"
        title = f"{printable(found.photo)}: {where} {best.east:.2f} east, {best.north:.2f} north"
        if best.latitude is not None:
            title += f" (latitude {best.latitude:.6f}, longitude {best.longitude:.6f})"
        if found.probability is not None:
            title += f"; right with probability {found.probability:.3f}"
        if found.spread_m is not None and could_agree(best, gallery):
            title += f"; the first {SPREAD_AT} matches lie within {found.spread_m:.1f} m of each other"
        blocks.append("\n".join([title, *(f"  {line}" for line in align(rows))]))
    return "\n\n".join(blocks)


def could_agree(best: Match, gallery: ImageSet) -> bool:
    """Whether as many gallery images as the spread compares lie within 25 m of a match: only then can they agree."""
    distances = np.linalg.norm(gallery.positions - (best.east, best.north), axis=1)
    return int((distances <= SAME_PLACE_M).sum()) >= SPREAD_AT


def to_json(localisations: Sequence[Localisation], faults: Mapping[str, str] | None = None) -> str:
    """ASCII: `{"localisations": [{"photo", "matches": [{...}], "spread_m", "zone", ...}]}`, with the attributes of
    `Localisation`, a match with the attributes of `Match`.

    Paths are whole, so that a program can open them; `spread_m` is null if the gallery has fewer than five images.
    Where photos could not be looked up, `"errors": [{"photo", "error"}]` says why.
    """
    content: dict[str, list] = {"localisations": [asdict(found) for found in localisations]}
    if faults:
        content["errors"] = [{"photo": photo, "error": fault} for photo, fault in faults.items()]
    return json.dumps(content, indent=2)
