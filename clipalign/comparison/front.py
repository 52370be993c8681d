"""The Pareto front: what nothing else beats on every axis at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["dominates", "dominators"]


def dominates(a: Sequence[float], b: Sequence[float], higher: Sequence[bool]) -> bool:
    """Whether a is at least as good as b on every axis and better on one.

    Args:
        a: [K] one point.
        b: [K] another.
        higher: [K] whether more is better on the axis.
    """
    gains = [(x - y) if up else (y - x) for x, y, up in zip(a, b, higher, strict=True)]
    return all(g >= 0 for g in gains) and any(g > 0 for g in gains)


def dominators(
    points: Mapping[str, Sequence[float]], higher: Sequence[bool]
) -> dict[str, list[str]]:
    """For each point the names of those that dominate it; none for a point on the front.

    Points that are equal do not dominate each other: both are on the front or neither is.

    Args:
        points: name → [K].
        higher: [K] whether more is better on the axis.
    """
    return {
        name: [other for other, rival in points.items() if dominates(rival, point, higher)]
        for name, point in points.items()
    }
