"""Failures of a run that no input caused."""


class RunFailed(RuntimeError):
    """The run cannot go on; the message says why in one line, and the command ends with status 1."""


class PeerFailed(RunFailed):
    """Another process of the run ended, and this one cannot go on without it."""
