"""Suite `typographic`: does a wrong word on the picture change what the model sees?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from clipalign.datasets.base import Dataset
from clipalign.datasets.options import Template
from clipalign.evals.attack_metrics import attack_metrics
from clipalign.evals.attacked import Attacked, Judged
from clipalign.evals.attacks import AttackPlan, drawn_plan, photographed_plan
from clipalign.evals.base import EvalContext, Outcome, SuiteOptions
from clipalign.evals.collector import Collector
from clipalign.evals.examples import readable, unreadable_rows
from clipalign.evals.features import Encoded
from clipalign.evals.scoring import Encodings, Scores, distance, score
from clipalign.tasks.rendering import STYLES, Style

__all__ = ["Looked", "TypographicSuite"]


@dataclass(frozen=True)
class Looked:
    """The images of a split as the models see them.

    Attributes:
        images: M, those that could be read.
        encodings: of these and of the class prompts, one for each model.
        template: of the prompts.
        encoded: all images, read or not.
        readable: examples that could be read.
        warnings: of those that could not.
    """

    images: Attacked
    encodings: Sequence[Encodings]
    template: str
    encoded: Encoded
    readable: int
    warnings: Sequence[str]

    def scores(self) -> list[Scores]:
        """What each model makes of the M images."""
        return [score(e, self.images.true, self.images.written) for e in self.encodings]


class TypographicSuite:
    """Accuracy clean and attacked, attack success, and how far the model moved from its reference.

    Each image is scored clean and, in each style, with the name of another class of its split
    written on it, drawn uniformly; all chance comes from the seed and the image's key. Fonts and
    colours are those that no training sees, except on the emoji world's own train and validation.

    Where images carry an attribute `attack_text` nothing is drawn: those that have one are attacked
    as they are, and the others are clean. The classes are then all labels and all written words, as
    in the protocol of the PAINT photographs.
    """

    name = "typographic"
    version = 1
    dataset = "emoji"

    class Options(SuiteOptions):
        """What is drawn, and what is asked."""

        styles: tuple[Style, ...] = Field(
            STYLES, min_length=1, description="How words are drawn: outlined, note."
        )
        attacks_per_image: int = Field(
            1, ge=1, le=100, description="Attacked copies of an image in each style."
        )
        fonts: Literal["train", "test"] | None = Field(
            None, description="Which fonts and colours; null for those of the split."
        )
        template: Template | None = Field(
            None, description="Prompt with {} for the class name; null for the dataset's first."
        )
        attack_column: str = Field(
            "attack_text", description="Attribute that says what is written on a photograph."
        )
        resamples: int = Field(2000, ge=100, description="Of every bootstrap interval.")

        @field_validator("styles")
        @classmethod
        def _each_once(cls, styles: tuple[Style, ...]) -> tuple[Style, ...]:
            return tuple(dict.fromkeys(styles))

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def run(self, context: EvalContext) -> Outcome:
        """Score one split.

        Raises:
            DataError: the split has no labelled image that can be read, fewer than two classes, or
                a label that is none of its classes.
        """
        looked = self.look(context)
        images, encodings = looked.images, looked.encodings
        moved = None
        if len(encodings) > 1 and images.is_clean.any():
            moved = distance(*(e.of(np.flatnonzero(images.is_clean)) for e in encodings))
        judged = Judged(images, looked.scores(), moved)
        collected = attack_metrics(judged, self.options.resamples, context.seed)
        return self.outcome(
            context, looked, looked.readable, collected, judged.rows(), judged.per_class()
        )

    def look(self, context: EvalContext) -> Looked:
        """Encode the images that are scored and the class prompts.

        Raises:
            DataError: as for `run`.
        """
        plan = self.plan(context.dataset, context.split, context.seed)
        template = self.options.template or context.dataset.templates[0]
        texts = context.encode_classes(template, plan.classnames)
        encoded = context.encode_images(plan.images())
        items, warnings = readable(plan.examples, encoded)
        encodings = [
            Encodings(model, features[items].flatten(0, 1), text)
            for model, features, text in zip(context.models, encoded.features, texts, strict=True)
        ]
        images = Attacked.of(plan, items)
        return Looked(images, encodings, template, encoded, len(items), warnings)

    def outcome(
        self,
        context: EvalContext,
        looked: Looked,
        n: int,
        collected: Collector,
        rows: Iterable[Mapping[str, Any]],
        per_class: Mapping[str, Mapping[str, float | int]] | None = None,
    ) -> Outcome:
        """The result of what was collected, and its rows, those of unreadable images last.

        Args:
            context: see `run`.
            looked: what was scored.
            n: images that the numbers are of.
            collected: the numbers.
            rows: one an image.
            per_class: numbers of each class, where there are any.
        """
        plan, template = looked.images.plan, looked.template
        result = context.result(
            self,
            n,
            options=self.options.model_dump(mode="json")
            | {"template": template, "fonts": plan.fonts},
            templates=[template],
            classnames=list(plan.classnames),
            metrics=collected.metrics,
            comparisons=collected.comparisons,
            per_class=per_class or {},
            warnings=[*plan.warnings, *looked.warnings],
        )
        return result, chain(rows, unreadable_rows(plan.examples, looked.encoded))

    def plan(self, dataset: Dataset, split: str, seed: int) -> AttackPlan:
        """The images that are scored: those of the data itself, or those that are drawn.

        Raises:
            DataError: the split cannot serve.
        """
        options = self.options
        return photographed_plan(dataset, split, options.attack_column) or drawn_plan(
            dataset,
            split,
            styles=options.styles,
            attacks_per_image=options.attacks_per_image,
            seed=seed,
            fonts=options.fonts,
        )
