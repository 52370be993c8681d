"""Intervals of few groups, and of groups that do not differ, against formulas and the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipalign.evals.measures import compare, measure
from clipalign.evals.small_samples import (
    FEW_GROUPS,
    critical_value,
    student_interval,
    unanimous_interval,
)

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


# ── Few groups ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("groups", "t"), [(2, 12.7062), (3, 4.30265), (5, 2.77645), (10, 2.26216), (19, 2.10092)]
)
def test_students_t_is_that_of_the_tables(groups, t):
    assert critical_value(groups) == pytest.approx(t, rel=1e-5)


def test_students_t_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    for groups in range(2, FEW_GROUPS):
        for level in (0.1, 0.5, 0.99):
            expected = stats.t.ppf((1 + level) / 2, groups - 1)
            assert critical_value(groups, level) == pytest.approx(expected, rel=1e-8)
    assert critical_value(FEW_GROUPS) == pytest.approx(Z, abs=1e-6)


def described(values, groups=None, **more):
    return measure(values, groups, higher_is_better=None, unit="", description="", **more)


def test_three_values_by_hand():
    # mean 2, SD 1, SE 1/√3, t of 2 degrees of freedom 4.30265
    interval = described([1.0, 2.0, 3.0]).interval
    assert interval.high - 2 == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert interval.method == "student-t"
    copied = described(np.repeat([1.0, 2.0, 3.0], 4), np.repeat([0, 1, 2], 4)).interval
    assert (copied.low, copied.high) == pytest.approx((interval.low, interval.high))
    assert copied.method == "cluster-student-t"


@pytest.mark.parametrize("groups", [3, 5, 8, 12, 19, 20])
def test_few_groups_cover_the_truth_about_as_often_as_they_say(groups):
    rng = np.random.default_rng(0)
    labels, hits = np.repeat(np.arange(groups), 3), 0
    for trial in range(400):
        drawings = np.repeat(rng.normal(size=groups), 3)
        values = drawings + rng.normal(scale=0.3, size=len(drawings))
        interval = described(values, labels, resamples=200, seed=trial).interval
        hits += interval.low <= 0 <= interval.high
    # 95 % of 400 is 380, and four standard errors of that count are 17. From 20 groups on the
    # bootstrap takes over, of which about 93 % are known.
    assert (363 if groups < FEW_GROUPS else 355) <= hits <= 397


def test_an_interval_stays_within_what_is_possible():
    shares = described(np.array([True] * 8 + [False]), np.arange(9) // 3)
    assert (shares.value, shares.interval.high) == (pytest.approx(8 / 9), 1.0)
    assert described([0.0, 0.0, 3.0], within=(0.0, math.inf)).interval.low == 0.0
    a, b = np.array([True] * 5), np.array([False] * 4 + [True])
    assert compare("accuracy", a, b).interval.high == 1.0


def test_two_groups_have_no_spread_to_speak_of():
    assert student_interval([1.0, 2.0]) is None
    assert described([1.0, 2.0]).interval is None
    found = compare("accuracy", np.array([True, True]), np.array([True, False]))
    assert (found.difference, found.interval) == (0.5, None)


def test_equal_values_of_few_groups_have_no_interval_and_shares_have_wilsons():
    assert described([0.2, 0.2, 0.2]).interval is None
    # each of five drawings right on one of its two views
    half = described(np.tile([True, False], 5), np.repeat(np.arange(5), 2)).interval
    assert half.method == "wilson"
    assert half.low == pytest.approx(1 - half.high)
    assert half.high - half.low > 0.6


def test_another_statistic_of_few_groups_reaches_as_far():
    values = np.random.default_rng(0).normal(size=12)
    plain = described(values).interval
    other = described(values, statistic=lambda rows: float(rows.mean())).interval
    assert other.method == "bootstrap-student-t"
    assert other.high - other.low == pytest.approx(plain.high - plain.low, rel=0.1)
