"""Houses: chooses facades within the traits of a street, and builds the meshes.

Local coordinates of a house: x to the right along its front as seen from the street, y into the lot, z up.
"""

from dataclasses import dataclass, replace

import numpy as np

from datasets.town.chance import Rgb, pick, scale, tint
from datasets.town.world.mesh import BUILDING, Mesh
from datasets.town.world.styles import StreetStyle, colours, words

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


@dataclass(frozen=True)
class Facade:
    """What one facade looks like; lengths in metres, colours 0 to 255."""

    seed: int
    width: float
    floors: int
    floor: float
    ground: float  # height of the ground floor
    top: float  # wall above the last storey
    gable: float  # height of the triangular part, 0 for none
    material: str
    wall: Rgb
    trim: Rgb
    accent: Rgb  # doors, shutters
    window: str
    bays: int
    window_width: float  # share of a bay
    window_height: float  # share of a storey
    shop: bool
    sign: Rgb
    word: str
    base: bool  # plinth of another colour
    plain: bool = False  # side wall: few windows, no door

    @property
    def eaves(self) -> float:
        """Height of the wall without the gable, in metres."""
        return self.ground + (self.floors - 1) * self.floor + self.top


def choose_facade(style: StreetStyle, width: float, rng: np.random.Generator, roof: str = "gable") -> Facade:
    """Return a new facade of ``width`` metres in the manner of ``style``."""
    seed = int(rng.integers(1 << 30))
    kind = pick(rng, style.windows)
    share_w, share_h, bay = PROPORTIONS[kind]
    floors = int(rng.integers(style.floors[0], style.floors[1] + 1))
    shop = bool(rng.random() < style.shops)
    floor = style.floor * rng.uniform(0.92, 1.08)
    accent = tint(rng, pick(rng, colours("doors")), 8)
    material = pick(rng, style.materials)
    wall = pick(rng, style.palette)
    if material == "brick" and sum(wall) > 470:
        wall = pick(rng, colours("bricks"))
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
        trim=tint(rng, pick(rng, colours("trims")), 8),
        accent=accent,
        window=kind,
        bays=max(1, round(width / bay * rng.uniform(0.8, 1.15))),
        window_width=share_w * rng.uniform(0.85, 1.2),
        window_height=share_h * rng.uniform(0.88, 1.12),
        shop=shop,
        sign=tint(rng, pick(rng, colours("shop_signs")), 10),
        word=pick(rng, words()),
        base=bool(rng.random() < 0.45),
    )


def sibling(spec: Facade, width: float, rng: np.random.Generator) -> Facade:
    """Return ``spec`` repeated next door: another width, door place and, for a shop, another sign."""
    return replace(
        spec,
        seed=int(rng.integers(1 << 30)),
        width=width,
        wall=tint(rng, spec.wall, 5),
        word=pick(rng, words()),
        accent=tint(rng, spec.accent, 22),
        sign=tint(rng, pick(rng, colours("shop_signs")), 10),
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
        window=spec.window if windows and spec.window != "strip" else "casement",
        bays=max(1, round(depth / 3.0)),
        wall=scale(spec.wall, 0.96),
    )


