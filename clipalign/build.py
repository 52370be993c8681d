"""Build objectives and regularisers by name, whoever registered them."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from clipalign.errors import ConfigError, PluginError
from clipalign.objectives import Objective
from clipalign.options import explain
from clipalign.plugins import registry
from clipalign.regularisers import Regulariser

T = TypeVar("T")


def objective(name: str, /, **options: Any) -> Objective:
    """Build an objective, such as `objective("dpo", beta=0.5)`.

    Args:
        name: a registered objective; `clipalign plugins list` shows them.
        **options: its options; those left out keep their defaults.

    Raises:
        UsageError: no objective has that name.
        ConfigError: an option is unknown or out of bounds; the message lists them all.
        PluginError: the package that registered it cannot be imported or gave something else.
    """
    cls = _load("objectives", name, Objective)
    try:
        return cls(**options)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in explain(error, cls.Options))
        raise ConfigError(f"The objective {name!r} cannot use these options:\n{lines}") from None


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
