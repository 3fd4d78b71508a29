"""Scenes of the procedural town: paints what one camera sees, with its label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from datasets.town.drawing.canvas import GRASS, PAVED, SUPER, WET_ROAD, Canvas, Light, Thing, View
from datasets.town.drawing.facades import noise_tile
from datasets.town.drawing.textures import Atlas
from datasets.town.world import styles as st
from datasets.town.world.street import CROSS_HALF, MARGIN, Street
from datasets.town.world.styles import Optics, Weather, keyed, mix, scale

AHEAD, ASIDE = 135.0, 34.0  # how far is drawn along the street for a camera along it and across it


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
    return View(
        stand.x, street.centre(stand.x) + stand.off, optics.height + stand.height, yaw, pitch, stand.roll, focal, w, h
    )


class Lamps:
    """Light of the street lamps (and of the own headlights) at night."""

    def __init__(self, street: Street, view: View, weather: Weather) -> None:
        near = [p for p in street.lamps if abs(p[0] - view.x) < 140]
        self.heads = np.array(near or [(1e6, 0.0, 7.0)])
        self.view, self.on = view, weather.night

    def __call__(self, x, y, z):
        """Return the lamp light at a point, 0 by day."""
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

    Returns the :class:`Canvas`, the screen halos at night as (x, y, radius px, rgb) and the lamp model.
    """
    rng = keyed(*key, "sky")
    light = Light(weather, street.heading)
    canvas = Canvas(view, light, atlas)
    lamps = Lamps(street, view, weather)
    if weather.night:
        canvas.lamp_at = lamps
    canvas.image.paste(sky(view, weather, street.heading, rng))
    _horizon(canvas, street, weather)
    along = math.cos(view.yaw - street.slope(view.x))
    items = [t for t in street.things + moving if _near(t, view, along)]
    _ground(canvas, street, view, weather, along, light)
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
    if abs(along) > 0.7:

        def rank(t):
            d = abs(t.x - view.x)
            return -((d + t.reach + 0.3 * max(0.0, t.off - street.front)) if t.front else d - min(t.reach, 2.0) - 0.01)

        items.sort(key=rank)
    else:
        items.sort(
            key=lambda t: (
                (0, -round(t.off, 1), t.reach - abs(t.x - view.x)) if t.front else (1, -abs(t.y - view.y), 0.0)
            )
        )


def _strip(street: Street, x0: float, x1: float, a: float, b: float) -> list:
    xs = np.linspace(x0, x1, max(2, int((x1 - x0) / 5.0) + 1))
    left = [(x, street.centre(x) + a, 0.0) for x in xs]
    return left + [(x, street.centre(x) + b, 0.0) for x in xs[::-1]]


