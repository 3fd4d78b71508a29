"""Plan of the procedural towns: streets with their houses, gardens, crossings, furniture and places."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from datasets.town.drawing.canvas import Mesh, Thing, thing
from datasets.town.drawing.facades import Facade
from datasets.town.world import styles as st
from datasets.town.world import things
from datasets.town.world.difficulty import Knobs
from datasets.town.world.houses import build_house, choose_facade, frame_of, sibling
from datasets.town.world.styles import STYLES, TOWN_ORIGIN, TOWN_STREETS, StreetStyle, keyed, pick, tint

MARGIN = 130.0  # metres of street beyond its first and last place
CROSS_HALF = 4.2  # half the gap that a side street leaves between the houses
PLACES_PER_STREET = 26
PARKED = 2.2  # metres of road along a kerb that a parked vehicle, and the air beside it, take


@dataclass
class Street:
    """One street: its geometry and everything in it that stays."""

    town: str
    index: int
    style: StreetStyle
    heading: float  # radians, of the x axis in the map
    origin: tuple[float, float]  # UTM of x = y = 0
    places: list[float]  # x of each place
    bend: tuple[float, float, float]  # amplitude and period in metres, phase
    left_traffic: bool
    grass: tuple[int, int, int] = (96, 108, 66)
    asphalt: tuple[int, int, int] = (92, 92, 94)
    slabs: tuple[int, int, int] = (150, 146, 138)
    crossings: list[float] = field(default_factory=list)
    lots: list = field(default_factory=list)  # ground outlines of open lots
    things: list[Thing] = field(default_factory=list)
    lamps: list[tuple[float, float, float]] = field(default_factory=list)
    skyline: list = field(default_factory=list)  # (azimuth, width, height, kind, rgb) far away

    def centre(self, x: float) -> float:
        """Return the y of the centre line at ``x``."""
        return self.bend[0] * math.sin(2.0 * math.pi * x / self.bend[1] + self.bend[2])

    def slope(self, x: float) -> float:
        """Return the direction of the centre line at ``x`` in radians."""
        return math.atan(
            self.bend[0] * 2.0 * math.pi / self.bend[1] * math.cos(2.0 * math.pi * x / self.bend[1] + self.bend[2])
        )

    @property
    def edge(self) -> float:
        """Distance of the outer edge of the pavement from the centre line."""
        return self.style.road + self.style.verge + self.style.walk

    @property
    def front(self) -> float:
        """Distance of the building line from the centre line."""
        return self.edge + self.style.setback

    @property
    def lane(self) -> float:
        """Signed distance of the driven lane from the centre line."""
        return min(1.7, max(0.5, self.style.road - 2.6)) * (1 if self.left_traffic else -1)

    @property
    def room(self) -> tuple[float, float]:
        """Metres from the driven lane to the left (+y) and to the right at which no parked vehicle stands."""
        free = self.style.road - PARKED
        return free - self.lane, free + self.lane

    def utm(self, x: float, y: float) -> tuple[float, float]:
        """Return the map position (east, north) of a street point, in metres."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        return self.origin[0] + x * c - y * s, self.origin[1] + x * s + y * c


