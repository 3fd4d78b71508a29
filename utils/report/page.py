"""The report as one HTML file without scripts: everything it shows is inside it."""

import base64
import io
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from datasets.naming import class_colours, class_names
from models.config import NetworkConfig
from utils.evaluation.recall import SetResult
from utils.report.attention import LEAST_EFFECT, Seen, View
from utils.report.cases import Case
from utils.report.panels import Panels, Photos, scale_bar, shown_classes, view_pictures
from utils.report.theme import Plot
from utils.system.tables import printable

FOLDER = Path(__file__).parent
TEMPLATE, STYLE = "page.html.jinja", "page.css"
VIEW_WIDTH = 320


class Captioned(NamedTuple):
    """A plot, what it shows in words, the line below it, and what it is called."""

    plot: Plot
    alt: str
    caption: str = ""
    name: str = ""


class SetCases(NamedTuple):
    """The cases shown of one set."""

    result: SetResult
    cases: list[Case]


class Embedded(NamedTuple):
    """A picture within the page: its `data:` address and its size in pixels."""

    uri: str
    width: int
    height: int


class Labelled(NamedTuple):
    """One picture of a view: its name below it, and what it shows in words."""

    name: str
    image: Embedded
    alt: str


class Page(NamedTuple):
    """What a report says.

    Attributes
    ----------
    run : name of the run folder.
    content : the content of `results.json`.
    config : the network's, None for descriptors of another program.
    panels : which pictures of a view mean something.
    seen, span : see `utils.report.attention`.
    sets : how many were evaluated; the first of them are shown.
    """

    run: str
    content: dict
    config: NetworkConfig | None
    panels: Panels
    recall: Captioned | None
    maps: list[Captioned]
    cases: list[SetCases]
    seen: Seen
    span: float
    rests: Captioned | None
    segmentation: list[Captioned]
    training: list[Captioned]
    sets: int

    @property
    def miou(self) -> float | None:
        """As a fraction; None if it was not measured, or means nothing."""
        segmentation = self.content["segmentation"]
        return segmentation["miou"] if segmentation and self.panels.classes else None


def render(page: Page, photos: Photos, quality: int) -> str:
    """The HTML of a report; `quality` is that of its JPEG thumbnails, 1..95."""
    views = page.seen.views.items()
    html = (
        environment()
        .get_template(TEMPLATE)
        .render(
            page=page,
            content=page.content,
            style=Markup((FOLDER / STYLE).read_text(encoding="utf-8")),
            headline=headline(page.content),
            facts=facts(page),
            thumbnail=lambda path, width: jpeg(photos(path), width, quality),
            attention_words=attention_caption(page.seen.effect),
            scale=embedded(scale_bar(240, 12), "PNG"),
            legend=legend(page),
            views=[(name, [pictures(view, page, quality) for view in of_set]) for name, of_set in views],
        )
    )
    return html.lstrip()  # the macros before the page leave empty lines


