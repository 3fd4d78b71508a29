"""Files that are never seen half written, second names of files, and locks."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None


@contextmanager
def replacing(target: Path, durable: bool = False) -> Iterator[Path]:
    """A temporary name beside `target`. The file takes the place of `target` when the block ends without an error.

    Parameters
    ----------
    durable : the new file also survives a power cut.
    """
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        yield part
        if durable:
            _sync(part)
        os.replace(part, target)
        if durable:
            _sync(target.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(target: Path, write: Callable[[Path], object], durable: bool = False) -> None:
    """Let `write` fill a file in a folder that is made if absent, see `replacing`; OSError names the target."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, durable) as part:
            write(part)
    except OSError as error:
        message = f"{target}: cannot write it ({error.strerror or error})"
        raise (OSError(message) if error.errno is None else OSError(error.errno, message)) from error


def write_text(target: Path, text: str) -> None:
    """A whole text file in UTF-8."""
    write_whole(target, lambda part: part.write_text(text, encoding="utf-8"))


def copy_file(source: Path, target: Path) -> None:
    """Copy contents and times."""
    write_whole(target, lambda part: shutil.copy2(source, part))


def hard_link(source: Path, target: Path) -> None:
    """A second name of `source`; a copy if the file system has no hard links."""
    write_whole(target, lambda part: _link_or_copy(source, part))


def soft_link(source: Path, target: Path) -> None:
    """A relative symbolic link to `source`; a hard link or a copy if the file system refuses it."""
    real = Path(os.path.realpath(source))

    def write(part: Path) -> None:
        try:
            # relative to the real folder: `..` of a linked folder leads elsewhere
            os.symlink(os.path.relpath(real, os.path.realpath(part.parent)), part)
        except (OSError, ValueError):
            part.unlink(missing_ok=True)
            _link_or_copy(real, part)

    write_whole(target, write)


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock on `file`, made if absent, until the end of the block or of the process.

    Nothing is locked if the system has no file locks or the file may not be written.

    Raises
    ------
    BlockingIOError : another process holds it and `wait` is False.
    """
    with ExitStack() as held:
        try:
            stream = held.enter_context(file.open("a"))
            fcntl.lockf(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))  # not inherited by loader workers
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, f"{file}: another process holds this lock") from error
        except (OSError, AttributeError):  # a store that may only be read needs no lock; Windows has none
            pass
        yield


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk; some file systems cannot do so for folders."""
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
