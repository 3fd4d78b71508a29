"""Textures: draws them once, lights them for a weather, keeps reduced copies.

Keys are ``("facade", Facade)``, ``("tiles", rgb, seed)``, ``("wall", rgb, material, seed, length, height)``,
``("fence", kind, rgb, length, height)``, ``("hedge", rgb, seed)``, ``("tree", kind, seed)`` and
``("sign", kind, seed)``.
"""

import math
from collections import OrderedDict
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from datasets.town.chance import keyed, pick, scale
from datasets.town.drawing.canvas import Light
from datasets.town.drawing.facades import GLASS, draw_facade, font, wall_base
from datasets.town.drawing.noise import SIZE, noise_tile
from datasets.town.world.styles import Weather

PAD = 2  # pixels repeated around a texture, so that its edge never samples outside
LEVELS = (1, 2, 4, 8, 16)


class Ripmap:
    """One lit texture with copies reduced separately along its two sides."""

    def __init__(self, colour: np.ndarray, alpha: np.ndarray | None) -> None:
        self.colour = Image.fromarray(colour)
        self.alpha = None if alpha is None else Image.fromarray(alpha)
        self.made: dict = {}

    def level(self, w: float, h: float):
        """Return (colour, alpha, inner box) of about ``w`` x ``h`` pixels."""
        fx, fy = _step(self.colour.width, w), _step(self.colour.height, h)
        if (fx, fy) not in self.made:
            colour = np.asarray(self.colour.reduce((fx, fy)))
            alpha = None if self.alpha is None else np.asarray(self.alpha.reduce((fx, fy)))
            inner = (PAD, PAD, colour.shape[1], colour.shape[0])
            colour = np.pad(colour, ((PAD, PAD), (PAD, PAD), (0, 0)), "edge")
            if alpha is not None:
                alpha = Image.fromarray(np.pad(alpha, PAD, "edge"))
            self.made[fx, fy] = Image.fromarray(colour), alpha, inner
        return self.made[fx, fy]


def _step(texels: int, pixels: float) -> int:
    """Return the reduction that leaves about as many texels as canvas pixels."""
    ratio, best = texels / max(pixels, 1.0), 1
    for level in LEVELS:
        if level <= ratio * 1.25 and texels // level >= 2:
            best = level
    return best


class Atlas:
    """Store of the textures used last, at ``k`` pixels per metre."""

    def __init__(self, k: float, keep: int = 260) -> None:
        self.k, self.keep = k, keep
        self.draw = lru_cache(keep)(lambda key: DRAWERS[key[0]](k, *key[1:]))
        self.lit: OrderedDict = OrderedDict()

    def get(self, key: tuple, light: Light, normal, extra: float, shaded: bool, w: float, h: float):
        """Return (colour, alpha, inner box) of the texture ``key`` lit for a surface with ``normal``."""
        extra = round(extra * 5.0) / 5.0
        # without sun, both slopes of a roof share the light of the slope that was drawn first
        name = (key, light.weather.name, normal if light.weather.sunny else round(normal[2], 1), extra, shaded)
        if name in self.lit:
            self.lit.move_to_end(name)
        else:
            albedo, tell, alpha = self.draw(key)
            colour = illuminate(albedo, tell, light, normal, extra, shaded, key[0], albedo.shape[0] / self.k)
            self.lit[name] = Ripmap(colour, alpha)
            if len(self.lit) > self.keep:
                self.lit.popitem(last=False)
        return self.lit[name].level(w, h)


