"""What a model is measured with where nobody says: a run by the suite of its task, on its images.

Nothing here imports torch: the command line looks up what it will do before it loads that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipalign.config import build_config
from clipalign.datasets.locate import load_dataset, locate_dataset, place_of
from clipalign.errors import DataError, UsageError
from clipalign.models.spec import ModelSpec
from clipalign.options import options_model
from clipalign.plain_yaml import read_yaml_mapping
from clipalign.plugins import registry
from clipalign.tasks.manifest import read_manifest
from clipalign.training.rundir import RunDirectory

__all__ = ["OwnSuite", "own_suite", "suite_of_run", "suite_of_task"]

_READ = ("task", "task_options", "dataset", "dataset_options", "data")


@dataclass(frozen=True)
class OwnSuite:
    """A suite, and what it measures on.

    Attributes:
        name: of the suite.
        options: of the suite, that the task was given too: a concept of one's own.
        dataset: name or path; None for the suite's own.
        dataset_options: of that dataset.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    dataset_options: Mapping[str, Any] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Why the images cannot be had, as a set may have been moved; None where they can."""
        if self.dataset is None:
            return None
        try:
            kind, options = locate_dataset(self.dataset, self.dataset_options)
            place = place_of(kind, options)
            if place is not None and not Path(place).exists():
                load_dataset(kind, options)
        except (DataError, UsageError) as error:
            return str(error)
        return None


def own_suite(model: ModelSpec) -> OwnSuite:
    """What measures a model: for a run see `suite_of_run`; `typographic` for any other.

    Raises:
        ConfigError, DataError, RunError: see `suite_of_run`.
    """
    return (suite_of_run(model.run) if model.run else None) or OwnSuite("typographic")


def suite_of_run(run: Path) -> OwnSuite | None:
    """The suite of a run's task, on the images that its preferences came from; None for no suite.

    Raises:
        RunError: its configuration was changed.
        ConfigError: its configuration is none.
        DataError: the manifest of its preferences is damaged.
    """
    directory = RunDirectory(run)
    directory.check(directory.config)
    # the method may have been registered for the session that trained it, and is not asked for
    tree = read_yaml_mapping(directory.config)
    config = build_config({k: tree[k] for k in _READ if k in tree}, str(directory.config))
    task_options, dataset, options = config.task_options, config.dataset, config.dataset_options
    if config.data is not None:
        manifest = read_manifest(run)
        task_options = manifest.options
        dataset, options = manifest.dataset, manifest.dataset_options
    own = suite_of_task(config.task, task_options)
    return own and OwnSuite(own.name, own.options, dataset, options)


def suite_of_task(task: str, task_options: Mapping[str, Any]) -> OwnSuite | None:
    """The suite that a task was registered with, asked what the task was; None where it has none.

    Args:
        task: its registered name.
        task_options: of which those go to the suite that are among the task's `suite_options` and
            have not the task's default.
    """
    facts = registry("tasks").entry(task).metadata
    suite = str(facts.get("suite", task))
    if suite not in registry("suites").names():
        return None
    shared = [name for name in facts.get("suite_options", ()) if name in task_options]
    declared = options_model(registry("tasks").load(task)) if shared else None
    usual = {} if declared is None else declared.model_fields
    return OwnSuite(
        suite,
        {
            name: task_options[name]
            for name in shared
            if name not in usual or task_options[name] != usual[name].default
        },
    )
