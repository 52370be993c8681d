"""Curves over t: what a turned map does to a concept, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipalign.reports.charts import Chart, Line
from clipalign.reports.gallery import Gallery

__all__ = ["gallery_charts", "scan_charts"]


def gallery_charts(gallery: Gallery) -> list[Chart]:
    """The charts of a gallery's scan, with t* marked."""
    assert gallery.scan is not None
    marks = [(0.0, "0"), (1.0, "1")]
    if gallery.neutral is not None:
        marks.insert(1, (round(gallery.neutral.t, 6), "t*"))
    return scan_charts(gallery.scan.document(), marks)


def scan_charts(
    scan: Mapping[str, Any], marks: Sequence[tuple[float, str]] = ((0.0, "0"), (1.0, "1"))
) -> list[Chart]:
    """Accuracies over t, and how uneven the top of a search is.

    Args:
        scan: as `Scan.document` or scan.json has it.
        marks: t and label of vertical lines; those outside the scan are left out.
    """
    rows, concept, k = scan["rows"], str(scan["concept"]), scan["k"]
    ts = [float(row["t"]) for row in rows]
    marks = [(t, name) for t, name in marks if min(ts) <= t <= max(ts)]

    def line(name: str, key: str) -> list[Line]:
        points = [(t, row.get(key)) for t, row in zip(ts, rows, strict=True)]
        known = [(t, float(y)) for t, y in points if isinstance(y, int | float)]
        return [Line(name, [t for t, _ in known], [y for _, y in known])] if known else []

    accuracy = [*line(concept, "concept_accuracy"), *line("activity", "activity_accuracy")]
    top = [*line("mean |bias|", "top_k_bias"), *line(str(scan["values"][0]), "top_k_share")]
    charts = []
    if accuracy:
        charts.append(
            Chart(
                "Accuracy over t", accuracy, "t", True, marks, (0.0, 1.0),
                f"{scan['images']:,} images",
            )
        )  # fmt: skip
    if top:
        charts.append(
            Chart(
                f"The top {k} of a search over t", top, "t", True, marks, (0.0, 1.0),
                f"share of {scan['values'][0]}, and |difference of shares|; mean of all searches",
            )
        )  # fmt: skip
    return charts
