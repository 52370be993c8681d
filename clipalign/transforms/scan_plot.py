"""The picture of a scan, drawn with matplotlib (the extra "report")."""

from __future__ import annotations

import io
from pathlib import Path

from clipalign.files import atomic_write_bytes
from clipalign.transforms.scan import Scan

__all__ = ["plot_scan"]

_BLUE, _ORANGE, _GREEN, _GREY = "#0072b2", "#d55e00", "#009e73", "#666666"  # told apart by all


def plot_scan(scan: Scan, path: Path) -> None:
    """Two panels over t: shares above, the distance from t = 0 below.

    Raises:
        ImportError: matplotlib is not installed.
        StorageError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ts = [row.t for row in scan.rows]
    mark = "o" if len(ts) < 40 else ""
    figure = Figure(figsize=(7, 6), layout="constrained")
    shares, distance = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    lines: list[tuple[str, str, list[float | None]]] = [
        (f"{scan.concept} accuracy", _ORANGE, [row.concept_accuracy for row in scan.rows]),
        ("activity accuracy", _BLUE, [row.activity_accuracy for row in scan.rows]),
        ("flip rate", _GREY, [row.flip_rate for row in scan.rows]),
        (f"{scan.values[0]} in the top {scan.k}", _GREEN, [r.top_k_share for r in scan.rows]),
    ]
    for label, colour, values in lines:
        if None not in values:
            known = [100 * value for value in values if value is not None]
            shares.plot(ts, known, color=colour, label=label, marker=mark, markersize=3)
    shares.axhline(50, color=_GREY, linewidth=0.8, linestyle=":")
    shares.set(ylabel="%", ylim=(-3, 103), title=f"{scan.concept}, {scan.images} images")
    shares.legend(frameon=False, fontsize="small")
    kl = [row.kl for row in scan.rows if row.kl is not None]
    if kl:
        distance.plot(ts, kl, color=_BLUE, marker=mark, markersize=3)
        distance.set_ylabel("KL to t = 0 (nats)")
    else:
        distance.plot(ts, [row.gap for row in scan.rows], color=_ORANGE)
        distance.set_ylabel("group gap")
    distance.set_xlabel("t")
    for axes in (shares, distance):
        for t in (0, 1):
            if min(ts) <= t <= max(ts):
                axes.axvline(t, color=_GREY, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    atomic_write_bytes(path, picture.getvalue())
