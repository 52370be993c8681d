"""From what a user names to a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipalign.dataset_specs import is_table, label_of, locate_dataset, not_named, place_of
from clipalign.datasets.base import Dataset
from clipalign.errors import UsageError
from clipalign.options import component

__all__ = ["in_memory", "is_table", "label_of", "load_dataset", "locate_dataset", "place_of"]


def in_memory(dataset: object) -> Dataset:
    """A dataset that was handed over, and not named.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(dataset, Dataset):
        raise UsageError(not_named(dataset))
    return dataset


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
