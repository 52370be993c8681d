"""The few numbers of a result that matter: what was asked for, and what it may have cost.

Imports no torch, so that a command may show them at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from clipalign.evals.results import SuiteResult
from clipalign.evals.words import DETAIL
from clipalign.plugins import registry

__all__ = ["aims_of", "costs_of", "headline"]

_AIMS: Final = {
    "typographic": ("attacked_accuracy", "attack_success_rate", "object_or_word"),
    "gender": ("gender_accuracy", "mean_abs_bias_at_k", "max_skew", "ndkl"),
    "reading": ("od", "ocr", "od_two_way"),
    "retention": ("accuracy",),
}
"""What each suite is asked about first. A package's suite says so when it is registered:
`register("blur", …, headline=["blurred_accuracy"])`."""

_COSTS: Final = tuple(
    re.compile(f"^{pattern}$")
    for pattern in (
        "clean_accuracy",
        "activity_accuracy",
        "occupation_accuracy",
        "kl_to_reference",
        "cosine_to_reference",
        "ece",
        "retention_accuracy",
        "retention_recall_.*",
        "retention_kl_to_reference",
    )
)
"""What alignment may cost, the plainest first: what was right before, and how far it moved."""


def headline(result: SuiteResult) -> SuiteResult:
    """A result with its aims and costs alone."""
    names = [*aims_of(result), *costs_of(result)]
    kept = {name: result.metrics[name] for name in names}
    return result.model_copy(
        update={
            "metrics": kept,
            "comparisons": [c for c in result.comparisons if c.metric in kept],
        }
    )


def aims_of(result: SuiteResult) -> list[str]:
    """Names of the metrics that the suite is asked about first."""
    suites = registry("suites")
    wanted: Sequence[str] = _AIMS.get(result.suite, ())
    if result.suite in suites.names():
        wanted = suites.entry(result.suite).metadata.get("headline", wanted)
    named = [name for name in wanted if name in result.metrics]
    if named:
        return named
    rest = [n for n in result.metrics if _place(n) is None and not DETAIL.search(n)]
    return [name for name in rest if not name.startswith("retention_")][:6]


def costs_of(result: SuiteResult) -> list[str]:
    """Names of the metrics that say what it cost, the plainest first."""
    aims = aims_of(result)
    placed = [(place, name) for name in result.metrics if (place := _place(name)) is not None]
    return [name for _, name in sorted(placed) if name not in aims]


def _place(name: str) -> int | None:
    """Where a cost stands among costs; None for what is none."""
    return next((i for i, pattern in enumerate(_COSTS) if pattern.match(name)), None)
