"""The scan of a map that was trained on written words: does a model read or look, as t is turned?

The paper's Fig. 2 (arXiv 2411.08923): OCR is choosing the word that is written, OD the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from clipalign.evals.base import EvalContext
from clipalign.evals.curves import Curve, Draws
from clipalign.evals.reading import ReadingPoint, ReadingSuite, reading_outcomes
from clipalign.evals.statistics import Interval
from clipalign.transforms.context import FitContext
from clipalign.transforms.labelled import fitting_split
from clipalign.transforms.maps import MapOfRun, check_fits, check_head_run, read_map
from clipalign.transforms.scanned import Panel, percent, plain_intervals

__all__ = ["ReadingScan", "scan_reading"]


@dataclass(frozen=True)
class ReadingScan:
    """OD and OCR over t.

    Attributes:
        dataset, split: that the images are of.
        images: with a wrong word on them.
        groups: G, how many groups of images are independent of each other.
        rows: one a t, in the order asked for.
        curves: field of a row → it over t, with what it is on resampled groups.
    """

    dataset: str
    split: str
    images: int
    groups: int
    rows: tuple[ReadingPoint, ...]
    curves: Mapping[str, Curve] = field(repr=False, compare=False)

    @cached_property
    def intervals(self) -> dict[str, Sequence[Interval | None]]:
        """Field of a row → 95 % intervals, one a t."""
        return {name: curve.intervals for name, curve in self.curves.items()}

    @property
    def title(self) -> str:
        """The data, and the number of images."""
        return f"reading or looking, {self.images} attacked images of {self.dataset} {self.split}"

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            "groups": self.groups,
            "rows": [asdict(row) for row in self.rows],
            "intervals": plain_intervals(self),
        }

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Headings, and one row of cells a t."""
        headings = ("T", "OBJECT (OD)", "WORD (OCR)", "OD OF TWO", "OCR OF TWO")
        return headings, [
            (f"{r.t:g}", *map(percent, (r.od, r.ocr, r.od_two_way, r.ocr_two_way)))
            for r in self.rows
        ]

    def panels(self) -> Sequence[Panel]:
        """Among all classes above, between the two below."""
        return (
            self._panel("% among all classes", "od", "ocr"),
            self._panel("% of the two", "od_two_way", "ocr_two_way"),
        )

    def _panel(self, title: str, od: str, ocr: str) -> Panel:
        lines = {"object (OD)": od, "written word (OCR)": ocr}
        return Panel(
            title,
            {name: self.curves[key].values for name, key in lines.items()},
            percent=True,
            sampled={name: self.curves[key] for name, key in lines.items()},
        )


def scan_reading(context: FitContext, ts: Sequence[float]) -> ReadingScan:
    """OD and OCR of a head run for many t, from features that are computed once.

    Args:
        context: of a run that trained a head.
        ts: values of t.

    Raises:
        UsageError: it is not a run with a trained head.
        DataError: the images cannot be attacked, or cannot be read.
        ModelError: the map belongs to another model.
    """
    run = check_head_run(context)
    linear, sha256 = read_map(run)
    check_fits(linear, [MapOfRun(str(run.path), 1.0, sha256)], context.reference)
    dataset = context.images
    where = context.split or fitting_split(dataset, context.reporter)
    seen = EvalContext(context.reference, None, dataset, where, reporter=context.reporter)
    images, texts, true, written, groups = ReadingSuite().features(seen)
    draws = Draws(len(true), groups)
    points = [
        {name: draws.mean(each) for name, each in at.items()}
        for at in reading_outcomes(images, texts, linear, ts, true=true, written=written)
    ]
    rows = [
        ReadingPoint(float(t), **{name: point.value for name, point in at.items()})
        for t, at in zip(ts, points, strict=True)
    ]
    curves = {name: Curve(tuple(at[name] for at in points), draws.groups) for name in points[0]}
    return ReadingScan(dataset.name, where, len(true), draws.groups, tuple(rows), curves)
