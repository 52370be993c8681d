"""What a fitter may look at: a run, its two models, and labelled images of its concept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from clipalign.config import RunConfig
from clipalign.datasets.base import Dataset
from clipalign.datasets.locate import load_dataset
from clipalign.errors import UsageError
from clipalign.models.load import default_device, load_model
from clipalign.models.loaded import LoadedModel
from clipalign.models.spec import is_run, parse_model_spec
from clipalign.options import component
from clipalign.plugins import registry
from clipalign.progress import Reporter, Silent
from clipalign.tasks.manifest import read_manifest
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.prepare import preferences_of, prepare
from clipalign.training.rundir import RunDirectory
from clipalign.transforms.labelled import Labelled, encode, label
from clipalign.transforms.probe import ConceptProbe, ProbeFeatures

__all__ = ["RECORD", "FitContext"]

RECORD = "transform.yaml"
"""Beside a transformed model, says how it was made."""

_Source: TypeAlias = tuple[str, Mapping[str, Any], str | Path, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class FitContext:
    """A run, or another model, and what belongs to it. All is loaded when it is first asked for.

    Attributes:
        path: the run or the model spec, as given.
        run: its directory; None for a model that is not a run.
        config: of the run.
        task: name of the concept task whose captions are used; None for the run's own.
        dataset: name, folder or table of the labelled images; None for the run's own.
        dataset_options: of `dataset`.
        split: of it; None for validation, or train where there is none. A test split may be
            measured on, and nothing is ever fitted to it.
        device: "cpu", "cuda", …; None for a GPU where there is one.
        reporter: hears what is being done.
    """

    path: str
    run: RunDirectory | None
    config: RunConfig | None
    task: str | None = None
    dataset: str | Path | None = None
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    device: str | None = None
    reporter: Reporter = field(default_factory=Silent)

    @classmethod
    def open(cls, path: str | os.PathLike[str], **fields: Any) -> FitContext:
        """Look at what a path or model spec names, without loading it.

        Raises:
            ConfigError: the run's configuration does not validate.
            ModelError: it names no model.
        """
        text = str(path) if isinstance(path, str | Path) else parse_model_spec(path).text
        if is_run(Path(text)):
            run, config = RunDirectory.open(Path(text))
            return cls(text, run, config, **fields)
        parse_model_spec(text)
        return cls(text, None, None, **fields)

    @cached_property
    def trained(self) -> LoadedModel:
        """The run's trained model, or the model that is no run."""
        return self.load(self.path)

    @cached_property
    def reference(self) -> LoadedModel:
        """The model that the run started from.

        Raises:
            UsageError: it is no run.
        """
        if self.config is None:
            raise UsageError(
                f"{self.path} is not a run, so it has no model that it started from. Name a run, "
                "or the other model with --against."
            )
        return self.load(self.config.model)

    def load(self, spec: str) -> LoadedModel:
        """Load any model onto the device."""
        return load_model(spec, default_device(self.device), announce=self.reporter.note)

    @property
    def probe(self) -> ConceptProbe:
        """Texts and labels of the concept. See `labelled`."""
        return self.labelled.probe

    @cached_property
    def labelled(self) -> Labelled:
        """Labelled images of the split, not yet read.

        Raises:
            UsageError: the task has no concept.
            DataError: the images do not show it.
        """
        return label(self.subject, self.images, self.reporter, self.split)

    @cached_property
    def subject(self) -> Any:
        """The task whose captions are used, with its options: as asked for, else the run's own."""
        name, options, _, _ = self._source()
        return component("tasks", name, **options)

    @cached_property
    def images(self) -> Dataset:
        """The dataset whose images are looked at: as asked for, else the run's own.

        Raises:
            DataError: it cannot be read.
        """
        _, _, dataset, dataset_options = self._source()
        return load_dataset(dataset, dataset_options)

    def labels(self) -> dict[str, Any] | None:
        """Which labelled images were looked at, in JSON-able values; None for none."""
        found: Labelled | None = self.__dict__.get("labelled")
        if found is None:
            return None
        return {
            "concept": found.probe.name,
            "dataset": found.dataset,
            "split": found.split,
            "images": len(found.probe.value),
        }

    def preferences(self, task: str = "typographic", seed: int = 0) -> PreferenceSet:
        """The preferences that the run was trained on; for what is no run, those of a task.

        `task` and `dataset` of the context go before; what is not there yet is prepared in the
        cache, as `train` does.

        Args:
            task: whose preferences to prepare where none is named and there is no run.
            seed: of that preparation.

        Raises:
            DataError: the dataset cannot serve the task.
        """
        config = self.config
        if config is not None and self.task in (None, config.task) and self.dataset is None:
            return preferences_of(config, self.reporter)
        own = config.task if config is not None else task
        return prepare(
            self.task or own,
            self.dataset,
            dataset_options=self.dataset_options,
            seed=seed,
            reporter=self.reporter,
        )

    def features(self, model: LoadedModel) -> ProbeFeatures:
        """A model's features of the labelled images and the captions, from the cache where it can.

        Raises:
            DataError: no image of a value can be read, or two captions encode the same.
        """
        return encode(self.labelled, model, self.reporter)

    def _source(self) -> _Source:
        """Task and dataset, each with its options: as asked for, else as the run had them."""
        name, options, dataset, dataset_options = self._own()
        if self.task is not None and self.task != name:
            dataset = registry("tasks").entry(self.task).metadata.get("dataset", dataset)
            name, options, dataset_options = self.task, {}, {}
        if self.dataset is not None:
            dataset, dataset_options = self.dataset, self.dataset_options
        return name, options, dataset, dataset_options

    def _own(self) -> _Source:
        """What the run was trained on; the embedded people for a model that is no run."""
        config = self.config
        if config is None:
            return "gender", {}, "emoji-people", {}
        if config.data is not None:
            made = read_manifest(config.data)
            return made.task, made.options, made.dataset, made.dataset_options
        return config.task, config.task_options, config.dataset, config.dataset_options