def illuminate(albedo, tell, light: Light, normal, extra: float, shaded: bool, kind: str, high: float) -> np.ndarray:
    """Return ``albedo`` [H, W, 3] as the weather shows it; ``high`` is its height in metres."""
    out = albedo.astype(np.float32)
    if light.weather.snow:
        _snow(out, normal, kind)
    factor = np.array(light.factor(normal, 0.0, shaded), np.float32)
    up = np.linspace(high, 0.0, out.shape[0], dtype=np.float32)[:, None, None]
    if kind in ("facade", "wall"):
        factor = factor * (1.0 - 0.22 * np.exp(-up / 0.7) - 0.06 * np.exp(-up / 4.0))  # less ambient light below
    if extra > 0.0:
        lamp = np.array((1.0, 0.76, 0.48), np.float32) * extra
        factor = factor + lamp * (np.exp(-(((up - 2.0) / 4.5) ** 2)) if kind == "facade" else 1.0)
    out = out * factor
    if tell is not None and tell.any():
        _panes(out, albedo, tell, light.weather)
    return np.clip(out, 0, 255).astype(np.uint8)


def _snow(out: np.ndarray, normal, kind: str) -> None:
    """Cover roofs, and the upper side of leaves, in place."""
    white = np.array((236, 240, 246), np.float32)
    if normal[2] > 0.4 and kind == "tiles":
        out[:] = out * 0.12 + white * 0.88
    elif kind in ("tree", "hedge"):
        h, w = out.shape[:2]
        tile = noise_tile(24)[:h, :w] if max(h, w) <= SIZE else np.resize(noise_tile(24), (h, w))
        bright = (out.mean(2) / max(float(out.mean()), 1.0) - 1.0) * 1.6 + 0.35 * np.clip(tile, -1, 1)
        out += (white - out) * np.clip(bright + 0.25, 0, 0.92)[..., None]


def _panes(out: np.ndarray, albedo: np.ndarray, tell: np.ndarray, weather: Weather) -> None:
    """Let glass mirror the sky, and light some of it at night, in place."""
    sky = np.array(weather.glass, np.float32) * 255.0 * (0.55 + 0.6 * np.linspace(1.0, 0.0, len(out))[:, None, None])
    weight = np.where(tell == GLASS, 0.42, np.where(tell >= 128, 0.30, 0.0)).astype(np.float32)[..., None]
    out += (sky.astype(np.float32) - out) * weight
    if weather.night:
        level = np.where(tell >= 128, (tell - 90.0) / 160.0, 0.0).astype(np.float32)[..., None]
        detail = 0.55 + 0.45 * albedo.astype(np.float32).mean(2, keepdims=True) / 160.0
        out += level * np.array((250, 196, 118), np.float32) * detail


def draw_tiles(k: float, rgb, seed: int):
    """Draw rows of roof tiles."""
    cell = keyed("tiles", seed).normal(1.0, 0.09, (16, 32)).repeat(6, 0).repeat(4, 1)
    cell[::6] *= 0.72
    cell *= 1.0 + 0.05 * noise_tile(6)[:96, :128]
    return np.clip(cell[..., None] * np.array(rgb), 0, 255).astype(np.uint8), None, None


def draw_wall(k: float, rgb, material: str, seed: int, length: float, height: float):
    """Draw a garden wall with a coping."""
    h, w = max(8, round(height * k)), max(8, round(length * k))
    base = wall_base(h, w, k, material, rgb, keyed("wall", seed))
    base[: max(1, round(0.10 * k))] = scale(rgb, 1.18)
    edge = max(1, round(0.10 * k))
    base[edge : edge + max(1, round(0.04 * k))] = scale(rgb, 0.55)
    return base, None, None


