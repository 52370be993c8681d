"""What a task is: it turns labelled images into preferences.

A task decides and draws; reading images, worker processes, files and the manifest are the core's
(`clipalign.tasks.prepare`). It is sent to worker processes, so it must be picklable.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from PIL import Image
from pydantic import BaseModel

from clipalign.datasets.base import Dataset, Example

Scope: TypeAlias = Literal["all", "batch", "row"]
"""Which of the candidate texts an image chooses among while training.

`all` of them; those that any row of the `batch` speaks of; or the `row`'s own two. The regulariser
then takes those of the batch, unless it has texts of its own.
"""

SHOWS, COUNTERPART = "regulariser_shows", "regulariser_counterpart"
REWARDS = ("reward_chosen", "reward_rejected")
"""Names of the columns of a row that training reads; see `PreparedRow.columns`."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The texts that an image chooses among.

    Attributes:
        preference: C texts; every chosen and rejected text is one of them.
        regulariser: texts of the regulariser's own, or None where they are the same.
        notes: what whoever prepares the set should know, one sentence each.
        scope: which of them an image chooses among.
    """

    preference: tuple[str, ...]
    regulariser: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    scope: Scope = "all"


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """One row of a preference set, not yet written.

    Attributes:
        image: RGB, what the preference is about.
        clean_image: RGB, its partner for the regulariser, or None. Rows of one example that share
            the object share the file.
        chosen: the preferred text; None where there is none.
        rejected: the dispreferred text; None where there is none. A row with neither is an image
            that only the regulariser sees.
        columns: further columns of text: the same names in every row of the task. Some of them
            mean something to training. SHOWS names what the image shows, and COUNTERPART what the
            images show that it is to be like: the regulariser then holds the clean image to what
            the reference says of such an image, and not of itself. REWARDS are numbers, what the
            chosen and the rejected text are worth where a text that the row does not judge is worth
            0; they are `PolicyBatch.reward`, and must be in every row or in none where an objective
            takes them.
    """

    image: Image.Image
    clean_image: Image.Image | None
    chosen: str | None
    rejected: str | None
    columns: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """A maker of preferences. Built by name: `component("tasks", "typographic", styles=["note"])`.

    A task may also have a method `source(dataset) -> Dataset`: the dataset as the task wants it, a
    part of it or with the images of another beside it. All other methods are then given that one.
    And it may have a method `lacking(dataset, split, needs) -> str | None`: why its rows cannot
    feed an objective that needs "chosen", "rejected" or both in every row, found out before any
    image is read.

    Attributes:
        name: as registered.
        options: typed, JSON-able.
        fingerprint: sha256 of whatever else decides what is drawn, fonts for example; "" for
            nothing. Equal name, options and fingerprint mean equal rows.
    """

    name: str
    options: BaseModel
    fingerprint: str

    def candidates(self, dataset: Dataset, split: str) -> Candidates:
        """The candidate texts of a split.

        Raises:
            DataError: the dataset cannot serve this task.
        """
        ...

    def rows(
        self,
        example: Example,
        image: Image.Image,
        dataset: Dataset,
        split: str,
        rng: random.Random,
    ) -> Iterable[PreparedRow]:
        """The rows of one image.

        Args:
            example: what the dataset says of the image.
            image: upright RGB; not to be drawn on.
            dataset: it comes from.
            split: it belongs to.
            rng: seeded by the set's seed, the split and the example's key, and nothing else, so
                that neither order nor workers matter. All chance comes from here.

        Raises:
            DataError: this image cannot be used; it is quarantined with the message as its reason.
        """
        ...


def classnames(dataset: Dataset, split: str) -> Sequence[str]:
    """The class names of one split; those of the dataset where its splits do not differ."""
    of_split: Any = getattr(dataset, "classnames_of", None)
    names: Sequence[str] = of_split(split) if of_split else dataset.classnames
    return names


def source(task: Task, dataset: Dataset) -> Dataset:
    """The dataset as a task wants it; the dataset itself where the task does not mind."""
    of_task: Any = getattr(task, "source", None)
    wanted: Dataset = of_task(dataset) if of_task else dataset
    return wanted
