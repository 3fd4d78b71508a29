"""Pictures of retrievals and of attention, put together from photos."""

import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from datasets.naming import class_colours, class_names
from datasets.reading.transforms import read_image
from utils.report.attention import LEAST_SPAN, Look, View, overlay
from utils.report.cases import Case
from utils.report.theme import LIGHT
from utils.system.tables import printable

TILE, GAP, MARGIN, HEAD, FRAME = 256, 14, 24, 44, 7
PAPER, INK, MUTED = LIGHT.paper, LIGHT.ink, LIGHT.muted
FOUND, MISSED, MISSING = LIGHT.found, LIGHT.missed, (208, 211, 216)

Photos = Callable[[str], Image.Image | None]
"""A photo by path, at most `THUMBNAIL` px wide; None if it cannot be read."""
THUMBNAIL = 320


def load_thumbnail(path: str) -> Image.Image | None:
    """A photo at most `THUMBNAIL` px wide (and 1.5 times that high), None if it cannot be read (any more)."""
    try:
        photo = Image.fromarray(read_image(path).permute(1, 2, 0).numpy())
    except ValueError:
        return None
    photo.thumbnail((THUMBNAIL, THUMBNAIL * 3 // 2), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return photo


def shown_classes(views: Sequence[View], num_classes: int) -> list[int]:
    """Classes that cover at least half a percent of some view."""
    shares = [np.bincount(v.look.classes.ravel(), minlength=num_classes) / v.look.classes.size for v in views]
    return np.flatnonzero(np.max(shares, axis=0) >= 0.005).tolist() if shares else []


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: it has ticks and crosses."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def wrapped(text: str, width: int) -> str:
    """Text of size 15, whose letters are about 7.5 px wide, broken into lines of `width` px."""
    return textwrap.fill(text, int(width / 7.5))


def framed(photo: Image.Image, correct: bool | None) -> Image.Image:
    """The photo in a frame, green and with a tick if correct, red and with a cross if not, thin and grey for a query."""
    image = photo.copy()
    draw = ImageDraw.Draw(image)
    colour = MISSING if correct is None else FOUND if correct else MISSED
    frame = (0, 0, image.width - 1, image.height - 1)
    draw.rectangle(frame, outline=colour, width=2 if correct is None else FRAME)
    if correct is not None:
        draw.rectangle((0, 0, 30, 30), colour)
        draw.text((16, 16), "✓" if correct else "✗", "white", font(20, True), "mm")
    return image


def fitted(photo: Image.Image | None, size: tuple[int, int]) -> Image.Image:
    """The photo filling a tile, cut if its shape differs; a grey tile with a word for a photo that cannot be read."""
    if photo is not None:
        return ImageOps.fit(photo, size, Image.Resampling.LANCZOS)
    image = Image.new("RGB", size, MISSING)
    text = wrapped("photo cannot be read", size[0] - 2 * FRAME)
    ImageDraw.Draw(image).multiline_text((size[0] / 2, size[1] / 2), text, INK, font(14), "mm", align="center")
    return image


def tile_size(photo: Image.Image | None, width: int = TILE) -> tuple[int, int]:
    """A tile as tall as the photo's shape asks for, within reason."""
    ratio = photo.height / photo.width if photo else 0.5625
    return width, round(width * min(max(ratio, 0.5), 1.35))


def retrieval_panel(cases: Sequence[Case], photos: Photos, title: str) -> Image.Image:
    """Cases below each other: the query, its first retrieved images framed by verdict, and the nearest true one if missed."""
    retrieved = max(len(case.retrieved) for case in cases)
    columns = 1 + retrieved + any(not case.found for case in cases)
    sizes = [tile_size(photos(case.query.path)) for case in cases]
    height = sum(30 + size[1] + 74 for size in sizes)
    sheet, draw = _sheet(2 * MARGIN + columns * (TILE + GAP) - GAP, height, title)
    top = MARGIN + HEAD
    for case, size in zip(cases, sizes):
        draw.text((MARGIN, top), case.headline, INK, font(16))
        top += 30
        tiles = [case.query, *case.retrieved, *([case.truth] if case.truth else [])]
        places = [*range(1 + len(case.retrieved)), columns - 1]
        for column, tile in zip(places, tiles):
            left = MARGIN + column * (TILE + GAP)
            sheet.paste(framed(fitted(photos(tile.path), size), tile.correct), (left, top))
            below = top + size[1] + 6
            draw.text((left, below), tile.role, INK, font(15, True))
            draw.multiline_text((left, below + 21), wrapped(tile.caption, TILE), MUTED, font(15), spacing=3)
        if not case.found:
            x = MARGIN + (columns - 1) * (TILE + GAP) - GAP // 2
            draw.line((x, top, x, top + size[1]), MUTED, 2)
        top += size[1] + 74
    return sheet


def _sheet(width: int, height: int, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """White paper with a title; `height` is that of what comes below it."""
    sheet = Image.new("RGB", (width, 2 * MARGIN + HEAD + height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), printable(title), INK, font(24, True))
    return sheet, draw


class Panels(NamedTuple):
    """Which pictures of a view mean something: a network may have no attention, or a head that was never trained."""

    attention: bool = True
    classes: bool = True


def view_pictures(view: View, span: float, num_classes: int, panels: Panels) -> dict[str, Image.Image]:
    """The pictures of one view by caption: photo, attention (before training too, if known), predicted classes."""
    pictures = {"photo": Image.fromarray(view.look.photo)}
    if panels.attention and view.before is not None:
        pictures["attention before training"] = overlay(view.before, span)
    if panels.attention:
        pictures["attention"] = overlay(view.look, span)
    if panels.classes:
        pictures["predicted classes"] = Image.fromarray(class_colours(num_classes)[view.look.classes])
    return pictures


def attention_sheet(views: Sequence[View], span: float, num_classes: int, title: str, panels: Panels) -> Image.Image:
    """Views below each other, and the key of the colours; `panels` has one kind of picture at least."""
    wide = 384
    rows = [view_pictures(view, span, num_classes, panels) for view in views]
    sizes = [tile_size(row["photo"], wide) for row in rows]
    width = len(rows[0]) * (wide + GAP) - GAP
    keys = _keys(views, span, num_classes, panels, width)
    sheet, draw = _sheet(2 * MARGIN + width, 26 + sum(size[1] + GAP for size in sizes) + keys.height, title)
    top = MARGIN + HEAD
    for column, name in enumerate(rows[0]):
        draw.text((MARGIN + column * (wide + GAP), top), name, INK, font(15, True))
    top += 26
    for row, size in zip(rows, sizes):
        for column, picture in enumerate(row.values()):
            sheet.paste(fitted(picture, size), (MARGIN + column * (wide + GAP), top))
        top += size[1] + GAP
    sheet.paste(keys, (MARGIN, top))
    return sheet


def _keys(views: Sequence[View], span: float, num_classes: int, panels: Panels, width: int) -> Image.Image:
    """What the colours of a sheet mean: the scale of attention, then the classes, as many to a line as fit."""
    names, colours = class_names(num_classes), class_colours(num_classes)
    x, top, marks = 0, 42 if panels.attention else 0, []
    for c in shown_classes(views, num_classes) if panels.classes else []:
        needed = 23 + round(font(14).getlength(names[c])) + 18
        if x and x + needed > width:
            x, top = 0, top + 26
        marks.append((x, top, c))
        x += needed
    keys = Image.new("RGB", (width, top + 40), PAPER)
    draw = ImageDraw.Draw(keys)
    if panels.attention:
        keys.paste(scale_bar(240, 16), (0, 8))
        words = f"attention from 1/{span:.2f} to {span:.2f} times the image mean; at the mean the photo is unchanged"
        draw.text((254, 7), words, MUTED, font(14))
    for x, top, c in marks:
        draw.rectangle((x, top + 2, x + 16, top + 18), tuple(map(int, colours[c])), MUTED)
        draw.text((x + 23, top + 1), names[c], INK, font(14))
    return keys


def scale_bar(width: int, height: int) -> Image.Image:
    """The colours of `overlay` on a grey photo."""
    ramp = np.exp(np.linspace(-1, 1, width) * np.log(LEAST_SPAN))[None].repeat(height, 0).astype(np.float32)
    grey = np.full((height, width, 3), 150, np.uint8)
    return overlay(Look(grey, ramp, np.zeros((height, width), np.int64)), LEAST_SPAN)
