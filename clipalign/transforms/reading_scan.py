"""The scan of a map that was trained on written words: does a model read or look, as t is turned?

The paper's Fig. 2 (arXiv 2411.08923): OCR is choosing the word that is written, OD the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clipalign.evals.base import EvalContext
from clipalign.evals.reading import ReadingPoint, ReadingSuite, reading_curve
from clipalign.transforms.context import FitContext
from clipalign.transforms.labelled import fitting_split
from clipalign.transforms.maps import MapOfRun, check_fits, check_head_run, read_map
from clipalign.transforms.scanned import Panel, percent

__all__ = ["ReadingScan", "scan_reading"]


@dataclass(frozen=True)
class ReadingScan:
    """OD and OCR over t.

    Attributes:
        dataset, split: that the images are of.
        images: with a wrong word on them.
        rows: one a t, in the order asked for.
    """

    dataset: str
    split: str
    images: int
    rows: tuple[ReadingPoint, ...]

    @property
    def title(self) -> str:
        """The data, and the number of images."""
        return f"reading or looking, {self.images} attacked images of {self.dataset} {self.split}"

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self) | {"rows": [asdict(row) for row in self.rows]}

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Headings, and one row of cells a t."""
        headings = ("T", "OBJECT (OD)", "WORD (OCR)", "OD OF TWO", "OCR OF TWO")
        return headings, [
            (f"{r.t:g}", *map(percent, (r.od, r.ocr, r.od_two_way, r.ocr_two_way)))
            for r in self.rows
        ]

    def panels(self) -> Sequence[Panel]:
        """Among all classes above, between the two below."""
        all_classes = {
            "object (OD)": [row.od for row in self.rows],
            "written word (OCR)": [row.ocr for row in self.rows],
        }
        two = {
            "object (OD)": [row.od_two_way for row in self.rows],
            "written word (OCR)": [row.ocr_two_way for row in self.rows],
        }
        return (
            Panel("% among all classes", all_classes, percent=True),
            Panel("% of the two", two, percent=True),
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
    images, texts, true, written = ReadingSuite().features(seen)
    points = reading_curve(images, texts, linear, ts, true=true, written=written)
    return ReadingScan(dataset.name, where, len(true), tuple(points))
