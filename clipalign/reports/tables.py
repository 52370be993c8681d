"""Results as plain text for a terminal, at most 100 columns wide, and as one JSON document."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clipalign.evals.results import Comparison, MetricValue, SuiteResult
from clipalign.reports.words import DETAIL as _DETAIL
from clipalign.reports.words import interval as _range
from clipalign.reports.words import label as _label
from clipalign.reports.words import mark as _mark
from clipalign.reports.words import number as _number
from clipalign.reports.words import p_value as _p

__all__ = ["WIDTH", "results_document", "summary_table"]

WIDTH = 100
_TESTS = {
    "mcnemar": "McNemar's test",
    "sign": "a sign test over groups of images that are not independent",
}


def summary_table(results: Sequence[SuiteResult], *, details: bool = False) -> str:
    """One table a result: before and after where there is a reference, with intervals.

    Args:
        results: as `evaluate` returns them.
        details: also percentiles and the reverse KL, which the results file holds in any case.
    """
    return "\n\n".join(_table(result, details) for result in results)


def results_document(results: Sequence[SuiteResult], files: Sequence[Path] = ()) -> dict[str, Any]:
    """The document of `--json`.

    Args:
        results: as `evaluate` returns them.
        files: where they were written, in the same order; empty where they were not.
    """
    return {
        "results": [result.model_dump(mode="json") for result in results],
        "files": [str(file) for file in files],
    }


def _table(result: SuiteResult, details: bool) -> str:
    shown = {n: m for n, m in result.metrics.items() if details or not _DETAIL.search(n)}
    data = result.dataset
    title = (
        f"{result.suite} on {data.name}, split {data.split}: {data.n:,} images, "
        f"{len(result.classnames)} classes. {result.model.name}"
    )
    level = next((f" [{m.interval.level * 100:g} %]" for m in shown.values() if m.interval), "")
    if result.against is None:
        rows = [["metric", f"value{level}", "images"]]
        rows += [[_label(name), _measured(m), f"{m.n:,}"] for name, m in shown.items()]
    else:
        title += f" against {result.against.name}"
        compared = {c.metric: c for c in result.comparisons}
        rows = [["metric", "reference", f"model{level}", f"difference{level}", "p"]]
        rows += [_compared(name, m, compared.get(name)) for name, m in shown.items()]
    lines = [*textwrap.wrap(f"{title}.", WIDTH), "", *_aligned(rows), ""]
    for warning in result.warnings:
        lines += textwrap.wrap(f"Warning: {warning}", WIDTH)
    return "\n".join([*lines, *_footnote(result.comparisons)]).rstrip()


def _compared(name: str, metric: MetricValue, comparison: Comparison | None) -> list[str]:
    if comparison is None or metric.value is None:
        return [_label(name), "", _measured(metric), "", ""]
    difference, unit = comparison.difference, metric.unit
    return [
        _label(name),
        _number(metric.value - difference, unit) + _mark(unit),
        _measured(metric),
        _number(difference, unit, sign="+") + _range(comparison.interval, unit, sign="+"),
        _p(comparison.p_value),
    ]


def _measured(metric: MetricValue) -> str:
    if metric.value is None:
        return "not measured"
    number = _number(metric.value, metric.unit)
    return number + _mark(metric.unit) + _range(metric.interval, metric.unit)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]


def _footnote(comparisons: Iterable[Comparison]) -> list[str]:
    used = {c.test.split("-")[0] for c in comparisons if c.test}
    named = [words for test, words in _TESTS.items() if test in used]
    if not named:
        return []
    return textwrap.wrap(
        f"Differences are paired, shares in points; p: {' or '.join(named)}.", WIDTH
    )
