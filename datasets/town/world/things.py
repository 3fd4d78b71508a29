"""Meshes of what stands in the street: lamps, traffic lights and signs, trees, posts and boxes.

Each builder works in local coordinates (metres, z up) around the origin; the caller places the mesh with
:func:`datasets.town.world.mesh.put`.
"""

import numpy as np

from datasets.town.chance import Rgb, pick, scale, tint
from datasets.town.world.mesh import IGNORED, LIGHT, POLE, SIGN, VEGETATION, Mesh, Point
from datasets.town.world.styles import colours

WOOD = (96, 82, 66)
SIGNS = ("stop", "give", "limit", "limit", "no", "park", "park", "warn", "way", "guide")


def lamp(kind: str, reach: float, rgb: Rgb) -> tuple[Mesh, list[Point]]:
    """Build a street lamp whose arm points to +x; returns (mesh, lamp heads)."""
    m = Mesh()
    if kind == "post":
        m.limb((0, 0, 0), (0, 0, 0.9), 0.11, 0.07, rgb, POLE)
        m.limb((0, 0, 0.9), (0, 0, 3.9), 0.06, 0.05, rgb, POLE)
        m.box(-0.17, 0.17, -0.17, 0.17, 3.9, 4.4, (228, 220, 196), POLE, 0.9)
        roof = [(x, y, 4.4) for x, y in ((-0.24, -0.24), (0.24, -0.24), (0.24, 0.24), (-0.24, 0.24))]
        for i in range(4):
            m.poly([roof[i], roof[(i + 1) % 4], (0, 0, 4.75)], rgb, POLE)
        return m, [(0.0, 0.0, 4.2)]
    m.limb((0, 0, 0), (0, 0, 1.2), 0.12, 0.09, rgb, POLE)
    m.limb((0, 0, 1.2), (0, 0, 7.2), 0.085, 0.06, rgb, POLE)
    heads = []
    for s in (1, -1) if kind == "double" else (1,):
        m.limb((0, 0, 7.2), (s * reach, 0, 7.6), 0.05, 0.04, rgb, POLE)
        m.limb((s * (reach - 0.1), 0, 7.58), (s * (reach + 0.6), 0, 7.55), 0.10, 0.08, scale(rgb, 0.8), POLE)
        m.limb((s * (reach + 0.05), 0, 7.48), (s * (reach + 0.5), 0, 7.46), 0.06, 0.05, (230, 222, 200), POLE, 0.9)
        heads.append((s * (reach + 0.3), 0.0, 7.45))
    return m, heads


def traffic_light(rng: np.random.Generator) -> tuple[Mesh, tuple]:
    """Build a traffic light that faces -x; returns (mesh, lights)."""
    m = Mesh()
    m.limb((0, 0, 0), (0, 0, 2.35), 0.06, 0.055, (70, 72, 74), POLE)
    m.box(-0.12, 0.16, -0.24, 0.24, 2.1, 3.25, (34, 36, 36), LIGHT)
    lit, lights = int(rng.integers(3)), ()
    for i, rgb in enumerate(((40, 200, 110), (240, 170, 40), (225, 44, 34))):
        z = 2.3 + 0.36 * i
        m.ball((-0.15, 0, z), 0.14, rgb if i == lit else scale(rgb, 0.28), LIGHT, 1.0 * (i == lit))
        if i == lit:
            lights = ((-0.2, 0, z, tuple(c / 255 for c in rgb), 0.6),)
    return m, lights


def traffic_sign(kind: str, seed: int, height: float) -> Mesh:
    """Build a traffic sign that faces -x."""
    m = Mesh()
    m.limb((0.04, 0, 0), (0.04, 0, height + 0.6), 0.035, 0.035, (128, 130, 132), POLE)
    wide, high = (1.3, 0.9) if kind == "guide" else (0.72, 0.72)
    h, top = wide / 2, height + high + 0.05
    m.upright((0.03, h * 0.9), (0.03, -h * 0.9), height + high, height + 0.1, (120, 122, 124), SIGN)
    m.tex([(0, h, top), (0, -h, top), (0, h, height + 0.05)], ("sign", kind, seed), SIGN, (-1.0, 0.0, 0.0))
    return m


def tree(kind: str, seed: int, height: float) -> Mesh:
    """Build a tree or shrub."""
    m = Mesh()
    m.sprite((0, 0, 0), height * (1.3 if kind == "shrub" else 0.75), height, ("tree", kind, seed), VEGETATION)
    return m


def bollard(rgb: Rgb) -> Mesh:
    """Build a short post."""
    m = Mesh()
    m.limb((0, 0, 0), (0, 0, 0.95), 0.07, 0.06, rgb, POLE)
    return m


def letter_box(rng: np.random.Generator) -> Mesh:
    """Build a box on the pavement."""
    m = Mesh()
    m.box(-0.25, 0.25, -0.22, 0.22, 0, 1.15, tint(rng, pick(rng, colours("boxes")), 8), IGNORED)
    return m


def wooden_pole() -> Mesh:
    """Build a pole with a crossbar."""
    m = Mesh()
    m.limb((0, 0, 0), (0, 0, 6.5), 0.11, 0.09, WOOD, POLE)
    m.limb((0, -0.7, 6.1), (0, 0.7, 6.1), 0.05, 0.05, WOOD, POLE)
    return m


def planter() -> Mesh:
    """Build a tub with plants."""
    m = Mesh()
    m.box(-0.7, 0.7, -0.3, 0.3, 0, 0.45, (140, 132, 122), IGNORED)
    m.box(-0.62, 0.62, -0.24, 0.24, 0.45, 0.75, (84, 104, 58), VEGETATION)
    return m
