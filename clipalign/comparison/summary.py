"""The schema of compare.json: every panel, row and number of a comparison, and what failed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from clipalign._version import __version__
from clipalign.evals.results import Comparison
from clipalign.evals.statistics import Interval

__all__ = ["CellRow", "Column", "Entry", "Panel", "Summary", "TableRow"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Column(_Strict):
    """A metric of the table. `axis` says whether it is one of the front's."""

    metric: str
    unit: str
    higher_is_better: bool | None
    axis: bool
    description: str


class Entry(_Strict):
    """One metric of one method.

    Attributes:
        values: one a seed, in the order of the row's seeds.
        mean, sd: over seeds; sd is sample standard deviation (n − 1), None for one seed.
        interval: of the mean over other images (or queries), with these seeds; None where the
            metric is no mean of values that the rows hold and there are several seeds.
        n: images (or queries) that each value is made of.
        of: what these are.
    """

    values: list[float]
    mean: float
    sd: float | None
    interval: Interval | None
    n: int
    of: str


class TableRow(_Strict):
    """One method on one model.

    Attributes:
        method, kind: as in the recipe.
        seeds: of the cells that were measured so; null for a cell without one.
        missing: cells that have no result of this evaluation.
        entries: by metric; one that was not measured is absent.
        on_front: None where an axis was not measured.
        dominated_by: methods that are as good on every axis and better on one.
        tests: paired differences, method − baseline.
        paired_seeds: that the differences are over, where these are not all seeds of both; null
            where they are.
    """

    method: str
    kind: Literal["train", "transform", "model"]
    seeds: list[int | None]
    missing: int
    entries: dict[str, Entry]
    on_front: bool | None
    dominated_by: list[str]
    tests: list[Comparison]
    paired_seeds: list[int] | None = None


class Panel(_Strict):
    """One evaluation of one split, on one model of the grid."""

    evaluation: str
    suite: str
    dataset: str
    split: str
    model: str
    n: int
    columns: list[Column]
    baseline: str | None
    rows: list[TableRow]
    warnings: list[str] = []


class CellRow(_Strict):
    """What became of a cell; "started" also where it is made and still to be measured."""

    name: str
    method: str
    model: str
    seed: int | None
    kind: Literal["train", "transform", "model"]
    state: Literal["missing", "started", "finished", "failed"]
    error: str | None = None
    reason: str | None = None


class Summary(_Strict):
    """The whole comparison, as it is written to compare.json."""

    schema_version: Literal[1] = 1
    created_by: str = f"clipalign {__version__}"
    title: str
    recipe_sha256: str
    cells: list[CellRow]
    panels: list[Panel]
