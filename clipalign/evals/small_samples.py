"""Intervals where resampling says too little: few groups, or groups that do not differ at all.

Percentiles of resampled means lie too close where there are few groups: of nominal 95 % they cover
51 % with two groups, 82 % with five and 93 % with twenty. Below `FEW_GROUPS` intervals are
therefore value ± t · SE, with Student's t of G − 1 degrees of freedom. Below `LEAST_GROUPS` there
are none: with two, t is 12.7 and SE half the distance of two numbers, which is as often tiny.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from clipalign.evals.statistics import (
    Groups,
    Interval,
    cluster_error,
    count_groups,
    wilson_interval,
)

__all__ = [
    "FEW_GROUPS",
    "LEAST_GROUPS",
    "UNBOUNDED",
    "critical_value",
    "student_interval",
    "unanimous_interval",
]

FEW_GROUPS = 20
"""With fewer groups an interval is Student's."""

LEAST_GROUPS = 3
"""With fewer groups there is no interval of a spread."""

UNBOUNDED = (-math.inf, math.inf)


def critical_value(groups: int, level: float = 0.95) -> float:
    """How many standard errors an interval reaches: t of G − 1 below `FEW_GROUPS`, else z."""
    if groups < FEW_GROUPS:
        return _student(groups - 1, level)
    return NormalDist().inv_cdf((1 + level) / 2)


def student_interval(
    values: npt.ArrayLike,
    groups: Groups | None = None,
    level: float = 0.95,
    within: tuple[float, float] = UNBOUNDED,
) -> Interval | None:
    """Mean ± t · SE with the cluster-robust standard error, for few groups.

    Args:
        values: [N] per image.
        groups: [N] labels, or None for independent images.
        level: coverage, in (0, 1).
        within: the least and the most that the mean can be.

    Returns:
        None below `LEAST_GROUPS` groups, and where all groups have the same mean.
    """
    array = np.asarray(values, dtype=np.float64)
    independent = count_groups(len(array), groups)
    if independent < LEAST_GROUPS:
        return None
    half = critical_value(independent, level) * cluster_error(array, groups)
    if not half:
        return None
    mean = float(array.mean())
    low, high = max(mean - half, within[0]), min(mean + half, within[1])
    return Interval(low, high, level, "student-t" if groups is None else "cluster-student-t")


def unanimous_interval(difference: float, groups: int, level: float = 0.95) -> Interval | None:
    """Score interval of a paired difference of shares that is the same in all groups (Tango 1998).

    Each group is one pair. Where no pair differs, Tango's interval is ±z²/(G + z²); where all
    differ in the same direction, it reaches from (G − z²)/(G + z²) to 1. Both are ends of Wilson's
    interval: of 0 of G, and of G of G on the scale from −1 to 1.

    Args:
        difference: mean of a − b, right or wrong of two models, in every one of the groups.
        groups: G, how many there are.
        level: coverage, in (0, 1).

    Returns:
        None where the models differ on some images of every group: no pair says that.
    """
    if difference == 0:
        reach = wilson_interval(0, groups, level).high
        return Interval(-reach, reach, level, "tango")
    if abs(difference) == 1:
        least = 2 * wilson_interval(groups, groups, level).low - 1
        low, high = (least, 1.0) if difference > 0 else (-1.0, -least)
        return Interval(low, high, level, "tango")
    return None


@lru_cache(maxsize=256)
def _student(df: int, level: float) -> float:
    """The t with P(|T| ≤ t) = level: bisection in the angle of `_within`."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < level else (low, middle)
    return math.sqrt(df) * math.tan((low + high) / 2)


def _within(angle: float, df: int) -> float:
    """P(|T| ≤ √df · tan θ) of Student's t, exact (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    sine, cosine, odd = math.sin(angle), math.cos(angle), df % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(2 + odd, df + 1, 2):
        total += term
        term *= (k - 1) / k * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
