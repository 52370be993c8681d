"""Intervals of many statistics of one set of images at once, where each is costly to compute.

`clipalign.evals.statistics` makes percentile intervals of one statistic. Those do not suit numbers
such as MaxSkew or the mean |Bias@K|, in which chance adds up instead of cancelling: on a resample,
which holds images twice, they come out larger, and the percentiles lie above the number itself.
These intervals are value ± z · SE with the standard error of the resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from clipalign.evals.small_samples import FEW_GROUPS, LEAST_GROUPS, critical_value
from clipalign.evals.statistics import Interval, resampled_rows

__all__ = ["normal_interval", "resample"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


def resample(
    numbers: Callable[[Ints], Floats],
    groups: npt.NDArray[np.str_] | npt.NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
) -> Floats:
    """Statistics of resampled images; whole groups are drawn with replacement.

    Args:
        numbers: from indices of images, some of them twice, to S statistics; NaN for one that
            those images do not have.
        groups: [N] labels; images of one label stay together.
        resamples: R.
        seed: of the resampling.

    Returns:
        [R, S]
    """
    _, group_of = np.unique(groups, return_inverse=True)
    drawn = resampled_rows(group_of, resamples, np.random.default_rng(seed))
    return np.stack([numbers(rows) for rows in drawn])


def normal_interval(
    value: float,
    estimates: Floats,
    *,
    groups: int,
    low: float = -math.inf,
    high: float = math.inf,
    level: float = 0.95,
) -> Interval | None:
    """Value ± z · SE, SE the standard deviation of the resamples; within what is possible.

    With few groups it is ± t · SE · √(G/(G−1)): resamples of G groups spread too little by that
    factor. See `clipalign.evals.small_samples`.

    Args:
        value: of the statistic on the images as they are.
        estimates: [R] of it on resamples; those that are NaN are left out.
        groups: G, how many were drawn from.
        low: the least that the statistic can be.
        high: the most.
        level: coverage, in (0, 1).

    Returns:
        None where there are too few groups, fewer than half of the resamples have the statistic, or
        all of them are equal, which shows no uncertainty.
    """
    known = estimates[np.isfinite(estimates)]
    if groups < LEAST_GROUPS or len(known) < max(2, len(estimates) / 2) or not np.ptp(known):
        return None
    half = critical_value(groups, level) * float(known.std(ddof=1))
    if few := groups < FEW_GROUPS:
        half *= math.sqrt(groups / (groups - 1))
    method = "bootstrap-student-t" if few else "bootstrap-normal"
    return Interval(max(value - half, low), min(value + half, high), level, method)
