"""Messages of a run: on the console, beside progress bars, and in a log file."""

import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets import jobs
from utils.system.distributed import is_first

LOGGER = logging.getLogger("segvpr")


class _ConsoleHandler(logging.Handler):
    """Prints through tqdm, which keeps progress bars intact; warnings and errors go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        file = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        prefix = "warning: " if record.levelno == logging.WARNING else ""
        line = (prefix + record.getMessage()).encode(file.encoding or "utf-8", "backslashreplace")
        tqdm.write(line.decode(file.encoding or "utf-8"), file=file)


class _LogFile(logging.FileHandler):
    """A log file; if it cannot be written any more (a full disk), the command goes on without it."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
            return
        LOGGER.removeHandler(self)
        self.close()
        if record.levelno > logging.DEBUG:
            LOGGER.warning("%s: cannot be written any more; going on without it", self.baseFilename)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def start_logging(log_file: Path | None = None) -> None:
    """Send messages to the console and, with time stamps, to the end of `log_file`; of several processes, the first alone."""
    stop_logging()
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    if not is_first():
        LOGGER.addHandler(logging.NullHandler())
        return
    console = _ConsoleHandler(logging.INFO)
    LOGGER.addHandler(console)
    if log_file is not None:
        file = _LogFile(log_file, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        LOGGER.addHandler(file)


def stop_logging() -> None:
    """Close the log file and detach all handlers."""
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """The bar of `datasets.jobs`; of several processes, the first shows its part."""
    return jobs.progress_bar(iterable, **{"disable": not is_first(), **options})
