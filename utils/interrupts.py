"""SIGINT and SIGTERM: work that must not be cut short is finished first, and the run is saved."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(BaseException):
    """A signal asked the run to stop. Not an Exception, so that no handler of errors swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class Interrupts:
    """While entered, a signal raises `StopRequested`: at once, or at the end of a `hold`. A second one leaves the process."""

    def __init__(self) -> None:
        self._requested: int | None = None
        self._holds = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested is not None:
            os._exit(128 + number)
        self._requested = number
        if not self._holds:
            raise StopRequested(number)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Finish what is within before a signal takes effect."""
        asked_before = self._requested
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self._requested is not None and asked_before is None and not self._holds:
            raise StopRequested(self._requested)


def ignore_in_worker(_: int = 0) -> None:
    """Start a loader worker deaf to Ctrl-C, which reaches the whole process group, and mortal to SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
