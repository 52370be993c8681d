"""The curves of a run as sparklines. Reads `metrics.jsonl`; imports nothing heavy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipalign.files import parse_json

__all__ = ["CURVES", "curve_rows", "read_curves", "sparkline"]

CURVES = (
    "loss", "margin", "reward_accuracy", "regulariser", "lr", "grad_norm", "validation_loss",
)  # fmt: skip
"""What is shown of a run, in this order, where it was logged."""

MAX_BYTES = 1 << 28

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-=+*#@"  # for a terminal that has no bars


def read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Of each number that was logged, its (step, value); lines that a kill cut short are passed by.

    Args:
        run: a run directory; a run without `metrics.jsonl` has no curve.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    path = run / "metrics.jsonl"
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return curves
    for line in path.read_bytes().splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(step, int):
            continue
        for name, value in row.items():
            if name != "step" and _is_number(value):
                curves.setdefault(name, []).append((step, float(value)))
    return curves


def sparkline(values: Sequence[float], width: int, *, bars: bool = True) -> str:
    """Values as a row of at most `width` bars, lowest to highest; several in one bar are averaged.

    Equal values give bars of middle height. Values that are not finite are left out.

    Args:
        values: in order.
        width: characters.
        bars: whether block characters can be shown; others are used where not.
    """
    finite = [v for v in values if math.isfinite(v)]
    if not finite or width < 1:
        return ""
    n = min(width, len(finite))
    edges = [i * len(finite) // n for i in range(n + 1)]
    means = [
        math.fsum(finite[a:b]) / (b - a) for a, b in itertools.pairwise(edges)
    ]  # n ≤ len(finite), so no part is empty
    signs = _BARS if bars else _PLAIN
    low, high = min(means), max(means)
    if high == low:
        return signs[len(signs) // 2 - 1] * n
    top = len(signs) - 1
    return "".join(signs[round(top * (m - low) / (high - low))] for m in means)


def curve_rows(
    curves: Mapping[str, Sequence[tuple[int, float]]],
    names: Sequence[str] = CURVES,
    *,
    width: int = 30,
    bars: bool = True,
) -> list[tuple[str, str, str, str]]:
    """Rows (name, first value, sparkline, last value) of the curves that there are."""
    rows = []
    for name in names:
        values = [value for _, value in curves.get(name, ())]
        if values:
            line = sparkline(values, width, bars=bars)
            rows.append((name.replace("_", " "), f"{values[0]:.4g}", line, f"{values[-1]:.4g}"))
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
