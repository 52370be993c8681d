"""Percentiles and their intervals, against the binomial and the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipalign.evals.measures import measure
from clipalign.evals.percentiles import Percentile


def described(values, groups=None, percent=99):
    return measure(
        values,
        groups,
        higher_is_better=None,
        unit="nats",
        description="",
        statistic=Percentile(percent),
    )


def test_the_median_of_ten_by_hand():
    # binomial(10, ½): P(X ≤ 1) = 11/1024 and P(X ≤ 2) = 56/1024, so from the second to the ninth
    interval = described(np.arange(1.0, 11), percent=50).interval
    assert (interval.low, interval.high, interval.method) == (2, 9, "order-statistic")


@pytest.mark.parametrize(("n", "percent"), [(40, 90), (400, 99), (5000, 99)])
def test_ranks_against_scipy(n, percent):
    stats = pytest.importorskip("scipy.stats")
    low, high = stats.binom.ppf([0.025, 0.975], n, percent / 100)
    interval = described(np.arange(1.0, n + 1), percent=percent).interval
    assert (interval.low, interval.high) == (low, high + 1)


@pytest.mark.parametrize(("percent", "enough"), [(90, 36), (99, 368)])
def test_a_sample_that_does_not_reach_has_a_value_and_no_interval(percent, enough):
    # the largest of n lies below the percentile with probability pⁿ ≤ 2.5 %
    assert enough == math.ceil(math.log(0.025) / math.log(percent / 100))
    assert described(np.arange(enough), percent=percent).interval.high == enough - 1
    short = described(np.arange(enough - 1), percent=percent)
    assert short.interval is None
    assert short.value == pytest.approx(np.percentile(np.arange(enough - 1), percent))


@pytest.mark.parametrize(("n", "percent"), [(400, 99), (60, 90)])
def test_a_tail_covers_the_truth_about_as_often_as_it_says(n, percent):
    rng = np.random.default_rng(0)
    truth = -math.log(1 - percent / 100)
    hits = 0
    for _ in range(400):
        interval = described(rng.exponential(size=n), percent=percent).interval
        hits += interval.low <= truth <= interval.high
    assert hits >= 363  # 95 % of 400, less four standard errors


@pytest.mark.parametrize("groups", [15, 80])
def test_images_of_a_group_count_for_what_they_say(groups):
    """Ten images of each drawing that go the same way, and a quantile of the drawings."""
    rng = np.random.default_rng(0)
    labels, truth = np.repeat(np.arange(groups), 10), math.log(2)
    hits = 0
    for _ in range(400):
        values = np.repeat(rng.exponential(size=groups), 10)
        interval = described(values, labels, percent=50).interval
        hits += interval.low <= truth <= interval.high
    assert hits >= 363
    copied = described(np.repeat(np.arange(80.0), 10), np.repeat(np.arange(80), 10), 90).interval
    plain = described(np.arange(80.0), percent=90).interval
    assert abs(copied.low - plain.low) <= 1
    assert abs(copied.high - plain.high) <= 1
    assert described(np.arange(20.0), np.arange(20) // 10, 50).interval is None
