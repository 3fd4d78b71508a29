"""Meshes of what moves or parks in the street: cars, lorries, bicycles, motorcycles and people.

Each builder works in local coordinates (x ahead, y to the left, z up, metres) around the origin; the caller places the
mesh with :func:`datasets.town.world.mesh.put`. ``lamps`` says whether headlights are on.
"""

import numpy as np

from datasets.town.chance import pick, scale, tint
from datasets.town.world.mesh import BICYCLE, MOTORCYCLE, PERSON, RIDER, TRUCK, VEHICLE, Mesh, circle
from datasets.town.world.styles import colours

PANE, TYRE = (38, 46, 54), (24, 24, 26)
Built = tuple[Mesh, float, float, float, list]
"""Mesh, half length, width, height, lights."""

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
FRAME = (  # of a bicycle: bars from (x, z) to (x, z)
    ((-0.52, 0.34), (-0.18, 0.82)),
    ((-0.18, 0.82), (0.38, 0.80)),
    ((0.38, 0.80), (-0.05, 0.32)),
    ((-0.05, 0.32), (-0.18, 0.85)),
    ((-0.52, 0.34), (-0.05, 0.32)),
    ((0.40, 0.92), (0.52, 0.34)),
)


def _wheel(m: Mesh, x: float, y: float, r: float, label: int, side: int) -> None:
    ring = [(x + r * c, y, r + r * s) for c, s in circle(12)[:-1]]
    hub = [(x + 0.58 * r * c, y + 0.01 * side, r + 0.58 * r * s) for c, s in circle(8)[:-1]]
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


def car(rng: np.random.Generator, lamps: bool, driving: bool) -> Built:
    """Build a car."""
    kind = pick(rng, ("hatch", "hatch", "sedan", "estate", "suv"))
    body, (rb, rt, ft, fb), high, wide = CARS[kind]
    paint, m, half = tint(rng, pick(rng, colours("paints")), 6), Mesh(), wide / 2
    x0, x1 = min(x for x, _ in body), max(x for x, _ in body)
    base = body[1][1]
    cabin = ((rb, base), (rt, high), (ft, high + 0.01), (fb, base - 0.02))
    _extrude(m, cabin, half - 0.06, half - 0.24, PANE, VEHICLE)
    m.flat(rt - 0.05, ft + 0.05, -half + 0.25, half - 0.25, high + 0.02, paint, VEHICLE)
    for s in (1, -1):  # pillars and roof rails
        y0, y1 = s * (half - 0.05), s * (half - 0.235)
        for xa, xb, r in ((rb, rt, 0.07), (fb, ft, 0.045), ((rb + fb) / 2 - 0.1, (rt + ft) / 2 - 0.1, 0.04)):
            m.limb((xa, y0, base), (xb, y1, high), r, r, paint, VEHICLE)
        m.limb((rt, y1, high), (ft, y1, high), 0.045, 0.045, paint, VEHICLE)
    _extrude(m, body, half, half - 0.05, paint, VEHICLE)
    for s in (1, -1):
        for x in (x0 + 0.75, x1 - 0.78):
            _wheel(m, x, s * (half + 0.01), 0.32, VEHICLE, s)
        y = s * (half + 0.02)
        m.limb((0.1, y, base - 0.18), (0.28, y, base - 0.18), 0.02, 0.02, scale(paint, 0.6), VEHICLE)
    lights = _car_lights(m, x0 - 0.03, x1 + 0.03, half, VEHICLE, lamps and driving)
    return m, (x1 - x0) / 2, wide, high, lights


def _car_lights(m: Mesh, x0: float, x1: float, half: float, label: int, on: bool) -> list:
    """Add head and rear lights, plate and grille; returns the lights that are on."""
    front, rear = ((240, 240, 228), (226, 30, 24)) if on else ((198, 204, 208), (140, 24, 26))
    lights = []
    for s in (1, -1):
        y0, y1 = sorted((s * (half - 0.42), s * (half - 0.08)))
        m.upright((x1, y0), (x1, y1), 0.58, 0.74, front, label, 1.0 * on)
        m.upright((x0, y1), (x0, y0), 0.66, 0.86, rear, label, 0.9 * on)
        if on:
            lights.append((x1 + 0.1, s * (half - 0.25), 0.66, (1.0, 0.95, 0.80), 0.85))
            lights.append((x0 - 0.1, s * (half - 0.25), 0.76, (0.95, 0.10, 0.06), 0.40))
    m.upright((x0, 0.27), (x0, -0.27), 0.5, 0.62, (222, 216, 170), label)
    m.upright((x1, -0.5), (x1, 0.5), 0.42, 0.56, (34, 34, 36), label)
    return lights


