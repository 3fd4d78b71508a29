"""mIoU on labelled images of the validation gallery."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datasets.naming import class_names, label_folder, label_path
from datasets.reading.batches import ImageBatches
from datasets.reading.transforms import image_size
from models.config import MIN_SIDE
from models.segvpr import SegVPR, evaluating
from utils.evaluation.metrics import ConfusionMatrix
from utils.evaluation.recall import EvaluationSet
from utils.retrieval.embedding import EmbeddingOptions, iterate_batches
from utils.retrieval.screening import Screening
from utils.system.distributed import share
from utils.system.logs import LOGGER
from utils.system.seeding import generator

SEGMENTATION_IMAGES = 500
PIXELS_PER_BATCH = 4_000_000
"""Most pixels of a batch, so that the logits of full-size images fit in memory."""


def labelled_images(sets: Sequence[EvaluationSet], seed: int, screening: Screening) -> tuple[str, ...]:
    """The validation gallery's images on which mIoU is measured, drawn once per run; none without a validation set.

    Raises
    ------
    FileNotFoundError : an image has no label. It is found now, not after an epoch.
    """
    if not sets or sets[0].name != "val":
        return ()
    labelled = [path for path in sets[0].gallery.paths if label_folder(str(Path(path).parent))]
    if len(labelled) > SEGMENTATION_IMAGES:
        drawn = generator(seed, "semantic validation").choice(len(labelled), SEGMENTATION_IMAGES, replace=False)
        labelled = [labelled[i] for i in np.sort(drawn)]
    usable = screening.usable_paths(labelled, MIN_SIDE, with_labels=True)
    for path in usable:
        label_path(path)
    if not usable:
        LOGGER.info("the validation gallery has no labels: mIoU is skipped")
    elif len(usable) < SEGMENTATION_IMAGES:
        LOGGER.info("mIoU is measured on %d images instead of %d: there are no more", len(usable), SEGMENTATION_IMAGES)
    return usable


@torch.inference_mode()
def evaluate_segmentation(model: SegVPR, paths: Sequence[str], options: EmbeddingOptions) -> ConfusionMatrix:
    """Confusion matrix of unweighted predictions on labelled images at full size; several processes share the images."""
    width, height = image_size(paths[0])
    batch_size = max(1, min(options.batch_size, PIXELS_PER_BATCH // (width * height)))
    confusion = ConfusionMatrix(model.config.num_classes)
    own = share(len(paths), batch_size)
    dataset = ImageBatches(paths[own.start : own.stop], with_labels=True)
    device = options.compute.device
    with evaluating(model):
        for batch in iterate_batches(dataset, batch_size, options.num_workers, "segmentation", device):
            with options.compute.autocast():
                predictions = model.segment(model.prepare(batch.images)).argmax(dim=1)
            confusion.update(predictions, batch.labels.to(predictions.device))
    confusion.sum_over_processes()
    return confusion


def log_segmentation(confusion: ConfusionMatrix) -> None:
    """Log the IoU of every class."""
    iou = confusion.class_iou()
    shown = (f"{name} {'-' if np.isnan(v) else f'{100 * v:.1f}'}" for name, v in zip(class_names(len(iou)), iou))
    LOGGER.info("IoU per class in percent: %s", ", ".join(shown))
