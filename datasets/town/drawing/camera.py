"""From painted surfaces to a photo: haze, ground texture, wet mirrors, lamps, rain, snow and the sensor."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.town.chance import keyed
from datasets.town.drawing.canvas import AIR, DEPTH_STEPS, GLOW, GRASS, PAVED, SUPER, WET_ROAD, Canvas
from datasets.town.drawing.noise import noise_at
from datasets.town.world.styles import Optics, Weather


def develop(
    canvas: Canvas, halos: list, lamps, weather: Weather, optics: Optics, key: tuple
) -> tuple[Image.Image, np.ndarray]:
    """Turn a painted canvas into a photo.

    Parameters
    ----------
    halos, lamps : as :func:`datasets.town.drawing.scene.paint` returns them.
    key : what the random numbers depend on.

    Returns
    -------
    image : PIL.Image.Image
        RGB, size of the picture.
    label : numpy.ndarray
        Raw ids, uint8 [H, W].
    """
    rng = keyed(*key, "photo")
    colour, label, code, material = canvas.finish()
    x, y, ground, depth = _ground_points(canvas, material, code)
    _texture(colour, x, y, ground, material, weather)
    if weather.night:
        _night_ground(colour, x, y, ground, lamps, canvas)
    if weather.wet > 0.0:
        _mirror(colour, x, y, ground, material, weather, canvas)
    _haze(colour, depth, material, weather)
    if halos:
        _glow(colour, [g for g in halos if _unhidden(g, depth)], weather)
    if weather.rain > 0.0:
        _streaks(colour, weather, rng)
    if weather.flakes > 0.0:
        _flakes(colour, weather, rng)
    _tone(colour, weather.contrast, weather.saturation)
    return _sensor(colour, optics, weather, rng), label


@lru_cache(maxsize=4)
def _rays(width: int, height: int, focal: float) -> np.ndarray:
    """Return the camera-frame ray of every picture pixel, float32 [H, W, 3], forward part 1."""
    xs, ys = (((np.arange(n, dtype=np.float32) + 0.5) * SUPER - n * SUPER / 2) / focal for n in (width, height))
    return np.stack([*np.meshgrid(xs, ys), np.ones((height, width), np.float32)], -1)


def _ground_points(canvas: Canvas, material: np.ndarray, code: np.ndarray):
    """Return street x, y of the ground pixels [N], their mask [H, W] and the depth of all pixels [H, W]."""
    v = canvas.view
    rays = _rays(v.width // SUPER, v.height // SUPER, v.focal)
    ground = (material == WET_ROAD) | (material == PAVED) | (material == GRASS)
    world = rays[ground] @ canvas.axes.astype(np.float32)
    t = np.float32(v.z) / np.maximum(-world[:, 2], 0.003)
    depth = np.exp(code.astype(np.float32) / DEPTH_STEPS)
    depth[ground] = t
    return v.x + t * world[:, 0], v.y + t * world[:, 1], ground, depth


def _texture(colour, x, y, ground, material, weather: Weather) -> None:
    """Roughen the ground; fine grain fades where a pixel covers much of it."""
    far = np.hypot(x - x.mean(), y - y.mean()) if len(x) else x
    fine = 1.0 / (1.0 + (far / 14.0) ** 2)
    n = 0.055 * noise_at(64, x, y, 40.0) * fine + 0.05 * noise_at(6, x, y, 9.0)
    kind = material[ground]
    grass = kind == GRASS
    n[grass] += 0.10 * noise_at(24, x[grass], y[grass], 12.0)
    paved = (kind == PAVED) & (far < 22.0)
    if weather.snow:
        n *= 0.6
    else:
        px, py = x[paved] % 0.75, y[paved] % 0.75
        n[paved] -= 0.16 * ((px < 0.04) | (py < 0.04)) * fine[paved]
    colour[ground] *= (1.0 + n)[:, None]


def _night_ground(colour, x, y, ground, lamps, canvas: Canvas) -> None:
    """Light the ground by street lamps and by the own headlights."""
    v = canvas.view
    light = lamps.on_ground(x, y)[:, None] * np.array((1.0, 0.76, 0.48), np.float32)
    forward = (x - v.x) * math.cos(v.yaw) + (y - v.y) * math.sin(v.yaw)
    aside = np.abs((y - v.y) * math.cos(v.yaw) - (x - v.x) * math.sin(v.yaw))
    ahead = np.maximum(forward, 0)
    beam = np.exp(-((aside / (1.2 + 0.16 * ahead)) ** 2)) * np.clip(forward / 5.0, 0, 1) * np.exp(-ahead / 15.0)
    light = light + beam[:, None] * np.array((0.62, 0.60, 0.52), np.float32)
    albedo = colour[ground] / (255.0 * np.array(canvas.light.weather.ambient, np.float32)) * 255.0
    colour[ground] += albedo * light


def _mirror(colour, x, y, ground, material, weather: Weather, canvas: Canvas) -> None:
    """Reflect what stands above the horizon in wet ground, smeared upright as rough asphalt does."""
    h, w = ground.shape
    v = canvas.view
    horizon = h * 0.5 + math.tan(v.pitch) * v.focal / SUPER
    rows = np.arange(h)
    source = np.clip(2.0 * horizon - rows, 0, h - 1).astype(int)
    small = Image.fromarray(np.clip(colour[source], 0, 255).astype(np.uint8)).resize(
        (max(1, w // 3), max(1, h // 9)), Image.Resampling.BOX
    )
    image = np.asarray(small.resize((w, h), Image.Resampling.BILINEAR), np.float32)
    below = np.clip((rows - horizon) / (h - horizon), 0, 1)
    fresnel = (0.82 - 0.52 * below)[:, None] * np.ones((1, w))
    wet = weather.wet * np.where(material == WET_ROAD, 0.85, np.where(material == PAVED, 0.6, 0.12))
    puddle = 0.70 + 0.30 * np.clip(noise_at(6, x, y, 14.0) * 0.9, -1, 1)
    share = ((fresnel * wet)[ground] * puddle)[:, None].astype(np.float32)
    if weather.night:
        colour[ground] += image[ground] * share * 1.3
    else:
        sky = np.array(weather.sky_low, np.float32) * 255.0
        colour[ground] += (image[ground] * 0.88 + sky * 0.12 - colour[ground]) * share


def _haze(colour, depth, material, weather: Weather) -> None:
    share = 1.0 - np.exp(-np.maximum(depth - 4.0, 0.0) / weather.haze_reach)
    share[(material == AIR) | (depth > 480.0)] = 0.0
    share[material == GLOW] *= 0.4
    colour += (np.array(weather.haze, np.float32) * 255.0 - colour) * share[..., None].astype(np.float32)


@lru_cache(maxsize=1)
def _bloom() -> np.ndarray:
    g = np.linspace(-1, 1, 65, dtype=np.float32)
    r = np.hypot(g[:, None], g[None])
    return np.clip(1.0 - r, 0, 1) ** 2 * (0.25 + 0.75 * np.exp(-((r / 0.16) ** 2)) * 3.2)


def _glow(colour, halos, weather: Weather) -> None:
    """Add the halos of lamps, and their streaks in wet ground."""
    h, _w = colour.shape[:2]
    strength = 1.0 if weather.night else 0.42
    for x, y, r, rgb, _depth in halos:
        r = min(max(r * (1.5 if weather.rain else 1.0), 2.0), h * 0.45)
        _add(colour, x, y, r, r, np.array(rgb, np.float32) * 190.0 * strength)
    if weather.night and weather.wet:
        for x, _y, r, rgb, depth in halos[:40]:
            low = h * 0.52 + (h * 0.48) * min(1.0, 5.0 / depth)
            _add(colour, x, low, max(1.5, min(r * 0.35, 10)), h * 0.16, np.array(rgb, np.float32) * 30.0)


def _unhidden(halo, depth) -> bool:
    """Whether nothing drawn stands before a light; lights beyond the border count as visible."""
    h, w = depth.shape
    x, y = int(halo[0]), int(halo[1])
    return not (0 <= x < w and 0 <= y < h) or depth[y, x] > halo[4] * 0.9 - 2.6


def _add(colour, x: float, y: float, rx: float, ry: float, rgb) -> None:
    h, w = colour.shape[:2]
    x0, x1, y0, y1 = max(0, int(x - rx)), min(w, int(x + rx) + 1), max(0, int(y - ry)), min(h, int(y + ry) + 1)
    if x1 <= x0 or y1 <= y0:
        return
    ix = np.clip(((np.arange(x0, x1) + 0.5 - x) / rx * 32 + 32.5).astype(int), 0, 64)
    iy = np.clip(((np.arange(y0, y1) + 0.5 - y) / ry * 32 + 32.5).astype(int), 0, 64)
    colour[y0:y1, x0:x1] += _bloom()[iy[:, None], ix[None]][..., None] * rgb


def _streaks(colour, weather: Weather, rng: np.random.Generator) -> None:
    """Draw falling rain, and a few drops on the lens."""
    h, w = colour.shape[:2]
    layer = Image.new("L", (w, h), 0)
    pen, lean = ImageDraw.Draw(layer), rng.uniform(-0.22, 0.22)
    n = int(260 * weather.rain * w * h / (384 * 216))
    size = h * rng.uniform(0.03, 0.16, n)
    px, py, tone = rng.uniform(-10, w + 10, n), rng.uniform(-20, h, n), rng.integers(18, 64, n)
    for x, y, s, t in zip(px.tolist(), py.tolist(), size.tolist(), tone.tolist()):
        pen.line((x, y, x + lean * s, y + s), fill=t)
    fall = np.asarray(layer, np.float32)[..., None] / 255.0
    colour += (np.array((206, 210, 214), np.float32) - colour) * fall
    for _ in range(int(rng.poisson(3.0 * weather.rain))):
        r = h * rng.uniform(0.012, 0.04)
        x, y = rng.uniform(r, w - r), rng.uniform(r, h - r)
        x0, x1, y0, y1 = int(x - r), int(x + r) + 1, int(y - r), int(y + r) + 1
        x0, y0 = max(x0, 0), max(y0, 0)
        patch = colour[y0:y1, x0:x1]
        if patch.size:
            gy, gx = np.mgrid[y0 : min(y1, h), x0 : min(x1, w)]
            inside = np.clip(1.4 - np.hypot(gx - x, gy - y) / r, 0, 1)[..., None]
            patch += (patch[::-1, ::-1] * 0.5 + patch.mean((0, 1)) * 0.5 + 8 - patch) * inside * 0.8


def _flakes(colour, weather: Weather, rng: np.random.Generator) -> None:
    h, w = colour.shape[:2]
    big = 2
    layer = Image.new("L", (w * big, h * big), 0)
    pen = ImageDraw.Draw(layer)
    for _ in range(int(190 * weather.flakes * w * h / (384 * 216))):
        x, y, r = rng.uniform(0, w * big), rng.uniform(0, h * big), h / 216 * (0.7 + 2.6 * rng.random() ** 5)
        pen.ellipse((x - r, y - r * 1.25, x + r, y + r * 1.25), fill=int(rng.integers(120, 220)))
    fall = np.asarray(layer.reduce(big).filter(ImageFilter.GaussianBlur(0.4)), np.float32)[..., None] / 255.0
    colour += (np.array((246, 248, 250), np.float32) - colour) * fall


def _tone(colour, contrast: float, saturation: float) -> None:
    """Change contrast about middle grey and saturation about the luminance, in place."""
    if saturation != 1.0:
        grey = colour @ np.array((0.299, 0.587, 0.114), np.float32)
        colour += (grey[..., None] - colour) * (1.0 - saturation)
    if contrast != 1.0:
        colour += (colour - 122.0) * (contrast - 1.0)


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    return keyed("grain").normal(size=(1 << 20)).astype(np.float32)


def _sensor(colour, optics: Optics, weather: Weather, rng: np.random.Generator) -> Image.Image:
    """Apply lens and sensor of the camera and return the 8-bit picture."""
    h, w = colour.shape[:2]
    _tone(colour, 1.0, optics.saturation)
    colour *= np.array(optics.gain, np.float32) * (1.0 + rng.normal(0.0, 0.025))
    if optics.vignette:
        r2 = ((np.arange(w) - w / 2) / (w / 2))[None] ** 2 + ((np.arange(h) - h / 2) / (w / 2))[:, None] ** 2
        colour *= (1.0 - optics.vignette * r2 * 0.75).astype(np.float32)[..., None]
    np.clip(colour, 0, 255, out=colour)
    if optics.gamma != 1.0:
        colour = 255.0 * (colour / 255.0) ** np.float32(1.0 / optics.gamma**2 if weather.night else optics.gamma)
    if optics.blur:
        soft = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(optics.blur * w / 384)
        )
        colour = np.asarray(soft, np.float32)
    level = optics.noise * (1.35 if weather.night else 1.0) * 255.0
    grain, start = _grain(), int(rng.integers(1 << 19))
    luma = np.take(grain, np.arange(start, start + h * w), mode="wrap").reshape(h, w, 1)
    chroma = np.take(grain, np.arange(start + 77777, start + 77777 + h * w * 3), mode="wrap").reshape(h, w, 3)
    colour = colour + level * (0.8 * luma + 0.6 * chroma)
    return Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))
