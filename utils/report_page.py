"""The report as one HTML file without scripts: everything it shows is inside it."""

import base64
import io
import os
import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.naming import class_colours
from utils.evaluation import class_names
from utils.metrics import RECALL_AT
from utils.report_attention import LEAST_EFFECT, View
from utils.report_cases import Case, Tile
from utils.report_panels import Photos, scale_bar, shown_classes, view_pictures
from utils.report_style import STYLE
from utils.report_theme import Plot
from utils.tables import printable

TILE_WIDTH, QUERY_WIDTH = 216, 312
WIDE = 1000


class Captioned(NamedTuple):
    """A plot, what it shows in words (for those who cannot see it), and the line below it."""

    plot: Plot
    alt: str
    caption: str = ""


class SetCases(NamedTuple):
    """The cases shown of one set, and how many of its queries were found at rank 1."""

    name: str
    threshold_m: float
    found: int
    queries: int
    cases: list[Case]


class Page(NamedTuple):
    """What a report says.

    Attributes
    ----------
    run : name of the run folder.
    date : of the run folder, empty where it does not tell.
    content : the content of `results.json`.
    span, effect : see `utils.report_attention`; `effect` is None where it was not measured.
    notes : by section, what was left out because there is too much of it.
    """

    run: str
    date: str
    content: dict
    num_classes: int
    recall: Captioned | None
    maps: list[Captioned]
    cases: list[SetCases]
    views: dict[str, list[View]]
    span: float
    effect: float | None
    rests: Captioned | None
    segmentation: list[Captioned]
    training: list[Captioned]
    notes: dict[str, str]


def text(value: object) -> str:
    """Anything as HTML text."""
    return escape(printable(value))


