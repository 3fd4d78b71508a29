"""Several processes that share a run, started by `torchrun`: which part each one does, and how results are joined.

Without torchrun there is one process, and everything here is the identity. torch.distributed has one process group per
program, and so this module keeps its state in a global.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from threadpoolctl import threadpool_limits
from torch import Tensor

from utils.system.failures import PeerFailed
from utils.system.launch import cores_per_process, launched

T = TypeVar("T")

SUMS_WITHIN = timedelta(minutes=30)
"""How long the others wait for a process in a step; one that dies is noticed at once."""
FIRST_WITHIN = timedelta(days=1)
"""How long they wait for what the first process does alone: it may list millions of images."""


@dataclass(frozen=True)
class _Processes:
    """This process among all. `control` is a gloo group, whatever gradients travel by: it sees a dead peer at once."""

    rank: int = 0
    world: int = 1
    threads_alone: int | None = None
    control: dist.ProcessGroup | None = None


_processes = _Processes()


def rank() -> int:
    return _processes.rank


def world_size() -> int:
    return _processes.world


def is_first() -> bool:
    """Whether this process writes files and speaks."""
    return _processes.rank == 0


@contextmanager
def started(device: torch.device) -> Iterator[None]:
    """Within it, the processes that torchrun launched work together; nothing happens if there is only one.

    Parameters
    ----------
    device : of this process; gradients travel by NCCL between GPUs, by gloo otherwise.
    """
    global _processes
    launched_rank, world = launched()
    if world == 1 or _processes.world > 1:
        yield
        return
    threads_alone = _share_threads()
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "nccl"
    with _peers_named():
        dist.init_process_group(backend, timeout=SUMS_WITHIN)
        control = dist.new_group(backend="gloo", timeout=FIRST_WITHIN)
    _processes = _Processes(launched_rank, world, threads_alone, control)
    yield
    # not after an error: the group ends with the process, since destroying it could wait for a dead peer
    _processes = _Processes()
    dist.destroy_process_group()


def _share_threads() -> int:
    """Give this process its part of the machine's cores; returns the threads that it may use while the others wait."""
    threads = int(os.environ.get("OMP_NUM_THREADS", 1))
    if threads == 1:  # torchrun's default, which leaves cores idle
        threads = cores_per_process()
    torch.set_num_threads(threads)
    return threads * int(os.environ.get("LOCAL_WORLD_SIZE", 1))


@contextmanager
def _peers_named() -> Iterator[None]:
    """Turn torch's error about a dead or late peer into one line."""
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"\[\S+:\d+\]", "", str(error)).strip().split(". ")[0]  # without the place in torch's sources
        raise PeerFailed(
            f"another process of this run failed or left, and may have said why ({' '.join(reason.split())[:200]})"
        ) from error


def alone() -> AbstractContextManager:
    """Within it, the first process uses the threads of the processes that wait for it on its machine."""
    return nullcontext() if _processes.threads_alone is None else threadpool_limits(_processes.threads_alone)


def from_first(make: Callable[[], T]) -> T:
    """Call `make` on the first process and return its result on all. An error is raised there, and ends the others."""
    if _processes.world == 1:
        return make()
    box: list = [None]
    if is_first():
        with alone():
            box[0] = make()
    with _peers_named():
        dist.broadcast_object_list(box, src=0, group=_processes.control)
    return box[0]


def share(total: int, block: int = 1, rank: int | None = None) -> range:
    """The part of `range(total)` that a process (default: this one) works on; it begins at a multiple of `block`."""
    world, rank = _processes.world, _processes.rank if rank is None else rank
    blocks = -(-total // block)
    first, last = (min(total, blocks * r // world * block) for r in (rank, rank + 1))
    return range(first, last)


def own_part(items: Sequence) -> Sequence:
    """This process's part of a sequence whose length the number of processes divides."""
    part = share(len(items))
    return items[part.start : part.stop]


def gather_rows(rows: np.ndarray, total: int, block: int = 1) -> np.ndarray:
    """Join the rows that each process made of its `share(total, block)`.

    Parameters
    ----------
    rows : this process's rows, of the same type and width on all.

    Returns
    -------
    All `total` rows in order on the first process, none on the others (`rows[:0]`).
    """
    if _processes.world == 1:
        return rows
    with _peers_named():
        if not is_first():
            if len(rows):
                dist.send(_bytes(np.ascontiguousarray(rows)), dst=0, group=_processes.control)
            return rows[:0]
        joined = np.empty((total, *rows.shape[1:]), rows.dtype)
        joined[: len(rows)] = rows
        for peer in range(1, _processes.world):
            part = share(total, block, peer)
            if len(part):
                dist.recv(_bytes(joined[part.start : part.stop]), src=peer, group=_processes.control)
    return joined


def _bytes(rows: np.ndarray) -> Tensor:
    """The memory of a contiguous array of any type, as a tensor that gloo can send."""
    return torch.from_numpy(rows.reshape(-1).view(np.uint8))


def sum_tensors(tensors: Sequence[Tensor], patient: bool = False) -> None:
    """Replace each tensor by its sum over all processes, in one message; bit for bit the same on all of them.

    Parameters
    ----------
    patient : wait as long as for what the first process does alone; for tensors on the CPU.
    """
    _reduce(tensors, 1, _processes.control if patient else None)


def average_tensors(tensors: Sequence[Tensor]) -> None:
    """Replace each floating point tensor by its mean over all processes, as `sum_tensors` does; one NaN makes all NaN."""
    _reduce(tensors, _processes.world)


@torch.no_grad()
def _reduce(tensors: Sequence[Tensor], divisor: int, group: dist.ProcessGroup | None = None) -> None:
    if _processes.world == 1 or not tensors:
        return
    widest = reduce(torch.promote_types, (t.dtype for t in tensors))
    flat = torch.cat([t.reshape(-1).to(widest) for t in tensors])
    if divisor > 1:
        flat /= divisor
    with _peers_named():
        dist.all_reduce(flat, group=group)
    sums = flat.split([t.numel() for t in tensors])
    for tensor, total in zip(tensors, sums):
        tensor.copy_(total.view(tensor.shape))
