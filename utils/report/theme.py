"""The look of a report's plots: colours in a light and a dark theme, text sizes, and how a plot becomes a PNG."""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from datasets.files import write_whole
from utils.system.tables import printable

WIDTH_IN = 4.0
"""Narrow, so that text stays legible on a phone and in a column of a paper."""
PRINT_DPI, SCREEN_DPI = 300, 220
TITLE_TEXT, SMALL_TEXT = 10, 8.8
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")


class Theme(NamedTuple):
    """Colours of a plot: paper, text, lines, and marks that colour-blind readers can tell apart."""

    paper: str
    ink: str
    muted: str
    grid: str
    gallery: str
    found: str
    missed: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#ffffff",
    "#1d2126",
    "#59616b",
    "#e3e6ea",
    "#9aa3ad",
    "#009e73",
    "#cc3311",
    ("#0072b2", "#d55e00", "#009e73", "#b0508a", "#b67d00", "#3a9bdc", "#1d2126", "#7a5c3e"),
)
DARK = Theme(
    "#1a1e24",
    "#e9ebee",
    "#a5adb8",
    "#323942",
    "#77828f",
    "#1fc795",
    "#ff7557",
    ("#56b4e9", "#ff8a3c", "#1fc795", "#e79ac6", "#f0c05a", "#a9b8ff", "#e9ebee", "#c9a27e"),
)

Draw = Callable[[Theme], Figure]


class Plot(NamedTuple):
    """A plot as PNG bytes for screens, in both themes, and its size there in pixels."""

    light: bytes
    dark: bytes
    size: tuple[int, int]


def save_plot(draw: Draw, path: Path) -> Plot:
    """Write a plot in the light theme at print resolution; returns it for screens, in both themes."""
    images = []
    for theme, dpi in ((LIGHT, PRINT_DPI), (DARK, SCREEN_DPI)):
        figure = draw(theme)
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(dpi)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a set may be named in any script
            canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    save_png(images[0], path, dpi=(PRINT_DPI, PRINT_DPI))
    size = images[1].size
    light, dark = (_small_png(image.resize(size, Image.Resampling.LANCZOS)) for image in images)
    return Plot(light, dark, size)


def save_png(image: Image.Image, path: Path, **options: Any) -> None:
    """A whole PNG file."""
    # level 4: as small as the default in half the time
    write_whole(path, lambda part: image.save(part, "PNG", compress_level=4, **options))


def _small_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    # maximum coverage keeps thin lines' colours; the median cut gives colours of few pixels to their neighbours
    palette = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(file, "PNG", optimize=True)
    return file.getvalue()


def label(text: object) -> str:
    """A name as matplotlib shows it literally: `$` would begin a formula."""
    return printable(text).replace("$", r"\$")


def blank_figure(theme: Theme, height_in: float, width_in: float = WIDTH_IN, title: str = "") -> Figure:
    """A figure of a theme, optionally with a title above all its panels."""
    figure = Figure(figsize=(width_in, height_in), facecolor=theme.paper, layout="constrained")
    if title:
        figure.suptitle(label(title), x=0.02, ha="left", color=theme.ink, fontsize=TITLE_TEXT, fontweight="bold")
    return figure


def dress(axes: Axes, theme: Theme, title: str = "", x: str = "", y: str = "", grid: str = "both") -> None:
    """The house style: no box, light grid, quiet text."""
    axes.set_facecolor(theme.paper)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.grid)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color=theme.grid, linewidth=0.8)
    axes.tick_params(colors=theme.muted, labelsize=SMALL_TEXT, length=0, which="both")
    axes.set_title(title, loc="left", color=theme.ink, fontsize=TITLE_TEXT, fontweight="bold", pad=8)
    axes.set_xlabel(x, color=theme.muted, fontsize=SMALL_TEXT)
    axes.set_ylabel(y, color=theme.muted, fontsize=SMALL_TEXT)


def curve(axes: Axes, theme: Theme, i: int, x: Sequence, y: Sequence, **changed: Any) -> list:
    """Draw the i-th series: its colour, its marker and, if the colours are used up, its line; returns its handle."""
    colours = len(theme.series)
    style = {
        "color": theme.series[i % colours],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": LINES[i // colours % len(LINES)],
        "linewidth": 1.8,
        "markersize": 5,
        "zorder": 3,
        "clip_on": False,
    }
    return axes.plot(x, y, **style | changed)


def legend(figure: Figure, theme: Theme, handles: list, labels: Sequence[str], columns: int | None = None) -> None:
    """The names of the series, below all panels."""
    figure.legend(
        handles,
        [label(text) for text in labels],
        loc="outside lower center",
        ncols=columns or (1 if max(map(len, labels)) > 22 else 2),
        fontsize=SMALL_TEXT,
        frameon=False,
        labelcolor=theme.ink,
        handlelength=2.4,
    )
