"""Suite `retention`: what the model still knows of images that no alignment trains on.

Alone, it is a suite like any other. `with_retention` puts its numbers beside those of another
suite, so that what was won is never seen without what it cost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from clipalign.datasets.emoji import EmojiWorld
from clipalign.errors import DataError, near_matches
from clipalign.evals.attacks import labelled
from clipalign.evals.base import EvalContext, Outcome, SuiteOptions
from clipalign.evals.collector import Collector
from clipalign.evals.examples import image_set, readable
from clipalign.evals.metrics import per_class_accuracy
from clipalign.evals.results import SuiteResult
from clipalign.evals.retained import Retained
from clipalign.evals.scoring import Encodings, distance, score
from clipalign.tasks.base import classnames

__all__ = ["RetentionSuite", "retention_block", "with_retention"]

UNSEEN = "test-unseen-concepts"


class RetentionSuite:
    """Zero-shot accuracy, Recall@k both ways, and the distance to the reference, on clean images.

    By default on the concepts of the emoji world whose names and drawings no alignment sees. For
    another model, name data that its training never saw.
    """

    name = "retention"
    version = 1
    dataset = EmojiWorld.name
    splits = (UNSEEN,)

    class Options(SuiteOptions):
        """What is asked."""

        template: str | None = Field(
            None, description="Prompt with {} for the class name; null for the dataset's first."
        )
        k: tuple[int, ...] = Field(
            (1, 5), min_length=1, description="Places that count in Recall@k, at most all."
        )
        resamples: int = Field(2000, ge=100, description="Of every bootstrap interval.")

        @field_validator("template")
        @classmethod
        def _one_place(cls, template: str | None) -> str | None:
            if template is not None and template.count("{}") != 1:
                raise ValueError("must hold {} once, for the class name")
            return template

        @field_validator("k")
        @classmethod
        def _places(cls, k: tuple[int, ...]) -> tuple[int, ...]:
            if min(k, default=1) < 1:
                raise ValueError("places begin at 1")
            return tuple(sorted(set(k)))

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def run(self, context: EvalContext) -> Outcome:
        """Score one split.

        Raises:
            DataError: the split has no labelled image that can be read, fewer than two classes, or
                a label that is none of its classes.
        """
        retained = self.measure(context)
        collected = Collector(self.options.resamples, context.seed)
        retained.add_to(collected, self.options.k)
        result = context.result(
            self,
            len(retained.examples),
            options=self.options.model_dump(mode="json") | {"template": retained.template},
            templates=[retained.template],
            classnames=list(retained.names),
            metrics=collected.metrics,
            comparisons=collected.comparisons,
            per_class=per_class_accuracy(
                retained.scores[0].predicted, retained.true, retained.names
            ),
            warnings=list(retained.warnings),
        )
        return result, retained.rows()

    def measure(self, context: EvalContext) -> Retained:
        """Everything that the numbers are made of. Raises as `run` does."""
        dataset, split = context.dataset, context.split
        everything, warnings = labelled(dataset, split)
        names = list(classnames(dataset, split))
        index = {name: c for c, name in enumerate(names)}
        if len(names) < 2:
            raise DataError(f"The split {split!r} of {dataset.name} has fewer than two classes.")
        for example in everything:
            if example.label not in index:
                raise DataError(
                    f"{example.key} in the split {split!r} of {dataset.name} is labelled "
                    f"{example.label!r}, which is none of its {len(names)} classes."
                    + near_matches(str(example.label), names)
                )
        template = self.options.template or dataset.templates[0]
        texts = context.encode_classes(template, names)
        encoded = context.encode_images(image_set(dataset, split, everything))
        rows, unread = readable(everything, encoded)
        encodings = [
            Encodings(model, features[rows, 0], text)
            for model, features, text in zip(context.models, encoded.features, texts, strict=True)
        ]
        examples = [everything[i] for i in rows]
        true = np.array([index[str(example.label)] for example in examples], np.int64)
        return Retained(
            examples,
            names,
            template,
            true,
            encodings,
            [score(e, true, np.full(len(true), -1)) for e in encodings],
            distance(*encodings) if len(encodings) > 1 else None,
            [*warnings, *unread],
            everything,
            encoded,
        )


def retention_block(context: EvalContext, *, resamples: int = 2000) -> Collector:
    """The retention of the context's models on the emoji concepts that no alignment sees.

    Whatever data the context names. Features come from the cache after the first time.

    Returns:
        Metrics and comparisons, their names prefixed with `retention_`.
    """
    suite = RetentionSuite(resamples=resamples)
    world: Any = EmojiWorld()
    into = Collector(resamples, context.seed)
    retained = suite.measure(replace(context, dataset=world, split=UNSEEN))
    retained.add_to(
        into,
        suite.options.k,
        prefix="retention_",
        of=" of emoji concepts never aligned on",
        tails=False,
    )
    return into


def with_retention(result: SuiteResult, context: EvalContext) -> SuiteResult:
    """A suite's result with the retention of its models beside it; that of `retention` as it is."""
    if result.suite == RetentionSuite.name:
        return result
    block = retention_block(context)
    return result.model_copy(
        update={
            "metrics": {**result.metrics, **block.metrics},
            "comparisons": [*result.comparisons, *block.comparisons],
        }
    )
