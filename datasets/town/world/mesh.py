"""Meshes: the shapes that things consist of, and things in their place in a street.

Coordinates are metres in the frame of one street: x along it, y to the left, z up. Every face carries the raw id of
its class in labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.town.chance import Rgb

# Raw ids of the classes (red channel of a label).
IGNORED, BUILDING, FENCE, PERSON, POLE, MARK, ROAD, WALK, VEGETATION, VEHICLE, WALL = 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11
SIGN, LIGHT, BICYCLE, MOTORCYCLE, RIDER, TERRAIN, SKY, TRUCK = 12, 13, 16, 17, 18, 19, 20, 26

POLY, TEX, LIMB, BALL, SPRITE = range(5)
BOTH = (0.0, 0.0, 0.0)  # "normal" of a face that is seen from both sides

Point = tuple[float, float, float]


def circle(n: int) -> list[tuple[float, float]]:
    """Return ``n`` + 1 points (cosine, sine) around the unit circle, the last of which closes it."""
    return [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, n + 1)]


class Mesh:
    """A list of drawable faces over shared vertices, drawn in the order in which they were added."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.faces: list[tuple] = []  # kind, first vertex, count, payload, label, glow
        self.normals: list[Point] = []

    def poly(self, pts, rgb: Rgb, label: int, glow: float = 0.0, both: bool = False) -> None:
        """Add a plane polygon; vertices run counter-clockwise as seen from its front."""
        a, b, c = pts[0], pts[1], pts[2]
        u, v = [q - p for p, q in zip(a, b)], [q - p for p, q in zip(a, c)]
        n = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
        size = math.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) or 1.0
        n = tuple(round(k / size, 2) for k in n)
        self._add(POLY, pts, (tuple(rgb), n), label, glow, BOTH if both else n)

    def upright(self, a, b, z0: float, z1: float, rgb: Rgb, label: int, glow: float = 0.0, both: bool = False) -> None:
        """Add a rectangle above the line from ``a`` to ``b`` on the ground; it faces to the right of that line."""
        self.poly([(*a, z0), (*b, z0), (*b, z1), (*a, z1)], rgb, label, glow, both)

    def flat(self, x0, x1, y0, y1, z: float, rgb: Rgb, label: int, glow: float = 0.0, both: bool = False) -> None:
        """Add a level rectangle."""
        self.poly([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], rgb, label, glow, both)

    def box(self, x0, x1, y0, y1, z0: float, z1: float, rgb: Rgb, label: int, glow: float = 0.0) -> None:
        """Add an upright box without a bottom."""
        p = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        for i in range(4):
            self.upright(p[i], p[(i + 1) % 4], z0, z1, rgb, label, glow)
        self.flat(x0, x1, y0, y1, z1, rgb, label, glow)

    def tex(self, corners, key: tuple, label: int, normal: Point, outline=None, both: bool = False) -> None:
        """Add a textured quad: corners top left, top right, bottom left; ``outline`` is the visible polygon."""
        tl, tr, bl = corners
        br = tuple(b + c - a for a, b, c in zip(tl, tr, bl))
        pts = [tl, tr, bl, *list(outline or (tl, tr, br, bl))]
        self._add(TEX, pts, (key, normal), label, 0.0, BOTH if both else normal)

    def front(self, width: float, height: float, key: tuple, label: int, outline=None, both: bool = False) -> None:
        """Add a textured front over the x axis that faces the street (-y)."""
        self.tex([(0, 0, height), (width, 0, height), (0, 0, 0)], key, label, (0.0, -1.0, 0.0), outline, both)

    def limb(self, a: Point, b: Point, r0: float, r1: float, rgb: Rgb, label: int, glow: float = 0.0) -> None:
        """Add a round bar from ``a`` to ``b`` with radii ``r0`` and ``r1``."""
        self._add(LIMB, [a, b], (tuple(rgb), r0, r1), label, glow, BOTH)

    def limbs(self, parts, rgb: Rgb, label: int) -> None:
        """Add several bars (a, b, r0, r1) of one colour."""
        for part in parts:
            self.limb(*part, rgb, label)

    def ball(self, centre: Point, radius: float, rgb: Rgb, label: int, glow: float = 0.0) -> None:
        """Add a sphere."""
        self._add(BALL, [centre], (tuple(rgb), radius), label, glow, BOTH)

    def sprite(self, base: Point, width: float, height: float, key: tuple, label: int) -> None:
        """Add an upright picture that always faces the camera."""
        self._add(SPRITE, [base], (key, width, height), label, 0.0, BOTH)

    def _add(self, kind: int, pts, payload: tuple, label: int, glow: float, normal: Point) -> None:
        self.faces.append((kind, len(self.points), len(pts), payload, label, glow))
        self.points.extend(pts)
        self.normals.append(normal)


@dataclass
class Thing:
    """A mesh in street coordinates with what the painter needs to order it."""

    x: float
    y: float
    reach: float  # radius around (x, y)
    points: np.ndarray  # [N, 3]
    faces: list
    first: np.ndarray  # [F] first vertex of each face
    normals: np.ndarray  # [F, 3]
    front: bool = False  # part of a building front, drawn before what stands in the street
    off: float = 0.0  # of a front: distance from the centre line
    shadow: tuple | None = None  # (outline [(x, y)...], height) for the sun
    lights: tuple = ()  # halos at night: (x, y, z, rgb 0..1, radius in metres)


Place = tuple[float, float, float, float]
"""Cosine and sine of the turn of a local frame, and where its origin stands in the street."""


def placed(place: Place, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return local ground points in street coordinates."""
    cos, sin, dx, dy = place
    return [(dx + a * cos - b * sin, dy + a * sin + b * cos) for a, b in points]


def thing(mesh: Mesh, x: float, y: float, reach: float, place: Place, **extra) -> Thing:
    """Freeze ``mesh`` at ``place``; ``extra`` are further fields of :class:`Thing`."""
    pts, normals = np.array(mesh.points, float).reshape(-1, 3), np.array(mesh.normals, float).reshape(-1, 3)
    cos, sin, dx, dy = place
    turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    first = np.array([f[1] for f in mesh.faces], int)
    return Thing(x, y, reach, pts @ turn + (dx, dy, 0.0), mesh.faces, first, normals @ turn, **extra)


def put(mesh: Mesh, x: float, y: float, heading: float, reach: float, lights=(), foot=None, **extra) -> Thing:
    """Place a local mesh at (x, y), turned by ``heading`` radians.

    ``lights`` are local too. ``foot`` (half length, half width, height) gives it a shadow.
    """
    place = (math.cos(heading), math.sin(heading), x, y)
    lights = tuple((*placed(place, [(a, b)])[0], z, rgb, r) for a, b, z, rgb, r in lights)
    if foot is not None:
        hl, hw, high = foot
        extra["shadow"] = (placed(place, [(hl, hw), (hl, -hw), (-hl, -hw), (-hl, hw)]), high)
    return thing(mesh, x, y, reach, place, lights=lights, **extra)
