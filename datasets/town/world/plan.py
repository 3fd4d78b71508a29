"""Plans a street: its course, its crossings, what lines it, and what stands along its kerbs."""

import math
from functools import lru_cache

import numpy as np

from datasets.town.chance import keyed, pick, tint
from datasets.town.world import things
from datasets.town.world.difficulty import Knobs
from datasets.town.world.mesh import put
from datasets.town.world.plots import add_tree, close_ends, line_side
from datasets.town.world.street import CROSS_HALF, MARGIN, Street
from datasets.town.world.styles import colours, street_style, town

BLOCK = 90.0  # metres between crossings


@lru_cache(maxsize=8)
def build_street(seed: int, name: str, index: int, count: int, knobs: Knobs) -> Street:
    """Build street ``index`` of the town ``name`` with ``count`` places; it depends on its arguments only."""
    rng = keyed(seed, name, "street", index)
    style = street_style(town(name).streets[index])
    xs = list(np.cumsum(rng.uniform(8.6, 11.4, count)).round(3))
    east, north = town(name).origin
    period = rng.uniform(190.0, 320.0)
    bend = (style.bends * rng.uniform(0.4, 1.0) * period / (2 * math.pi), period, rng.uniform(0, 2 * math.pi))
    far = 1500.0 + 14.0 * count
    street = Street(
        index,
        style,
        rng.uniform(0, 2 * math.pi),
        (east + far * (index % 3), north + far * (index // 3)),
        xs,
        bend,
        name == "robotcar",
        grass=tint(rng, (98, 110, 66), 7),
        asphalt=tint(rng, (116, 115, 114), 6),
        slabs=tint(rng, pick(rng, colours("slabs")), 6),
    )
    inside = xs[0] + (xs[-1] - xs[0]) * (0.42 if count < 12 else 0.18)  # one crossing lies among the places
    first = inside - BLOCK * math.ceil((inside - xs[0] + MARGIN) / BLOCK)
    found = [float(c + (0 if c == inside else rng.uniform(-12, 12))) for c in np.arange(first, street.end, BLOCK)]
    street.crossings = sorted(c for c in found if street.start + 20 < c < street.end - 20)
    for side in (1, -1):
        line_side(street, side, keyed(seed, name, "side", index, side), knobs)
    close_ends(street, keyed(seed, name, "ends", index))
    _furnish(street, keyed(seed, name, "furniture", index))
    street.skyline = _skyline(keyed(seed, name, "skyline", index))
    street.things.sort(key=lambda t: t.x)
    return street


def _furnish(street: Street, rng: np.random.Generator) -> None:
    """Put lamps, trees, signs, traffic lights, bollards and boxes along the kerbs."""
    style, kerb = street.style, street.style.road
    metal = pick(rng, colours("posts"))
    _lamps(street, rng, metal)
    for side in (1, -1):
        x = street.start + rng.uniform(0, 12)
        while style.trees and x < street.end:
            if street.clear(x, CROSS_HALF + 2) and rng.random() < 0.85:
                off = kerb + (style.verge * 0.5 if style.verge else 0.75)
                add_tree(street, x, side * off, rng, (5.0, 8.0), ("round", "tall", "wide"))
            x += style.trees * rng.uniform(0.8, 1.3)
        x = street.start + rng.uniform(0, 9)
        while x < street.end:
            if street.clear(x):
                _small_thing(street, x, side, rng, metal)
            x += rng.uniform(6.0, 15.0)
    for c in street.crossings:
        for s in (1, -1):  # one light for each driving direction, before and behind the crossing
            for shift in (-1, 1):
                x, off = c + shift * (CROSS_HALF - 0.8), s * street.lead * (kerb + 0.5)
                mesh, lights = things.traffic_light(rng)
                turn = 0.0 if s > 0 else math.pi
                street.things.append(put(mesh, x, street.centre(x) + off, turn, 0.3, lights=lights))


def _lamps(street: Street, rng: np.random.Generator, metal) -> None:
    """Put street lamps, on alternate sides."""
    x, side, step = street.start, 1, rng.uniform(20.0, 27.0)
    while x < street.end:
        if street.clear(x):
            mesh, heads = things.lamp(street.style.lamps, 1.6, metal)
            y, arm = street.centre(x) + side * (street.style.road + 0.45), -side * math.pi / 2 + street.slope(x)
            street.things.append(put(mesh, x, y, arm, 0.6))
            street.lamps += [(x + h[0] * math.cos(arm), y + h[0] * math.sin(arm), h[2]) for h in heads]
        x, side = x + step * rng.uniform(0.85, 1.15), -side


def _small_thing(street: Street, x: float, side: int, rng: np.random.Generator, metal) -> None:
    ahead = 1 if side == street.lead else -1
    turn = (0.0 if ahead > 0 else math.pi) + street.slope(x) + rng.uniform(-0.5, 0.1) * side * ahead
    off, roll = side * (street.style.road + 0.4), rng.random()
    if roll < 0.5:
        mesh = things.traffic_sign(pick(rng, things.SIGNS), int(rng.integers(5)), rng.uniform(1.7, 2.2))
    elif roll < 0.68:
        mesh = things.bollard(metal)
        for at in (x + 1.3 * i for i in range(1, 4)):
            if street.clear(at):
                street.things.append(put(mesh, at, street.centre(at) + off, 0.0, 0.1))
    elif roll < 0.80:
        mesh = things.letter_box(rng)
    elif roll < 0.9:
        mesh = things.wooden_pole()
    else:
        mesh = things.planter()
    street.things.append(put(mesh, x, street.centre(x) + off, turn, 0.4))


def _skyline(rng: np.random.Generator) -> tuple:
    """Choose what stands on the horizon: phases and height of the trees all around, and a few towers.

    A tower is (azimuth, width, height, kind, colour); heights and widths are angles in radians.
    """
    towers = []
    for _ in range(5):
        azimuth, wide, high = rng.uniform(0, 2 * math.pi), rng.uniform(0.02, 0.06), rng.uniform(0.06, 0.15)
        towers.append((azimuth, wide, high, pick(rng, ("slab", "spire", "slab")), tint(rng, (150, 150, 152), 14)))
    return rng.uniform(0, 2 * math.pi, 5).tolist(), rng.uniform(0.015, 0.04), towers
