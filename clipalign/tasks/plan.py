"""What a preference set will be, known and checked before any image is read."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow_version
from PIL import features

from clipalign._version import __version__
from clipalign.datasets.base import Dataset, Example, cache_key
from clipalign.errors import DataError, PluginError, UsageError, near_matches
from clipalign.files import canonical_json, sha256_bytes, sha256_file
from clipalign.plugins import owner_of
from clipalign.tasks.base import Candidates, Task, source
from clipalign.tasks.manifest import SCHEMA_VERSION, SPLIT_NAME, Manifest, SplitCounts

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """A task, a dataset, and what is to be made of them.

    Attributes:
        task: built.
        dataset: built, as the task wants it.
        dataset_options: what the dataset was built with, for the manifest.
        splits: those that are prepared.
        candidates: the same for all of them.
        seed: of everything random.
        limit: images a split; None for all.
        max_side: pixels that images are shrunk to; None for never.
        shard_rows: rows a tar shard at most; None for loose files.
    """

    task: Task
    dataset: Dataset
    dataset_options: Mapping[str, Any]
    splits: tuple[str, ...]
    candidates: Candidates
    seed: int
    limit: int | None
    max_side: int | None
    shard_rows: int | None = None

    @classmethod
    def make(
        cls,
        task: Task,
        dataset: Dataset,
        dataset_options: Mapping[str, Any],
        splits: Sequence[str] | None,
        *,
        seed: int,
        limit: int | None,
        max_side: int | None,
        shard_rows: int | None = None,
    ) -> Plan:
        """Check everything that can be checked without reading an image.

        Raises:
            UsageError: an unknown split.
            DataError: the dataset cannot serve the task.
        """
        dataset = source(task, dataset)
        chosen = _choose_splits(dataset, splits)
        candidates = _candidates(task, dataset, chosen)
        return cls(
            task, dataset, dataset_options, chosen, candidates, seed, limit, max_side, shard_rows
        )

    @property
    def sha256(self) -> str:
        """Of everything that decides the bytes of the set."""
        parts = getattr(self.dataset, "parts", ())  # datasets that one is made of
        content = {
            "schema": SCHEMA_VERSION,
            "task": [self.task.name, self.task_options, self.task.fingerprint],
            "dataset": [self.dataset.name, self.dataset.fingerprint, self.dataset.licence],
            "code": [_source(type(t)) for t in (self.task, self.dataset, *parts)],
            "made_with": _made_with(),
            "candidates": dataclasses.astuple(self.candidates),
            "splits": self.splits,
            "seed": self.seed,
            "limit": self.limit,
            "max_side": self.max_side,
            "shard_rows": self.shard_rows,
        }
        return sha256_bytes(canonical_json(content))

    @property
    def cache_key(self) -> str:
        """What the set is kept under: also of when the dataset's files were last changed."""
        return sha256_bytes(canonical_json([self.sha256, cache_key(self.dataset)]))

    @property
    def task_options(self) -> dict[str, Any]:
        """As JSON."""
        options: dict[str, Any] = self.task.options.model_dump(mode="json")
        return options

    def lacking(self, needs: Sequence[str]) -> str | None:
        """Why the rows cannot all have these texts, where the task can tell; None if not."""
        of_task: Any = getattr(self.task, "lacking", None)
        reasons = (of_task(self.dataset, split, needs) for split in self.splits if of_task)
        return next((reason for reason in reasons if reason), None)

    def examples(self, split: str) -> Sequence[Example]:
        """The images of a split that are prepared: all, or a draw of `limit` in their order."""
        examples = self.dataset.examples(split)
        if self.limit is None or self.limit >= len(examples):
            return examples
        rng = random.Random(f"{self.seed}/{split}/limit")
        return [examples[i] for i in sorted(rng.sample(range(len(examples)), self.limit))]

    def manifest(self, counts: dict[str, SplitCounts], files: dict[str, str]) -> Manifest:
        """The manifest of what was written.

        Args:
            counts: by split.
            files: sha256 of the tables.
        """
        own = self.candidates.regulariser
        return Manifest(
            schema_version=SCHEMA_VERSION,
            task=self.task.name,
            options=self.task_options,
            seed=self.seed,
            limit=self.limit,
            max_side=self.max_side,
            dataset=self.dataset.name,
            dataset_options={
                key: str(value) if isinstance(value, Path) else value
                for key, value in self.dataset_options.items()
            },
            dataset_fingerprint=self.dataset.fingerprint,
            licence=self.dataset.licence,
            candidates=list(self.candidates.preference),
            scope=self.candidates.scope,
            shard_rows=self.shard_rows,
            regulariser_candidates=None if own is None else list(own),
            counts=counts,
            quarantined=sum(c.quarantined for c in counts.values()),
            notes=list(self.candidates.notes),
            made_with=_made_with(),
            recipe_sha256=self.sha256,
            files=files,
            content_sha256="",
        ).sealed()


def _choose_splits(dataset: Dataset, wanted: Sequence[str] | None) -> tuple[str, ...]:
    known = dataset.splits()
    if wanted is None:
        wanted = [split for split in ("train", "validation") if split in known] or known
    for split in wanted:
        if split not in known:
            raise UsageError(
                f"The dataset {dataset.name!r} has no split {split!r}.{near_matches(split, known)}"
            )
        if not SPLIT_NAME.fullmatch(split):
            raise DataError(f"The split {split!a} cannot name a folder.")
    if not wanted:
        raise DataError(f"The dataset {dataset.name!r} has no splits.")
    return tuple(dict.fromkeys(wanted))


def _candidates(task: Task, dataset: Dataset, splits: Sequence[str]) -> Candidates:
    first, *others = (task.candidates(dataset, split) for split in splits)
    for found in (first, *others):
        sound = isinstance(found, Candidates) and bool(found.preference)
        texts = (*found.preference, *(found.regulariser or ())) if sound else (None,)
        if not all(isinstance(text, str) for text in texts):
            raise PluginError(
                f"The task {task.name!r} of {owner_of(task)} gives {found!r:.60} for its candidate "
                "texts."
            )
    for split, other in zip(splits[1:], others, strict=True):
        if (other.preference, other.regulariser) != (first.preference, first.regulariser):
            raise DataError(
                f"The splits {splits[0]!r} and {split!r} have different classes, and a preference "
                "set has one list of candidates: prepare them as two sets."
            )
    for texts in (first.preference, first.regulariser or ()):
        if len(set(texts)) < len(texts):
            twice = next(text for text in texts if texts.count(text) > 1)
            raise DataError(f"Two candidates have the same text: {twice!r}.")
    notes = dict.fromkeys(note for candidates in (first, *others) for note in candidates.notes)
    return dataclasses.replace(first, notes=tuple(notes))


def _made_with() -> dict[str, str]:
    """The versions that decide how letters and files come out."""
    return {
        "clipalign": __version__,
        "pillow": pillow_version,
        "freetype": str(features.version("freetype2")),
        "jpeg": str(features.version("libjpeg_turbo") or features.version("jpg")),
        "zlib": str(features.version("zlib")),
    }


def _source(cls: type) -> str:
    """sha256 of the file that a class is written in: a plugin's version is not ours to know."""
    path = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return sha256_file(path) if path and Path(path).is_file() else cls.__module__
