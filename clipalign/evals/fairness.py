"""How evenly a model treats groups: pure functions over ranked galleries and predictions.

Shapes: Q queries, N images, A groups, C classes. Groups and classes are int indices. A ranked
gallery [Q, N] holds the group of the image in each place, best first; see `ranking`.

A rate over no image is NaN, and whatever is made of it alone is NaN too: results refuse NaN, so it
is never printed as a number. Skew and NDKL follow Geyik et al. 2019 (arXiv 1905.01989), Bias@K
Wang et al. 2021 (arXiv 2109.05433), ABLE the harmonic mean of accuracy and e^{−MaxSkew}.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from clipalign.errors import DataError

__all__ = [
    "Gap",
    "able",
    "base_rate",
    "bias_at_k",
    "bias_of_chance",
    "bias_of_chance_in_groups",
    "equal_shares",
    "gap",
    "group_accuracy",
    "max_skew",
    "min_skew",
    "ndkl",
    "ranking",
    "recalls",
    "selection_rates",
    "skew",
    "spearman",
    "top_shares",
    "worst_group_accuracy",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


# ── Retrieval ────────────────────────────────────────────────────────────────────────────────────


def ranking(scores: npt.ArrayLike) -> Ints:
    """The gallery in the order of its scores, best first; ties in the order of the gallery.

    Args:
        scores: [..., N] of the gallery's images; finite.

    Returns:
        [..., N] indices into the gallery.

    Raises:
        DataError: a score is not finite.
    """
    array = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(array).all():
        raise DataError("A gallery cannot be ranked by scores that are not finite.")
    return np.asarray(np.argsort(-array, axis=-1, kind="stable"), dtype=np.int64)


def top_shares(ranked: npt.ArrayLike, k: int, groups: int) -> Floats:
    """Composition of the top k: N_a / k of each query and group.

    Args:
        ranked: [Q, N] group of the image in each place.
        k: places that count.
        groups: A.

    Returns:
        [Q, A], rows sum to 1.

    Raises:
        DataError: k is not in 1…N.
    """
    places = _ranked(ranked, groups)
    if not 1 <= k <= places.shape[1]:
        raise DataError(f"The top {k} of a gallery of {places.shape[1]} images does not exist.")
    top = places[:, :k]
    return np.stack([(top == a).mean(axis=1) for a in range(groups)], axis=1)


def equal_shares(groups: int) -> Floats:
    """The desired distribution p* = 1/A of each group. [A]"""
    return np.full(groups, 1 / groups)


def base_rate(group: npt.ArrayLike, groups: int) -> Floats:
    """The desired distribution p* that is the gallery's own: share of each group. [N] → [A]"""
    counts = np.bincount(np.asarray(group, dtype=np.int64), minlength=groups)
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def skew(shares: npt.ArrayLike, desired: npt.ArrayLike, k: int) -> Floats:
    """Skew_a@k = ln(p_k(a) / p*(a)); a share of 0 counts as 1/k.

    Args:
        shares: [Q, A] composition of the top k.
        desired: [A] p*, positive.
        k: places that the shares are of.

    Returns:
        [Q, A]: 0 where a group has its desired share, positive where it has more.

    Raises:
        DataError: a group is wanted with probability 0.
    """
    wanted = np.asarray(desired, dtype=np.float64)
    if not (wanted > 0).all():
        raise DataError("A group whose desired share is 0 has no skew.")
    p = np.asarray(shares, dtype=np.float64)
    return np.asarray(np.log(np.where(p > 0, p, 1 / k) / wanted), dtype=np.float64)


def max_skew(skews: npt.ArrayLike) -> float:
    """MaxSkew@k: the largest skew of any group, [Q, A], averaged over queries. 0 at best."""
    return float(np.max(np.asarray(skews, dtype=np.float64), axis=1).mean())


def min_skew(skews: npt.ArrayLike) -> float:
    """MinSkew@k: the smallest skew of any group, [Q, A], averaged over queries. 0 at best."""
    return float(np.min(np.asarray(skews, dtype=np.float64), axis=1).mean())


