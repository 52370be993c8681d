"""Two runs side by side: where their configurations differ, and their results, paired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipalign.errors import DataError
from clipalign.evals.results import Comparison, SuiteResult, read_result, read_rows
from clipalign.evals.units import compare_units, units_of

__all__ = ["ResultPair", "config_differences", "flat", "result_files", "result_pairs"]

ABSENT = "–"


@dataclass(frozen=True)
class ResultPair:
    """One result that both runs have.

    Attributes:
        name: path from `results/`, without suffix.
        refused: why the two cannot be compared; None where they can.
        a, b: the results.
        comparisons: b − a, by metric. One without an interval is a plain difference: it is no mean
            of values that the rows hold, or there are too few of them.
    """

    name: str
    refused: str | None
    a: SuiteResult | None = None
    b: SuiteResult | None = None
    comparisons: Sequence[Comparison] = field(default=())

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        metrics = {}
        if self.a and self.b:
            for c in self.comparisons:
                metrics[c.metric] = {
                    "unit": self.a.metrics[c.metric].unit,
                    "a": self.a.metrics[c.metric].value,
                    "b": self.b.metrics[c.metric].value,
                    **c.model_dump(mode="json", exclude={"metric"}),
                }
        return {"result": self.name, "refused": self.refused, "metrics": metrics}


def flat(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a tree by dotted key."""
    for key, value in tree.items():
        place = f"{where}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{place}.")
        else:
            yield place, value


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Keys whose values are not the same in all configurations → one value each.

    `output` is left out, since no two runs have the same; a key that is not there is "–".
    """
    leaves = [dict(flat(config)) for config in configs]
    keys = dict.fromkeys(key for each in leaves for key in each if key != "output")
    found = {key: [each.get(key, ABSENT) for each in leaves] for key in keys}
    return {k: values for k, values in found.items() if any(v != values[0] for v in values)}


def result_files(run: Path) -> dict[str, Path]:
    """Result files of a run by their path from `results/`, without suffix."""
    folder = run / "results"
    return {
        str(path.relative_to(folder).with_suffix("")): path
        for path in sorted(folder.rglob("*.json"))
    }


def result_pairs(a: Path, b: Path) -> list[ResultPair]:
    """Every result that both runs have, compared where that is honest.

    Raises:
        DataError: a result file is damaged or was changed.
    """
    ours, theirs = result_files(a), result_files(b)
    return [_pair(name, ours[name], theirs[name]) for name in ours if name in theirs]


def _pair(name: str, first: Path, second: Path) -> ResultPair:
    a, b = read_result(first), read_result(second)
    for what, of in (
        ("suite versions", lambda r: (r.suite, r.suite_version)),
        ("images", lambda r: (r.dataset.fingerprint, r.dataset.split)),
        ("seeds", lambda r: r.seed),
        ("options", lambda r: r.options),
    ):
        if of(a) != of(b):
            reason = f"They were measured with different {what}. Evaluate both again."
            return ResultPair(name, reason, a, b)
    units_a = {} if a.rows is None else units_of(a, read_rows(first))
    units_b = {} if b.rows is None else units_of(b, read_rows(second))
    found = []
    for metric, before in a.metrics.items():
        after = b.metrics.get(metric)
        if after is None or before.value is None or after.value is None:
            continue
        paired = None
        if metric in units_a and metric in units_b:
            try:
                paired = compare_units(metric, [units_b[metric]], [units_a[metric]], seed=a.seed)
            except DataError:  # the values of the one are no numbers as the other's are
                paired = None
        found.append(
            paired or Comparison(metric=metric, n=after.n, difference=after.value - before.value)
        )
    return ResultPair(name, None, a, b, tuple(found))
