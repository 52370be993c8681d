"""Build objectives and regularisers by name, whoever registered them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from clipalign.arguments import plain_arguments
from clipalign.entries import Named, term
from clipalign.errors import ConfigError, PluginError, UsageError
from clipalign.objectives import Objective, PolicyBatch
from clipalign.objectives.weighted_sum import WeightedSum
from clipalign.options import HOW_OPTIONS, explain
from clipalign.plugins import owner_of, registry
from clipalign.regularisers import Regulariser

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


@plain_arguments
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
        if not isinstance(name, list | tuple):
            raise UsageError(
                f"An objective is built from its name or from a list, and not from {name!r:.80}."
            )
        if not name:
            raise UsageError(
                "The list `objective` is empty: name one at least, such as [dpo, kto]."
            )
        return WeightedSum([_term(i, item) for i, item in enumerate(name)])
    cls = _load("objectives", name, Objective)
    requires = get_args(get_type_hints(Objective)["requires"])
    if cls.requires not in requires or not _is_model(cls.Options):
        raise PluginError(
            f"The objective {name!r} of {owner_of(cls)} is none: its `requires` must be one of "
            f"{', '.join(requires)}, and its `Options` a pydantic model."
        )
    weight = cls.regulariser_weight
    if not (isinstance(weight, int | float) and 0 <= weight < math.inf):
        raise PluginError(
            f"The objective {name!r} of {owner_of(cls)} has {weight!r:.60} for "
            "`regulariser_weight`, which must be a number, 0 or more."
        )
    try:
        built = cls(**options)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in explain(error, cls.Options))
        raise ConfigError(f"The objective {name!r} cannot use these options:\n{lines}") from None
    who = f"The objective {name!r} of {owner_of(cls)}"
    if not hasattr(built, "options"):
        raise PluginError(f"{who} is none: it has no options. {HOW_OPTIONS}.")
    return _guarded(built, who)


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
    cls = _load("regularisers", name, Regulariser)
    return _guarded(cls(), f"The regulariser {name!r} of {owner_of(cls)}")


def _guarded(module: M, who: str) -> M:
    """The module, made to check that it gives one loss an image and leaves its input alone."""
    versions: list[int] = []

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        versions[:] = [tensor._version for tensor in _tensors(inputs)]

    def after(_: nn.Module, inputs: tuple[Any, ...], loss: Any) -> None:
        tensors = _tensors(inputs)
        if versions != [tensor._version for tensor in tensors]:
            raise PluginError(f"{who} changed its input in place, which it must leave alone.")
        rows = tensors[0].shape[:1]
        if not isinstance(loss, Tensor):
            given = f"{loss!r:.100}"
        elif loss.shape != rows or loss.dtype != tensors[0].dtype:
            given = f"{loss.dtype} {list(loss.shape)}"
        else:
            return
        raise PluginError(
            f"{who} must give one loss an image, {tensors[0].dtype} {list(rows)}, and gave {given}."
        )

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)
    return module


def _tensors(inputs: tuple[Any, ...]) -> list[Tensor]:
    """What an objective (a batch) or a regulariser (two tensors) is called with."""
    (first, *others) = inputs
    if isinstance(first, PolicyBatch):
        return [first.policy, first.reference, first.chosen, first.rejected]
    return [first, *others]


def _is_model(options: object) -> bool:
    return isinstance(options, type) and issubclass(options, BaseModel)


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
