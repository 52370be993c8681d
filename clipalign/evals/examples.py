"""The images of a split as a suite encodes them: each as it is, and those that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipalign._version import __version__
from clipalign.datasets.base import Dataset, Example, cache_key, rgb_image
from clipalign.errors import DataError
from clipalign.evals.features import Encoded, ImageSet

__all__ = ["image_set", "readable", "unreadable_rows"]

_LISTED = 20  # unreadable images that the warning names; the rows name them all


def image_set(dataset: Dataset, split: str, examples: Sequence[Example]) -> ImageSet:
    """N examples of a split, one view each, nothing drawn on them."""
    names = [example.key for example in examples]
    identity = {
        "clipalign": __version__,
        "dataset": [dataset.name, cache_key(dataset), split],
        "examples": names,
        "views": [[None, 0]],
    }
    return ImageSet(identity, names, 1, lambda item: [rgb_image(dataset, examples[item])])


def readable(
    examples: Sequence[Example], encoded: Encoded
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Indices of the examples that could be read and drawn on, and a warning where some could not.

    Raises:
        DataError: none could.
    """
    reasons = encoded.unreadable
    rows = np.array([i for i in range(len(examples)) if i not in reasons], np.int64)
    if not len(rows):
        why = next(iter(reasons.values()), "there is none")
        raise DataError(f"None of the {len(examples)} images can be used. The first: {why}")
    if not reasons:
        return rows, []
    listed = [(examples[i].key, why) for i, why in [*reasons.items()][:_LISTED]]
    # a reason that begins with the name of the file says it once
    named = "; ".join(f"{k} ({why.removeprefix(f'{k}: ').rstrip('.')})" for k, why in listed)
    more = f"; and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
    return rows, [
        f"{len(reasons)} of {len(examples)} images could not be used and are left out: "
        f"{named}{more}."
    ]


def unreadable_rows(examples: Sequence[Example], encoded: Encoded) -> Iterator[dict[str, Any]]:
    """A row for each example that could not be read or drawn on, with the reason."""
    for item, why in sorted(encoded.unreadable.items()):
        example = examples[item]
        yield {"key": example.key, "label": example.label, "unreadable": why}
