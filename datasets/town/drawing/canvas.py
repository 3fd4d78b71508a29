"""Painter of the procedural town: projects meshes and fills the image and its label with the same shapes.

Coordinates are metres in the frame of one street: x along it, y to the left, z up. Everything is drawn at
twice the size of the picture; :meth:`Canvas.finish` then averages the colours and lets the majority decide
the label, so that labels stay exact while the image is smooth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from datasets.town.world.styles import SKY, Weather, mix, sun_vector

NEAR = 0.3  # metres
SUPER = 2  # canvas pixels per picture pixel and side
POLY, TEX, LIMB, BALL, SPRITE = range(5)
OBJECT, WET_ROAD, PAVED, GRASS, AIR, GLOW = range(6)  # materials in the third channel of the buffer
DEPTH_STEPS = 40.0  # depth code per e-fold


class Mesh:
    """A list of drawable faces over shared vertices, drawn in the order in which they were added."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float, float]] = []
        self.faces: list[tuple] = []  # kind, first vertex, count, payload, label, glow
        self.normals: list[tuple[float, float, float]] = []  # zeros: seen from both sides

    def poly(self, pts, rgb, label: int, glow: float = 0.0, both: bool = False) -> None:
        """Add a plane polygon; vertices run counter-clockwise as seen from its front."""
        a, b, c = pts[0], pts[1], pts[2]
        u, v = [q - p for p, q in zip(a, b)], [q - p for p, q in zip(a, c)]
        n = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
        size = math.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) or 1.0
        n = tuple(round(k / size, 2) for k in n)
        self._add(POLY, pts, (tuple(rgb), n), label, glow, (0.0, 0.0, 0.0) if both else n)

    def tex(self, corners, key, label: int, normal, outline=None, both: bool = False) -> None:
        """Add a textured quad: corners top left, top right, bottom left; ``outline`` is the visible polygon."""
        tl, tr, bl = corners
        br = tuple(b + c - a for a, b, c in zip(tl, tr, bl))
        pts = [tl, tr, bl, *list(outline or (tl, tr, br, bl))]
        self._add(TEX, pts, (key, normal), label, 0.0, (0.0, 0.0, 0.0) if both else normal)

    def limb(self, a, b, r0: float, r1: float, rgb, label: int, glow: float = 0.0) -> None:
        """Add a round bar from ``a`` to ``b`` with radii ``r0`` and ``r1``."""
        self._add(LIMB, [a, b], (tuple(rgb), r0, r1), label, glow, (0.0, 0.0, 0.0))

    def ball(self, centre, radius: float, rgb, label: int, glow: float = 0.0) -> None:
        """Add a sphere."""
        self._add(BALL, [centre], (tuple(rgb), radius), label, glow, (0.0, 0.0, 0.0))

    def sprite(self, base, width: float, height: float, key, label: int) -> None:
        """Add an upright picture that always faces the camera."""
        self._add(SPRITE, [base], (key, width, height), label, 0.0, (0.0, 0.0, 0.0))

    def box(self, x0, x1, y0, y1, z0, z1, rgb, label: int, glow: float = 0.0) -> None:
        """Add an upright box without a bottom."""
        p = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        for i in range(4):
            a, b = p[i], p[(i + 1) % 4]
            self.poly([(*a, z0), (*b, z0), (*b, z1), (*a, z1)], rgb, label, glow)
        self.poly([(*q, z1) for q in p], rgb, label, glow)

    def _add(self, kind, pts, payload, label, glow, normal) -> None:
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


def thing(mesh: Mesh, x: float, y: float, reach: float, place=None, **extra) -> Thing:
    """Freeze ``mesh``; ``place`` maps points [N, 3] and turns normals, see :func:`placed`."""
    pts, normals = np.array(mesh.points, float).reshape(-1, 3), np.array(mesh.normals, float).reshape(-1, 3)
    if place is not None:
        cos, sin, dx, dy = place
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        pts, normals = pts @ turn + (dx, dy, 0.0), normals @ turn
    first = np.array([f[1] for f in mesh.faces], int)
    return Thing(x, y, reach, pts, mesh.faces, first, normals, **extra)


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

    def ground(self, pts, rgb, label: int, material: int, normal=(0.0, 0.0, 1.0), colour_only: bool = False) -> None:
        """Fill a polygon on the ground; its depth is found from its pixels later."""
        xy = self.outline(pts)
        if len(xy) >= 3:
            self.pen.polygon(xy, fill=tuple(rgb))
            if not colour_only:
                self.mark.polygon(xy, fill=(label, 0, material))

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
            self.pen.polygon(pts, fill=self.light.shade(payload[0], payload[1], extra, shaded, glow))
            self.mark.polygon(pts, fill=aux)
        elif kind == TEX:
            self._textured(cam[i : i + n], payload, aux, extra, shaded)
        elif kind == LIMB:
            self._limb(xy[i], xy[i + 1], cam[i, 2], cam[i + 1, 2], payload, aux, extra, shaded, glow)
        elif kind == BALL and cam[i, 2] > NEAR:
            (x, y), r = xy[i], payload[1] * self.view.focal / cam[i, 2]
            fill = self.light.shade(payload[0], (0.0, 0.0, 0.4), extra, shaded, glow)
            self.pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
            self.mark.ellipse((x - r, y - r, x + r, y + r), fill=aux)
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
        pts = [
            (a[0] + nx * ra, a[1] + ny * ra),
            (b[0] + nx * rb, b[1] + ny * rb),
            (b[0] - nx * rb, b[1] - ny * rb),
            (a[0] - nx * ra, a[1] - ny * ra),
        ]
        self.pen.polygon(pts, fill=fill)
        self.mark.polygon(pts, fill=aux)
        if ra > 2.5 and glow == 0.0:  # a lighter flank makes it round
            edge = [
                (a[0] + nx * ra * 0.1, a[1] + ny * ra * 0.1),
                (b[0] + nx * rb * 0.1, b[1] + ny * rb * 0.1),
                (b[0] - nx * rb * 0.7, b[1] - ny * rb * 0.7),
                (a[0] - nx * ra * 0.7, a[1] - ny * ra * 0.7),
            ]
            self.pen.polygon(edge, fill=mix(fill, (255, 255, 255), 0.09 if sum(fill) > 60 else 0.03))
        for (x, y), r in ((a, ra), (b, rb)):
            if r > 1.2 and r0 > 0.03:
                self.pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
                self.mark.ellipse((x - r, y - r, x + r, y + r), fill=aux)

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
