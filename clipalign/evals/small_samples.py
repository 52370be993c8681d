"""Intervals where resampling says too little: few groups, or groups that do not differ at all."""

from __future__ import annotations

from clipalign.evals.statistics import Interval, wilson_interval

__all__ = ["unanimous_interval"]


def unanimous_interval(difference: float, groups: int, level: float = 0.95) -> Interval | None:
    """Score interval of a paired difference of shares that is the same in all groups (Tango 1998).

    Each group is one pair. Where no pair differs, Tango's interval is ±z²/(G + z²); where all
    differ in the same direction, it reaches from (G − z²)/(G + z²) to 1. Both are ends of Wilson's
    interval: of 0 of G, and of G of G on the scale from −1 to 1.

    Args:
        difference: mean of a − b, right or wrong of two models, in every one of the groups.
        groups: G, how many there are.
        level: coverage, in (0, 1).

    Returns:
        None where the models differ on some images of every group: no pair says that.
    """
    if difference == 0:
        reach = wilson_interval(0, groups, level).high
        return Interval(-reach, reach, level, "tango")
    if abs(difference) == 1:
        least = 2 * wilson_interval(groups, groups, level).low - 1
        low, high = (least, 1.0) if difference > 0 else (-1.0, -least)
        return Interval(low, high, level, "tango")
    return None
