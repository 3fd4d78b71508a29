"""The input pipeline: 8-bit images on disk -> 8-bit tensors (protocol, section 3); the network does the rest."""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from datasets.jobs import run_jobs
from datasets.naming import RAW_IDS, RAW_TO_CLASS, label_path
from datasets.sizes import CROP, LongerSide, Scale, scaled_size

ORIENTATION = 0x0112
"""The EXIF tag that says how to turn an image; 1 if it stands upright."""


def read_image(path: str) -> Tensor:
    """Decode an image as RGB, uint8 (3, H, W), channels last in memory; EXIF rotation applied, other modes converted.

    ValueError, naming the file, if it cannot be decoded.
    """
    with _undecodable_named(path):
        data = np.fromfile(path, np.uint8)
        with _opened(data) as image:
            if _is_plain_jpeg(image):
                with suppress(RuntimeError):  # Pillow may still decode it, or says what is wrong
                    # the pixels of Pillow, without its copies
                    return decode_jpeg(torch.from_numpy(data), ImageReadMode.RGB)
            return _pixels(image)


def rgb_image(image: str | os.PathLike | Image.Image | np.ndarray) -> Tensor:
    """A file, a Pillow image or an RGB array (H, W, 3) of type uint8, as `read_image` gives it; ValueError for all else."""
    if isinstance(image, Image.Image):
        return _pixels(image.copy())
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"an image is RGB, uint8 (height, width, 3); this is {image.dtype} {image.shape}")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if not isinstance(image, str | os.PathLike):
        raise ValueError(f"an image is a path, a Pillow image or an RGB array, not a {type(image).__name__}")
    return read_image(os.fspath(image))


def read_encoded(path: str) -> Tensor:
    """A JPEG file as it is, uint8 (bytes,), for `decode_images`; the image of `read_image` for any other file."""
    with _undecodable_named(path):
        data = np.fromfile(path, np.uint8)
        with _opened(data) as image:
            # Pillow notices a file that was cut short, a GPU's decoder may not
            if _is_plain_jpeg(image) and bytes(data[-2:]) == b"\xff\xd9":
                return torch.from_numpy(data)
            return _pixels(image)


def decode_images(files: Sequence[Tensor], paths: Sequence[str], device: torch.device) -> list[Tensor]:
    """What `read_encoded` gave, decoded on a device: uint8 (3, H, W) each.

    The decoder of a GPU may differ from that of the CPU by a few grey levels. `read_image` reads the files that it
    refuses; ValueError names one that cannot be decoded at all.
    """
    encoded = [i for i, file in enumerate(files) if file.ndim == 1]
    try:
        decoded = decode_jpeg([files[i] for i in encoded], ImageReadMode.RGB, device=device) if encoded else []
    except RuntimeError:  # does not say which: one by one
        decoded = [_decode_or_read(files[i], paths[i], device) for i in encoded]
    found = dict(zip(encoded, decoded))
    return [found[i] if i in found else file.to(device) for i, file in enumerate(files)]


def _decode_or_read(file: Tensor, path: str, device: torch.device) -> Tensor:
    try:
        return decode_jpeg(file, ImageReadMode.RGB, device=device)
    except RuntimeError:
        return read_image(path).to(device)


def why_no_decoder(device: torch.device) -> str:
    """Why torchvision cannot decode JPEGs on a device, found by a trial; "" if it can."""
    try:
        decode_jpeg(encode_jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8)), ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        return _reason(error)
    return ""


@contextmanager
def _undecodable_named(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged file can raise almost anything, struct.error among others
        raise ValueError(f"{path}: cannot decode this image ({_reason(error)}); {REMEDY}") from error


REMEDY = "replace or remove it"


@contextmanager
def _opened(file: np.ndarray | str) -> Iterator[Image.Image]:
    """An image of which only the header was read, from bytes or a path; Pillow refuses decompression bombs here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file if isinstance(file, str) else io.BytesIO(file)) as image:
            yield image


def _is_plain_jpeg(image: Image.Image) -> bool:
    """Whether an opened image is an upright JPEG of three channels."""
    return image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(ORIENTATION, 1) == 1


def _pixels(image: Image.Image) -> Tensor:
    """Any image as Pillow decodes it, upright and as RGB."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image, np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB"))).permute(2, 0, 1)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # the rest of its message would name the file twice
    return " ".join(str(error).split())[:150]


def size_of(image: Tensor) -> tuple[int, int]:
    """Width and height in pixels of an image or label (..., H, W)."""
    return image.shape[-1], image.shape[-2]


def image_size(path: str) -> tuple[int, int]:
    """Width and height in pixels as `read_image` gives them, from the header alone."""
    with _undecodable_named(path), _opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # newer Pillow has turned these already
            width, height = image.tag_v2[256], image.tag_v2[257]
        turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def common_size(paths: Sequence[str], threads: int = 8) -> tuple[int, int]:
    """The width and height that all images share, from their headers; ValueError names two files that differ."""
    sizes = list(run_jobs(image_size, paths, threads, processes=False))
    for path, size in zip(paths, sizes):
        if size != sizes[0]:
            raise ValueError(two_sizes(paths[0], sizes[0], path, size))
    return sizes[0]


