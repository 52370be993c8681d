"""Which t is t*: concept accuracy nearest ½ with the activity accuracy kept."""

from __future__ import annotations

import numpy as np

from clipalign.evals.statistics import Interval
from clipalign.transforms.probe import Bools, Floats, Ints, Reading

__all__ = ["Choice"]

_BLOCK = 128  # resamples at once
_TIE = 1e-12


class Choice:
    """The choice of t*, from sums over each group of images, a column for each t.

    Args:
        start: the reading of t = 0.
    """

    def __init__(self, start: Reading) -> None:
        value, probe = start.features.value, start.features.probe
        self._group_of = np.arange(len(value))
        if probe.groups:
            self._group_of = np.unique(probe.groups, return_inverse=True)[1]
        self.independent, self.grouped = int(self._group_of.max()) + 1, bool(probe.groups)
        self._of_value = [value == number for number in (0, 1)]
        self._count = [self._sums(rows)[:, None] for rows in self._of_value]
        self._before = start.activity_correct.astype(np.float64) if probe.has_activities else None
        self._correct: list[list[Floats]] = [[], []]
        self._margin: list[list[Floats]] = [[], []]
        self._lost: list[Floats] = []

    def add(self, reading: Reading) -> None:
        """Add the column of one t; the reading is not kept."""
        for number, rows in enumerate(self._of_value):
            self._correct[number].append(self._sums(reading.value_correct & rows))
            self._margin[number].append(self._sums(reading.margins * rows))
        if self._before is not None:
            self._lost.append(self._sums(self._before - reading.activity_correct))

    def best(self, epsilon: float) -> int:
        """The index of t*; −1 where no t is allowed.

        Args:
            epsilon: largest drop of the activity accuracy from t = 0.
        """
        return int(self._choose(np.ones((1, self.independent)), epsilon)[0])

    def interval(
        self, ts: Floats, epsilon: float, resamples: int, level: float, seed: int
    ) -> Interval | None:
        """Percentile bootstrap of t*, the choice repeated on every resample of the groups."""
        if self.independent < 2:
            return None
        rng = np.random.default_rng(seed)
        even = np.full(self.independent, 1 / self.independent)
        found: list[Floats] = []
        for first in range(0, resamples, _BLOCK):
            size = min(_BLOCK, resamples - first)
            drawn = rng.multinomial(self.independent, even, size).astype(np.float64)
            chosen = self._choose(drawn, epsilon)
            found.append(ts[chosen[chosen >= 0]])
        stars = np.concatenate(found)
        if not stars.size:
            return None
        tail = (1 - level) / 2
        low, high = np.quantile(stars, [tail, 1 - tail])
        method = "cluster-bootstrap-percentile" if self.grouped else "bootstrap-percentile"
        return Interval(float(low), float(high), level, method)

    def _choose(self, weights: Floats, epsilon: float) -> Ints:
        """The index of t* in every resample; −1 where no t is allowed or a value is missing.

        Args:
            weights: [R, G] how often each group was drawn.
            epsilon: largest drop of the activity accuracy.
        """
        counts = [weights @ count for count in self._count]
        with np.errstate(invalid="ignore", divide="ignore"):
            right, margin = (
                [weights @ np.stack(c, axis=1) / n for c, n in zip(columns, counts, strict=True)]
                for columns in (self._correct, self._margin)
            )
        gap = np.abs(margin[1] - margin[0])
        cost = np.abs((right[0] + right[1]) / 2 - 0.5)
        if self._before is not None:
            drop = weights @ np.stack(self._lost, axis=1) / (counts[0] + counts[1])
            cost = np.where(drop <= epsilon + _TIE, cost, np.inf)
        cost = np.where(np.isnan(cost), np.inf, cost)
        least = cost.min(axis=1, keepdims=True)
        chosen = np.where(cost <= least + _TIE, gap, np.inf).argmin(axis=1)
        return np.where(np.isfinite(least[:, 0]), chosen, -1)

    def _sums(self, values: Floats | Bools) -> Floats:
        return np.asarray(np.bincount(self._group_of, values), dtype=np.float64)
