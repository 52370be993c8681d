"""Intervals of few groups, and of groups that do not differ, against formulas and the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipalign.evals.measures import compare
from clipalign.evals.small_samples import unanimous_interval

Z = 1.959964

# ── Groups that do not differ ────────────────────────────────────────────────────────────────────


def tango(delta, n, b, c):
    """Tango's score of a paired difference: b pairs that the one wins alone, c the other."""
    first, second = 2 * n, -b - c + (2 * n - b + c) * delta
    third = -c * delta * (1 - delta)
    q = (math.sqrt(second**2 - 4 * first * third) - second) / (2 * first)
    return (b - c - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize("n", [2, 4, 30])
def test_two_models_that_agree_may_differ_elsewhere(n):
    right = np.arange(n) % 2 == 0
    found = compare("accuracy", right, right)
    assert (found.difference, found.minimal_detectable_effect, found.p_value) == (0, None, 1.0)
    assert found.interval.high == -found.interval.low == pytest.approx(Z**2 / (n + Z**2), rel=1e-5)
    assert tango(found.interval.low, n, 0, 0) == pytest.approx(Z, rel=1e-5)


@pytest.mark.parametrize("n", [3, 30])
def test_one_that_wins_everywhere_may_lose_elsewhere(n):
    won = np.ones(n, bool)
    found, turned = compare("accuracy", won, ~won), compare("accuracy", ~won, won)
    assert (found.interval.high, found.interval.method) == (1, "tango")
    assert tango(found.interval.low, n, n, 0) == pytest.approx(Z, rel=1e-5)
    assert (turned.interval.low, turned.interval.high) == (-1, -found.interval.low)
    # the interval and the exact test say the same of three pairs
    assert (found.interval.low > 0) == (found.p_value < 0.05)


def test_ten_views_of_two_drawings_agree_twice():
    right = np.ones(20, bool)
    assert compare("accuracy", right, right, np.arange(20) // 10).interval.high > 0.6


def test_what_no_pair_says_has_no_interval():
    assert unanimous_interval(1 / 3, 5) is None
    moved = compare("kl", np.array([0.3, 0.5, 0.9]), np.array([0.2, 0.4, 0.8]))
    assert (moved.interval, moved.minimal_detectable_effect) == (None, None)
