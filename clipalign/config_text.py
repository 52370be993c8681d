"""A configuration as YAML, with or without what each key means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from clipalign.config import RunConfig

__all__ = ["dump_config"]


def dump_config(config: RunConfig, *, comments: bool = False) -> str:
    """The configuration as YAML that `load_config` reads back to an equal one.

    Args:
        config: what to write.
        comments: say above each key what it is.
    """
    return "".join(_dump(config, comments, indent=0))


def _dump(config: BaseModel, comments: bool, indent: int) -> Iterator[str]:
    plain: Mapping[str, Any] = config.model_dump(mode="json")
    margin = " " * indent
    for name, field in type(config).model_fields.items():
        if comments:
            yield f"{margin}# {field.description}{_choices(field.annotation)}\n"
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield f"{margin}{name}:\n"
            yield from _dump(value, comments, indent + 2)
        else:
            text = _yaml({name: plain[name]})
            yield "".join(f"{margin}{line}\n" for line in text.removesuffix("\n").split("\n"))


def _yaml(tree: dict[str, Any]) -> str:
    text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    if {"\x85", "\u2028", "\u2029"} & set(text):  # written bare, they read back as spaces
        text = yaml.safe_dump(tree, sort_keys=False)
    return text


def _choices(annotation: Any) -> str:
    names = [str(a) for a in get_args(annotation) if isinstance(a, str)]
    return f" One of {', '.join(names)}." if names else ""
