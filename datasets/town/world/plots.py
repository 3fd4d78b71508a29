"""Lines a street: houses, open lots and gardens on both sides, and what closes it at its ends."""

import math
from dataclasses import replace

import numpy as np

from datasets.town.chance import pick, tint
from datasets.town.world import things
from datasets.town.world.difficulty import Knobs
from datasets.town.world.houses import Facade, House, choose_facade, sibling
from datasets.town.world.mesh import FENCE, VEGETATION, WALL, Mesh, circle, placed, put, thing
from datasets.town.world.street import CROSS_HALF, Street
from datasets.town.world.styles import colours

TREES = ("round", "tall", "wide", "conifer")
WALLS = {"brick": (146, 96, 78), "stone": (172, 160, 134), "plaster": (186, 178, 160)}
# Share of the way along the places at which a street has these for certain, so that every class occurs.
CERTAIN = {1: ((0.06, "fence"), (0.60, "wall")), -1: ((0.12, "wall"), (0.72, "fence"))}


def line_side(street: Street, side: int, rng: np.random.Generator, knobs: Knobs) -> None:
    """Fill one side of the street with houses and open lots."""
    style, x, end = street.style, street.start, street.end
    done: list[tuple[Facade, str, tuple]] = []
    span = street.places[-1] - street.places[0]
    certain = [(street.places[0] + span * f + 3.0, kind) for f, kind in CERTAIN[side]]
    open_before, pending = True, None  # a house is placed once it is known what follows it

    def settle(open_after: bool) -> None:
        if pending is not None:
            _place_house(street, side, *pending, open_after, rng)

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
        lot = next((k for f, k in certain if x <= f < x + 9.0), None)
        if lot or (not open_before and rng.random() < style.gap):
            settle(True)
            pending = None
            wide = min(rng.uniform(6.0, 10.0), limit - x)
            _open_lot(street, side, x, x + wide, lot or pick(rng, ("fence", "wall", "hedge", "fence")), rng)
            certain = [(f, k) for f, k in certain if k != lot or f > x + 9.0]
            x, open_before = x + wide, True
            continue
        wide = rng.uniform(*style.width)
        if limit - x - wide < 5.0:
            wide = min(limit - x, style.width[1] * 1.4)
        room = style.detached * rng.uniform(0.6, 1.2)
        look = _next_look(street, wide, done, rng, knobs)
        settle(room > 0)
        pending = (x, x + wide, *look, open_before or room > 0)
        if style.setback >= 1.5:
            _front_garden(street, side, x, x + wide + room, rng)
        x, open_before = x + wide + room, room > 0
    settle(True)


def _next_look(street: Street, wide: float, done: list, rng: np.random.Generator, knobs: Knobs) -> tuple:
    """Return facade, roof and tiles of the next house; a new one joins ``done``, from which later ones may be repeated."""
    if done and rng.random() < knobs.repetition:
        model, roof, tiles = pick(rng, done)
        return sibling(model, wide, rng), roof, tiles
    roof, tiles = pick(rng, street.style.roofs), tint(rng, pick(rng, street.style.tiles), 8)
    done.append((choose_facade(street.style, wide, rng, roof), roof, tiles))
    return done[-1]


def _place_house(
    street: Street, side, x0, x1, spec: Facade, roof: str, tiles, open_before: bool, open_after: bool, rng, extra=0.0
) -> None:
    """Put a house between ``x0`` and ``x1``, ``extra`` metres behind the building line."""
    depth, off = float(rng.uniform(9.0, 12.0)), street.front + extra
    place, size = street.frontage(x0, x1, side, off)
    sides = (open_before, open_after) if side > 0 else (open_after, open_before)
    house = House(replace(spec, width=round(size, 2)), roof, tiles, depth, *sides)
    mesh, top = house.build(street.style, rng)
    foot = placed(place, [(0, 0), (size, 0), (size, depth), (0, depth)])
    x, reach = (x0 + x1) / 2, (x1 - x0) / 2
    street.things.append(thing(mesh, x, place[3], reach, place, front=True, off=off, shadow=(foot, top)))


def _barrier(street: Street, side: int, x0: float, x1: float, back: float, kind: str, rng) -> None:
    """Put a wall, fence or hedge along the street, ``back`` metres from the centre line."""
    if x1 - x0 < 0.8:
        return
    mesh = Mesh()
    place, size = street.frontage(x0, x1, side, back)
    size = round(size, 1)
    if kind == "hedge":
        high, rgb = rng.uniform(1.0, 1.7), tint(rng, (66, 88, 48), 7)
        mesh.flat(0, size, 0, 0.8, high, rgb, VEGETATION)
        mesh.front(size, high, ("hedge", rgb, int(rng.integers(9))), VEGETATION)
    elif kind == "wall":
        high, material = rng.uniform(1.1, 2.1), pick(rng, tuple(WALLS))
        rgb = tint(rng, WALLS[material], 10)
        mesh.flat(0, size, 0, 0.3, high, rgb, WALL)
        mesh.front(size, high, ("wall", rgb, material, int(rng.integers(99)), size, round(high, 1)), WALL)
    else:
        kind, high = pick(rng, ("picket", "board", "rail", "mesh", "board")), rng.uniform(1.0, 1.7)
        rgb = tint(rng, pick(rng, colours("fences")), 9)
        mesh.front(size, high, ("fence", kind, rgb, size, round(high, 1)), FENCE, both=True)
    street.things.append(thing(mesh, (x0 + x1) / 2, place[3], (x1 - x0) / 2, place, front=True, off=back))


