"""Pictures of retrievals and of attention, put together from photos."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.naming import class_colours, class_names
from datasets.reading.transforms import read_image
from utils.evaluation.tables import printable
from utils.report.attention import LEAST_SPAN, Look, View, overlay
from utils.report.cases import Case, Tile
from utils.report.theme import LIGHT

TILE, GAP, MARGIN, FRAME = 256, 14, 24, 7
PAPER, INK, MUTED = LIGHT.paper, LIGHT.ink, LIGHT.muted
FOUND, MISSED, MISSING = LIGHT.found, LIGHT.missed, (208, 211, 216)

Photos = Callable[[str], Image.Image | None]
"""A photo by path, at most `THUMBNAIL` px wide; None where it cannot be read."""
THUMBNAIL = 320


def load_thumbnail(path: str, width: int = THUMBNAIL) -> Image.Image | None:
    """A photo at most `width` px wide (and 1.5 times that high), None where it cannot be read (any more)."""
    try:
        photo = Image.fromarray(read_image(path).permute(1, 2, 0).numpy())
    except ValueError:
        return None
    photo.thumbnail((width, width * 3 // 2), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return photo


def class_picture(classes: np.ndarray, num_classes: int) -> Image.Image:
    """Predicted classes (H, W) as colours."""
    return Image.fromarray(class_colours(num_classes)[classes])


def shown_classes(views: Sequence[View], num_classes: int) -> list[int]:
    """Classes that cover at least half a percent of some view."""
    shares = [np.bincount(v.look.classes.ravel(), minlength=num_classes) / v.look.classes.size for v in views]
    return np.flatnonzero(np.max(shares, axis=0) >= 0.005).tolist() if shares else []


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: it has ticks and crosses."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def _wrapped(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """Text broken into lines of at most `width` px; a word that is longer is cut."""
    lines = [""]
    for word in text.split():
        while face.getlength(word) > width:
            word = word[: max(1, len(word) - 4)] + "…" if len(word) > 4 else word[:1]
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def placeholder(size: tuple[int, int]) -> Image.Image:
    """What stands where a photo cannot be read."""
    image = Image.new("RGB", size, MISSING)
    text = _wrapped("photo cannot be read", font(14), size[0] - 2 * FRAME)
    ImageDraw.Draw(image).multiline_text((size[0] / 2, size[1] / 2), text, INK, font(14), "mm", align="center")
    return image


def framed(photo: Image.Image, correct: bool | None, radius: int = 10) -> Image.Image:
    """The photo in a frame, solid green and with a tick if correct, red and with a cross if not, plain grey for a query."""
    width, height = photo.size
    colour = MISSING if correct is None else FOUND if correct else MISSED
    image = Image.new("RGB", photo.size, PAPER)
    # drawn at four times the size, so that round corners are smooth
    masks = []
    for inset in (0, FRAME if correct is not None else 2):
        mask = Image.new("L", (4 * width, 4 * height))
        box = (4 * inset, 4 * inset, 4 * (width - inset) - 1, 4 * (height - inset) - 1)
        ImageDraw.Draw(mask).rounded_rectangle(box, 4 * max(radius - inset, 3), 255)
        masks.append(mask.resize(photo.size, Image.Resampling.BOX))
    image.paste(colour, mask=masks[0])
    image.paste(photo, mask=masks[1])
    if correct is not None:
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, 30, 30), radius, colour)
        draw.text((16, 16), "✓" if correct else "✗", "white", font(20, True), "mm")
    return image


def fitted(photo: Image.Image | None, size: tuple[int, int]) -> Image.Image:
    """The photo filling a tile, cut where its shape differs."""
    if photo is None:
        return placeholder(size)
    width, height = photo.size
    ratio = max(size[0] / width, size[1] / height)
    crop = size[0] / ratio, size[1] / ratio
    left, top = (width - crop[0]) / 2, (height - crop[1]) / 2
    box = (left, top, left + crop[0], top + crop[1])
    return photo.resize(size, Image.Resampling.LANCZOS, box)


def tile_size(photo: Image.Image | None, width: int = TILE) -> tuple[int, int]:
    """A tile as tall as the photo's shape asks for, within reason."""
    ratio = photo.height / photo.width if photo else 0.5625
    return width, round(width * min(max(ratio, 0.5), 1.35))


def _caption(draw: ImageDraw.ImageDraw, at: tuple[float, float], first: str, second: str, width: int) -> None:
    draw.text(at, first, INK, font(15, True))
    draw.multiline_text((at[0], at[1] + 21), _wrapped(second, font(15), width), MUTED, font(15), spacing=3)


