"""What torchrun says of this process in its environment. Importing this does not import torch."""

import os

RELEASED_WORKERS = 3


def launched() -> tuple[int, int]:
    """This process's number and how many torchrun launched: (0, 1) without torchrun."""
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def local_rank() -> int | None:
    """This process's number on its machine; None if it is the only one of the run."""
    return int(os.environ["LOCAL_RANK"]) if launched()[1] > 1 else None


def cores_per_process() -> int:
    """This process's part of the machine's cores, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def default_workers() -> int:
    """Reading processes: as released, but at most one per core of this process."""
    return min(RELEASED_WORKERS, cores_per_process())
