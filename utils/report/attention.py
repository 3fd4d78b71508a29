"""What the network sees in a photo: attention and classes, and on which classes attention rests."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.reading.transforms import read_image, scale_image
from models.resize import resize_to
from models.segvpr import SegVPR, evaluating
from utils.evaluation.recall import SetResult
from utils.retrieval.embedding import EmbeddingOptions
from utils.system.seeding import generator
from utils.system.tables import printable

MAX_LOOKS, MAX_VIEWS, VIEWS_PER_SET, EFFECT_IMAGES = 32, 16, 3, 4
"""Over all sets: images run through the network, and images shown; the latter per set; images for `attention_effect`."""
LEAST_EFFECT = 0.005
"""Below this `attention_effect`, descriptors do not depend on the map."""
LEAST_SPAN, MOST_SPAN = 1.25, 8.0
"""An attention map within 1/1.25..1.25 of its mean is not stretched any further: it would look like a decision."""
WARM, HOT, COLD = (235, 88, 10), (255, 224, 70), (30, 40, 120)
STRENGTH = 0.5
"""Share of the colour in an overlay at its strongest: at least half of the photo's contrast stays."""


class Look(NamedTuple):
    """One photo as the network sees it.

    Attributes
    ----------
    photo : uint8 (H, W, 3) RGB, at evaluation size.
    attention : float32 (H, W), divided by its mean.
    classes : int64 (H, W) predicted classes.
    """

    photo: np.ndarray
    attention: np.ndarray
    classes: np.ndarray


class View(NamedTuple):
    """A query as the model sees it and, if known, as the model before training did."""

    path: str
    look: Look
    before: Look | None


class Seen(NamedTuple):
    """What looking at some queries of every set gave.

    Attributes
    ----------
    views : by set name, the queries to show, small.
    sums, sums_before : (2, C) `attention_sums` over all images; the latter None without a model from before training.
    images : how many images were looked at.
    effect : mean of `attention_effect` over some images, None without any.
    """

    views: dict[str, list[View]]
    sums: np.ndarray
    sums_before: np.ndarray | None
    images: int
    effect: float | None


NOTHING_SEEN = Seen({}, np.zeros((2, 0)), None, 0, None)


