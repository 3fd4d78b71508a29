"""Facades, drawn flat; the canvas then warps them into perspective.

A drawing is ``(albedo uint8 [H, W, 3], extra uint8 [H, W], alpha uint8 [H, W] or None)``. ``extra`` is 1 for
glass, which mirrors the sky, and 128 or more for panes that are lit at night.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.town.chance import Rgb, keyed, mix, pick, scale, tint
from datasets.town.drawing.noise import noise_piece
from datasets.town.world.houses import Facade
from datasets.town.world.styles import colours

GLASS = 1
MASONRY = {  # width and height of a block in metres, spread of its tone, tone of the joints
    "brick": (0.30, 0.11, 0.11, 0.80),
    "stone": (0.75, 0.36, 0.06, 0.86),
    "concrete": (2.4, 1.6, 0.02, 0.88),
    "panels": (1.1, 0.8, 0.035, 0.84),
}


@lru_cache(maxsize=32)
def font(size: int):
    """Return the font that comes with Pillow at ``size`` pixels."""
    return ImageFont.load_default(size)


def wall_base(h: int, w: int, k: float, material: str, rgb: Rgb, rng: np.random.Generator) -> np.ndarray:
    """Return a wall without openings, uint8 [h, w, 3]; ``k`` is pixels per metre."""
    shade = 1.0 + 0.035 * noise_piece(6, h, w, rng) + 0.018 * noise_piece(64, h, w, rng)
    if material in MASONRY:
        bw, bh, vary, joint = MASONRY[material]
        ys, xs = np.arange(h)[::-1] / (bh * k), np.arange(w) / (bw * k)
        row = ys.astype(int)
        col = xs[None] + 0.5 * (row[:, None] % 2) * (material in ("brick", "stone"))
        cell = rng.normal(1.0, vary, (int(row.max()) + 1, int(col.max()) + 2)).astype(np.float32)
        shade = shade * cell[row[:, None], col.astype(int)]
        line = ((ys % 1.0)[:, None] < 1.0 / max(bh * k, 1.0)) | ((col % 1.0) < 1.0 / max(bw * k, 1.0))
        shade = np.where(line, shade * (joint if bh * k > 2.5 else 1.0), shade)
    streak = np.repeat(noise_piece(40, 1, w, rng), h, 0) * np.linspace(1.0, 0.2, h)[:, None]
    shade = shade * (1.0 - 0.02 * np.abs(streak))
    return np.clip(shade[..., None] * np.array(rgb, np.float32), 0, 255).astype(np.uint8)


class Drawer:
    """Draws rectangles given in metres (v upwards from the ground) on a facade and on its extra channel."""

    def __init__(self, spec: Facade, k: float) -> None:
        self.k, self.high = k, spec.eaves + spec.gable
        w, h = max(8, round(spec.width * k)), max(8, round(self.high * k))
        self.rng = keyed("facade", spec.seed)
        self.image = Image.fromarray(wall_base(h, w, k, spec.material, spec.wall, self.rng))
        self.extra = Image.new("L", (w, h), 0)
        self.pen, self.tell = ImageDraw.Draw(self.image), ImageDraw.Draw(self.extra)

    def _box(self, u0, v0, u1, v1):
        k = self.k
        x0, y0, x1, y1 = round(u0 * k), round((self.high - v1) * k), round(u1 * k) - 1, round((self.high - v0) * k) - 1
        return x0, y0, max(x0, x1), max(y0, y1)

    def rect(self, u0, v0, u1, v1, rgb, extra: int = 0) -> None:
        """Fill a rectangle."""
        box = self._box(u0, v0, u1, v1)
        self.pen.rectangle(box, fill=tuple(rgb))
        self.tell.rectangle(box, fill=extra)

    def arch(self, u0, v0, u1, v1, rgb, extra: int = 0) -> None:
        """Fill the upper half of an ellipse."""
        x0, y0, x1, y1 = self._box(u0, v0, u1, v1)
        self.pen.pieslice((x0, y0, x1, 2 * y1 - y0), 180, 360, fill=tuple(rgb))
        self.tell.pieslice((x0, y0, x1, 2 * y1 - y0), 180, 360, fill=extra)

    def text(self, u, v, height, word, rgb) -> None:
        """Write ``word`` centred at (u, v)."""
        size = max(6, int(height * self.k))
        self.pen.text((u * self.k, (self.high - v) * self.k), word, fill=tuple(rgb), font=font(size), anchor="mm")

    def pane(self, u0, v0, u1, v1, lit: float, curtains: bool = True) -> None:
        """Draw glass with a reflection, perhaps curtains, perhaps lit at night with chance ``lit``."""
        rng, on = self.rng, self.rng.random() < lit
        level = int(rng.integers(150, 250)) if on else GLASS
        tone = int(rng.integers(34, 66))
        self.rect(u0, v0, u1, v1, (tone, tone + 5, tone + 10), level)
        self.rect(u0, v0 + (v1 - v0) * 0.55, u1, v1, (tone + 16, tone + 22, tone + 28), level)
        if curtains and rng.random() < 0.45:
            cloth, share = tint(rng, pick(rng, colours("curtains"))), rng.uniform(0.12, 0.34)
            inner = max(level - 40, 128) if on else 0
            self.rect(u0, v0, u0 + (u1 - u0) * share, v1, cloth, inner)
            self.rect(u1 - (u1 - u0) * share, v0, u1, v1, cloth, inner)
        elif curtains and rng.random() < 0.3:
            low, inner = v1 - (v1 - v0) * rng.uniform(0.2, 0.6), max(level - 30, 128) if on else 0
            self.rect(u0, low, u1, v1, (208, 204, 192), inner)


def _window(d: Drawer, spec: Facade, kind: str, u: float, v: float, w: float, h: float) -> None:
    """Draw one window centred at ``u`` with its sill at height ``v``."""
    t, trim, dark = 0.07, spec.trim, scale(spec.wall, 0.55)
    u0, u1, v1 = u - w / 2, u + w / 2, v + h
    if kind in ("sash", "bay", "tall", "arched", "shutters"):  # surround
        border = mix(trim, spec.wall, 0.25)
        d.rect(u0 - 0.12, v - 0.10, u1 + 0.12, v1 + (0.0 if kind == "arched" else 0.20), border)
    if kind == "tall":
        d.rect(u0 - 0.25, v1 + 0.22, u1 + 0.25, v1 + 0.36, trim)
        d.rect(u0 - 0.25, v1 + 0.17, u1 + 0.25, v1 + 0.22, dark)
    if kind == "arched":
        d.arch(u0 - 0.12, v1, u1 + 0.12, v1 + w * 0.5 + 0.12, mix(trim, spec.wall, 0.25))
        d.arch(u0 + t, v1, u1 - t, v1 + w * 0.45, (58, 64, 70), GLASS)
    d.rect(u0, v, u1, v1, mix(trim, (250, 250, 246), 0.5))
    cols = {"bay": 3, "casement": 2, "shutters": 2, "industrial": 4, "grid": 2}.get(kind, 2 if w > 1.5 else 1)
    rows = {"sash": 2, "bay": 2, "tall": 2, "industrial": 3}.get(kind, 1)
    cell_w, cell_h = (w - t) / cols, (h - t) / rows
    lit = d.rng.random() < 0.36
    for i in range(cols):
        for j in range(rows):
            a, b = u0 + t + i * cell_w, v + t + j * cell_h
            d.pane(a, b, a + cell_w - t, b + cell_h - t, 1.0 * lit, curtains=cols * rows < 3)
    d.rect(u0, v1 - 0.10, u1, v1, scale(trim, 0.45))  # shadow of the reveal
    d.rect(u0, v, u0 + 0.05, v1, scale(trim, 0.55))
    d.rect(u0 - 0.14, v - 0.12, u1 + 0.14, v, trim)  # sill and its shadow
    d.rect(u0 - 0.12, v - 0.22, u1 + 0.12, v - 0.12, dark)
    if kind == "shutters":
        for a in (u0 - w * 0.46, u1 + 0.04):
            d.rect(a, v, a + w * 0.42, v1, spec.accent)
            for j in range(1, 6):
                d.rect(a + 0.04, v + h * j / 6, a + w * 0.42 - 0.04, v + h * j / 6 + 0.05, scale(spec.accent, 0.72))


def _door(d: Drawer, spec: Facade, u: float) -> None:
    w, h = 1.05, min(2.25, spec.ground - 0.5)
    d.rect(u - w / 2 - 0.15, 0, u + w / 2 + 0.15, h + 0.22, spec.trim)
    d.rect(u - w / 2, 0.08, u + w / 2, h, spec.accent)
    d.rect(u - w / 2, h - 0.42, u + w / 2, h - 0.06, (60, 66, 72), 190)
    for a in (-0.38, 0.06):
        for b in (0.25, 1.0):
            d.rect(u + a, b, u + a + 0.32, b + 0.6, scale(spec.accent, 0.78))
    d.rect(u - w / 2, h - 0.06, u + w / 2, h, scale(spec.accent, 0.4))
    d.rect(u - 0.75, 0, u + 0.75, 0.10, (150, 146, 140))


def _shop(d: Drawer, spec: Facade) -> None:
    """Draw a shop front over the ground floor: stall riser, glazing, goods, door, sign board."""
    rng, w, g = d.rng, spec.width, spec.ground
    d.rect(0.15, 0, w - 0.15, g - 0.15, spec.accent)
    door = rng.uniform(0.2, 0.8) * (w - 1.2)
    edge, panes = 0.35, max(2, round(w / 2.2))
    step = (w - 2 * edge) / panes
    for i in range(panes):
        a, b = edge + i * step + 0.05, edge + (i + 1) * step - 0.05
        d.rect(a, 0.5, b, g - 0.95, (64, 66, 66), 236)
        for _ in range(5):  # goods in the window
            x, s = rng.uniform(a, max(a + 0.01, b - 0.5)), rng.uniform(0.2, 0.5)
            d.rect(
                x,
                0.55,
                min(b, x + s),
                0.6 + rng.uniform(0.2, 0.9),
                tint(rng, pick(rng, colours("shop_signs")), 20),
                205,
            )
        d.rect(a, g - 1.5, b, g - 0.95, (104, 112, 118), 225)
    d.rect(door, 0.05, door + 1.1, g - 0.95, scale(spec.accent, 0.8))
    d.rect(door + 0.15, 0.35, door + 0.95, g - 1.1, (70, 76, 80), 215)
    d.rect(0.15, g - 0.9, w - 0.15, g - 0.2, spec.sign)
    d.rect(0.15, g - 0.96, w - 0.15, g - 0.9, scale(spec.sign, 0.5))
    d.rect(0.05, g - 0.2, w - 0.05, g - 0.08, spec.trim)
    light = sum(spec.sign) < 380
    d.text(w / 2, g - 0.55, 0.58, spec.word, (240, 228, 190) if light else (50, 40, 36))


def _storey(d: Drawer, spec: Facade, v: float, ground: bool) -> None:
    """Draw the windows of one storey whose floor is at height ``v``."""
    high = spec.ground if ground else spec.floor
    kind = spec.window
    if kind == "strip":
        d.rect(0.3, v + high * 0.30, spec.width - 0.3, v + high * 0.80, scale(spec.trim, 0.5))
        n = max(2, round(spec.width / 1.4))
        step = (spec.width - 0.6) / n
        for i in range(n):
            d.pane(0.34 + i * step, v + high * 0.32, 0.26 + (i + 1) * step, v + high * 0.78, 0.35)
        return
    bay = spec.width / spec.bays
    w, h = bay * spec.window_width, high * spec.window_height
    door_bay = spec.seed % spec.bays
    for i in range(spec.bays):
        u = (i + 0.5) * bay
        if ground and not spec.plain and not spec.shop and i == door_bay:
            _door(d, spec, u)
        elif spec.plain and d.rng.random() < 0.6:
            continue
        elif kind == "bay" and ground:
            _window(d, spec, "bay", u, v + 0.7, min(bay * 0.8, 2.2), high * 0.56)
        else:
            _window(d, spec, "sash" if kind == "bay" else kind, u, v + (high - h) * 0.55, w, h)


def draw_facade(spec: Facade, k: float):
    """Draw ``spec`` at ``k`` pixels per metre; see the module for what is returned."""
    d = Drawer(spec, k)
    dark, top = scale(spec.wall, 0.6), spec.eaves
    if spec.base:
        d.rect(0, 0, spec.width, 0.7, mix(spec.wall, (110, 106, 100), 0.6))
        d.rect(0, 0.66, spec.width, 0.72, dark)
    if spec.shop:
        _shop(d, spec)
    else:
        _storey(d, spec, 0.0, True)
    for level in range(1, spec.floors):
        v = spec.ground + (level - 1) * spec.floor
        if (not spec.plain and (spec.seed >> 3) % 3 == 0) or (level == 1 and not spec.plain):
            d.rect(0, v - 0.10, spec.width, v + 0.06, mix(spec.wall, spec.trim, 0.6))
            d.rect(0, v - 0.16, spec.width, v - 0.10, dark)
        _storey(d, spec, v, False)
    if spec.gable > 2.0:
        _window(d, spec, "casement", spec.width / 2, top + 0.2, 0.8, 1.0)
    elif not spec.plain:  # cornice
        d.rect(0, top - 0.28, spec.width, top, spec.trim)
        d.rect(0, top - 0.36, spec.width, top - 0.28, dark)
    if not spec.plain:  # party-wall line and a drain pipe
        d.rect(0, 0, 0.06, top, dark)
        d.rect(spec.width - 0.16, 0, spec.width - 0.07, top, scale(spec.trim, 0.55))
    return np.asarray(d.image), np.asarray(d.extra), None
