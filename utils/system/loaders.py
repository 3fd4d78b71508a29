"""Processes that read files ahead of their use."""

import re
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset

from datasets.reading.triplets import LoadFailure
from utils.system.failures import RunFailed
from utils.system.interrupts import ignore_in_worker


def read_ahead(dataset: Dataset, keys: Sequence, num_workers: int, pin_memory: bool = False) -> Iterator[Any]:
    """`dataset[key]` for each key, in order, read by processes that end with the last one.

    Parameters
    ----------
    dataset : gives `LoadFailure` for what it cannot read; its `notes` know which file each process reads.

    Raises
    ------
    ValueError : a file cannot be read; it is named.
    RunFailed : a process died; the file that it was reading is named.
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
        with _handler_of_deaths_kept():
            batches = iter(loader)
    for _ in keys:
        try:
            batch = next(batches)
        except RuntimeError as error:
            died = re.search(r"DataLoader worker \(pid(?:\(s\))? (\d+)", str(error))
            if died is None:
                raise
            file, reason = dataset.notes.file_of(int(died[1])) or "its first file", " ".join(str(error).split())
            raise RunFailed(
                f"a process that reads images died on {file} (out of memory? try a lower --num_workers): {reason}"
            ) from error
        if isinstance(batch, LoadFailure):
            raise ValueError(batch.message)
        yield batch


@contextmanager
def _handler_of_deaths_kept() -> Iterator[None]:
    """Undo what torch does when a loader starts: its handler of dead processes would raise in the main process at any time,
    even in the middle of a step. Without it, waiting for a dead process ends with an error within five seconds.
    """
    number = getattr(signal, "SIGCHLD", None)
    before = number and signal.getsignal(number)
    yield
    if number and threading.current_thread() is threading.main_thread():  # in other threads torch sets none
        signal.signal(number, before or signal.SIG_DFL)
