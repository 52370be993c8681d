"""What a training takes where its configuration leaves something open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clipalign.config import RunConfig
from clipalign.dataset_specs import locate_dataset
from clipalign.errors import UsageError
from clipalign.options import options_model
from clipalign.plugins import registry

__all__ = ["taken"]


def taken(config: RunConfig | None) -> dict[str, Any]:
    """Rate, λ and all options of a training, as values of JSON; {} for None.

    A recipe says little of them, and their defaults may be others in the next version: two cells
    of equal recipes are one only if these are equal too. Imports the method, and with it torch.

    Raises:
        UsageError: no objective has that name.
        ConfigError: it cannot use its options.
    """
    from clipalign.training.defaults import resolved

    if config is None:
        return {}
    known = resolved(config)
    found: dict[str, Any] = {
        "train.lr": known.train.lr,
        "regulariser_weight": known.regulariser_weight,
        "method_options": known.method_options,
    }
    if config.data is None:  # a prepared set has its own, whatever the defaults became
        found["task_options"] = _filled("tasks", config.task, config.task_options)
        found["dataset_options"] = _of_dataset(config)
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


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
