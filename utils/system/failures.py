"""Ends of a run that are nobody's bad input."""


class RunFailed(RuntimeError):
    """The run cannot go on, and says why in one line; the command ends with status 1."""


class PeerFailed(RunFailed):
    """Another process of the run is gone, and this one cannot go on without it."""
