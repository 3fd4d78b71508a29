"""TensorBoard event files, where tensorboard is installed, and the pictures worth a look in them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from datasets.naming import class_colours
from models.segvpr import SegVPR
from utils.report.attention import attention_span, look_at, overlay
from utils.retrieval.embedding import EmbeddingOptions
from utils.system.logs import LOGGER


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


def attention_pictures(
    model: SegVPR, paths: Sequence[str], scale: float, options: EmbeddingOptions
) -> list[tuple[str, np.ndarray]]:
    """Photo, attention and predicted classes side by side, for each of a few images; one that cannot be read is left out.

    Parameters
    ----------
    scale : factor by which images are resized first.

    Returns
    -------
    Names, unlike each other and the same at every call, and pictures, uint8 (h, 3 w, 3) for an image of w x h px. Attention
    is drawn as in the report, on one scale for all images of the call.
    """
    looks = {f"{i}_{Path(path).stem}": look_at(model, path, scale, options) for i, path in enumerate(paths)}
    looks = {name: look for name, look in looks.items() if look is not None}
    span = attention_span(list(looks.values()))
    colours = class_colours(model.config.num_classes)
    return [
        (name, np.concatenate([look.photo, np.asarray(overlay(look, span)), colours[look.classes]], axis=1))
        for name, look in looks.items()
    ]
