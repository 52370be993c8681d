"""Before and after: results that can be compared, side by side, and what was given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipalign.evals.results import Comparison, MetricValue, SuiteResult
from clipalign.evals.words import label, number
from clipalign.reports.headline import aims_of, costs_of
from clipalign.reports.sources import Measured, Source

__all__ = ["Board", "Cell", "Row", "boards_of"]


@dataclass(frozen=True)
class Cell:
    """What one model has to say on one metric.

    Attributes:
        metric: the number; None where this result lacks it.
        comparison: with the reference; None without one.
    """

    metric: MetricValue | None
    comparison: Comparison | None

    @property
    def before(self) -> float | None:
        """The reference's number: what `metric` is less the difference."""
        if self.metric is None or self.metric.value is None or self.comparison is None:
            return None
        return self.metric.value - self.comparison.difference

    @property
    def verdict(self) -> str:
        """better, worse, changed (where neither is good), or same.

        The same is what no interval tells apart: it holds 0, or there is none.
        """
        change, metric = self.comparison, self.metric
        if change is None or metric is None or change.difference == 0:
            return "same"
        bounds = change.interval
        if bounds is None or bounds.low <= 0 <= bounds.high:
            return "same"
        if metric.higher_is_better is None:
            return "changed"
        return "better" if (change.difference > 0) == metric.higher_is_better else "worse"


@dataclass(frozen=True)
class Row:
    """One metric of a board, a cell for each of its models."""

    name: str
    unit: str
    description: str
    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        """The metric in words."""
        return label(self.name)

    @property
    def before(self) -> float | None:
        """The reference's number, which all cells share."""
        return next((c.before for c in self.cells if c.before is not None), None)


@dataclass(frozen=True)
class Board:
    """Results of one suite on the same images against the same reference.

    Attributes:
        title: suite, dataset and split.
        columns: names of the models.
        measured: the results, one a column.
        aims, costs, others: rows: what was asked for, what was given up, and the rest.
    """

    title: str
    columns: tuple[str, ...]
    measured: tuple[Measured, ...]
    aims: tuple[Row, ...]
    costs: tuple[Row, ...]
    others: tuple[Row, ...]

    @property
    def result(self) -> SuiteResult:
        """The first of them, for what they share."""
        return self.measured[0].result

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the numbers must know, each once."""
        return tuple(dict.fromkeys(w for m in self.measured for w in m.result.warnings))

    @property
    def level(self) -> str:
        """Coverage of the intervals, "95 %"."""
        levels = [m.interval.level for m in self.result.metrics.values() if m.interval]
        return f"{100 * levels[0]:g} %" if levels else ""

    @property
    def key_figures(self) -> tuple[Row, ...]:
        """Four rows that stand for all: two aims, two costs; only of a model that stands alone."""
        if len(self.columns) > 1:
            return ()
        distance = [row for row in self.costs[1:] if row.name == "kl_to_reference"]
        return (*self.aims[:2], *self.costs[:1], *distance)

    @property
    def sentence(self) -> str:
        """The first aim and the first cost of each model, in words."""
        return " ".join(s for i in range(len(self.columns)) if (s := self._sentence(i)))

    def _sentence(self, column: int) -> str:
        aim = _moved(self.aims[0], column) if self.aims else ""
        cost = _moved(self.costs[0], column) if self.costs else ""
        words = "; ".join(part for part in (aim, cost) if part)
        if not words:
            return ""
        who = f"{self.columns[column]}: " if len(self.columns) > 1 else ""
        return f"{who}{words[0].upper() if not who else words[0]}{words[1:]}."


def boards_of(sources: Sequence[Source]) -> list[Board]:
    """Group the results of all sources into boards, in the order in which they are met."""
    groups: dict[tuple[Any, ...], list[tuple[str, Measured]]] = {}
    for source in sources:
        for measured in source.results:
            r = measured.result
            key = (
                r.suite, r.suite_version, r.dataset.name, r.dataset.split, r.dataset.fingerprint,
                r.against and r.against.sha256,
            )  # fmt: skip
            groups.setdefault(key, []).append((source.name, measured))
    return _once([_board(members) for members in groups.values()])


def _once(boards: Sequence[Board]) -> list[Board]:
    """Retention is of its own images, whatever the split: what an earlier board says is left out.

    A board whose costs would all go keeps them.
    """
    shown: set[tuple[Any, ...]] = set()
    kept = []
    for board in boards:
        costs, others = (
            tuple(r for r in rows if _said(board, r) not in shown)
            for rows in (board.costs, board.others)
        )
        shown |= {_said(board, r) for r in (*board.costs, *board.others) if "retention_" in r.name}
        kept.append(replace(board, costs=costs, others=others) if costs else board)
    return kept


def _said(board: Board, row: Row) -> tuple[Any, ...]:
    values = tuple(c.metric and c.metric.value for c in row.cells)
    return board.columns, row.name, values


def _board(members: Sequence[tuple[str, Measured]]) -> Board:
    results = [m.result for _, m in members]
    first = results[0]
    names = dict.fromkeys(name for r in results for name in r.metrics)
    aims = list(dict.fromkeys(name for r in results for name in aims_of(r)))
    costs = [n for n in dict.fromkeys(n for r in results for n in costs_of(r)) if n not in aims]
    others = [name for name in names if name not in aims and name not in costs]
    compared = [{c.metric: c for c in r.comparisons} for r in results]

    def row(name: str) -> Row:
        about = next(r.metrics[name] for r in results if name in r.metrics)
        cells = [
            Cell(r.metrics.get(name), c.get(name)) for r, c in zip(results, compared, strict=True)
        ]
        return Row(name, about.unit, about.description, tuple(cells))

    columns = [name for name, _ in members]
    if len(set(columns)) < len(columns):  # two results of one source, told apart by their files
        columns = [f"{name}, {m.path.stem}" for name, m in members]
    return Board(
        f"{first.suite}: {first.dataset.label}, {first.dataset.split}",
        tuple(columns),
        tuple(m for _, m in members),
        tuple(map(row, aims)),
        tuple(map(row, costs)),
        tuple(map(row, others)),
    )


def _moved(row: Row, column: int) -> str:
    """`attacked accuracy rose from 34.1 % to 68.2 % (+34.1 points [31.0, 37.1])`."""
    cell = row.cells[column]
    change, metric = cell.comparison, cell.metric
    if change is None or metric is None or metric.value is None or cell.before is None:
        return ""
    share = row.unit == "share"
    mark, points = (" %", " points") if share else (f" {row.unit}", "")
    before, after = _minus(cell.before, row.unit), _minus(metric.value, row.unit)
    by = _minus(change.difference, row.unit, "+") + points
    if change.interval is not None:
        bounds = change.interval
        low, high = (_minus(end, row.unit, "+") for end in (bounds.low, bounds.high))
        by += f", {100 * bounds.level:g} % interval {low} to {high}"
    elif change.difference != 0:
        by += ", too little for an interval"
    if cell.verdict == "same" and (change.interval or change.difference == 0):
        return f"{row.label} did not change beyond chance: {before}{mark} to {after}{mark} ({by})"
    verb = "rose" if change.difference > 0 else "fell"
    return f"{row.label} {verb} from {before}{mark} to {after}{mark} ({by})"


def _minus(value: float, unit: str, sign: str = "-") -> str:
    return number(value, unit, sign).replace("-", "−")
