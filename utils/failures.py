"""Ends of a run that are nobody's bad input."""

import re


class RunFailed(RuntimeError):
    """The run cannot go on, and says why in one line; the command ends with status 1."""


class PeerFailed(RunFailed):
    """Another process of the run is gone, and this one cannot go on without it."""


def dead_worker(error: RuntimeError) -> int | None:
    """Process id of the loader worker whose death torch reports by this error, None for another error."""
    found = re.search(r"DataLoader worker \(pid(?:\(s\))? (\d+)", str(error))
    return int(found[1]) if found else None


def died_on(file: str, error: RuntimeError) -> str:
    """What to say of a loader worker that died."""
    reason = " ".join(str(error).split())
    return f"a process that reads images died on {file} (out of memory? try a lower --num_workers): {reason}"
