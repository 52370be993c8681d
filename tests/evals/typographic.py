"""Runs the typographic suite in the world of colours, and reads what it says."""

from __future__ import annotations

from clipalign.evals.base import EvalContext
from clipalign.options import component

__all__ = ["compared", "run", "values"]


def run(model, dataset, reference=None, split="test", seed=0, **options):
    """The result and the rows."""
    options = {"resamples": 200, **options}
    suite = component("suites", "typographic", **options)
    result, rows = suite.run(EvalContext(model, reference, dataset, split, seed))
    return result, list(rows)


def values(result):
    """Metric → value."""
    return {name: metric.value for name, metric in result.metrics.items()}


def compared(result):
    """Metric → comparison with the reference."""
    return {c.metric: c for c in result.comparisons}