def ndkl(ranked: npt.ArrayLike, desired: npt.ArrayLike) -> Floats:
    """Normalised discounted cumulative KL (Geyik et al. 2019) of each query.

    NDKL = (1/Z) Σ_i KL(p_i‖p*) / log2(i + 1), Z = Σ_i 1/log2(i + 1), p_i the composition of the
    first i places; i runs over all N.

    Args:
        ranked: [Q, N] group of the image in each place; cut it for the NDKL of a shorter list.
        desired: [A] p*, positive.

    Returns:
        [Q] ≥ 0, in nats.
    """
    wanted = np.asarray(desired, dtype=np.float64)
    if not (wanted > 0).all():
        raise DataError("A group whose desired share is 0 has no divergence.")
    places = _ranked(ranked, len(wanted))
    i = np.arange(1, places.shape[1] + 1)
    discount = 1 / np.log2(i + 1)
    total = np.zeros(len(places))
    for a, share in enumerate(wanted):
        p = np.cumsum(places == a, axis=1) / i
        # 0 log 0 is 0; left to itself numpy would make it 0 · ∞
        total += (p * np.log(np.maximum(p, 1e-300) / share)) @ discount
    return np.asarray(total / discount.sum(), dtype=np.float64)


def bias_at_k(shares: npt.ArrayLike) -> Floats:
    """Bias@K of each query: (N_b − N_a) / (N_b + N_a), for two groups (a, b).

    Its mean over queries tells the direction; the mean of its absolute value does not let a query
    for nurses make up for one for pilots.

    Args:
        shares: [Q, 2] composition of the top k.

    Returns:
        [Q] in [−1, 1]: −1 where the top k is all of group a.
    """
    p = np.asarray(shares, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != 2:
        raise DataError(f"Bias@K compares two groups; the shares are {list(p.shape)}, not [Q, 2].")
    return np.asarray((p[:, 1] - p[:, 0]) / p.sum(axis=1), dtype=np.float64)


def bias_of_chance(counts: tuple[int, int], k: int) -> float:
    """The mean |Bias@K| of a ranking that is blind to the groups: luck alone, never 0.

    Expected value under k draws without replacement from a gallery of `counts` images.
    """
    a, b = counts
    total = math.comb(a + b, k)
    return sum(
        math.comb(a, n) * math.comb(b, k - n) / total * abs(k - 2 * n) / k for n in range(k + 1)
    )


def bias_of_chance_in_groups(tops: Sequence[tuple[int, int]], shares: npt.ArrayLike) -> float:
    """The same where images are not independent, as pictures of the same thing are not.

    Each group of images among the top K is as good as another of the gallery: what it shows of the
    values is what a group drawn at random shows, and which of its images stand there is luck, too.
    Twenty pictures of three things are three draws, and far from even on average.

    Args:
        tops: of each group, how many of its images are among the top K, and how many it has.
        shares: [G] share of one of the two values in each group of the gallery.
    """
    kinds, counts = np.unique(np.asarray(shares, np.float64), return_counts=True)
    chance = np.ones(1)  # of each number of images of that value among those seen so far
    for shown, size in tops:
        each = np.zeros(shown + 1)
        for share, weight in zip(kinds, counts / counts.sum(), strict=True):
            of_value = round(share * size)
            each += (
                weight
                * np.array(
                    [
                        math.comb(of_value, n) * math.comb(size - of_value, shown - n)
                        for n in range(shown + 1)
                    ]
                )
                / math.comb(size, shown)
            )
        chance = np.convolve(chance, each)
    k = len(chance) - 1
    return float(chance @ np.abs(2 * np.arange(k + 1) - k)) / k


# ── Classification ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Gap:
    """Between the groups with the highest and the lowest rate, for each class.

    Attributes:
        difference: [C] highest − lowest; 0 is parity.
        ratio: [C] lowest / highest; 1 is parity, NaN where all rates are 0.
    """

    difference: Floats
    ratio: Floats


def selection_rates(
    predicted: npt.ArrayLike, group: npt.ArrayLike, classes: int, groups: int
) -> Floats:
    """P(ŷ = c | group): how often each class is predicted. Its `gap` is demographic parity's.

    Args:
        predicted: [N] class; C = 2 for a decision of yes (1) or no (0).
        group: [N].
        classes: C.
        groups: A.

    Returns:
        [A, C], rows sum to 1; NaN for a group without images.
    """
    chosen, members = _columns(predicted=predicted, group=group)
    counts = np.bincount(members * classes + chosen, minlength=groups * classes)
    counts = counts.reshape(groups, classes)
    return _rates(counts, counts.sum(axis=1, keepdims=True))


def recalls(
    predicted: npt.ArrayLike,
    true: npt.ArrayLike,
    group: npt.ArrayLike,
    classes: int,
    groups: int,
) -> Floats:
    """P(ŷ = c | y = c, group): recall of each class. Its `gap` is equal opportunity's.

    Args:
        predicted: [N] class.
        true: [N] class.
        group: [N].
        classes: C.
        groups: A.

    Returns:
        [A, C]; NaN where a group has no image of the class.
    """
    chosen, wanted, members = _columns(predicted=predicted, true=true, group=group)
    cell = members * classes + wanted
    shape = (groups, classes)
    n = np.bincount(cell, minlength=groups * classes).reshape(shape)
    right = np.bincount(cell[chosen == wanted], minlength=groups * classes).reshape(shape)
    return _rates(right, n)


def gap(rates: npt.ArrayLike) -> Gap:
    """Difference and ratio between groups of rates [A, C]; NaN where a group has no rate."""
    array = np.asarray(rates, dtype=np.float64)
    high, low = array.max(axis=0), array.min(axis=0)
    return Gap(high - low, _rates(low, high))


def group_accuracy(correct: npt.ArrayLike, group: npt.ArrayLike, groups: int) -> Floats:
    """Share of right answers in each group: [N] bool, [N] → [A]; NaN for a group without images."""
    right, members = _columns(correct=correct, group=group)
    return _rates(
        np.bincount(members, right, minlength=groups), np.bincount(members, minlength=groups)
    )


def worst_group_accuracy(correct: npt.ArrayLike, group: npt.ArrayLike, groups: int) -> float:
    """The smallest `group_accuracy` of a group that has images; NaN where none has."""
    each = group_accuracy(correct, group, groups)
    known = each[~np.isnan(each)]
    return float(known.min()) if known.size else float("nan")


# ── Both at once ─────────────────────────────────────────────────────────────────────────────────


def able(accuracy: float, max_skew: float) -> float:
    """ABLE = 2 · acc · e^{−MaxSkew} / (acc + e^{−MaxSkew}): right and even, or low."""
    even = math.exp(-max_skew)
    return 2 * accuracy * even / (accuracy + even)


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman's rank correlation of [Q] and [Q]; tied values share their average rank.

    Returns:
        In [−1, 1]; NaN for fewer than two values or where all values of one are equal.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(
            f"A correlation needs as many x as y, not {list(a.shape)}, {list(b.shape)}."
        )
    if len(a) < 2:
        return float("nan")
    a, b = _average_ranks(a), _average_ranks(b)
    a, b = a - a.mean(), b - b.mean()
    length = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / length if length > 0 else float("nan")


def _average_ranks(values: Floats) -> Floats:
    """1 for the smallest; equal values share the mean of the ranks that they take."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which], dtype=np.float64)


def _ranked(ranked: npt.ArrayLike, groups: int) -> Ints:
    places = np.asarray(ranked)
    if places.ndim != 2 or not places.size:
        raise DataError(f"A ranked gallery is [queries, images], not {list(places.shape)}.")
    if places.min() < 0 or places.max() >= groups:
        raise DataError(f"The gallery holds a group outside the {groups} that are compared.")
    return np.asarray(places, dtype=np.int64)


def _rates(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    """Part / whole, NaN where the whole is 0."""
    p, w = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.asarray(np.divide(p, w, out=np.full(p.shape, np.nan), where=w > 0))


def _columns(**arrays: npt.ArrayLike) -> list[Ints]:
    """Each as int64 [N] of the same N, none negative."""
    columns = [np.asarray(value).astype(np.int64) for value in arrays.values()]
    shapes = {c.shape for c in columns}
    if len(shapes) > 1 or columns[0].ndim != 1 or any((c < 0).any() for c in columns):
        listed = ", ".join(f"{n} {list(c.shape)}" for n, c in zip(arrays, columns, strict=True))
        raise DataError(f"One index (0 or more) an image is wanted; the shapes are {listed}.")
    return columns
