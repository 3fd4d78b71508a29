"""Work spread over processes or threads."""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

from tqdm import tqdm

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None, processes: bool = True, chunk: int = 1
) -> Iterator[Result]:
    """Results of `function` on each job, in order, as they come.

    Parameters
    ----------
    function : defined at the top of a module, so that new processes find it.
    workers : None for one per core.
    processes : whether the workers are processes (started afresh, never forked) or threads.
    chunk : jobs that a process takes at a time.

    Raises
    ------
    OSError : a worker process was ended from outside.
    """
    workers = min(workers or available_cores(), len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    pool: Executor = ThreadPoolExecutor(workers)
    if processes:  # they ignore Ctrl-C: this process ends them
        pool = ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))
    others = set(active_children())
    try:
        yield from pool.map(function, jobs, chunksize=chunk)
    except BrokenProcessPool as error:
        raise OSError("a worker process was ended from outside (out of memory?): give fewer --workers") from error
    except BaseException:
        for worker in set(active_children()) - others:
            worker.terminate()  # shutdown would wait for their jobs
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_progress(
    results: Iterable[Result], images: Sequence[int], label: str = "", quiet: bool = False
) -> list[Result]:
    """The results as a list, under a progress bar.

    Parameters
    ----------
    images : how many images each result stands for.
    quiet : show no bar.
    """
    done = []
    with progress_bar(desc=label, total=sum(images), unit="image", disable=quiet) as bar:
        for result, count in zip(results, images):
            done.append(result)
            bar.update(count)
    return done


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A tqdm bar; in a log file, a line every half minute."""
    rarely = {} if sys.stderr.isatty() else {"mininterval": 30, "delay": 30}
    return tqdm(iterable, dynamic_ncols=True, leave=False, **rarely | options)
