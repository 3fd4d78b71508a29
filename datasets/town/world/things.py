"""Meshes of the procedural town that stand in the street: vehicles, people, lamps, signs, trees.

Each builder draws in local coordinates (x ahead, y to the left, z up, metres) around the origin; the callers
place the mesh with :func:`put`.
"""

from __future__ import annotations

import math

import numpy as np

from datasets.town.drawing.canvas import Mesh, Thing, thing
from datasets.town.world import styles as st
from datasets.town.world.styles import pick, scale, tint

PAINTS = (
    (32, 34, 38),
    (196, 198, 200),
    (226, 226, 222),
    (96, 100, 106),
    (120, 26, 30),
    (34, 56, 98),
    (60, 74, 66),
    (150, 142, 126),
    (70, 72, 78),
    (176, 178, 182),
    (40, 84, 120),
    (168, 60, 34),
)
CLOTHES = (
    (38, 44, 62),
    (64, 62, 60),
    (120, 36, 40),
    (60, 84, 62),
    (150, 130, 100),
    (36, 36, 40),
    (176, 170, 160),
    (86, 62, 48),
    (58, 82, 120),
    (190, 150, 60),
    (110, 110, 116),
    (134, 70, 92),
)
SKIN = ((224, 184, 156), (196, 150, 118), (140, 98, 74), (98, 66, 50), (232, 196, 170))
GLASS_RGB, TYRE = (38, 46, 54), (24, 24, 26)


def put(mesh: Mesh, x: float, y: float, heading: float, reach: float, **extra) -> Thing:
    """Place a local mesh at street position (x, y), turned by ``heading`` radians."""
    cos, sin = math.cos(heading), math.sin(heading)
    lights = tuple(
        (x + a * cos - b * sin, y + a * sin + b * cos, z, rgb, r) for a, b, z, rgb, r in extra.pop("lights", ())
    )
    shade = extra.pop("foot", None)
    if shade is not None:  # half length, half width, height
        hl, hw, high = shade
        foot = [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in ((hl, hw), (hl, -hw), (-hl, -hw), (-hl, hw))]
        extra["shadow"] = (foot, high)
    return thing(mesh, x, y, reach, (cos, sin, x, y), lights=lights, **extra)


def _wheel(m: Mesh, x: float, y: float, r: float, label: int, side: int) -> None:
    ring = [(x + r * math.cos(a), y, r + r * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 12, endpoint=False)]
    hub = [
        (x + 0.58 * r * math.cos(a), y + 0.01 * side, r + 0.58 * r * math.sin(a))
        for a in np.linspace(0, 2 * math.pi, 8, endpoint=False)
    ]
    if side > 0:
        ring, hub = ring[::-1], hub[::-1]
    m.poly(ring, TYRE, label)
    m.poly(hub, (112, 114, 118), label)


def _extrude(m: Mesh, profile, half_low: float, half_top: float, paint, label: int) -> None:
    """Add the skin of a profile [(x, z)...] that runs from the rear bottom over the top to the front bottom."""
    lo, hi = min(z for _, z in profile), max(z for _, z in profile)

    def half(z):
        return half_low + (half_top - half_low) * (z - lo) / (hi - lo)

    for (xa, za), (xb, zb) in zip(profile, profile[1:]):
        m.poly([(xa, half(za), za), (xa, -half(za), za), (xb, -half(zb), zb), (xb, half(zb), zb)], paint, label)
    m.poly([(x, half(z), z) for x, z in profile], paint, label)
    m.poly([(x, -half(z), z) for x, z in profile][::-1], paint, label)


