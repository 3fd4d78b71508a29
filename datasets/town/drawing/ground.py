"""Paints the ground of a street: grass, pavements, road, crossings, marks and repairs."""

import numpy as np

from datasets.town.chance import Rgb, keyed, mix, scale
from datasets.town.drawing.canvas import GRASS, PAVED, WET_ROAD, Canvas
from datasets.town.world.mesh import MARK, ROAD, TERRAIN, WALK
from datasets.town.world.street import CROSS_HALF, Street

AHEAD, ASIDE = 135.0, 34.0  # metres that are drawn along the street for a camera along it and across it
LAWN, PAVEMENT, DRIVEN, MARKED = (TERRAIN, GRASS), (WALK, PAVED), (ROAD, WET_ROAD), (MARK, WET_ROAD)  # label, material


class Ground:
    """The ground around one camera; ``along`` is the cosine between its view and the street."""

    def __init__(self, canvas: Canvas, street: Street, along: float) -> None:
        self.canvas, self.street, self.weather = canvas, street, canvas.light.weather
        x, reach = canvas.view.x, AHEAD + 30 if abs(along) > 0.7 else ASIDE + 12
        self.x0 = max(street.start - 24, x - (12 if along > 0.7 else reach))
        self.x1 = min(street.end + 24, x + (12 if along < -0.7 else reach))
        self.crossings = [c for c in street.crossings if self.x0 - 5 < c < self.x1 + 5]
        self.grass, self.slab = self.tone(street.grass, 0.93), self.tone(street.slabs, 0.86)
        self.road = self.tone(street.asphalt, 0.72)

    def tone(self, rgb: Rgb, white: float) -> Rgb:
        """Return a colour as the weather shows it; ``white`` is the share that snow covers."""
        wet = 1.0 - 0.52 * self.weather.wet * (not self.weather.night)
        snowy = mix(scale(rgb, wet), (236, 239, 244), self.weather.snow * white)
        return self.canvas.light.shade(snowy, (0.0, 0.0, 0.44))

    def strip(self, x0: float, x1: float, a: float, b: float, rgb: Rgb, kind: tuple[int, int]) -> None:
        """Fill the strip between the distances ``a`` and ``b`` from the centre line; depth is found from its pixels."""
        xs = np.linspace(x0, x1, max(2, int((x1 - x0) / 5.0) + 1))
        left = [(x, self.street.centre(x) + a, 0.0) for x in xs]
        right = [(x, self.street.centre(x) + b, 0.0) for x in xs[::-1]]
        self.canvas.fill(left + right, rgb, (kind[0], 0, kind[1]))

    def block(self, x: float, y: float, half: float, reach: float, rgb: Rgb, kind: tuple[int, int]) -> None:
        """Fill the rectangle around (x, y)."""
        pts = [(x - half, y - reach, 0), (x + half, y - reach, 0), (x + half, y + reach, 0), (x - half, y + reach, 0)]
        self.canvas.fill(pts, rgb, (kind[0], 0, kind[1]))

    def paint(self) -> None:
        """Paint everything, from the ground below to the marks on the road."""
        street, x0, x1, kerb = self.street, self.x0, self.x1, self.street.style.road
        self.block(self.canvas.view.x, self.canvas.view.y, 900.0, 900.0, self.grass, LAWN)
        for side in (1, -1):
            self._beside_the_road(side)
        for c in self.crossings:
            self.block(c, street.centre(c), CROSS_HALF, 70, self.slab, PAVEMENT)
        self.strip(x0, x1, -kerb - 0.16, kerb + 0.16, self.tone((168, 166, 160), 0.8), PAVEMENT)
        self.strip(x0, x1, -kerb, kerb, self.road, DRIVEN)
        for c in self.crossings:
            self.block(c, street.centre(c), CROSS_HALF - 1.6, 70, self.road, DRIVEN)
        for side in (1, -1):
            self.strip(x0, x1, side * (kerb - 0.3), side * kerb, scale(self.road, 0.86), DRIVEN)
        self._repairs()
        if self.weather.snow:  # wheel tracks
            for off in (-1, 1):
                for track in (-0.75, 0.75):
                    a = abs(street.lane) * off + track
                    self.strip(x0, x1, a - 0.28, a + 0.28, self.tone((128, 130, 134), 0.15), DRIVEN)
        self._marks(self.tone((214, 214, 206), 0.55))

    def _beside_the_road(self, side: int) -> None:
        street, s, x0, x1 = self.street, self.street.style, self.x0, self.x1
        outer = street.front if s.setback < 1.5 else street.edge
        self.strip(x0, x1, side * s.road, side * (outer + 0.1), self.slab, PAVEMENT)
        if s.verge:
            self.strip(x0, x1, side * (s.road + 0.2), side * (s.road + s.verge), self.grass, LAWN)
        for lot, a, b in street.lots:
            if lot == side and b > x0 and a < x1 and s.setback < 1.5:
                self.strip(a, b, side * (street.edge + 0.2), side * (street.edge + 14), self.grass, LAWN)

    def _repairs(self) -> None:
        for k in range(int(self.x0 // 9), int(self.x1 // 9) + 1):
            r = keyed("patch", self.street.index, k)
            x, off, long, wide = k * 9 + r.uniform(0, 6), r.uniform(-2.4, 1.2), r.uniform(0.5, 5.0), r.uniform(0.5, 1.4)
            if r.random() < 0.6:
                self.strip(x, x + long, off, off + wide, scale(self.road, r.uniform(0.86, 1.06)), DRIVEN)

    def _marks(self, rgb: Rgb) -> None:
        """Paint the centre line, parking bays, zebra crossings and stop lines."""
        x0, x1, kerb, style = self.x0, self.x1, self.street.style.road, self.street.style

        def mark(a: float, b: float, left: float, right: float) -> None:
            self.strip(a, b, left, right, rgb, MARKED)

        def free(a: float, b: float) -> bool:
            return all(b < c - CROSS_HALF - 4.6 or a > c + CROSS_HALF + 4.6 for c in self.street.crossings)

        step = 6.0 if style.dashed else 9.0
        for x in (k * step for k in range(int(x0 // step), int(x1 // step) + 1)):
            if free(x, x + 2.6):
                mark(x, x + 2.6, -0.07, 0.07)
        for x in (k * 6.0 for k in range(int(x0 // 6), int(x1 // 6) + 1) if style.bays):
            for side in (1, -1):
                if free(x, x + 1):
                    mark(x, x + 0.12, side * (kerb - 1.9), side * kerb)
        for c in self.street.crossings:
            for s in (1, -1):
                a = c + s * (CROSS_HALF + 1.4)
                if not x0 - 5 < a < x1 + 5:
                    continue
                for i in range(int(2 * kerb / 0.9)):  # zebra
                    mark(a - 1.3, a + 1.3, -kerb + 0.25 + 0.9 * i, -kerb + 0.7 + 0.9 * i)
                own = (self.street.lane > 0) == (s < 0)
                mark(a + s * 2.2 - 0.17, a + s * 2.2 + 0.17, 0.1 if own else -kerb + 0.2, kerb - 0.2 if own else -0.1)
