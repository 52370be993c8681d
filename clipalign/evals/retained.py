"""From features of clean images to accuracy, Recall@k and the distance to the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clipalign.datasets.base import Example
from clipalign.evals.collector import Collector, Statistic
from clipalign.evals.examples import unreadable_rows
from clipalign.evals.fairness import ranking
from clipalign.evals.features import Encoded
from clipalign.evals.percentiles import Percentile
from clipalign.evals.scoring import Distance, Encodings, Scores
from clipalign.evals.units import DISTANCES

__all__ = ["Retained", "add_distance", "image_to_text", "text_to_image"]

Ints = npt.NDArray[np.int64]

_AT_ONCE = 1 << 22  # similarities in one block


@dataclass(frozen=True)
class Retained:
    """M images of C classes, and what the model, and the reference, made of them.

    Attributes:
        examples: M, in the order of the arrays.
        names: C class names.
        template: of the prompts.
        true: [M] class shown.
        encodings, scores: of the model and, where there is one, of the reference.
        moved: distance between the two.
        warnings: what a reader must know.
        everything, encoded: also what could not be read.
    """

    examples: Sequence[Example]
    names: Sequence[str]
    template: str
    true: Ints
    encodings: Sequence[Encodings]
    scores: Sequence[Scores]
    moved: Distance | None
    warnings: Sequence[str]
    everything: Sequence[Example]
    encoded: Encoded

    def add_to(
        self,
        into: Collector,
        ks: Sequence[int],
        *,
        prefix: str = "",
        of: str = "",
        tails: bool = True,
    ) -> None:
        """Add every number.

        Args:
            into: where to.
            ks: places that count in Recall@k.
            prefix: of the metrics' names.
            of: says which images, for the descriptions; "" for none.
            tails: whether to add the percentiles of KL too.
        """
        groups = np.array([e.group or e.key for e in self.examples], np.str_)
        into.mean(
            f"{prefix}accuracy",
            [s.predicted == self.true for s in self.scores],
            groups,
            higher_is_better=True,
            description=f"Share of images{of} given their own class among {len(self.names)}.",
        )
        found = [image_to_text(e, self.true) for e in self.encodings]
        for k in (k for k in ks if 1 < k < len(self.names)):
            into.mean(
                f"{prefix}recall_image_to_text_at_{k}",
                [places < k for places in found],
                groups,
                higher_is_better=True,
                description=f"Share of images{of} with their own text among the {k} nearest.",
            )
        shown = np.unique(self.true)
        best = [text_to_image(e, self.true, shown) for e in self.encodings]
        for k in (k for k in ks if k < len(self.true)):
            into.mean(
                f"{prefix}recall_text_to_image_at_{k}",
                [places < k for places in best],
                np.array([self.names[c] for c in shown], np.str_),
                higher_is_better=True,
                description=f"Share of class texts{of} with an image of theirs among the {k} "
                "nearest.",
            )
        if self.moved is not None:
            add_distance(into, self.moved, groups, prefix=prefix, of=of, tails=tails)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row an image."""
        for m, example in enumerate(self.examples):
            row: dict[str, Any] = {
                "key": example.key,
                "group": example.group or example.key,
                "label": example.label,
            }
            for name, s in zip(("", "reference_"), self.scores, strict=False):
                row[f"{name}predicted"] = self.names[s.predicted[m]]
                row[f"{name}confidence"] = float(s.confidence[m])
                row[f"{name}p_true"] = float(np.exp(s.log_true[m]))
            if self.moved is not None:
                row |= self.moved.row(m)
            yield row
        yield from unreadable_rows(self.everything, self.encoded)


def image_to_text(encodings: Encodings, true: Ints) -> Ints:
    """[M] place, from 0, of each image's own text among all; of equal scores the earlier text."""
    places = np.zeros(len(true), np.int64)
    for rows, log_probs in encodings.log_policies():
        own = true[rows]
        mine = log_probs[np.arange(len(own)), own][:, None]
        before = np.arange(log_probs.shape[1]) < own[:, None]
        places[rows] = ((log_probs > mine) | ((log_probs == mine) & before)).sum(axis=1)
    return places


def text_to_image(encodings: Encodings, true: Ints, classes: Ints) -> Ints:
    """[len(classes)] place, from 0, of the nearest image of its own among all, for each text."""
    size = max(1, _AT_ONCE // max(1, len(true)))
    places = []
    for start in range(0, len(classes), size):
        asked = classes[start : start + size]
        similar: Tensor = encodings.texts[asked] @ encodings.images.T
        order = ranking(similar.numpy())
        places.append((true[order] == asked[:, None]).argmax(axis=1))
    return np.concatenate(places)


def add_distance(
    into: Collector,
    moved: Distance,
    groups: npt.NDArray[np.str_],
    *,
    prefix: str = "",
    of: str = "",
    tails: bool = True,
) -> None:
    """Add KL to the reference both ways (mean, median, p90, p99) and the mean cosine.

    Args:
        into: where to.
        moved: distance of M images.
        groups: [M] labels of images that are not independent.
        prefix: of the metrics' names.
        of: says which images, for the descriptions; "" for none.
        tails: whether to add the percentiles too.
    """
    for name, values, which in (
        ("kl_to_reference", moved.forward, "KL(reference ‖ model)"),
        ("reverse_kl_to_reference", moved.reverse, "KL(model ‖ reference)"),
    ):
        summaries: tuple[tuple[str, str, Statistic], ...] = (
            ("", "mean", np.mean),
            ("_median", "median", np.median),
            # the median resamples well; in a tail there is little to resample
            ("_p90", "90th percentile", Percentile(90)),
            ("_p99", "99th percentile", Percentile(99)),
        )
        for suffix, words, statistic in summaries if tails else summaries[:1]:
            into.value(
                f"{prefix}{name}{suffix}",
                values,
                groups,
                higher_is_better=False,
                unit="nats",
                description=f"{which} over the candidate texts, {words} of the images{of}.",
                statistic=statistic,
                within=DISTANCES[name],
            )
    if (cosine := moved.cosine) is not None:
        there = np.isfinite(cosine)
        into.value(
            f"{prefix}cosine_to_reference",
            cosine[there],
            groups[there],
            higher_is_better=True,
            unit="cosine",
            description=f"Mean cosine of the model's and the reference's features of images{of}.",
            within=DISTANCES["cosine_to_reference"],
        )
