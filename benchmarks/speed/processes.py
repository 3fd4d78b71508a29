"""Several ways of doing one piece of work, each in a process of its own, and the table that compares their times."""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import torch

from benchmarks.harness.timing import alternate


def steady(call: Callable[[], object], calls: int = 5) -> float:
    """Seconds per call on a GPU: the mean of several in a row, after one that fills the allocator. The GPU memory is freed
    afterwards, for the process whose turn is next."""
    call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / calls
    torch.cuda.empty_cache()
    return seconds


def processor_time(call: Callable[[], object]) -> float:
    """Processor seconds of a call on all cores: other work on the machine hardly counts."""
    start = time.process_time()
    call()
    return time.process_time() - start


class Child:
    """A process that builds something once and calls it on demand, so that settings of one way do not reach another.

    Several build at the same time; the first call waits.

    Parameters
    ----------
    build : called with `arguments` in the child; returns the callable. Both must be importable by name.
    measure : call -> seconds, see `steady` and `processor_time`; None for wall time.
    """

    def __init__(
        self,
        build: Callable[..., Callable[[], object]],
        *arguments: object,
        measure: Callable[[Callable[[], object]], float] | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments, measure), daemon=False)
        self._process.start()
        theirs.close()

    def __call__(self) -> object:
        self._pipe.send(True)
        return self._pipe.recv()

    def close(self) -> None:
        with suppress(BrokenPipeError):  # the child has failed and printed why
            self._pipe.send(False)
        self._process.join()


def _serve(pipe: Connection, build: Callable[..., Callable[[], object]], arguments: tuple, measure) -> None:
    call = build(*arguments)
    while pipe.recv():
        pipe.send(measure(call) if measure else call())


def clock_for(device: str, cpu_time: bool) -> Callable[[Callable[[], object]], float] | None:
    """How a `Child` measures: `steady` on a GPU, processor time on request, else wall time."""
    if device == "cuda":
        return steady
    return processor_time if cpu_time else None


def timed(children: dict[str, Child], rounds: int) -> dict[str, dict]:
    """Their times from `benchmarks.harness.timing.alternate`; the children end."""
    try:
        return alternate(children, rounds)
    finally:
        for child in children.values():
            child.close()


def table(times: dict[str, dict], unit: str, work: float = 1.0) -> list[list[str]]:
    """Rows for `align` from the result of `benchmarks.harness.timing.alternate`; each call does `work` units."""
    baseline = next(iter(times))
    rows = [["", "seconds", f"{unit}/s", f"x {baseline}"]]
    for name, t in times.items():
        rows.append([name, f"{t['seconds']:.3f}", f"{work / t['seconds']:.2f}", f"{t['speedup']:.2f}"])
    return rows
