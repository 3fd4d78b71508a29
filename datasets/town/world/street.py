"""One street: its geometry, and all that stays in it."""

import math
from dataclasses import dataclass, field

from datasets.town.chance import Rgb
from datasets.town.world.mesh import Place, Thing
from datasets.town.world.styles import StreetStyle

MARGIN = 130.0  # metres of street beyond its first and last place
CROSS_HALF = 4.2  # half the gap that a side street leaves between the houses
PARKED = 2.2  # metres of road along a kerb that a parked vehicle, and the air beside it, take


@dataclass
class Street:
    """One street: its geometry and everything in it that stays. x runs along it, y to its left, in metres."""

    index: int
    style: StreetStyle
    heading: float  # radians, of the x axis in the map
    origin: tuple[float, float]  # UTM of x = y = 0
    places: list[float]  # x of each place
    bend: tuple[float, float, float]  # amplitude and period in metres, phase
    left_traffic: bool
    grass: Rgb
    asphalt: Rgb
    slabs: Rgb
    crossings: list[float] = field(default_factory=list)
    lots: list[tuple[int, float, float]] = field(default_factory=list)  # gardens: side, and x from and to
    things: list[Thing] = field(default_factory=list)
    lamps: list[tuple[float, float, float]] = field(default_factory=list)
    skyline: tuple = ()  # see plan._skyline

    def centre(self, x: float) -> float:
        """Return the y of the centre line at ``x``."""
        return self.bend[0] * math.sin(2.0 * math.pi * x / self.bend[1] + self.bend[2])

    def slope(self, x: float) -> float:
        """Return the direction of the centre line at ``x`` in radians."""
        high, long, phase = self.bend
        return math.atan(high * 2.0 * math.pi / long * math.cos(2.0 * math.pi * x / long + phase))

    @property
    def start(self) -> float:
        """The x at which the street starts."""
        return self.places[0] - MARGIN

    @property
    def end(self) -> float:
        """The x at which the street ends."""
        return self.places[-1] + MARGIN

    @property
    def edge(self) -> float:
        """Distance of the outer edge of the pavement from the centre line."""
        return self.style.road + self.style.verge + self.style.walk

    @property
    def front(self) -> float:
        """Distance of the building line from the centre line."""
        return self.edge + self.style.setback

    @property
    def lead(self) -> int:
        """Side on which one drives towards +x: 1 is the left."""
        return 1 if self.left_traffic else -1

    @property
    def lane(self) -> float:
        """Signed distance of the driven lane from the centre line."""
        return min(1.7, max(0.5, self.style.road - 2.6)) * self.lead

    @property
    def room(self) -> tuple[float, float]:
        """Metres from the driven lane to the left (+y) and to the right at which no parked vehicle stands."""
        free = self.style.road - PARKED
        return free - self.lane, free + self.lane

    def clear(self, x: float, gap: float = CROSS_HALF) -> bool:
        """Return whether ``x`` lies more than ``gap`` from the middle of every crossing."""
        return all(abs(x - c) > gap for c in self.crossings)

    def utm(self, x: float, y: float) -> tuple[float, float]:
        """Return the map position (east, north) of a street point, in metres."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        return self.origin[0] + x * c - y * s, self.origin[1] + x * s + y * c

    def frontage(self, x0: float, x1: float, side: int, back: float) -> tuple[Place, float]:
        """Return place and width of a front between ``x0`` and ``x1``, ``back`` metres from the centre line."""
        a, c = (x0, x1) if side > 0 else (x1, x0)
        ya, yc = self.centre(a) + side * back, self.centre(c) + side * back
        size = math.hypot(c - a, yc - ya)
        return ((c - a) / size, (yc - ya) / size, a, ya), size
