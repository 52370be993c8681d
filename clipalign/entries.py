"""Entries of the lists of a configuration: a registered name, alone or with its options.

objective: [{dpo: {weight: 0.7, beta: 0.1}}, {kto: {weight: 0.3}}]
trackers: [tensorboard, {wandb: {project: clip}}]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator

from clipalign.errors import UsageError
from clipalign.plugins import registry

__all__ = ["Named", "TermEntry", "TrackerEntry", "named", "sum_name", "term"]

Named: TypeAlias = str | dict[str, dict[str, Any] | None]
"""An entry of a list: a registered name, or one name with its options, {dpo: {weight: 0.7}}."""


def named(item: Any) -> tuple[str, dict[str, Any]]:
    """Name and options of an entry.

    Raises:
        ValueError: it is neither a name nor one name with its options.
    """
    name, options = item, None
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, options),) = item.items()
    if not isinstance(name, str):
        raise ValueError(
            "must be a name, or one name with its options, such as {dpo: {weight: 0.7}}"
        )
    if not isinstance(options, Mapping | None):
        raise ValueError(f"the options of {name!r} must be keys with values")
    return name, dict(options or {})


def term(item: Any) -> tuple[float, str, dict[str, Any]]:
    """Weight, name and options of an entry of `objective`.

    Raises:
        ValueError: it is no entry, or its weight is not a positive number.
    """
    name, options = named(item)
    weight = options.pop("weight", 1.0)
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 < weight < math.inf:
        raise ValueError(f"the weight of {name!r} must be a positive number (got {weight!r})")
    return float(weight), name, options


def _term_entry(item: Any) -> Any:
    registry("objectives").entry(term(item)[1])
    return item


def _tracker_entry(item: Any) -> Any:
    registry("trackers").entry(named(item)[0])
    return item


def _in_words(check: Callable[[Any], Any]) -> BeforeValidator:
    """A validator that gives an unknown name as a problem of its entry."""

    def checked(item: Any) -> Any:
        try:
            return check(item)
        except UsageError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(checked)


def sum_name(entries: Sequence[Any]) -> str:
    """What a weighted sum is called: "dpo+kto"."""
    return "+".join(named(item)[0] for item in entries)


TermEntry: TypeAlias = Annotated[Named, _in_words(_term_entry)]
"""An entry of `objective`, checked."""

TrackerEntry: TypeAlias = Annotated[Named, _in_words(_tracker_entry)]
"""An entry of `trackers`, checked."""
