"""What is drawn: the passes of the towns, their folders, and the pieces that the work is cut into.

This module loads no drawing, so that a command line can name the passes at once.
"""

import math
from dataclasses import dataclass, field

from datasets.command_line import flag
from datasets.sizes import smallest_cropped
from datasets.town.world.difficulty import Knobs
from models.config import MIN_SIDE

VERSION = 1  # of the drawing; raise it whenever the same settings would give other pictures
MERGED = "robotcar_all"
CONDITIONS = ("overcast", "rain", "snow", "sun", "night")
MORE = {"snow": "snow", "sun": "sun", "night": "night"}
"""Query sets of the synthetic towns that are drawn on request only, and their weather."""
_STANDARD = {"gallery": "clear", "rain": "hard_rain", "rain_fresh": "hard_rain"}
_CAMERAS = {"town10": ("front", "rear"), "town3": ("left", "right")}
CHUNK = 14  # neighbouring places that one worker draws in one go, so that their textures are drawn once
PLACES_PER_STREET = 26


@dataclass(frozen=True)
class Pass:
    """One drive through a town: weather, cameras, and the folders of images and labels in the town's folder."""

    town: str
    name: str
    weather: str
    cameras: tuple[str, ...]
    images: str
    labels: str | None
    still: bool = False  # the camera car stands exactly on the places


def _synthetic(town: str, runs: dict[str, str]) -> list[Pass]:
    cameras = _CAMERAS[town]

    def folder(kind: str, name: str) -> str:
        return f"idda/{town}/{kind if name == 'gallery' else f'{kind}_{name}'}/{'_'.join(cameras)}"

    galleries = {"gallery": ("gallery", "gallery_labels")}
    kinds = {name: galleries.get(name, ("queries", "queries_labels")) for name in runs}
    return [
        Pass(town, name, weather, cameras, *(folder(kind, name) for kind in kinds[name]), still=name == "gallery")
        for name, weather in runs.items()
    ]


def _by_name(passes: list[Pass]) -> dict[str, Pass]:
    return {f"{p.town}/{p.name}": p for p in passes}


STANDARD_PASSES = _by_name(
    [p for town in _CAMERAS for p in _synthetic(town, _STANDARD)]
    + [Pass("robotcar", c, c, ("ahead",), f"robotcar/{c}", None, c == "overcast") for c in CONDITIONS]
)
"""What a town consists of, in the layouts of the recorded data sets."""
PASSES = STANDARD_PASSES | _by_name([p for town in _CAMERAS for p in _synthetic(town, MORE)])
"""All that can be drawn: the synthetic towns in more conditions, with labels, on request."""


@dataclass(frozen=True)
class Settings:
    """All that the pictures depend on."""

    size: tuple[int, int] = flag(
        (384, 216),
        f"width and height of the pictures in pixels; training needs sides of at least {smallest_cropped()}",
        least=MIN_SIDE,
        most=4096,
        metavar=("W", "H"),
    )
    places: int = flag(150, "places per town", least=4)
    seed: int = flag(0, "seed of all random choices", least=0)
    knobs: Knobs = field(default_factory=Knobs)
    passes: tuple[str, ...] = flag(
        tuple(STANDARD_PASSES),
        f"what to draw; {', '.join(p for p in PASSES if p not in STANDARD_PASSES)} are drawn only if named here",
        choices=tuple(PASSES),
        metavar="PASS",
    )

    def drawn(self, town: str) -> list[Pass]:
        """Return the passes of a town that are drawn, in the order of PASSES."""
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


def street_sizes(places: int) -> list[int]:
    """Share ``places`` among streets: two for a small town, at most six."""
    count = min(6, max(2, math.ceil(places / PLACES_PER_STREET)))
    return [places // count + (i < places % count) for i in range(count)]


def chunks(settings: Settings) -> list[Chunk]:
    """Return the pieces of work, in order."""
    out = []
    for town in dict.fromkeys(p.town for p in PASSES.values()):
        before = 0
        for index, count in enumerate(street_sizes(settings.places) if settings.drawn(town) else []):
            out += [Chunk(town, index, count, a, min(a + CHUNK, count), before) for a in range(0, count, CHUNK)]
            before += count
    return out


def pictures_in(settings: Settings, chunk: Chunk) -> int:
    """Return how many pictures a piece of work has."""
    return (chunk.stop - chunk.first) * sum(len(p.cameras) for p in settings.drawn(chunk.town))
