"""Contact sheet of a drawn town: every town, camera and condition, with coloured labels beside the photos."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from datasets.files import write_whole
from datasets.naming import CLASS_COLOURS, CLASS_NAMES, RAW_TO_CLASS
from datasets.town.drawing.facades import font
from datasets.town.passes import CONDITIONS, MORE, Settings, chunks
from datasets.town.pictures import frames, targets

INK, PAPER, TILE, GAP, BAND = (32, 32, 36), (250, 250, 248), 384, 8, 24
COLUMNS = 5
ITS_LABEL = "its label"
CAPTIONS = {"gallery": "gallery, clear", "rain": "queries, rain", "rain_fresh": "queries, rain again"}
CAPTIONS |= {name: f"queries, {name}" for name in MORE}

Sheet = list[list[tuple[str, Image.Image]]]
"""Rows of captioned pictures."""


def colour_label(raw: np.ndarray) -> Image.Image:
    """Return raw ids, uint8 [H, W], as a picture of class colours; ignored pixels are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(CLASS_COLOURS)] = CLASS_COLOURS
    return Image.fromarray(table[RAW_TO_CLASS[raw]])


def contact_sheet(out: Path, settings: Settings, target: Path) -> None:
    """Write the contact sheet of the town in ``out`` to ``target`` (PNG)."""
    high = round(TILE * settings.size[1] / settings.size[0])
    rows = _rows(out, settings)
    wide = COLUMNS * (TILE + GAP) + GAP
    sheet = Image.new("RGB", (wide, len(rows) * (high + BAND + GAP) + 2 * BAND + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, tiles in enumerate(rows):
        y = GAP + i * (high + BAND + GAP)
        for j, (caption, image) in enumerate(tiles):
            x = GAP + j * (TILE + GAP)
            pen.text((x, y), caption, fill=INK, font=font(15))
            smooth = Image.Resampling.NEAREST if caption == ITS_LABEL else Image.Resampling.BICUBIC
            sheet.paste(image.resize((TILE, high), smooth), (x, y + BAND - 4))
    _legend(pen, sheet.height - 2 * BAND + 4)
    write_whole(target, lambda part: sheet.save(part, format="PNG"))


def _rows(out: Path, settings: Settings) -> Sheet:
    """Load what the sheet shows: two places of each synthetic camera, six of the other town."""
    files = {}
    for chunk in chunks(settings):
        for frame in frames(settings, chunk):
            files[frame.run.town, frame.run.name, frame.camera, frame.place] = targets(frame)
    groups = []
    for town, camera in (("town10", "front"), ("town10", "rear"), ("town3", "left"), ("town3", "right")):
        groups += [(town, camera, place, CAPTIONS) for place in _some(settings.places, 2)]
    groups += [("robotcar", "ahead", place, {c: c for c in CONDITIONS}) for place in _some(settings.places, 6)]
    rows: Sheet = []
    for town, camera, place, captions in groups:
        tiles = []
        where = town if town == "robotcar" else f"{town} {camera}"
        for run, caption in captions.items():
            photo, label, _ = files.get((town, run, camera, place), (None, None, None))
            if photo is not None:
                tiles.append((f"{where}, place {place}: {caption}", Image.open(out / photo).convert("RGB")))
            if label is not None and run in ("gallery", "rain"):
                tiles.append((ITS_LABEL, colour_label(np.asarray(Image.open(out / label))[..., 0])))
        rows += [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    return rows


def _some(places: int, count: int) -> list[int]:
    """Return ``count`` places spread over the town."""
    return sorted({min(places - 1, int((i + 0.5) * places / count)) for i in range(count)})


def _legend(pen: ImageDraw.ImageDraw, y: int) -> None:
    x = GAP
    for name, rgb in zip(CLASS_NAMES, CLASS_COLOURS):
        pen.rectangle((x, y + 4, x + 14, y + 18), fill=rgb)
        pen.text((x + 19, y + 2), name, fill=INK, font=font(14))
        x += 19 + round(pen.textlength(name, font=font(14))) + 16
