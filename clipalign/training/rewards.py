"""What the texts of preferences are worth, as the rows of a set say it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clipalign.errors import DataError
from clipalign.tasks.base import REWARDS
from clipalign.tasks.preference_set import PreferenceRow

__all__ = ["rewards_of"]


def rewards_of(rows: Sequence[PreferenceRow], *, needed: bool) -> Tensor | None:
    """What each row says that its two texts are worth.

    Args:
        rows: P of them.
        needed: whether the objective reads it.

    Returns:
        [P, 2], 0 for a missing text; None where no row says it, or not every row does and no
        objective needs it.

    Raises:
        DataError: not every row says it, in numbers, and it is needed.
    """
    if not any(row.columns.get(name) for row in rows for name in REWARDS):
        return None
    of_chosen, of_rejected = REWARDS
    try:
        found = [
            [_reward(row, of_chosen, row.chosen), _reward(row, of_rejected, row.rejected)]
            for row in rows
        ]
    except DataError:
        if needed:
            raise
        return None
    return torch.tensor(found)


def _reward(row: PreferenceRow, column: str, text: str | None) -> float:
    if text is None:
        return 0.0
    cell = row.columns.get(column)
    try:
        value = float(str(cell))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"The {column} of {row.image} is {cell!r}. Where one row of a set says what its texts "
            "are worth all must, in numbers: fill the column in, or give it another name."
        )
    return value
