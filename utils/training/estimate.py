"""How long a training run takes on a CPU: a real step and a batch to embed are timed before it starts."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from datasets.mining import random_triplets
from datasets.reading.transforms import image_size
from models.segvpr import SegVPR
from utils.evaluation.recall import EvaluationSet
from utils.retrieval.embedding import EmbeddingOptions, embed_images
from utils.system.distributed import world_size
from utils.system.loaders import read_ahead
from utils.system.logs import LOGGER
from utils.training.data import TrainingData, step_plans, training_batches
from utils.training.optimizers import build_optimizers
from utils.training.settings import TrainingSettings
from utils.training.step import train_step


def log_estimate(
    model: SegVPR,
    data: TrainingData,
    settings: TrainingSettings,
    sets: Sequence[EvaluationSet],
    labelled: Sequence[str],
    options: EmbeddingOptions,
    epochs_done: int = 0,
) -> None:
    """Say how long the remaining epochs take, where one process trains on a CPU; the model stays as it is."""
    epochs, compute = settings.n_epochs - epochs_done, options.compute
    if epochs < 1 or compute.device.type != "cpu" or compute.compiled or world_size() > 1:
        return
    steps, mined, evaluated = work_per_epoch(data, settings, sets, labelled)
    step_s, pixel_s = measure(model, data, settings, options)
    parts = steps * step_s, mined * pixel_s, evaluated * pixel_s
    LOGGER.info(
        "estimated length on this CPU: %s for %d epochs (an epoch: %d steps of %.2g s, %s; mining %s; evaluation %s)",
        *(duration(epochs * sum(parts) + parts[-1]), epochs, steps, step_s, *map(duration, parts)),
    )


def work_per_epoch(
    data: TrainingData, settings: TrainingSettings, sets: Sequence[EvaluationSet], labelled: Sequence[str]
) -> tuple[int, float, float]:
    """Steps of an epoch, and pixels that it embeds for mining and for evaluation.

    All images of a list count as its first one does, and segmenting an image as embedding it.
    """
    queries, mined = settings.queries_per_refresh(len(data.queries)), 0
    if settings.mining != "random":
        part = settings.cache_negatives if settings.mining == "partial" else len(data.gallery)
        mined = queries + min(part, len(data.gallery))
    embedded = {(images.paths, s.scale) for s in sets for images in (s.gallery, s.queries)}
    return (
        settings.refreshes_per_epoch * -(-queries // settings.batch_size),
        settings.refreshes_per_epoch * mined * _pixels(data.gallery.paths[0], data.scale),
        sum(len(paths) * _pixels(paths[0], scale) for paths, scale in [*embedded, (labelled, 1.0)] if paths),
    )


def _pixels(path: str, scale: float) -> float:
    return float(np.prod(image_size(path)) * scale**2)


def measure(
    model: SegVPR, data: TrainingData, settings: TrainingSettings, options: EmbeddingOptions
) -> tuple[float, float]:
    """Seconds of an optimisation step, made by a copy of the model, and of embedding a pixel; reading files included."""
    twin = copy.deepcopy(model).train()
    optimizers = build_optimizers(twin, settings.batch_size, settings.optimizer)
    files = training_batches(data, settings)
    queries = np.arange(min(settings.batch_size, len(data.queries)))
    triplets = random_triplets(queries, len(data.gallery), data.positives, data.not_negative, settings.n_neg, key=0)
    plans = step_plans(triplets, data, settings, epoch=0, refresh=0)

    def step() -> None:
        (batch,) = read_ahead(files, plans, num_workers=0)
        images, target = (None if x is None else twin.prepare(x) for x in (batch.images, batch.target))
        details = {"num_queries": len(queries), "settings": settings.losses, "compute": options.compute}
        train_step(twin, optimizers, images, batch.labels, target, **details)

    paths, alone = data.gallery.paths[:4], replace(options, num_workers=0)
    embed_s = _seconds(lambda: embed_images(model, paths, data.scale, alone, "timing"))
    return _seconds(step), embed_s / (len(paths) * _pixels(paths[0], data.scale))


def _seconds(call: Callable[[], object]) -> float:
    """Time of a call; of a short one the second time, since the first also sets things up."""
    for _ in range(2):
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        if seconds > 10:
            break
    return seconds


def duration(seconds: float) -> str:
    """A length of time in words: `3.2 days`, `45 minutes`, `12 s`."""
    for name, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        count = seconds / size
        if count >= 2:
            return f"{count:.1f} {name}" if count < 10 else f"{count:.0f} {name}"
    return f"{seconds:.0f} s"
