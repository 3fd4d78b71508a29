"""Processes that read files ahead of their use."""

import re
import signal
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from datasets.triplets import LoadFailure
from utils.distributed import cores_per_process
from utils.failures import RunFailed
from utils.interrupts import ignore_in_worker

RELEASED_WORKERS = 3


def default_workers() -> int:
    """Reading processes: as released, but no more than there are cores for this process."""
    return min(RELEASED_WORKERS, cores_per_process())


def read_ahead(dataset: Dataset, keys: Sequence, num_workers: int, pin_memory: bool = False) -> Iterator[Any]:
    """`dataset[key]` for each key, in order, read by processes that end with the last one.

    Parameters
    ----------
    dataset : gives `LoadFailure` for what it cannot read; its `notes` know which file each process is on.

    Raises
    ------
    ValueError : a file cannot be read; it is named.
    RunFailed : a process died; the file it was on is named.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more processes than cores: the user's choice
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=keys,
            num_workers=num_workers,
            pin_memory=pin_memory,
            worker_init_fn=ignore_in_worker,
        )
        batches = iter(loader)
    _leave_deaths_to_the_loader()
    for _ in keys:
        try:
            batch = next(batches)
        except RuntimeError as error:
            died = re.search(r"DataLoader worker \(pid(?:\(s\))? (\d+)", str(error))
            if died is None:
                raise
            raise RunFailed(_death(dataset.notes.file_of(int(died[1])), error)) from error
        if isinstance(batch, LoadFailure):
            raise ValueError(batch.message)
        yield batch


def _leave_deaths_to_the_loader() -> None:
    """Undo torch's handler of dead processes, which raises wherever the main process is, be it in the middle of a step.

    The loader itself notices within five seconds of waiting for a process that is gone.
    """
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _death(file: str | None, error: RuntimeError) -> str:
    """What to say of a process that died."""
    where, reason = file or "its first file", " ".join(str(error).split())
    return f"a process that reads images died on {where} (out of memory? try a lower --num_workers): {reason}"
