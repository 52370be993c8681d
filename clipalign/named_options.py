"""The options of what a configuration names: checked against it, which imports it (and torch)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from clipalign.dataset_specs import is_table, locate_dataset
from clipalign.entries import named, term
from clipalign.errors import UsageError
from clipalign.options import option_problems, options_model
from clipalign.plugins import registry

__all__ = ["as_written", "place_of_option", "problems_in_options"]

_KINDS = (("objectives", "method"), ("tasks", "task"), ("datasets", "dataset"))


def problems_in_options(tree: Mapping[str, Any], model: type[BaseModel]) -> list[str]:
    """Problems in the options of whatever has a known name, even where other keys are wrong.

    Args:
        tree: of a configuration, as YAML gives it.
        model: of the configuration, which has the defaults.
    """
    problems = []
    tasks = registry("tasks")
    task = tree.get("task", model.model_fields["task"].default)
    facts = tasks.entry(task).metadata if isinstance(task, str) and task in tasks.names() else {}
    for kind, key in _KINDS:
        own = facts.get(key) if key == "dataset" else None  # a task may have its own
        name = tree.get(key, own or model.model_fields[key].default)
        options = tree.get(f"{key}_options", {})
        if (key == "method" and tree.get("objective")) or not isinstance(options, dict):
            continue
        if key == "dataset":
            problems += _of_dataset(name, tree.get("data"), options)
        elif isinstance(name, str) and name in registry(kind).names():
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


def place_of_option(tree: Mapping[str, Any], model: type[BaseModel], key: str) -> str | None:
    """Where an option belongs that was given as a key of the configuration; None if nowhere.

        place_of_option({"method": "dpo"}, RunConfig, "beta") == "method_options.beta"

    It imports the method, task and dataset that the tree names.
    """
    for kind, owner in _KINDS:
        name = tree.get(owner, model.model_fields[owner].default)
        if isinstance(name, str) and name in registry(kind).names():
            options = options_model(registry(kind).load(name))
            if options is not None and key in options.model_fields:
                return f"{owner}_options.{key}"
    return None


def as_written(kind: str, key: str, thing: Any) -> str | None:
    """How a configuration names a thing that was built; None where it has no name.

    as_written("objectives", "method", objective("dpo", beta=0.5))
        == 'method="dpo", method_options={"beta": 0.5}'
    """
    cls = thing if isinstance(thing, type) else type(thing)
    target = f"{cls.__module__}:{cls.__qualname__}"
    entries = map(registry(kind).entry, registry(kind).names())
    name = next((entry.name for entry in entries if entry.target == target), None)
    if name is None:
        return None
    options = getattr(thing, "options", None)
    given = options.model_dump(exclude_unset=True) if isinstance(options, BaseModel) else {}
    text = f'{key}="{name}"'
    return f"{text}, {key}_options={json.dumps(given, default=str)}" if given else text


def _of_dataset(name: Any, data: Any, options: Mapping[str, Any]) -> list[str]:
    """Of the table that is given as data, or else of a registered dataset, folder or table."""
    given = data if isinstance(data, str) else ""
    if given and not is_table(given):  # a prepared set takes none, which is said when it is open
        return []
    spec = given or str(name)
    known = spec.partition(":")[0] in registry("datasets").names()
    try:
        kind, options = locate_dataset(spec, options)
    except UsageError as error:  # of an unknown one the key itself says so
        return [f"dataset: {error}"] if known else []
    return option_problems("datasets", kind, options, "dataset_options")