def environment() -> Environment:
    """Jinja2 that escapes every value, and fails on a name that it does not know."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=shown,
    )
    made.filters |= {"uri": uri, "breakable": breakable, "unbroken": unbroken, "base_name": os.path.basename}
    return made


def shown(value: object) -> object:
    """A value as the page shows it: text on one line that can be encoded, HTML as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def breakable(name: str) -> Markup:
    """A name as HTML that may be broken after its separators."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(printable(name)))))


def unbroken(text: str) -> Markup:
    """Text as HTML in which a number stays beside its unit."""
    safe = str(escape(printable(text)))
    return Markup(re.sub(r"((?:within )?\d[\d.,]* m)\b", r'<span class="whole">\1</span>', safe))


def headline(content: dict) -> str:
    """The result in one line."""
    recalls = [(s["recall"]["1"], s["name"]) for s in content["sets"]]
    if not recalls:
        return "No place recognition set was evaluated"
    (low, worst), (high, best) = min(recalls), max(recalls)
    if len(recalls) == 1:
        return f"{100 * high:.1f}% of queries found at rank 1"
    return f"{100 * low:.1f}% ({worst}) to {100 * high:.1f}% ({best}) of queries found at rank 1"


def facts(page: Page) -> list[str]:
    """Network and run, by the values of the flags; the run by its date if its folder's name has one."""
    config, network = page.config, []
    if config:
        network = [
            f"{config.arch} with {config.semnet}",
            f"attention {config.attention}",
            *([] if config.guidance else ["no guidance"]),
            f"input {config.input}",
        ]
    stamp = re.match(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-\d\d", page.run)
    return [
        *network,
        f"run of {stamp[1]} {stamp[2]}:{stamp[3]}" if stamp else printable(page.run),
    ]


def legend(page: Page) -> list[tuple[str, str]]:
    """Name and CSS colour of the classes that the views show."""
    if not page.panels.classes:
        return []
    number = page.config.num_classes
    names, colours = class_names(number), class_colours(number)
    everything = [view for views in page.seen.views.values() for view in views]
    return [(names[c], f"rgb{tuple(map(int, colours[c]))}") for c in shown_classes(everything, number)]


def uri(data: bytes, kind: str) -> str:
    """A picture's bytes as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def embedded(image: Image.Image, form: str, **options: int) -> Embedded:
    """A picture as PNG or JPEG."""
    file = io.BytesIO()
    image.save(file, form, optimize=True, **options)
    return Embedded(uri(file.getvalue(), form.lower()), *image.size)


def jpeg(photo: Image.Image | None, width: int, quality: int) -> Embedded | None:
    """A photo at most `width` px wide; None stays None."""
    if photo is None:
        return None
    if photo.width > width:
        photo = photo.resize((width, max(1, round(photo.height * width / photo.width))), Image.Resampling.LANCZOS)
    return embedded(photo, "JPEG", quality=quality)


def pictures(view: View, page: Page, quality: int) -> list[Labelled]:
    """The pictures of one view, from left to right."""
    base, number = os.path.basename(view.path), page.config.num_classes
    made = []
    for name, image in view_pictures(view, page.span, number, page.panels).items():
        if name == "predicted classes":
            colours = 256 if number > 64 else 64
            drawing = embedded(image.quantize(colours, dither=Image.Dither.NONE), "PNG")
            made.append(Labelled(name, drawing, classes_alt(view, number)))
        else:
            alt = f"{name} of {base}" if name != "photo" else f"query {base}"
            made.append(Labelled(name, jpeg(image, VIEW_WIDTH, quality), alt))
    return made


def classes_alt(view: View, num_classes: int) -> str:
    """The largest classes of a photo in words."""
    share = np.bincount(view.look.classes.ravel(), minlength=num_classes) / view.look.classes.size
    names = class_names(num_classes)
    largest = [c for c in np.argsort(-share, kind="stable")[:4] if share[c] > 0]
    return "predicted classes: " + ", ".join(f"{names[c]} {100 * share[c]:.0f}%" for c in largest)


def attention_caption(effect: float | None) -> str:
    """What a reader must know before believing an attention map."""
    general = (
        "Attention is the network's positive map of one value per location, drawn relative to the mean of its image."
    )
    if effect is None:
        return general
    moved = f"{100 * effect:.1f}%" if effect >= 0.001 else "less than 0.1%"
    measured = f"Multiplying it by a ramp of 0.5 to 1.5 across the photo moves the descriptor by {moved}"
    if effect >= LEAST_EFFECT:
        return f"{general} {measured}, so the map takes part in what is retrieved."
    return (
        f"{general} {measured}: retrieval does not depend on the map. That is how the released placement of attention "
        "works: the L2 norm at every location cancels a positive factor, and the class logits see the map detached, so no "
        "loss reaches its weights. The map was not learnt: it comes from initialisation, weight decay and the trained "
        "features beneath."
    )