CARS = {  # body profile, cabin (rear bottom, rear top, front top, front bottom), height, width
    "hatch": (
        ((-1.9, 0.3), (-1.95, 0.92), (1.05, 0.90), (1.85, 0.74), (1.9, 0.3)),
        (-1.9, -1.45, 0.25, 1.1),
        1.48,
        1.74,
    ),
    "sedan": (
        ((-2.25, 0.3), (-2.28, 0.92), (-1.5, 0.95), (1.0, 0.92), (2.15, 0.74), (2.2, 0.3)),
        (-1.65, -0.95, 0.3, 1.1),
        1.44,
        1.8,
    ),
    "estate": (
        ((-2.3, 0.3), (-2.34, 0.95), (1.1, 0.93), (2.1, 0.76), (2.15, 0.3)),
        (-2.28, -1.95, 0.3, 1.15),
        1.5,
        1.8,
    ),
    "suv": (((-2.2, 0.4), (-2.25, 1.08), (1.1, 1.06), (2.05, 0.96), (2.1, 0.4)), (-2.2, -1.9, 0.35, 1.15), 1.74, 1.9),
}


def car(rng: np.random.Generator, lamps: bool, driving: bool):
    """Build a car; returns (mesh, half length, width, height, lights)."""
    kind = pick(rng, ("hatch", "hatch", "sedan", "estate", "suv"))
    body, (rb, rt, ft, fb), high, wide = CARS[kind]
    paint, m, half = tint(rng, pick(rng, PAINTS), 6), Mesh(), wide / 2
    v = st.VEHICLE
    x0, x1 = min(x for x, _ in body), max(x for x, _ in body)
    base = body[1][1]
    _extrude(m, ((rb, base), (rt, high), (ft, high + 0.01), (fb, base - 0.02)), half - 0.06, half - 0.24, GLASS_RGB, v)
    m.poly(
        [
            (rt - 0.05, -half + 0.25, high + 0.02),
            (ft + 0.05, -half + 0.25, high + 0.02),
            (ft + 0.05, half - 0.25, high + 0.02),
            (rt - 0.05, half - 0.25, high + 0.02),
        ],
        paint,
        v,
    )
    for s in (1, -1):  # pillars and roof rails
        y0, y1 = s * (half - 0.05), s * (half - 0.235)
        for xa, xb, r in ((rb, rt, 0.07), (fb, ft, 0.045), ((rb + fb) / 2 - 0.1, (rt + ft) / 2 - 0.1, 0.04)):
            m.limb((xa, y0, base), (xb, y1, high), r, r, paint, v)
        m.limb((rt, y1, high), (ft, y1, high), 0.045, 0.045, paint, v)
    _extrude(m, body, half, half - 0.05, paint, v)
    for s in (1, -1):
        for x in (x0 + 0.75, x1 - 0.78):
            _wheel(m, x, s * (half + 0.01), 0.32, v, s)
        m.limb(
            (0.1, s * (half + 0.02), base - 0.18),
            (0.28, s * (half + 0.02), base - 0.18),
            0.02,
            0.02,
            scale(paint, 0.6),
            v,
        )
    lights = _car_lights(m, x0 - 0.03, x1 + 0.03, half, v, lamps and driving)
    return m, (x1 - x0) / 2, wide, high, lights


def _car_lights(m: Mesh, x0: float, x1: float, half: float, label: int, on: bool):
    lights = []
    for s in (1, -1):
        y0, y1 = sorted((s * (half - 0.42), s * (half - 0.08)))
        m.poly(
            [(x1, y0, 0.58), (x1, y1, 0.58), (x1, y1, 0.74), (x1, y0, 0.74)],
            (240, 240, 228) if on else (198, 204, 208),
            label,
            1.0 if on else 0.0,
        )
        m.poly(
            [(x0, y1, 0.66), (x0, y0, 0.66), (x0, y0, 0.86), (x0, y1, 0.86)],
            (226, 30, 24) if on else (140, 24, 26),
            label,
            0.9 if on else 0.0,
        )
        if on:
            lights += [
                (x1 + 0.1, s * (half - 0.25), 0.66, (1.0, 0.95, 0.80), 0.85),
                (x0 - 0.1, s * (half - 0.25), 0.76, (0.95, 0.10, 0.06), 0.40),
            ]
    m.poly([(x0, 0.27, 0.5), (x0, -0.27, 0.5), (x0, -0.27, 0.62), (x0, 0.27, 0.62)], (222, 216, 170), label)
    m.poly([(x1, -0.5, 0.42), (x1, 0.5, 0.42), (x1, 0.5, 0.56), (x1, -0.5, 0.56)], (34, 34, 36), label)
    return lights


