"""The report's plots as PNG and SVG files, drawn with matplotlib (the extra "report")."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipalign.errors import UsageError
from clipalign.files import atomic_write_bytes
from clipalign.reports.boards import Board
from clipalign.reports.charts import Chart

__all__ = ["write_plots"]

_ACCENT, _INK, _MUTED, _RULE = "#0a6570", "#1c1d1f", "#5d6066", "#dedad1"
_STYLES = ((_ACCENT, "-"), (_INK, "-"), (_MUTED, ":"), (_ACCENT, "--"), (_INK, "--"))
_RC: Any = {"svg.hashsalt": "clipalign", "svg.fonttype": "none", "font.size": 9}


def write_plots(folder: Path, charts: Sequence[Chart], boards: Sequence[Board]) -> list[Path]:
    """Write each chart, and before and after of each board, as PNG and SVG; same plots, same bytes.

    Args:
        folder: is made if need be.
        charts: named by their titles.
        boards: those with shares that are compared with a reference.

    Returns:
        The files.

    Raises:
        UsageError: matplotlib is not installed.
        StorageError: they cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise UsageError(
            "Plots need matplotlib. Install it with: pip install 'clipalign[report]'"
        ) from None
    files: list[Path] = []
    taken: set[str] = set()
    with matplotlib.rc_context(_RC):
        for chart in charts:
            files += _save(_chart(chart), folder / _stem(chart.title, taken))
        for board in boards:
            if (drawn := _board(board)) is not None:
                files += _save(drawn, folder / _stem(f"{board.title} before and after", taken))
    return files


def _chart(chart: Chart) -> Any:
    figure, axes = _axes((4.4, 2.8))
    scale = 100 if chart.percent else 1
    (x0, x1), (y0, y1) = chart.x_range, chart.y_range
    for i, line in enumerate(chart.lines):
        colour, dashes = _STYLES[i % len(_STYLES)]
        ys = [scale * y for y in line.ys]
        axes.plot(line.xs, ys, color=colour, linestyle=dashes, linewidth=1.6)
        end = f"{ys[-1]:.1f} %" if chart.percent else f"{ys[-1]:.3g}"
        axes.annotate(
            f"{line.name} {end}".strip(), (line.xs[-1], ys[-1]), xytext=(6, 0),
            textcoords="offset points", color=colour, va="center", parse_math=False,
        )  # fmt: skip
    for x, name in chart.marks:
        axes.axvline(x, color=_MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.annotate(
            name, (x, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
            textcoords="offset points", color=_MUTED, va="top", parse_math=False,
        )  # fmt: skip
    axes.set_xlim(x0, x1)
    axes.set_ylim(scale * y0, scale * y1)
    axes.set_xlabel(chart.x_label, parse_math=False)
    axes.set_title(chart.title + (" (%)" if chart.percent else ""), loc="left", parse_math=False)
    return figure


def _board(board: Board) -> Any:
    """Shares before (hollow) and after (filled, with its interval), one line a metric."""
    rows = [
        row for row in (*board.aims, *board.costs) if row.unit == "share" and row.before is not None
    ]
    if not rows:
        return None
    figure, axes = _axes((6.2, 0.9 + 0.34 * len(rows) * max(1, len(board.columns))))
    names, y = [], 0.0
    places = []
    for row in rows:
        for column, cell in zip(board.columns, row.cells, strict=True):
            if cell.metric is None or cell.metric.value is None or cell.before is None:
                continue
            after, before = 100 * cell.metric.value, 100 * cell.before
            axes.plot([before, after], [y, y], color=_ACCENT, linewidth=1.2, alpha=0.5)
            if cell.metric.interval is not None:
                ends = [100 * cell.metric.interval.low, 100 * cell.metric.interval.high]
                axes.plot(ends, [y, y], color=_ACCENT, linewidth=4, alpha=0.25)
            axes.plot([before], [y], "o", color="white", markeredgecolor=_MUTED, markersize=5)
            axes.plot([after], [y], "o", color=_ACCENT, markersize=5.5)
            names.append(row.label if len(board.columns) == 1 else f"{row.label}, {column}")
            places.append(y)
            y -= 1
    axes.set_yticks(places, names, parse_math=False)
    axes.set_xlim(0, 100)
    axes.set_xlabel("%, hollow before and filled after")
    axes.set_title(board.title, loc="left", parse_math=False)
    return figure


def _axes(size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED)
    return figure, axes


def _save(figure: Any, stem: Path) -> list[Path]:
    written = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{kind}")
        atomic_write_bytes(path, buffer.getvalue())
        written.append(path)
    return written


def _stem(title: str, taken: set[str]) -> str:
    """A title as the name of a file, no two alike."""
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80] or "plot"
    stem, number = plain, 2
    while stem in taken:
        stem, number = f"{plain}-{number}", number + 1
    taken.add(stem)
    return stem
