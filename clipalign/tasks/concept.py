"""Tasks `concept` and `gender`: prefer the caption that says the other value of a concept.

An image of a woman prefers "a photo of a man frowning." to "a photo of a woman frowning."; what is
trained learns the concept's direction by reversing it, and is then turned to neutral with one
number ("Aligning Visual Contrastive Learning Models via Preference Optimization", §3.3 and §4).
Which concept it is, is data: `clipalign.tasks.concepts.file` says how it is written.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from clipalign.dataset_specs import DatasetSpec
from clipalign.datasets.base import Dataset, Example
from clipalign.datasets.locate import load_dataset
from clipalign.errors import DataError
from clipalign.files import sha256_bytes
from clipalign.option_flags import task_option
from clipalign.tasks.base import COUNTERPART, SHOWS, Candidates, PreparedRow
from clipalign.tasks.concepts import file as concept_file
from clipalign.tasks.concepts.file import concept_path, load_concept
from clipalign.tasks.concepts.option import ConceptSpec
from clipalign.tasks.concepts.source import ConceptSource

__all__ = ["ConceptTask", "GenderTask"]

_KEPT_BESIDE = {"emoji-people": "emoji"}  # what "auto" keeps still beside a dataset


class ConceptTask:
    """Flips a concept in the captions of images, and holds everything else still.

    Of an image, the caption with another value is chosen and the one with its own is rejected;
    templates and activity are the same. In a share of the rows that activity is not the image's:
    what is learned is then the concept's direction in all captions, and not only in those that fit
    an image, so that at neutral a search is more even. In another share the captions say the value
    alone, as it is asked for most of all. The candidates are the captions of all values, with all
    activities and with none.

    The regulariser sees the same images, and those of a second dataset, with the captions that say
    no value and the prompts of the second dataset's classes. What the reference says of a woman who
    is a police officer, of all occupations, is itself not what it says of a man who is one. So the
    image of one value is held to what the reference says of images of the other: turned to neutral,
    the occupation's bias goes with the gender.
    """

    name = "concept"

    class Options(BaseModel):
        """Options of the task."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        concept: ConceptSpec = Field(
            description="A concept file (YAML), or one that ships: gender, which `clipalign config "
            "cp concept/gender mine.yaml` copies to edit."
        )
        attribute: str | None = Field(
            None, description="Column of the value; null for the concept's, label for the class."
        )
        activity: str | None = Field(
            None, description="Column of the activity; null for the concept's, label for the class."
        )
        balance: bool = Field(
            True, description="Use as many images of every value, within every activity."
        )
        other_activities: float = Field(
            0.15,
            ge=0,
            le=1,
            description="Share of the rows whose captions say an activity that is drawn from all "
            "of them, instead of the image's own.",
        )
        no_activity: float = Field(
            0.15,
            ge=0,
            le=1,
            description="Share of the rows whose captions say the value alone, and no activity; at "
            "most what other_activities leaves.",
        )
        counterparts: bool = Field(
            True,
            description="Hold the neutral captions of an image to what the reference says of "
            "images of the same activity that show the other value, and not of the image itself.",
        )
        keep: DatasetSpec | None = Field(
            "auto",
            description="Dataset that is held still besides: a name, folder or table; auto for "
            "emoji beside emoji-people, else none; null for none.",
        )
        keep_options: dict[str, Any] = Field(
            default_factory=dict, description="Options of that dataset."
        )
        keep_share: float = Field(
            0.5, gt=0, lt=1, description="Its share of the images that the regulariser sees."
        )

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        self.concept = load_concept(self.options.concept)

    @property
    def fingerprint(self) -> str:
        """sha256 of the concept file, and of the code that makes captions of it."""
        written = Path(concept_file.__file__).read_bytes()
        return sha256_bytes(concept_path(self.options.concept).read_bytes() + written)

    def source(self, dataset: Dataset) -> ConceptSource:
        """The dataset with its values balanced, and the images that are held still beside it.

        Raises:
            UsageError: there is no dataset of the name in the option `keep`.
            DataError: it cannot be read.
        """
        options, concept = self.options, self.concept
        keep = _KEPT_BESIDE.get(dataset.name) if options.keep == "auto" else options.keep
        return ConceptSource(
            dataset,
            concept,
            attribute=options.attribute or concept.attribute,
            activity=(options.activity or concept.activity) if concept.takes_activities else None,
            balance=options.balance,
            keep=None if keep is None else load_dataset(keep, options.keep_options),
            keep_share=options.keep_share,
        )

    def candidates(self, dataset: Dataset, split: str) -> Candidates:
        """All captions that say a value; for the regulariser all that say none, and kept prompts.

        Raises:
            DataError: the split has no column of the concept, fewer than two of its values, or
                nothing left when it is balanced.
        """
        source = self._source(dataset)
        notes = source.check(split, needs_activity=self.options.activity is not None)
        said = [(reading.activity, reading.noun) for reading in source.readings]
        if self.options.no_activity:
            said.append(("", False))
        texts = dict.fromkeys(
            self.concept.caption(value, activity, noun)
            for activity, noun in said
            for value in self.concept.values
        )
        held = self._held(source)
        if held is None and source.keep is not None:
            raise DataError(
                f"The dataset {source.keep.name!r} has too few classes to be held still. Name "
                f"another with {task_option('keep=DATASET')}; or none, as keep=null."
            )
        if held is None:
            notes.append(
                f"Nothing is held still while {self.concept.name!r} is turned: there are no "
                "activities with neutral captions, and no other images. Name a dataset that is to "
                f"stay as it is with {task_option('keep=DATASET')}."
            )
        return Candidates(tuple(texts), held, tuple(notes))

    def rows(
        self,
        example: Example,
        image: Image.Image,
        dataset: Dataset,
        split: str,
        rng: random.Random,
    ) -> Iterator[PreparedRow]:
        """One row: the flipped caption over the image's own, or an image that is held still.

        The share `keep_share` of the images has no clean partner, and training puts kept images in
        its place; there are as many of them.

        Raises:
            DataError: the image's columns do not say a value of the concept.
        """
        source = self._source(dataset)
        if source.is_kept(example):
            yield PreparedRow(image, None, None, None, dict.fromkeys((SHOWS, COUNTERPART), ""))
            return
        shown = source.read(example)
        flipped = rng.choice(self.concept.others(shown.value))
        activity, noun = shown.activity, shown.noun
        lot = rng.random()
        if lot < self.options.other_activities:
            other = rng.choice(source.readings)
            activity, noun = other.activity, other.noun
        elif lot < self.options.other_activities + self.options.no_activity:
            activity, noun = "", False
        gives_way = source.keep is not None and rng.random() < self.options.keep_share
        like = flipped if self.options.counterparts else ""
        yield PreparedRow(
            image,
            None if gives_way or self._held(source) is None else image,
            self.concept.caption(flipped, activity, noun),
            self.concept.caption(shown.value, activity, noun),
            {
                SHOWS: f"{shown.value} {shown.activity}".strip(),
                COUNTERPART: f"{like} {shown.activity}".strip() if like else "",
            },
        )

    def _source(self, dataset: Dataset) -> ConceptSource:
        return dataset if isinstance(dataset, ConceptSource) else self.source(dataset)

    def _held(self, source: ConceptSource) -> tuple[str, ...] | None:
        """Candidates of the regulariser; None where there are too few to hold anything still."""
        neutral = (self.concept.neutral(r.activity, r.noun) for r in source.readings)
        texts = dict.fromkeys([*(text for text in neutral if text), *source.kept_prompts])
        return tuple(texts) if len(texts) > 1 else None


class GenderTask(ConceptTask):
    """The task `concept` with the concept that ships as `gender`: woman or man."""

    name = "gender"

    class Options(ConceptTask.Options):
        """Options of the task."""

        concept: ConceptSpec = Field(
            "gender", description="A concept file (YAML); gender for the one that ships."
        )
