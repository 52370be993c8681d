"""What a public function is called with, as a notebook has it: made plain, or refused in words."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from clipalign.errors import UsageError

__all__ = ["check_options", "check_whole", "names", "plain", "plain_arguments"]

P = ParamSpec("P")
R = TypeVar("R")


def plain(value: Any) -> Any:
    """A number of numpy or torch as Python's own; so within mappings, lists and tuples.

    Files, hashes and checks of types are made for Python's numbers. An array of more than a number
    stays as it is.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    return value


def plain_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function be called with numbers of numpy or torch: it is given `plain` ones."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*map(plain, args), **{key: plain(v) for key, v in kwargs.items()})

    return called


def check_whole(name: str, value: Any, least: int, *, optional: bool = False) -> None:
    """Refuse what is not a whole number.

    Args:
        name: of the argument, for the message.
        value: as given.
        least: the smallest that there can be.
        optional: whether it may be None.

    Raises:
        UsageError: it is no whole number, or a smaller one.
    """
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{name} must be a whole number, such as {max(least, 1)}, not {value!r}.")
    if value < least:
        raise UsageError(f"{name} must be at least {least}, not {value}.")


def names(argument: str, given: Any) -> list[str]:
    """Names as a list, one of them perhaps without brackets.

    Args:
        argument: for the message.
        given: as the caller gave it.

    Raises:
        UsageError: it is neither text nor a list of texts.
    """
    several = isinstance(given, Iterable) and not isinstance(given, str)
    found = list(given) if several else [given]
    if not all(isinstance(name, str) for name in found):
        raise UsageError(f"{argument} must be a name or a list of names, not {given!r:.80}.")
    return found


def check_options(argument: str, given: Any) -> None:
    """Refuse options that are not given by their names.

    Raises:
        UsageError: there are some, and no mapping holds them.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(
            f'{argument} must be options by their names, such as {{"key": value}}, not '
            f"{given!r:.80}."
        )
