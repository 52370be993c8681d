"""Removing a run directory, and nothing else. Imports no torch."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from clipalign.errors import ConfigError, RunError
from clipalign.files import storage_errors
from clipalign.plain_yaml import read_yaml_mapping
from clipalign.training.rundir import RunDirectory

__all__ = ["Removal", "check_removal", "remove_run"]

_OF_A_RUN = frozenset(
    {
        "config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "model", "results",
        "linear_map.safetensors", "manifest.yaml", "scan.json", "SHA256SUMS", ".lock", "report",
        "report.html", "model-open_clip", "model-transformers", "model-onnx",
    }
)  # fmt: skip
_IN_A_CONFIG = ("model", "task", "method", "trainable", "train")
_NAMED = 5


@dataclass(frozen=True)
class Removal:
    """A run that may be removed: its directory, and how many bytes lie in it."""

    path: Path
    bytes: int


def check_removal(path: Path, *, strangers: bool = False) -> Removal:
    """Whether a directory is a run, no more and no less, that nobody is using.

    Args:
        path: as named by the user.
        strangers: let files be in it that no run writes.

    Raises:
        RunError: it is not, or is a link to one, or a process is training in it.
    """
    if path.is_symlink():
        raise RunError(
            f"{path} is a link to {os.readlink(path)}, and is left alone. Name the directory "
            "itself, or remove the link yourself."
        )
    config = path / "config.yaml"
    if not path.is_dir() or not config.is_file() or config.is_symlink():
        raise RunError(f"{path} is not a run directory, and is left alone.")
    try:
        keys = read_yaml_mapping(config)
    except ConfigError as error:
        raise RunError(
            f"{path} is left alone: its config.yaml cannot be read, so it may be something else. "
            f"{error}"
        ) from None
    lacking = [key for key in _IN_A_CONFIG if key not in keys]
    if lacking:
        raise RunError(
            f"{path} is left alone: its config.yaml has no {' and no '.join(lacking)}, so it is "
            "not the resolved configuration that a run writes."
        )
    others = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name not in _OF_A_RUN and not entry.name.startswith((".clipalign-", ".model-"))
    )
    if others and not strangers:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        raise RunError(
            f"{path} is left alone: it holds {', '.join(others[:_NAMED])}{more}, which no run "
            "writes. Move that away, or remove it too with --force."
        )
    with RunDirectory(path).lock():  # raises where a process is training in it
        pass
    return Removal(path, _size(path))


def remove_run(path: Path, *, strangers: bool = False) -> None:
    """Remove a run directory. Links in it are removed, and what they lead to is not.

    The directory is renamed first, so that a removal that is cut short leaves no half of a run.

    Args:
        path: as named by the user.
        strangers: see `check_removal`.

    Raises:
        RunError: see `check_removal`.
        StorageError: it cannot be removed.
    """
    check_removal(path, strangers=strangers)
    place = path.resolve()
    doomed = place.with_name(f".{place.name}.removing-{os.getpid()}")
    with RunDirectory(path).lock(), storage_errors(path):
        place.rename(doomed)
        shutil.rmtree(doomed)


def _size(path: Path) -> int:
    """Bytes of the files below; links count as nothing."""
    total = 0
    for folder, _, files in os.walk(path):  # which does not follow links
        for name in files:
            file = Path(folder) / name
            if not file.is_symlink():
                total += file.stat().st_size
    return total
