"""Curves over a setting: the same intervals as a single number has, from one set of resamples."""

from __future__ import annotations

import numpy as np
import pytest

from clipalign.errors import DataError
from clipalign.evals.curves import Curve, Draws, Point
from clipalign.evals.fairness import top_shares
from clipalign.evals.measures import interval_of
from clipalign.evals.resampling import normal_interval
from clipalign.evals.statistics import wilson_interval


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def ends(interval):
    return interval.low, interval.high


def test_a_mean_has_the_interval_of_a_metric(rng):
    """Other random draws of the same bootstrap, so equal up to the noise of 2,000 resamples."""
    groups = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    right = (rng.random(len(groups)) + 0.4 * rng.random(60)[groups]) > 0.6
    draws = Draws(len(right), groups)
    point = draws.mean(right)
    assert point.value == right.mean()
    assert draws.groups == 60
    (found,) = Curve((point,), draws.groups).intervals
    usual = interval_of(right, groups, np.mean, point.value)
    assert ends(found) == pytest.approx(ends(usual), abs=0.01)
    assert found.method == usual.method


def test_images_of_one_group_are_drawn_together(rng):
    """Ten copies of each image say nothing new; taken for independent they would."""
    right = rng.random(50) > 0.5
    alone = Draws(50)
    copied, groups = np.repeat(right, 10), np.repeat(np.arange(50), 10)
    together, wrong = Draws(500, groups), Draws(500)
    width = {
        name: np.ptp(ends(Curve((draws.mean(values),), draws.groups).intervals[0]))
        for name, draws, values in (
            ("alone", alone, right), ("together", together, copied), ("wrong", wrong, copied),
        )
    }  # fmt: skip
    assert width["together"] == pytest.approx(width["alone"], abs=1e-12)  # the same seed
    assert width["wrong"] < 0.5 * width["alone"]


def test_strata_count_alike(rng):
    value = np.array([0] * 90 + [1] * 10)
    right = np.r_[np.ones(90), np.zeros(10)].astype(bool)
    draws = Draws(100, np.arange(100) % 30)
    point = draws.mean(right, strata=value)
    assert point.value == 0.5
    assert draws.mean(right).value == 0.9
    assert np.allclose(point.estimates[np.isfinite(point.estimates)], 0.5)


def test_a_resample_without_a_stratum_has_no_value():
    draws = Draws(3, np.array([0, 1, 2]))
    point = draws.mean([True, False, True], strata=[0, 0, 1])
    assert np.isnan(point.estimates).any()
    assert np.isfinite(point.estimates).any()


def test_top_shares_are_those_of_the_resample_itself(rng):
    """Against a gallery that holds each image as often as it was drawn, ranked as it is."""
    groups, first, k = np.arange(24) // 3, rng.random(24) < 0.5, 5
    order = np.stack([rng.permutation(24), rng.permutation(24)])
    draws = Draws(24, groups, resamples=40)
    shares, drawn = draws.top_shares(order, first, k)
    assert shares == pytest.approx(top_shares(first[order].astype(int), k, groups=2)[:, 1])
    for counts, found in zip(draws._counts, drawn, strict=True):
        for ranking, share in zip(order, found, strict=True):
            copies = np.repeat(ranking, counts[groups[ranking]].astype(int))
            assert share == pytest.approx(first[copies[:k]].mean())


def test_fewer_than_k_that_were_drawn_are_all_that_count():
    draws = Draws(6, np.array([0, 0, 0, 0, 0, 1]), resamples=200)
    first = np.array([True, False, True, False, True, True])
    _, drawn = draws.top_shares(np.arange(6)[None], first, 6)
    assert set(np.round(drawn[:, 0], 6)) == {1.0, round(4 / 6, 6)}


def test_a_share_of_all_or_none_has_wilsons_interval_over_the_groups():
    draws = Draws(40, np.arange(40) // 2)
    curve = Curve((draws.mean(np.ones(40, bool)), draws.mean(np.zeros(40, bool))), draws.groups)
    assert [ends(i) for i in curve.intervals] == [
        ends(wilson_interval(20, 20)), ends(wilson_interval(0, 20)),
    ]  # fmt: skip


def test_few_groups_are_students(rng):
    groups, right = np.arange(60) // 10, rng.random(60) > 0.4
    draws = Draws(60, groups)
    point = draws.mean(right)
    (found,) = Curve((point,), draws.groups).intervals
    assert found.method == "bootstrap-student-t"
    (wider,) = Curve((point,), 25).intervals
    assert np.ptp(ends(found)) > np.ptp(ends(wider))


def test_where_chance_adds_up_the_interval_is_about_the_number_itself(rng):
    draws = Draws(400)
    point = draws.mean(rng.random(400))
    (found,) = Curve((point,), 400, centred=True).intervals
    assert ends(found) == ends(normal_interval(point.value, point.estimates, groups=400, high=1))
    assert (found.low + found.high) / 2 == pytest.approx(point.value)


def test_what_is_certain_and_what_is_one_group_have_none():
    draws = Draws(30, ["same"] * 30)
    assert draws.groups == 1
    assert Curve((draws.mean(np.arange(30) > 3),), 1).intervals == (None,)
    assert Curve((Draws(30).certain(0.0),), 30).intervals == (None,)


def test_seeds_are_averaged_draw_by_draw(rng):
    """The mean of two seeds is surer than either where they err on different images."""
    a, b = rng.random(300) > 0.5, rng.random(300) > 0.5
    draws = Draws(300)
    curves = [Curve((draws.mean(values),), 300) for values in (a, b)]
    mean = Curve.mean(curves)
    assert mean.values == [pytest.approx((a.mean() + b.mean()) / 2)]
    both = Curve((draws.mean((a.astype(float) + b) / 2),), 300)
    assert ends(mean.intervals[0]) == pytest.approx(ends(both.intervals[0]))
    assert np.ptp(ends(mean.intervals[0])) < np.ptp(ends(curves[0].intervals[0]))


def test_a_great_many_groups_are_bundled_and_no_less_sure(rng):
    values = rng.random(20_000)
    draws = Draws(20_000, resamples=500)
    assert draws._counts.shape == (500, 4096)
    assert draws.groups == 20_000
    estimates = draws.mean(values).estimates
    assert estimates.std() == pytest.approx(values.std() / np.sqrt(20_000), rel=0.15)


@pytest.mark.parametrize(("n", "groups"), [(3, ["a", "b"]), (0, None)])
def test_labels_that_are_not_one_an_image(n, groups):
    with pytest.raises(DataError, match="one group for each of the"):
        Draws(n, groups)


def test_the_same_seed_gives_the_same_resamples(rng):
    right = rng.random(50) > 0.5
    one, two, other = (Draws(50, seed=seed).mean(right).estimates for seed in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()
    assert isinstance(Draws(50).mean(right), Point)
