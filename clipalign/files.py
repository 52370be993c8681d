"""Writing and hashing files so that a kill or a full disk loses nothing.

A file is written beside its place under a temporary name, flushed to the disk, and renamed over the
old one, so a reader sees the old bytes or the new bytes and never a part of either. What a killed
process leaves behind are files that match `.clipalign-*.tmp`; they are safe to delete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from clipalign.errors import StorageError

__all__ = [
    "SUMS",
    "append_jsonl",
    "atomic_write_bytes",
    "atomic_write_text",
    "atomic_writer",
    "canonical_json",
    "changed_file",
    "check_writable",
    "parse_json",
    "read_regular",
    "reserve",
    "sha256_bytes",
    "sha256_file",
    "storage_errors",
    "write_sums",
]

_UNBLOCKED = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # where there are such
SUMS = "SHA256SUMS"
"""Hashes of the files beside it."""

_ADVICE = {
    errno.ENOSPC: "the disk is full. Free some space or choose another place, then run it again.",
    errno.EDQUOT: "your disk quota is used up. Free some space or choose another place, then run "
    "it again.",
    errno.EROFS: "the file system is read-only. Choose a place that can be written.",
    errno.EACCES: "permission denied. Choose a place that you may write, or change its rights.",
    errno.EPERM: "permission denied. Choose a place that you may write, or change its rights.",
    errno.EIO: "the disk reported an input/output error. Check the disk or choose another place.",
    errno.EFBIG: "the file is larger than this file system or your limits allow. Choose another "
    "place.",
    errno.EMFILE: "too many files are open. Raise the limit (ulimit -n), or use fewer workers.",
    errno.ENAMETOOLONG: "the name is too long for this file system. Choose a shorter one.",
    errno.ENOTDIR: "a part of this path is a file, not a directory. Choose another path.",
    errno.EEXIST: "a file is where a directory must be. Choose another path.",
    errno.EISDIR: "it is a directory, not a file. Choose another path.",
}


@contextlib.contextmanager
def storage_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the disk refuses inside the block into a StorageError that names `path`.

    Other OSErrors pass through unchanged; so does a missing file, unless it is `path` or a
    directory above it, which the file system would not make (such as one in /proc).

    Raises:
        StorageError: full disk, quota, read-only file system, no permission and their like.
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        if error.errno == errno.ENOENT and _lies_in(path, error.filename):
            advice = "nothing can be made there. Choose another place."
        if advice is None:
            raise
        raise StorageError(f"Cannot write {os.fspath(path)}: {advice}") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a place that could not be written, before the work whose result would be lost there.

    A file is made and removed in the nearest directory that is there.

    Raises:
        StorageError: nothing can be made there.
    """
    folder = Path(os.path.realpath(path))
    if folder.exists() and not folder.is_dir():  # to be replaced, or refused by who writes it
        folder = folder.parent
    while not folder.exists():
        folder = folder.parent
    with storage_errors(path):
        try:
            with tempfile.NamedTemporaryFile(prefix=".clipalign-", suffix=".tmp", dir=folder):
                pass
        except OSError as error:
            error.filename = os.fspath(path)  # and not the name of this trial
            raise


def _lies_in(path: str | os.PathLike[str], folder: str | None) -> bool:
    return folder is not None and Path(os.path.realpath(path)).is_relative_to(
        os.path.realpath(folder)
    )


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of `path` when the block ends without an exception.

    Missing parent directories are made; a symbolic link is followed and stays. `handle.name` is the
    temporary file in the same directory, for libraries that want a path.

    Raises:
        StorageError: it cannot be written; the old file, if any, is untouched.
    """
    target = Path(os.path.realpath(path))
    with storage_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            # Renaming over a device such as /dev/null would destroy it.
            raise StorageError(f"Cannot write {os.fspath(path)}: it is not a regular file.")
        temporary = target.parent / f".clipalign-{os.urandom(8).hex()}.tmp"
        try:
            with open(temporary, "xb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            _put(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)


def _put(temporary: Path, target: Path) -> None:
    """Rename what is written to its place.

    Raises:
        StorageError: somebody removed it, as whoever empties a cache may.
    """
    try:
        os.replace(temporary, target)
    except FileNotFoundError:
        raise StorageError(
            f"Cannot write {target}: it was removed by somebody else while it was written. Run it "
            "again."
        ) from None


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, all or nothing. See `atomic_writer`.

    Raises:
        StorageError: it cannot be written; the old file, if any, is untouched.
    """
    with atomic_writer(path) as handle:
        handle.write(data)


