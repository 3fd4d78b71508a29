"""Weather, cameras and street styles of the town. Their values stand in ``styles.toml``, read on first use."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from datasets.town.chance import Rgb

TABLES = Path(__file__).with_name("styles.toml")
Light = tuple[float, float, float]  # red, green, blue; 1 is full


@dataclass(frozen=True)
class Weather:
    """Light and weather of one pass; distances in metres, angles in degrees."""

    name: str
    sky_top: Light
    sky_low: Light
    cloud: Light
    cover: float  # 0 clear sky, 1 closed clouds
    ambient: Light
    haze: Light
    haze_reach: float
    glass: Light  # what window panes mirror
    sun: Light = (0.0, 0.0, 0.0)
    sun_height: float = 45.0
    sun_azimuth: float = 130.0
    wet: float = 0.0
    rain: float = 0.0
    snow: float = 0.0
    flakes: float = 0.0
    night: bool = False
    contrast: float = 1.0
    saturation: float = 1.0
    lamps: bool = False  # headlights on

    @property
    def sunny(self) -> bool:
        """Whether the sun casts shadows."""
        return self.sun[0] > 0.0


@dataclass(frozen=True)
class Optics:
    """One camera: field of view in degrees, height in metres, and what it does to the light."""

    field_of_view: float
    height: float
    pitch: float = 0.0  # degrees, positive looks up
    gain: Light = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    saturation: float = 1.0
    noise: float = 0.004
    blur: float = 0.0  # pixels at a width of 384
    vignette: float = 0.0
    quality: int = 92  # JPEG


@dataclass(frozen=True)
class StreetStyle:
    """Traits that the buildings and the cross section of one street share; lengths in metres."""

    name: str
    road: float  # half width of the carriageway
    walk: float  # width of the pavement
    materials: tuple[str, ...]
    palette: tuple[Rgb, ...]  # of walls
    windows: tuple[str, ...]
    shops: float  # chance of a shop on the ground floor
    width: tuple[float, float]  # of a building, smallest and largest
    gap: float  # chance of an open lot between two buildings
    floors: tuple[int, int] = (2, 4)
    floor: float = 3.0  # storey height
    verge: float = 0.0  # grass between kerb and pavement
    setback: float = 0.0  # front garden
    roofs: tuple[str, ...] = ("flat",)
    tiles: tuple[Rgb, ...] = ((140, 80, 60),)
    balconies: float = 0.0  # chance
    detached: float = 0.0  # space left beside each building
    trees: float = 0.0  # metres between street trees, 0 for none
    lamps: str = "arm"
    bends: float = 0.06  # largest slope of the centre line
    dashed: bool = True
    bays: bool = False  # parking bays along the kerb


@dataclass(frozen=True)
class Town:
    """One town: UTM east and north of its first street in metres, and the styles of its streets in order."""

    origin: tuple[float, float]
    streets: tuple[str, ...]


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(TABLES.read_text(encoding="utf-8"))


def _frozen(value: Any) -> Any:
    """Return ``value`` with tuples for lists, so that it can be hashed."""
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _row(table: str, name: str) -> dict[str, Any]:
    return {key: _frozen(value) for key, value in _tables()[table][name].items()}


@cache
def colours(group: str) -> tuple[Rgb, ...]:
    """Return the colours of a group of ``[colours]``."""
    return _frozen(_tables()["colours"][group])


@cache
def words() -> tuple[str, ...]:
    """Return the words on shop signs."""
    return _frozen(_tables()["words"])


@cache
def weather(name: str) -> Weather:
    """Return the weather ``name``."""
    return Weather(name, **_row("weather", name))


@cache
def street_style(name: str) -> StreetStyle:
    """Return the street style ``name``; its palette and tiles list colours and groups of colours."""
    row = _row("street", name)
    for key in {"palette", "tiles"} & set(row):
        row[key] = tuple(rgb for entry in row[key] for rgb in (colours(entry) if isinstance(entry, str) else [entry]))
    return StreetStyle(name, **row)


@cache
def town(name: str) -> Town:
    """Return the town ``name``."""
    return Town(**_row("town", name))


def synthetic_optics() -> Optics:
    """Return the camera of the two synthetic towns."""
    return Optics(**_row("camera", "synthetic"))


def real_optics(gap: float) -> Optics:
    """Return the "real" camera at a domain gap of ``gap``: 0 is the synthetic camera, 1 the default."""
    a, b = synthetic_optics(), Optics(**_row("camera", "real"))
    changed = ("field_of_view", "height", "pitch", "gamma", "saturation", "noise", "blur", "vignette", "quality")
    mix = {name: getattr(a, name) + (getattr(b, name) - getattr(a, name)) * gap for name in changed}
    mix["quality"] = round(min(max(mix["quality"], 30), 95))
    return Optics(gain=tuple(1.0 + (g - 1.0) * gap for g in b.gain), **mix)
