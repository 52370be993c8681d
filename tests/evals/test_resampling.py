"""Intervals of statistics in which chance adds up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipalign.evals.resampling import normal_interval, resample
from clipalign.evals.statistics import bootstrap_interval, resampled_rows


def test_groups_stay_together():
    groups = np.array(["b", "a", "b", "a", "c"])
    seen = resample(
        lambda rows: np.bincount(rows, minlength=5).astype(float), groups, resamples=50, seed=0
    )
    assert (seen[:, 0] == seen[:, 2]).all()
    assert (seen[:, 1] == seen[:, 3]).all()
    assert (seen[:, [0, 1, 4]].sum(axis=1) == 3).all()  # as many groups as there are


@pytest.mark.parametrize("group_of", [[0, 1, 2, 3, 4], [3, 0, 2, 4, 1], [1, 0, 1, 2, 0, 1]])
def test_rows_are_those_of_the_groups_that_were_drawn_one_after_another(group_of):
    group_of, count = np.array(group_of), max(group_of) + 1
    rng = np.random.default_rng(5)
    for rows in resampled_rows(group_of, 20, np.random.default_rng(5)):
        drawn = rng.integers(0, count, count)
        expected = np.concatenate([np.flatnonzero(group_of == group) for group in drawn])
        assert rows.tolist() == expected.tolist()


def test_the_same_seed_gives_the_same_resamples():
    def draw(seed: int):
        groups = np.arange(6).astype(str)
        return resample(lambda rows: rows.astype(float), groups, resamples=3, seed=seed)

    assert (draw(1) == draw(1)).all()
    assert (draw(1) != draw(2)).any()


def test_the_error_of_a_mean_is_the_one_that_is_known():
    values = np.random.default_rng(0).normal(size=100)
    means = resample(
        lambda rows: np.array([values[rows].mean()]),
        np.arange(100).astype(str),
        resamples=2000,
        seed=0,
    )[:, 0]
    interval = normal_interval(float(values.mean()), means, groups=100)
    assert interval is not None
    half = 1.96 * values.std() / 10
    assert interval.high - values.mean() == pytest.approx(half, rel=0.1)


def test_it_holds_the_value_where_percentiles_do_not():
    """The mean of |x| grows on every resample: its percentiles may lie above it altogether."""
    even = np.repeat([1.0, -1.0], 50)  # 100 images, in 40 columns that each sum to 0
    signs = np.random.default_rng(0).permuted(np.tile(even, (40, 1)), axis=1).T

    def uneven(rows):
        return np.abs(signs[rows].mean(axis=0)).mean()

    value = uneven(np.arange(100))
    percentiles = bootstrap_interval(
        np.arange(100), statistic=lambda rows: float(uneven(rows.astype(int))), resamples=200
    )
    assert percentiles.low > value
    drawn = resample(
        lambda rows: np.array([uneven(rows)]), np.arange(100).astype(str), resamples=200, seed=0
    )
    interval = normal_interval(value, drawn[:, 0], groups=100, low=0)
    assert interval is not None
    assert interval.low == value == 0 < interval.high


def test_what_most_resamples_lack_has_no_interval():
    lacking = np.array([1.0, 2.0, math.nan, math.nan, math.nan])
    assert normal_interval(1.0, lacking, groups=100) is None


def test_few_groups_reach_further():
    drawn = np.random.default_rng(0).normal(size=500)
    many, few = (normal_interval(0.0, drawn, groups=groups) for groups in (20, 5))
    # t of 4 degrees of freedom, and √(5/4) that resamples of five spread too little
    assert few.high / many.high == pytest.approx(2.776445 / 1.959964 * math.sqrt(5 / 4), rel=1e-6)
    assert (many.method, few.method) == ("bootstrap-normal", "bootstrap-student-t")
    assert normal_interval(0.0, drawn, groups=2) is None


def test_resamples_that_never_differ_show_nothing():
    assert normal_interval(1.0, np.ones(50), groups=50) is None
