"""The input pipeline: 8-bit images on disk -> tensors in network input space (protocol, section 3)."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from datasets.naming import RAW_IDS, RAW_TO_CLASS

# Subtracted from B, G and R in this order, on a scale of 0..255: odd, but released checkpoints need exactly this.
CHANNEL_MEANS = (0.485, 0.456, 0.406)
CROP = 0.8


def read_image(path: str) -> Tensor:
    """Decode an image as RGB, uint8 (3, H, W); EXIF rotation applied, other modes converted.

    ValueError, naming the file, where it cannot be decoded.
    """
    return torch.from_numpy(np.ascontiguousarray(_decode(path).transpose(2, 0, 1)))


def _decode(path: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image = ImageOps.exif_transpose(image)
                if image.mode.startswith("I;16") or image.mode == "I":
                    image = Image.fromarray((np.asarray(image, np.uint32) >> 8).clip(0, 255).astype(np.uint8))
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # a damaged file can raise almost anything, struct.error among others
        raise ValueError(f"{path}: cannot decode this image ({_reason(error)}); {REMEDY}") from error


REMEDY = "replace or remove it"


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # the rest of its message would name the file twice
    return " ".join(str(error).split())[:150]


def image_size(path: str) -> tuple[int, int]:
    """Width and height in pixels as `read_image` gives them, from the header alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception as error:
        raise ValueError(f"{path}: cannot decode this image ({_reason(error)}); {REMEDY}") from error
    return (height, width) if turned else (width, height)


def common_size(paths: Sequence[str], threads: int = 8) -> tuple[int, int]:
    """The width and height that all images share, from their headers; ValueError names two files that differ."""
    with ThreadPoolExecutor(threads) as pool:
        sizes = list(pool.map(image_size, paths))
    for path, size in zip(paths, sizes):
        if size != sizes[0]:
            raise ValueError(two_sizes(paths[0], sizes[0], path, size))
    return sizes[0]


def two_sizes(first: str, first_size: tuple[int, int], second: str, second_size: tuple[int, int]) -> str:
    """What is wrong where two images of one data set differ in (width, height)."""
    (w1, h1), (w2, h2) = first_size, second_size
    sizes = f"{second} is {w2}x{h2} px but {first} is {w1}x{h1} px"
    return f"{sizes}: training needs one size per data set; resize or remove the odd one"


def read_label(path: str) -> Tensor:
    """Read a label: the red channel's raw ids -> classes 0..16 or 255, uint8 (H, W); ValueError names an odd file."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise ValueError(f"its mode is {image.mode}; raw ids are wanted in the red channel of an RGBA PNG")
            raw = np.asarray(image)[..., 0]
    except Exception as error:
        raise ValueError(f"{path}: cannot use this label ({_reason(error)}); {REMEDY}") from error
    if raw.max() >= RAW_IDS:
        raise ValueError(
            f"{path}: cannot use this label (raw id {raw.max()} in its red channel; ids are 0 to {RAW_IDS - 1}); {REMEDY}"
        )
    return torch.from_numpy(RAW_TO_CLASS[raw])


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize without antialias, rounded to 8 bits: uint8 (3, H, W) -> (3, *size), size = (height, width)."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    if tuple(image.shape[-2:]) == (2 * size[0], 2 * size[1]):
        # at one half, bilinear is the mean of 2x2 pixels: whole-number arithmetic is exact, and faster
        pairs = image.to(torch.int16)
        rows = pairs[:, ::2] + pairs[:, 1::2]
        return ((rows[..., ::2] + rows[..., 1::2] + 2) >> 2).to(torch.uint8)
    top, bottom, down = _neighbours(image.shape[-2], size[0])
    left, right, along = _neighbours(image.shape[-1], size[1])
    # NumPy, since torch's interpolation rounds by the number of its threads, which differs between workers and main process
    pixels = image.numpy()
    rows = pixels[:, top] * (1 - down)[:, None] + pixels[:, bottom] * down[:, None]
    return torch.from_numpy(np.rint(rows[..., left] * (1 - along) + rows[..., right] * along).astype(np.uint8))


def _neighbours(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `wanted` pixels along an axis, the two pixels between which its centre lies, and the second's share."""
    centre = ((np.arange(wanted) + 0.5) * (length / wanted) - 0.5).clip(0, length - 1)
    first = np.floor(centre).astype(np.int64)
    return first, np.minimum(first + 1, length - 1), (centre - first).astype(np.float32)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width after scaling, rounded to whole pixels, at least 1."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def scale_image(image: Tensor, scale: float) -> Tensor:
    """uint8 (3, H, W) scaled by `scale`."""
    return resize_image(image, scaled_size(*image.shape[-2:], scale))


def scale_label(label: Tensor, scale: float) -> Tensor:
    """uint8 (H, W) scaled by `scale`, nearest; at one half the top-left pixel of each 2x2 is kept."""
    size = scaled_size(*label.shape, scale)
    return F.interpolate(label[None, None], size=size, mode="nearest")[0, 0]


def to_network_input(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """RGB uint8 (..., 3, H, W), 0..255 -> network input space: BGR order, minus `CHANNEL_MEANS`, no other scaling."""
    means = torch.tensor(CHANNEL_MEANS, dtype=dtype, device=images.device).view(3, 1, 1)
    return images.flip(-3).to(dtype) - means


def crop_and_flip(rng: np.random.Generator, height: int, width: int) -> tuple[slice, slice, bool]:
    """One triplet's augmentation: rows and columns of a crop to 80% of each side (floored), and whether to flip."""
    h, w = int(height * CROP), int(width * CROP)
    top, left = int(rng.integers(0, max(1, height - h))), int(rng.integers(0, max(1, width - w)))
    return slice(top, top + h), slice(left, left + w), bool(rng.random() < 0.5)
