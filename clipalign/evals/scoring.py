"""From features to per-image scores: the policy over candidate texts, a block of images at a time.

Images × texts is never held whole: a million images over a thousand classes would be 4 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clipalign.evals.metrics import cosine_similarity, kl_divergence
from clipalign.models.loaded import LoadedModel
from clipalign.policy import log_policy

__all__ = ["Distance", "Encodings", "Scores", "distance", "score"]

_AT_ONCE = 1 << 22  # log-probabilities in one block


@dataclass(frozen=True)
class Encodings:
    """One model's features of M images and C candidate texts.

    Attributes:
        model: it gives the logit scale.
        images: [M, d] unit norm, on the CPU.
        texts: [C, d] unit norm, on the CPU.
    """

    model: LoadedModel
    images: Tensor
    texts: Tensor

    def of(self, rows: npt.NDArray[np.int64]) -> Encodings:
        """Those of some of the images."""
        return Encodings(self.model, self.images[rows], self.texts)

    def log_policies(self) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Blocks of rows and their log π(y|x) [rows, C]."""
        scale = self.model.logit_scale.cpu()
        size = max(1, _AT_ONCE // max(1, len(self.texts)))
        for start in range(0, len(self.images), size):
            rows = slice(start, start + size)
            yield rows, log_policy(self.images[rows], self.texts, scale).numpy()


@dataclass(frozen=True)
class Scores:
    """What one model makes of M images.

    Attributes:
        predicted: [M] the most probable candidate.
        confidence: [M] its probability.
        log_true: [M] log-probability of the true class.
        log_written: [M] log-probability of the written class; NaN where nothing is written.
    """

    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    log_true: npt.NDArray[np.float64]
    log_written: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Distance:
    """How far M images moved from the reference.

    Attributes:
        forward: [M] KL(π_ref‖π_θ) in nats, which the regulariser holds small.
        reverse: [M] KL(π_θ‖π_ref) in nats.
        cosine: [M] of I_θ(x) and I_ref(x), NaN where one of them is zero; None where the two have
            different widths.
    """

    forward: npt.NDArray[np.float64]
    reverse: npt.NDArray[np.float64]
    cosine: npt.NDArray[np.float64] | None

    def row(self, m: int) -> dict[str, float]:
        """Of one image, as the rows of a result have it; a cosine only where there is one."""
        found = {
            "kl_to_reference": float(self.forward[m]),
            "reverse_kl_to_reference": float(self.reverse[m]),
        }
        if self.cosine is not None and np.isfinite(self.cosine[m]):
            found["cosine_to_reference"] = float(self.cosine[m])
        return found


def score(
    encodings: Encodings, true: npt.NDArray[np.int64], written: npt.NDArray[np.int64]
) -> Scores:
    """Score each image over the candidate texts.

    Args:
        encodings: of M images and C texts.
        true: [M] index of the true class among the texts.
        written: [M] index of the class written on the image; −1 for none.
    """
    m = len(true)
    scores = Scores(np.zeros(m, np.int64), np.zeros(m), np.zeros(m), np.full(m, np.nan))
    for rows, log_probs in encodings.log_policies():
        each = np.arange(len(log_probs))
        scores.predicted[rows] = log_probs.argmax(axis=1)
        scores.confidence[rows] = np.exp(log_probs.max(axis=1).astype(np.float64))
        scores.log_true[rows] = log_probs[each, true[rows]]
        word = written[rows]
        scores.log_written[rows] = np.where(word >= 0, log_probs[each, word], np.nan)
    return scores


def distance(model: Encodings, reference: Encodings) -> Distance:
    """KL both ways and cosine of a model and its reference: the same M images, the same C texts."""
    m = len(model.images)
    forward, reverse = np.zeros(m), np.zeros(m)
    for (rows, p), (_, q) in zip(model.log_policies(), reference.log_policies(), strict=True):
        forward[rows], reverse[rows] = kl_divergence(q, p), kl_divergence(p, q)
    alike = model.images.shape == reference.images.shape
    cosine = cosine_similarity(model.images, reference.images) if alike else None
    return Distance(forward, reverse, cosine)
