"""Curves over a setting, with intervals: one set of resamples serves every point.

A scan asks the same images the same question at many settings. Groups of images are drawn once,
as counts; what a resample says at a setting is then a product with sums over groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clipalign.errors import DataError
from clipalign.evals.resampling import normal_interval
from clipalign.evals.small_samples import FEW_GROUPS
from clipalign.evals.statistics import Groups, Interval, wilson_interval

__all__ = ["Curve", "Draws", "Point"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEVEL = 0.95
_MOST_GROUPS = 4096  # groups beyond are drawn in bundles, so that memory does not grow with them
_SEARCHES = 500  # resamples in which a gallery is searched again, which costs more than a mean
_DEPTH = 8  # times k places are looked at first to find the k of a resample


@dataclass(frozen=True, eq=False)
class Point:
    """What was found at one setting.

    Attributes:
        value: on the images as they are.
        estimates: [R] on each resample; NaN where it has no such image.
    """

    value: float
    estimates: Floats


class Draws:
    """Resamples of N images, whole groups drawn with replacement.

    Args:
        n: number of images.
        groups: [N] labels; images of one label stay together. None or none: each image is its own.
        resamples: R.
        seed: of the resampling.

    Attributes:
        groups: G, how many independent groups there are.

    Raises:
        DataError: the labels are not one an image, or there is no image.
    """

    def __init__(
        self, n: int, groups: Groups | None = None, *, resamples: int = 2000, seed: int = 0
    ) -> None:
        labels = np.arange(n) if groups is None or not len(groups) else np.asarray(groups)
        if len(labels) != n or not n:
            raise DataError(f"groups must name one group for each of the {n} images.")
        group_of = np.unique(labels, return_inverse=True)[1]
        self.groups = int(group_of.max()) + 1
        rng = np.random.default_rng(seed)
        if self.groups > _MOST_GROUPS:  # independent groups, bundled at random, are so still
            group_of = (rng.permutation(self.groups) % _MOST_GROUPS)[group_of]
        drawn = min(self.groups, _MOST_GROUPS)
        self._group_of = group_of
        even = np.full(drawn, 1 / drawn)
        self._counts: Floats = rng.multinomial(drawn, even, resamples).astype(np.float64)

    def mean(self, values: npt.ArrayLike, strata: npt.ArrayLike | None = None) -> Point:
        """The mean of numbers, or the share of images on which something holds.

        Args:
            values: [N] numbers or bool.
            strata: [N] labels; the result is the mean of the means within each, so that their
                numbers of images do not matter. None: all images count alike.
        """
        each = np.asarray(values, np.float64)
        parts = np.zeros(len(each), np.int64) if strata is None else np.asarray(strata)
        means, estimates = [], []
        for part in np.unique(parts):
            rows = parts == part
            means.append(each[rows].mean())
            with np.errstate(invalid="ignore"):
                estimates.append(self._sums(each * rows) / self._sums(rows))
        return Point(float(np.mean(means)), np.mean(estimates, axis=0))

    def certain(self, value: float) -> Point:
        """What is so by definition, and no other images could make otherwise: no interval."""
        return Point(value, np.full(len(self._counts), np.nan))

    def top_shares(self, ranked: Ints, outcomes: npt.ArrayLike, k: int) -> tuple[Floats, Floats]:
        """Share of images on which something holds among the first k of each of Q rankings.

        A resample ranks the images it drew, copies of one side by side.

        Args:
            ranked: [Q, N] images in order, best first.
            outcomes: [N] bool.
            k: places that count, at most N.

        Returns:
            The shares [Q], and those of resamples [R', Q], R' at most R.
        """
        holds = np.asarray(outcomes, np.float64)
        estimates = np.stack([self._top(order, holds, k) for order in ranked], axis=1)
        return holds[ranked[:, :k]].mean(axis=1), estimates

    def _top(self, order: Ints, holds: Floats, k: int) -> Floats:
        """[R] share among the first k of each resample; of all it drew where those are fewer."""
        drawn, depth = self._counts[:_SEARCHES], min(_DEPTH * k, len(order))
        while True:
            filled = drawn[:, self._group_of[order[:depth]]].cumsum(axis=1).clip(max=k)
            if depth == len(order) or filled[:, -1].min() >= k:
                break
            depth = min(2 * depth, len(order))
        taken = np.diff(filled, axis=1, prepend=0.0)
        return np.asarray(taken @ holds[order[:depth]] / filled[:, -1])

    def _sums(self, values: Floats | npt.NDArray[np.bool_]) -> Floats:
        """[R] the sum over the images of each resample."""
        sums = np.bincount(self._group_of, values, self._counts.shape[1])
        return np.asarray(self._counts @ sums)


@dataclass(frozen=True, eq=False)
class Curve:
    """One number at T settings.

    Attributes:
        points: [T]
        groups: G, how many groups of images were drawn from.
        most: the most that it can be, as 1 for a share; the least is 0.
        centred: whether chance adds up in it instead of cancelling, as in a mean of |bias|.
    """

    points: tuple[Point, ...]
    groups: int
    most: float = 1.0
    centred: bool = False

    @property
    def values(self) -> list[float]:
        """[T] the number itself."""
        return [point.value for point in self.points]

    @cached_property
    def intervals(self) -> tuple[Interval | None, ...]:
        """[T] 95 % intervals, chosen as `clipalign.evals.measures.interval_of` chooses them.

        Wilson's over the groups for a share of 0 or 1, value ± t · SE or ± z · SE for few groups
        and where chance adds up, else percentiles of the resamples. None for too few groups, and
        where resampling shows no uncertainty.
        """
        return tuple(map(self._interval, self.points))

    @classmethod
    def mean(cls, curves: Sequence[Curve]) -> Curve:
        """The mean of S curves of the same images from the same draws, as of runs of S seeds.

        Its intervals tell what other images would have given with these seeds.
        """
        together = list(zip(*(curve.points for curve in curves), strict=True))
        points = tuple(
            Point(float(np.mean([p.value for p in at])), np.mean([p.estimates for p in at], axis=0))
            for at in together
        )
        first = curves[0]
        return cls(points, first.groups, first.most, first.centred)

    def _interval(self, point: Point) -> Interval | None:
        known = point.estimates[np.isfinite(point.estimates)]
        if self.most == 1 and point.value in (0, 1) and len(known) and not np.ptp(known):
            return wilson_interval(point.value * self.groups, self.groups, _LEVEL)
        few = self.groups < FEW_GROUPS or len(known) < len(point.estimates) / 2
        if self.centred or few or not np.ptp(known):
            return normal_interval(
                point.value,
                point.estimates,
                groups=self.groups,
                low=0,
                high=self.most,
                level=_LEVEL,
            )
        low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return Interval(float(low), float(high), _LEVEL, "cluster-bootstrap-percentile")
