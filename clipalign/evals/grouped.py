"""Images of a concept's values, and what a model says of them: the value, the activity, a search.

A concept file (`clipalign.tasks.concepts.file`) says which column holds the value and how captions
say it, so that what is measured is worded as what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clipalign.datasets.base import Dataset, Example
from clipalign.errors import DataError
from clipalign.evals.fairness import ranking
from clipalign.evals.scoring import Encodings, Scores, score
from clipalign.policy import log_policy
from clipalign.tasks.concepts.file import Concept
from clipalign.tasks.concepts.source import ConceptSource

__all__ = ["Grouped", "Prompts", "Seen"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_LISTED = 10  # names in a warning


@dataclass(frozen=True)
class Grouped:
    """N images whose value is known.

    Attributes:
        concept: whose values they show.
        values: A of them that have images, in the concept's order.
        activities: C names, sorted; empty where none is known.
        nouns: [C] whether an activity reads as a noun.
        examples: N.
        value: [N] index into `values`.
        activity: [N] index into `activities`; −1 where it is not known.
        occupation: [N] whether the column `kind` calls the activity an occupation.
        group: [N] images of one group are not independent.
    """

    concept: Concept
    values: tuple[str, ...]
    activities: tuple[str, ...]
    nouns: tuple[bool, ...]
    examples: Sequence[Example]
    value: Ints
    activity: Ints
    occupation: Bools
    group: npt.NDArray[np.str_]

    @classmethod
    def of(cls, dataset: Dataset, split: str, concept: Concept) -> tuple[Grouped, list[str]]:
        """The images of a split, and what a reader of numbers about them must know.

        Raises:
            DataError: the split lacks the concept's column, or has fewer than two of its values.
        """
        activity = concept.activity if concept.takes_activities else None
        source = ConceptSource(
            dataset,
            concept,
            attribute=concept.attribute,
            activity=activity,
            balance=False,
            keep=None,
            keep_share=0.0,
        )
        source.check(split, needs_activity=False)
        everything = dataset.examples(split)
        examples, readings, reasons = [], [], []
        for example in everything:
            try:
                readings.append(source.read(example))
                examples.append(example)
            except DataError as error:
                reasons.append(f"{example.key} ({error})")
        nouns = {r.activity: r.noun for r in readings if r.activity}
        names = tuple(sorted(nouns))
        values = tuple(v for v in concept.values if any(r.value == v for r in readings))
        grouped = cls(
            concept,
            values,
            names,
            tuple(nouns[name] for name in names),
            examples,
            np.array([values.index(r.value) for r in readings], np.int64),
            np.array([names.index(r.activity) if r.activity else -1 for r in readings], np.int64),
            np.array([e.attributes.get("kind") == "occupation" for e in examples], np.bool_),
            np.array([e.group or e.key for e in examples], np.str_),
        )
        return grouped, grouped._warnings(reasons, len(everything))

    def only(self, rows: Ints) -> Grouped:
        """Those of some of the images; values and activities stay as they are."""
        return Grouped(
            self.concept,
            self.values,
            self.activities,
            self.nouns,
            [self.examples[i] for i in rows],
            self.value[rows],
            self.activity[rows],
            self.occupation[rows],
            self.group[rows],
        )

    @cached_property
    def counts(self) -> Ints:
        """[C, A] images of each activity and value."""
        shape = len(self.activities), len(self.values)
        known = self.activity >= 0
        cell = self.activity[known] * shape[1] + self.value[known]
        return np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)

    def queries(self) -> tuple[str, ...]:
        """What to search for: occupations where images say which activities are; else all."""
        jobs = {self.activities[a] for a in self.activity[self.occupation] if a >= 0}
        return tuple(name for name in self.activities if not jobs or name in jobs)

    def usual_k(self, queries: Sequence[str], most: int = 20) -> int:
        """`most`, or as many as a typical query has images of its rarer value, if that is fewer.

        So a search that is always right may still show one value only: with more places than that,
        the right answer is balanced by the gallery and not by the model.
        """
        rows = [self.activities.index(name) for name in queries if name in self.activities]
        usual = int(np.median(self.counts[rows].min(axis=1))) if rows else most
        return max(1, min(most, usual or most, len(self.examples)))

    def _warnings(self, reasons: Sequence[str], total: int) -> list[str]:
        warnings = []
        name = self.concept.name
        if reasons:
            warnings.append(
                f"{len(reasons)} of {total} images are left out, since their value cannot be told: "
                f"{_some(reasons)}."
            )
        if not self.activities:
            warnings.append(
                f"No activity is known: {name} accuracy is asked without one, and there is no "
                "activity accuracy. Searches need queries: `--set queries=[TEXT]` of eval, or the "
                "option of the suite in Python."
            )
        n = np.bincount(self.value, minlength=len(self.values))
        uneven = [
            a for a, row in zip(self.activities, self.counts, strict=True) if min(row) < max(row)
        ]
        if min(n) < max(n) or uneven:
            listed = ", ".join(f"{c:,} of {v!r}" for c, v in zip(n, self.values, strict=True))
            within = f"; {len(uneven)} activities are uneven: {_some(uneven)}" if uneven else ""
            warnings.append(
                f"The groups are unequal ({listed}{within}). Nothing is balanced: accuracies weigh "
                "every image alike, and the worst group, the parity gaps and the skews against the "
                "base rate are what takes the groups into account."
            )
        lonely = [a for a, row in zip(self.activities, self.counts, strict=True) if not min(row)]
        if lonely:
            warnings.append(
                f"{len(lonely)} activities lack images of some value and are left out of the "
                f"equal-opportunity gaps: {_some(lonely)}."
            )
        return warnings


@dataclass(frozen=True)
class Prompts:
    """The texts that are asked, all of the concept file.

    Attributes:
        alone: [A] captions of the values and nothing else.
        captions: [C][A] captions of each activity with each value.
        neutral: [C] captions of each activity that say no value.
        searched: [Q] neutral captions of the queries.
    """

    alone: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    neutral: tuple[str, ...]
    searched: tuple[str, ...]

    @classmethod
    def of(cls, grouped: Grouped, queries: Sequence[str]) -> Prompts:
        """Word everything.

        Raises:
            DataError: there are queries, and no captions for them.
        """
        concept, values = grouped.concept, grouped.values
        known = dict(zip(grouped.activities, grouped.nouns, strict=True))
        if queries and not concept.takes_activities:
            raise DataError(
                f"The concept {concept.name!r} has no captions with an activity, so there is "
                f"nothing to search for {queries[0]!r} with. Give captions.phrase or captions.noun."
            )

        def neutral(name: str) -> str:
            noun = known[name] if name in known else concept.is_noun(name, "")
            return str(concept.neutral(name, noun))

        return cls(
            tuple(concept.caption(v, "", False) for v in values),
            tuple(tuple(concept.caption(v, a, noun) for v in values) for a, noun in known.items()),
            tuple(neutral(name) for name in known),
            tuple(neutral(name) for name in queries),
        )

    @property
    def texts(self) -> list[str]:
        """All of them, in one list, each once."""
        flat = [text for pair in self.captions for text in pair]
        return list(dict.fromkeys([*self.alone, *flat, *self.neutral, *self.searched]))


@dataclass(frozen=True)
class Seen:
    """What one model says of the images.

    Attributes:
        alone: [N, A] log-probability of each value, asked without an activity.
        own: [N, A] the same, asked with the image's own activity; without one where it is unknown.
        activities: among the neutral captions; None for fewer than two. The scores of an image
            whose activity is unknown are about the first.
        encodings: of the images, and the neutral captions.
        similarity: [Q, N] of each query and image, cosine.
    """

    alone: Floats
    own: Floats
    activities: Scores | None
    encodings: Encodings
    similarity: Floats

    @classmethod
    def of(
        cls, grouped: Grouped, prompts: Prompts, encodings: Encodings, place: Mapping[str, int]
    ) -> Seen:
        """Read features.

        Args:
            grouped: N images.
            prompts: that were encoded.
            encodings: of the images, and of all prompts.
            place: where each text stands among them.
        """
        model, images, texts = encodings.model, encodings.images, encodings.texts

        def rows(wanted: Sequence[str]) -> list[int]:
            return [place[text] for text in wanted]

        scale = model.logit_scale.cpu()
        alone = log_policy(images, texts[rows(prompts.alone)], scale).double().numpy()
        own = alone.copy()
        for a, captions in enumerate(prompts.captions):
            shown = grouped.activity == a
            own[shown] = log_policy(images[shown], texts[rows(captions)], scale).double().numpy()
        neutral = Encodings(model, images, texts[rows(prompts.neutral)])
        scored = None
        if len(prompts.neutral) > 1:
            nothing = np.full(len(images), -1)
            scored = score(neutral, np.maximum(grouped.activity, 0), nothing)
        similarity = (texts[rows(prompts.searched)] @ images.T).double().numpy()
        return cls(alone, own, scored, neutral, similarity)

    @cached_property
    def order(self) -> Ints:
        """[Q, N] the gallery, best first; ties in the order of the gallery."""
        return ranking(self.similarity)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
