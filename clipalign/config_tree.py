"""The plain tree of a configuration, before it is checked: where it comes from, and its keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipalign.arguments import plain
from clipalign.errors import ConfigError, UsageError
from clipalign.plain_yaml import read_yaml_mapping
from clipalign.plugins import registry

__all__ = ["assign", "task_of_set", "tree_of"]


def tree_of(given: object) -> dict[str, Any]:
    """The keys and values of a YAML file or of a mapping, whose own are left alone.

    Raises:
        ConfigError: the file cannot be read.
        UsageError: it is neither.
    """
    if given is None:
        return {}
    if isinstance(given, str | os.PathLike):
        return read_yaml_mapping(Path(given))
    if isinstance(given, Mapping):
        tree: dict[str, Any] = plain(given)
        return {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in tree.items()}
    raise UsageError(
        "A configuration is a YAML file or keys and values, such as {'method': 'kto'}, and not a "
        f"{type(given).__name__}."
    )


def task_of_set(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The task that a prepared set was made for, where the tree names the set and no task."""
    data = tree.get("data")
    if "task" in tree or not isinstance(data, str) or not data:
        return {}
    try:
        made = read_yaml_mapping(Path(data) / "manifest.yaml").get("task")
    except ConfigError:  # a table, or what opening the set says more of
        return {}
    return {"task": made} if made in registry("tasks").names() else {}


def assign(tree: dict[str, Any], key: str, value: Any, source: str) -> list[str]:
    """Set tree["a"]["b"] for "a.b"; a problem where "a" holds no keys."""
    *parents, last = key.split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        if not isinstance(tree[parent], dict):
            return [f"{source}: {parent} holds a value and no keys"]
        tree = tree[parent]
    tree[last] = value
    return []
