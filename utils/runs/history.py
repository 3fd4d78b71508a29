"""Losses and figures of each epoch: as a line on the console, and as a table on disk."""

import csv
from collections.abc import Mapping
from pathlib import Path

from datasets.files import write_whole
from utils.system.tables import printable

RECALL, MIOU = "_recall@1", "miou"
SHORT_LOSSES = {"discriminator_source": "D(source)", "discriminator_target": "D(target)"}


def epoch_line(losses: Mapping[str, float], figures: Mapping[str, float]) -> str:
    """An epoch on the console: `loss triplet 0.332, semantic 2.27; R@1 val 21.9, rain 62.5; mIoU 35.8`.

    Parameters
    ----------
    losses, figures : as in the history, by `loss_<name>`, and `<set>_recall@<N>` and `miou` in percent.
    """
    names = {key: key.removeprefix("loss_") for key in losses}
    parts = ["loss " + ", ".join(f"{SHORT_LOSSES.get(names[k], names[k])} {v:.3g}" for k, v in losses.items())]
    recalls = [f"{printable(k.removesuffix(RECALL))} {v:.1f}" for k, v in figures.items() if k.endswith(RECALL)]
    if recalls:
        parts.append("R@1 " + ", ".join(recalls))
    if MIOU in figures:
        parts.append(f"mIoU {figures[MIOU]:.1f}")
    return "; ".join(parts)


def write_history(path: Path, history: list[dict]) -> None:
    """Write one row per epoch; columns are all keys, in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in history for key in row))

    def write(part: Path) -> None:
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(history)

    write_whole(path, write)