def truck(rng: np.random.Generator, lamps: bool, driving: bool):
    """Build a lorry or a delivery van; returns (mesh, half length, width, height, lights)."""
    m, t = Mesh(), st.TRUCK
    big = rng.random() < 0.55
    length, wide, high = (7.2, 2.3, 3.1) if big else (5.4, 2.0, 2.35)
    half, x0, x1 = wide / 2, -length / 2, length / 2
    paint = tint(
        rng,
        pick(rng, ((224, 224, 220), (200, 196, 186), (38, 78, 130), (170, 40, 36), (214, 170, 40), (70, 110, 80))),
        6,
    )
    cargo = tint(rng, pick(rng, ((222, 222, 218), (190, 186, 176), (120, 130, 140), (60, 90, 130), (150, 60, 50))), 6)
    if big:
        m.box(x0, x1, -half + 0.25, half - 0.25, 0.35, 0.75, (44, 44, 46), t)
        m.box(x1 - 1.9, x1, -half + 0.05, half - 0.05, 0.45, 2.45, paint, t)
        m.box(x0, x1 - 2.0, -half, half, 0.75, high, cargo, t)
        band = scale(cargo, 0.72)
        for s in (1, -1):
            pts = [
                (x0 + 0.1, s * (half + 0.01), 1.5),
                (x1 - 2.1, s * (half + 0.01), 1.5),
                (x1 - 2.1, s * (half + 0.01), 2.2),
                (x0 + 0.1, s * (half + 0.01), 2.2),
            ]
            m.poly(pts if s < 0 else pts[::-1], band, t)
        for y in (-half + 0.05, 0.02):
            m.poly(
                [
                    (x0 - 0.01, y, 0.85),
                    (x0 - 0.01, y, 2.95),
                    (x0 - 0.01, y + half - 0.1, 2.95),
                    (x0 - 0.01, y + half - 0.1, 0.85),
                ],
                scale(cargo, 0.88),
                t,
            )
    else:
        _extrude(
            m,
            ((x0, 0.35), (x0, high), (x1 - 1.6, high), (x1 - 0.95, 1.2), (x1, 0.98), (x1, 0.35)),
            half,
            half - 0.12,
            paint,
            t,
        )
        for y in (-half + 0.2, 0.05):
            m.poly(
                [
                    (x0 - 0.01, y + half - 0.3, 1.4),
                    (x0 - 0.01, y, 1.4),
                    (x0 - 0.01, y, 2.05),
                    (x0 - 0.01, y + half - 0.3, 2.05),
                ],
                GLASS_RGB,
                t,
            )
    low, top, back = (1.45, 2.2, x1 - 1.2) if big else (1.25, 1.9, x1 - 2.2)
    nose = x1 + 0.01 if big else x1 - 1.28
    if big:
        m.poly(
            [(nose, -half + 0.2, low), (nose, half - 0.2, low), (nose, half - 0.2, top), (nose, -half + 0.2, top)],
            GLASS_RGB,
            t,
        )
    else:
        m.poly(
            [
                (x1 - 0.93, -half + 0.15, 1.22),
                (x1 - 0.93, half - 0.15, 1.22),
                (x1 - 1.56, half - 0.2, 2.22),
                (x1 - 1.56, -half + 0.2, 2.22),
            ],
            GLASS_RGB,
            t,
        )
    for s in (1, -1):
        y = s * (half + 0.012 if not big else half - 0.04)
        pts = [(back, y, low), (back + 0.9, y, low), (back + 0.75, y, top), (back, y, top)]
        m.poly(pts if s < 0 else pts[::-1], GLASS_RGB, t)
        for x in (x0 + 1.2, x1 - 1.0):
            _wheel(m, x, s * (half + 0.015), 0.45 if big else 0.36, t, s)
    lights = _car_lights(m, x0 - 0.03, x1 + 0.03, half, t, lamps and driving)
    return m, length / 2, wide, high, lights


