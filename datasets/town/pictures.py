"""The pictures of a town: where the camera stands for each, how it is drawn, and its files."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.files import hard_link, write_whole
from datasets.town.chance import keyed
from datasets.town.drawing.camera import develop
from datasets.town.drawing.scene import Stand, make_view, paint
from datasets.town.drawing.textures import Atlas
from datasets.town.passes import MERGED, PASSES, Chunk, Pass, Settings
from datasets.town.world.plan import build_street
from datasets.town.world.street import Street
from datasets.town.world.styles import real_optics, synthetic_optics, weather
from datasets.town.world.traffic import traffic

TURNS = {"front": 0.0, "rear": 180.0, "left": 80.0, "right": -80.0, "ahead": 0.0}  # degrees to the left


class Frame(NamedTuple):
    """One picture: its pass, camera and place, the place's position along the street, and its name without suffix."""

    run: Pass
    camera: str
    place: int
    x: float
    stand: Stand
    name: str


def stand_of(settings: Settings, run: Pass, place: int, x: float, street: Street) -> Stand:
    """Return where the camera car stands in a pass. Queries are displaced as the knobs allow, by less than 3 m."""
    k, lane = settings.knobs, street.lane
    if run.still:
        return Stand(x, lane, 0.0)
    left, right = (min(k.jitter_side, max(1.0, room)) for room in street.room)
    rng = keyed(settings.seed, run.town, run.name, place, "stand")
    along, side = rng.uniform(-k.jitter_along, k.jitter_along), rng.uniform(-right, left)
    heading = math.radians(min(max(rng.normal(0, k.jitter_heading / 2), -k.jitter_heading), k.jitter_heading))
    pitch, roll = (math.radians(v) for v in rng.uniform(-k.jitter_tilt, k.jitter_tilt, 2))
    height = rng.uniform(-k.jitter_height, k.jitter_height)
    return Stand(x + along, lane + side, height, heading, pitch, roll * 0.6)


def street_of(settings: Settings, chunk: Chunk) -> Street:
    """Return the street of a piece of work."""
    return build_street(settings.seed, chunk.town, chunk.street, chunk.count, settings.knobs)


def frames(settings: Settings, chunk: Chunk) -> Iterator[Frame]:
    """Yield the pictures of a piece of work."""
    street = street_of(settings, chunk)
    for run in settings.drawn(chunk.town):
        for i in range(chunk.first, chunk.stop):
            place, x = chunk.before + i, street.places[i]
            stand = stand_of(settings, run, place, x, street)
            east, north = street.utm(stand.x, street.centre(stand.x) + stand.off)
            name = f"@{east:.3f}@{north:.3f}@{run.town}@{run.weather}@{run.name}@"
            for camera in run.cameras:
                yield Frame(run, camera, place, x, stand, f"{name}{camera}@{place:06d}@")


def targets(frame: Frame) -> tuple[str, str | None, str | None]:
    """Return the paths of image, label and merged copy in the town's folder; None for a file that a pass lacks."""
    run, camera, name = frame.run, frame.camera, frame.name
    if run.labels is None:
        return f"{run.images}/{name}.jpg", None, f"{MERGED}/{name}.jpg"
    return f"{run.images}/{camera}/{name}.jpg", f"{run.labels}/{camera}/{name}.png", None


def make_atlas(settings: Settings) -> Atlas:
    """Return an empty store of textures, as fine as the size of the pictures needs."""
    return Atlas(min(max(settings.size[0] / 14.0, 12.0), 40.0))


def render(settings: Settings, chunk: Chunk, frame: Frame, atlas: Atlas) -> tuple[Image.Image, np.ndarray, int]:
    """Draw one picture; returns the photo, its label (raw ids, uint8 [H, W]) and the JPEG quality of its camera."""
    run, camera, place = frame.run, frame.camera, frame.place
    street = street_of(settings, chunk)
    optics = real_optics(settings.knobs.domain_gap) if chunk.town == "robotcar" else synthetic_optics()
    light = weather(run.weather)
    view = make_view(street, frame.stand, math.radians(TURNS[camera]), optics, settings.size)
    rng = keyed(settings.seed, run.town, run.name, place, "traffic")
    shift = [p.name for p in PASSES.values() if p.town == run.town].index(run.name)
    moving = traffic(street, frame.x, camera in ("left", "right"), place + shift, rng, light, settings.knobs)
    key = (settings.seed, run.town, run.name, place, camera)
    canvas, halos, lamps = paint(street, view, moving, light, atlas, key)
    image, label = develop(canvas, halos, lamps, light, optics, key)
    return image, label, optics.quality


def _save(image: Image.Image, path: Path, **options) -> None:
    write_whole(path, lambda part: image.save(part, **options))


def draw_chunk(out: Path, settings: Settings, chunk: Chunk) -> None:
    """Draw the missing pictures of ``chunk`` into the town's folder ``out``."""
    atlas = make_atlas(settings)
    for frame in frames(settings, chunk):
        photo, mask, merged = (None if p is None else out / p for p in targets(frame))
        if not photo.exists() or (mask is not None and not mask.exists()):
            image, label, quality = render(settings, chunk, frame, atlas)
            if mask is not None and not mask.exists():
                flat = np.zeros((*label.shape, 4), np.uint8)
                flat[..., 0], flat[..., 3] = label, 255
                _save(Image.fromarray(flat), mask, format="PNG", compress_level=3)
            if not photo.exists():
                _save(image, photo, format="JPEG", quality=quality)
        if merged is not None and not merged.exists():
            hard_link(photo, merged)
