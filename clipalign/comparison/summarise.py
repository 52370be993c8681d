"""From the result files of a comparison to its table: means, intervals, tests, the front.

Everything is read from files: no model is loaded and no torch imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipalign.comparison.front import dominators
from clipalign.comparison.plan import Cell, Plan
from clipalign.comparison.recipe import Axis, Evaluation
from clipalign.comparison.records import Record, is_measured, measured, read_record
from clipalign.comparison.summary import CellRow, Column, Entry, Panel, Summary, TableRow
from clipalign.errors import DataError, near_matches
from clipalign.evals.measures import measure
from clipalign.evals.results import Comparison, MetricValue, SuiteResult, read_result, read_rows
from clipalign.evals.statistics import Interval, seed_spread
from clipalign.evals.units import Units, compare_units, units_of
from clipalign.files import canonical_json, sha256_bytes

__all__ = ["summarise"]

_RETAINED = "retention_"
"""Prefix of what `clipalign.evals.retention` puts beside the numbers of another suite."""


@dataclass(frozen=True)
class _Measured:
    """One result of one cell."""

    cell: Cell
    path: Path
    result: SuiteResult
    siblings: Sequence[tuple[Path, SuiteResult]]
    cache: dict[Path, dict[str, Units]]

    def units(self, metric: str) -> Units | None:
        """Values that the metric is the mean of. What is retained is in a result of its own."""
        found = self._of(self.path, self.result).get(metric)
        if found is not None or not metric.startswith(_RETAINED):
            return found
        mine, name = self.result.metrics.get(metric), metric.removeprefix(_RETAINED)
        for path, other in self.siblings:
            theirs = other.metrics.get(name)
            if other.suite == "retention" and mine and theirs and mine.value == theirs.value:
                return self._of(path, other).get(name)
        return None

    def _of(self, path: Path, result: SuiteResult) -> dict[str, Units]:
        if path not in self.cache:
            self.cache[path] = {} if result.rows is None else units_of(result, read_rows(path))
        return self.cache[path]


def summarise(plan: Plan) -> Summary:
    """Read every finished cell of a comparison.

    Raises:
        DataError: a result file is damaged or was changed.
        RunError: a record is damaged.
    """
    records = {cell.name: read_record(plan, cell) for cell in plan.cells}
    cache: dict[Path, dict[str, Units]] = {}
    found = [m for c in plan.cells for m in _read(plan, c, records[c.name], cache)]
    panels = []
    for model in plan.models:
        for evaluation in plan.evaluations:
            mine = [m for label, m in found if label == evaluation.label]
            places = dict.fromkeys(_place(m.result) for m in mine)
            for place in places:
                chosen = [m for m in mine if _place(m.result) == place and m.cell.model == model]
                if chosen:
                    panels.append(_panel(plan, evaluation, model, chosen))
    recipe = json.loads(plan.recipe.model_dump_json())
    return Summary(
        title=plan.recipe.title,
        recipe_sha256=sha256_bytes(canonical_json(recipe)),
        cells=[_cell_row(plan, cell, records[cell.name]) for cell in plan.cells],
        panels=panels,
    )


def _place(result: SuiteResult) -> tuple[str, str, str]:
    return result.dataset.name, result.dataset.fingerprint, result.dataset.split


def _cell_row(plan: Plan, cell: Cell, record: Record) -> CellRow:
    state = record.state
    if state == "finished" and not is_measured(plan, record):
        state = "started"  # its model is made, and is to be measured
    return CellRow(
        name=cell.name,
        method=cell.method,
        model=cell.model,
        seed=cell.seed,
        kind=cell.kind,
        state=state,
        error=record.error,
        reason=record.reason,
    )


def _read(
    plan: Plan, cell: Cell, record: Record, cache: dict[Path, dict[str, Units]]
) -> Iterator[tuple[str, _Measured]]:
    """The results of a cell, each with the evaluation of the plan that it is of."""
    try:
        everything = {
            label: [(p, read_result(p)) for p in (plan.folder(cell) / f for f in files)]
            for label, files in measured(plan, record).items()
        }
    except DataError as error:
        raise DataError(
            f"{error} To measure this cell again, remove that file; to measure all cells again: "
            f"clipalign compare {plan.output} --all"
        ) from None
    siblings = [pair for pairs in everything.values() for pair in pairs]
    for label, pairs in everything.items():
        for path, result in pairs:
            yield label, _Measured(cell, path, result, siblings, cache)


def _panel(
    plan: Plan,
    evaluation: Evaluation,
    model: str,
    results: Sequence[_Measured],
) -> Panel:
    first = results[0].result
    better = {a.metric: a for a in evaluation.axes_of_suite()}
    known: dict[str, MetricValue] = {}
    for m in results:
        known = {**m.result.metrics, **known}
    warnings = [
        f"There is no metric {name!r} in the results of {evaluation.label}"
        + (", so there is no front." if name in better else ".")
        + near_matches(name, known)
        for name in dict.fromkeys([*better, *evaluation.show])
        if name not in known
    ]
    if any(m.result.suite_version != first.suite_version for m in results):
        warnings.append("Cells were measured by different versions of the suite. Measure again.")
    if len({m.result.against.sha256 for m in results if m.result.against}) > 1:
        warnings.append(f"Cells were measured against different weights of {model}.")
    columns = [
        Column(
            metric=name,
            unit=known[name].unit,
            higher_is_better=_direction(better.get(name), known[name]),
            axis=name in better,
            description=known[name].description,
        )
        for name in dict.fromkeys([*better, *evaluation.show])
        if name in known
    ]
    by_method: dict[str, list[_Measured]] = {}
    for m in results:
        by_method.setdefault(m.cell.method, []).append(m)
    entries = {
        name: {c.metric: e for c in columns if (e := _entry(c.metric, cells, evaluation.seed))}
        for name, cells in by_method.items()
    }
    axis = [c for c in columns if c.axis]
    for c in axis:
        if c.higher_is_better is None:
            warnings.append(
                f"{c.metric} is neither good nor bad in itself, so there is no front: say which "
                f"way is better in the recipe, axes: [{{metric: {c.metric}, better: lower}}]."
            )
    beaten: dict[str, list[str]] = {}
    if axis and len(axis) == len(better) and all(c.higher_is_better is not None for c in axis):
        points = {
            name: [row[c.metric].mean for c in axis]
            for name, row in entries.items()
            if all(c.metric in row for c in axis)
        }
        beaten = dominators(points, [bool(c.higher_is_better) for c in axis])
    baseline = plan.recipe.baseline
    against = by_method.get(baseline, []) if baseline else []
    pairs = {n: _pairs(c, against) if c is not against else [] for n, c in by_method.items()}
    rows = [
        TableRow(
            method=name,
            kind=cells[0].cell.kind,
            seeds=[m.cell.seed for m in cells],
            missing=sum((c.method, c.model) == (name, model) for c in plan.cells) - len(cells),
            entries=entries[name],
            on_front=not beaten[name] if name in beaten else None,
            dominated_by=beaten.get(name, []),
            tests=_tests(columns, pairs[name], evaluation.seed),
            paired_seeds=None if cells is against else _some_seeds(pairs[name], cells, against),
        )
        for name, cells in by_method.items()
    ]
    return Panel(
        evaluation=evaluation.label,
        suite=first.suite,
        dataset=first.dataset.name,
        split=first.dataset.split,
        model=model,
        n=first.dataset.n,
        columns=columns,
        baseline=baseline if baseline in by_method else None,
        rows=rows,
        warnings=warnings,
    )


def _direction(axis: Axis | None, metric: MetricValue) -> bool | None:
    if axis is None or axis.better is None:
        return metric.higher_is_better
    return axis.better == "higher"


def _entry(metric: str, cells: Sequence[_Measured], seed: int) -> Entry | None:
    """A metric over the seeds of one method; None where no seed has it."""
    found = [(m, v) for m in cells if (v := m.result.metrics.get(metric)) and v.value is not None]
    if not found:
        return None
    values = [float(v.value) for _, v in found if v.value is not None]
    spread = seed_spread(values)
    units = [u for m, _ in found if (u := m.units(metric))]
    interval, of = None, "image"
    if len(units) == len(found) and all(u.keys == units[0].keys for u in units):
        of, interval = units[0].of, _interval(units, seed)
    elif len(found) == 1:
        interval = found[0][1].interval
    return Entry(
        values=values,
        mean=spread.mean,
        sd=spread.sd,
        interval=interval,
        n=found[0][1].n,
        of=of,
    )


def _interval(units: Sequence[Units], seed: int) -> Interval | None:
    """Of the mean over seeds: each image is drawn with its values of all seeds."""
    stacked = np.concatenate([u.values for u in units])
    groups = np.tile(units[0].groups, len(units))
    return measure(
        stacked,
        groups,
        higher_is_better=None,
        unit="",
        description="",
        seed=seed,
        within=units[0].within,
    ).interval


def _tests(
    columns: Sequence[Column], pairs: Sequence[tuple[_Measured, _Measured]], seed: int
) -> list[Comparison]:
    """Paired differences of every column, over the seeds that both have."""
    tests = []
    for column in columns:
        a = [u for m, _ in pairs if (u := m.units(column.metric))]
        b = [u for _, m in pairs if (u := m.units(column.metric))]
        if len(a) == len(b) == len(pairs):
            try:
                found = compare_units(column.metric, a, b, seed=seed)
            except DataError:  # right or wrong for one, numbers for the other
                found = None
            tests += [found] if found else []
    return tests


def _some_seeds(
    pairs: Sequence[tuple[_Measured, _Measured]],
    a: Sequence[_Measured],
    b: Sequence[_Measured],
) -> list[int] | None:
    """The seeds of the pairs; None where they are all, or there is nothing to stand against."""
    if not b or len(pairs) == max(len(a), len(b)):
        return None
    return [m.cell.seed for m, _ in pairs if m.cell.seed is not None]


def _pairs(a: Sequence[_Measured], b: Sequence[_Measured]) -> list[tuple[_Measured, _Measured]]:
    """Same seed with same seed; a cell without one stands against every seed of the other."""
    of_a, of_b = {m.cell.seed: m for m in a}, {m.cell.seed: m for m in b}
    if None in of_a and None in of_b:
        return [(of_a[None], of_b[None])]
    if None in of_a:
        return [(of_a[None], m) for m in b]
    if None in of_b:
        return [(m, of_b[None]) for m in a]
    return [(m, of_b[seed]) for seed, m in of_a.items() if seed in of_b]