def _figure(
    m: Mesh,
    rng,
    label: int,
    high: float,
    dress,
    x: float = 0.0,
    z: float = 0.0,
    seated: bool = False,
    swing: float = 0.0,
) -> None:
    """Add a person of height ``high`` at local x, feet (or saddle) at z."""
    coat, legs, skin = dress
    hip, neck = (0.50 * high, 0.82 * high) if not seated else (0.0, 0.36 * high)
    hair = tint(rng, pick(rng, ((40, 32, 28), (90, 66, 46), (26, 24, 24), (150, 140, 130), (120, 84, 50))), 6)
    lean = 0.26 if seated else 0.02
    for s in (1, -1):
        y = 0.09 * s
        if seated:
            m.limb((x, y, z), (x + 0.38, y * 1.4, z - 0.12 - 0.14 * s), 0.085, 0.07, legs, label)
            m.limb(
                (x + 0.38, y * 1.4, z - 0.12 - 0.14 * s),
                (x + 0.24, y * 1.4, z - 0.52 - 0.10 * s),
                0.065,
                0.05,
                legs,
                label,
            )
            m.limb((x + lean, y * 2.0, z + neck - 0.08), (x + 0.58, y * 2.4, z + 0.24), 0.055, 0.045, coat, label)
        else:
            step = swing * s
            m.limb((x, y, z + hip), (x + step * 0.5, y, z + hip * 0.5), 0.085, 0.07, legs, label)
            m.limb((x + step * 0.5, y, z + hip * 0.5), (x + step, y, z + 0.05), 0.07, 0.05, legs, label)
            m.limb((x + step, y, z + 0.04), (x + step + 0.14, y, z + 0.04), 0.045, 0.04, (30, 28, 28), label)
            m.limb(
                (x, y * 2.4, z + neck - 0.08),
                (x - step * 0.6, y * 2.7, z + hip - 0.02),
                0.06,
                0.045,
                scale(coat, 0.88),
                label,
            )
    m.limb((x, 0, z + hip - 0.02), (x + lean, 0, z + neck - 0.08), 0.155, 0.185, coat, label)
    m.limb((x + lean, 0, z + neck - 0.05), (x + lean + 0.02, 0, z + neck + 0.08), 0.06, 0.06, skin, label)
    m.ball((x + lean + 0.02, 0, z + neck + 0.17), 0.115, hair, label)
    m.ball((x + lean + 0.07, 0, z + neck + 0.145), 0.085, skin, label)


def person(rng: np.random.Generator, rain: bool = False) -> Mesh:
    """Build a pedestrian, with an umbrella in some cases when it rains."""
    m = Mesh()
    dress = (
        tint(rng, pick(rng, CLOTHES), 8),
        tint(rng, pick(rng, ((40, 44, 56), (60, 58, 56), (34, 34, 36), (90, 80, 68))), 6),
        pick(rng, SKIN),
    )
    high = rng.uniform(1.55, 1.88)
    _figure(m, rng, st.PERSON, high, dress, swing=rng.uniform(0.05, 0.3))
    if rain and rng.random() < 0.55:
        fill, z = tint(rng, pick(rng, ((30, 30, 34), (120, 30, 40), (40, 60, 100), (60, 84, 62))), 8), high + 0.32
        m.limb((0.15, 0.18, high * 0.6), (0.1, 0.05, z), 0.015, 0.015, (60, 60, 60), st.PERSON)
        ring = [
            (0.1 + 0.55 * math.cos(a), 0.05 + 0.55 * math.sin(a), z - 0.2) for a in np.linspace(0, 2 * math.pi, 9)[:-1]
        ]
        for i in range(8):
            m.poly(
                [ring[i], ring[(i + 1) % 8], (0.1, 0.05, z + 0.05)],
                scale(fill, 0.85 + 0.06 * (i % 4)),
                st.PERSON,
                both=True,
            )
    return m


