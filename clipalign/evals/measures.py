"""From per-image values to the entries of a results file, each with its interval."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from clipalign.evals.resampling import normal_interval, resample
from clipalign.evals.results import Comparison, MetricValue
from clipalign.evals.small_samples import unanimous_interval
from clipalign.evals.statistics import (
    Groups,
    Interval,
    bootstrap_interval,
    count_groups,
    mcnemar,
    minimal_detectable_effect,
    paired_bootstrap_difference,
    wilson_interval,
)

__all__ = ["centred_interval", "compare", "measure"]


def measure(
    values: npt.ArrayLike,
    groups: Groups | None = None,
    *,
    higher_is_better: bool | None,
    unit: str,
    description: str,
    statistic: Callable[[npt.NDArray[np.float64]], float] = np.mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    within: tuple[float, float] | None = None,
) -> MetricValue:
    """One metric with its bootstrap interval.

    A share (bool values) of 0 or 1 gets Wilson's interval over the independent groups instead,
    since resampling equal values shows no uncertainty. No interval is given where there are fewer
    than two independent groups, and no value where there is no image.

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
        within: the least and the most of a statistic in which chance adds up instead of cancelling,
            such as ECE: its interval is centred on the value, see `clipalign.evals.resampling`.

    Raises:
        DataError: a value is not finite.
    """
    array = np.asarray(values)
    n = len(array)
    value: float | None = None
    interval: Interval | None = None
    if n:
        value = float(statistic(array.astype(np.float64)))
        groups, independent = _dependent(groups, n)
        if independent >= 2 and array.dtype == np.bool_ and value in (0.0, 1.0):
            interval = wilson_interval(round(value * independent), independent, level)
        elif independent >= 2 and within is not None:
            interval = centred_interval(
                array, groups, statistic, value, within, level, resamples, seed
            )
        elif independent >= 2:
            interval = bootstrap_interval(array, groups, statistic, level, resamples, seed)
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

    Right-or-wrong values (bool) also get McNemar's test. Where the difference is the same in all
    groups, resampling shows no uncertainty: right and wrong then have a score interval, see
    `clipalign.evals.small_samples`, other values none, and no effect counts as detectable.

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
    paired = paired_bootstrap_difference(a, b, groups, level, resamples, seed)
    interval: Interval | None = paired.interval
    judged = mcnemar(a, b, groups) if a.dtype == b.dtype == np.bool_ else None
    effect = minimal_detectable_effect(a, b, groups)
    if effect is None:
        interval = unanimous_interval(paired.difference, independent, level) if judged else None
    return Comparison(
        metric=metric,
        n=len(a),
        difference=paired.difference,
        interval=interval,
        p_value=judged.p_value if judged else None,
        test=judged.test if judged else None,
        n_discordant=judged.n_discordant if judged else None,
        minimal_detectable_effect=effect,
    )


def centred_interval(
    array: npt.NDArray[np.float64],
    groups: Groups | None,
    statistic: Callable[[npt.NDArray[np.float64]], float],
    value: float,
    within: tuple[float, float],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Value ± z · SE of the resamples, for a statistic whose percentiles may lie beside its value.

    Args:
        array: [N, …] per-image values.
        groups: [N] labels, or None for independent images.
        statistic: of them.
        value: of the statistic on all images.
        within: the least and the most that it can be.
        level: coverage, in (0, 1).
        resamples: number of resamples.
        seed: of the resampling.
    """
    labels = np.arange(len(array)) if groups is None else np.asarray(groups)
    estimates = resample(
        lambda rows: np.array([statistic(array[rows])]), labels, resamples=resamples, seed=seed
    )
    return normal_interval(value, estimates[:, 0], low=within[0], high=within[1], level=level)


def _dependent(groups: Groups | None, n: int) -> tuple[Groups | None, int]:
    """Groups that matter (None where each image is its own), and how many there are."""
    independent = count_groups(n, groups)
    return (None if independent == n else groups), independent
