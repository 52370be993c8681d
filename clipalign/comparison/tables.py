"""A summary as text: cells of a table, Markdown, and lines for a terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from clipalign.comparison.summary import Column, Entry, Panel, Summary, TableRow
from clipalign.evals.results import Comparison
from clipalign.evals.words import interval, label, number, p_value
from clipalign.reports.tables import named_tests

__all__ = [
    "Align",
    "difference_cells",
    "markdown",
    "panel_seeds",
    "panel_title",
    "seeds_in_words",
    "table_cells",
    "terminal",
    "test_cells",
]

Align: TypeAlias = Callable[[Sequence[str], Sequence[Sequence[str]]], str]
"""Headers and rows in, aligned text out."""

_NOT_MEASURED = "–"


def panel_title(panel: Panel) -> str:
    """What was measured on what, with n."""
    of = "" if panel.evaluation == panel.suite else f" ({panel.suite})"
    return (
        f"{panel.evaluation}{of} on {panel.dataset}, split {panel.split}: {panel.n:,} images; "
        f"from {panel.model}"
    )


def seeds_in_words(seeds: Iterable[int | None]) -> str:
    """Which seeds there are: "3 seeds (0, 1, 2)", each once; None counts for none."""
    known = sorted({seed for seed in seeds if seed is not None})
    if not known:
        return "no seed"
    return f"{len(known)} seed{'s'[: len(known) > 1]} ({', '.join(map(str, known))})"


def panel_seeds(panel: Panel) -> str:
    """The seeds of all methods of a table, in words."""
    return seeds_in_words(seed for row in panel.rows for seed in row.seeds)


def table_cells(panel: Panel) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row a method: each metric as mean ± sd [interval], and the front."""
    headers = ["method", "seeds", *(_header(c) for c in panel.columns), "front"]
    rows = []
    for row in panel.rows:
        cells = [_entry(row.entries.get(c.metric), c) for c in panel.columns]
        rows.append([row.method, _seeds(row), *cells, _front(row)])
    return headers, rows


def test_cells(panel: Panel) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the paired differences; no rows where there is no baseline."""
    headers = ["method", "metric", f"difference to {panel.baseline}", "p"]
    units = {c.metric: c.unit for c in panel.columns}
    return headers, [
        [row.method, label(test.metric), *difference_cells(test, units[test.metric])]
        for row in panel.rows
        for test in row.tests
    ]


def notes(panel: Panel) -> list[str]:
    """What a reader must know, a sentence each."""
    entries = [e for row in panel.rows for e in row.entries.values()]
    said = []
    if any(e.sd is not None for e in entries):
        said.append("Mean ± standard deviation over seeds.")
    levels = {e.interval.level for e in entries if e.interval}
    if levels:
        of = " or ".join(sorted({"queries" if e.of == "query" else "images" for e in entries}))
        said.append(
            f"In brackets: {100 * max(levels):g} % interval over {of}, these seeds given; shares "
            "in percent."
        )
    counted = [test for row in panel.rows for test in row.tests]
    if counted:
        tested = sum(test.p_value is not None for test in counted)
        said.append(
            "Differences are paired by image (or query), shares in points; p is not corrected for "
            f"there being {tested} test{'s'[: tested != 1]}."
        )
        if named := named_tests(counted):
            said.append(f"p is that of {named}.")
    said += [_paired(row, panel) for row in panel.rows if row.paired_seeds is not None]
    if any(c.axis and c.metric not in row.entries for row in panel.rows for c in panel.columns):
        said.append("Front –: an axis was not measured.")
    return [*said, *(f"Warning: {w}" for w in panel.warnings)]


def _paired(row: TableRow, panel: Panel) -> str:
    if not row.paired_seeds:
        return f"{row.method} and {panel.baseline} have no seed in common: no difference."
    seeds = ", ".join(map(str, row.paired_seeds))
    return (
        f"Differences of {row.method} to {panel.baseline} are over the seeds that both have: "
        f"{seeds}."
    )


def markdown(summary: Summary, pictures: dict[int, str]) -> str:
    """The whole summary.

    Args:
        summary: what to write.
        pictures: file name of the picture of each panel that has one, by its place.
    """
    lines = [f"# {summary.title}", "", _progress(summary), ""]
    for place, panel in enumerate(summary.panels):
        lines += [f"## {panel_title(panel)}", "", *_pipes(*table_cells(panel)), ""]
        lines += [" ".join(notes(panel)), ""]
        if place in pictures:
            lines += [f"![{panel.evaluation}, {panel.split}]({pictures[place]})", ""]
        headers, rows = test_cells(panel)
        if rows:
            lines += [*_pipes(headers, rows), ""]
    lines += [f"- {line}" for line in failures(summary)]
    return _literal("\n".join(lines)).rstrip() + "\n"


def terminal(summary: Summary, align: Align, wrap: Callable[[str], str] = str) -> str:
    """The whole summary.

    Args:
        summary: what to show.
        align: makes text of headers and rows.
        wrap: breaks a paragraph into lines.
    """
    blocks = [summary.title]
    for panel in summary.panels:
        blocks += [wrap(panel_title(panel)), align(*table_cells(panel))]
        headers, rows = test_cells(panel)
        if rows:
            blocks.append(align(headers, rows))
        if said := notes(panel):
            blocks.append("\n".join(map(wrap, said)))
    ending = [wrap(line) for line in [*failures(summary), _progress(summary)]]
    return "\n\n".join([*blocks, "\n".join(ending)])


def failures(summary: Summary) -> list[str]:
    """A line for each cell that failed."""
    return [
        f"Failed: {cell.name}: {cell.error}: {cell.reason}"
        for cell in summary.cells
        if cell.state == "failed"
    ]


def difference_cells(test: Comparison, unit: str) -> tuple[str, str]:
    """A paired difference with its interval, and p where there is a test."""
    difference = number(test.difference, unit, "+") + interval(test.interval, unit, "+")
    return difference, p_value(test.p_value)


def _progress(summary: Summary) -> str:
    states = [cell.state for cell in summary.cells]
    done = f"{states.count('finished')} of {len(states)} cells are finished"
    failed = states.count("failed")
    return f"{done}, {failed} failed." if failed else f"{done}."


def _header(column: Column) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better if column.axis else None]
    return label(column.metric) + arrow


def _entry(entry: Entry | None, column: Column) -> str:
    if entry is None:
        return _NOT_MEASURED
    text = number(entry.mean, column.unit)
    if entry.sd is not None:
        text += f" ± {number(entry.sd, column.unit)}"
    return text + interval(entry.interval, column.unit)


def _seeds(row: TableRow) -> str:
    seeds = [str(s) for s in row.seeds if s is not None]
    text = ",".join(seeds) or _NOT_MEASURED
    return f"{text} ({row.missing} missing)" if row.missing else text


def _front(row: TableRow) -> str:
    if row.on_front is None:
        return _NOT_MEASURED
    if row.on_front:
        return "yes"
    first, *others = row.dominated_by
    return f"no: {first}" + (f" and {len(others)} more" if others else "")


def _literal(text: str) -> str:
    """Text in which nothing is a tag or a character reference of HTML."""
    return re.sub(r"<(?=[a-zA-Z/!?])|&(?=#?\w+;)", lambda found: html.escape(found[0]), text)


def _pipes(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    return [line(headers), "|" + "-|" * len(headers), *map(line, rows)]
