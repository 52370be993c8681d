"""Curves of training, from metrics.jsonl: what was learnt, and how far the model moved for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from clipalign.reports.charts import Chart, Line
from clipalign.reports.sources import Source

__all__ = ["training_charts"]

_SHOWN: Final = (
    ("loss", "Loss", "preference loss and λ times the regulariser"),
    ("margin", "Margin", "h of chosen over rejected, against the reference"),
    ("reward_accuracy", "Implicit-reward accuracy", "share of pairs with h > 0"),
    ("regulariser", "Regulariser", "distance to the reference, before λ"),
    ("lr", "Learning rate", ""),
    ("grad_norm", "Gradient norm", "before clipping"),
)
_POINTS = 400  # of a curve on the page; the whole is in metrics.jsonl


def training_charts(sources: Sequence[Source]) -> list[Chart]:
    """One chart for each measure that some run logged, all runs in it."""
    charts = []
    for key, title, note in _SHOWN:
        lines = []
        for source in sources:
            points = [
                (r["step"], r[key]) for r in source.metrics if math.isfinite(r.get(key, math.nan))
            ]
            if points:
                xs, ys = zip(*_thinned(points), strict=True)
                lines.append(Line(source.name if len(sources) > 1 else "", xs, ys))
        if lines:
            percent = key == "reward_accuracy"
            bounds = (0.0, 1.0) if percent else None
            charts.append(Chart(title, lines, "step", percent, bounds=bounds, note=note))
    return charts


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `_POINTS`, evenly spread, both ends among them."""
    if len(points) <= _POINTS:
        return points
    last = len(points) - 1
    return [points[round(i * last / (_POINTS - 1))] for i in range(_POINTS)]
