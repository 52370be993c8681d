"""From per-image values to the entries of a results file, each with its interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from clipalign.evals.percentiles import Percentile
from clipalign.evals.resampling import normal_interval, resample
from clipalign.evals.results import Comparison, MetricValue
from clipalign.evals.small_samples import (
    FEW_GROUPS,
    UNBOUNDED,
    student_interval,
    unanimous_interval,
)
from clipalign.evals.statistics import (
    Groups,
    Interval,
    bootstrap_interval,
    cluster_error,
    count_groups,
    mcnemar,
    minimal_detectable_effect,
    wilson_interval,
)

__all__ = ["Statistic", "compare", "interval_of", "measure"]

Statistic: TypeAlias = Callable[[npt.NDArray[np.float64]], float]


def measure(
    values: npt.ArrayLike,
    groups: Groups | None = None,
    *,
    higher_is_better: bool | None,
    unit: str,
    description: str,
    statistic: Statistic = np.mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    within: tuple[float, float] | None = None,
    centred: bool = False,
) -> MetricValue:
    """One metric with its interval, see `interval_of`; no value where there is no image.

    Args:
        values: [N] per image, or [N, …] for a statistic of several columns. Pass shares as bool.
        groups: [N] labels of images that are not independent, or None.
        higher_is_better: None for a number that is neither good nor bad in itself.
        unit: of the value.
        description: one sentence for the table.
        statistic: of the values; the mean by default.
        level: coverage of the interval.
        resamples: number of bootstrap resamples.
        seed: of the resampling.
        within: the least and the most that the statistic can be; None for a share's 0 and 1 where
            the values are bool, and for no bounds where they are not.
        centred: whether chance adds up in the statistic instead of cancelling, as in ECE.

    Raises:
        DataError: a value is not finite.
    """
    array = np.asarray(values)
    n = len(array)
    value: float | None = None
    interval: Interval | None = None
    if n:
        value = float(statistic(array.astype(np.float64)))
        interval = interval_of(
            array,
            groups,
            statistic,
            value,
            level=level,
            resamples=resamples,
            seed=seed,
            within=within,
            centred=centred,
        )
    return MetricValue(
        value=value,
        n=n,
        interval=interval,
        higher_is_better=higher_is_better,
        unit=unit,
        description=description,
    )


def compare(
    metric: str,
    values: npt.ArrayLike,
    against: npt.ArrayLike,
    groups: Groups | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison | None:
    """A metric's mean paired difference, model − against, with what tells chance from effect.

    Right-or-wrong values (bool) also get McNemar's test. The interval is as `interval_of` has it.
    Where the difference is the same in all groups, resampling shows no uncertainty: right and wrong
    then have a score interval, see `clipalign.evals.small_samples`, other values none, and no
    effect counts as detectable.

    Args:
        metric: name of the metric in the result.
        values: [N] of the model.
        against: [N] of the other model on the same images in the same order.
        groups: [N] labels of images that are not independent, or None.
        level: coverage of the interval.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        The comparison; None where there are fewer than two independent groups to compare on.

    Raises:
        DataError: the two differ in length, or a value is not finite.
    """
    a, b = np.asarray(values), np.asarray(against)
    groups, independent = _dependent(groups, len(a))
    if independent < 2:
        return None
    judged = mcnemar(a, b, groups) if a.dtype == b.dtype == np.bool_ else None
    effect = minimal_detectable_effect(a, b, groups)
    each = a.astype(np.float64) - b.astype(np.float64)
    difference = float(each.mean())
    interval: Interval | None = None
    if effect is not None:
        interval = interval_of(
            each,
            groups,
            np.mean,
            difference,
            level=level,
            resamples=resamples,
            seed=seed,
            within=(-1.0, 1.0) if judged else None,
        )
    elif judged:
        interval = unanimous_interval(difference, independent, level)
    return Comparison(
        metric=metric,
        n=len(a),
        difference=difference,
        interval=interval,
        p_value=judged.p_value if judged else None,
        test=judged.test if judged else None,
        n_discordant=judged.n_discordant if judged else None,
        minimal_detectable_effect=effect,
    )


def interval_of(
    values: npt.ArrayLike,
    groups: Groups | None,
    statistic: Statistic,
    value: float,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    within: tuple[float, float] | None = None,
    centred: bool = False,
) -> Interval | None:
    """The interval that suits a statistic and the number of groups.

    - A share (bool values) that is the same in all groups, such as 0 or 1: Wilson's over the
      groups, since resampling equal values shows no uncertainty.
    - A `Percentile`: between two of the sorted values, see `clipalign.evals.percentiles`.
    - Fewer than 20 groups: value ± t · SE, see `clipalign.evals.small_samples`; SE is
      cluster-robust for a mean, and of the resamples for another statistic.
    - A statistic in which chance adds up: value ± z · SE, see `clipalign.evals.resampling`.
    - Else percentiles of the bootstrap.

    Args:
        values: [N] per image, or [N, …].
        groups: [N] labels, or None for independent images.
        statistic: of the values.
        value: of the statistic on all images.
        level: coverage, in (0, 1).
        resamples: number of resamples.
        seed: of the resampling.
        within: as `measure` has it.
        centred: whether chance adds up in the statistic.

    Returns:
        None where there are too few groups: 2 are enough for Wilson's, 3 for the others; and where
        a sample does not reach beyond a percentile.
    """
    array = np.asarray(values)
    groups, independent = _dependent(groups, len(array))
    plain = statistic is np.mean and array.ndim == 1
    share = plain and array.dtype == np.bool_
    bounds = within or ((0.0, 1.0) if share else UNBOUNDED)
    if independent < 2:
        return None
    if isinstance(statistic, Percentile):
        return statistic.interval(array, groups, level)
    if share and cluster_error(array, groups) == 0:
        return wilson_interval(value * independent, independent, level)
    if plain and independent < FEW_GROUPS:
        return student_interval(array, groups, level, bounds)
    if not centred and independent >= FEW_GROUPS:
        return bootstrap_interval(array, groups, statistic, level, resamples, seed)
    labels = np.arange(len(array)) if groups is None else np.asarray(groups)
    estimates = resample(
        lambda rows: np.array([statistic(array[rows])]), labels, resamples=resamples, seed=seed
    )
    return normal_interval(
        value, estimates[:, 0], groups=independent, low=bounds[0], high=bounds[1], level=level
    )


def _dependent(groups: Groups | None, n: int) -> tuple[Groups | None, int]:
    """Groups that matter (None where each image is its own), and how many there are."""
    independent = count_groups(n, groups)
    return (None if independent == n else groups), independent
