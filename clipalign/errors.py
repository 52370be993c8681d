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