def draw_fence(k: float, kind: str, rgb, length: float, height: float):
    """Draw a fence: "picket", "board", "rail" or "mesh"; the gaps are transparent."""
    k = max(k, 20.0)
    w, h = max(8, round(length * k)), max(8, round(height * k))
    alpha = Image.new("L", (w, h), 0)
    colour = Image.new("RGB", (w, h), tuple(rgb))
    pen, ink = ImageDraw.Draw(alpha), ImageDraw.Draw(colour)
    step, bar = {"picket": (0.17, 0.10), "board": (0.16, 0.15), "rail": (0.14, 0.045), "mesh": (0.12, 0.03)}[kind]
    for i in range(int(length / step) + 1):
        x = i * step * k
        top = 0.1 * k if kind == "picket" and i % 2 else 0.02 * k
        pen.rectangle((x, top, x + max(1.0, bar * k - 1), h), fill=255)
        ink.rectangle((x, top, x + max(1.0, bar * k - 1), h), fill=scale(rgb, 0.86 + 0.2 * ((i * 37) % 11) / 11))
    if kind == "mesh":
        for j in range(int(height / 0.12) + 1):
            pen.rectangle((0, j * 0.12 * k, w, j * 0.12 * k + 0.8), fill=255)
    for level in (0.10, 0.5, 0.86):
        pen.rectangle((0, h * level, w, h * level + max(1, 0.06 * k)), fill=255)
        ink.rectangle((0, h * level + 0.05 * k, w, h * level + 0.08 * k), fill=scale(rgb, 0.7))
    for i in range(int(length / 2.4) + 1):
        x = min(i * 2.4 * k, w - 0.1 * k)
        pen.rectangle((x, 0, x + 0.1 * k, h), fill=255)
        ink.rectangle((x, 0, x + 0.1 * k, h), fill=scale(rgb, 0.8))
    return np.asarray(colour), None, np.asarray(alpha)


def draw_hedge(k: float, rgb, seed: int):
    """Draw a clipped hedge."""
    rng = keyed("hedge", seed)
    cell = 1.0 + 0.20 * noise_tile(64)[:64, :192] + 0.06 * rng.normal(size=(64, 192))
    cell *= np.linspace(1.12, 0.7, 64)[:, None]
    return np.clip(cell[..., None] * np.array(rgb), 0, 255).astype(np.uint8), None, None


@lru_cache(maxsize=64)
def draw_tree(kind: str, seed: int):
    """Draw a tree of ``kind`` "round", "tall", "wide", "conifer" or "shrub" with trunk and crown, the same at any size."""
    rng, w, h = keyed("tree", seed), 192, 256
    green = {"conifer": (54, 82, 54), "shrub": (92, 116, 60)}.get(kind, (98, 124, 58))
    green = np.clip(np.array(green) + rng.normal(0, 11, 3), 20, 200)
    image, alpha = Image.new("RGB", (w, h), tuple(int(c) for c in green * 0.7)), Image.new("L", (w, h), 0)
    ink, pen = ImageDraw.Draw(image), ImageDraw.Draw(alpha)
    bark, base = (82, 68, 54), {"shrub": h, "conifer": h * 0.9}.get(kind, h * 0.62)
    if kind != "shrub":
        for width, x1, y1 in ((13, w * 0.5, h * 0.45), (7, w * 0.34, h * 0.36), (7, w * 0.66, h * 0.33)):
            for p, fill in ((ink, bark), (pen, 255)):
                p.line((w * 0.5, h * (1.0 if width > 10 else 0.66), x1, y1), fill=fill, width=width)
        ink.line((w * 0.5 + 4, h, w * 0.5 + 4, base), fill=(108, 92, 74), width=4)
    blobs = _blobs(kind, rng, w, h, base)
    blobs.sort(key=lambda b: -b[1])
    for x, y, r in blobs:  # dark mass first
        for p, fill in ((ink, tuple(int(c) for c in green * 0.50)), (pen, 255)):
            p.ellipse((x - r, y - r * 0.85, x + r, y + r * 0.85), fill=fill)
    for x, y, r in blobs:
        for _ in range(46):
            a, q = rng.uniform(0, 2 * math.pi), r * math.sqrt(rng.random()) * 1.06
            lx, ly, s = x + q * math.cos(a), y + q * math.sin(a) * 0.88, rng.uniform(1.6, 4.2)
            lift = 0.74 - 0.42 * (ly - y) / r + 0.16 * (lx - x) / r + rng.normal(0, 0.13)
            fill = tuple(int(min(255, c * min(1.5, max(0.42, lift)))) for c in green)
            ink.ellipse((lx - s, ly - s, lx + s, ly + s * 0.8), fill=fill)
            pen.ellipse((lx - s, ly - s, lx + s, ly + s * 0.8), fill=255)
    return np.asarray(image), None, np.asarray(alpha)