def render(page: Page, photos: Photos, quality: int) -> str:
    """The HTML of a report; `quality` is that of its JPEG thumbnails, 1..95."""
    sections = [
        ("recall", "Recall", _recall(page)),
        ("maps", "Where queries were found", _plots(page.maps, "maps") + _note(page, "maps") if page.maps else ""),
        ("retrievals", "Retrievals", _retrievals(page, photos, quality)),
        ("attention", "Attention and classes", _attention(page, quality)),
        ("segmentation", "Segmentation", _plots(page.segmentation, "two")),
        ("training", "Training", _plots(page.training, "two")),
    ]
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in shown)
    body = "\n".join(
        f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{title}</h2>\n{content}</section>'
        for key, title, content in shown
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>SegVPR: {text(page.run)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'{_header(page)}<nav aria-label="Sections">{links}</nav>\n<main>\n{body}\n</main>\n'
        "<footer>Every plot and panel lies as a PNG in <code>figures/</code> beside this file, the numbers in "
        "<code>results.json</code>, all retrieved images in <code>predictions/</code>.</footer>\n</body>\n</html>\n"
    )


def _header(page: Page) -> str:
    content = page.content
    facts = [f"{content['arch']} with {content['semnet']}", page.run if not page.date else f"run of {page.date}"]
    return (
        f'<header><p class="eyebrow">SegVPR evaluation</p><h1>{_summary(content)}</h1>'
        f'<p class="facts">{" · ".join(text(fact) for fact in facts if fact)}</p>'
        f'<p class="facts">checkpoint <code>{text(content["checkpoint"])}</code></p></header>\n'
    )


def _summary(content: dict) -> str:
    """The result in one line."""
    recalls = [(s["recall"]["1"], s["name"]) for s in content["sets"]]
    if not recalls:
        return "No place recognition set was evaluated"
    (low, worst), (high, best) = min(recalls), max(recalls)
    if len(recalls) == 1:
        return f"{100 * high:.1f}% of queries found at rank 1"
    return f"{100 * low:.1f}% ({text(worst)}) to {100 * high:.1f}% ({text(best)}) of queries found at rank 1"


def _recall(page: Page) -> str:
    if not page.content["sets"]:
        return _miou(page) or "<p>There were no gallery and queries to look up.</p>\n"
    head = "".join(f'<th scope="col">R@{n}</th>' for n in RECALL_AT)
    rows = "".join(_recall_row(s) for s in page.content["sets"])
    table = (
        '<div class="figures"><table><caption>Queries (%) with a correct image among the first N retrieved</caption>'
        f'<thead><tr><th scope="col">set</th>{head}</tr></thead><tbody>\n{rows}</tbody></table>{_miou(page)}</div>'
    )
    plot = _figure(page.recall) if page.recall else ""
    return f'<div class="beside">{table}{plot}</div>\n'


def _recall_row(s: dict) -> str:
    cells = "".join(_recall_cell(n, s["recall"][str(n)]) for n in RECALL_AT)
    counts = f"{s['num_queries']:,} queries in {s['num_gallery']:,} images, within {s['threshold_m']:g} m"
    return f'<tr><th scope="row">{_breakable(s["name"])}<small>{counts}</small></th>{cells}</tr>\n'


def _breakable(name: str) -> str:
    """A name as HTML that may be broken after its separators."""
    return re.sub(r"([/_])", r"\1<wbr>", text(name))


def _recall_cell(n: int, recall: float) -> str:
    strong = ' class="first"' if n == RECALL_AT[0] else ""
    return f'<td{strong} style="--v:{100 * recall:.1f}%">{100 * recall:.1f}</td>'


def _miou(page: Page) -> str:
    segmentation = page.content["segmentation"]
    if not segmentation or segmentation["miou"] is None:
        return ""
    return f'<p class="miou"><b>{100 * segmentation["miou"]:.1f}%</b> mIoU of the predicted classes</p>'


def _figure(captioned: Captioned) -> str:
    light, dark = (_uri(data, "png") for data in captioned.plot[:2])
    width, height = captioned.plot.size
    wide = " scroll" if width > WIDE else ""  # too wide for a phone: it scrolls within its own box
    caption = f"<figcaption>{text(captioned.caption)}</figcaption>" if captioned.caption else ""
    return (
        f'<figure class="plot{wide}"><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" width="{width // 2}" height="{height // 2}" alt="{text(captioned.alt)}"></picture>'
        f"{caption}</figure>\n"
    )


def _plots(plots: Sequence[Captioned], kind: str = "") -> str:
    return f'<div class="plots {kind}">{"".join(map(_figure, plots))}</div>\n' if plots else ""


def _note(page: Page, section: str) -> str:
    return f'<p class="note">{text(page.notes[section])}</p>\n' if section in page.notes else ""


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _photo(image: Image.Image | None, alt: str, width: int, quality: int) -> str:
    if image is None:
        return f'<span class="gone" role="img" aria-label="{text(alt)}">photo cannot be read</span>'
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return (
        f'<img src="{_uri(file.getvalue(), "jpeg")}" width="{image.width}" height="{image.height}" alt="{text(alt)}">'
    )


def _retrievals(page: Page, photos: Photos, quality: int) -> str:
    parts = [_note(page, "retrievals")] if page.cases else []
    for i, s in enumerate(page.cases):
        cases = "".join(_case(case, photos, quality) for case in s.cases)
        missed = s.queries - s.found
        count = f"{missed:,} of {s.queries:,} missed at rank 1" if missed else f"all {s.queries:,} found at rank 1"
        parts.append(
            f"<details{' open' if i == 0 else ''}><summary><b>{text(s.name)}</b> <span>{count}, correct within "
            f"{s.threshold_m:g} m</span></summary>\n{cases}</details>\n"
        )
    return "".join(parts)


def _case(case: Case, photos: Photos, quality: int) -> str:
    tiles = [_tile(case.query, photos, QUERY_WIDTH, quality)]
    tiles += [_tile(tile, photos, TILE_WIDTH, quality) for tile in case.retrieved]
    if case.truth is not None:
        tiles.append(_tile(case.truth, photos, TILE_WIDTH, quality, "truth"))
    verdict, mark = ("found", "✓") if case.found else ("missed", "✗")
    name = text(os.path.basename(case.query.path))
    return (
        f'<figure class="case"><figcaption><b class="{verdict}"><span aria-hidden="true">{mark}</span> '
        f"{text(case.headline)}</b> <code>{name}</code></figcaption>"
        f'<div class="tiles">{"".join(tiles)}</div></figure>\n'
    )


def _tile(tile: Tile, photos: Photos, width: int, quality: int, kind: str = "") -> str:
    role = f"rank {tile.role}" if tile.role.isdigit() else tile.role
    verdict = "" if tile.correct is None else "found" if tile.correct else "missed"
    words = {"": "", "found": ", correct", "missed": ", wrong"}[verdict]
    alt = ", ".join(part for part in (role, tile.caption) if part) + words
    mark = f'<span class="mark" aria-hidden="true">{"✓" if tile.correct else "✗"}</span>' if verdict else ""
    return (
        f'<div class="tile {verdict} {kind or ("query" if not verdict else "")}"><div class="frame">'
        f"{_photo(photos(tile.path), alt, width, quality)}{mark}</div>"
        f"<p><b>{text(role)}</b> {text(tile.caption)}</p></div>"
    )


def _attention(page: Page, quality: int) -> str:
    if not page.views:
        return ""
    everything = [view for views in page.views.values() for view in views]
    bar = io.BytesIO()
    scale_bar(240, 12).save(bar, "PNG")
    key = (
        f'<div class="key"><span>1/{page.span:.2f}</span><img src="{_uri(bar.getvalue(), "png")}" width="240" height="12" '
        f'alt="Colours of attention: blue below the mean of the image, glowing above it"><span>{page.span:.2f}×</span>'
        "<span>of the image mean; at the mean, the photo is unchanged</span></div>"
    )
    names, colours = class_names(page.num_classes), class_colours(page.num_classes)
    chips = "".join(
        f'<li><i style="background:rgb{tuple(map(int, colours[c]))}"></i>{text(names[c])}</li>'
        for c in shown_classes(everything, page.num_classes)
    )
    legend = f'<ul class="legend" aria-label="Colours of the predicted classes">{chips}</ul>\n'
    words = f"<p>{text(attention_caption(page.effect))}</p>\n{_note(page, 'attention')}{key}{legend}"
    rests = _figure(page.rests) if page.rests else ""
    parts = [f'<div class="beside"><div>{words}</div>{rests}</div>\n']
    for i, (name, views) in enumerate(page.views.items()):
        rows = "".join(_view(view, page, quality) for view in views)
        parts.append(f"<details{' open' if i == 0 else ''}><summary><b>{text(name)}</b></summary>\n{rows}</details>\n")
    return "".join(parts)


def _view(view: View, page: Page, quality: int) -> str:
    base = os.path.basename(view.path)
    tiles = []
    for name, picture in view_pictures(view, page.span, page.num_classes).items():
        if name == "predicted classes":
            file = io.BytesIO()
            colours = 256 if page.num_classes > 64 else 64
            picture.quantize(colours, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
            size = f'width="{picture.width}" height="{picture.height}"'
            image = f'<img src="{_uri(file.getvalue(), "png")}" {size} alt="{_classes_alt(view, page.num_classes)}">'
        else:
            image = _photo(picture, f"{name} of {base}" if name != "photo" else f"query {base}", 320, quality)
        tiles.append(f'<div class="tile"><div class="frame">{image}</div><p>{name}</p></div>')
    return f'<figure class="case"><div class="tiles views n{len(tiles)}">{"".join(tiles)}</div></figure>\n'


def _classes_alt(view: View, num_classes: int) -> str:
    """The largest classes of a photo in words."""
    share = np.bincount(view.look.classes.ravel(), minlength=num_classes) / view.look.classes.size
    names = class_names(num_classes)
    largest = [c for c in np.argsort(-share, kind="stable")[:4] if share[c] > 0]
    return text("predicted classes: " + ", ".join(f"{names[c]} {100 * share[c]:.0f}%" for c in largest))


def attention_caption(effect: float | None) -> str:
    """What a reader must know before believing an attention map."""
    general = (
        "Attention is the network's positive map of one value per location, drawn relative to the mean of its image."
    )
    if effect is None:
        return general
    measured = f"Multiplying it by a ramp of 0.5 to 1.5 across the photo moves the descriptor by {_percent(effect)}"
    if effect >= LEAST_EFFECT:
        return f"{general} {measured}, so the map takes part in what is retrieved."
    return (
        f"{general} {measured}: retrieval does not depend on the map. That is how the released placement of attention "
        "works: the L2 norm at every location cancels a positive factor, and the class logits see the map detached, so no "
        "loss reaches its weights. What is shown is where initialisation, weight decay and the trained features beneath "
        "left it; it was not learnt."
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%" if fraction >= 0.001 else "less than 0.1%"
