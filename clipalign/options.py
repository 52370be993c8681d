"""The options of what is registered: a typed model, and its problems in words.

A target declares options by a nested pydantic model `Options`, or by the keyword parameters of its
constructor; either way they validate, and show up in `clipalign plugins show`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from clipalign.errors import ConfigError, PluginError, near_matches
from clipalign.plugins import registry

HOW_OPTIONS = (
    "`Options` declares what it takes, and an `__init__` of its own must call "
    "`super().__init__(**options)`"
)
"""What to do about a subclass of a base that keeps options, and has lost them."""


def component(kind: str, name: str, /, **options: Any) -> Any:
    """Build a dataset, task, suite, transform or tracker: kind "datasets", name "folder", ….

    Raises:
        UsageError: nothing of the kind has that name.
        ConfigError: an option is unknown or out of bounds; the message lists them all.
        PluginError: the package that registered it cannot be imported, or builds something else.
    """
    problems = option_problems(kind, name, options, "")
    if problems:
        lines = "\n".join(f"  {line.lstrip('.')}" for line in problems)
        raise ConfigError(
            f"The {kind[:-1]} {name!r} cannot use these options{_GIVEN.get(kind, '')}:\n{lines}"
        )
    built = registry(kind).load(name)(**options)
    if lacking := [a for a in _PROMISED.get(kind, ()) if not hasattr(built, a)]:
        how = f". {HOW_OPTIONS}" if "options" in lacking and kind == "trackers" else ""
        raise _no_component(kind, name, f"it has no {' and no '.join(lacking)}{how}")
    if kind in _NAMED and built.name != name:  # files and tables are named after it
        raise _no_component(kind, name, f"it calls itself {built.name!r}")
    return built


_GIVEN = {"tasks": " (--set KEY=VALUE)", "datasets": " (--set dataset.KEY=VALUE)"}
"""How a command takes the options of a kind."""

_PROMISED = {
    "datasets": (
        *("name", "classnames", "templates", "licence", "fingerprint"),
        *("splits", "examples", "image"),
    ),
    "tasks": ("name", "options", "fingerprint", "candidates", "rows"),
    "suites": ("name", "version", "dataset", "options", "run"),
    "transforms": ("frozen", "options", "fit"),
    "trackers": ("options", "start", "log", "finish"),
}
"""What the core asks of whatever is built."""

_NAMED = ("tasks", "suites")


def _no_component(kind: str, name: str, reason: str) -> PluginError:
    entry = registry(kind).entry(name)
    return PluginError(
        f"The {kind[:-1]} {name!r} of {entry.package} {entry.version} ({entry.target}) is none: "
        f"{reason}."
    )


def option_problems(kind: str, name: str, options: Mapping[str, Any], where: str) -> list[str]:
    """What is wrong with the options of one registered thing; imports it.

    Args:
        kind: of the registry.
        name: a registered name.
        options: as given.
        where: key path of `options`, which each line begins with.

    Raises:
        UsageError: for an unknown name.
        PluginError: when the target cannot be imported.
    """
    target = registry(kind).load(name)
    if not callable(target):
        raise _no_component(kind, name, "it cannot be called to build one")
    model = options_model(target)
    if model is None:
        return []
    try:
        model.model_validate(dict(options))
    except ValidationError as error:
        own = _parameters(target) - model.model_fields.keys()
        return [
            f"{where}.{line}" + (f" {HOW_OPTIONS}." if line.partition(":")[0] in own else "")
            for line in explain(error, model)
        ]
    return []


def _parameters(target: Any) -> set[str]:
    """Names of the arguments that build something; none where they cannot be told."""
    try:
        return set(inspect.signature(target).parameters)
    except (TypeError, ValueError):  # written in C
        return set()


def options_model(target: Any) -> type[BaseModel] | None:
    """The model of a target's options; None where it takes whatever it is given."""
    declared = getattr(target, "Options", None)
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        return declared
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # nothing that can be called, or written in C
        return None
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        return None
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # an annotation that exists for type checkers alone
        hints = {}
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in parameters
    }
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model(f"{target.__name__}Options", __config__=config, **fields)


