"""Curves over t: what a turned map does to a concept, or to reading, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipalign.reports.charts import Chart, Line
from clipalign.reports.gallery import Gallery

__all__ = ["Turned", "gallery_charts", "scan_charts", "turned"]

_ENDS = ((0.0, "0"), (1.0, "1"))
_WORDS = "At t = 0 it is the model as it was, at t = 1 as it was trained."


@dataclass(frozen=True)
class Turned:
    """A scan on the page.

    Attributes:
        name: of the run or the scan.
        about: what was looked at, in a sentence or two.
        charts: curves over t.
        headings: of the table, one a curve.
        rows: (t, the value of each curve); None where it was not measured.
    """

    name: str
    about: str
    charts: Sequence[Chart]
    headings: Sequence[str]
    rows: Sequence[tuple[float, Sequence[float | None]]]


def turned(name: str, scan: Mapping[str, Any]) -> Turned:
    """What the page shows of a scan.json; see `scan_charts`."""
    charts = scan_charts(scan)
    curves = [(chart, line) for chart in charts for line in chart.lines]
    many = len(charts) > 1
    headings = [f"{line.name}, {chart.short}" if many else line.name for chart, line in curves]
    values = [dict(zip(line.xs, line.ys, strict=True)) for _, line in curves]
    ts = sorted({t for each in values for t in each})
    n = f"{scan['images']:,}"
    if "od" in scan["rows"][0]:
        about = (
            "Does it choose the object, or the word that is written on it? "
            f"{_WORDS} {n} attacked images of {scan['dataset']}, split {scan['split']}."
        )
    else:
        about = f"{_WORDS} {n} images."
    return Turned(name, about, charts, headings, [(t, [v.get(t) for v in values]) for t in ts])


def gallery_charts(gallery: Gallery) -> list[Chart]:
    """The charts of a gallery's scan, with t* marked."""
    assert gallery.scan is not None
    marks = [(0.0, "0"), (1.0, "1")]
    if gallery.neutral is not None:
        marks.insert(1, (round(gallery.neutral.t, 6), "t*"))
    return scan_charts(gallery.scan.document(), marks)


def scan_charts(scan: Mapping[str, Any], marks: Sequence[tuple[float, str]] = _ENDS) -> list[Chart]:
    """Of a concept, accuracies over t and how uneven the top of a search is; of written words, how
    often the object (OD) and the word (OCR) is chosen.

    Args:
        scan: as `Scan.document` or scan.json has it.
        marks: t and label of vertical lines; those outside the scan are left out.
    """
    rows = scan["rows"]
    ts = [float(row["t"]) for row in rows]
    marks = [(t, name) for t, name in marks if min(ts) <= t <= max(ts)]
    intervals = scan.get("intervals", {})  # a scan.json of before has none

    def line(name: str, key: str) -> list[Line]:
        sure = intervals.get(key, [None] * len(ts))
        points = [(t, row.get(key), ends) for t, row, ends in zip(ts, rows, sure, strict=True)]
        known = [(t, float(y), ends) for t, y, ends in points if isinstance(y, int | float)]
        if not known:
            return []
        band = [(y, y) if ends is None else (ends[0], ends[1]) for _, y, ends in known]
        drawn = band if any(low < high for low, high in band) else ()
        return [Line(name, [t for t, _, _ in known], [y for _, y, _ in known], drawn)]

    def chart(title: str, short: str, lines: Sequence[Line], note: str) -> list[Chart]:
        if not lines:
            return []
        if any(line.band for line in lines):
            note += "; shaded: 95 % interval over images"
        return [Chart(title, lines, "t", True, marks, (0.0, 1.0), note, short)]

    if "od" in rows[0]:
        every = [*line("object", "od"), *line("word", "ocr")]
        two = [*line("object", "od_two_way"), *line("word", "ocr_two_way")]
        return [
            *chart("Reading or looking, over t", "of all", every, "chosen among all classes"),
            *chart("Of the two texts alone", "of two", two, "the object's against the word's"),
        ]
    concept, k = str(scan["concept"]), scan["k"]
    accuracy = [*line(concept, "concept_accuracy"), *line("activity", "activity_accuracy")]
    top = [*line("mean |bias|", "top_k_bias"), *line(str(scan["values"][0]), "top_k_share")]
    share = f"share of {scan['values'][0]}, and |difference of shares|; mean of all searches"
    return [
        *chart("Accuracy over t", "accuracy", accuracy, f"{scan['images']:,} images"),
        *chart(f"The top {k} of a search over t", f"top {k}", top, share),
    ]