def bicycle(rng: np.random.Generator, rider: bool) -> Mesh:
    """Build a bicycle, with or without its rider."""
    m, b, frame = Mesh(), st.BICYCLE, tint(rng, pick(rng, PAINTS), 10)
    for x in (-0.52, 0.52):
        ring = [(x + 0.33 * math.cos(a), 0.0, 0.34 + 0.33 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 13)]
        for p, q in zip(ring, ring[1:]):
            m.limb(p, q, 0.028, 0.028, TYRE, b)
    for p, q in (
        ((-0.52, 0.34), (-0.18, 0.82)),
        ((-0.18, 0.82), (0.38, 0.80)),
        ((0.38, 0.80), (-0.05, 0.32)),
        ((-0.05, 0.32), (-0.18, 0.85)),
        ((-0.52, 0.34), (-0.05, 0.32)),
        ((0.40, 0.92), (0.52, 0.34)),
    ):
        m.limb((p[0], 0, p[1]), (q[0], 0, q[1]), 0.028, 0.028, frame, b)
    m.limb((0.40, -0.26, 0.98), (0.40, 0.26, 0.98), 0.02, 0.02, (50, 50, 52), b)
    m.limb((-0.28, 0, 0.92), (-0.08, 0, 0.93), 0.05, 0.03, (30, 28, 28), b)
    if rider:
        dress = tint(rng, pick(rng, CLOTHES), 8), tint(rng, (50, 52, 60), 8), pick(rng, SKIN)
        _figure(m, rng, st.RIDER, 1.72, dress, x=-0.18, z=0.96, seated=True)
        m.ball((0.1, 0, 0.96 + 0.36 * 1.72 + 0.20), 0.12, tint(rng, pick(rng, PAINTS), 10), st.RIDER)
    return m


def motorcycle(rng: np.random.Generator, rider: bool, lamps: bool):
    """Build a motorcycle; returns (mesh, lights)."""
    m, b, paint = Mesh(), st.MOTORCYCLE, tint(rng, pick(rng, PAINTS), 10)
    for x in (-0.68, 0.68):
        ring = [(x + 0.30 * math.cos(a), 0.0, 0.31 + 0.30 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 11)]
        for p, q in zip(ring, ring[1:]):
            m.limb(p, q, 0.065, 0.065, TYRE, b)
    m.limb((-0.35, 0, 0.45), (0.35, 0, 0.45), 0.19, 0.17, (70, 72, 76), b)
    m.limb((-0.85, 0, 0.74), (-0.1, 0, 0.76), 0.10, 0.13, (34, 32, 32), b)
    m.limb((-0.05, 0, 0.82), (0.38, 0, 0.86), 0.16, 0.13, paint, b)
    m.limb((0.68, 0, 0.31), (0.42, 0, 0.98), 0.05, 0.05, (150, 152, 156), b)
    m.limb((0.40, -0.36, 1.02), (0.40, 0.36, 1.02), 0.03, 0.03, (40, 40, 42), b)
    m.limb((-0.85, 0.15, 0.4), (-0.2, 0.15, 0.36), 0.06, 0.05, (150, 150, 154), b)
    m.ball((0.56, 0, 0.90), 0.11, (236, 234, 220) if lamps else (186, 190, 192), b, 0.9 if lamps else 0.0)
    m.ball((-0.93, 0, 0.74), 0.06, (190, 28, 26), b, 0.8 if lamps else 0.0)
    if rider:
        dress = tint(rng, pick(rng, ((34, 34, 38), (60, 50, 44), (90, 30, 32))), 6), (36, 38, 44), pick(rng, SKIN)
        _figure(m, rng, st.RIDER, 1.75, dress, x=-0.25, z=0.90, seated=True)
        m.ball((0.04, 0, 0.90 + 0.36 * 1.75 + 0.17), 0.145, tint(rng, pick(rng, PAINTS), 10), st.RIDER)
    return m, (((0.7, 0, 0.9, (1.0, 0.95, 0.8), 0.6), (-0.98, 0, 0.74, (0.9, 0.1, 0.06), 0.3)) if lamps else ())


