"""Suite `reading`: of an image with a wrong word on it, does the model read or look?

OCR is choosing the written word, OD choosing the object ("Aligning Visual Contrastive Learning
Models via Preference Optimization", Fig. 2). `reading_outcomes` gives both as a linear map is
turned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from clipalign.errors import DataError
from clipalign.evals.attacked import Judged
from clipalign.evals.base import EvalContext, Outcome
from clipalign.evals.collector import Collector
from clipalign.evals.metrics import attacked_rows
from clipalign.evals.typographic import TypographicSuite
from clipalign.models.linear_map import LinearMap

__all__ = ["ReadingPoint", "ReadingSuite", "reading_outcomes"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class ReadingPoint:
    """What a map turned to t reads and sees.

    Attributes:
        t: power of the map.
        od: share of images given the class of the object, among all classes.
        ocr: share of images given the class that is written.
        od_two_way: share on which the object's text beats the written one.
        ocr_two_way: share on which the written text beats the object's.
    """

    t: float
    od: float
    ocr: float
    od_two_way: float
    ocr_two_way: float


def reading_outcomes(
    image_features: Tensor,
    text_features: Tensor,
    linear: LinearMap,
    ts: Sequence[float],
    *,
    true: npt.ArrayLike,
    written: npt.ArrayLike,
) -> Iterator[dict[str, Bools]]:
    """What is chosen on each image under W_t for every t, from cached features (paper, Fig. 2).

    W_t = U Σᵗ Vᵀ and U changes no similarity, so features are taken into the basis of V once and
    scaled by σᵗ for each t, in float64. The logit scale is not needed: it changes no choice.

    Args:
        image_features: [N, d] unit norm, of images with a wrong word on them.
        text_features: [C, d] unit norm, of the class prompts.
        linear: W, [d, d], trained on these features.
        ts: powers.
        true: [N] class of the object, an index into the prompts.
        written: [N] class written; not −1, and not the true one.

    Yields:
        For each t, in that order: field of a `ReadingPoint` → [N] whether it holds.

    Raises:
        DataError: there is no image, or one without a wrong word on it.
    """
    shown, word = np.asarray(true, np.int64), np.asarray(written, np.int64)
    if not len(shown) or not attacked_rows(word, shown).all():
        raise DataError("Reading is measured on images that all have a wrong word on them.")
    _, sigma, vt = linear.svd
    images = image_features.cpu().double() @ vt.cpu().T
    texts = text_features.cpu().double() @ vt.cpu().T
    each = np.arange(len(shown))
    for t in ts:
        scale = sigma.cpu().clamp(min=1e-6).pow(t)
        scores = (_unit(images * scale) @ _unit(texts * scale).T).numpy()
        predicted = scores.argmax(axis=1)
        margin = scores[each, shown] - scores[each, word]
        yield {
            "od": predicted == shown,
            "ocr": predicted == word,
            "od_two_way": margin > 0,
            "ocr_two_way": margin < 0,
        }


class ReadingSuite(TypographicSuite):
    """Which of the two is chosen on attacked images: the written word (OCR) or the object (OD).

    Among all classes of the split, and asked of these two alone. Images, words, fonts and options
    are those of the suite `typographic`.
    """

    name = "reading"
    version = 1

    def features(self, context: EvalContext) -> tuple[Tensor, Tensor, Ints, Ints, Labels]:
        """The attacked images of a split as one model's features, for `reading_outcomes`.

        Returns:
            Image features [N, d], features of the class prompts [C, d], the classes shown [N] and
            written [N], and the groups [N] of images that are not independent.

        Raises:
            DataError: as for `typographic`.
        """
        looked = self.look(context)
        images, encodings = looked.images, looked.encodings[0]
        rows = images.is_attacked
        labels = images.true[rows], images.written[rows], images.group[rows]
        return encodings.images[rows], encodings.texts, *labels

    def run(self, context: EvalContext) -> Outcome:
        """Score the attacked images of one split.

        Raises:
            DataError: as for `typographic`, or no image has a wrong word on it.
        """
        looked = self.look(context)
        judged = Judged(looked.images, looked.scores(), None)
        rows = looked.images.is_attacked
        if not rows.any():
            raise DataError(
                f"No image in the split {context.split!r} of {context.dataset.name} has a wrong "
                "word on it, so there is nothing to read."
            )
        into = Collector(self.options.resamples, context.seed)
        _add(into, judged, rows)
        return self.outcome(context, looked, int(rows.sum()), into, _rows(judged, rows))


def _add(into: Collector, judged: Judged, rows: Bools) -> None:
    groups = judged.images.group[rows]
    reads = [s.log_written[rows] > s.log_true[rows] for s in judged.scores]
    looks = [s.log_true[rows] > s.log_written[rows] for s in judged.scores]
    for name, each, good, description in (
        ("od", [r[rows] for r in judged.right()], True, "given the class of the object"),
        ("ocr", [r[rows] for r in judged.fooled()], None, "given the class that is written"),
        ("od_two_way", looks, True, "on which the object's text beats the written one"),
        ("ocr_two_way", reads, None, "on which the written text beats the object's"),
    ):
        into.mean(
            name,
            each,
            groups,
            higher_is_better=good,
            description=f"Share of images with a wrong word on them {description}.",
        )


def _rows(judged: Judged, rows: Bools) -> Iterator[dict[str, Any]]:
    for row, counts in zip(judged.rows(), rows, strict=True):
        if counts:
            yield row


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features, dim=-1)
