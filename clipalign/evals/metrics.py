"""What an evaluation measures of each image: pure functions over per-image arrays, in float64.

Accuracies and the like are means of such values over images that are not independent; a
`Collector` takes them, with their intervals and paired differences.

Shapes: N images, C candidate texts, d feature dimensions. Class arrays hold int indices into the
candidates; a written index of −1 means that nothing (or no candidate) is written on the image.

A number of no image is NaN: results refuse NaN, so it is never printed. Definitions follow
arXiv 2411.08923 and the benchmarks it evaluates on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from clipalign.errors import DataError

__all__ = [
    "attacked_rows",
    "cosine_similarity",
    "expected_calibration_error",
    "kl_divergence",
    "object_or_word",
    "per_class_accuracy",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

NORMALISATION_TOLERANCE = 1e-3
"""How far the log of a row's total probability may lie from 0: float32 softmax stays far below."""


# ── Right and wrong ──────────────────────────────────────────────────────────────────────────────


def attacked_rows(
    written: npt.ArrayLike, true: npt.ArrayLike, clean_predicted: npt.ArrayLike | None = None
) -> Bools:
    """Which images count in an attack success rate: those with another class written on them.

    Args:
        written: [N] class written on the image; −1 for none.
        true: [N] class of the object.
        clean_predicted: [N] class predicted without the writing. When given, only images that were
            right when clean count: the rest were lost before the attack.

    Returns:
        [N] bool, for selecting values and groups before an interval is made.
    """
    written, true = _indices(written=written, true=true)
    rows = (written >= 0) & (written != true)
    if clean_predicted is not None:
        clean_predicted, true = _indices(clean_predicted=clean_predicted, true=true)
        rows &= clean_predicted == true
    return np.asarray(rows, dtype=np.bool_)


def object_or_word(log_probs: npt.ArrayLike, true: npt.ArrayLike, written: npt.ArrayLike) -> Bools:
    """Two-way choice: is the object's text more probable than the written one?

    A tie is not a choice of the object.

    Args:
        log_probs: [N, C] log π(y|x); logits do as well, since only their order counts.
        true: [N] index of the object's text.
        written: [N] index of the written text; not −1 (select with `attacked_rows`).

    Returns:
        [N] bool.
    """
    scores = _matrix("log_probs", log_probs)
    picked = _pick(scores, "true", true) > _pick(scores, "written", written)
    return np.asarray(picked, dtype=np.bool_)


def per_class_accuracy(
    predicted: npt.ArrayLike, true: npt.ArrayLike, classnames: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Accuracy and n of each class that has images, in the order of `classnames`.

    Args:
        predicted: [N] predicted class.
        true: [N] true class, an index into `classnames`.
        classnames: the classes' names, all different.

    Returns:
        {name: {"accuracy": share, "n": images}}.
    """
    predicted, true = _indices(predicted=predicted, true=true)
    if len(set(classnames)) != len(classnames):
        raise DataError("Two classes share a name, so per-class accuracy can't name them apart.")
    if true.size and (true.min() < 0 or true.max() >= len(classnames)):
        raise DataError(f"true holds a class outside the {len(classnames)} class names.")
    n = np.bincount(true, minlength=len(classnames))
    right = np.bincount(true[predicted == true], minlength=len(classnames))
    return {
        name: {"accuracy": float(right[c] / n[c]), "n": int(n[c])}
        for c, name in enumerate(classnames)
        if n[c]
    }


def expected_calibration_error(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15
) -> float:
    """ECE: Σ over bins of (share of images in it) · |accuracy − mean confidence|.

    `bins` equal bins of confidence, each open below and closed above (Guo et al. 2017, eq. 3).

    Args:
        confidence: [N] probability of the predicted class, in [0, 1].
        correct: [N] bool, whether the prediction is right.
        bins: number of bins.
    """
    confidence, correct = _floats(confidence=confidence, correct=correct)
    if not confidence.size:
        return float("nan")
    # The slack lets in a float32 softmax that rounds to a hair above 1; NaN is not let in.
    if not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-6):
        raise DataError("Confidences must be probabilities between 0 and 1; pass exp(log π).")
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(which, correct, bins) - np.bincount(which, confidence, bins)
    return float(np.abs(gap).sum() / len(confidence))


# ── Distance from the reference ──────────────────────────────────────────────────────────────────


def kl_divergence(log_p: npt.ArrayLike, log_q: npt.ArrayLike) -> Floats:
    """KL(p‖q) = Σ_y p(y) (log p(y) − log q(y)) of each image, in nats.

    What L_reg holds small is KL(π_ref‖π_θ): `kl_divergence(reference, policy)`; the other
    direction is `kl_divergence(policy, reference)`.

    Args:
        log_p: [N, C] natural-log probabilities. Rows are normalised again in float64, so that the
            rounding of a float32 softmax does not show up as a divergence.
        log_q: [N, C].

    Returns:
        [N] ≥ 0; 0 where they are equal; infinite where q forbids what p allows.

    Raises:
        DataError: the shapes differ, or a row is not a log-probability.
    """
    log_p, log_q = _log_policies(log_p, log_q)
    return _kl(log_p, log_q)


def cosine_similarity(features: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Cosine [N] of I_θ(x) [N, d] and I_ref(x) [N, d]; they need not be of unit norm.

    NaN where a feature is zero, as a tower gives it for an image that wakes none of its units: it
    has no direction.

    Raises:
        DataError: the shapes differ, or a feature is not finite.
    """
    a, b = _matrix("features", features), _matrix("reference", reference)
    if a.shape != b.shape:
        raise DataError(f"features is {a.shape} and reference is {b.shape}: they must be alike.")
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not np.isfinite(norms).all():
        row = int(np.argmin(np.isfinite(norms)))
        raise DataError(f"Row {row}: a feature that is not finite has no direction to compare.")
    products = np.einsum("nd,nd->n", a, b)
    cosines = np.divide(products, norms, out=np.full(len(norms), np.nan), where=norms > 0)
    return np.asarray(np.clip(cosines, -1.0, 1.0), dtype=np.float64)


# ── Checked arrays ───────────────────────────────────────────────────────────────────────────────


def _indices(**arrays: npt.ArrayLike) -> list[Ints]:
    """Each as int64 [N] of the same N."""
    checked = []
    for name, value in arrays.items():
        array = np.asarray(value)
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"{name} must hold class indices (int), not {array.dtype}.")
        checked.append(array.astype(np.int64))
    _check_alike(dict(zip(arrays, checked, strict=True)))
    return checked


