"""Ways of doing a piece of work, each in a process of its own; and the table that compares their times."""

import multiprocessing
import os
import platform
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch


def machine() -> str:
    """Processor, cores and torch, in words."""
    name = platform.processor() or platform.machine()
    if platform.system() == "Linux":
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, torch {torch.__version__}"


class Child:
    """A process of its own that builds something once and calls it on demand, so that settings of one do not reach another.

    Parameters
    ----------
    build : called with `arguments` in the child; returns the callable. Both must be importable by name.
    """

    def __init__(self, build: Callable[..., Callable[[], object]], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments), daemon=False)
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def __call__(self) -> object:
        self._pipe.send(True)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(False)
        self._process.join()


def _serve(pipe: Connection, build: Callable[..., Callable[[], object]], arguments: tuple) -> None:
    call = build(*arguments)
    pipe.send(None)
    while pipe.recv():
        pipe.send(call())


def table(times: dict[str, dict], unit: str, work: float = 1.0) -> list[list[str]]:
    """Rows for `utils.tables.align` from what `benchmarks.timing.alternate` gives; `work` units are done in each call."""
    baseline = next(iter(times))
    rows = [["", "seconds", f"{unit}/s", f"x {baseline}"]]
    for name, t in times.items():
        rows.append([name, f"{t['seconds']:.3f}", f"{work / t['seconds']:.2f}", f"{t['speedup']:.2f}"])
    return rows