def _ground(canvas: Canvas, street: Street, view: View, weather: Weather, along: float, light: Light) -> None:
    s = street.style
    snow, wet = weather.snow, 1.0 - 0.52 * weather.wet * (not weather.night)

    def tone(rgb, white):
        return light.shade(mix(scale(rgb, wet), (236, 239, 244), snow * white), (0.0, 0.0, 0.44))

    lo, hi = street.places[0] - MARGIN - 24, street.places[-1] + MARGIN + 24
    reach = AHEAD + 30 if abs(along) > 0.7 else ASIDE + 12
    x0, x1 = max(lo, view.x - (12 if along > 0.7 else reach)), min(hi, view.x + (12 if along < -0.7 else reach))
    big = 900.0
    canvas.ground(
        [
            (view.x - big, view.y - big, 0),
            (view.x + big, view.y - big, 0),
            (view.x + big, view.y + big, 0),
            (view.x - big, view.y + big, 0),
        ],
        tone(street.grass, 0.93),
        st.TERRAIN,
        GRASS,
    )
    kerb, edge, road = s.road, street.edge, tone(street.asphalt, 0.72)
    slab, stone, paint_ = tone(street.slabs, 0.86), tone((168, 166, 160), 0.8), tone((214, 214, 206), 0.55)
    for side in (1, -1):
        outer = street.front if s.setback < 1.5 else edge
        canvas.ground(_strip(street, x0, x1, side * kerb, side * (outer + 0.1)), slab, st.WALK, PAVED)
        if s.verge:
            canvas.ground(
                _strip(street, x0, x1, side * (kerb + 0.2), side * (kerb + s.verge)),
                tone(street.grass, 0.93),
                st.TERRAIN,
                GRASS,
            )
        for lot, a, b in street.lots:
            if lot == side and b > x0 and a < x1 and s.setback < 1.5:
                canvas.ground(
                    _strip(street, a, b, side * (edge + 0.2), side * (edge + 14)),
                    tone(street.grass, 0.93),
                    st.TERRAIN,
                    GRASS,
                )
    for c in street.crossings:
        if x0 - 5 < c < x1 + 5:
            y, half = street.centre(c), CROSS_HALF
            canvas.ground(
                [(c - half, y - 70, 0), (c + half, y - 70, 0), (c + half, y + 70, 0), (c - half, y + 70, 0)],
                slab,
                st.WALK,
                PAVED,
            )
    canvas.ground(_strip(street, x0, x1, -kerb - 0.16, kerb + 0.16), stone, st.WALK, PAVED)
    canvas.ground(_strip(street, x0, x1, -kerb, kerb), road, st.ROAD, WET_ROAD)
    for c in street.crossings:
        if x0 - 5 < c < x1 + 5:
            y, half = street.centre(c), CROSS_HALF - 1.6
            canvas.ground(
                [(c - half, y - 70, 0), (c + half, y - 70, 0), (c + half, y + 70, 0), (c - half, y + 70, 0)],
                road,
                st.ROAD,
                WET_ROAD,
            )
    gutter = scale(road, 0.86)
    for side in (1, -1):
        canvas.ground(_strip(street, x0, x1, side * (kerb - 0.3), side * kerb), gutter, st.ROAD, WET_ROAD)
    _repairs(canvas, street, x0, x1, road)
    if snow:
        for off in (-1, 1):
            for track in (-0.75, 0.75):
                a = abs(street.lane) * off + track
                canvas.ground(
                    _strip(street, x0, x1, a - 0.28, a + 0.28), tone((128, 130, 134), 0.15), st.ROAD, WET_ROAD
                )
    _marks(canvas, street, x0, x1, paint_, kerb)


