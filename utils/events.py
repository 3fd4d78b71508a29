"""TensorBoard event files, where tensorboard is installed, and the pictures worth a look in them."""

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from datasets.naming import CLASS_NAMES
from datasets.transforms import read_image, scale_image
from models.resize import resize_to
from models.segvpr import SegVPR
from utils.embedding import EmbeddingOptions
from utils.logs import LOGGER

PHOTO_SHARE = 0.4
"""How much of the (grey) photo shines through the attention's heat."""

HEAT = np.array([(0, 0, 96), (0, 96, 255), (0, 224, 160), (255, 224, 0), (224, 0, 0)], np.float64)
"""Colours from the lowest attention to the highest, evenly spaced, RGB."""

# The colours in which street scenes are usually shown, in the order of CLASS_NAMES.
_CLASS_COLOURS = (
    *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153)),
    *((250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60)),
    *((255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 0, 230), (119, 11, 32)),
)


class EventWriter:
    """Writes event files into a folder; does nothing, after one line in the log, where tensorboard is not installed.

    Parameters
    ----------
    folder : None where another process writes.
    first_step : step at which the run starts or goes on; what an interrupted run wrote of later ones is hidden.
    """

    def __init__(self, folder: Path | None, first_step: int = 0) -> None:
        self._writer = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            LOGGER.info("tensorboard is not installed: no event files (pip install tensorboard, if you want them)")
            return
        except (TypeError, AttributeError) as error:  # its own packages do not go together
            LOGGER.warning("tensorboard cannot be used (%s): no event files", " ".join(str(error).split())[:200])
            return
        self._folder = folder
        with self._going_on_without():
            self._writer = SummaryWriter(str(folder), purge_step=first_step or None)

    @property
    def active(self) -> bool:
        """Whether anything is written: where not, pictures need not be made."""
        return self._writer is not None

    def scalars(self, step: int, figures: Mapping[str, float | None]) -> None:
        """One point on each figure's curve; None is left out."""
        if self._writer is not None:
            with self._going_on_without():
                for name, value in figures.items():
                    if value is not None:
                        self._writer.add_scalar(name, float(value), step)
                self._writer.flush()

    def images(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture, uint8 (H, W, 3), RGB."""
        if self._writer is not None:
            with self._going_on_without():
                self._writer.add_image(name, image, step, dataformats="HWC")
                self._writer.flush()

    def close(self) -> None:
        """Write what is left; calls after this one do nothing."""
        if self._writer is not None:
            with self._going_on_without():
                self._writer.close()
            self._writer = None

    @contextmanager
    def _going_on_without(self) -> Iterator[None]:
        """Events are an extra: where they cannot be written, a run goes on without them."""
        try:
            yield
        except OSError as error:
            LOGGER.warning("%s: cannot write TensorBoard events (%s); going on without", self._folder, error)
            self._writer = None


@torch.inference_mode()
def attention_pictures(
    model: SegVPR, paths: Sequence[str], scale: float, options: EmbeddingOptions
) -> list[tuple[str, np.ndarray]]:
    """Photo, attention and predicted classes side by side, for each of a few images.

    Parameters
    ----------
    scale : factor by which images are resized first.

    Returns
    -------
    Names, unlike each other and the same at every call, and pictures, uint8 (h, 3 w, 3) for an image of w x h px. Heat
    goes from each picture's lowest attention to its highest.
    """
    was_training = model.training
    model.eval()
    compute = options.compute
    colours = class_colours(model.config["num_classes"])
    pictures = []
    for index, path in enumerate(paths):
        image = scale_image(read_image(path), scale)
        batch = model.prepare(image[None])
        with compute.autocast():
            attention, logits = model.attend(batch), model.segment(batch)
        attention = resize_to(attention.float(), image.shape[-2:])[0, 0].cpu().numpy()
        photo = image.permute(1, 2, 0).numpy()
        classes = colours[logits[0].argmax(dim=0).cpu().numpy()]
        pictures.append(
            (f"{index}_{Path(path).stem}", np.concatenate([photo, heat(attention, photo), classes], axis=1))
        )
    model.train(was_training)
    return pictures


def heat(values: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Values (H, W) as colours over a photo uint8 (H, W, 3): uint8 (H, W, 3); equal values are all the lowest colour."""
    low, high = float(values.min()), float(values.max())
    unit = (values - low) / (high - low) if high > low else np.zeros_like(values)
    stops = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(unit, stops, HEAT[:, channel]) for channel in range(3)], axis=-1)
    grey = photo.mean(axis=-1, keepdims=True)
    return (PHOTO_SHARE * grey + (1 - PHOTO_SHARE) * colours).round().astype(np.uint8)


def class_colours(num_classes: int) -> np.ndarray:
    """A colour per class, uint8 (classes, 3): the usual ones for the 17 classes, else hues far from each other."""
    if num_classes == len(CLASS_NAMES):
        return np.array(_CLASS_COLOURS, np.uint8)
    golden = 0.618034  # successive multiples of it, modulo 1, keep apart
    hues = [colorsys.hsv_to_rgb(i * golden % 1, 0.75, 0.95 - 0.35 * (i % 2)) for i in range(num_classes)]
    return (255 * np.array(hues)).round().astype(np.uint8)