def truck(rng: np.random.Generator, lamps: bool, driving: bool) -> Built:
    """Build a lorry or a delivery van."""
    m, big = Mesh(), rng.random() < 0.55
    length, wide, high = (7.2, 2.3, 3.1) if big else (5.4, 2.0, 2.35)
    half, x0, x1 = wide / 2, -length / 2, length / 2
    paint = tint(rng, pick(rng, colours("cabs")), 6)
    cargo = tint(rng, pick(rng, colours("cargoes")), 6)
    if big:
        _lorry(m, x0, x1, half, high, paint, cargo)
    else:
        _van(m, x0, x1, half, high, paint)
    low, top, back = (1.45, 2.2, x1 - 1.2) if big else (1.25, 1.9, x1 - 2.2)
    for s in (1, -1):
        y = s * (half + 0.012 if not big else half - 0.04)
        pts = [(back, y, low), (back + 0.9, y, low), (back + 0.75, y, top), (back, y, top)]
        m.poly(pts if s < 0 else pts[::-1], PANE, TRUCK)
        for x in (x0 + 1.2, x1 - 1.0):
            _wheel(m, x, s * (half + 0.015), 0.45 if big else 0.36, TRUCK, s)
    lights = _car_lights(m, x0 - 0.03, x1 + 0.03, half, TRUCK, lamps and driving)
    return m, length / 2, wide, high, lights


def _lorry(m: Mesh, x0: float, x1: float, half: float, high: float, paint, cargo) -> None:
    m.box(x0, x1, -half + 0.25, half - 0.25, 0.35, 0.75, (44, 44, 46), TRUCK)
    m.box(x1 - 1.9, x1, -half + 0.05, half - 0.05, 0.45, 2.45, paint, TRUCK)
    m.box(x0, x1 - 2.0, -half, half, 0.75, high, cargo, TRUCK)
    for y, z0, z1 in ((half + 0.01, 2.2, 1.5), (-half - 0.01, 1.5, 2.2)):  # a band on both flanks
        m.upright((x0 + 0.1, y), (x1 - 2.1, y), z0, z1, scale(cargo, 0.72), TRUCK)
    for y in (-half + 0.05, 0.02):  # rear doors
        m.upright((x0 - 0.01, y + half - 0.1), (x0 - 0.01, y), 0.85, 2.95, scale(cargo, 0.88), TRUCK)
    m.upright((x1 + 0.01, -half + 0.2), (x1 + 0.01, half - 0.2), 1.45, 2.2, PANE, TRUCK)


def _van(m: Mesh, x0: float, x1: float, half: float, high: float, paint) -> None:
    profile = ((x0, 0.35), (x0, high), (x1 - 1.6, high), (x1 - 0.95, 1.2), (x1, 0.98), (x1, 0.35))
    _extrude(m, profile, half, half - 0.12, paint, TRUCK)
    for y in (-half + 0.2, 0.05):  # rear windows
        m.upright((x0 - 0.01, y + half - 0.3), (x0 - 0.01, y), 1.4, 2.05, PANE, TRUCK)
    low, top = [(x1 - 0.93, y, 1.22) for y in (-half + 0.15, half - 0.15)], (x1 - 1.56, half - 0.2, 2.22)
    m.poly([*low, top, (x1 - 1.56, -half + 0.2, 2.22)], PANE, TRUCK)


def _figure(m: Mesh, rng, label: int, high: float, dress, x=0.0, z=0.0, seated=False, swing=0.0) -> None:
    """Add a person of height ``high`` at local x, feet (or saddle) at z."""
    coat, legs, skin = dress
    hip, neck = (0.50 * high, 0.82 * high) if not seated else (0.0, 0.36 * high)
    hair = tint(rng, pick(rng, colours("hairs")), 6)
    lean = 0.26 if seated else 0.02
    for s in (1, -1):
        y, step = 0.09 * s, swing * s
        if seated:
            knee, foot = (x + 0.38, y * 1.4, z - 0.12 - 0.14 * s), (x + 0.24, y * 1.4, z - 0.52 - 0.10 * s)
            m.limbs((((x, y, z), knee, 0.085, 0.07), (knee, foot, 0.065, 0.05)), legs, label)
            m.limb((x + lean, y * 2.0, z + neck - 0.08), (x + 0.58, y * 2.4, z + 0.24), 0.055, 0.045, coat, label)
        else:
            knee, foot = (x + step * 0.5, y, z + hip * 0.5), (x + step, y, z + 0.05)
            m.limbs((((x, y, z + hip), knee, 0.085, 0.07), (knee, foot, 0.07, 0.05)), legs, label)
            m.limb((x + step, y, z + 0.04), (x + step + 0.14, y, z + 0.04), 0.045, 0.04, (30, 28, 28), label)
            shoulder, hand = (x, y * 2.4, z + neck - 0.08), (x - step * 0.6, y * 2.7, z + hip - 0.02)
            m.limb(shoulder, hand, 0.06, 0.045, scale(coat, 0.88), label)
    m.limb((x, 0, z + hip - 0.02), (x + lean, 0, z + neck - 0.08), 0.155, 0.185, coat, label)
    m.limb((x + lean, 0, z + neck - 0.05), (x + lean + 0.02, 0, z + neck + 0.08), 0.06, 0.06, skin, label)
    m.ball((x + lean + 0.02, 0, z + neck + 0.17), 0.115, hair, label)
    m.ball((x + lean + 0.07, 0, z + neck + 0.145), 0.085, skin, label)


