"""A plain function as an objective, for trying one out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from pydantic import create_model
from torch import Tensor

from clipalign.objectives.base import Objective, ObjectiveOptions, PolicyBatch

__all__ = ["from_function"]


def from_function(function: Callable[..., Tensor]) -> type[Objective]:
    """The objective that a function is: PolicyBatch, options by keyword → per-image loss [B].

    It takes rows with both texts, and may read the reference and rewards; for anything else write a
    class.

    Args:
        function: its parameters after the first are the options and have defaults.

    Raises:
        TypeError: a parameter after the first has no default.
    """
    name = getattr(function, "__name__", type(function).__name__)
    _, *options = inspect.signature(function).parameters.values()
    if bare := [p.name for p in options if p.default is p.empty]:
        raise TypeError(f"{name} takes a batch, and options that have defaults: {bare[0]} has none")
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # annotations for type checkers alone, or no function
        hints = {}
    fields: dict[str, Any] = {p.name: (hints.get(p.name, Any), p.default) for p in options}
    model = create_model(f"{name}Options", __base__=ObjectiveOptions, **fields)

    class OfFunction(Objective):
        Options = model
        takes_rewards = True

        def forward(self, batch: PolicyBatch) -> Tensor:
            return function(batch, **dict(self.options))

    OfFunction.__doc__ = inspect.getdoc(function)
    OfFunction.__name__ = OfFunction.__qualname__ = name
    OfFunction.__module__ = str(getattr(function, "__module__", __name__))
    return OfFunction
