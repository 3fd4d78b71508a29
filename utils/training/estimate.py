"""How long a training run takes on a CPU, from one step and one image of each kind, timed before it starts."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from datasets.reading.transforms import image_size, scaled_size
from datasets.sizes import CROP
from models.segvpr import SegVPR
from utils.evaluation.recall import EvaluationSet
from utils.retrieval.embedding import EmbeddingOptions
from utils.system.compute import Compute
from utils.system.distributed import world_size
from utils.system.logs import LOGGER
from utils.training.data import TrainingData
from utils.training.optimizers import build_optimizers
from utils.training.settings import TrainingSettings
from utils.training.step import train_step

UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))
SHORT_S, LONG_S = 10.0, 3600.0
"""Below the first a measurement is repeated; above the second a run is long enough for advice."""


@dataclass(frozen=True)
class Work:
    """What one epoch does.

    Attributes
    ----------
    steps : optimisation steps.
    mined, evaluated, segmented : pixels of all images that are embedded for mining and for evaluation, and segmented.
    """

    steps: int
    mined: int
    evaluated: int
    segmented: int


def work_per_epoch(
    data: TrainingData, settings: TrainingSettings, sets: Sequence[EvaluationSet], labelled: Sequence[str]
) -> Work:
    """Counted from the lists; all images of a list are taken to be of its first one's size."""
    queries = min(settings.cache_refresh_rate, len(data.queries))
    from_gallery = {"full": len(data.gallery), "partial": min(settings.cache_negatives, len(data.gallery)), "random": 0}
    mined = from_gallery[settings.mining] + (queries if settings.mining != "random" else 0)
    embedded = {(id(images), s.scale): (images, s.scale) for s in sets for images in (s.gallery, s.queries)}
    return Work(
        settings.refreshes_per_epoch * -(-queries // settings.batch_size),
        settings.refreshes_per_epoch * mined * _pixels(data.gallery.paths[0], data.scale),
        sum(len(images) * _pixels(images.paths[0], scale) for images, scale in embedded.values()),
        len(labelled) * _pixels(labelled[0]) if labelled else 0,
    )


def _pixels(path: str, scale: float = 1.0) -> int:
    height, width = _scaled(path, scale)
    return height * width


def _scaled(path: str, scale: float) -> tuple[int, int]:
    width, height = image_size(path)
    return scaled_size(height, width, scale)


@dataclass(frozen=True)
class Rates:
    """Seconds of an optimisation step, and of embedding and segmenting per pixel."""

    step_s: float
    embed_s: float
    segment_s: float


def log_estimate(
    model: SegVPR,
    data: TrainingData,
    settings: TrainingSettings,
    sets: Sequence[EvaluationSet],
    labelled: Sequence[str],
    options: EmbeddingOptions,
    epochs_done: int = 0,
) -> None:
    """Say how long the epochs that are left take, where one process trains on a CPU; the model stays as it is."""
    epochs, compute = settings.n_epochs - epochs_done, options.compute
    if epochs < 1 or compute.device.type != "cpu" or compute.compiled or world_size() > 1:
        return
    rates = measure(model, data, settings, labelled, options)
    LOGGER.info("%s", describe(work_per_epoch(data, settings, sets, labelled), rates, epochs))


def describe(work: Work, rates: Rates, epochs: int) -> str:
    """The length of so many epochs and one evaluation more, as a sentence."""
    training, mining = work.steps * rates.step_s, work.mined * rates.embed_s
    evaluation = work.evaluated * rates.embed_s + work.segmented * rates.segment_s
    total = epochs * (training + mining + evaluation) + evaluation
    line = (
        f"estimated length on this CPU: {duration(total)} for {epochs} epoch{'s' if epochs > 1 else ''}, reading files not "
        f"counted (an epoch: training {duration(training)}, at {rates.step_s:.2g} s per step; mining {duration(mining)}; "
        f"evaluation {duration(evaluation)})"
    )
    if total > LONG_S:
        line += "; a GPU, a smaller --arch, and fewer --n_epochs or --queries_per_epoch make it shorter"
    return line


def measure(
    model: SegVPR, data: TrainingData, settings: TrainingSettings, labelled: Sequence[str], options: EmbeddingOptions
) -> Rates:
    """Time one step and an image of each kind; model and random numbers stay as they are."""
    was_training = model.training
    with torch.random.fork_rng(devices=[]), options.compute.autocast():
        rates = Rates(
            time_step(model, data, settings, options.compute),
            time_embedding(model, data, options),
            time_segmentation(model, labelled[0]) if labelled else 0.0,
        )
    model.train(was_training)
    return rates


def time_step(model: SegVPR, data: TrainingData, settings: TrainingSettings, compute: Compute) -> float:
    """Seconds of one optimisation step, made by a copy on blank images of the sizes that training uses."""
    twin = copy.deepcopy(model).train()
    height, width = (int(side * CROP) for side in _scaled(data.gallery.paths[0], 1.0))
    count = settings.batch_size * (2 + settings.n_neg)
    target = _blank(count, *settings.target_size[::-1]) if data.target_paths else None
    images, labels = _blank(count, height, width), torch.zeros((count, height, width), dtype=torch.uint8)
    optimizers = build_optimizers(twin, settings.batch_size)

    def step() -> None:
        train_step(
            twin,
            optimizers,
            twin.prepare(images),
            labels,
            None if target is None else twin.prepare(target),
            num_queries=settings.batch_size,
            num_negatives=settings.n_neg,
            settings=settings.losses,
            compute=compute,
        )

    return _seconds(step)


@torch.inference_mode()
def time_embedding(model: SegVPR, data: TrainingData, options: EmbeddingOptions) -> float:
    """Seconds per pixel of embedding images of the training set, as mining does it."""
    embedder = options.compute.embedder(model)
    height, width = _scaled(data.gallery.paths[0], data.scale)
    images = _blank(min(options.batch_size, 4), height, width)
    seconds = _seconds(lambda: embedder.embed(embedder.prepare(images)))
    return seconds / (len(images) * height * width)


@torch.inference_mode()
def time_segmentation(model: SegVPR, path: str) -> float:
    """Seconds per pixel of segmenting an image of the size of this one."""
    height, width = _scaled(path, 1.0)
    seconds = _seconds(lambda: model.eval().segment(model.prepare(_blank(1, height, width))))
    return seconds / (height * width)


def _blank(count: int, height: int, width: int) -> torch.Tensor:
    return torch.zeros((count, 3, height, width), dtype=torch.uint8)


def _seconds(call: Callable[[], object]) -> float:
    """Time of a call; of a short one the second time, since the first also sets things up."""
    for _ in range(2):
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        if seconds > SHORT_S:
            break
    return seconds


def duration(seconds: float) -> str:
    """A length of time as it is said: `3.2 days`, `45 minutes`, `12 s`."""
    for name, size in UNITS:
        if seconds >= 2 * size:
            count = seconds / size
            return f"{count:.1f} {name}" if count < 10 else f"{count:.0f} {name}"
    return f"{seconds:.0f} s"
