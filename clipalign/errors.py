"""The exceptions that clipalign raises, and the exit code each one ends a command with.

    ClipAlignError            1   anything below, or an error of no closer kind
    ├── UsageError            2   an unknown name or a bad option on the command line
    ├── ConfigError           3   a configuration that does not validate (all problems at once)
    ├── PluginError           4   a plugin that is broken, clashes, or was asked for and is absent
    ├── DataError             5   images, tables or preference sets that cannot be used
    ├── ModelError            6   a model spec, checkpoint or architecture that cannot be used
    ├── RunError              7   a run directory that is in use, half-written or not a run
    ├── TrainingError         8   training that cannot go on (non-finite loss, no gradient, …)
    └── StorageError          9   the disk is full or not writable
    Interrupted             130   Ctrl-C or SIGTERM; what was done is saved

Every message says what is wrong, where, and what to do. A command prints it without a traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

__all__ = [
    "ClipAlignError",
    "ConfigError",
    "DataError",
    "Interrupted",
    "ModelError",
    "PluginError",
    "RunError",
    "StorageError",
    "TrainingError",
    "UsageError",
]


class ClipAlignError(Exception):
    """Base of all clipalign errors. `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(ClipAlignError):
    """An unknown name or a bad option."""

    exit_code = 2


class ConfigError(ClipAlignError):
    """A configuration that does not validate."""

    exit_code = 3


class PluginError(ClipAlignError):
    """A plugin that is broken, clashes with another, or is not installed."""

    exit_code = 4


class DataError(ClipAlignError):
    """Images, tables or preference sets that cannot be used."""

    exit_code = 5


class ModelError(ClipAlignError):
    """A model spec, checkpoint or architecture that cannot be used."""

    exit_code = 6


class RunError(ClipAlignError):
    """A run directory that is in use, half-written, or not a run."""

    exit_code = 7


class TrainingError(ClipAlignError):
    """Training that cannot go on."""

    exit_code = 8


class StorageError(ClipAlignError):
    """The disk is full or not writable."""

    exit_code = 9


class Interrupted(ClipAlignError):
    """Ctrl-C or SIGTERM arrived; what was done has been saved."""

    exit_code = 130


def near_matches(name: str, known: Iterable[str]) -> str:
    """Say which of `known` comes nearest to `name`, for the end of an error message.

    Returns:
        " Did you mean 'a' or 'b'?" where something is near, else " Known: a, b, c."; empty when
        nothing is known.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return " Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return f" Known: {', '.join(known)}." if known else ""


def from_machine(error: BaseException) -> ClipAlignError | None:
    """What the machine refused, in words; None for an error that is not the machine's."""
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, MemoryError):
        return ClipAlignError(_NO_MEMORY)
    # torch and Python have no classes of their own for these; an error of a plugin's own class may
    # not even be printable
    if not (isinstance(error, RuntimeError) and type(error).__module__ in ("builtins", "torch")):
        return None
    said = str(error)
    if "memory" in said and "alloc" in said:
        return ClipAlignError(_NO_MEMORY)
    if "Too many open files" in said:
        return _of_the_system(OSError(errno.EMFILE, said))
    if "can't start new thread" in said:
        return ClipAlignError(
            "The machine, or what this command may use of it (ulimit -u, ulimit -v, a container's "
            "limit), starts no more threads. Use fewer workers; what was saved is whole."
        )
    return None


_NO_MEMORY = (
    "The machine, or what this command may use of it (ulimit -v, a container's limit), is out of "
    "memory. Use a smaller batch, fewer workers or a smaller model; what was saved is whole."
)


def _of_the_system(error: OSError) -> ClipAlignError | None:
    place = f" ({error.filename})" if error.filename else ""
    match error.errno:
        case errno.ENOMEM:
            return ClipAlignError(_NO_MEMORY)
        case errno.ENOSPC | errno.EDQUOT:
            return StorageError(f"The disk is full{place}. Free some space and run this again.")
        case errno.EMFILE | errno.ENFILE:
            return StorageError(
                f"Too many files are open{place}. Raise the limit (ulimit -n), or use fewer "
                "workers."
            )
        case errno.EFBIG:
            return StorageError(
                f"A file is larger than this disk or your limits allow{place}. Choose another "
                "place."
            )
        case errno.ENAMETOOLONG:
            return UsageError(f"A name is longer than this disk allows{place}.")
        case errno.EROFS:
            return StorageError(
                f"The disk is read-only{place}. Choose another place with --output."
            )
        case errno.EACCES | errno.EPERM:
            return StorageError(
                f"No permission to read or write{place}. Change the permissions, or choose "
                "another place with --output."
            )
    return None
