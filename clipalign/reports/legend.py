"""What stands under a table whose names do not explain themselves. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["LEGEND", "legend"]

LEGEND: Final = {
    "ece": "ECE: the mean gap between the model's confidence and its accuracy.",
    "conditional_asr": "conditional ASR: attack success over images that are right when clean.",
    "margin": "margin: how far the chosen text gained on the rejected one, against the reference.",
    "regulariser": "regulariser: distance to the reference on clean images, before the weight λ.",
}
"""Names that do not explain themselves, and what they stand for, by the end of the name."""


def legend(names: Iterable[str]) -> list[str]:
    """A sentence for each of these names that needs one."""
    names = list(names)
    return [
        words
        for end, words in LEGEND.items()
        if any(name == end or name.endswith(f"_{end}") for name in names)
    ]