@dataclass(frozen=True)
class House:
    """A house: its front, its roof, its depth in metres, and the sides that nothing hides."""

    spec: Facade
    roof: str
    tiles: Rgb
    depth: float
    open_left: bool
    open_right: bool

    def build(self, style: StreetStyle, rng: np.random.Generator) -> tuple[Mesh, float]:
        """Return its mesh and its full height in metres."""
        m, spec, depth = Mesh(), self.spec, self.depth
        w, h = spec.width, spec.eaves
        for is_open, right in ((self.open_left, False), (self.open_right, True)):
            x = w if right else 0.0
            a, b = ((x, 0.0), (x, depth)) if right else ((x, depth), (x, 0.0))
            if is_open:
                side = side_wall(spec, depth, spec.seed * 3 + right, rng.random() < 0.6)
                key, normal = ("facade", side), (1.0 if right else -1.0, 0.0, 0.0)
                m.tex([(*a, h), (*b, h), (*a, 0.0)], key, BUILDING, normal)
            else:
                m.upright(a, b, 0, h, scale(spec.wall, 0.92), BUILDING)
        top = self._roof(m, rng)
        outline = [(0, 0, h), (w / 2, 0, h + spec.gable), (w, 0, h), (w, 0, 0), (0, 0, 0)] if spec.gable > 0.0 else None
        m.front(w, h + spec.gable, ("facade", spec), BUILDING, outline)
        if self.roof in ("flat", "mansard"):
            m.box(-0.05, w + 0.05, -0.22, 0.0, h - 0.16, h + 0.05, spec.trim, BUILDING)
        _attachments(m, spec, style, rng)
        return m, top

    def _roof(self, m: Mesh, rng: np.random.Generator) -> float:
        """Add the roof and return its height."""
        w, h = self.spec.width, self.spec.eaves
        rise = self.depth * 0.5 * rng.uniform(0.62, 0.95)
        stack = tint(rng, (134, 88, 72), 10)
        if self.roof in ("gable", "hip"):
            return self._ridge_along(m, rng, rise, stack)
        if self.roof == "front gable":
            return self._ridge_across(m)
        if self.roof == "mansard":
            return self._mansard(m, rng, stack)
        if rng.random() < 0.4 and w > 8:
            x = rng.uniform(0.2, 0.5) * w
            m.box(x, x + 3.0, 2.5, 5.5, h - 0.2, h + 2.0, scale(self.spec.wall, 0.85), BUILDING)
        return h

    def _ridge_along(self, m: Mesh, rng: np.random.Generator, rise: float, stack: Rgb) -> float:
        """Add a roof whose ridge runs along the street, with closed or sloping ends and with chimneys."""
        spec, depth = self.spec, self.depth
        w, h, mid, top = spec.width, spec.eaves, depth / 2, spec.eaves + rise
        hip = self.roof == "hip"
        inset = min(w * 0.3, depth * 0.4) if hip else 0.0
        end = scale(self.tiles, 0.95) if hip else scale(spec.wall, 0.94)
        m.poly([(0.0, depth, h), (0.0, 0, h), (inset, mid, top)], end, BUILDING)
        m.poly([(w, 0, h), (w, depth, h), (w - inset, mid, top)], end, BUILDING)
        for _ in range(int(rng.integers(1, 3))):
            x = rng.uniform(0.1, 0.85) * (w - 0.8)
            m.box(x, x + 0.8, mid - 0.4, mid + 0.4, top - 1.2, top + 0.9, stack, BUILDING)
            m.box(x + 0.15, x + 0.65, mid - 0.2, mid + 0.2, top + 0.9, top + 1.25, (166, 96, 70), BUILDING)
        low = h - 0.12
        outline = [(inset, mid, top), (w - inset, mid, top), (w + 0.1, -0.35, low), (-0.1, -0.35, low)]
        self._slope(m, [(-0.1, mid, top), (w + 0.1, mid, top), (-0.1, -0.35, low)], outline)
        m.upright((-0.1, -0.35), (w + 0.1, -0.35), h - 0.26, low, scale(spec.trim, 0.9), BUILDING)
        if spec.seed % 3 == 0 and w > 6:
            self._dormers(m, h + rise * 0.25, mid * 0.25, 1 + int(w > 10))
        return top

    def _ridge_across(self, m: Mesh) -> float:
        """Add a roof whose ridge runs away from the street."""
        w, h, top, far = self.spec.width, self.spec.eaves, self.spec.eaves + self.spec.gable, self.depth + 0.3
        near_ridge, far_ridge = (w / 2, -0.3, top), (w / 2, far, top)
        self._slope(m, [far_ridge, near_ridge, (-0.35, far, h - 0.2)])
        self._slope(m, [near_ridge, far_ridge, (w + 0.35, -0.3, h - 0.2)])
        return top

    def _mansard(self, m: Mesh, rng: np.random.Generator, stack: Rgb) -> float:
        spec, depth = self.spec, self.depth
        w, h = spec.width, spec.eaves
        top = h + 2.3
        self._slope(m, [(0, 1.0, top), (w, 1.0, top), (0, 0.1, h)])
        for x in (0.0, w):
            pts = [(x, 0.1, h), (x, depth, h), (x, depth, top), (x, 1.0, top)]
            m.poly(pts if x else pts[::-1], scale(spec.wall, 0.9), BUILDING)
        self._dormers(m, h + 0.45, 0.25, max(1, spec.bays - int(rng.integers(0, 2))))
        x = rng.uniform(0.1, 0.8) * w
        m.box(x, x + 0.9, 1.6, 2.4, top - 0.1, top + 1.2, stack, BUILDING)
        return top

    def _slope(self, m: Mesh, corners, outline=None) -> None:
        """Add a tiled surface: corners top left, top right, bottom left."""
        a, b, c = (np.array(p, float) for p in corners)
        n = np.cross(c - a, b - a)
        n = tuple(float(round(k, 2)) for k in n / np.linalg.norm(n))
        m.tex([tuple(p) for p in corners], ("tiles", self.tiles, self.spec.seed % 7), BUILDING, n, outline)

    def _dormers(self, m: Mesh, z: float, y: float, count: int) -> None:
        trim = self.spec.trim
        for i in range(count):
            x = self.spec.width * (i + 0.5) / count
            m.box(x - 0.6, x + 0.6, y, y + 1.6, z - 0.2, z + 1.3, scale(self.tiles, 0.85), BUILDING)
            m.upright((x - 0.5, y - 0.02), (x + 0.5, y - 0.02), z, z + 1.2, trim, BUILDING)
            m.upright((x - 0.4, y - 0.04), (x + 0.4, y - 0.04), z + 0.1, z + 1.1, (56, 64, 72), BUILDING)
            gable = [(x - 0.7, y - 0.15, z + 1.3), (x + 0.7, y - 0.15, z + 1.3), (x, y - 0.15, z + 1.75)]
            m.poly(gable, scale(trim, 0.92), BUILDING)


