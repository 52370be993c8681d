"""The picture of a front, drawn with matplotlib (the extra "report")."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from clipalign.comparison.summary import Column, Panel, TableRow
from clipalign.comparison.tables import panel_seeds, panel_title
from clipalign.evals.words import label
from clipalign.files import atomic_write_bytes

__all__ = ["drawable", "plot_front"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")  # 7 × 9 methods look different
_GREY = "#999999"


def drawable(panel: Panel) -> bool:
    """Whether there are two axes and a method that was measured on both."""
    axes = [c.metric for c in panel.columns if c.axis]
    return len(axes) >= 2 and any(all(a in row.entries for a in axes) for row in panel.rows)


def plot_front(panel: Panel, stem: Path) -> list[Path]:
    """Draw the first axis against each of the others, as PNG and SVG.

    Filled marks are on the front, which is of all axes at once; hollow ones are not. Bars are the
    intervals of the table.

    Args:
        panel: with two axes at least; see `drawable`.
        stem: path without suffix.

    Returns:
        The two files.

    Raises:
        StorageError: they cannot be written.
    """
    first, *others = [c for c in panel.columns if c.axis]
    figure = Figure(figsize=(4.2 * len(others) + 2.4, 4.4), layout="constrained")
    plots = figure.subplots(1, len(others), squeeze=False, sharey=True)[0]
    rows = [r for r in panel.rows if all(c.metric in r.entries for c in (first, *others))]
    for plot, column in zip(plots, others, strict=True):
        for place, row in enumerate(rows):
            _draw(plot, row, place, column, first)
        plot.set_xlabel(_words(column))
        plot.grid(color=_GREY, alpha=0.25, linewidth=0.6)
        plot.spines[["top", "right"]].set_visible(False)
    plots[0].set_ylabel(_words(first))
    handles, labels = plots[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize="small")
    front = f"filled: on the front of all {len(others) + 1} axes; "
    if all(row.on_front is None for row in rows):
        front = ""
    figure.suptitle(
        f"{panel_title(panel)}\n{panel_seeds(panel)}; {front}bars: 95 % intervals",
        fontsize="small",
    )
    return [_save(figure, stem, ".png"), _save(figure, stem, ".svg")]


def _draw(plot: Any, row: TableRow, place: int, x: Column, y: Column) -> None:
    colour = _COLOURS[place % len(_COLOURS)]
    plot.errorbar(
        _scaled(row.entries[x.metric].mean, x),
        _scaled(row.entries[y.metric].mean, y),
        xerr=_bar(row, x),
        yerr=_bar(row, y),
        color=colour,
        marker=_MARKS[place // len(_COLOURS) % len(_MARKS)],
        markersize=7,
        markerfacecolor=colour if row.on_front else "white",
        elinewidth=0.8,
        linestyle="none",
        label=row.method,
        zorder=3 if row.on_front else 2,
    )


def _bar(row: TableRow, column: Column) -> list[list[float]] | None:
    entry = row.entries[column.metric]
    if entry.interval is None:
        return None
    below, above = entry.mean - entry.interval.low, entry.interval.high - entry.mean
    # the mean of a very skewed sample can lie outside of its own percentile interval
    return [[_scaled(max(below, 0.0), column)], [_scaled(max(above, 0.0), column)]]


def _scaled(value: float, column: Column) -> float:
    return 100 * value if column.unit == "share" else value


def _words(column: Column) -> str:
    unit = "%" if column.unit == "share" else column.unit
    better = {True: ", higher is better", False: ", lower is better", None: ""}
    return f"{label(column.metric)} ({unit}{better[column.higher_is_better]})"


def _save(figure: Figure, stem: Path, suffix: str) -> Path:
    picture = io.BytesIO()
    # no date and fixed ids: the same results give the same bytes
    with matplotlib.rc_context({"svg.hashsalt": "clipalign", "svg.fonttype": "none"}):
        if suffix == ".png":
            FigureCanvasAgg(figure).print_png(picture)
        else:
            FigureCanvasSVG(figure).print_svg(picture, metadata={"Date": None})
    path = stem.with_name(stem.name + suffix)
    atomic_write_bytes(path, picture.getvalue())
    return path