def add_tree(street: Street, x: float, off: float, rng, height: tuple[float, float], kinds=TREES) -> None:
    """Put a tree or shrub of one of the ``kinds`` at ``x``, ``off`` metres from the centre line."""
    kind, high = pick(rng, kinds), rng.uniform(*height)
    y, r = street.centre(x) + off, high * 0.3
    shadow = [(x + r * c, y + r * s) for c, s in circle(8)[:-1]], high * 0.62
    mesh, front = things.tree(kind, int(rng.integers(7)), high), abs(off) > street.edge
    street.things.append(put(mesh, x, y, 0.0, r, shadow=shadow, front=front, off=abs(off)))


def _open_lot(street: Street, side: int, x0: float, x1: float, kind: str, rng: np.random.Generator) -> None:
    """Leave a garden with something along the pavement, trees and a house behind."""
    edge, style = street.edge, street.style
    street.lots.append((side, x0, x1))
    if x1 - x0 > 5.0 and rng.random() < 0.6:
        spec, tiles = choose_facade(style, x1 - x0, rng), tint(rng, pick(rng, style.tiles), 8)
        _place_house(street, side, x0 + 0.4, x1 - 0.4, spec, "gable", tiles, True, True, rng, 15.0)
    for _ in range(int((x1 - x0) / 3.0)):
        off = street.front + rng.uniform(3.0, 8.0)
        add_tree(street, rng.uniform(x0 + 1.0, x1 - 1.0), side * off, rng, (4.0, 8.5))
    for _ in range(2):
        add_tree(street, rng.uniform(x0 + 0.8, x1 - 0.8), side * (edge + 1.4), rng, (1.0, 2.0), ("shrub",))
    _barrier(street, side, x0, x1, edge + 0.25, kind, rng)


def _front_garden(street: Street, side: int, x0: float, x1: float, rng: np.random.Generator) -> None:
    setback, edge = street.style.setback, street.edge
    street.lots.append((side, x0, x1))
    kind, gate = pick(rng, ("fence", "wall", "hedge", "wall", "none")), rng.uniform(0.2, 0.7)
    if setback < 2.5:
        kind = pick(rng, ("wall", "none", "fence", "none"))
    cut = x0 + (x1 - x0) * gate
    if kind != "none":
        _barrier(street, side, x0, cut, edge + 0.15, kind, rng)
        _barrier(street, side, cut + 1.5, x1 - 0.2, edge + 0.15, kind, rng)
    if setback > 3.0:
        add_tree(street, rng.uniform(x0 + 1, x1 - 1), side * (edge + 2.2), rng, (1.0, 2.2), ("shrub",))
        if rng.random() < 0.4:
            add_tree(street, rng.uniform(x0 + 1, x1 - 1), side * (edge + 2.6), rng, (3.5, 6.5))


def close_ends(street: Street, rng: np.random.Generator) -> None:
    """Put houses along the side streets and across both ends."""
    style = street.style
    for c in street.crossings:
        for side in (1, -1):
            for near in (-1, 1):
                spec = choose_facade(style, 12.0, rng)
                _cross_house(street, c + near * (CROSS_HALF + 0.6), near, side, spec, rng)
    for x, turn in ((street.start - 24.0, math.pi), (street.end + 24.0, 0.0)):
        for k in (-1, 0, 1):
            spec = choose_facade(style, 14.0, rng)
            roof, tiles = pick(rng, style.roofs), pick(rng, style.tiles)
            mesh, _ = House(spec, roof, tiles, 9.0, False, False).build(style, rng)
            y = street.centre(x) + 14.5 * k
            cos, sin = math.cos(turn - math.pi / 2), math.sin(turn - math.pi / 2)
            street.things.append(thing(mesh, x, y, 2.0, (cos, sin, x - 7 * cos, y - 7 * sin), front=True))


def _cross_house(street: Street, x: float, near: int, side: int, spec: Facade, rng: np.random.Generator) -> None:
    """Put a house along a side street, its front towards it."""
    back = street.front + 13.0
    mesh, _ = House(spec, "gable", pick(rng, street.style.tiles), 9.0, True, True).build(street.style, rng)
    y = street.centre(x) + side * back
    # The front looks at -near along x; local x runs so that the lot lies behind it.
    turn = -math.pi / 2 if near > 0 else math.pi / 2
    oy = (y + (12.0 if side > 0 else 0.0)) if near > 0 else (y if side > 0 else y - 12.0)
    place = (math.cos(turn), math.sin(turn), x, oy)
    street.things.append(thing(mesh, x + near * 4.0, y + side * 6.0, 4.5, place, front=True, off=back))
