"""The picture of a scan, drawn with matplotlib (the extra "report")."""

from __future__ import annotations

import io
from pathlib import Path

from clipalign.files import atomic_write_bytes
from clipalign.transforms.scanned import Scanned

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
        axes.set_ylabel(panel.title)
        if panel.percent:
            axes.axhline(50, color=_GREY, linewidth=0.8, linestyle=":")
            axes.set_ylim(-3, 103)
        if len(panel.curves) > 1:
            axes.legend(frameon=False, fontsize="small")
        for t in (0, 1):
            if min(ts) <= t <= max(ts):
                axes.axvline(t, color=_GREY, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    every[0, 0].set_title(scan.title)
    every[-1, 0].set_xlabel("t")
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    atomic_write_bytes(path, picture.getvalue())
