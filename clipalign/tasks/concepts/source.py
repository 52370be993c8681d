"""The images of a concept: read by its columns, balanced, and others beside them to hold still."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from clipalign.datasets.base import Dataset, Example
from clipalign.datasets.options import label_problem, label_text
from clipalign.errors import DataError, near_matches
from clipalign.files import canonical_json, sha256_bytes
from clipalign.option_flags import task_option
from clipalign.tasks.concepts.balance import Reading, balance_note, balanced
from clipalign.tasks.concepts.file import Concept
from clipalign.tasks.kept import WithKept

__all__ = ["ConceptSource"]

LABEL = "label"  # as the name of a column: the class name


class ConceptSource(WithKept):
    """A dataset as a concept task wants it.

    Args:
        dataset: images with the concept's columns.
        concept: what to read.
        attribute: column of the value; "label" for the class name.
        activity: column of the activity, likewise; None for none.
        balance: of each activity, keep as many images of every value, spread over their order;
            activities that lack a value are left out.
        keep: another dataset, whose images are held still beside these: none whose class says a
            word of the concept, and the others spread over their order.
        keep_share: how many of them, as a share of the number of these.
    """

    def __init__(
        self,
        dataset: Dataset,
        concept: Concept,
        *,
        attribute: str,
        activity: str | None,
        balance: bool,
        keep: Dataset | None,
        keep_share: float,
    ) -> None:
        super().__init__(dataset, keep)
        self.concept = concept
        self._attribute, self._activity = attribute, activity
        self._balance, self._keep_share = balance, keep_share
        self._examples: dict[str, Sequence[Example]] = {}
        self._read: dict[str, Sequence[Reading | None]] = {}

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the datasets, and of how they are put together."""
        parts = [[part.name, part.fingerprint] for part in self.parts]
        how = [self._attribute, self._activity, self._balance, self._keep_share]
        return sha256_bytes(canonical_json([parts, how]))

    def examples(self, split: str) -> Sequence[Example]:
        """The dataset's own images, balanced, then those that are held still."""
        if split not in self._examples:
            every = self.dataset.examples(split)
            used = balanced(self._readings(split)) if self._balance else range(len(every))
            found = [every[i] for i in used]
            found += self.kept_examples(split, round(self._keep_share * len(found)))
            # every row of a table has the same columns
            columns = dict.fromkeys(name for e in found for name in e.attributes)
            self._examples[split] = [
                replace(e, attributes={c: e.attributes.get(c, "") for c in columns}) for e in found
            ]
        return self._examples[split]

    def read(self, example: Example) -> Reading:
        """What an image of the dataset shows.

        Raises:
            DataError: its columns do not say; the message is the reason.
        """
        cell = _cell(example, self._attribute)
        value = self.concept.value_of(cell)
        if value is None:
            known = ", ".join(self.concept.values)
            what = f"is {cell!r}, which is none of {known}" if cell else "is empty"
            raise DataError(f"its {self._attribute} {what}")
        activity = "" if self._activity is None else _cell(example, self._activity)
        if activity and (problem := label_problem(activity)):
            raise DataError(f"{problem} ({self._activity})")
        if word := self.concept.said_in(activity):
            raise DataError(
                f"its {self._activity} {activity!r} says {word!r}, so that no caption of it would "
                "be neutral"
            )
        kind = example.attributes.get(self.concept.nouns.column, "")
        return Reading(activity, self.concept.is_noun(activity, kind), value)

    @functools.cached_property
    def readings(self) -> Sequence[Reading]:
        """What the images of all splits show, each thing once, sorted: captions are made of it.

        All splits, so that they have the same candidates.
        """
        found = {reading for split in self.splits() for reading in self._readings(split)}
        return sorted(reading for reading in found if reading is not None)

    def is_welcome(self, label: str | None) -> bool:
        """Whether a class says nothing of the concept, so that its images may be held still."""
        return label is not None and not self.concept.said_in(label)

    def check(self, split: str, *, needs_activity: bool) -> list[str]:
        """What to know of a split, one sentence each.

        Args:
            split: of the dataset.
            needs_activity: whether its column must be there.

        Raises:
            DataError: it cannot serve the concept.
        """
        examples = self.dataset.examples(split)
        self._require(self._attribute, "attribute", examples)
        if needs_activity and self._activity is not None:
            self._require(self._activity, "activity", examples)
        readings = [reading for reading in self._readings(split) if reading is not None]
        present = {reading.value for reading in readings}
        where = f"split {split!r} of the dataset {self.name!r}"
        if len(present) < 2:
            known = ", ".join(self.concept.values)
            shown = f"only {next(iter(present))!r}" if present else "none of them"
            raise DataError(
                f"The concept {self.concept.name!r} takes images of at least two of its values "
                f"({known}), and the {where} has {shown} in its column {self._attribute!r}. Add "
                f"images of another, or name another column with {task_option('attribute=COLUMN')}."
            )
        notes = []
        if self._activity is not None and not any(reading.activity for reading in readings):
            notes.append(
                f"No image of the {where} has an {self._activity!r}: captions say the "
                f"{self.concept.name} alone, and no activities are held still."
            )
        note = balance_note(readings, f"The {where}", self._balance)
        return [*notes, note] if note else notes

    # --- Parts ----------------------------------------------------------------------------------

    def _readings(self, split: str) -> Sequence[Reading | None]:
        """What each image of a split shows; None where it cannot be read."""
        if split not in self._read:
            found: list[Reading | None] = []
            for example in self.dataset.examples(split):
                try:
                    found.append(self.read(example))
                except DataError:
                    found.append(None)
            self._read[split] = found
        return self._read[split]

    def _require(self, column: str, option: str, examples: Sequence[Example]) -> None:
        columns = {LABEL, *(name for e in examples for name in e.attributes)}
        if column not in columns:
            raise DataError(
                f"The dataset {self.name!r} has no column {column!r}."
                f"{near_matches(column, columns)} Name the column with "
                f"{task_option(f'{option}=COLUMN')}; or another dataset."
            )


def _cell(example: Example, column: str) -> str:
    text = example.attributes.get(column)
    if text is None and column == LABEL:
        text = example.label
    return label_text(" ".join((text or "").split()))
