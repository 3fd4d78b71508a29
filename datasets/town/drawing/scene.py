"""Paints what one camera sees, with its label: sky, horizon, ground, shadows, things."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.spatial import ConvexHull

from datasets.town.chance import keyed, mix
from datasets.town.drawing.canvas import OBJECT, SUPER, Canvas, Light, View
from datasets.town.drawing.ground import AHEAD, ASIDE, Ground
from datasets.town.drawing.noise import noise_tile
from datasets.town.drawing.textures import Atlas
from datasets.town.world.mesh import BUILDING, VEGETATION, Thing
from datasets.town.world.street import Street
from datasets.town.world.styles import Optics, Weather


@dataclass(frozen=True)
class Stand:
    """Where the camera car stands: metres along the street and from its centre line, and its small errors."""

    x: float
    off: float
    height: float
    heading: float = 0.0  # radians
    pitch: float = 0.0
    roll: float = 0.0


def make_view(street: Street, stand: Stand, turn: float, optics: Optics, size: tuple[int, int]) -> View:
    """Return the view from ``stand``; ``turn`` (radians, to the left) is that of the camera on its car."""
    w, h = size[0] * SUPER, size[1] * SUPER
    focal = 0.5 * w / math.tan(math.radians(optics.field_of_view) / 2)
    yaw = street.slope(stand.x) + turn + stand.heading
    pitch = math.radians(optics.pitch) + stand.pitch
    y, z = street.centre(stand.x) + stand.off, optics.height + stand.height
    return View(stand.x, y, z, yaw, pitch, stand.roll, focal, w, h)


class Lamps:
    """Light of the street lamps near a camera."""

    def __init__(self, street: Street, view: View) -> None:
        near = [p for p in street.lamps if abs(p[0] - view.x) < 140]
        self.heads = np.array(near or [(1e6, 0.0, 7.0)])
        self.view = view

    def __call__(self, x: float, y: float, z: float) -> float:
        """Return the lamp light at a point."""
        d = (self.heads[:, 0] - x) ** 2 + (self.heads[:, 1] - y) ** 2 + (self.heads[:, 2] - z) ** 2
        return float(np.minimum(26.0 / (d + 14.0), 1.0).sum() * 0.85) + 0.05

    def on_ground(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the lamp light on the ground at points of any shape."""
        out = np.full(x.shape, 0.03, np.float32)
        for hx, hy, hz in self.heads[np.argsort(np.abs(self.heads[:, 0] - self.view.x))[:9]].astype(np.float32):
            out += 26.0 * 0.9 / ((x - hx) ** 2 + (y - hy) ** 2 + hz * hz * 0.55 + 6.0)
        return out


def paint(street: Street, view: View, moving: list[Thing], weather: Weather, atlas: Atlas, key: tuple):
    """Paint one picture.

    Returns the :class:`Canvas`, the halos on the picture as (x, y, radius in pixels, rgb, distance) and the lamps.
    """
    rng = keyed(*key, "sky")
    light = Light(weather, street.heading)
    canvas = Canvas(view, light, atlas)
    lamps = Lamps(street, view)
    if weather.night:
        canvas.lamp_at = lamps
    canvas.image.paste(sky(view, weather, rng))
    _horizon(canvas, street, weather)
    along = math.cos(view.yaw - street.slope(view.x))
    items = [t for t in street.things + moving if _near(t, view, along)]
    Ground(canvas, street, along).paint()
    _cast_shadows(canvas, items, light)
    _order(items, view, along, street)
    for item in items:
        canvas.draw(item, shaded=light.weather.sunny and not item.front and _in_shadow(item, light, street))
    return canvas, _halos(canvas, items, street, weather), lamps


def _near(t: Thing, view: View, along: float) -> bool:
    ahead = (t.x - view.x) * along
    return (-8.0 - t.reach < ahead < AHEAD) if abs(along) > 0.7 else abs(t.x - view.x) < ASIDE + t.reach


def _order(items: list[Thing], view: View, along: float, street: Street) -> None:
    """Sort so that what is nearer comes later; building fronts come before what stands before them."""

    def rank_along(t: Thing) -> float:
        d = abs(t.x - view.x)
        return -((d + t.reach + 0.3 * max(0.0, t.off - street.front)) if t.front else d - min(t.reach, 2.0) - 0.01)

    def rank_across(t: Thing) -> tuple:
        return (0, -round(t.off, 1), t.reach - abs(t.x - view.x)) if t.front else (1, -abs(t.y - view.y), 0.0)

    items.sort(key=rank_along if abs(along) > 0.7 else rank_across)


def _cast_shadows(canvas: Canvas, items: list[Thing], light: Light) -> None:
    """Darken the ground under the sun's shadows, or a little around everything when there is no sun."""
    sx, sy, sz = light.sun
    hard, soft = [], []
    for t in items:
        if t.shadow is None:
            continue
        foot, high = t.shadow
        if light.weather.sunny:
            dx, dy = -sx / sz * high, -sy / sz * high
            moved = [(x + dx, y + dy) for x, y in foot]
            hard.append(canvas.outline([(x, y, 0.0) for x, y in hull(foot + moved)]))
        elif not t.front:
            cx, cy = sum(p[0] for p in foot) / len(foot), sum(p[1] for p in foot) / len(foot)
            soft.append(canvas.outline([(cx + (x - cx) * 1.25, cy + (y - cy) * 1.25, 0.0) for x, y in foot]))
    blur = 1.0 + canvas.view.width / 400
    if hard:
        shade, lit = light.factor((0, 0, 1.0), shaded=True), light.factor((0, 0, 1.0))
        canvas.darken([p for p in hard if p], tuple(a / b for a, b in zip(shade, lit)), 1.0)
    if soft:
        canvas.darken([p for p in soft if p], (0.62, 0.62, 0.64), blur * 2)


def hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the convex hull of plane points, counter-clockwise."""
    return [points[i] for i in ConvexHull(points).vertices]


def _in_shadow(t: Thing, light: Light, street: Street) -> bool:
    """Whether a house stands between a thing in the street and the sun."""
    sx, sy, sz = light.sun
    side = 1 if sy > 0 else -1
    if abs(sy) < 0.05:
        return False
    reach = abs(street.front - side * (t.y - street.centre(t.x)))
    at, high = t.x + sx / abs(sy) * reach, 0.8 + reach * sz / abs(sy)
    fronts = (house for house in street.things if house.front and house.shadow and abs(house.x - at) < house.reach)
    return next((h.shadow[1] > high for h in fronts if (h.y - street.centre(h.x)) * side > 0), False)


def sky(view: View, weather: Weather, rng: np.random.Generator) -> Image.Image:
    """Return the sky over the whole canvas: a gradient with clouds that differ from picture to picture."""
    h, w = 54, 96
    horizon = view.height * 0.5 + math.tan(view.pitch) * view.focal
    rows = np.clip((horizon / view.height - (np.arange(h) + 0.5) / h) * view.height / view.focal, 0, 1.5)[:, None, None]
    top, low = np.array(weather.sky_top) * 255.0, np.array(weather.sky_low) * 255.0
    base = low + (top - low) * (1.0 - np.exp(-rows * 2.6))
    ys = (40.0 / (rows[:, 0, 0] + 0.16) + rng.integers(256)).astype(int)
    xs = (np.arange(w) - w / 2)[None] / (0.35 + 1.2 * rows[:, :, 0]) * 0.9 + rng.integers(256)
    n = noise_tile(5)[ys[:, None] % 256, xs.astype(int) % 256]
    share = np.clip((n + 2.4 * weather.cover - 1.0) * 0.75, 0, 1)[..., None] * (0.25 + 0.75 * np.clip(rows * 5, 0, 1))
    base = base + (np.array(weather.cloud) * 255.0 * (1.0 + 0.05 * n[..., None]) - base) * share * 0.85
    small = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))
    return small.resize((view.width, view.height), Image.Resampling.BICUBIC)


def _horizon(canvas: Canvas, street: Street, weather: Weather) -> None:
    """Draw the far trees and towers around the town."""
    phases, height, towers = street.skyline
    view, far = canvas.view, 600.0
    haze, hidden = tuple(c * 255 for c in weather.haze), {BUILDING: 0.55, VEGETATION: 0.45}

    def fill(outline, rgb, label: int) -> None:
        """Fill an outline of (azimuth, slope) far away."""
        pts = [(view.x + far * math.cos(a), view.y + far * math.sin(a), view.z + far * e) for a, e in outline]
        canvas.fill(pts, mix(canvas.light.shade(rgb, (0.0, 0.0, 0.4)), haze, hidden[label]), (label, 250, OBJECT))

    for azimuth, wide, high, kind, rgb in towers:
        slab = [(azimuth + wide, high), (azimuth, high)]
        spire = [(azimuth + wide, high * 0.5), (azimuth + wide / 2, high * 1.3), (azimuth, high * 0.5)]
        fill([(azimuth, -0.02), (azimuth + wide, -0.02), *(slab if kind == "slab" else spire)], rgb, BUILDING)
    angles = view.yaw + np.linspace(-1.2, 1.2, 70)
    waves = zip((0.35, 0.2, 0.14, 0.1), (3, 11, 47, 83), phases)
    elev = height * sum((size * np.sin(n * angles + phase) for size, n, phase in waves), 1.0)
    outline = [(a, e) for a, e in zip(angles, elev)] + [(angles[-1], -0.03), (angles[0], -0.03)]
    fill(outline, (84, 100, 72), VEGETATION)


def _halos(canvas: Canvas, items: list[Thing], street: Street, weather: Weather) -> list:
    """Return the lights that glow: (x, y, radius in pixels of the picture, rgb, distance in metres)."""
    spots = [p for t in items for p in t.lights if weather.night or (weather.lamps and p[4] > 0.35)]
    if weather.night:
        spots += [(x, y, z, (1.0, 0.78, 0.46), 1.5) for x, y, z in street.lamps if abs(x - canvas.view.x) < 140]
    if not spots:
        return []
    cam, out, view = canvas.to_camera(np.array([s[:3] for s in spots])), [], canvas.view
    for p, s in zip(cam.tolist(), spots):
        if p[2] < 1.5:
            continue
        x, y = canvas.screen(p)
        if -view.width < x < 2 * view.width and -view.height < y < view.height * 1.5:
            out.append((x / SUPER, y / SUPER, s[4] * view.focal / p[2] / SUPER, s[3], p[2]))
    return out
