"""The picture of a scan, drawn with matplotlib (the extra "report")."""

from __future__ import annotations

import io
from pathlib import Path

from clipalign.files import atomic_write_bytes
from clipalign.transforms.scanned import Panel, Scanned

__all__ = ["plot_scan"]

_COLOURS = ("#d55e00", "#0072b2", "#666666", "#009e73")  # told apart by all
_GREY = "#666666"


def plot_scan(scan: Scanned, path: Path) -> None:
    """The panels of a scan over t.

    Raises:
        ImportError: matplotlib is not installed.
        StorageError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ts = [row.t for row in scan.rows]
    mark = "o" if len(ts) < 40 else ""
    panels = scan.panels()
    heights = [2 if panel.percent else 1 for panel in panels]
    figure = Figure(figsize=(7, 2 * sum(heights)), layout="constrained")
    every = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)
    for axes, panel in zip(every[:, 0], panels, strict=True):
        for (label, values), colour in zip(panel.curves.items(), _COLOURS, strict=False):
            if None not in values:
                known = [
                    value * (100 if panel.percent else 1) for value in values if value is not None
                ]
                axes.plot(ts, known, color=colour, label=label, marker=mark, markersize=3)
                low, high = _band(panel, label, known)
                axes.fill_between(ts, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_ylabel(panel.title)
        if panel.percent:
            axes.axhline(50, color=_GREY, linewidth=0.8, linestyle=":")
            axes.set_ylim(-3, 103)
        if len(panel.curves) > 1:
            axes.legend(facecolor="white", edgecolor="none", framealpha=0.8, fontsize="small")
        for t in (0, 1):
            if min(ts) <= t <= max(ts):
                axes.axvline(t, color=_GREY, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    every[0, 0].set_title(scan.title)
    every[-1, 0].set_xlabel("t (shaded: 95 % interval)" if scan.intervals else "t")
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    atomic_write_bytes(path, picture.getvalue())


def _band(panel: Panel, name: str, known: list[float]) -> tuple[list[float], list[float]]:
    """The ends of the intervals of a curve as it is drawn; the curve itself where there is none."""
    factor = 100 if panel.percent else 1
    intervals = panel.sampled[name].intervals if name in panel.sampled else [None] * len(known)
    pairs = [
        (y, y) if each is None else (factor * each.low, factor * each.high)
        for y, each in zip(known, intervals, strict=True)
    ]
    return [low for low, _ in pairs], [high for _, high in pairs]