def two_sizes(first: str, first_size: tuple[int, int], second: str, second_size: tuple[int, int]) -> str:
    """What is wrong with two images of one data set that differ in (width, height)."""
    (w1, h1), (w2, h2) = first_size, second_size
    sizes = f"{second} is {w2}x{h2} px but {first} is {w1}x{h1} px"
    return f"{sizes}: training needs one size per data set; resize or remove the odd one"


def read_label(path: str) -> Tensor:
    """Read a label: raw ids in the red channel -> classes 0..16 or 255, uint8 (H, W); ValueError names an odd file."""
    try:
        with Image.open(path) as image:
            _check_keeps_ids(image)
            raw = image.getchannel(0)
    except Exception as error:
        raise ValueError(f"{path}: cannot use this label ({_reason(error)}); {REMEDY}") from error
    largest = raw.getextrema()[1]
    if largest >= RAW_IDS:
        raise ValueError(
            f"{path}: cannot use this label (raw id {largest} in its red channel; ids are 0 to {RAW_IDS - 1}); {REMEDY}"
        )
    return torch.from_numpy(np.array(raw.point(RAW_TO_CLASS.tolist())))


def read_label_of(image: str, size: tuple[int, int] | None) -> Tensor:
    """The label of an image, as `read_label` gives it.

    Parameters
    ----------
    image : path of the image.
    size : width and height of the image, None if it is not known.

    FileNotFoundError without a label; ValueError, naming it, if it cannot be used or has another size.
    """
    file = label_path(image)
    label = read_label(file)
    height, width = label.shape
    if size not in (None, (width, height)):
        raise ValueError(f"{file}: {width}x{height} px, but its image is {size[0]}x{size[1]} px; {REMEDY}")
    return label


def _check_keeps_ids(image: Image.Image) -> None:
    """ValueError if an opened label cannot hold ids as they were written."""
    wanted = "raw ids are wanted in the red channel of an RGBA PNG"
    if image.format != "PNG":
        raise ValueError(f"its content is {image.format}, which may change ids; {wanted}, made anew from the ids")
    if image.mode not in ("RGB", "RGBA"):
        raise ValueError(f"its mode is {image.mode}; {wanted}")
    if "16" in str(image.tile[0].args):  # Pillow would keep the upper 8 bits
        raise ValueError(f"it has 16 bits per channel; {wanted} of 8 bits")


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize without antialias, to 8 bits: uint8 (3, H, W) -> (3, *size), size = (height, width).

    The result is exact at one half, and within a grey level of exact elsewhere. A CPU computes in whole numbers: the result
    does not depend on the number of threads, so workers and main process agree to the bit.
    """
    height, width = size
    if tuple(image.shape[-2:]) == (height, width):
        return image
    if tuple(image.shape[-2:]) == (2 * height, 2 * width):
        return _halve(image)
    if image.device.type != "cpu":  # only a CPU interpolates 8 bits
        return F.interpolate(image[None].float(), size=(height, width), mode="bilinear")[0].round().to(torch.uint8)
    image = image[None].contiguous(memory_format=torch.channels_last)  # ten times as fast as the other layout
    return F.interpolate(image, size=(height, width), mode="bilinear")[0]


def _halve(image: Tensor) -> Tensor:
    """The mean of each 2x2 pixels, rounded half up: what bilinear is at one half. uint8 (3, 2h, 2w) -> (3, h, w)."""
    pixels = image.to(torch.int16)
    rows = pixels[:, ::2] + pixels[:, 1::2]
    return ((rows[..., ::2] + rows[..., 1::2] + 2) >> 2).to(torch.uint8)


def scale_image(image: Tensor, scale: Scale) -> Tensor:
    """uint8 (3, H, W) scaled by a factor without antialias, as the protocol has it, or to a longer side with it, since
    photos may be many times larger."""
    size = scaled_size(*image.shape[-2:], scale)
    if not isinstance(scale, LongerSide) or tuple(image.shape[-2:]) == size:
        return resize_image(image, size)
    batch = image[None].contiguous(memory_format=torch.channels_last)
    if image.device.type == "cpu":
        return F.interpolate(batch, size=size, mode="bilinear", antialias=True)[0]
    return F.interpolate(batch.float(), size=size, mode="bilinear", antialias=True)[0].round().to(torch.uint8)


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Images (3, H, W) of one size -> (B, 3, H, W), channels last in memory; in a loader worker, memory that it shares."""
    return default_collate([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def crop_and_flip(rng: np.random.Generator, height: int, width: int) -> tuple[slice, slice, bool]:
    """One triplet's augmentation: rows and columns of a crop to 80% of each side (floored), and whether to flip."""
    h, w = int(height * CROP), int(width * CROP)
    top, left = int(rng.integers(0, max(1, height - h))), int(rng.integers(0, max(1, width - w)))
    return slice(top, top + h), slice(left, left + w), bool(rng.random() < 0.5)
