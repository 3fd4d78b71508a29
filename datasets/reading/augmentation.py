"""Photometric augmentation: the same street in other light, weather and cameras, drawn on 8-bit pictures.

Every draw comes from the generator that the caller gives, so the same generator gives the same picture.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from datasets.reading.augmentation_settings import AugmentationSettings
from datasets.reading.transforms import resize_image


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _factor(rng: np.random.Generator, range_: float, strength: float) -> float:
    """A factor around 1, as often below as above: 2 to the power of -range .. range."""
    return 2.0 ** _between(rng, -range_ * strength, range_ * strength)


def colour(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Other brightness, contrast, saturation and hue, in random order."""
    changes: list[Callable[[Tensor], Tensor]] = [
        partial(TF.adjust_brightness, brightness_factor=_factor(rng, 0.9, strength)),
        partial(TF.adjust_contrast, contrast_factor=_factor(rng, 0.9, strength)),
        partial(TF.adjust_saturation, saturation_factor=_factor(rng, 1.0, strength)),
        partial(TF.adjust_hue, hue_factor=_between(rng, -0.08, 0.08) * strength),
    ]
    for i in rng.permutation(len(changes)):
        image = changes[i](image)
    return image


def grey(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """No colour."""
    return TF.rgb_to_grayscale(image, num_output_channels=3)


def equalize(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """A flat histogram in each channel."""
    return TF.equalize(image)


def blur(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """A Gaussian of 0.4 to 1.5% of the height, times `strength`."""
    sigma = max(0.1, _between(rng, 0.004, 0.015) * strength * image.shape[-2])
    return TF.gaussian_blur(image, [2 * int(np.ceil(2 * sigma)) + 1] * 2, [sigma, sigma])


def noise(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Normal noise of 3 to 30 grey levels, times `strength`; the same in all channels now and then."""
    sigma = _between(rng, 3, 30) * strength
    channels = 1 if rng.random() < 0.3 else image.shape[-3]
    drawn = rng.standard_normal((channels, *image.shape[-2:]), dtype=np.float32)
    return _to_8_bit(image + sigma * torch.from_numpy(drawn))


def jpeg(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """JPEG of a quality from 60 down to 10 (at strength 1)."""
    quality = int(np.clip(60 - rng.uniform(0, 50) * strength, 5, 95))
    return TF.jpeg(image, quality)


def night(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """A simulated night: dark sky, little and coloured light, lamps with halos, headlights, a sensor with gain and noise."""
    x = image.to(torch.float32) / 255
    height, width = x.shape[-2:]
    rows, columns = _grid(height, width)
    x = x * (1 - _sky(x, rows) * _between(rng, 0.75, 1.0))
    x = x ** _between(rng, 1.0, 1.0 + 0.5 * strength)
    light = torch.full((1, height, width), _between(rng, 0.06, 0.45) ** (0.5 + 0.5 * strength))
    glow = torch.zeros(3, height, width)
    for _ in range(int(rng.integers(0, 7))):
        lamp, colour_ = _lamp(rng, rows, columns)
        glow += colour_ * (lamp**4 * _between(rng, 0.5, 1.5))
        light = light + lamp * _between(rng, 0.2, 0.8) * colour_
    if rng.random() < 0.5:  # headlights
        aside = (columns - 0.5) * width / height
        light = light + _between(rng, 0.2, 0.8) * torch.exp(-((aside / 0.5) ** 2) - ((rows - 0.85) / 0.22) ** 2)
    tint = torch.tensor([_between(rng, 0.9, 1.2), 1.0, _between(rng, 0.55, 1.15)]).view(3, 1, 1)
    city = torch.tensor([0.05, 0.045, 0.05]).view(3, 1, 1) * _between(rng, 0, 1)
    x = x * light * tint + city
    wanted = _between(rng, 0.05, 0.25)  # automatic exposure: of the street, not of its lamps
    x = x * float((wanted / x.mean().clamp(min=1e-3)).clamp(0.5, 6)) + glow
    sigma = _between(rng, 0.005, 0.05) * strength
    x = x + sigma * torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32))
    return _to_8_bit(255 * x)


def fog(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Light grey air, thickest at the horizon, thin at the lower edge."""
    rows, _ = _grid(*image.shape[-2:])
    near = ((rows - 0.5) / 0.5).clamp(0, 1)
    share = min(0.95, _between(rng, 0.3, 0.85) * strength) * (1 - near * _between(rng, 0.4, 0.9))
    air = torch.tensor([_between(rng, 150, 225)] * 3).view(3, 1, 1)
    return _to_8_bit(image + (air - image) * share)


FAMILIES: dict[str, tuple[Callable[[Tensor, np.random.Generator, float], Tensor], float]] = {
    "fog": (fog, 0.12),
    "colour": (colour, 0.8),
    "equalize": (equalize, 0.1),
    "night": (night, 0.35),
    "grey": (grey, 0.15),
    "blur": (blur, 0.25),
    "noise": (noise, 0.25),
    "jpeg": (jpeg, 0.25),
}
"""Name -> function and chance that an image gets it, in the order in which they act: the street, its light, the camera."""


def alter(image: Tensor, rng: np.random.Generator, settings: AugmentationSettings) -> Tensor:
    """Draw a photometric change of one image.

    Parameters
    ----------
    image : RGB uint8 (3, H, W).
    rng : where every draw comes from.

    Returns
    -------
    A new image of the same shape and type; `image` itself where no family was drawn.
    """
    for name, (change, chance) in FAMILIES.items():
        if name in settings.families and rng.random() < chance:
            image = change(image, rng, settings.strength)
    return image


def augment(
    image: Tensor, label: Tensor | None, rng: np.random.Generator, settings: AugmentationSettings
) -> tuple[Tensor, Tensor | None]:
    """Zoom into an image and its label alike, then change the image's light: uint8 (3, H, W) and (H, W) or None."""
    if settings.zoom < 1:
        size = tuple(image.shape[-2:])
        rows, columns = zoom_window(rng, *size, settings.zoom)
        image = resize_image(image[..., rows, columns], size)
        if label is not None:
            label = F.interpolate(label[rows, columns][None, None], size=size, mode="nearest-exact")[0, 0]
    return alter(image, rng, settings), label


def zoom_window(rng: np.random.Generator, height: int, width: int, smallest: float) -> tuple[slice, slice]:
    """Rows and columns of a random window with the picture's shape, its sides `smallest` to 1 of the picture's."""
    share = _between(rng, smallest, 1)
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    return slice(top, top + h), slice(left, left + w)


def _to_8_bit(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel's centre as a share of the side, float32 (1, H, 1) and (1, 1, W)."""
    rows = ((torch.arange(height, dtype=torch.float32) + 0.5) / height).view(1, height, 1)
    return rows, ((torch.arange(width, dtype=torch.float32) + 0.5) / width).view(1, 1, width)


def _sky(x: Tensor, rows: Tensor) -> Tensor:
    """How much each pixel looks like sky, 0 to 1, (1, H, W): bright, not warm, high up in the picture."""
    brightness = x.mean(0, keepdim=True)
    bright = torch.sigmoid((brightness - 0.55) * 14)
    cool = torch.sigmoid((x[2:3] - x[0:1] + 0.06) * 40)
    return bright * cool * ((0.62 - rows) / 0.15).clamp(0, 1)


def _lamp(rng: np.random.Generator, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """A lamp's light, 1 at its middle, (1, H, W), and its colour (3, 1, 1)."""
    row, column, radius = _between(rng, 0.05, 0.65), _between(rng, 0, 1), _between(rng, 0.02, 0.12)
    aspect = columns.shape[-1] / rows.shape[-2]
    squared = (rows - row) ** 2 + ((columns - column) * aspect) ** 2
    warm = _between(rng, 0, 1)
    return 1 / (1 + squared / radius**2), torch.tensor([1.0, 0.95 - 0.25 * warm, 0.9 - 0.55 * warm]).view(3, 1, 1)
