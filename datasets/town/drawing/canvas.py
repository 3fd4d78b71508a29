"""Projects meshes and fills the image and its label with the same shapes.

All is drawn at twice the size of the picture. :meth:`Canvas.finish` then averages the colours and lets the majority
decide the label: labels stay exact while the image is smooth.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from datasets.town.chance import mix
from datasets.town.world.mesh import BALL, LIMB, POLY, SKY, SPRITE, TEX, Thing
from datasets.town.world.styles import Weather

NEAR = 0.3  # metres
SUPER = 2  # canvas pixels per picture pixel and side
OBJECT, WET_ROAD, PAVED, GRASS, AIR, GLOW = range(6)  # materials in the third channel of the buffer
DEPTH_STEPS = 40.0  # depth code per e-fold


@dataclass(frozen=True)
class View:
    """A camera: position in metres, angles in radians, focal length and size in canvas pixels."""

    x: float
    y: float
    z: float
    yaw: float
    pitch: float
    roll: float
    focal: float
    width: int
    height: int

    def axes(self) -> np.ndarray:
        """Return the rows right, down, forward of the camera, [3, 3]."""
        cy, sy, cp, sp = math.cos(self.yaw), math.sin(self.yaw), math.cos(self.pitch), math.sin(self.pitch)
        forward = np.array([cy * cp, sy * cp, sp])
        right = np.array([sy, -cy, 0.0])
        down = np.cross(forward, right)
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        return np.stack([right * cr + down * sr, down * cr - right * sr, forward])


def sun_vector(weather: Weather, heading: float) -> tuple[float, float, float]:
    """Return the unit vector towards the sun in the frame of a street that runs at ``heading`` (radians)."""
    up, turn = math.radians(weather.sun_height), math.radians(weather.sun_azimuth) - heading
    return math.cos(up) * math.cos(turn), math.cos(up) * math.sin(turn), math.sin(up)


class Light:
    """Turns surface colours into what the weather shows of them."""

    def __init__(self, weather: Weather, heading: float) -> None:
        self.weather, self.sun = weather, sun_vector(weather, heading)
        self.cache: dict = {}

    def factor(self, normal, extra: float = 0.0, shaded: bool = False) -> tuple[float, float, float]:
        """Return the light per channel on a surface; ``extra`` adds lamp light at night."""
        w = self.weather
        soft = 0.90 + 0.10 * normal[2] + 0.06 * normal[0] - 0.045 * normal[1]
        direct = 0.0 if shaded else max(0.0, sum(n * s for n, s in zip(normal, self.sun)))
        wet = 1.0 - 0.14 * w.wet * (not w.night)
        warm = (1.0, 0.76, 0.48)
        return tuple((a * soft + s * direct) * wet + extra * k for a, s, k in zip(w.ambient, w.sun, warm))

    def shade(self, rgb, normal, extra: float = 0.0, shaded: bool = False, glow: float = 0.0):
        """Return the shown colour 0..255 of a surface of colour ``rgb``."""
        key = (rgb, normal, round(extra, 2), shaded, glow)
        if key not in self.cache:
            f = self.factor(normal, extra, shaded)
            if self.weather.snow and normal[2] > 0.45 and glow == 0.0:
                rgb = mix(rgb, (238, 241, 246), 0.92 * self.weather.snow)
            shown = tuple(int(min(255, c * (k + (1.0 - k) * min(1.0, glow)))) for c, k in zip(rgb, f))
            if len(self.cache) > 20000:
                self.cache.clear()
            self.cache[key] = shown
        return self.cache[key]


def clip_near(pts: list) -> list:
    """Return the part of a polygon (camera coordinates) in front of the near plane."""
    out = []
    for i, b in enumerate(pts):
        a = pts[i - 1]
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            t = (NEAR - a[2]) / (b[2] - a[2])
            out.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), NEAR))
        if b[2] >= NEAR:
            out.append(b)
    return out


class Canvas:
    """Image and label buffer of one picture, at ``SUPER`` times its size."""

    def __init__(self, view: View, light: Light, atlas) -> None:
        self.view, self.light, self.atlas = view, light, atlas
        size = (view.width, view.height)
        self.image, self.aux = Image.new("RGB", size), Image.new("RGB", size, (SKY, 255, AIR))
        self.pen, self.mark = ImageDraw.Draw(self.image), ImageDraw.Draw(self.aux)
        self.axes = view.axes()
        self.eye = np.array([view.x, view.y, view.z])
        self.lamp_at = None  # callable (x, y, z) -> extra light

    def to_camera(self, pts: np.ndarray) -> np.ndarray:
        """Return street points [N, 3] in camera coordinates (right, down, forward)."""
        return (pts - self.eye) @ self.axes.T

    def screen(self, p) -> tuple[float, float]:
        """Project one camera point in front of the near plane."""
        v = self.view
        return v.width * 0.5 + v.focal * p[0] / p[2], v.height * 0.5 + v.focal * p[1] / p[2]

    def outline(self, pts) -> list[tuple[float, float]]:
        """Project a polygon given in street coordinates; empty when behind the camera."""
        cam = self.to_camera(np.asarray(pts, float)).tolist()
        return [self.screen(p) for p in clip_near(cam)]

    def fill(self, pts, rgb, aux: tuple[int, int, int]) -> None:
        """Fill a polygon given in street coordinates; ``aux`` is (label, depth code, material)."""
        xy = self.outline(pts)
        if len(xy) >= 3:
            self._polygon(xy, rgb, aux)

    def _polygon(self, xy, rgb, aux) -> None:
        self.pen.polygon(xy, fill=rgb)
        self.mark.polygon(xy, fill=aux)

    def _disc(self, x: float, y: float, r: float, rgb, aux) -> None:
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=rgb)
        self.mark.ellipse((x - r, y - r, x + r, y + r), fill=aux)

    def darken(self, outlines: list, light: tuple[float, float, float], soft: float = 0.0) -> None:
        """Multiply the picture by ``light`` inside the given screen polygons (shadows)."""
        mask = Image.new("L", self.image.size, 0)
        pen = ImageDraw.Draw(mask)
        for xy in outlines:
            if len(xy) >= 3:
                pen.polygon(xy, fill=255)
        if soft > 0.0:
            mask = mask.filter(ImageFilter.BoxBlur(soft))
        dark = ImageChops.multiply(self.image, Image.new("RGB", self.image.size, tuple(int(255 * k) for k in light)))
        self.image.paste(dark, (0, 0), mask)

    def draw(self, item: Thing, shaded: bool = False) -> None:
        """Draw one thing over everything drawn before."""
        cam = self.to_camera(item.points)
        depth = cam[:, 2]
        if depth.max() < NEAR:
            return
        v = self.view
        safe = np.maximum(depth, NEAR)
        sx, sy = v.width * 0.5 + v.focal * cam[:, 0] / safe, v.height * 0.5 + v.focal * cam[:, 1] / safe
        margin = item.reach * v.focal / max(safe.min(), NEAR) if len(cam) <= 2 else v.width * 0.02
        if depth.min() >= NEAR and (sx.max() < -margin or sx.min() > v.width + margin or sy.max() < -margin):
            return
        seen = (((self.eye - item.points[item.first]) * item.normals).sum(1) > 0.0) | ~item.normals.any(1)
        code = int(min(254, max(1, DEPTH_STEPS * math.log(max(1.0, float(depth.mean()))))))
        extra = self.lamp_at(item.x, item.y, 1.5) if self.lamp_at else 0.0
        xy, near = list(zip(sx.tolist(), sy.tolist())), depth.min() < NEAR
        for face, visible in zip(item.faces, seen.tolist()):
            if visible:
                self._face(face, xy, cam, near, code, extra, shaded)

    def _face(self, face, xy, cam, near, code, extra, shaded) -> None:
        kind, i, n, payload, label, glow = face
        aux = (label, code, GLOW if glow > 0.3 else OBJECT)
        if kind == POLY:
            pts = xy[i : i + n]
            if near and cam[i : i + n, 2].min() < NEAR:
                pts = [self.screen(p) for p in clip_near(cam[i : i + n].tolist())]
                if len(pts) < 3:
                    return
            self._polygon(pts, self.light.shade(payload[0], payload[1], extra, shaded, glow), aux)
        elif kind == TEX:
            self._textured(cam[i : i + n], payload, aux, extra, shaded)
        elif kind == LIMB:
            self._limb(xy[i], xy[i + 1], cam[i, 2], cam[i + 1, 2], payload, aux, extra, shaded, glow)
        elif kind == BALL and cam[i, 2] > NEAR:
            fill = self.light.shade(payload[0], (0.0, 0.0, 0.4), extra, shaded, glow)
            self._disc(*xy[i], payload[1] * self.view.focal / cam[i, 2], fill, aux)
        elif kind == SPRITE and cam[i, 2] > NEAR:
            self._sprite(xy[i], cam[i, 2], payload, aux, extra, shaded)

    def _limb(self, a, b, za, zb, payload, aux, extra, shaded, glow) -> None:
        if za < NEAR or zb < NEAR:
            return
        rgb, r0, r1 = payload
        if max(r0, r1) * self.view.focal < 0.17 * min(za, zb):
            return  # far thinner than a pixel
        ra, rb = max(0.5, r0 * self.view.focal / za), max(0.5, r1 * self.view.focal / zb)
        dx, dy = b[0] - a[0], b[1] - a[1]
        size = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / size, dx / size
        fill = self.light.shade(rgb, (0.0, 0.0, 0.2), extra, shaded, glow)

        def band(one: float, two: float) -> list[tuple[float, float]]:
            """Return the part of the bar between two shares of its radius."""
            corners = ((a, ra, one), (b, rb, one), (b, rb, two), (a, ra, two))
            return [(p[0] + nx * r * s, p[1] + ny * r * s) for p, r, s in corners]

        self._polygon(band(1.0, -1.0), fill, aux)
        if ra > 2.5 and glow == 0.0:  # a lighter flank makes it round
            self.pen.polygon(band(0.1, -0.7), fill=mix(fill, (255, 255, 255), 0.09 if sum(fill) > 60 else 0.03))
        for (x, y), r in ((a, ra), (b, rb)):
            if r > 1.2 and r0 > 0.03:
                self._disc(x, y, r, fill, aux)

    def _textured(self, cam, payload, aux, extra, shaded) -> None:
        poly = [self.screen(p) for p in clip_near(cam[3:].tolist())]
        if len(poly) < 3:
            return
        xs, ys = [p[0] for p in poly], [p[1] for p in poly]
        x0, y0 = max(0, math.floor(min(xs)) - 1), max(0, math.floor(min(ys)) - 1)
        x1, y1 = min(self.view.width, math.ceil(max(xs)) + 2), min(self.view.height, math.ceil(max(ys)) + 2)
        if x1 <= x0 or y1 <= y0:
            return
        key, normal = payload
        source, alpha, inner = self.atlas.get(
            key, self.light, normal, extra, shaded, *self._extent(cam, max(xs) - min(xs), max(ys) - min(ys))
        )
        f, cx, cy = self.view.focal, self.view.width * 0.5 - x0, self.view.height * 0.5 - y0
        o, u, v = cam[0], cam[1] - cam[0], cam[2] - cam[0]
        k = np.array([[f, 0.0, cx], [0.0, f, cy], [0.0, 0.0, 1.0]])
        try:
            back = np.linalg.inv(k @ np.stack([u, v, o], 1))
        except np.linalg.LinAlgError:
            return
        if abs(back[2, 2]) < 1e-12:
            return
        left, top, wide, high = inner
        back = np.array([[wide, 0.0, left], [0.0, high, top], [0.0, 0.0, 1.0]]) @ back
        coefs = (back / back[2, 2]).ravel()[:8].tolist()
        size, local = (x1 - x0, y1 - y0), [(x - x0, y - y0) for x, y in poly]
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).polygon(local, fill=255)
        if alpha is not None:
            holes = alpha.transform(size, Image.Transform.PERSPECTIVE, coefs, Image.Resampling.BILINEAR)
            mask = ImageChops.multiply(mask, holes.point(lambda a: 255 * (a > 110)))
        warped = source.transform(size, Image.Transform.PERSPECTIVE, coefs, Image.Resampling.BILINEAR)
        self.image.paste(warped, (x0, y0), mask)
        self.aux.paste(aux, (x0, y0, x1, y1), mask)

    def _extent(self, cam, wide: float, high: float) -> tuple[float, float]:
        """Return how many canvas pixels the texture covers along its two sides, about its middle."""
        mid = cam[3:, 2]
        z = max(float(np.median(mid[mid > NEAR])) if (mid > NEAR).any() else NEAR, 1.0)
        f = self.view.focal / z
        across, up = float(np.linalg.norm(cam[1] - cam[0])), float(np.linalg.norm(cam[2] - cam[0]))
        if mid.min() < 0.8:
            return across * f * 2.0, up * f * 2.0
        return min(across * f, max(wide, 2.0)), min(up * f, max(high, 2.0))

    def _sprite(self, base, z, payload, aux, extra, shaded) -> None:
        key, width, height = payload
        f = self.view.focal / z
        w, h = max(1, round(width * f)), max(1, round(height * f))
        x0, y0 = round(base[0] - w / 2), round(base[1] - h)
        left, top = max(0, x0), max(0, y0)
        right, bottom = min(self.view.width, x0 + w), min(self.view.height, y0 + h)
        if right <= left or bottom <= top:
            return
        source, alpha, inner = self.atlas.get(key, self.light, (0.0, 0.0, 0.3), extra, shaded, w, h)
        sx, sy = inner[2] / w, inner[3] / h
        box = (
            inner[0] + (left - x0) * sx,
            inner[1] + (top - y0) * sy,
            inner[0] + (right - x0) * sx,
            inner[1] + (bottom - y0) * sy,
        )
        size = (right - left, bottom - top)
        colour = source.resize(size, Image.Resampling.BILINEAR, box)
        mask = alpha.resize(size, Image.Resampling.BILINEAR, box).point(lambda a: 255 * (a > 110))
        self.image.paste(colour, (left, top), mask)
        self.aux.paste(aux, (left, top, right, bottom), mask)

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return colours float32 [H, W, 3] 0..255, labels, depth codes and materials, each uint8 [H, W]."""
        colour = np.asarray(self.image.reduce(SUPER), np.float32)
        aux = np.asarray(self.aux)
        four = [np.ascontiguousarray(aux[i::2, j::2]) for i in (0, 1) for j in (0, 1)]
        a, b, c, d = (q[..., 0] for q in four)
        out = four[0].copy()
        lone = (a != b) & (a != c) & (a != d)
        second = lone & ((b == c) | (b == d))
        third = lone & ~second & (c == d)
        out[second], out[third] = four[1][second], four[2][third]
        return colour, out[..., 0].copy(), out[..., 1].copy(), out[..., 2].copy()
