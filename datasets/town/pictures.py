"""Which pictures the procedural towns consist of, and how one of them gets onto the disk."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.town.drawing.camera import develop
from datasets.town.drawing.scene import Stand, make_view, paint
from datasets.town.drawing.textures import Atlas
from datasets.town.world.difficulty import Knobs
from datasets.town.world.street import Street, build_street, street_sizes
from datasets.town.world.styles import SYNTHETIC, WEATHERS, keyed, real_optics
from datasets.town.world.traffic import traffic

TURNS = {"front": 0.0, "rear": 180.0, "left": 80.0, "right": -80.0, "ahead": 0.0}  # degrees to the left
CHUNK = 14  # neighbouring places drawn by one worker in one go, so that their textures are drawn once


@dataclass(frozen=True)
class Pass:
    """One drive through a town: weather, cameras, and the folders of images and labels under OUT."""

    town: str
    name: str
    weather: str
    cameras: tuple[str, ...]
    images: str
    labels: str | None
    still: bool = False  # cameras stand exactly on the places


def _queries(name: str, group: str, cameras: tuple[str, ...], weathers: dict[str, str]) -> list[Pass]:
    base = f"idda/{name}"
    return [
        Pass(name, run, weather, cameras, f"{base}/queries_{run}/{group}", f"{base}/queries_labels_{run}/{group}")
        for run, weather in weathers.items()
    ]


def _town(name: str, group: str, cameras: tuple[str, ...]) -> list[Pass]:
    base = f"idda/{name}"
    gallery = Pass(name, "gallery", "clear", cameras, f"{base}/gallery/{group}", f"{base}/gallery_labels/{group}", True)
    return [gallery, *_queries(name, group, cameras, RAIN)]


def _by_name(passes: list[Pass]) -> dict[str, Pass]:
    return {f"{p.town}/{p.name}": p for p in passes}


CONDITIONS = ("overcast", "rain", "snow", "sun", "night")
RAIN = {"rain": "hard_rain", "rain_fresh": "hard_rain"}
MORE = {"snow": "snow", "sun": "sun", "night": "night"}
TOWNS = (("town10", "front_rear", ("front", "rear")), ("town3", "left_right", ("left", "right")))
STANDARD_PASSES = _by_name(
    [p for town in TOWNS for p in _town(*town)]
    + [Pass("robotcar", c, c, ("ahead",), f"robotcar/{c}", None, c == "overcast") for c in CONDITIONS]
)
"""What a town consists of, in the layouts of the recorded data sets."""
PASSES = STANDARD_PASSES | _by_name([p for town in TOWNS for p in _queries(*town, MORE)])
"""All that can be drawn: the synthetic towns in more conditions, with labels, on request."""
MERGED = "robotcar_all"


@dataclass(frozen=True)
class Settings:
    """Everything the pictures depend on; `passes` are names of PASSES, and no picture depends on which others are drawn."""

    size: tuple[int, int]
    places: int
    seed: int
    knobs: Knobs = field(default_factory=Knobs)
    passes: tuple[str, ...] = tuple(STANDARD_PASSES)

    def drawn(self, town: str) -> list[Pass]:
        """The passes of a town that are drawn, in the order of PASSES."""
        return [p for name, p in PASSES.items() if p.town == town and name in self.passes]


@dataclass(frozen=True)
class Chunk:
    """Neighbouring places of one street, numbered within the street from ``first`` to before ``stop``."""

    town: str
    street: int
    count: int  # places of the street
    first: int
    stop: int
    before: int  # places in the streets before


def chunks(settings: Settings) -> list[Chunk]:
    """Return the units of work, in order."""
    out = []
    for town in dict.fromkeys(p.town for p in PASSES.values()):
        if not settings.drawn(town):
            continue
        before = 0
        for index, count in enumerate(street_sizes(settings.places)):
            out += [Chunk(town, index, count, a, min(a + CHUNK, count), before) for a in range(0, count, CHUNK)]
            before += count
    return out


def stand_of(settings: Settings, run: Pass, place: int, x: float, street: Street) -> Stand:
    """Return where the camera car stands in a pass; queries are displaced as the knobs allow, by less than 3 m."""
    k, lane = settings.knobs, street.lane
    if run.still:
        return Stand(x, lane, 0.0)
    left, right = (min(k.jitter_side, max(1.0, room)) for room in street.room)
    rng = keyed(settings.seed, run.town, run.name, place, "stand")
    along, side = rng.uniform(-k.jitter_along, k.jitter_along), rng.uniform(-right, left)
    heading = math.radians(min(max(rng.normal(0, k.jitter_heading / 2), -k.jitter_heading), k.jitter_heading))
    pitch, roll = (math.radians(v) for v in rng.uniform(-k.jitter_tilt, k.jitter_tilt, 2))
    return Stand(
        x + along,
        lane + side,
        rng.uniform(-k.jitter_height, k.jitter_height),
        heading,
        pitch,
        roll * 0.6,
    )


def frames(settings: Settings, chunk: Chunk):
    """Yield (pass, camera, place, x, stand, base name without suffix) for the pictures of a chunk."""
    street = build_street(settings.seed, chunk.town, chunk.street, chunk.count, settings.knobs)
    for run in settings.drawn(chunk.town):
        for i in range(chunk.first, chunk.stop):
            place, x = chunk.before + i, street.places[i]
            stand = stand_of(settings, run, place, x, street)
            east, north = street.utm(stand.x, street.centre(stand.x) + stand.off)
            for camera in run.cameras:
                yield (
                    run,
                    camera,
                    place,
                    x,
                    stand,
                    f"@{east:.3f}@{north:.3f}@{run.town}@{run.weather}@{run.name}@{camera}@{place:06d}@",
                )


def targets(run: Pass, camera: str, name: str) -> tuple[str, str | None, str | None]:
    """Return the paths of image, label and merged copy under OUT (None where there is none)."""
    if run.labels is None:
        return f"{run.images}/{name}.jpg", None, f"{MERGED}/{name}.jpg"
    return f"{run.images}/{camera}/{name}.jpg", f"{run.labels}/{camera}/{name}.png", None


def render(settings: Settings, chunk: Chunk, run: Pass, camera: str, place: int, x: float, stand: Stand, atlas: Atlas):
    """Draw one picture; returns (PIL image, raw ids uint8 [H, W], JPEG quality)."""
    street = build_street(settings.seed, chunk.town, chunk.street, chunk.count, settings.knobs)
    optics = real_optics(settings.knobs.domain_gap) if chunk.town == "robotcar" else SYNTHETIC
    weather = WEATHERS[run.weather]
    view = make_view(street, stand, math.radians(TURNS[camera]), optics, settings.size)
    rng = keyed(settings.seed, run.town, run.name, place, "traffic")
    shift = [p.name for p in PASSES.values() if p.town == run.town].index(run.name)
    moving = traffic(street, x, camera in ("left", "right"), place + shift, rng, weather, settings.knobs)
    key = (settings.seed, run.town, run.name, place, camera)
    canvas, halos, lamps = paint(street, view, moving, weather, atlas, key)
    image, label = develop(canvas, halos, lamps, weather, optics, key)
    return image, label, optics.quality


def _save(image: Image.Image, path: Path, **options) -> None:
    """Write to a temporary name, then rename: a file that exists is whole."""
    part = path.with_name(f".{path.name}.part")
    image.save(part, **options)
    os.replace(part, path)


def draw_chunk(out: Path, settings: Settings, chunk: Chunk) -> int:
    """Draw the missing pictures of ``chunk`` under ``out``; returns how many pictures it covers."""
    atlas, count = Atlas(min(max(settings.size[0] / 14.0, 12.0), 40.0)), 0
    for run, camera, place, x, stand, name in frames(settings, chunk):
        count += 1
        paths = [None if p is None else out / p for p in targets(run, camera, name)]
        photo, mask, merged = paths
        if not photo.exists() or (mask is not None and not mask.exists()):
            image, label, quality = render(settings, chunk, run, camera, place, x, stand, atlas)
            if mask is not None and not mask.exists():
                flat = np.zeros((*label.shape, 4), np.uint8)
                flat[..., 0], flat[..., 3] = label, 255
                _save(Image.fromarray(flat), mask, format="PNG", compress_level=3)
            if not photo.exists():
                _save(image, photo, format="JPEG", quality=quality)
        if merged is not None and not merged.exists():
            link(photo, merged)
    return count


def link(source: Path, target: Path) -> None:
    """Give ``source`` a second name, or copy it where the file system has no hard links."""
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    os.replace(part, target)
