"""The options of what a configuration names: checked against it, which imports it (and torch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from clipalign.dataset_specs import is_table, locate_dataset
from clipalign.entries import named, term
from clipalign.errors import UsageError
from clipalign.options import option_problems
from clipalign.plugins import registry

__all__ = ["problems_in_options"]


def problems_in_options(tree: Mapping[str, Any], model: type[BaseModel]) -> list[str]:
    """Problems in the options of whatever has a known name, even where other keys are wrong.

    Args:
        tree: of a configuration, as YAML gives it.
        model: of the configuration, which has the defaults.
    """
    problems = []
    tasks = registry("tasks")
    task = tree.get("task", model.model_fields["task"].default)
    facts = tasks.entry(task).metadata if task in tasks.names() else {}
    for kind, key in (("objectives", "method"), ("tasks", "task"), ("datasets", "dataset")):
        own = facts.get(key) if key == "dataset" else None  # a task may have its own
        name = tree.get(key, own or model.model_fields[key].default)
        options = tree.get(f"{key}_options", {})
        if (key == "method" and tree.get("objective")) or not isinstance(options, dict):
            continue
        if key == "dataset":
            problems += _of_dataset(name, tree.get("data"), options)
        elif name in registry(kind).names():
            problems += option_problems(kind, name, options, f"{key}_options")
    for kind, key in (("objectives", "objective"), ("trackers", "trackers")):
        items = tree.get(key)
        for place, item in enumerate(items if isinstance(items, list | tuple) else ()):
            try:
                name, options = term(item)[1:] if key == "objective" else named(item)
            except ValueError:
                continue
            if name in registry(kind).names():
                problems += option_problems(kind, name, options, f"{key}.{place}.{name}")
    return problems


def _of_dataset(name: Any, data: Any, options: Mapping[str, Any]) -> list[str]:
    """Of the table that is given as data, or else of a registered dataset, folder or table."""
    spec = data if isinstance(data, str) and is_table(data) else str(name)
    known = spec.partition(":")[0] in registry("datasets").names()
    try:
        kind, options = locate_dataset(spec, options)
    except UsageError as error:  # of an unknown one the key itself says so
        return [f"dataset: {error}"] if known else []
    return option_problems("datasets", kind, options, "dataset_options")
