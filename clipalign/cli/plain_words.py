"""Types and values of options as a reader of YAML knows them, and not as Python writes them."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

__all__ = ["option_rows", "type_words", "value_words"]

_NAMES: dict[Any, str] = {
    bool: "true|false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "null",
    Any: "anything",
}


def option_rows(target: Any) -> list[dict[str, Any]]:
    """Name, type, default and description of each option of what is registered."""
    from clipalign.options import options_model

    model = options_model(target)
    return [
        {
            "name": name,
            "type": type_words(field.annotation),
            "default": (
                "required" if field.is_required() else field.get_default(call_default_factory=True)
            ),
            "description": field.description or "",
        }
        for name, field in (model.model_fields if model else {}).items()
    ]


def type_words(annotation: Any) -> str:
    """What may be given for an option: "number", "list of text", "note|outlined or null".

    Args:
        annotation: of a field, as Python has it.
    """
    if annotation in _NAMES:
        return _NAMES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(arguments[0])
    if origin is Literal:
        return "|".join(map(value_words, arguments))
    if origin in (Union, types.UnionType):
        kinds = [a for a in arguments if not (a is int and float in arguments)]
        return " or ".join(dict.fromkeys(map(type_words, kinds)))
    kind = origin or annotation
    if not isinstance(kind, type):
        return str(annotation).replace("typing.", "")
    if issubclass(kind, PurePath):
        return "path"
    if issubclass(kind, Mapping) or hasattr(kind, "model_fields"):
        return f"mapping of {' to '.join(map(type_words, arguments))}" if arguments else "mapping"
    if issubclass(kind, Collection):
        items = dict.fromkeys(type_words(a) for a in arguments if a is not Ellipsis)
        return f"list of {', '.join(items)}" if items else "list"
    return kind.__name__


def value_words(value: Any) -> str:
    """A value on one line of YAML: null, true, [a, b], {concepts: 10}."""
    import yaml

    # a list has brackets to cut off, where a bare scalar would end in a document mark
    text: str = yaml.safe_dump(
        [_plain(value)], default_flow_style=True, width=1 << 30, allow_unicode=True, sort_keys=False
    )
    return text.strip()[1:-1]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value if isinstance(value, str | int | float | bool | None) else str(value)
