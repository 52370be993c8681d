"""What a metric is the mean of: one value an image (or query), read back from a results file.

Two models that were measured on the same images are compared image by image; the rows beside each
result hold what that takes. A suite says how its rows are read when it is registered
(`units="package.module:function"`, a function from a result and its rows to `Units` by metric); a
metric that has a column of its own name needs no such function. Values that do not give the
recorded number again are not used. Nothing here imports torch.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from clipalign.errors import PluginError
from clipalign.evals.measures import compare
from clipalign.evals.results import Comparison, SuiteResult
from clipalign.plugins import registry

__all__ = [
    "DISTANCES",
    "Units",
    "compare_units",
    "gender",
    "reading",
    "retention",
    "typographic",
    "units_of",
]

DISTANCES: Mapping[str, tuple[float, float]] = {
    "kl_to_reference": (0.0, math.inf),
    "reverse_kl_to_reference": (0.0, math.inf),
    "cosine_to_reference": (-1.0, 1.0),
}
"""The least and the most that the mean distance to a reference can be, by its column."""

Row: TypeAlias = Mapping[str, Any]
Values: TypeAlias = npt.NDArray[np.float64] | npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Units:
    """N values whose mean is a metric.

    Attributes:
        keys: [N] what tells one from another; no two are equal.
        values: [N]; bool for right or wrong.
        groups: [N] labels of those that are not independent.
        of: what one is: "image" or "query".
        within: the least and the most that their mean can be, as `measure` has it.
    """

    keys: tuple[str, ...]
    values: Values
    groups: npt.NDArray[np.str_]
    of: str = "image"
    within: tuple[float, float] | None = None


def units_of(result: SuiteResult, rows: Sequence[Row]) -> dict[str, Units]:
    """The units of every metric of a result that has them.

    Args:
        result: as `read_result` gives it.
        rows: as `read_rows` gives them.

    Raises:
        PluginError: the function that the suite was registered with cannot be loaded.
    """
    rows = [row for row in rows if "unreadable" not in row]
    found = _columns(result, rows) | _reader(result.suite)(result, rows)
    return {name: u for name, u in found.items() if _agrees(result, name, u)}


def compare_units(
    metric: str,
    a: Sequence[Units],
    b: Sequence[Units],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison | None:
    """The paired difference a − b of a metric, over several pairs of seeds where there are.

    Each image is drawn with its values of all seeds: the interval tells what other images would
    have given with these seeds. Of right and wrong, each image (or group) votes once.

    Args:
        metric: its name.
        a: units of the one model, one for each seed.
        b: units of the other, as many.
        resamples: of the bootstrap.
        seed: of the resampling.

    Returns:
        The comparison; None where the two were not measured on the same images, or on too few.
    """
    if not a or len(a) != len(b) or any(u.keys != a[0].keys for u in (*a, *b)):
        return None
    groups = np.tile(a[0].groups, len(a))
    return compare(
        metric,
        np.concatenate([u.values for u in a]),
        np.concatenate([u.values for u in b]),
        groups,
        resamples=resamples,
        seed=seed,
    )


# --- The rows of the suites ---------------------------------------------------------------------


def typographic(result: SuiteResult, rows: Sequence[Row]) -> dict[str, Units]:
    """Of the suite `typographic`."""
    clean = [r for r in rows if r["written"] is None]
    attacked = [r for r in rows if r["written"] not in (None, r["label"])]
    found = {
        "clean_accuracy": _of(clean, _right),
        "attacked_accuracy": _of(attacked, _right),
        "attack_success_rate": _of(attacked, lambda r: r["predicted"] == r["written"]),
        "object_or_word": _of(attacked, lambda r: r["p_true"] > r["p_written"]),
    }
    for style in {r["style"] for r in attacked}:
        found[f"attacked_accuracy_{style}"] = _of(
            [r for r in attacked if r["style"] == style], _right
        )
    unharmed = {r["key"]: _right(r) for r in clean}
    paired = [r for r in attacked if r["key"] in unharmed]
    found["accuracy_drop"] = _of(paired, lambda r: float(unharmed[r["key"]]) - float(_right(r)))
    return found


def reading(result: SuiteResult, rows: Sequence[Row]) -> dict[str, Units]:
    """Of the suite `reading`."""
    return {
        "od": _of(rows, _right),
        "ocr": _of(rows, lambda r: r["predicted"] == r["written"]),
        "od_two_way": _of(rows, lambda r: r["p_true"] > r["p_written"]),
        "ocr_two_way": _of(rows, lambda r: r["p_written"] > r["p_true"]),
    }


def retention(result: SuiteResult, rows: Sequence[Row]) -> dict[str, Units]:
    """Of the suite `retention`."""
    return {"accuracy": _of(rows, _right)}


def gender(result: SuiteResult, rows: Sequence[Row]) -> dict[str, Units]:
    """Of the suite `gender`: images for accuracies, queries for how even a search is."""
    known = [r for r in rows if r["activity"] is not None and "predicted_activity" in r]
    found = {
        "activity_accuracy": _of(known, lambda r: r["predicted_activity"] == r["activity"]),
        "flip_rate": _of(
            [r for r in rows if "reference_predicted_value" in r],
            lambda r: r["predicted_value"] != r["reference_predicted_value"],
        ),
    }
    for name in result.metrics:
        concept = name.removesuffix("_accuracy_plain")
        if concept != name:
            found[f"{concept}_accuracy"] = _of(rows, lambda r: r["predicted_value"] == r["value"])
            found[name] = _of(rows, lambda r: r["predicted_value_plain"] == r["value"])
    for metric, column, within in (
        ("mean_abs_bias_at_k", "bias_at_k", (0.0, 1.0)),
        ("bias_at_k", "bias_at_k", (-1.0, 1.0)),
        ("max_skew", "max_skew", (0.0, math.inf)),
        ("min_skew", "min_skew", (-math.inf, 0.0)),
        ("ndkl", "ndkl", (0.0, math.inf)),
    ):
        each = {q: n[column] for q, n in result.per_class.items() if n.get(column) is not None}
        values = np.array([*each.values()], np.float64)
        if metric != column:
            values = np.abs(values)
        keys = tuple(each)
        found[metric] = Units(keys, values, np.array(keys, np.str_), "query", within)
    return found


# --- Inside -------------------------------------------------------------------------------------


def _right(row: Row) -> bool:
    return bool(row["predicted"] == row["label"])


def _of(rows: Iterable[Row], value: Callable[[Row], bool | float]) -> Units:
    rows = list(rows)
    keys = tuple(f"{r['key']}/{r.get('style', '')}/{r.get('attack', '')}" for r in rows)
    groups = np.array([r.get("group") or r["key"] for r in rows], np.str_)
    values = [value(r) for r in rows]
    kind = np.bool_ if all(isinstance(v, bool) for v in values) else np.float64
    return Units(keys, np.array(values, kind), groups)


def _columns(result: SuiteResult, rows: Sequence[Row]) -> dict[str, Units]:
    """Metrics that have a column of their own name."""
    found = {}
    for name in result.metrics:
        having = [r for r in rows if isinstance(r.get(name), bool | int | float) and "key" in r]
        if having:
            units = _of(having, lambda r, name=name: r[name])  # type: ignore[misc]
            found[name] = replace(units, within=DISTANCES.get(name))
    return found


def _agrees(result: SuiteResult, name: str, units: Units) -> bool:
    """Whether the units give the recorded number again."""
    metric = result.metrics.get(name)
    if metric is None or metric.value is None or not units.keys:
        return False
    if len(units.keys) != metric.n or len(set(units.keys)) < len(units.keys):
        return False
    return math.isclose(float(units.values.mean()), metric.value, rel_tol=1e-6, abs_tol=1e-9)


def _reader(suite: str) -> Callable[[SuiteResult, Sequence[Row]], dict[str, Units]]:
    """How the rows of a suite are read; of one that is not installed, no more than its columns."""
    suites = registry("suites")
    target = suites.entry(suite).metadata.get("units") if suite in suites.names() else None
    if target is None:
        return lambda result, rows: {}
    module, _, attribute = str(target).partition(":")
    try:
        found: Any = functools.reduce(
            getattr, attribute.split("."), importlib.import_module(module)
        )
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"The suite {suite!r} was registered with units={target!r}, which cannot be loaded: "
            f"{error}."
        ) from None
    return found  # type: ignore[no-any-return]
