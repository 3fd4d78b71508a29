"""What a benchmark ran on, and how much memory a piece of work takes."""

import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from datasets.jobs import available_cores


def machine() -> str:
    """Processor, cores and torch, in words."""
    name = platform.processor() or platform.machine()
    if platform.system() == "Linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    cores = available_cores()
    return f"{name}, {cores} cores, torch {version('torch')}"


def processor(device: str) -> str:
    """What a benchmark computes on, in words: the GPU, or else the machine."""
    if device != "cuda":
        return machine()
    import torch  # not above: it would raise the peak memory that others measure

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


def _peak_mib() -> float:
    """Most memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage counts from the parent's memory on
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 2**10
        )
    # macOS counts in bytes, others in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _measured(prepare: Callable, work: Callable, arguments: tuple) -> dict:
    prepared = prepare(*arguments)
    before, start = _peak_mib(), time.perf_counter()
    result = work(*prepared)
    seconds = time.perf_counter() - start
    return {"result": result, "seconds": seconds, "peak_mib": _peak_mib(), "added_mib": _peak_mib() - before}


def in_a_process_of_its_own(prepare: Callable, work: Callable, *arguments) -> dict:
    """`work(*prepare(*arguments))` in a fresh process.

    Returns
    -------
    `result`; `seconds` of the work; `peak_mib`, the most memory of the process, imports and preparation included;
    `added_mib`, by how much the work raised that peak.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (prepare, work, arguments))
