"""Make a directory whole or not at all.

It is filled under a temporary name beside its place and renamed when it is complete, so that a
half-written directory is never taken for a whole one. A lock says that its process lives: what a
killed process left behind is swept away by the next one that makes the same directory.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from clipalign.errors import RunError
from clipalign.files import check_writable, storage_errors

__all__ = ["staged", "take_place"]

_PARTS = (".tmp", ".old")
"""What is being filled, and what it replaces."""


@contextlib.contextmanager
def staged(target: Path, *, replace: bool) -> Iterator[Path]:
    """An empty directory that takes the place of `target` when the block ends without an exception.

    Args:
        target: missing or an empty directory, unless it may be replaced.
        replace: replace a directory that is not empty.

    Raises:
        StorageError: it cannot be written; what stood there is untouched.
        RunError: `target` is a file, or not empty (another process may have filled it meanwhile).
    """
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_dir():
        raise RunError(f"{target} is a file, and a directory is to be made. Choose another name.")
    check_writable(target)  # a lock that cannot be made would be waited for without end
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        stem = target.parent / f".{target.name}-{os.urandom(4).hex()}"
        lock = FileLock(_with(stem, ".lock"))
        lock.acquire()
    folder = _with(stem, ".tmp")
    try:
        with storage_errors(target):
            folder.mkdir()
        yield folder
        with storage_errors(target):
            if replace and target.is_dir():
                _replace(folder, target, _with(stem, ".old"))
            else:
                take_place(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        _forget(stem)


def take_place(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`, which is missing or empty.

    Raises:
        RunError: it is not.
    """
    try:
        os.rename(folder, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise RunError(
            f"{target} was filled by another process in the meantime, and is left alone."
        ) from None


def _replace(folder: Path, target: Path, old: Path) -> None:
    """Rename `folder` to `target`, and what stood there out of the way."""
    with contextlib.suppress(FileNotFoundError):  # another process is replacing it, too
        os.rename(target, old)
    try:
        take_place(folder, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.rename(old, target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Undo what processes that are gone left half-done."""
    pattern = f".{glob.escape(target.name)}-{'[0-9a-f]' * 8}.lock"
    for path in target.parent.glob(pattern):
        stem = path.with_suffix("")
        with contextlib.suppress(Timeout), FileLock(path).acquire(timeout=0):
            if _with(stem, ".old").is_dir() and not target.exists():
                os.rename(_with(stem, ".old"), target)  # killed between the two renames
            for suffix in _PARTS:
                shutil.rmtree(_with(stem, suffix), ignore_errors=True)
            _forget(stem)


def _forget(stem: Path) -> None:
    """Remove the lock, unless something could not be removed that the next process is to sweep."""
    if not any(_with(stem, suffix).exists() for suffix in _PARTS):
        _with(stem, ".lock").unlink(missing_ok=True)


def _with(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)
