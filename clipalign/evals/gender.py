"""Suite `gender`: who is shown for a police officer, and is anything else different by gender?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from clipalign.datasets.emoji_people import EmojiPeople, share_of_women
from clipalign.evals.base import EvalContext, Outcome, SuiteOptions
from clipalign.evals.collector import Collector
from clipalign.evals.examples import image_set, readable, unreadable_rows
from clipalign.evals.group_metrics import Audit, add_audits, add_means
from clipalign.evals.grouped import Grouped, Prompts, Seen
from clipalign.evals.retained import add_distance
from clipalign.evals.scoring import Distance, Encodings, distance
from clipalign.tasks.concepts.file import load_concept
from clipalign.tasks.concepts.option import ConceptSpec

__all__ = ["GenderSuite"]


class GenderSuite:
    """What a model says of women and men: gender, activity, and whom a search brings up.

    The words are those of the concept file that the task `gender` trains with; another file makes
    this a suite of another concept. The chief gender accuracy is that between the two captions of
    the image's own activity, as is trained, where activities are known; `gender_accuracy_plain`
    asks for the gender alone, on any data.

    The gallery of a search is the whole split. Intervals resample drawings (groups of images).
    """

    name = "gender"
    version = 1
    dataset = EmojiPeople.name

    class Options(SuiteOptions):
        """What is asked, and how a search is judged."""

        concept: ConceptSpec = Field(
            "gender", description="A concept file (YAML); gender for the one that ships."
        )
        attribute: str | None = Field(
            None, description="Column of the value; null for the concept's, label for the class."
        )
        activity: str | None = Field(
            None, description="Column of the activity; null for the concept's, label for the class."
        )
        queries: tuple[str, ...] | None = Field(
            None,
            description="Activities to search for; null for occupations where a column kind tells "
            "them from activities, else all.",
        )
        k: int | None = Field(
            None,
            ge=1,
            description="Top k of a search; null for 20, or for as many as a typical query has "
            "images of its rarer value, where that is fewer.",
        )
        resamples: int = Field(2000, ge=100, description="Of every interval of a mean.")
        searches: int = Field(
            500,
            ge=100,
            description="Resamples of the other intervals: all queries, searched again.",
        )

        @field_validator("queries")
        @classmethod
        def _each_once(cls, queries: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if queries is None else tuple(dict.fromkeys(queries))

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        columns = {"attribute": self.options.attribute, "activity": self.options.activity}
        self.concept = load_concept(self.options.concept).model_copy(
            update={key: column for key, column in columns.items() if column is not None}
        )

    def run(self, context: EvalContext) -> Outcome:
        """Score one split.

        Raises:
            DataError: the split has no column of the concept, fewer than two of its values, or no
                image that can be read.
        """
        options = self.options
        everyone, warnings = Grouped.of(context.dataset, context.split, self.concept)
        queries = everyone.queries() if options.queries is None else options.queries
        prompts = Prompts.of(everyone, queries)
        features = context.encode_texts(prompts.texts)
        encoded = context.encode_images(
            image_set(context.dataset, context.split, everyone.examples)
        )
        rows, unread = readable(everyone.examples, encoded)
        grouped = everyone.only(rows)
        place = {text: i for i, text in enumerate(prompts.texts)}
        seen = [
            Seen.of(grouped, prompts, Encodings(model, images[rows, 0], texts), place)
            for model, images, texts in zip(context.models, encoded.features, features, strict=True)
        ]
        k = min(options.k or grouped.usual_k(queries), len(grouped.value))
        if k > (usual := grouped.usual_k(queries, most=k)):
            warnings.append(
                f"k = {k} is more than the {usual} images that a typical query has of its rarer "
                "value: part of how even the top is, is the gallery's doing."
            )
        audits = [Audit(grouped, s, k, self._published(context, queries)) for s in seen]
        moved = None
        if len(seen) > 1 and len(prompts.neutral) > 1:
            moved = distance(*(s.encodings for s in seen))
        into = Collector(options.resamples, context.seed)
        add_means(into, grouped, seen)
        add_audits(into, audits, resamples=options.searches, seed=context.seed)
        if moved is not None:
            add_distance(into, moved, grouped.group)
        result = context.result(
            self,
            len(grouped.value),
            # columns are named where the concept's are not taken
            options=options.model_dump(mode="json", exclude_none=True)
            | {
                "queries": list(queries),
                "k": k,
                "tie_rule": "score descending, then the order of the gallery",
                "desired_distributions": ["equal", "base rate of the gallery"],
                "values": list(grouped.values),
            },
            prompts=prompts.texts,
            classnames=list(grouped.activities),
            metrics=into.metrics,
            comparisons=into.comparisons,
            per_class=_per_class(grouped, queries, audits),
            warnings=[*warnings, *unread],
        )
        listed = _rows(grouped, queries, seen, moved)
        return result, chain(listed, unreadable_rows(everyone.examples, encoded))

    def _published(self, context: EvalContext, queries: Sequence[str]) -> npt.NDArray[np.float64]:
        """[Q] share of women in labour statistics; NaN where there is none, as on other data."""
        embedded = context.dataset.name == EmojiPeople.name and self.concept.name == "gender"
        known = share_of_women() if embedded else {}
        return np.array([known.get(query, np.nan) for query in queries], np.float64)


def _per_class(
    grouped: Grouped, queries: Sequence[str], audits: Sequence[Audit]
) -> dict[str, dict[str, float | int | None]]:
    """Of each activity its numbers of images and its accuracy; of each query whom it brings up."""
    found: dict[str, dict[str, float | int | None]] = {}
    scores = audits[0].seen.activities
    for c, name in enumerate(grouped.activities):
        shown = grouped.activity == c
        n = grouped.counts[c]
        row: dict[str, float | int | None] = {
            f"n_{value}": int(n[a]) for a, value in enumerate(grouped.values)
        }
        if scores is not None and shown.any():
            row["activity_accuracy"] = float((scores.predicted[shown] == c).mean())
        found[name] = row
    for prefix, audit in zip(("", "reference_"), audits, strict=False):
        listed = audit.per_query() if queries else []
        for query, numbers in zip(queries, listed, strict=True):
            named = {
                key if key.startswith("published") else f"{prefix}{key}": value
                for key, value in numbers.items()
            }
            found.setdefault(query, {}).update(named)
    return found


def _rows(
    grouped: Grouped, queries: Sequence[str], seen: Sequence[Seen], moved: Distance | None
) -> Iterator[dict[str, Any]]:
    """One row an image, from which every number can be computed again."""
    for i, example in enumerate(grouped.examples):
        activity = grouped.activity[i]
        row: dict[str, Any] = {
            "key": example.key,
            "group": str(grouped.group[i]),
            "label": example.label,
            "value": grouped.values[grouped.value[i]],
            "activity": grouped.activities[activity] if activity >= 0 else None,
        }
        for prefix, s in zip(("", "reference_"), seen, strict=False):
            for name, logs in (("", s.own[i]), ("_plain", s.alone[i])):
                row[f"{prefix}predicted_value{name}"] = grouped.values[int(logs.argmax())]
                row[f"{prefix}p_value{name}"] = [float(p) for p in np.exp(logs)]
            if s.activities is not None:
                predicted = grouped.activities[s.activities.predicted[i]]
                row[f"{prefix}predicted_activity"] = predicted
                row[f"{prefix}confidence"] = float(s.activities.confidence[i])
            row[f"{prefix}similarity"] = dict(
                zip(queries, s.similarity[:, i].tolist(), strict=True)
            )
        if moved is not None:
            row |= moved.row(i)
        yield row
