"""Gathers the metrics of a result and, where there is a reference, the paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from clipalign.evals.measures import Statistic, compare, interval_of, measure
from clipalign.evals.results import Comparison, MetricValue
from clipalign.evals.statistics import count_groups

__all__ = ["Collector", "Statistic"]

Values: TypeAlias = npt.NDArray[np.float64] | npt.NDArray[np.bool_]


class Collector:
    """Metrics by name, in the order in which they are added.

    A metric of no image is left out: a number that was not measured is not printed.

    Args:
        resamples: of every bootstrap.
        seed: of the resampling.
    """

    def __init__(self, resamples: int, seed: int) -> None:
        self.metrics: dict[str, MetricValue] = {}
        self.comparisons: list[Comparison] = []
        self._resamples, self._seed = resamples, seed

    def mean(
        self,
        name: str,
        each: Sequence[Values],
        groups: npt.NDArray[np.str_],
        **described: Any,
    ) -> None:
        """Add a mean of per-image values and, where there is a reference, the paired difference.

        Args:
            name: of the metric.
            each: [N] values of the model and, where there is one, of the reference on the same
                images; right-or-wrong values as bool.
            groups: [N] labels of images that are not independent.
            **described: higher_is_better, unit and description, as `MetricValue` has them.
        """
        self.value(name, each[0], groups, **described)
        if len(each) > 1 and len(groups):
            compared = compare(
                name, each[0], each[1], groups, resamples=self._resamples, seed=self._seed
            )
            self.comparisons += [compared] if compared else []

    def value(
        self,
        name: str,
        values: Values,
        groups: npt.NDArray[np.str_],
        *,
        higher_is_better: bool | None,
        description: str,
        unit: str = "share",
        statistic: Statistic = np.mean,
        within: tuple[float, float] | None = None,
        centred: bool = False,
    ) -> None:
        """Add a statistic of the model's values [N] or [N, …]; it is compared with nothing.

        `within` and `centred` are as `measure` has them.
        """
        if len(values):
            self.metrics[name] = measure(
                values,
                groups,
                higher_is_better=higher_is_better,
                unit=unit,
                description=description,
                statistic=statistic,
                resamples=self._resamples,
                seed=self._seed,
                within=within,
                centred=centred,
            )

    def difference(
        self,
        name: str,
        each: Sequence[npt.NDArray[np.float64]],
        groups: npt.NDArray[np.str_],
        statistic: Statistic,
        *,
        within: tuple[float, float] | None = None,
        centred: bool = False,
    ) -> None:
        """Add the paired difference of a statistic that is no mean.

        Args:
            name: of the metric.
            each: [N, K] columns of the model and of the reference; nothing is added without one.
            groups: [N] labels of images that are not independent.
            statistic: of the columns of one of them.
            within: the least and the most of the difference.
            centred: as `measure` has it.
        """
        if len(each) < 2 or count_groups(len(groups), groups) < 2:
            return
        both = np.concatenate(each, axis=1)
        width = each[0].shape[1]

        def paired(rows: npt.NDArray[np.float64]) -> float:
            return statistic(rows[:, :width]) - statistic(rows[:, width:])

        value = paired(both)
        interval = interval_of(
            both,
            groups,
            paired,
            value,
            resamples=self._resamples,
            seed=self._seed,
            within=within,
            centred=centred,
        )
        if interval and interval.low == interval.high:  # resamples that never differ show nothing
            interval = None
        self.comparisons.append(
            Comparison(metric=name, n=len(both), difference=value, interval=interval)
        )
