"""Results as plain text for a terminal, and as one JSON document.

A table takes a line a metric where that fits. On a narrower terminal the intervals stand below
their numbers, and on a very narrow one each number has a line of its own; no number is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipalign.evals.results import Comparison, MetricValue, SuiteResult
from clipalign.evals.words import DETAIL as _DETAIL
from clipalign.evals.words import interval as _range
from clipalign.evals.words import label as _label
from clipalign.evals.words import mark as _mark
from clipalign.evals.words import number as _number
from clipalign.evals.words import p_value as _p
from clipalign.reports.legend import legend
from clipalign.text import fold

__all__ = ["WIDTH", "TableRow", "laid_out", "named_tests", "results_document", "summary_table"]

WIDTH = 100
"""At which text is folded where there is no terminal."""

_LEAST_LABEL = 16  # columns that the name of a metric needs
_TESTS = {
    "mcnemar": "McNemar's test",
    "sign": "a sign test over groups of images that are not independent",
}


def summary_table(
    results: Sequence[SuiteResult], *, details: bool = False, width: int | None = None
) -> str:
    """One table a result: before and after where there is a reference, with intervals.

    Args:
        results: as `evaluate` returns them.
        details: also percentiles and the reverse KL, which the results file holds in any case.
        width: of the terminal, in characters; None where there is none, and nothing needs to fold.
    """
    shown: set[tuple[str, str, float | None]] = set()
    tables = []
    for result in results:
        said = {(result.model.name, n, m.value) for n, m in result.metrics.items()}
        again = {name for _, name, _ in said & shown}
        tables.append(_table(result, details, width, again))
        # of images of its own, whatever the split: once is enough
        shown |= {each for each in said if each[1].startswith("retention_")}
    return "\n\n".join(tables)


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


def _table(result: SuiteResult, details: bool, width: int | None, again: set[str]) -> str:
    shown = {
        name: metric
        for name, metric in result.metrics.items()
        if name not in again and (details or not _DETAIL.search(name))
    }
    data = result.dataset
    title = (
        f"{result.suite} on {data.label}, split {data.split}: {data.n:,} images, "
        f"{len(result.classnames)} classes. {result.model.name}"
    )
    level = next((f"[{m.interval.level * 100:g} %]" for m in shown.values() if m.interval), "")
    if result.against is None:
        rows = [TableRow("metric", [("value", level), ("images", "")])]
        rows += [
            TableRow(_label(name), [_measured(m), (f"{m.n:,}", "")]) for name, m in shown.items()
        ]
    else:
        title += f" against {result.against.name}"
        compared = {c.metric: c for c in result.comparisons}
        heads = [("reference", ""), ("model", level), ("difference", level), ("p", "")]
        rows = [TableRow("metric", heads)]
        rows += [_compared(name, m, compared.get(name)) for name, m in shown.items()]
    most = min(WIDTH, width or WIDTH)
    lines = [*fold(f"{title}.", most), "", *laid_out(rows, width), ""]
    for warning in result.warnings:
        lines += fold(f"Warning: {warning}", most)
    for words in legend(shown):
        lines += fold(words, most)
    if again:
        lines.append("Retention is as above.")
    return "\n".join([*lines, *_footnote(result.comparisons, most)]).rstrip()


class TableRow(NamedTuple):
    """A metric and its cells: a number, and the interval that goes with it."""

    label: str
    cells: Sequence[tuple[str, str]]


def _compared(name: str, metric: MetricValue, comparison: Comparison | None) -> TableRow:
    if comparison is None or metric.value is None:
        return TableRow(_label(name), [("", ""), _measured(metric), ("", ""), ("", "")])
    difference, unit = comparison.difference, metric.unit
    before = _number(metric.value - difference, unit) + _mark(unit)
    change = (
        _number(difference, unit, sign="+"),
        _range(comparison.interval, unit, sign="+").strip(),
    )
    return TableRow(
        _label(name), [(before, ""), _measured(metric), change, (_p(comparison.p_value), "")]
    )


def _measured(metric: MetricValue) -> tuple[str, str]:
    if metric.value is None:
        return "not measured", ""
    number = _number(metric.value, metric.unit) + _mark(metric.unit)
    return number, _range(metric.interval, metric.unit).strip()


def laid_out(rows: Sequence[TableRow], width: int | None) -> list[str]:
    """Lines of a table, in the widest layout that fits.

    Args:
        rows: the first is the head.
        width: of the terminal; None where nothing needs to fold.
    """
    wide = [[row.label, *(" ".join(filter(None, cell)) for cell in row.cells)] for row in rows]
    lines = _aligned(wide)
    if width is None or len(lines[1]) <= width:
        return lines
    widths = [
        max(len(text) for row in rows for text in row.cells[i]) for i in range(len(rows[0].cells))
    ]
    left = width - sum(widths) - 2 * len(widths)
    if left < _LEAST_LABEL:
        return _one_by_one(rows, width)
    folded = []
    for row in rows:
        label = fold(row.label, left)
        height = max(len(label), 2 if any(below for _, below in row.cells) else 1)
        label += [""] * (height - len(label))
        for i, part in enumerate(label):
            folded.append([part, *(cell[i] if i < 2 else "" for cell in row.cells)])
    lines = _aligned(folded)
    head = 2 if any(below for _, below in rows[0].cells) else 1
    rule = lines.pop(1)
    return [*lines[:head], rule, *lines[head:]]


def _one_by_one(rows: Sequence[TableRow], width: int) -> list[str]:
    """A block a metric, a line a number."""
    head, *metrics = rows
    names = [name for name, _ in head.cells]
    indent = max(map(len, names)) + 4
    lines: list[str] = []
    for row in metrics:
        lines += fold(row.label, width)
        for name, (number, interval) in zip(names, row.cells, strict=True):
            if number:
                text = f"{number} {interval}".rstrip()
                over = indent + len(text) > width
                lines.append(f"  {name:<{indent - 2}}{number if over else text}")
                lines += [" " * indent + interval] if over and interval else []
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text under a ruled head: the first to the left, the others to the right."""
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


def named_tests(comparisons: Iterable[Comparison]) -> str:
    """The tests whose p these comparisons give, in words; "" where none has one."""
    used = {c.test.split("-")[0] for c in comparisons if c.test}
    return " or ".join(words for test, words in _TESTS.items() if test in used)


def _footnote(comparisons: Iterable[Comparison], width: int) -> list[str]:
    if not (named := named_tests(comparisons)):
        return []
    return fold(f"Differences are paired, shares in points; p: {named}.", width)