def street_sizes(places: int) -> list[int]:
    """Share ``places`` among streets: two for a small town, at most six."""
    count = min(6, max(2, math.ceil(places / PLACES_PER_STREET)))
    return [places // count + (i < places % count) for i in range(count)]


@lru_cache(maxsize=8)
def build_street(seed: int, town: str, index: int, count: int, knobs: Knobs) -> Street:
    """Build street ``index`` of ``town`` with ``count`` places; it depends on its arguments only."""
    rng = keyed(seed, town, "street", index)
    style = STYLES[TOWN_STREETS[town][index]]
    xs = list(np.cumsum(rng.uniform(8.6, 11.4, count)).round(3))
    east, north = TOWN_ORIGIN[town]
    period = rng.uniform(190.0, 320.0)
    bend = (style.bends * rng.uniform(0.4, 1.0) * period / (2 * math.pi), period, rng.uniform(0, 2 * math.pi))
    far = 1500.0 + 14.0 * count
    street = Street(
        town,
        index,
        style,
        rng.uniform(0, 2 * math.pi),
        (east + far * (index % 3), north + far * (index // 3)),
        xs,
        bend,
        town == "robotcar",
        grass=tint(rng, (98, 110, 66), 7),
        asphalt=tint(rng, (116, 115, 114), 6),
        slabs=tint(rng, pick(rng, ((152, 148, 140), (140, 138, 136), (164, 152, 138))), 6),
    )
    inside = xs[0] + (xs[-1] - xs[0]) * (0.42 if count < 12 else 0.18)
    first = inside - 90.0 * math.ceil((inside - xs[0] + MARGIN) / 90.0)
    street.crossings = [
        float(c + (0 if c == inside else rng.uniform(-12, 12))) for c in np.arange(first, xs[-1] + MARGIN, 90.0)
    ]
    street.crossings = sorted(c for c in street.crossings if xs[0] - MARGIN + 20 < c < xs[-1] + MARGIN - 20)
    for side in (1, -1):
        _line_side(street, side, keyed(seed, town, "side", index, side), knobs)
    _close_ends(street, keyed(seed, town, "ends", index))
    _furnish(street, keyed(seed, town, "furniture", index))
    street.skyline = _skyline(keyed(seed, town, "skyline", index))
    street.things.sort(key=lambda t: t.x)
    return street


def _line_side(street: Street, side: int, rng: np.random.Generator, knobs: Knobs) -> None:
    """Fill one side of the street with houses and open lots."""
    style, x, end = street.style, street.places[0] - MARGIN, street.places[-1] + MARGIN
    done: list[tuple[Facade, str, tuple]] = []
    span = street.places[-1] - street.places[0]
    forced = [
        (street.places[0] + span * f + 3.0, kind)
        for f, kind in (((0.06, "fence"), (0.60, "wall")) if side > 0 else ((0.12, "wall"), (0.72, "fence")))
    ]
    open_before, pending = True, None  # a house is placed once it is known what follows it

    def settle(open_after: bool) -> None:
        if pending is not None:
            _place_house(street, side, *pending[:-1], rng, pending[-1], open_after)

    while x < end:
        cross = next((c for c in street.crossings if c + CROSS_HALF > x and c - CROSS_HALF < x + 7.0), None)
        if cross is not None:
            settle(True)
            pending = None
            if cross - CROSS_HALF - x > 2.5:
                _open_lot(street, side, x, cross - CROSS_HALF, pick(rng, ("wall", "hedge")), rng)
            x, open_before = cross + CROSS_HALF, True
            continue
        limit = min([c - CROSS_HALF for c in street.crossings if c > x] + [end + 30])
        lot = next((k for f, k in forced if x <= f < x + 9.0), None)
        if lot or (not open_before and rng.random() < style.gap):
            settle(True)
            pending = None
            wide = min(rng.uniform(6.0, 10.0), limit - x)
            _open_lot(street, side, x, x + wide, lot or pick(rng, ("fence", "wall", "hedge", "fence")), rng)
            forced = [(f, k) for f, k in forced if k != lot or f > x + 9.0]
            x, open_before = x + wide, True
            continue
        wide = rng.uniform(*style.width)
        if limit - x - wide < 5.0:
            wide = min(limit - x, style.width[1] * 1.4)
        room = style.detached * rng.uniform(0.6, 1.2)
        if done and rng.random() < knobs.repetition:
            model, roof, tiles = pick(rng, done)
            spec = sibling(model, wide, rng, int(rng.integers(1 << 30)))
        else:
            roof, tiles = pick(rng, style.roofs), tint(rng, pick(rng, style.tiles), 8)
            spec = choose_facade(style, wide, rng, roof, int(rng.integers(1 << 30)))
            done.append((spec, roof, tiles))
        settle(room > 0)
        pending = (x, x + wide, spec, roof, tiles, open_before or room > 0)
        if style.setback >= 1.5:
            _front_garden(street, side, x, x + wide + room, rng)
        x, open_before = x + wide + room, room > 0
    settle(True)


def _place_house(
    street: Street,
    side: int,
    x0: float,
    x1: float,
    spec: Facade,
    roof: str,
    tiles,
    rng,
    open_before: bool,
    open_after: bool,
    extra: float = 0.0,
) -> None:
    mesh, depth = Mesh(), float(rng.uniform(9.0, 12.0))
    cos, sin, ox, oy, size = frame_of(street, x0, x1, side, street.front + extra)
    left, right = (open_before, open_after) if side > 0 else (open_after, open_before)
    spec = Facade(**{**spec.__dict__, "width": round(size, 2)})
    top = build_house(mesh, spec, roof, tiles, depth, street.style, rng, left, right)
    foot = [(ox + a * cos - b * sin, oy + a * sin + b * cos) for a, b in ((0, 0), (size, 0), (size, depth), (0, depth))]
    street.things.append(
        thing(
            mesh,
            (x0 + x1) / 2,
            oy,
            (x1 - x0) / 2,
            (cos, sin, ox, oy),
            front=True,
            off=street.front + extra,
            shadow=(foot, top),
        )
    )


def _barrier(street: Street, side: int, x0: float, x1: float, back: float, kind: str, rng) -> None:
    """Put a wall, fence or hedge along the street, ``back`` metres from the centre line."""
    if x1 - x0 < 0.8:
        return
    mesh = Mesh()
    cos, sin, ox, oy, size = frame_of(street, x0, x1, side, back)
    size = round(size, 1)
    if kind == "hedge":
        high, rgb = rng.uniform(1.0, 1.7), tint(rng, (66, 88, 48), 7)
        mesh.poly([(0, 0, high), (size, 0, high), (size, 0.8, high), (0, 0.8, high)], rgb, st.VEGETATION)
        mesh.tex(
            [(0, 0, high), (size, 0, high), (0, 0, 0)],
            ("hedge", rgb, int(rng.integers(9))),
            st.VEGETATION,
            (0.0, -1.0, 0.0),
        )
    elif kind == "wall":
        high, material = rng.uniform(1.1, 2.1), pick(rng, ("brick", "stone", "plaster"))
        rgb = tint(rng, {"brick": (146, 96, 78), "stone": (172, 160, 134), "plaster": (186, 178, 160)}[material], 10)
        mesh.poly([(0, 0, high), (size, 0, high), (size, 0.3, high), (0, 0.3, high)], rgb, st.WALL)
        key = ("wall", rgb, material, int(rng.integers(99)), size, round(high, 1))
        mesh.tex([(0, 0, high), (size, 0, high), (0, 0, 0)], key, st.WALL, (0.0, -1.0, 0.0))
    else:
        kind, high = pick(rng, ("picket", "board", "rail", "mesh", "board")), rng.uniform(1.0, 1.7)
        rgb = tint(rng, pick(rng, ((206, 202, 192), (116, 88, 62), (58, 66, 60), (134, 120, 100))), 9)
        mesh.tex(
            [(0, 0, high), (size, 0, high), (0, 0, 0)],
            ("fence", kind, rgb, size, round(high, 1)),
            st.FENCE,
            (0.0, -1.0, 0.0),
            both=True,
        )
    street.things.append(thing(mesh, (x0 + x1) / 2, oy, (x1 - x0) / 2, (cos, sin, ox, oy), front=True, off=back))


def _tree(
    street: Street, x: float, off: float, rng, height: tuple[float, float], kinds=("round", "tall", "wide", "conifer")
) -> None:
    kind, high = pick(rng, kinds), rng.uniform(*height)
    y, r = street.centre(x) + off, high * 0.3
    foot = [(x + r * math.cos(a), y + r * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 9)[:-1]]
    street.things.append(
        things.put(
            things.tree(kind, int(rng.integers(7)), high),
            x,
            y,
            0.0,
            r,
            shadow=(foot, high * 0.62),
            front=abs(off) > street.edge,
            off=abs(off),
        )
    )


def _open_lot(street: Street, side: int, x0: float, x1: float, kind: str, rng) -> None:
    """Leave a garden with something along the pavement, trees and a house behind."""
    edge = street.edge
    street.lots.append((side, x0, x1))
    if x1 - x0 > 5.0 and rng.random() < 0.6:
        style = street.style
        spec = choose_facade(style, x1 - x0, rng, "gable", int(rng.integers(1 << 30)))
        _place_house(
            street, side, x0 + 0.4, x1 - 0.4, spec, "gable", tint(rng, pick(rng, style.tiles), 8), rng, True, True, 15.0
        )
    for _ in range(int((x1 - x0) / 3.0)):
        off = street.front + rng.uniform(3.0, 8.0)
        _tree(street, rng.uniform(x0 + 1.0, x1 - 1.0), side * off, rng, (4.0, 8.5))
    for _ in range(2):
        _tree(street, rng.uniform(x0 + 0.8, x1 - 0.8), side * (edge + 1.4), rng, (1.0, 2.0), ("shrub",))
    _barrier(street, side, x0, x1, edge + 0.25, kind, rng)


def _front_garden(street: Street, side: int, x0: float, x1: float, rng) -> None:
    style = street.style
    street.lots.append((side, x0, x1))
    kind, gate = pick(rng, ("fence", "wall", "hedge", "wall", "none")), rng.uniform(0.2, 0.7)
    if style.setback < 2.5:
        kind = pick(rng, ("wall", "none", "fence", "none"))
    cut = x0 + (x1 - x0) * gate
    if kind != "none":
        _barrier(street, side, x0, cut, street.edge + 0.15, kind, rng)
        _barrier(street, side, cut + 1.5, x1 - 0.2, street.edge + 0.15, kind, rng)
    if style.setback > 3.0:
        _tree(street, rng.uniform(x0 + 1, x1 - 1), side * (street.edge + 2.2), rng, (1.0, 2.2), ("shrub",))
        if rng.random() < 0.4:
            _tree(street, rng.uniform(x0 + 1, x1 - 1), side * (street.edge + 2.6), rng, (3.5, 6.5))


def _close_ends(street: Street, rng) -> None:
    """Put houses along the side streets and across both ends."""
    style = street.style
    for c in street.crossings:
        for side in (1, -1):
            for near in (-1, 1):
                back = street.front + 13.0
                spec = choose_facade(style, 12.0, rng, "gable", int(rng.integers(1 << 30)))
                _cross_house(street, c + near * (CROSS_HALF + 0.6), near, side, back, spec, rng)
    for x, turn in ((street.places[0] - MARGIN - 24.0, math.pi), (street.places[-1] + MARGIN + 24.0, 0.0)):
        for k in (-1, 0, 1):
            spec = choose_facade(style, 14.0, rng, "gable", int(rng.integers(1 << 30)))
            mesh, y = Mesh(), street.centre(x) + 14.5 * k
            build_house(mesh, spec, pick(rng, style.roofs), pick(rng, style.tiles), 9.0, style, rng, False, False)
            cos, sin = math.cos(turn - math.pi / 2), math.sin(turn - math.pi / 2)
            street.things.append(thing(mesh, x, y, 2.0, (cos, sin, x - 7 * cos, y - 7 * sin), front=True))


def _cross_house(street: Street, x: float, near: int, side: int, back: float, spec: Facade, rng) -> None:
    """Put a house along a side street, its front towards it."""
    mesh = Mesh()
    build_house(mesh, spec, "gable", pick(rng, street.style.tiles), 9.0, street.style, rng, True, True)
    y0 = street.centre(x) + side * back
    # The front looks at -near along x; local x runs so that the lot lies behind it.
    turn = -math.pi / 2 if near > 0 else math.pi / 2
    oy = (y0 + (12.0 if side > 0 else 0.0)) if near > 0 else (y0 if side > 0 else y0 - 12.0)
    cos, sin = math.cos(turn), math.sin(turn)
    street.things.append(
        thing(mesh, x + near * 4.0, y0 + side * 6.0, 4.5, (cos, sin, x, oy), front=True, off=street.front + 13.0)
    )


def _furnish(street: Street, rng) -> None:
    """Put lamps, trees, signs, traffic lights, bollards and boxes along the kerbs."""
    style, kerb = street.style, street.style.road
    x, end, side = street.places[0] - MARGIN, street.places[-1] + MARGIN, 1
    metal = pick(rng, ((74, 78, 80), (46, 58, 52), (110, 112, 112), (40, 42, 46)))
    step = rng.uniform(20.0, 27.0)
    while x < end:
        if all(abs(x - c) > CROSS_HALF for c in street.crossings):
            mesh, heads = things.lamp(style.lamps, 1.6, metal)
            y = street.centre(x) + side * (kerb + 0.45)
            item = things.put(mesh, x, y, -side * math.pi / 2 + street.slope(x), 0.6)
            street.things.append(item)
            arm = -side * math.pi / 2 + street.slope(x)
            street.lamps += [(x + h[0] * math.cos(arm), y + h[0] * math.sin(arm), h[2]) for h in heads]
        x, side = x + step * rng.uniform(0.85, 1.15), -side
    for side in (1, -1):
        x = street.places[0] - MARGIN + rng.uniform(0, 12)
        while style.trees and x < end:
            if all(abs(x - c) > CROSS_HALF + 2 for c in street.crossings) and rng.random() < 0.85:
                off = kerb + (style.verge * 0.5 if style.verge else 0.75)
                _tree(street, x, side * off, rng, (5.0, 8.0), ("round", "tall", "wide"))
            x += style.trees * rng.uniform(0.8, 1.3)
        x = street.places[0] - MARGIN + rng.uniform(0, 9)
        while x < end:
            if all(abs(x - c) > CROSS_HALF for c in street.crossings):
                _small_thing(street, x, side, rng, metal)
            x += rng.uniform(6.0, 15.0)
    ahead = -1 if not street.left_traffic else 1  # side on which one drives towards +x
    for c in street.crossings:
        for s in (1, -1):  # one light for each driving direction, before and behind the crossing
            for shift in (-1, 1):
                x, off = c + shift * (CROSS_HALF - 0.8), s * ahead * (kerb + 0.5)
                mesh, lights = things.traffic_light(rng)
                street.things.append(
                    things.put(mesh, x, street.centre(x) + off, 0.0 if s > 0 else math.pi, 0.3, lights=lights)
                )


def _small_thing(street: Street, x: float, side: int, rng, metal) -> None:
    ahead = -1 if not street.left_traffic else 1
    turn = (
        (0.0 if side == ahead else math.pi)
        + street.slope(x)
        + rng.uniform(-0.5, 0.1) * side * (1 if side == ahead else -1)
    )
    y, roll, mesh = street.centre(x) + side * (street.style.road + 0.4), rng.random(), Mesh()
    if roll < 0.5:
        kind = pick(rng, ("stop", "give", "limit", "limit", "no", "park", "park", "warn", "way", "guide"))
        mesh = things.traffic_sign(kind, int(rng.integers(5)), rng.uniform(1.7, 2.2))
    elif roll < 0.68:
        mesh.limb((0, 0, 0), (0, 0, 0.95), 0.07, 0.06, metal, st.POLE)
        for i in range(1, 4):
            at = x + 1.3 * i
            if all(abs(at - c) > CROSS_HALF for c in street.crossings):
                street.things.append(
                    things.put(mesh, at, street.centre(at) + side * (street.style.road + 0.4), 0.0, 0.1)
                )
    elif roll < 0.80:
        fill = tint(rng, pick(rng, ((150, 34, 34), (52, 88, 60), (60, 64, 68))), 8)
        mesh.box(-0.25, 0.25, -0.22, 0.22, 0, 1.15, fill, st.IGNORED)
    elif roll < 0.9:
        mesh.limb((0, 0, 0), (0, 0, 6.5), 0.11, 0.09, (96, 82, 66), st.POLE)
        mesh.limb((0, -0.7, 6.1), (0, 0.7, 6.1), 0.05, 0.05, (96, 82, 66), st.POLE)
    else:
        mesh.box(-0.7, 0.7, -0.3, 0.3, 0, 0.45, (140, 132, 122), st.IGNORED)
        mesh.box(-0.62, 0.62, -0.24, 0.24, 0.45, 0.75, (84, 104, 58), st.VEGETATION)
    street.things.append(things.put(mesh, x, y, turn, 0.4))


def _skyline(rng) -> list:
    """Choose what stands on the horizon: trees all around, a few towers."""
    towers = [
        (
            rng.uniform(0, 2 * math.pi),
            rng.uniform(0.02, 0.06),
            rng.uniform(0.06, 0.15),
            pick(rng, ("slab", "spire", "slab")),
            tint(rng, (150, 150, 152), 14),
        )
        for _ in range(5)
    ]
    return [rng.uniform(0, 2 * math.pi, 5).tolist(), rng.uniform(0.015, 0.04), towers]
