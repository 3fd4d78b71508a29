"""Callables timed alternately, A B A B, so that other work on the machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 7,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict]:
    """Run each callable in turn, `rounds` times over.

    Parameters
    ----------
    candidates : a float that one returns counts as its seconds.
    clock : seconds; `time.process_time` leaves out other processes.

    Returns
    -------
    By name: `seconds`, the median; `runs`, all times; `speedup`, the median over rounds of the first callable's time divided
    by this one's in the same round (1 for the first).
    """
    runs: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + rounds):
        for name, candidate in candidates.items():
            start = clock()
            own = candidate()
            seconds = own if isinstance(own, float) else clock() - start
            if turn >= warmup:
                runs[name].append(seconds)
    baseline = next(iter(runs.values()))
    return {
        name: {
            "seconds": statistics.median(times),
            "speedup": statistics.median(base / own for base, own in zip(baseline, times)),
            "runs": times,
        }
        for name, times in runs.items()
    }