def _attachments(m: Mesh, spec: Facade, style: StreetStyle, rng: np.random.Generator) -> None:
    """Add awning, sign, balconies and canopy."""
    w, g = spec.width, spec.ground
    if spec.shop and rng.random() < 0.5:
        _awning(m, 0.3, w - 0.3, g - 1.0, spec, rng)
    if spec.shop and rng.random() < 0.6:  # sign that sticks out
        x, z = (0.5, w - 0.5)[int(rng.integers(2))], g + rng.uniform(0.1, 0.7)
        fill = tint(rng, pick(rng, colours("shop_signs")), 12)
        m.box(x - 0.06, x + 0.06, -1.1, -0.2, z, z + rng.uniform(0.6, 1.3), fill, BUILDING, 0.25)
        m.limb((x, 0, z + 0.5), (x, -0.25, z + 0.5), 0.03, 0.03, (40, 40, 40), BUILDING)
    if rng.random() < style.balconies and spec.floors > 1 and spec.window != "strip":
        rail = tint(rng, pick(rng, colours("rails")), 6)
        bays = [i for i in range(spec.bays) if (i + spec.seed) % 2 == 0] or [0]
        for level in range(1, spec.floors):
            z = g + (level - 1) * spec.floor
            for i in bays:
                u, wide = (i + 0.5) * w / spec.bays, min(w / spec.bays * 0.95, 3.0)
                _balcony(m, u, wide, z, scale(spec.trim, 0.9), rail)
    if not spec.shop and not spec.plain and rng.random() < 0.4:  # canopy over the door
        u = (spec.seed % spec.bays + 0.5) * w / spec.bays
        m.box(u - 0.8, u + 0.8, -0.8, 0.0, 2.45, 2.6, scale(spec.trim, 0.9), BUILDING)


def _awning(m: Mesh, u0: float, u1: float, z: float, spec: Facade, rng: np.random.Generator) -> None:
    stripes = rng.random() < 0.6
    n = max(2, round((u1 - u0) / 0.5)) if stripes else 1
    for i in range(n):
        a, c = u0 + (u1 - u0) * i / n, u0 + (u1 - u0) * (i + 1) / n
        fill = spec.sign if i % 2 == 0 else (232, 226, 212)
        m.poly([(a, -1.3, z - 0.55), (c, -1.3, z - 0.55), (c, 0, z), (a, 0, z)], fill, BUILDING, both=True)
        m.upright((a, -1.3), (c, -1.3), z - 0.78, z - 0.55, scale(fill, 0.85), BUILDING, both=True)


def _balcony(m: Mesh, u: float, wide: float, z: float, slab: Rgb, rail: Rgb) -> None:
    x0, x1 = u - wide / 2, u + wide / 2
    m.box(x0, x1, -0.95, 0.0, z - 0.16, z, slab, BUILDING)
    m.flat(x0, x1, 0, -0.95, z - 0.16, scale(slab, 0.6), BUILDING, both=True)
    for i in range(int(wide / 0.22) + 1):
        x = x0 + wide * i / int(wide / 0.22)
        m.limb((x, -0.92, z), (x, -0.92, z + 0.95), 0.018, 0.018, rail, BUILDING)
    m.limb((x0, -0.92, z + 0.98), (x1, -0.92, z + 0.98), 0.035, 0.035, rail, BUILDING)
    for x in (x0, x1):
        m.limb((x, -0.92, z + 0.98), (x, 0, z + 0.98), 0.035, 0.035, rail, BUILDING)
        m.limb((x, -0.5, z), (x, -0.5, z + 0.98), 0.02, 0.02, rail, BUILDING)
