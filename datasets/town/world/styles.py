"""Weather, cameras and street styles of the procedural town.

Nothing here draws: these are the constants the other modules read, and the keyed random
generators that make each picture independent of the order in which pictures are drawn.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

VERSION = 1  # raise whenever the same parameters would give other pictures

Colour = tuple[float, float, float]

# Raw label ids (red channel of a label).
IGNORED, BUILDING, FENCE, PERSON, POLE, MARK, ROAD, WALK, VEGETATION, VEHICLE, WALL, SIGN, LIGHT = (
    0,
    1,
    2,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
)
BICYCLE, MOTORCYCLE, RIDER, TERRAIN, SKY, TRUCK = 16, 17, 18, 19, 20, 26


@dataclass(frozen=True)
class Weather:
    """Light and weather of one pass; colours are 0..1, distances metres, angles degrees."""

    name: str
    sky_top: Colour
    sky_low: Colour
    cloud: Colour
    cover: float  # 0 clear sky, 1 closed clouds
    ambient: Colour
    sun: Colour = (0.0, 0.0, 0.0)
    sun_height: float = 45.0
    sun_azimuth: float = 130.0
    haze: Colour = (0.75, 0.79, 0.84)
    haze_reach: float = 400.0
    wet: float = 0.0
    rain: float = 0.0
    snow: float = 0.0
    flakes: float = 0.0
    night: bool = False
    contrast: float = 1.0
    saturation: float = 1.0
    glass: Colour = (0.55, 0.62, 0.70)  # what window panes mirror
    lamps: bool = False  # headlights on

    @property
    def sunny(self) -> bool:
        """Whether the sun casts shadows."""
        return self.sun[0] > 0.0


WEATHERS = {
    w.name: w
    for w in (
        Weather(
            "clear",
            (0.32, 0.51, 0.78),
            (0.74, 0.84, 0.93),
            (0.97, 0.97, 0.98),
            0.36,
            (0.56, 0.60, 0.68),
            sun=(0.80, 0.73, 0.57),
            sun_height=54.0,
            sun_azimuth=118.0,
            haze=(0.76, 0.84, 0.92),
            haze_reach=480.0,
            glass=(0.45, 0.58, 0.74),
        ),
        Weather(
            "hard_rain",
            (0.52, 0.55, 0.59),
            (0.71, 0.73, 0.75),
            (0.45, 0.48, 0.52),
            0.85,
            (0.88, 0.90, 0.93),
            haze=(0.64, 0.67, 0.70),
            haze_reach=150.0,
            wet=0.85,
            rain=0.75,
            contrast=0.82,
            saturation=0.70,
            glass=(0.48, 0.51, 0.54),
            lamps=True,
        ),
        Weather(
            "overcast",
            (0.72, 0.74, 0.77),
            (0.87, 0.88, 0.88),
            (0.62, 0.64, 0.67),
            0.75,
            (1.12, 1.13, 1.14),
            haze=(0.80, 0.81, 0.82),
            haze_reach=330.0,
            contrast=0.95,
            saturation=0.82,
            glass=(0.60, 0.63, 0.66),
        ),
        Weather(
            "rain",
            (0.52, 0.54, 0.57),
            (0.71, 0.72, 0.73),
            (0.44, 0.46, 0.49),
            0.9,
            (1.12, 1.13, 1.15),
            haze=(0.66, 0.68, 0.69),
            haze_reach=120.0,
            wet=1.0,
            rain=1.0,
            contrast=0.88,
            saturation=0.64,
            glass=(0.42, 0.44, 0.46),
            lamps=True,
        ),
        Weather(
            "snow",
            (0.80, 0.82, 0.85),
            (0.90, 0.91, 0.93),
            (0.74, 0.76, 0.79),
            0.7,
            (0.98, 1.01, 1.07),
            haze=(0.82, 0.84, 0.87),
            haze_reach=150.0,
            snow=1.0,
            flakes=0.8,
            contrast=0.95,
            saturation=0.72,
            glass=(0.58, 0.61, 0.66),
        ),
        Weather(
            "sun",
            (0.22, 0.43, 0.76),
            (0.70, 0.82, 0.92),
            (1.0, 0.99, 0.96),
            0.22,
            (0.60, 0.65, 0.76),
            sun=(1.10, 0.95, 0.66),
            sun_height=47.0,
            sun_azimuth=232.0,
            haze=(0.84, 0.85, 0.84),
            haze_reach=420.0,
            contrast=1.03,
            saturation=1.12,
            glass=(0.40, 0.52, 0.68),
        ),
        Weather(
            "night",
            (0.020, 0.026, 0.048),
            (0.115, 0.095, 0.085),
            (0.10, 0.085, 0.08),
            0.45,
            (0.15, 0.165, 0.23),
            haze=(0.10, 0.085, 0.075),
            haze_reach=260.0,
            wet=0.35,
            night=True,
            contrast=1.0,
            saturation=0.9,
            glass=(0.03, 0.035, 0.05),
            lamps=True,
        ),
    )
}


@dataclass(frozen=True)
class Optics:
    """One camera model: field of view in degrees, height in metres, and what it does to the light."""

    name: str
    field_of_view: float
    height: float
    pitch: float = 0.0  # degrees, positive looks up
    gain: Colour = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    saturation: float = 1.0
    noise: float = 0.004
    blur: float = 0.0  # pixels at a width of 384
    vignette: float = 0.0
    quality: int = 92  # JPEG


SYNTHETIC = Optics("synthetic", 90.0, 1.75)
REAL = Optics(
    "real",
    66.0,
    1.45,
    pitch=2.5,
    gain=(1.05, 1.02, 0.98),
    gamma=1.10,
    saturation=0.84,
    noise=0.018,
    blur=0.65,
    vignette=0.34,
    quality=72,
)


def real_optics(gap: float) -> Optics:
    """Return the "real" camera at a domain gap of ``gap`` (0 the synthetic camera, 1 the default)."""
    mix = {}
    for name in ("field_of_view", "height", "pitch", "gamma", "saturation", "noise", "blur", "vignette", "quality"):
        a, b = getattr(SYNTHETIC, name), getattr(REAL, name)
        mix[name] = a + (b - a) * gap
    mix["quality"] = round(min(max(mix["quality"], 30), 95))
    gain = tuple(1.0 + (g - 1.0) * gap for g in REAL.gain)
    return Optics("real", gain=gain, **mix)


@dataclass(frozen=True)
class StreetStyle:
    """Traits that the buildings and the cross section of one street share; lengths in metres."""

    name: str
    road: float  # half width of the carriageway
    walk: float  # width of the pavement
    verge: float = 0.0  # grass between kerb and pavement
    setback: float = 0.0  # front garden
    width: tuple[float, float] = (8.0, 14.0)  # of a building
    floors: tuple[int, int] = (2, 4)
    floor: float = 3.0  # storey height
    materials: tuple[str, ...] = ("plaster",)
    palette: tuple[tuple[int, int, int], ...] = ((190, 180, 160),)
    trim: tuple[tuple[int, int, int], ...] = ((225, 220, 210),)
    windows: tuple[str, ...] = ("sash",)
    roofs: tuple[str, ...] = ("flat",)
    tiles: tuple[tuple[int, int, int], ...] = ((140, 80, 60),)
    shops: float = 0.2
    balconies: float = 0.0
    gap: float = 0.1  # chance of an open lot between two buildings
    detached: float = 0.0  # space left beside each building
    trees: float = 0.0  # metres between street trees, 0 for none
    lamps: str = "arm"
    bends: float = 0.06  # largest slope of the centre line
    dashed: bool = True
    bays: bool = False  # parking bays along the kerb


BRICKS = ((146, 92, 74), (158, 104, 82), (132, 84, 70), (168, 122, 96), (122, 78, 68))
PASTELS = ((206, 190, 158), (196, 170, 140), (188, 196, 190), (210, 200, 182), (178, 158, 142), (200, 178, 170))
STONES = ((196, 178, 142), (186, 170, 138), (204, 188, 156), (176, 164, 140), (190, 174, 150))
GREYS = ((150, 152, 152), (172, 172, 168), (132, 138, 142), (188, 184, 176), (120, 124, 130))
WARMS = ((200, 150, 110), (190, 128, 100), (208, 170, 120), (184, 142, 122), (176, 110, 90), (214, 192, 150))
RED_TILES, SLATES = ((150, 84, 62), (164, 98, 70), (132, 74, 60)), ((92, 96, 104), (78, 82, 90), (104, 100, 100))

STYLES = {
    s.name: s
    for s in (
        StreetStyle(
            "high street",
            3.6,
            2.8,
            width=(7, 12),
            floors=(2, 4),
            floor=3.1,
            materials=("plaster", "plaster", "brick"),
            palette=PASTELS + WARMS,
            windows=("casement", "sash", "shutters"),
            roofs=("flat", "gable", "mansard"),
            tiles=RED_TILES + SLATES,
            shops=0.75,
            balconies=0.25,
            gap=0.05,
            lamps="arm",
            bays=True,
        ),
        StreetStyle(
            "brick terrace",
            3.2,
            2.0,
            setback=1.6,
            width=(5.5, 8),
            floors=(2, 3),
            floor=2.8,
            materials=("brick",),
            palette=BRICKS,
            windows=("sash", "sash", "bay"),
            roofs=("gable",),
            tiles=SLATES + RED_TILES,
            shops=0.08,
            gap=0.10,
            trees=26,
            lamps="post",
            dashed=False,
        ),
        StreetStyle(
            "suburb",
            3.1,
            1.8,
            verge=1.4,
            setback=5.0,
            width=(8, 11),
            floors=(1, 2),
            floor=2.8,
            materials=("plaster", "brick"),
            palette=PASTELS + BRICKS[:2],
            windows=("casement", "shutters"),
            roofs=("gable", "hip", "front gable"),
            tiles=RED_TILES + SLATES,
            shops=0.0,
            gap=0.22,
            detached=3.0,
            trees=13,
            lamps="arm",
            bends=0.10,
            dashed=False,
        ),
        StreetStyle(
            "new quarter",
            4.2,
            3.4,
            setback=1.0,
            width=(12, 20),
            floors=(4, 6),
            floor=3.2,
            materials=("concrete", "panels", "brick"),
            palette=GREYS + WARMS[:2],
            windows=("strip", "grid", "casement"),
            roofs=("flat",),
            shops=0.45,
            balconies=0.55,
            gap=0.14,
            trees=18,
            lamps="double",
        ),
        StreetStyle(
            "boulevard",
            5.2,
            3.8,
            width=(10, 16),
            floors=(4, 6),
            floor=3.3,
            materials=("stone", "plaster"),
            palette=STONES + PASTELS[:2],
            windows=("tall", "shutters"),
            roofs=("mansard", "mansard", "flat"),
            tiles=SLATES,
            shops=0.5,
            balconies=0.6,
            gap=0.03,
            trees=10,
            lamps="double",
            bays=True,
        ),
        StreetStyle(
            "works",
            3.8,
            1.9,
            setback=0.8,
            width=(12, 22),
            floors=(1, 3),
            floor=3.8,
            materials=("brick", "panels", "concrete"),
            palette=BRICKS[:3] + GREYS,
            windows=("industrial", "strip"),
            roofs=("flat", "gable", "front gable"),
            tiles=SLATES,
            shops=0.05,
            gap=0.34,
            lamps="arm",
            bends=0.03,
        ),
        StreetStyle(
            "old stone",
            3.3,
            2.2,
            width=(8, 15),
            floors=(2, 4),
            floor=3.3,
            materials=("stone", "stone", "plaster"),
            palette=STONES,
            windows=("arched", "sash", "tall"),
            roofs=("gable", "flat", "mansard"),
            tiles=SLATES,
            shops=0.3,
            gap=0.12,
            lamps="post",
            bends=0.09,
        ),
        StreetStyle(
            "village",
            2.9,
            1.7,
            setback=0.6,
            width=(6, 10),
            floors=(1, 3),
            floor=2.7,
            materials=("plaster", "stone"),
            palette=PASTELS + STONES,
            windows=("casement", "shutters"),
            roofs=("gable", "hip", "front gable"),
            tiles=RED_TILES,
            shops=0.18,
            gap=0.22,
            trees=22,
            lamps="post",
            bends=0.12,
            dashed=False,
        ),
    )
}

TOWN_STREETS = {
    "town10": ("high street", "new quarter", "brick terrace", "boulevard", "suburb", "works"),
    "town3": ("village", "brick terrace", "high street", "suburb", "new quarter", "old stone"),
    "robotcar": ("old stone", "high street", "brick terrace", "suburb", "boulevard", "works"),
}
TOWN_ORIGIN = {"town10": (276400.0, 108900.0), "town3": (281200.0, 114300.0), "robotcar": (619400.0, 5734800.0)}


def keyed(*keys: object) -> np.random.Generator:
    """Return a random generator that depends on ``keys`` (ints and strings) and on nothing else."""
    words = [zlib.crc32(k.encode()) if isinstance(k, str) else int(k) & 0xFFFFFFFF for k in keys]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def pick(rng: np.random.Generator, options):
    """Return one of ``options`` (a sequence)."""
    return options[int(rng.integers(len(options)))]


def tint(rng: np.random.Generator, rgb, amount: float = 10.0) -> tuple[int, int, int]:
    """Return ``rgb`` (0..255) moved by a common and a per-channel random step of about ``amount``."""
    step = rng.normal(0.0, amount) + rng.normal(0.0, amount * 0.3, 3)
    return tuple(int(min(max(c + s, 4), 250)) for c, s in zip(rgb, step))


def scale(rgb, factor: float) -> tuple[int, int, int]:
    """Return ``rgb`` (0..255) times ``factor``, clipped."""
    return tuple(int(min(max(c * factor, 0), 255)) for c in rgb)


def mix(a, b, share: float) -> tuple[int, int, int]:
    """Return the colour ``share`` of the way from ``a`` to ``b`` (0..255)."""
    return tuple(int(p + (q - p) * share) for p, q in zip(a, b))


def sun_vector(weather: Weather, heading: float) -> tuple[float, float, float]:
    """Return the unit vector towards the sun in the frame of a street that runs at ``heading`` (radians)."""
    up, turn = math.radians(weather.sun_height), math.radians(weather.sun_azimuth) - heading
    return math.cos(up) * math.cos(turn), math.cos(up) * math.sin(turn), math.sin(up)
