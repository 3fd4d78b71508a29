"""Callables timed alternately, A B A B, so that whatever else the machine does falls on all of them alike."""

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
    candidates : one that returns a float has timed itself: that is its seconds.
    clock : seconds; `time.process_time` for work of one process that is not to be charged for others on the machine.

    Returns
    -------
    By name: `seconds`, its median; `runs`, all its times; `speedup`, the median over rounds of the first callable's time
    divided by its own in the same round (1 for the first one).
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