def explain(
    error: ValidationError,
    model: type[BaseModel],
    place_of: Callable[[str], str | None] | None = None,
) -> list[str]:
    """One line a problem: the key's path, what is wrong, near matches for an unknown key.

    Args:
        error: what validation found.
        model: that did not validate.
        place_of: where a key belongs that is unknown at the top; it gives None for nowhere.
    """
    lines = []
    problems = _united(error.errors(include_url=False), model)
    for problem in problems:
        place = problem["loc"]
        *parents, last = place or ("",)
        where = ".".join(str(part) for part in place)
        if problem["type"] == "too_short" and _wrong_within(place, problems):
            continue  # what is wrong is not counted, and is said by itself
        if problem["type"] == "extra_forbidden":
            known = list(_below(model, parents))
            outer, _, inner = str(last).partition(".")
            if inner and outer in known:
                lines.append(f"{where}: in a file this is written {outer}: {{{inner}: …}}.")
                continue
            below = [
                f"{key}.{last}" for key in known if str(last) in _below(model, [*parents, key])
            ]
            if place_of and not below and not parents:
                below = list(filter(None, [place_of(str(last))]))
            words = f" Did you mean {below[0]!r}?" if below else near_matches(str(last), known)
            lines.append(f"{where}: unknown key.{words}")
            continue
        words = in_words(problem)
        if problem["type"] == "missing":
            field = _below(model, parents).get(str(last))
            got = f": {field.description}" if field and field.description else "."
        else:
            given = repr(problem["input"])
            given = given if len(given) <= 60 else f"{given[:57]}..."
            got = "" if problem["type"] == "value_error" else f" (got {given})"
        lines.append(f"{where}: {words}{got}" if where else f"{words}{got}")
    return lines


def _united(problems: Sequence[Any], model: type[BaseModel]) -> list[Mapping[str, Any]]:
    """The problems, those of a value that may be of several kinds as one that names them all.

    Pydantic gives one a kind, each at a place of its own: "alpha.float", "alpha.literal['auto']".
    """
    found: list[Any] = []
    united: dict[tuple[Any, ...], int] = {}
    for problem in problems:
        place = _place_of_union(problem["loc"], model)
        if place is None:
            found.append(problem)
        elif place not in united:
            united[place] = len(found)
            found.append({**problem, "loc": place, "type": "union", "msg": in_words(problem)})
        else:
            first = found[united[place]]
            words = in_words(problem).removeprefix("must be ").removeprefix("should be ")
            if words not in first["msg"]:
                found[united[place]] = {**first, "msg": f"{first['msg']}, or {words}"}
    return found


def _place_of_union(place: tuple[Any, ...], model: type[BaseModel]) -> tuple[Any, ...] | None:
    """The part of a place that leads to a field of several kinds; None where there is no such."""
    for i in range(1, len(place)):
        field = _below(model, place[: i - 1]).get(str(place[i - 1]))
        if field is None or get_origin(field.annotation) not in (Union, UnionType):
            continue
        kinds = get_args(field.annotation)
        if len(kinds) - (NoneType in kinds) > 1:
            return place[:i]
    return None


_NUMBER, _WHOLE = "must be a number, such as 0.5", "must be a whole number, such as 3"
_LIST, _KEYS = "must be a list, such as [a, b]", "must hold keys and values, such as {key: value}"
_TRUTH, _TEXT = "must be true or false", "must be text"
_IN_WORDS = {
    "missing": "must be given",
    **dict.fromkeys(("float_parsing", "float_type", "decimal_parsing"), _NUMBER),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), _WHOLE),
    **dict.fromkeys(("bool_parsing", "bool_type"), _TRUTH),
    **dict.fromkeys(("string_type", "path_type"), _TEXT),
    **dict.fromkeys(("list_type", "tuple_type"), _LIST),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _KEYS),
    "string_too_short": "must not be empty",
}
"""What pydantic says in its own terms, by the type of the problem."""


def in_words(problem: Mapping[str, Any]) -> str:
    """What is wrong in one of pydantic's errors, for who types a value."""
    if problem["type"] == "too_short":
        least = problem["ctx"]["min_length"]
        return f"must have {least} {'entry' if least == 1 else 'entries'} at least"
    said: str = problem["msg"]
    own = said.removeprefix("Value error, ").removeprefix("Input ")
    return _IN_WORDS.get(problem["type"], own)


def _wrong_within(place: tuple[Any, ...], problems: Sequence[Mapping[str, Any]]) -> bool:
    return any(p["loc"][: len(place)] == place and p["loc"] != place for p in problems)


def _below(model: type[BaseModel], parents: Sequence[Any]) -> dict[str, FieldInfo]:
    """Fields known below `parents`."""
    for parent in parents:
        field = model.model_fields.get(str(parent))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            return {}
        model = inner[0]
    return dict(model.model_fields)
