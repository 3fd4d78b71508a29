"""What moves: vehicles and people, placed anew for every place of every pass."""

import math

import numpy as np

from datasets.town.world import movers
from datasets.town.world.difficulty import Knobs
from datasets.town.world.mesh import Mesh, Thing, put
from datasets.town.world.street import CROSS_HALF, Street
from datasets.town.world.styles import Weather

# What stands near the camera in turn, so that every class occurs even in a small town.
TURNS = ("rider", "person", "truck", "motorcycle", "nothing", "bicycle", "person", "nothing")


class Traffic:
    """Collects the moving things around one place."""

    def __init__(self, street: Street, x: float, sideways: bool, rng: np.random.Generator, weather: Weather) -> None:
        self.street, self.x, self.sideways, self.rng, self.weather = street, x, sideways, rng, weather
        self.lead = street.lead
        self.kerb = street.style.road - 0.75  # where the middle of a parked vehicle stands
        self.out: list[Thing] = []

    def add(self, mesh: Mesh, at: float, off: float, heading: float, reach: float, foot: tuple, lights=()) -> None:
        """Put a mesh ``off`` metres from the centre line."""
        self.out.append(put(mesh, at, self.street.centre(at) + off, heading, reach, lights, foot))

    def vehicle(self, at: float, off: float, heading: float, driving: bool, trucks: float) -> None:
        """Put a car, or with chance ``trucks`` a truck, where there is room for it."""
        make = movers.truck if self.rng.random() < trucks else movers.car
        mesh, half, wide, high, lights = make(self.rng, self.weather.lamps, driving)
        y = self.street.centre(at) + off
        if all(abs(t.x - at) > t.reach + half + 0.5 or abs(t.y - y) > 1.9 for t in self.out):
            self.add(mesh, at, off, heading + self.street.slope(at), half, (half, wide / 2, high), lights)

    def facing(self, side: int) -> float:
        """Return the heading of traffic on that side of the road."""
        return 0.0 if side == self.lead else math.pi

    def parked(self, busy: float) -> None:
        """Line both kerbs with parked vehicles."""
        lo, hi = (self.x - 22, self.x + 22) if self.sideways else (self.x - 70, self.x + 80)
        for side in (1, -1):
            near = self.sideways and side == self.lead  # a truck there would hide the whole view
            at = lo + self.rng.uniform(0, 6)
            while at < hi:
                clear = self.street.clear(at, CROSS_HALF + 3)
                if clear and self.rng.random() < 0.42 * busy and (self.sideways or abs(at - self.x) > 5):
                    self.vehicle(at, side * self.kerb, self.facing(side), False, 0.0 if near else 0.12)
                at += self.rng.uniform(6.0, 7.4)

    def driving(self, busy: float) -> None:
        """Put vehicles into both lanes."""
        for direction in (1, -1):
            at = self.x + direction * self.rng.uniform(10, 22)
            while abs(at - self.x) < 75:
                if self.rng.random() < 0.35 * busy:
                    self.vehicle(at, self.street.lane, 0.0, True, 0.13)
                at += direction * self.rng.uniform(12, 30)
        at = self.x - 60 + self.rng.uniform(0, 20)
        while at < self.x + 75 and self.street.style.road > 3.0:
            if self.rng.random() < 0.5 * busy and abs(at - self.x) > 7:
                self.vehicle(at, -self.street.lane, math.pi, True, 0.13)
            at += self.rng.uniform(14, 34)

    def occluder(self) -> None:
        """Put one vehicle close to the camera."""
        if self.sideways:
            side = -self.lead
            at = self.x + self.rng.choice((-1, 1)) * self.rng.uniform(1.5, 4.5)
            self.vehicle(at, side * self.kerb, self.facing(side), False, 0.6)
        else:
            at = self.x + (8.5 if self.rng.random() < 0.5 else -9.0)
            self.vehicle(at, self.street.lane, 0.0, True, 0.5)

    def people(self, busy: float) -> None:
        """Put pedestrians and bicycles on the pavements, some people on the road."""
        rng, street, style = self.rng, self.street, self.street.style
        lo, hi = (self.x - 12, self.x + 12) if self.sideways else (self.x - 45, self.x + 50)
        for _ in range(int(rng.poisson(2.6 * busy * (0.5 if self.sideways else 1.6)))):
            side, at = (1 if rng.random() < 0.5 else -1), rng.uniform(lo, hi)
            off = side * rng.uniform(style.road + 0.5, street.edge - 0.4)
            if not self.sideways and rng.random() < 0.15 and abs(at - self.x) > 9:
                off = rng.uniform(-style.road, style.road)  # crosses the road
            self.walker(at, off, rng.choice([0.0, math.pi]) + rng.normal(0, 0.3))
        for _ in range(int(rng.poisson(0.5 * busy))):
            side, at = (1 if rng.random() < 0.5 else -1), rng.uniform(lo, hi)
            turn = street.slope(at) + rng.uniform(-0.3, 0.3)
            self.add(movers.bicycle(rng, False), at, side * (street.edge - 0.5), turn, 0.8, (0.7, 0.1, 1.0))

    def walker(self, at: float, off: float, heading: float) -> None:
        """Put one pedestrian."""
        self.add(movers.person(self.rng, self.weather.rain > 0), at, off, heading, 0.35, (0.2, 0.2, 1.7))

    def spots(self) -> list[tuple[float, int]]:
        """Return where something stands in turn, so that each camera sees it: (x, side)."""
        if self.sideways:
            return [(self.x + 0.6, 1), (self.x + 0.4, -1)]
        return [(self.x + 9.0, self.lead), (self.x - 9.0, -self.lead)]

    def in_turn(self, spot: tuple[float, int], kind: str) -> None:
        """Put the ``kind`` of :data:`TURNS` at a spot and clear its surroundings."""
        rng, (at, side) = self.rng, spot
        at += rng.uniform(-1.2, 1.2)
        off = side * (self.street.style.road - 0.6)
        if kind == "truck" and self.sideways:
            if side == self.lead:
                kind = "person"
            else:  # beside the middle of the view
                at += rng.choice((-1, 1)) * rng.uniform(2.5, 4.5)
        y, turn = self.street.centre(at) + off, self.facing(side) + self.street.slope(at)
        built = movers.truck(rng, self.weather.lamps, False) if kind == "truck" else None
        half = built[1] if built else 1.3
        self.out[:] = [t for t in self.out if math.hypot(t.x - at, t.y - y) > t.reach + half]
        if built:
            self.add(built[0], at, off, turn, half, (half, built[2] / 2, built[3]))
        elif kind == "rider":
            self.add(movers.bicycle(rng, True), at, off, turn, 0.8, (0.7, 0.2, 1.7))
        elif kind == "bicycle":
            self.add(movers.bicycle(rng, rng.random() < 0.3), at, off, turn + 0.15, 0.8, (0.7, 0.15, 1.0))
        elif kind == "motorcycle":
            mesh, lights = movers.motorcycle(rng, rng.random() < 0.5, self.weather.lamps)
            self.add(mesh, at, off, turn + rng.uniform(-0.2, 0.2), 1.0, (0.9, 0.25, 1.1), lights)
        elif kind == "person":
            self.walker(at, side * (self.street.style.road + 0.7), turn)


def traffic(
    street: Street, x: float, sideways: bool, index: int, rng: np.random.Generator, weather: Weather, knobs: Knobs
) -> list[Thing]:
    """Return the moving things around the place at ``x``; ``index`` picks what stands near the camera in turn."""
    scene, busy = Traffic(street, x, sideways, rng, weather), knobs.traffic
    if busy <= 0.0:
        return []
    if rng.random() < knobs.occluder:
        scene.occluder()
    scene.parked(busy)
    if not sideways:
        scene.driving(busy)
    scene.people(busy)
    for k, spot in enumerate(scene.spots()):
        scene.in_turn(spot, TURNS[(3 * index + 2 * k) % len(TURNS)])
    return scene.out
