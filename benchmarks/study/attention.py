"""Attention per class of each variant, over labelled pixels, so that all variants are measured on the same ones."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.nn import functional as F

from datasets.files import write_text
from datasets.naming import IGNORED, label_path
from datasets.places import load_image_set
from datasets.reading.transforms import read_label
from utils.report.attention import attention_effect, attention_sums, class_attention, look_at
from utils.retrieval.embedding import EmbeddingOptions
from utils.runs.checkpoints import load_checkpoint
from utils.runs.folders import weights_of_run
from utils.system.logs import progress_bar
from utils.system.seeding import generator

IMAGES = 32
FILE = "attention.json"


def some_of(folder: Path, count: int = IMAGES) -> list[str]:
    """Some labelled images of a folder, the same for every run."""
    paths = load_image_set([folder]).paths
    chosen = generator(0, "study attention").permutation(len(paths))[:count]
    return [paths[i] for i in np.sort(chosen)]


def measure_attention(run: Path, images: Sequence[str], scale: float, options: EmbeddingOptions) -> dict:
    """`attention` and `share` per class (lists, None for a class without pixels), and `effect`: how far descriptors move
    with the map (`utils.report.attention.attention_effect`). A file in the run's folder keeps them.
    """
    file = run / FILE
    if file.is_file():
        return json.loads(file.read_text())
    checkpoint = load_checkpoint(weights_of_run(run))
    model = options.compute.place(checkpoint.build())
    classes = checkpoint.config.num_classes
    sums, effects = np.zeros((2, classes)), []
    for path in progress_bar(images, desc=f"attention of {run}", unit="image"):
        look = look_at(model, path, scale, options)
        if look is None:
            raise ValueError(f"{path}: cannot be read any more; draw the town again")
        label = read_label(label_path(path))[None, None]
        labels = F.interpolate(label, size=look.attention.shape, mode="nearest")[0, 0].numpy().astype(np.int64)
        known = labels != IGNORED
        # only the labelled pixels, as a strip: sums per class do not depend on places
        sums += attention_sums(look._replace(attention=look.attention[known], classes=labels[known]), classes)
        effects.append(attention_effect(model, look))
    attention, share = class_attention(sums)
    content = {
        "images": len(images),
        "attention": [None if np.isnan(value) else float(value) for value in attention],
        "share": share.tolist(),
        "effect": float(np.mean(effects)),
    }
    write_text(file, json.dumps(content, indent=1) + "\n")
    return content


def mean_over_seeds(measured: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, float]:
    """Attention (C,), NaN for a class without pixels, share (C,), and effect: means over the runs of a variant."""
    attention = np.array([m["attention"] for m in measured], float)
    share = np.mean([m["share"] for m in measured], axis=0)
    return attention.mean(axis=0), share, float(np.mean([m["effect"] for m in measured]))
