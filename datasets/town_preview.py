"""Contact sheet of a drawn town: every town, camera and condition, labels in colour beside the pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from datasets.naming import CLASS_COLOURS, CLASS_NAMES, RAW_TO_CLASS
from datasets.town_facade import font
from datasets.town_jobs import CONDITIONS, MORE, PASSES, Settings, chunks, frames, targets

LONG_NAMES = {"TLight": "traffic light", "TSign": "traffic sign"}
INK, PAPER, TILE, GAP, BAND = (32, 32, 36), (250, 250, 248), 384, 8, 24
COLUMNS = 5


def colour_label(raw: np.ndarray) -> Image.Image:
    """Return raw ids uint8 [H, W] as a picture of class colours, ignored pixels black."""
    table = np.array([*CLASS_COLOURS, *[(0, 0, 0)] * (256 - len(CLASS_COLOURS))], np.uint8)
    return Image.fromarray(table[RAW_TO_CLASS[raw]])


def contact_sheet(out: Path, settings: Settings, target: Path) -> None:
    """Write the contact sheet of the town in ``out`` to ``target`` (PNG)."""
    high = round(TILE * settings.size[1] / settings.size[0])
    found = _paths(out, settings)
    captions = {"gallery": "gallery, clear", "rain": "queries, rain", "rain_fresh": "queries, rain again"}
    captions |= {name: f"queries, {name}" for name in MORE}
    rows = []
    for town, camera in (("town10", "front"), ("town10", "rear"), ("town3", "left"), ("town3", "right")):
        for place in _some(settings.places, 2):
            tiles = []
            for run, caption in captions.items():
                if (town, run, camera, place) not in found:
                    continue
                photo, label = found[town, run, camera, place]
                tiles.append((f"{town} {camera}, place {place}: {caption}", Image.open(photo).convert("RGB")))
                if run in ("gallery", "rain"):
                    tiles.append(("its label", colour_label(np.asarray(Image.open(label))[..., 0])))
            rows += [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    for place in _some(settings.places, 6):
        photos = {
            c: found["robotcar", c, "ahead", place][0] for c in CONDITIONS if ("robotcar", c, "ahead", place) in found
        }
        tiles = [(f"robotcar, place {place}: {c}", Image.open(photo).convert("RGB")) for c, photo in photos.items()]
        rows += [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    wide = COLUMNS * (TILE + GAP) + GAP
    sheet = Image.new("RGB", (wide, len(rows) * (high + BAND + GAP) + 2 * BAND + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, tiles in enumerate(rows):
        y = GAP + i * (high + BAND + GAP)
        for j, (caption, image) in enumerate(tiles):
            x = GAP + j * (TILE + GAP)
            pen.text((x, y), caption, fill=INK, font=font(15))
            sheet.paste(
                image.resize(
                    (TILE, high), Image.Resampling.NEAREST if caption == "its label" else Image.Resampling.BICUBIC
                ),
                (x, y + BAND - 4),
            )
    _legend(pen, sheet.height - 2 * BAND + 4)
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(part, format="PNG")
    os.replace(part, target)


def _paths(out: Path, settings: Settings) -> dict:
    found = {}
    for chunk in chunks(settings):
        for run, camera, place, _x, _stand, name in frames(settings, chunk):
            photo, label, _ = targets(run, camera, name)
            found[run.town, run.name, camera, place] = (out / photo, None if label is None else out / label)
    assert {(town, name) for town, name, _, _ in found} == {(PASSES[p].town, PASSES[p].name) for p in settings.passes}
    return found


def _some(places: int, count: int) -> list[int]:
    """Return ``count`` places spread over the town."""
    return sorted({min(places - 1, int((i + 0.5) * places / count)) for i in range(count)})


def _legend(pen: ImageDraw.ImageDraw, y: int) -> None:
    x = GAP
    for name, rgb in zip(CLASS_NAMES, CLASS_COLOURS):
        name = LONG_NAMES.get(name, name.lower())
        pen.rectangle((x, y + 4, x + 14, y + 18), fill=rgb)
        pen.text((x + 19, y + 2), name, fill=INK, font=font(14))
        x += 19 + round(pen.textlength(name, font=font(14))) + 16