def _repairs(canvas: Canvas, street: Street, x0: float, x1: float, road) -> None:
    for k in range(int(x0 // 9), int(x1 // 9) + 1):
        r = keyed("patch", street.index, k)
        x, off, long, wide = k * 9 + r.uniform(0, 6), r.uniform(-2.4, 1.2), r.uniform(0.5, 5.0), r.uniform(0.5, 1.4)
        if r.random() < 0.6:
            canvas.ground(
                _strip(street, x, x + long, off, off + wide), scale(road, r.uniform(0.86, 1.06)), st.ROAD, WET_ROAD
            )


def _marks(canvas: Canvas, street: Street, x0: float, x1: float, rgb, kerb: float) -> None:
    def mark(a, b, left, right):
        canvas.ground(_strip(street, a, b, left, right), rgb, st.MARK, WET_ROAD)

    def free(a, b):
        return all(b < c - CROSS_HALF - 4.6 or a > c + CROSS_HALF + 4.6 for c in street.crossings)

    step = 6.0 if street.style.dashed else 9.0
    for k in range(int(x0 // step), int(x1 // step) + 1):
        if free(k * step, k * step + 2.6):
            mark(k * step, k * step + 2.6, -0.07, 0.07)
    if street.style.bays:
        for k in range(int(x0 // 6), int(x1 // 6) + 1):
            for side in (1, -1):
                if free(k * 6.0, k * 6.0 + 1):
                    mark(k * 6.0, k * 6.0 + 0.12, side * (kerb - 1.9), side * kerb)
    for c in street.crossings:
        for s in (1, -1):
            a = c + s * (CROSS_HALF + 1.4)
            if not x0 - 5 < a < x1 + 5:
                continue
            for i in range(int(2 * kerb / 0.9)):  # zebra
                mark(a - 1.3, a + 1.3, -kerb + 0.25 + 0.9 * i, -kerb + 0.7 + 0.9 * i)
            own = (street.lane > 0) == (s < 0)
            mark(a + s * 2.2 - 0.17, a + s * 2.2 + 0.17, 0.1 if own else -kerb + 0.2, kerb - 0.2 if own else -0.1)


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
    pts = sorted(set(points))

    def chain(seq):
        out: list = []
        for p in seq:
            while (
                len(out) > 1
                and (out[-1][0] - out[-2][0]) * (p[1] - out[-2][1]) - (out[-1][1] - out[-2][1]) * (p[0] - out[-2][0])
                <= 0
            ):
                out.pop()
            out.append(p)
        return out[:-1]

    return chain(pts) + chain(pts[::-1])


def _in_shadow(t: Thing, light: Light, street: Street) -> bool:
    """Whether a house stands between a thing in the street and the sun."""
    sx, sy, sz = light.sun
    side = 1 if sy > 0 else -1
    if abs(sy) < 0.05:
        return False
    reach = abs(street.front - side * (t.y - street.centre(t.x)))
    at, high = t.x + sx / abs(sy) * reach, 0.8 + reach * sz / abs(sy)
    for house in street.things:
        if (
            house.front
            and house.shadow
            and abs(house.x - at) < house.reach
            and (house.y - street.centre(house.x)) * side > 0
        ):
            return house.shadow[1] > high
    return False


def sky(view: View, weather: Weather, heading: float, rng: np.random.Generator) -> Image.Image:
    """Return the sky over the whole canvas: a gradient with clouds that differ from picture to picture."""
    h, w = 54, 96
    horizon = view.height * 0.5 + math.tan(view.pitch) * view.focal
    rows = np.clip((horizon / view.height - (np.arange(h) + 0.5) / h) * view.height / view.focal, 0, 1.5)[:, None, None]
    top, low = np.array(weather.sky_top) * 255.0, np.array(weather.sky_low) * 255.0
    base = low + (top - low) * (1.0 - np.exp(-rows * 2.6))
    ys = (40.0 / (rows[:, 0, 0] + 0.16) + rng.integers(256)).astype(int)
    xs = (np.arange(w) - w / 2)[None] / (0.35 + 1.2 * rows[:, :, 0]) * 0.9 + rng.integers(256)
    n = noise_tile(256, 5)[ys[:, None] % 256, xs.astype(int) % 256]
    share = np.clip((n + 2.4 * weather.cover - 1.0) * 0.75, 0, 1)[..., None] * (0.25 + 0.75 * np.clip(rows * 5, 0, 1))
    base = base + (np.array(weather.cloud) * 255.0 * (1.0 + 0.05 * n[..., None]) - base) * share * 0.85
    return Image.fromarray(np.clip(base, 0, 255).astype(np.uint8)).resize(
        (view.width, view.height), Image.Resampling.BICUBIC
    )


def _horizon(canvas: Canvas, street: Street, weather: Weather) -> None:
    """Draw the far trees and towers around the town."""
    phases, height, towers = street.skyline
    view, far = canvas.view, 600.0
    haze = tuple(c * 255 for c in weather.haze)

    def points(outline):
        return [(view.x + far * math.cos(a), view.y + far * math.sin(a), view.z + far * e) for a, e in outline]

    def fill(outline, rgb, label):
        xy = canvas.outline(points(outline))
        if len(xy) > 2:
            canvas.pen.polygon(xy, fill=rgb)
            canvas.mark.polygon(xy, fill=(label, 250, 0))

    for azimuth, wide, high, kind, rgb in towers:
        tone = mix(canvas.light.shade(rgb, (0.0, 0.0, 0.4)), haze, 0.55)
        top = (
            [(azimuth + wide, high), (azimuth, high)]
            if kind == "slab"
            else [(azimuth + wide, high * 0.5), (azimuth + wide / 2, high * 1.3), (azimuth, high * 0.5)]
        )
        fill([(azimuth, -0.02), (azimuth + wide, -0.02), *top], tone, st.BUILDING)
    angles = view.yaw + np.linspace(-1.2, 1.2, 70)
    elev = height * (
        1.0
        + 0.35 * np.sin(3 * angles + phases[0])
        + 0.2 * np.sin(11 * angles + phases[1])
        + 0.14 * np.sin(47 * angles + phases[2])
        + 0.1 * np.sin(83 * angles + phases[3])
    )
    outline = [(a, e) for a, e in zip(angles, elev)] + [(angles[-1], -0.03), (angles[0], -0.03)]
    fill(outline, mix(canvas.light.shade((84, 100, 72), (0.0, 0.0, 0.4)), haze, 0.45), st.VEGETATION)


def _halos(canvas: Canvas, items: list[Thing], street: Street, weather: Weather) -> list:
    """Return the lights that glow on the picture: (x, y, radius, rgb) in picture pixels."""
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
