"""A configuration as a run records it: the same from any folder, on any number of processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from clipalign.config import RunConfig
from clipalign.dataset_specs import DatasetSpec, is_shard_pattern
from clipalign.datasets.locate import locate_dataset
from clipalign.errors import UsageError
from clipalign.models.spec import EMBEDDED
from clipalign.objectives.base import Objective
from clipalign.options import options_model
from clipalign.plugins import registry
from clipalign.training.distributed import World, pieces_for
from clipalign.training.losses import needs_whole

__all__ = ["anywhere", "recorded"]

_DIRECTORIES = ("local-dir:", "hf-dir:")


def anywhere(config: RunConfig) -> RunConfig:
    """The same configuration with absolute paths of what is read: model, data, images, files.

    `output` stays as it is: it says where this run goes, not what it is made of.
    """
    changes = {
        "model": _model(config.model),
        "data": None if config.data is None else Path(os.path.abspath(config.data)),
        "dataset": _dataset(config.dataset),
        "dataset_options": _options(
            "datasets", _kind(config.data, config.dataset), config.dataset_options
        ),
        "task_options": _options("tasks", config.task, config.task_options),
    }
    return config.model_copy(update=changes)


def recorded(config: RunConfig, objective: Objective, world: World) -> RunConfig:
    """The configuration with the pieces that batches are cut into, at least one a process.

    Sums are added piece by piece, so that one process, too, comes to the same bits.
    """
    if world.size == 1 or needs_whole(objective):  # which sees no pieces
        return config
    pieces = pieces_for(config.train.accumulate, world)
    train = config.train.model_copy(update={"accumulate": pieces})
    return config.model_copy(update={"train": train})


def _model(spec: str) -> str:
    prefix = next((p for p in _DIRECTORIES if spec.startswith(p)), "")
    path = os.path.expanduser(spec.removeprefix(prefix))
    local = spec != EMBEDDED and (prefix or os.path.exists(path))
    return prefix + os.path.abspath(path) if local else spec


def _dataset(spec: str) -> str:
    """A registered name stands before a folder of that name, as where it is looked up."""
    name, colon, place = spec.partition(":")
    if name in registry("datasets").names():
        return f"{name}:{_existing(place)}" if colon else spec
    return _existing(spec)


def _kind(data: Path | None, dataset: str) -> str:
    """The registered name of a dataset; the first part of what it is called where there is none."""
    try:
        return locate_dataset(data or dataset, {})[0]
    except UsageError:
        return dataset.partition(":")[0]


def _options(kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with absolute paths: of those that are paths or lists of them, of texts that name a
    file, and of a dataset with its own options beside it.
    """
    found = registry(kind)
    model = options_model(found.load(name)) if options and name in found.names() else None
    fields = model.model_fields if model else {}
    made = dict(options)
    for key, value in options.items():
        annotation = fields[key].annotation if key in fields else None
        kinds = (annotation, *get_args(annotation))
        if isinstance(value, list | tuple):
            if any(get_origin(k) in (list, tuple, Sequence) and Path in get_args(k) for k in kinds):
                made[key] = [os.path.abspath(path) for path in value]
        elif not isinstance(value, str) or not value:
            continue
        elif DatasetSpec in kinds:
            made[key] = value if value == fields[key].default else _dataset(value)
            if beside := options.get(f"{key}_options"):
                made[f"{key}_options"] = _options("datasets", _kind(None, value), beside)
        else:
            made[key] = os.path.abspath(value) if Path in kinds else _there(value)
    return made


def _there(text: str) -> str:
    """An absolute path where a text with a folder or an ending names what exists; else itself."""
    return _existing(text) if os.sep in text or "." in text else text


def _existing(path: str) -> str:
    """A path that is there, or a pattern of shards, as it is found from any folder."""
    return os.path.abspath(path) if is_shard_pattern(path) or os.path.exists(path) else path
