"""As many images of each value within every activity, so that no activity gives the value away."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from clipalign.errors import DataError
from clipalign.option_flags import task_option

__all__ = ["Reading", "balance_note", "balanced", "spread"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Reading:
    """What an image shows.

    Attributes:
        activity: "" where it is not known.
        noun: whether the activity reads as a noun.
        value: of the concept.
    """

    activity: str
    noun: bool
    value: str


def balanced(readings: Sequence[Reading | None]) -> list[int]:
    """Which images to use: of each activity as many of every value, spread over their order.

    Args:
        readings: of all images; None for one that cannot be read, which stays and is quarantined.

    Returns:
        Indices, ascending. Activities that lack a value that others have are left out.
    """
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, reading in enumerate(readings):
        if reading is not None:
            groups[reading.activity][reading.value].append(i)
    values = {reading.value for reading in readings if reading is not None}
    used = [i for i, reading in enumerate(readings) if reading is None]
    for members in groups.values():
        least = min(len(members[value]) for value in values)
        for indices in members.values():
            used += spread(indices, least)
    return sorted(used)


def balance_note(readings: Sequence[Reading], where: str, balance: bool) -> str:
    """Says how unequal the groups are, and what is done about it; "" where they are equal.

    Args:
        readings: of the images that can be read.
        where: they are, to begin the sentence with.
        balance: whether `balanced` chooses among them.

    Raises:
        DataError: `balanced` would leave nothing.
    """
    cells = Counter((reading.activity, reading.value) for reading in readings)
    counts = Counter(reading.value for reading in readings)
    activities = {reading.activity for reading in readings}
    if all(len({cells[a, value] for value in counts}) == 1 for a in activities):
        return ""
    listed = ", ".join(f"{count:,} {value!r}" for value, count in sorted(counts.items()))
    found = f"{where} has unequal groups ({listed}"
    within = ", also within activities)" if len(activities) > 1 else ")"
    if not balance:
        return f"{found}{within}; they are used as they are, since balance is off."
    each = sum(min(cells[a, value] for value in counts) for a in activities)
    if not each:
        raise DataError(
            f"{found}{within}, and no activity has all of them, so that nothing is left when they "
            f"are balanced. Use them as they are with {task_option('balance=false')}."
        )
    lacking = sum(any(not cells[a, value] for value in counts) for a in activities)
    how = ", as many of each within every activity" if len(activities) > 1 else ""
    left = f"; activities that lack one are left out: {lacking}" if lacking else ""
    return f"{found}{within}: {each:,} of each are used{how}{left}. With balance=false, all are."


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, at even distances: the same ones every time."""
    return [items[i * len(items) // count] for i in range(count)]
