"""Build objectives and regularisers by name, whoever registered them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from clipalign.entries import Named, term
from clipalign.errors import ConfigError, PluginError, UsageError
from clipalign.objectives import Objective
from clipalign.objectives.weighted_sum import WeightedSum
from clipalign.options import explain
from clipalign.plugins import registry
from clipalign.regularisers import Regulariser

T = TypeVar("T")


def objective(name: str | Sequence[Named], /, **options: Any) -> Objective:
    """Build an objective, or a weighted sum of several.

        objective("dpo", beta=0.5)
        objective([{"dpo": {"weight": 0.7, "beta": 0.5}}, {"kto": {"weight": 0.3}}])

    Args:
        name: a registered objective, which `clipalign plugins list` shows; or a list as a recipe's
            key `objective` has it, each with its weight (1 when left out) and its own options.
        **options: those of the one objective; what is left out keeps its default.

    Raises:
        UsageError: no objective has that name.
        ConfigError: an option is unknown or out of bounds; the message lists them all.
        PluginError: the package that registered it cannot be imported or gave something else.
    """
    if not isinstance(name, str):
        if options:
            raise UsageError(
                "In a list of objectives each holds its own options, such as "
                "[{dpo: {beta: 0.5}}, kto]: move method_options into it."
            )
        if not name:
            raise UsageError(
                "The list `objective` is empty: name one at least, such as [dpo, kto]."
            )
        return WeightedSum([_term(i, item) for i, item in enumerate(name)])
    cls = _load("objectives", name, Objective)
    try:
        return cls(**options)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in explain(error, cls.Options))
        raise ConfigError(f"The objective {name!r} cannot use these options:\n{lines}") from None


def _term(place: int, item: Named) -> tuple[float, Objective]:
    """Weight and objective of one entry of a sum; errors say which entry it is."""
    try:
        weight, name, options = term(item)
    except ValueError as error:
        raise ConfigError(f"objective.{place}: {error}") from None
    try:
        return weight, objective(name, **options)
    except (UsageError, ConfigError) as error:
        raise type(error)(f"objective.{place}: {error}") from None


def regulariser(name: str) -> Regulariser:
    """Build a regulariser, such as `regulariser("forward-kl")`.

    Raises:
        UsageError: no regulariser has that name.
        PluginError: the package that registered it cannot be imported or gave something else.
    """
    return _load("regularisers", name, Regulariser)()


def _load(kind: str, name: str, base: type[T]) -> type[T]:
    found = registry(kind)
    loaded = found.load(name)
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        entry = found.entry(name)
        raise PluginError(
            f"The {kind[:-1]} {name!r} of {entry.package} {entry.version} is not one: "
            f"{entry.target} is {loaded!r}, not a subclass of {base.__module__}.{base.__name__}."
        )
    return loaded