def person(rng: np.random.Generator, rain: bool = False) -> Mesh:
    """Build a pedestrian, with an umbrella in some cases when it rains."""
    m = Mesh()
    dress = tint(rng, pick(rng, colours("clothes")), 8), tint(rng, pick(rng, colours("trousers")), 6)
    skin, high = pick(rng, colours("skins")), rng.uniform(1.55, 1.88)
    _figure(m, rng, PERSON, high, (*dress, skin), swing=rng.uniform(0.05, 0.3))
    if rain and rng.random() < 0.55:
        fill, z = tint(rng, pick(rng, colours("umbrellas")), 8), high + 0.32
        m.limb((0.15, 0.18, high * 0.6), (0.1, 0.05, z), 0.015, 0.015, (60, 60, 60), PERSON)
        ring = [(0.1 + 0.55 * c, 0.05 + 0.55 * s, z - 0.2) for c, s in circle(8)[:-1]]
        for i in range(8):
            cloth = [ring[i], ring[(i + 1) % 8], (0.1, 0.05, z + 0.05)]
            m.poly(cloth, scale(fill, 0.85 + 0.06 * (i % 4)), PERSON, both=True)
    return m


def _hoop(m: Mesh, x: float, z: float, r: float, n: int, thick: float, label: int) -> None:
    ring = [(x + r * c, 0.0, z + r * s) for c, s in circle(n)]
    m.limbs(((p, q, thick, thick) for p, q in zip(ring, ring[1:])), TYRE, label)


def bicycle(rng: np.random.Generator, rider: bool) -> Mesh:
    """Build a bicycle, with or without its rider."""
    m, frame = Mesh(), tint(rng, pick(rng, colours("paints")), 10)
    for x in (-0.52, 0.52):
        _hoop(m, x, 0.34, 0.33, 12, 0.028, BICYCLE)
    m.limbs((((p[0], 0, p[1]), (q[0], 0, q[1]), 0.028, 0.028) for p, q in FRAME), frame, BICYCLE)
    m.limb((0.40, -0.26, 0.98), (0.40, 0.26, 0.98), 0.02, 0.02, (50, 50, 52), BICYCLE)
    m.limb((-0.28, 0, 0.92), (-0.08, 0, 0.93), 0.05, 0.03, (30, 28, 28), BICYCLE)
    if rider:
        coat = tint(rng, pick(rng, colours("clothes")), 8)
        _rider(m, rng, (coat, tint(rng, (50, 52, 60), 8)), 1.72, -0.18, 0.96, (0.1, 0.20, 0.12))
    return m


def motorcycle(rng: np.random.Generator, rider: bool, lamps: bool) -> tuple[Mesh, tuple]:
    """Build a motorcycle; returns (mesh, lights)."""
    m, b, paint = Mesh(), MOTORCYCLE, tint(rng, pick(rng, colours("paints")), 10)
    for x in (-0.68, 0.68):
        _hoop(m, x, 0.31, 0.30, 10, 0.065, b)
    m.limb((-0.35, 0, 0.45), (0.35, 0, 0.45), 0.19, 0.17, (70, 72, 76), b)
    m.limb((-0.85, 0, 0.74), (-0.1, 0, 0.76), 0.10, 0.13, (34, 32, 32), b)
    m.limb((-0.05, 0, 0.82), (0.38, 0, 0.86), 0.16, 0.13, paint, b)
    m.limb((0.68, 0, 0.31), (0.42, 0, 0.98), 0.05, 0.05, (150, 152, 156), b)
    m.limb((0.40, -0.36, 1.02), (0.40, 0.36, 1.02), 0.03, 0.03, (40, 40, 42), b)
    m.limb((-0.85, 0.15, 0.4), (-0.2, 0.15, 0.36), 0.06, 0.05, (150, 150, 154), b)
    m.ball((0.56, 0, 0.90), 0.11, (236, 234, 220) if lamps else (186, 190, 192), b, 0.9 * lamps)
    m.ball((-0.93, 0, 0.74), 0.06, (190, 28, 26), b, 0.8 * lamps)
    if rider:
        coat = tint(rng, pick(rng, colours("leathers")), 6)
        _rider(m, rng, (coat, (36, 38, 44)), 1.75, -0.25, 0.90, (0.04, 0.17, 0.145))
    return m, (((0.7, 0, 0.9, (1.0, 0.95, 0.8), 0.6), (-0.98, 0, 0.74, (0.9, 0.1, 0.06), 0.3)) if lamps else ())


def _rider(m: Mesh, rng, dress, high: float, x: float, saddle: float, helmet) -> None:
    """Seat a rider; ``helmet`` is its x, its height above the neck and its radius."""
    _figure(m, rng, RIDER, high, (*dress, pick(rng, colours("skins"))), x=x, z=saddle, seated=True)
    at, above, radius = helmet
    m.ball((at, 0, saddle + 0.36 * high + above), radius, tint(rng, pick(rng, colours("paints")), 10), RIDER)