def _floats(**arrays: npt.ArrayLike) -> list[Floats]:
    """Each as float64 [N] of the same N."""
    checked = {name: np.asarray(value, dtype=np.float64) for name, value in arrays.items()}
    _check_alike(checked)
    return list(checked.values())


def _check_alike(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise DataError(f"One value an image is wanted, but the shapes are {listed}.")


def _matrix(name: str, value: npt.ArrayLike) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2:
        raise DataError(f"{name} must have two dimensions, one row an image, not {array.shape}.")
    return array


def _pick(scores: Floats, name: str, value: npt.ArrayLike) -> Floats:
    """The score [N] that each row of [N, C] gives to the candidate named for it."""
    (index,) = _indices(**{name: value})
    n, candidates = scores.shape
    if len(index) != n:
        raise DataError(f"{name} has {len(index)} indices for {n} images: one an image is wanted.")
    if index.size and (index.min() < 0 or index.max() >= candidates):
        raise DataError(
            f"{name} holds an index outside the {candidates} candidate texts. Leave out the images "
            "that have none (−1)."
        )
    return np.asarray(scores[np.arange(n), index], dtype=np.float64)


def _log_policies(log_p: npt.ArrayLike, log_q: npt.ArrayLike) -> tuple[Floats, Floats]:
    p, q = _matrix("log_p", log_p), _matrix("log_q", log_q)
    if p.shape != q.shape:
        raise DataError(f"Two policies over the same texts are wanted, not {p.shape} and {q.shape}")
    return _normalised("log_p", p), _normalised("log_q", q)


def _normalised(name: str, log_probs: Floats) -> Floats:
    with np.errstate(invalid="ignore"):  # NaN is refused with words just below
        total = np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
    if not np.all(np.abs(total) <= NORMALISATION_TOLERANCE):
        row = int(np.argmax(~(np.abs(total[:, 0]) <= NORMALISATION_TOLERANCE)))
        raise DataError(
            f"{name}, row {row}: probabilities sum to {np.exp(total[row, 0]):.6g}, not 1. Pass "
            "log-softmax, not logits or probabilities."
        )
    return np.asarray(log_probs - total, dtype=np.float64)


def _kl(log_p: Floats, log_q: Floats) -> Floats:
    p = np.exp(log_p)
    # p log p → 0 as p → 0; left to itself, numpy would make it 0 · ∞.
    terms = p * np.subtract(log_p, log_q, out=np.zeros_like(p), where=p > 0)
    # The sum is a difference of numbers near 1: rounding can leave −1e-16 where KL is 0.
    return np.asarray(np.maximum(terms.sum(axis=1), 0.0), dtype=np.float64)
