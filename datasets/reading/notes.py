"""The file that each loader worker reads, in shared memory, so that the main process can name it when a worker dies."""

import os

import torch
from torch.utils.data import get_worker_info

SLOTS, LENGTH = 256, 1024


class WorkerNotes:
    """A shared table of (process id, file) per loader worker; it travels to workers with their data set."""

    def __init__(self) -> None:
        self._pids = torch.zeros(SLOTS, dtype=torch.int64).share_memory_()
        self._files = torch.zeros(SLOTS, LENGTH, dtype=torch.uint8).share_memory_()

    def reading(self, path: str) -> None:
        """Note in a worker the file that it turns to; nothing in the main process, which names it itself."""
        worker = get_worker_info()
        if worker is None or worker.id >= SLOTS:
            return
        name = os.fsencode(path)[-LENGTH:].ljust(LENGTH, b"\0")
        self._files[worker.id] = torch.frombuffer(bytearray(name), dtype=torch.uint8)
        self._pids[worker.id] = os.getpid()

    def file_of(self, pid: int) -> str | None:
        """The file that the worker with this process id turned to last."""
        (found,) = (self._pids == pid).nonzero(as_tuple=True)
        return os.fsdecode(bytes(self._files[found[0]].tolist()).strip(b"\0")) if len(found) else None