def retrieval_panel(cases: Sequence[Case], photos: Photos, title: str) -> Image.Image:
    """Cases below each other: the query, its first retrieved images framed by verdict, and the nearest true one if missed."""
    columns = 1 + max(len(case.retrieved) for case in cases) + any(not case.found for case in cases)
    width = 2 * MARGIN + columns * TILE + (columns - 1) * GAP
    sizes = [tile_size(photos(case.query.path)) for case in cases]
    heights = [30 + size[1] + 74 for size in sizes]
    sheet = Image.new("RGB", (width, 2 * MARGIN + 44 + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), printable(title), INK, font(24, True))
    top = MARGIN + 44
    for case, size, height in zip(cases, sizes, heights):
        draw.text((MARGIN, top), case.headline, INK, font(16))
        tiles = [case.query, *case.retrieved]
        for column, tile in enumerate(tiles):
            _place(sheet, tile, photos, column, top + 30, size)
        if not case.found:
            if case.truth is not None:
                _place(sheet, case.truth, photos, columns - 1, top + 30, size)
            x = MARGIN + (columns - 1) * (TILE + GAP) - GAP // 2
            draw.line((x, top + 30, x, top + 30 + size[1]), MUTED, 2)
        top += height
    return sheet


def _place(sheet: Image.Image, tile: Tile, photos: Photos, column: int, top: int, size: tuple[int, int]) -> None:
    left = MARGIN + column * (TILE + GAP)
    sheet.paste(framed(fitted(photos(tile.path), size), tile.correct), (left, top))
    role = f"rank {tile.role}" if tile.role.isdigit() else tile.role
    _caption(ImageDraw.Draw(sheet), (left, top + size[1] + 6), role, tile.caption, TILE)


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
        pictures["predicted classes"] = class_picture(view.look.classes, num_classes)
    return pictures


def attention_sheet(
    views: Sequence[View], span: float, num_classes: int, title: str, panels: Panels | None = None
) -> Image.Image:
    """Views below each other, with the key of the colours."""
    panels, wide = panels or Panels(), 384
    rows = [view_pictures(view, span, num_classes, panels) for view in views]
    sizes = [tile_size(row["photo"], wide) for row in rows]
    width = 2 * MARGIN + len(rows[0]) * (wide + GAP) - GAP
    keys = _sheet_keys(views, span, num_classes, panels, width - 2 * MARGIN)
    height = 2 * MARGIN + 44 + 26 + sum(size[1] + GAP for size in sizes) + (keys.height if keys else 0)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), printable(title), INK, font(24, True))
    top = MARGIN + 44
    for column, name in enumerate(rows[0]):
        draw.text((MARGIN + column * (wide + GAP), top), name, INK, font(15, True))
    top += 26
    for row, size in zip(rows, sizes):
        for column, picture in enumerate(row.values()):
            sheet.paste(fitted(picture, size), (MARGIN + column * (wide + GAP), top))
        top += size[1] + GAP
    if keys:
        sheet.paste(keys, (MARGIN, top))
    return sheet


def _sheet_keys(views: Sequence[View], span: float, num_classes: int, panels: Panels, width: int) -> Image.Image | None:
    """What the colours of a sheet mean: the scale of attention, then the classes; None if there is nothing to say."""
    names, colours = class_names(num_classes), class_colours(num_classes)
    classes = shown_classes(views, num_classes) if panels.classes else []
    of_class = {names[c]: tuple(map(int, colours[c])) for c in classes}
    lines = _key_lines(list(of_class), width) if classes else []
    scale = 42 if panels.attention else 0
    if not scale + len(lines):
        return None
    keys = Image.new("RGB", (width, scale + 26 * len(lines) + 14), PAPER)
    draw = ImageDraw.Draw(keys)
    if panels.attention:
        keys.paste(scale_bar(240, 16), (0, 8))
        words = f"attention from 1/{span:.2f} to {span:.2f} times the image mean; at the mean the photo is unchanged"
        draw.text((254, 7), words, MUTED, font(14))
    for i, line in enumerate(lines):
        top = scale + 26 * i
        for x, name in line:
            draw.rectangle((x, top + 2, x + 16, top + 18), of_class[name], MUTED)
            draw.text((x + 23, top + 1), name, INK, font(14))
    return keys


def _key_lines(names: list[str], width: int) -> list[list[tuple[int, str]]]:
    """Names of the class key with their place on the line, as many to a line as fit."""
    lines: list[list[tuple[int, str]]] = [[]]
    x = 0
    for name in names:
        needed = 23 + round(font(14).getlength(name)) + 18
        if x and x + needed > width:
            lines.append([])
            x = 0
        lines[-1].append((x, name))
        x += needed
    return lines


def scale_bar(width: int, height: int) -> Image.Image:
    """The colours of `overlay` on a grey photo."""
    ramp = np.exp(np.linspace(-1, 1, width) * np.log(LEAST_SPAN))[None].repeat(height, 0).astype(np.float32)
    grey = np.full((height, width, 3), 150, np.uint8)
    return overlay(Look(grey, ramp, np.zeros((height, width), np.int64)), LEAST_SPAN)
