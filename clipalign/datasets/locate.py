"""From what a user names to a dataset: a registered name, a folder, or a table file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipalign.datasets.base import Dataset
from clipalign.errors import UsageError, near_matches
from clipalign.options import component
from clipalign.plugins import registry

__all__ = ["load_dataset", "locate_dataset"]

TABLES = (".csv", ".jsonl", ".parquet")


def locate_dataset(spec: str | Path, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The registered name and the options that a spec stands for.

        locate_dataset("emoji", {}) == ("emoji", {})
        locate_dataset("./photos", {}) == ("folder", {"root": "./photos"})
        locate_dataset("photos/index.csv", {}) == ("table", {"path": "photos/index.csv"})

    Raises:
        UsageError: it is neither a registered name nor a path that exists.
    """
    known = registry("datasets").names()
    if isinstance(spec, str) and spec in known:
        return spec, dict(options)
    path = Path(spec)
    if path.is_dir():
        return "folder", {"root": str(spec), **options}
    if path.is_file() and path.suffix.lower() in TABLES:
        return "table", {"path": str(spec), **options}
    if path.exists():
        raise UsageError(f"{path} is neither a folder nor a table ({', '.join(TABLES)}).")
    raise UsageError(
        f"There is no dataset, folder or table {str(spec)!r}.{near_matches(str(spec), known)}"
    )


def load_dataset(spec: str | Path, options: Mapping[str, Any]) -> Dataset:
    """Build the dataset that a spec stands for.

    Raises:
        UsageError: there is none.
        ConfigError: an option is unknown or out of bounds.
        DataError: what it names cannot be used.
    """
    name, options = locate_dataset(spec, options)
    dataset: Dataset = component("datasets", name, **options)
    return dataset