def lamp(kind: str, reach: float, rgb) -> tuple[Mesh, list[tuple[float, float, float]]]:
    """Build a street lamp whose arm points to +x; returns (mesh, lamp heads)."""
    m, p = Mesh(), st.POLE
    if kind == "post":
        m.limb((0, 0, 0), (0, 0, 0.9), 0.11, 0.07, rgb, p)
        m.limb((0, 0, 0.9), (0, 0, 3.9), 0.06, 0.05, rgb, p)
        m.box(-0.17, 0.17, -0.17, 0.17, 3.9, 4.4, (228, 220, 196), p, 0.9)
        for a, b in (
            ((-0.24, -0.24), (0.24, -0.24)),
            ((0.24, -0.24), (0.24, 0.24)),
            ((0.24, 0.24), (-0.24, 0.24)),
            ((-0.24, 0.24), (-0.24, -0.24)),
        ):
            m.poly([(*a, 4.4), (*b, 4.4), (0, 0, 4.75)], rgb, p)
        return m, [(0.0, 0.0, 4.2)]
    m.limb((0, 0, 0), (0, 0, 1.2), 0.12, 0.09, rgb, p)
    m.limb((0, 0, 1.2), (0, 0, 7.2), 0.085, 0.06, rgb, p)
    heads = []
    for s in (1, -1) if kind == "double" else (1,):
        m.limb((0, 0, 7.2), (s * reach, 0, 7.6), 0.05, 0.04, rgb, p)
        m.limb((s * (reach - 0.1), 0, 7.58), (s * (reach + 0.6), 0, 7.55), 0.10, 0.08, scale(rgb, 0.8), p)
        m.limb((s * (reach + 0.05), 0, 7.48), (s * (reach + 0.5), 0, 7.46), 0.06, 0.05, (230, 222, 200), p, 0.9)
        heads.append((s * (reach + 0.3), 0.0, 7.45))
    return m, heads


def traffic_light(rng: np.random.Generator) -> tuple[Mesh, tuple]:
    """Build a traffic light that faces -x; returns (mesh, lights)."""
    m = Mesh()
    m.limb((0, 0, 0), (0, 0, 2.35), 0.06, 0.055, (70, 72, 74), st.POLE)
    m.box(-0.12, 0.16, -0.24, 0.24, 2.1, 3.25, (34, 36, 36), st.LIGHT)
    on, lights = int(rng.integers(3)), ()
    for i, rgb in enumerate(((40, 200, 110), (240, 170, 40), (225, 44, 34))):
        z = 2.3 + 0.36 * i
        m.ball((-0.15, 0, z), 0.14, rgb if i == on else scale(rgb, 0.28), st.LIGHT, 1.0 if i == on else 0.0)
        if i == on:
            lights = ((-0.2, 0, z, tuple(c / 255 for c in rgb), 0.6),)
    return m, lights


def traffic_sign(kind: str, seed: int, height: float = 2.2) -> Mesh:
    """Build a traffic sign that faces -x."""
    m = Mesh()
    m.limb((0.04, 0, 0), (0.04, 0, height + 0.6), 0.035, 0.035, (128, 130, 132), st.POLE)
    wide, high = (1.3, 0.9) if kind == "guide" else (0.72, 0.72)
    h = wide / 2
    m.poly(
        [
            (0.03, h * 0.9, height + 0.1),
            (0.03, -h * 0.9, height + 0.1),
            (0.03, -h * 0.9, height + high),
            (0.03, h * 0.9, height + high),
        ][::-1],
        (120, 122, 124),
        st.SIGN,
    )
    m.tex(
        [(0, h, height + high + 0.05), (0, -h, height + high + 0.05), (0, h, height + 0.05)],
        ("sign", kind, seed),
        st.SIGN,
        (-1.0, 0.0, 0.0),
    )
    return m


def tree(kind: str, seed: int, height: float) -> Mesh:
    """Build a tree or shrub."""
    m = Mesh()
    m.sprite((0, 0, 0), height * (1.3 if kind == "shrub" else 0.75), height, ("tree", kind, seed), st.VEGETATION)
    return m
