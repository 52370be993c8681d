"""What shows a concept of two values: texts and labels, and what a model's features make of them.

All arithmetic is float64 on the CPU, independent of where texts and labels come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clipalign.errors import DataError

__all__ = ["ConceptProbe", "ProbeFeatures", "Reading"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ConceptProbe:
    """Texts and labels of a concept.

    Attributes:
        name: of the concept, such as "gender".
        values: its two values, such as ("woman", "man").
        value_prompts: A pairs of captions that differ in the value alone, one pair an activity.
        neutral_prompts: the A captions that leave the value open. Where there are no activities to
            tell apart, A = 1 and there may be none.
        spurious_prompts: captions of the values and nothing else; what a projection takes out.
        value: [N] value of each image, 0 or 1.
        activity: [N] activity of each image, below A.
        groups: [N] labels; images that share one are not independent. Empty: all are.

    Raises:
        DataError: texts and labels do not fit together, or one value has no image.
    """

    name: str
    values: tuple[str, str]
    value_prompts: tuple[tuple[str, str], ...]
    neutral_prompts: tuple[str, ...]
    spurious_prompts: tuple[str, ...]
    value: tuple[int, ...]
    activity: tuple[int, ...]
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        pairs, neutral = len(self.value_prompts), len(self.neutral_prompts)
        if pairs < 1 or (neutral != pairs and (pairs, neutral) != (1, 0)):
            raise DataError(
                f"The concept {self.name!r} has {pairs} pairs of captions and {neutral} neutral "
                "ones: one of each an activity is needed."
            )
        lengths = {len(self.value), len(self.activity), len(self.groups) or len(self.value)}
        if len(lengths) > 1 or not all(
            v in (0, 1) and 0 <= a < pairs for v, a in zip(self.value, self.activity, strict=False)
        ):
            raise DataError(f"The labels of the concept {self.name!r} do not fit together.")
        counts = Counter(self.value)
        for number, value in enumerate(self.values):
            if not counts[number]:
                raise DataError(
                    f"None of the {len(self.value)} images is labelled {value!r}, so nothing can "
                    f"be said about {self.name}: it takes images of both {self.values[0]!r} and "
                    f"{self.values[1]!r}."
                )

    def only(self, rows: Sequence[int]) -> ConceptProbe:
        """The probe of some of its images."""
        return replace(
            self,
            value=tuple(self.value[i] for i in rows),
            activity=tuple(self.activity[i] for i in rows),
            groups=tuple(self.groups[i] for i in rows) if self.groups else (),
        )

    @property
    def has_activities(self) -> bool:
        """Whether there is more than one activity to tell apart."""
        return len(self.neutral_prompts) > 1

    @property
    def balance(self) -> str:
        """A sentence where the values have unequal numbers of images; else empty."""
        first, second = (self.value.count(number) for number in (0, 1))
        if first == second:
            return ""
        return (
            f"There are {first} images of {self.values[0]!r} and {second} of {self.values[1]!r}: "
            f"{self.name} accuracy and gap count both values alike; activity accuracy, flips and "
            "KL count every image alike."
        )


@dataclass(frozen=True)
class ProbeFeatures:
    """One model's features of a probe.

    Attributes:
        probe: texts and labels.
        images: [N, d] unit norm.
        value_texts: [A, 2, d] unit norm, of the pairs of captions.
        neutral_texts: [A, d] unit norm; [0, d] where there are no neutral captions.
        logit_scale: τ.

    Raises:
        DataError: the two captions of a pair encode the same.
    """

    probe: ConceptProbe
    images: Floats
    value_texts: Floats
    neutral_texts: Floats
    logit_scale: float

    def __post_init__(self) -> None:
        """Refuse captions that the model cannot tell apart."""
        same = np.abs(self.value_texts[:, 1] - self.value_texts[:, 0]).max(axis=1) < 1e-7
        if same.any():
            first, second = self.probe.value_prompts[int(np.argmax(same))]
            raise DataError(
                f"The model encodes {first!r} and {second!r} alike, so it cannot tell the values "
                f"of {self.probe.name} apart. Use other words."
            )

    @cached_property
    def value(self) -> Ints:
        """[N] value of each image."""
        return np.array(self.probe.value, dtype=np.int64)

    @cached_property
    def activity(self) -> Ints:
        """[N] activity of each image."""
        return np.array(self.probe.activity, dtype=np.int64)

    @cached_property
    def contrast(self) -> Floats:
        """[N]: +1/n for images of the second value and −1/n for the first, n images each.

        Its product with per-image numbers is the difference of their means over the two values.
        """
        counts = np.bincount(self.value, minlength=2)
        return np.where(self.value == 1, 1.0, -1.0) / counts[self.value]

    def mapped(self, matrix: Floats) -> ProbeFeatures:
        """All features times a matrix [m, d] and normalised."""
        return ProbeFeatures(
            self.probe,
            _unit(self.images @ matrix.T),
            _unit(self.value_texts @ matrix.T),
            _unit(self.neutral_texts @ matrix.T),
            self.logit_scale,
        )

    def scaled(self, factors: Floats) -> ProbeFeatures:
        """All features times a factor [d] a dimension and normalised."""
        return ProbeFeatures(
            self.probe,
            _unit(self.images * factors),
            _unit(self.value_texts * factors),
            _unit(self.neutral_texts * factors),
            self.logit_scale,
        )

    def read(self) -> Reading:
        """What the model says of every image."""
        return Reading(self)


@dataclass(frozen=True)
class Reading:
    """What a model says of the images of a probe; each thing is computed when it is asked for.

    Attributes:
        features: that it is read from.
    """

    features: ProbeFeatures = field(repr=False)

    @cached_property
    def margins(self) -> Floats:
        """[N] similarity to the caption of the second value less that of the first.

        Both captions are of the image's own activity; in cosine.
        """
        texts = self.features.value_texts
        direction = (texts[:, 1] - texts[:, 0])[self.features.activity]
        return np.asarray(np.einsum("nd,nd->n", self.features.images, direction))

    @cached_property
    def scores(self) -> Floats:
        """[N, A] logits of the neutral captions."""
        f = self.features
        return np.asarray(f.logit_scale * (f.images @ f.neutral_texts.T))

    @property
    def predicted_value(self) -> Ints:
        """[N] the value whose caption is nearer; the first on a tie."""
        return (self.margins > 0).astype(np.int64)

    @property
    def value_correct(self) -> Bools:
        """[N] whether that is the labelled value."""
        return np.asarray(self.predicted_value == self.features.value)

    @property
    def activity_correct(self) -> Bools:
        """[N] whether the nearest neutral caption is that of the labelled activity."""
        return np.asarray(self.scores.argmax(axis=1) == self.features.activity)

    @property
    def concept_accuracy(self) -> float:
        """Share of right values, the mean over both values so that their numbers do not matter."""
        correct, value = self.value_correct, self.features.value
        return float(np.mean([correct[value == number].mean() for number in (0, 1)]))

    @property
    def activity_accuracy(self) -> float | None:
        """Share of images whose activity is right; None where there are none to tell apart."""
        if not self.features.probe.has_activities:
            return None
        return float(self.activity_correct.mean())

    @property
    def gap(self) -> float:
        """Mean margin of the second value's images less that of the first's; 0 is neutral."""
        return float(self.features.contrast @ self.margins)

    @property
    def log_policy(self) -> Floats:
        """[N, A] log π(y|x) over the neutral captions."""
        shifted = self.scores - self.scores.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _unit(features: Floats) -> Floats:
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.asarray(features / np.maximum(norms, 1e-12))
