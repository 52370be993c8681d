"""What a training or an edit takes where the recipe leaves something open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipalign.comparison.plan import OF_TRANSFORM, Cell
from clipalign.config import RunConfig
from clipalign.dataset_specs import locate_dataset
from clipalign.entries import term
from clipalign.errors import UsageError
from clipalign.options import options_model
from clipalign.plugins import registry
from clipalign.training.rundir import RunDirectory

__all__ = ["taken", "taken_by_run"]


def taken(cell: Cell) -> dict[str, Any]:
    """Rate, λ and all options of a training, or those of an edit, as values of JSON; {} for a bare
    model.

    A recipe says little of them, and their defaults may be others in the next version: two cells
    of equal recipes are one only if these are equal too. Imports the method, and with it torch.

    Raises:
        UsageError: no objective has that name.
        ConfigError: it cannot use its options.
    """
    found: dict[str, Any] = {}
    if cell.config is not None:
        found = _of_training(cell.config)
    elif cell.transform is not None:
        options = {k: v for k, v in cell.transform.items() if k not in OF_TRANSFORM}
        filled = _filled("transforms", cell.transform["method"], options)
        found = {"transform_options": filled}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def taken_by_run(run: Path) -> dict[str, Any]:
    """Of what `taken` gives, what the configuration of a run says.

    Raises:
        RunError: it was changed.
        ConfigError: it is none.
    """
    _, config = RunDirectory.open(run)
    known = {
        "train.lr": config.train.lr,
        "regulariser_weight": config.regulariser_weight,
        "method_options": config.method_options,
    }
    return {key: value for key, value in known.items() if value is not None}


def _of_training(config: RunConfig) -> dict[str, Any]:
    from clipalign.objectives.weighted_sum import WeightedSum
    from clipalign.training.averaging import averaging_options
    from clipalign.training.defaults import objective_of, resolved

    known = resolved(config)
    average = averaging_options(config.train.averaging, config.train.averaging_options)
    found: dict[str, Any] = {
        "train.lr": known.train.lr,
        "train.averaging_options": average.model_dump(mode="json") if average else {},
        "regulariser_weight": known.regulariser_weight,
        "method_options": known.method_options,
    }
    whole = objective_of(config)
    if config.objective and isinstance(whole, WeightedSum):
        names = [term(entry)[1] for entry in config.objective]
        found["objective"] = {
            f"{place}.{name}": each.options.model_dump(mode="json")
            for place, (name, each) in enumerate(zip(names, whole.terms, strict=True))
        }
    if config.data is None:  # a prepared set has its own, whatever the defaults became
        found["task_options"] = _filled("tasks", config.task, config.task_options)
        found["dataset_options"] = _of_dataset(config)
    return found


def _of_dataset(config: RunConfig) -> dict[str, Any]:
    """Of a dataset that is not there, what is given: its training says what is wrong."""
    try:
        name, options = locate_dataset(config.dataset, config.dataset_options)
    except UsageError:
        return config.dataset_options
    return _filled("datasets", name, options)


def _filled(kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the defaults of those that are not given."""
    model = options_model(registry(kind).load(name))
    fields = model.model_fields if model else {}
    defaults = {
        key: field.get_default(call_default_factory=True)
        for key, field in fields.items()
        if not field.is_required()
    }
    return {**defaults, **options}