def look_at_sets(
    model: SegVPR,
    before: SegVPR | None,
    results: Sequence[SetResult],
    options: EmbeddingOptions,
    seed: int = 0,
    width: int = 320,
) -> Seen:
    """Run a bounded number of queries, drawn at random per set, through the network."""
    views: dict[str, list[View]] = {}
    number = model.config.num_classes
    sums, sums_before, effects, images = np.zeros((2, number)), np.zeros((2, number)), [], 0
    per_set = max(1, MAX_LOOKS // max(1, len(results)))
    shown = min(VIEWS_PER_SET, max(1, MAX_VIEWS // max(1, len(results))))
    for result in results[:MAX_LOOKS]:
        s = result.set
        order = generator(seed, "report attention", printable(s.name)).permutation(len(s.queries))[:per_set]
        for path in (s.queries.paths[q] for q in order):
            look = look_at(model, path, s.scale, options)
            if look is None:
                continue
            old = look_at(before, path, s.scale, options) if before is not None else None
            images += 1
            sums += attention_sums(look, number)
            if old is not None:
                # both by the trained model's classes: an untrained head's mean nothing
                sums_before += attention_sums(look._replace(attention=old.attention), number)
            if len(effects) < EFFECT_IMAGES:
                effects.append(attention_effect(model, look))
            if sum(map(len, views.values())) < MAX_VIEWS and len(views.get(s.name, [])) < shown:
                view = View(path, shrink(look, width), shrink(old, width) if old is not None else None)
                views.setdefault(s.name, []).append(view)
    effect = float(np.mean(effects)) if effects else None
    return Seen(views, sums, sums_before if before is not None else None, images, effect)


@torch.inference_mode()
def look_at(model: SegVPR, path: str, scale: float, options: EmbeddingOptions) -> Look | None:
    """Run one photo through the network in eval mode; None if it cannot be read (any more)."""
    try:
        image = scale_image(read_image(path), scale)
        with evaluating(model), options.compute.autocast():
            output = model(model.prepare(image[None]))
    except ValueError:
        return None
    # attention is positive, so weighting the logits by it leaves the largest where it is
    classes = output.logits[0].argmax(dim=0).cpu().numpy()
    attention = resize_to(output.attention.float(), image.shape[-2:])[0, 0].cpu().numpy()
    return Look(image.permute(1, 2, 0).numpy(), attention / max(float(attention.mean()), 1e-12), classes)


def shrink(look: Look, width: int) -> Look:
    """The same at most `width` px wide, so that many can be kept."""
    height, full = look.classes.shape
    if full <= width:
        return look
    size = (width, max(1, round(height * width / full)))
    classes = Image.fromarray(look.classes.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    attention = Image.fromarray(look.attention).resize(size, Image.Resampling.BILINEAR)
    photo = Image.fromarray(look.photo).resize(size, Image.Resampling.LANCZOS)
    return Look(np.asarray(photo), np.asarray(attention), np.asarray(classes, np.int64))


def attention_sums(look: Look, num_classes: int) -> np.ndarray:
    """(2, C) float64: over the pixels predicted to be of each class, the sum of attention and their number."""
    classes = look.classes.ravel()
    sums = np.bincount(classes, look.attention.ravel().astype(np.float64), minlength=num_classes)
    return np.stack([sums, np.bincount(classes, minlength=num_classes)])


def class_attention(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean attention of each class's pixels, and the fraction of all pixels that are of it.

    Parameters
    ----------
    sums : (2, C) `attention_sums`, added up over images.

    Returns
    -------
    attention (C,), 1 being the mean of an image, NaN for a class that was never predicted; share (C,), 0..1.
    """
    total, pixels = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pixels > 0, total / pixels, np.nan), pixels / max(pixels.sum(), 1)


@torch.inference_mode()
def attention_effect(model: SegVPR, look: Look) -> float:
    """How far a photo's descriptor moves, relative to its length, when its map is multiplied by a ramp of 0.5 to 1.5.

    Near 0, descriptors do not depend on attention: no loss that is taken on them can train it.
    """
    photo = torch.from_numpy(look.photo.copy()).permute(2, 0, 1)[None]
    images = model.prepare(photo)

    def tilt(_module: torch.nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        return output * torch.linspace(0.5, 1.5, output.shape[-1]).to(output)

    with evaluating(model):  # in plain precision: rounding to bf16 would move descriptors by itself
        descriptor = model.embed(images).cpu().double()
        with model.attention.register_forward_hook(tilt):
            tilted = model.embed(images).cpu().double()
    return float((descriptor - tilted).norm() / descriptor.norm())


def attention_span(looks: Sequence[Look]) -> float:
    """The factor above or below the mean at which the colours of `overlay` are full, common to all looks."""
    spreads = [np.percentile(np.abs(np.log(look.attention.clip(1e-3))), 97) for look in looks]
    return float(np.clip(np.exp(np.median(spreads)), LEAST_SPAN, MOST_SPAN)) if looks else LEAST_SPAN


def overlay(look: Look, span: float) -> Image.Image:
    """Photo with attention: glowing above the mean, blue below it, untouched at the mean (logarithmic between)."""
    level = (np.log(look.attention.clip(1e-6)) / np.log(span)).clip(-1, 1)[..., None]
    up = level.clip(0, 1)
    colour = np.where(level > 0, np.array(WARM) + (np.array(HOT) - np.array(WARM)) * up, np.array(COLD))
    alpha = STRENGTH * np.abs(level) ** 0.8
    return Image.fromarray((look.photo * (1 - alpha) + colour * alpha).round().astype(np.uint8))
