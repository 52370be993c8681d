"""What is proved before any weight moves: that every row can feed the objective, and the start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clipalign.errors import DataError
from clipalign.tasks.preference_set import PreferenceRow
from clipalign.training.checks import check_feedback

PAIR = ("chosen", "rejected")


def row(name: str, chosen: str | None, rejected: str | None) -> PreferenceRow:
    return PreferenceRow(Path(), f"{name}.png", None, chosen, rejected)


def test_a_row_that_cannot_feed_the_objective_is_refused_in_every_split_that_is_read() -> None:
    rows = {
        "train": (row("a", "cat", "dog"), row("kept", None, None)),
        "validation": (row("b", "cat", "dog"), row("c", "cat", None)),
    }
    preferences: Any = SimpleNamespace(rows=rows.__getitem__)
    check_feedback(preferences, ["train"], "dpo", PAIR)
    check_feedback(preferences, ["train", "validation"], "kto", ())
    with pytest.raises(DataError, match=r"'dpo' needs chosen and rejected .* c\.png has no rej"):
        check_feedback(preferences, ["train", "validation"], "dpo", PAIR)