def _blobs(kind: str, rng, w: int, h: int, base: float) -> list[tuple[float, float, float]]:
    """Return the discs (x, y, radius) of a crown whose trunk ends at ``base``."""
    out = []
    for i in range(26):
        t = rng.random()
        if kind == "conifer":
            y = h * 0.06 + (base - h * 0.06) * (i + 0.5) / 26
            half = w * 0.34 * (y / base)
            out.append((w / 2 + rng.uniform(-half, half), y, 9 + 13 * y / base))
        elif kind == "shrub":
            y = h - rng.uniform(0.1, 0.6) * h * math.sin(math.pi * (0.1 + 0.8 * t)) - 8
            out.append((w * (0.14 + 0.72 * t), y, 22))
        else:
            a, q = rng.uniform(0, 2 * math.pi), math.sqrt(rng.random())
            fx, fy = {"tall": (0.24, 0.34), "wide": (0.38, 0.24)}.get(kind, (0.33, 0.28))
            x, y = w / 2 + w * fx * q * math.cos(a), h * 0.34 + h * fy * q * math.sin(a) * 0.9
            out.append((x, y, rng.uniform(16, 27)))
    return out


def draw_sign(k: float, kind: str, seed: int):
    """Draw the face of a traffic sign: "stop", "give", "limit", "no", "park", "warn", "way" or "guide"."""
    rng, s = keyed("sign", kind, seed), 64
    image, alpha = Image.new("RGB", (s, s), (240, 240, 238)), Image.new("L", (s, s), 0)
    ink, pen = ImageDraw.Draw(image), ImageDraw.Draw(alpha)
    red, blue, white = (186, 30, 36), (28, 74, 150), (244, 244, 242)
    ring, tri = (1, 1, s - 2, s - 2), [(s / 2, 2), (s - 2, s - 6), (2, s - 6)]

    def write(word: str, size: int, fill) -> None:
        ink.text((s / 2, s / 2), word, fill=fill, font=font(size), anchor="mm")

    if kind in ("limit", "no", "stop"):
        pen.ellipse(ring, fill=255)
        ink.ellipse(ring, fill=red)
        if kind == "limit":
            ink.ellipse((10, 10, s - 11, s - 11), fill=white)
            write(pick(rng, ("20", "30", "40", "50")), 30, (20, 20, 20))
        elif kind == "no":
            ink.rectangle((14, 26, s - 15, 37), fill=white)
        else:
            write("STOP", 20, white)
    elif kind in ("give", "warn"):
        pts = tri if kind == "warn" else [(x, s - y) for x, y in tri]
        pen.polygon(pts, fill=255)
        ink.polygon(pts, fill=red)
        mid = (s / 2, s * (0.6 if kind == "warn" else 0.4))
        ink.polygon([(mid[0] + (x - mid[0]) * 0.6, mid[1] + (y - mid[1]) * 0.6) for x, y in pts], fill=(244, 244, 240))
    else:
        guide = pick(
            rng, ((24, 96, 66), (30, 70, 140), (232, 228, 214))
        )  # always drawn: the random numbers stay the same
        fill = guide if kind == "guide" else blue
        pen.rectangle(ring, fill=255)
        ink.rectangle(ring, fill=fill)
        ink.rectangle((4, 4, s - 5, s - 5), outline=(238, 238, 236), width=2)
        if kind == "park":
            write("P", 46, (244, 244, 244))
        else:
            line = (240, 240, 240) if sum(fill) < 500 else (40, 40, 40)
            for y in (18, 32, 46):
                ink.rectangle((12, y - 3, 12 + int(rng.integers(16, 40)), y + 3), fill=line)
    return np.asarray(image), None, np.asarray(alpha)


DRAWERS = {
    "facade": lambda k, spec: draw_facade(spec, k),
    "tiles": draw_tiles,
    "wall": draw_wall,
    "fence": draw_fence,
    "hedge": draw_hedge,
    "tree": lambda k, kind, seed: draw_tree(kind, seed),
    "sign": draw_sign,
}
