"""Work spread over processes or threads."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, processes: bool = True, chunk: int = 1
) -> Iterator[Result]:
    """Results of `function` on each job, in order, as they come.

    Parameters
    ----------
    function : defined at the top of a module, so that new processes find it.
    processes : whether the workers are processes (started afresh, never forked) or threads.
    chunk : jobs that a process takes at a time.

    Raises
    ------
    OSError : a worker process was ended from outside.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    pool: Executor
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if processes else ThreadPoolExecutor(workers)
    try:
        yield from pool.map(function, jobs, chunksize=chunk)
    except BrokenProcessPool as error:
        raise OSError("a worker process was ended from outside (out of memory?): give fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def with_progress(results: Iterable[Result], total: int, label: str) -> list[Result]:
    """The results as a list, under a progress bar."""
    bar = tqdm(results, desc=label, total=total, unit="image", dynamic_ncols=True, delay=0.5, leave=False)
    return list(bar)
