"""Houses of the procedural town: chooses facades within the traits of a street and builds their meshes.

Local coordinates of a house: x to the right along its front as seen from the street, y into the lot, z up.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from datasets.town.drawing.canvas import Mesh
from datasets.town.drawing.facades import SIGN_COLOURS, WORDS, Facade
from datasets.town.world import styles as st
from datasets.town.world.styles import StreetStyle, pick, scale, tint

PROPORTIONS = {  # share of a bay, share of a storey, metres per bay
    "sash": (0.42, 0.54, 2.2),
    "casement": (0.50, 0.46, 2.5),
    "shutters": (0.36, 0.48, 2.8),
    "bay": (0.44, 0.52, 2.3),
    "tall": (0.42, 0.66, 2.3),
    "arched": (0.44, 0.44, 2.4),
    "strip": (0.9, 0.5, 4.0),
    "grid": (0.74, 0.62, 2.4),
    "industrial": (0.66, 0.48, 3.4),
}


def choose_facade(style: StreetStyle, width: float, rng: np.random.Generator, roof: str, seed: int) -> Facade:
    """Return a new facade of ``width`` metres in the manner of ``style``."""
    kind = pick(rng, style.windows)
    share_w, share_h, bay = PROPORTIONS[kind]
    floors = int(rng.integers(style.floors[0], style.floors[1] + 1))
    shop = bool(rng.random() < style.shops)
    floor = style.floor * rng.uniform(0.92, 1.08)
    accent = tint(
        rng,
        pick(
            rng,
            ((50, 70, 60), (110, 36, 38), (40, 58, 92), (70, 56, 44), (36, 38, 42), (120, 120, 112), (150, 110, 50)),
        ),
        8,
    )
    material = pick(rng, style.materials)
    wall = pick(rng, style.palette)
    if material == "brick" and sum(wall) > 470:
        wall = pick(rng, st.BRICKS)
    return Facade(
        seed=seed,
        width=width,
        floors=floors,
        floor=floor,
        ground=floor + (0.7 if shop else 0.2),
        top=0.9 if roof in ("flat", "mansard") else 0.4,
        gable=width * rng.uniform(0.30, 0.42) if roof == "front gable" else 0.0,
        material=material,
        wall=tint(rng, wall, 9),
        trim=tint(rng, pick(rng, (*style.trim, (202, 192, 172), (236, 234, 228))), 8),
        accent=accent,
        window=kind,
        bays=max(1, round(width / bay * rng.uniform(0.8, 1.15))),
        window_width=share_w * rng.uniform(0.85, 1.2),
        window_height=share_h * rng.uniform(0.88, 1.12),
        shop=shop,
        sign=tint(rng, pick(rng, SIGN_COLOURS), 10),
        word=pick(rng, WORDS),
        base=bool(rng.random() < 0.45),
    )


def sibling(spec: Facade, width: float, rng: np.random.Generator, seed: int) -> Facade:
    """Return ``spec`` repeated next door: another width, door place and, for a shop, another sign."""
    return replace(
        spec,
        seed=seed,
        width=width,
        wall=tint(rng, spec.wall, 5),
        word=pick(rng, WORDS),
        accent=tint(rng, spec.accent, 22),
        sign=tint(rng, pick(rng, SIGN_COLOURS), 10),
        gable=spec.gable * width / spec.width,
        bays=max(1, round(spec.bays * width / spec.width)),
    )


def side_wall(spec: Facade, depth: float, seed: int, windows: bool) -> Facade:
    """Return the facade of a side of ``spec`` that is ``depth`` metres deep."""
    return replace(
        spec,
        seed=seed,
        width=depth,
        gable=0.0,
        shop=False,
        plain=True,
        base=spec.base,
        window=spec.window if windows and spec.window != "strip" else "casement",
        bays=max(1, round(depth / 3.0)),
        wall=scale(spec.wall, 0.96),
    )


def build_house(
    m: Mesh,
    spec: Facade,
    roof: str,
    tiles,
    depth: float,
    style: StreetStyle,
    rng: np.random.Generator,
    open_left: bool,
    open_right: bool,
) -> float:
    """Add a house to ``m`` and return its full height in metres."""
    w, h, b = spec.width, spec.eaves, st.BUILDING
    for is_open, right in ((open_left, False), (open_right, True)):
        x = w if right else 0.0
        tl, tr = ((x, 0.0, h), (x, depth, h)) if right else ((x, depth, h), (x, 0.0, h))
        if is_open:
            side = side_wall(spec, depth, spec.seed * 3 + right, rng.random() < 0.6)
            m.tex([tl, tr, (tl[0], tl[1], 0.0)], ("facade", side), b, (1.0 if right else -1.0, 0.0, 0.0))
        else:
            m.poly([(tl[0], tl[1], 0), (tr[0], tr[1], 0), tr, tl], scale(spec.wall, 0.92), b)
    top = _roof(m, spec, roof, tiles, depth, rng)
    outline = None
    if spec.gable > 0.0:
        outline = [(0, 0, h), (w / 2, 0, h + spec.gable), (w, 0, h), (w, 0, 0), (0, 0, 0)]
    full = h + spec.gable
    m.tex([(0, 0, full), (w, 0, full), (0, 0, 0)], ("facade", spec), b, (0.0, -1.0, 0.0), outline)
    if roof in ("flat", "mansard"):
        m.box(-0.05, w + 0.05, -0.22, 0.0, h - 0.16, h + 0.05, spec.trim, b)
    _attachments(m, spec, style, rng)
    return top


def _slope(m: Mesh, corners, key, outline=None) -> None:
    a, b, c = (np.array(p, float) for p in corners)
    n = np.cross(c - a, b - a)
    n = n / np.linalg.norm(n)
    m.tex([tuple(p) for p in corners], key, st.BUILDING, tuple(float(round(k, 2)) for k in n), outline)


def _roof(m: Mesh, spec: Facade, roof: str, tiles, depth: float, rng: np.random.Generator) -> float:
    w, h, key, b = spec.width, spec.eaves, ("tiles", tiles, spec.seed % 7), st.BUILDING
    rise = depth * 0.5 * rng.uniform(0.62, 0.95)
    stack = tint(rng, (134, 88, 72), 10)
    if roof in ("gable", "hip"):
        mid, top = depth / 2, h + rise
        inset = min(w * 0.3, depth * 0.4) if roof == "hip" else 0.0
        if roof == "gable":
            for x in (0.0, w):
                pts = [(x, 0, h), (x, depth, h), (x, mid, top)]
                m.poly(pts if x else [pts[1], pts[0], pts[2]], scale(spec.wall, 0.94), b)
        else:
            m.poly([(0, depth, h), (0, 0, h), (inset, mid, top)], scale(tiles, 0.95), b)
            m.poly([(w, 0, h), (w, depth, h), (w - inset, mid, top)], scale(tiles, 0.95), b)
        for _ in range(int(rng.integers(1, 3))):
            x = rng.uniform(0.1, 0.85) * (w - 0.8)
            m.box(x, x + 0.8, mid - 0.4, mid + 0.4, top - 1.2, top + 0.9, stack, b)
            m.box(x + 0.15, x + 0.65, mid - 0.2, mid + 0.2, top + 0.9, top + 1.25, (166, 96, 70), b)
        outline = [(inset, mid, top), (w - inset, mid, top), (w + 0.1, -0.35, h - 0.12), (-0.1, -0.35, h - 0.12)]
        _slope(m, [(-0.1, mid, top), (w + 0.1, mid, top), (-0.1, -0.35, h - 0.12)], key, outline)
        m.poly(
            [(-0.1, -0.35, h - 0.26), (w + 0.1, -0.35, h - 0.26), (w + 0.1, -0.35, h - 0.12), (-0.1, -0.35, h - 0.12)],
            scale(spec.trim, 0.9),
            b,
        )
        if spec.seed % 3 == 0 and w > 6:
            _dormers(m, spec, tiles, rng, h + rise * 0.25, mid * 0.25, 1 + int(w > 10))
        return top
    if roof == "front gable":
        top = h + spec.gable
        for x, s in ((0.0, -1), (w, 1)):
            eave, ridge = (x + 0.35 * s, -0.3, h - 0.2), (w / 2, -0.3, top)
            far = depth + 0.3
            tl, tr = ((w / 2, far, top), ridge) if s < 0 else (ridge, (w / 2, far, top))
            bl = (eave[0], far, eave[2]) if s < 0 else eave
            _slope(m, [tl, tr, bl], key)
        return top
    if roof == "mansard":
        rise = 2.3
        _slope(m, [(0, 1.0, h + rise), (w, 1.0, h + rise), (0, 0.1, h)], key)
        for x in (0.0, w):
            pts = [(x, 0.1, h), (x, depth, h), (x, depth, h + rise), (x, 1.0, h + rise)]
            m.poly(pts if x else pts[::-1], scale(spec.wall, 0.9), b)
        _dormers(m, spec, tiles, rng, h + 0.45, 0.25, max(1, spec.bays - int(rng.integers(0, 2))))
        x = rng.uniform(0.1, 0.8) * w
        m.box(x, x + 0.9, 1.6, 2.4, h + rise - 0.1, h + rise + 1.2, stack, b)
        return h + rise
    if rng.random() < 0.4 and w > 8:
        x = rng.uniform(0.2, 0.5) * w
        m.box(x, x + 3.0, 2.5, 5.5, h - 0.2, h + 2.0, scale(spec.wall, 0.85), b)
    return h


def _dormers(m: Mesh, spec: Facade, tiles, rng, z: float, y: float, count: int) -> None:
    b = st.BUILDING
    for i in range(count):
        x = spec.width * (i + 0.5) / count
        m.box(x - 0.6, x + 0.6, y, y + 1.6, z - 0.2, z + 1.3, scale(tiles, 0.85), b)
        m.poly(
            [
                (x - 0.5, y - 0.02, z),
                (x + 0.5, y - 0.02, z),
                (x + 0.5, y - 0.02, z + 1.2),
                (x - 0.5, y - 0.02, z + 1.2),
            ],
            spec.trim,
            b,
        )
        m.poly(
            [
                (x - 0.4, y - 0.04, z + 0.1),
                (x + 0.4, y - 0.04, z + 0.1),
                (x + 0.4, y - 0.04, z + 1.1),
                (x - 0.4, y - 0.04, z + 1.1),
            ],
            (56, 64, 72),
            b,
        )
        m.poly(
            [(x - 0.7, y - 0.15, z + 1.3), (x + 0.7, y - 0.15, z + 1.3), (x, y - 0.15, z + 1.75)],
            scale(spec.trim, 0.92),
            b,
        )


def _attachments(m: Mesh, spec: Facade, style: StreetStyle, rng: np.random.Generator) -> None:
    w, g, b = spec.width, spec.ground, st.BUILDING
    if spec.shop and rng.random() < 0.5:
        _awning(m, 0.3, w - 0.3, g - 1.0, spec, rng)
    if spec.shop and rng.random() < 0.6:  # sign that sticks out
        x, z = (0.5, w - 0.5)[int(rng.integers(2))], g + rng.uniform(0.1, 0.7)
        fill = tint(rng, pick(rng, SIGN_COLOURS), 12)
        m.box(x - 0.06, x + 0.06, -1.1, -0.2, z, z + rng.uniform(0.6, 1.3), fill, b, 0.25)
        m.limb((x, 0, z + 0.5), (x, -0.25, z + 0.5), 0.03, 0.03, (40, 40, 40), b)
    if rng.random() < style.balconies and spec.floors > 1 and spec.window != "strip":
        rail, slab = tint(rng, pick(rng, ((40, 42, 44), (120, 124, 126), (200, 200, 196))), 6), scale(spec.trim, 0.9)
        bays = [i for i in range(spec.bays) if (i + spec.seed) % 2 == 0] or [0]
        for level in range(1, spec.floors):
            z = g + (level - 1) * spec.floor
            for i in bays:
                _balcony(m, (i + 0.5) * w / spec.bays, min(w / spec.bays * 0.95, 3.0), z, slab, rail)
    if not spec.shop and not spec.plain and rng.random() < 0.4:  # canopy over the door
        u = (spec.seed % spec.bays + 0.5) * w / spec.bays
        m.box(u - 0.8, u + 0.8, -0.8, 0.0, 2.45, 2.6, scale(spec.trim, 0.9), b)


def _awning(m: Mesh, u0: float, u1: float, z: float, spec: Facade, rng: np.random.Generator) -> None:
    one, two = spec.sign, (232, 226, 212)
    stripes = rng.random() < 0.6
    n = max(2, round((u1 - u0) / 0.5)) if stripes else 1
    for i in range(n):
        a, c = u0 + (u1 - u0) * i / n, u0 + (u1 - u0) * (i + 1) / n
        fill = one if i % 2 == 0 else two
        m.poly([(a, -1.3, z - 0.55), (c, -1.3, z - 0.55), (c, 0, z), (a, 0, z)], fill, st.BUILDING, both=True)
        m.poly(
            [(a, -1.3, z - 0.78), (c, -1.3, z - 0.78), (c, -1.3, z - 0.55), (a, -1.3, z - 0.55)],
            scale(fill, 0.85),
            st.BUILDING,
            both=True,
        )


def _balcony(m: Mesh, u: float, wide: float, z: float, slab, rail) -> None:
    b, x0, x1 = st.BUILDING, u - wide / 2, u + wide / 2
    m.box(x0, x1, -0.95, 0.0, z - 0.16, z, slab, b)
    m.poly(
        [(x0, 0, z - 0.16), (x1, 0, z - 0.16), (x1, -0.95, z - 0.16), (x0, -0.95, z - 0.16)],
        scale(slab, 0.6),
        b,
        both=True,
    )
    for i in range(int(wide / 0.22) + 1):
        x = x0 + wide * i / int(wide / 0.22)
        m.limb((x, -0.92, z), (x, -0.92, z + 0.95), 0.018, 0.018, rail, b)
    m.limb((x0, -0.92, z + 0.98), (x1, -0.92, z + 0.98), 0.035, 0.035, rail, b)
    for x in (x0, x1):
        m.limb((x, -0.92, z + 0.98), (x, 0, z + 0.98), 0.035, 0.035, rail, b)
        m.limb((x, -0.5, z), (x, -0.5, z + 0.98), 0.02, 0.02, rail, b)


def frame_of(street, x0: float, x1: float, side: int, back: float) -> tuple[float, float, float, float, float]:
    """Return (cos, sin, x, y, width) of the front between ``x0`` and ``x1``, ``back`` metres from the centre line."""
    a, c = (x0, x1) if side > 0 else (x1, x0)
    ya, yc = street.centre(a) + side * back, street.centre(c) + side * back
    size = math.hypot(c - a, yc - ya)
    return (c - a) / size, (yc - ya) / size, a, ya, size