def atomic_write_text(path: str | os.PathLike[str], data: str) -> None:
    """Write `data` to `path` as UTF-8 with its line ends unchanged, all or nothing.

    Raises:
        StorageError: it cannot be written; the old file, if any, is untouched.
    """
    atomic_write_bytes(path, data.encode("utf-8"))


def append_jsonl(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Append one row to a JSON Lines file, making it and its directory if need be.

    A line that a kill cut short is closed first, so it spoils itself and not the new row.

    Raises:
        ValueError: the row holds NaN or infinity, which JSON has no word for.
        StorageError: it cannot be written.
    """
    line = canonical_json(row) + b"\n"
    with storage_errors(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path, "a+b") as handle:
            if handle.seek(0, os.SEEK_END):
                handle.seek(-1, os.SEEK_END)
                if handle.read(1) != b"\n":
                    line = b"\n" + line
            handle.write(line)


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """The bytes of a file that somebody else may have put there.

    A pipe or a device is refused unread: reading one may never end.

    Args:
        path: of the file.
        limit: bytes at most.

    Raises:
        OSError: it cannot be read, is no file, or is larger.
    """
    descriptor = os.open(path, os.O_RDONLY | _UNBLOCKED)
    with open(descriptor, "rb") as handle:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is a pipe, a device or a directory, and not a file")
        data = handle.read(-1 if limit is None else limit + 1)
    if limit is not None and len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes")
    return data


def reserve(file: BinaryIO, size: int) -> None:
    """Give an open file its room on the disk, before it is filled through a memory map.

    A full disk under a memory map kills the process; here it is an error.

    Args:
        file: open for writing.
        size: bytes in all, at least 1.

    Raises:
        OSError: there is no room.
    """
    file.flush()
    if size > shutil.disk_usage(file.name).free:  # a disk in memory would be filled first
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:  # macOS and Windows: a file with holes, which a full disk can still refuse to fill
        file.truncate(size)


def parse_json(data: bytes | str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is not JSON, or nested so deeply that reading it would end in a crash.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of `data`, 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, 64 lower-case hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write SHA256SUMS of files of a folder, as `sha256sum -c SHA256SUMS` checks them.

    Raises:
        StorageError: it cannot be written.
    """
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in sorted(names)]
    atomic_write_text(folder / SUMS, "".join(lines))


def changed_file(folder: Path, names: Iterable[str]) -> str | None:
    """What is wrong with the first of some files that is not what SHA256SUMS beside it says.

    Args:
        folder: with SHA256SUMS; where there is none, nothing is known to have changed.
        names: of files in it; those that are not there, or of no known sum, are passed over.

    Returns:
        A sentence that names the file, or None.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in names:
        path = folder / name
        if name in sums and path.is_file() and sums[name] != sha256_file(path):
            return (
                f"{path} is not what was written: its sha256 is another one than {SUMS} beside it "
                "says, so one of the two was changed or damaged."
            )
    return None


def canonical_json(obj: Any) -> bytes:
    """The one JSON text of `obj`: sorted keys, no spaces, ASCII. Equal objects, equal bytes.

    ASCII escapes also carry names that are not valid Unicode (undecodable file names).

    Raises:
        ValueError: it holds NaN or infinity, which JSON has no word for.
        TypeError: it holds something that JSON cannot.
    """
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut, where the system lets a directory be flushed."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:  # Windows, and directories that may be written but not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)
