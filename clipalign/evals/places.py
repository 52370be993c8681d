"""Where a result lies in a folder of results, so that none stands in the place of another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipalign.datasets.base import Dataset
from clipalign.datasets.locate import label_of, place_of
from clipalign.errors import DataError, UsageError
from clipalign.evals.results import SuiteResult, read_result

__all__ = ["check_place", "planned_path", "result_path"]


def result_path(output: str | Path, result: SuiteResult) -> Path:
    """Where a result lies in a folder of results: <suite>-<dataset>-<split>.json.

    A dataset that reads whatever it is pointed at is called after that as well:
    typographic-table-notes-test.json for notes.csv.
    """
    data = result.dataset
    return planned_path(output, result.suite, data.name, data.options, data.split)


def check_place(
    output: str | Path, suite: str, data: Dataset, options: Mapping[str, Any], split: str
) -> bool:
    """Refuse to write a result over that of other data, before anything is measured.

    The same data, wherever it lies, and data that changed where it lies are measured again.

    Args:
        output: folder of the results.
        suite: that measures.
        data: what is measured.
        options: that it was built with.
        split: of it.

    Returns:
        Whether there is a result of that data, which can be read.

    Raises:
        UsageError: the file there is of data in another place.
    """
    path = planned_path(output, suite, data.name, options, split)
    if not path.exists():
        return False
    try:
        there = read_result(path, check_rows=False).dataset
    except DataError:  # damaged, or of another version: it can be read by nobody
        return False
    theirs, ours = place_of(there.name, there.options), place_of(data.name, options)
    if there.fingerprint == data.fingerprint or _resolved(theirs) == _resolved(ours):
        return True
    raise UsageError(
        f"{path} holds the result of other data of that name, {theirs or there.name}, and that of "
        f"{ours or data.name} would take its place. Name another folder for it (--output DIR, in "
        "Python output=DIR), or remove the file."
    )


def planned_path(
    output: str | Path, suite: str, dataset: str, options: Mapping[str, Any], split: str
) -> Path:
    """Where a result will lie; see `result_path`."""
    parts = (suite, label_of(dataset, options), split)
    names = [re.sub(r"[^\w.-]+", "_", part.replace(" ", "-")) for part in parts]
    return Path(output) / f"{'-'.join(names)}.json"


def _resolved(place: str | None) -> Path | None:
    return None if place is None else Path(place).resolve()
