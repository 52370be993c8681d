"""Intervals and tests against hand-worked cases, against scipy, and against the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipalign.errors import DataError
from clipalign.evals import statistics
from clipalign.evals.measures import compare
from clipalign.evals.statistics import (
    bootstrap_interval,
    count_groups,
    mcnemar,
    minimal_detectable_effect,
    seed_spread,
    wilson_interval,
)

# ── Wilson ───────────────────────────────────────────────────────────────────────────────────────


def test_wilson_by_hand():
    # 8 of 10, z = 1.959964, z² = 3.841459:
    # (0.8 + 0.192073 ± 1.959964·√(0.016 + 0.009604)) / 1.384146
    interval = wilson_interval(8, 10)
    assert interval.low == pytest.approx((0.992073 - 0.313614) / 1.384146, abs=1e-5)
    assert interval.high == pytest.approx((0.992073 + 0.313614) / 1.384146, abs=1e-5)
    assert (interval.level, interval.method) == (0.95, "wilson")


def test_all_right_is_not_certain():
    assert wilson_interval(20, 20).high == 1.0
    assert wilson_interval(20, 20).low == pytest.approx(1 / (1 + 1.959964**2 / 20), abs=1e-6)
    assert wilson_interval(0, 20).low == 0.0


@given(st.integers(1, 10_000), st.data(), st.floats(0.5, 0.999))
def test_wilson_contains_the_share_and_grows_with_the_level(n, data, level):
    k = data.draw(st.integers(0, n))
    inner, outer = wilson_interval(k, n, level), wilson_interval(k, n, (1 + level) / 2)
    assert 0 <= outer.low <= inner.low <= k / n <= inner.high <= outer.high <= 1


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (3, 7), (50, 100), (999, 1000)])
def test_wilson_against_scipy(k, n):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(k, n).proportion_ci(0.9, method="wilson")
    interval = wilson_interval(k, n, 0.9)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_a_share_of_nothing_is_refused(k, n):
    with pytest.raises(DataError, match="no interval"):
        wilson_interval(k, n)


# ── Bootstrap ────────────────────────────────────────────────────────────────────────────────────


def test_two_values_by_hand():
    # Resamples of {0, 1}: mean 0, ½ or 1 with probability ¼, ½, ¼. The middle half is ¼ … ¾ of
    # that distribution, whose quartiles lie at the jumps; 95 % reaches both ends.
    interval = bootstrap_interval([0.0, 1.0])
    assert (interval.low, interval.high) == (0.0, 1.0)
    middle = bootstrap_interval([0.0, 1.0], level=0.4)
    assert (middle.low, middle.high) == (0.5, 0.5)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_an_interval_of_the_mean_is_about_two_standard_errors_each_way():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    interval = bootstrap_interval(values, resamples=10_000)
    error = values.std() / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.02)


def test_it_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        interval = bootstrap_interval(rng.random(150) < 0.7, resamples=400, seed=trial)
        hits += interval.low <= 0.7 <= interval.high
    # 95 % of 400 is 380; four standard errors of that count are 17.
    assert 360 <= hits <= 397


def test_clusters_cover_where_images_alone_do_not():
    """40 drawings, 10 attacks on each that all go the same way: 40 facts and not 400."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    clustered = naive = 0
    for trial in range(200):
        values = np.repeat(rng.random(40) < 0.6, 10)
        interval = bootstrap_interval(values, groups, resamples=300, seed=trial)
        clustered += interval.low <= 0.6 <= interval.high
        interval = bootstrap_interval(values, resamples=300, seed=trial)
        naive += interval.low <= 0.6 <= interval.high
    assert clustered >= 176
    assert naive <= 120


def test_groups_of_unequal_size_weigh_by_their_images():
    # Either drawing alone or both: mean 0 (3 images), 1 (1 image), or ¼ of all four.
    values, groups = [0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"]
    assert bootstrap_interval(values, groups, level=0.4).low == 0.25
    assert bootstrap_interval(values, groups).high == 1.0
    assert bootstrap_interval(values, groups).method == "cluster-bootstrap-percentile"


def test_groups_of_one_change_nothing():
    values = np.random.default_rng(0).normal(size=30)
    grouped, plain = bootstrap_interval(values, np.arange(30)), bootstrap_interval(values)
    assert (grouped.low, grouped.high) == (plain.low, plain.high)


def test_blocks_of_resamples_give_what_one_block_gives(monkeypatch):
    values = np.random.default_rng(0).normal(size=30)
    whole = bootstrap_interval(values, resamples=100)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 30 * 7)
    assert bootstrap_interval(values, resamples=100) == whole


def test_any_statistic_of_any_columns():
    values = np.random.default_rng(0).normal(size=(60, 2))
    groups = np.repeat(np.arange(20), 3)

    def by_hand(rows):
        return float(rows[:, 0].mean())

    slow = bootstrap_interval(values, groups, statistic=by_hand, resamples=200)
    fast = bootstrap_interval(values[:, 0], groups, resamples=200)
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high))


def test_bootstrap_of_a_median_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).exponential(size=200)
    ours = bootstrap_interval(values, statistic=lambda v: float(np.median(v)), resamples=4000)
    theirs = stats.bootstrap(
        (values,), np.median, n_resamples=4000, method="percentile", random_state=0
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


@pytest.mark.parametrize(
    ("values", "groups", "words"),
    [
        ([], None, "not 0"),
        ([1.0], None, "not 1"),
        ([1.0, 0.0], ["a", "a"], "not 1"),
        ([1.0, float("nan")], None, "1 values that aren't finite"),
        ([1.0, 0.0], ["a"], "one group for each of the 2 images"),
    ],
)
def test_what_has_no_interval_is_refused(values, groups, words):
    with pytest.raises(DataError, match=words):
        bootstrap_interval(values, groups)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_is_a_share(level):
    with pytest.raises(DataError, match=r"0\.95"):
        bootstrap_interval([0.0, 1.0], level=level)


def test_counting_independent_units():
    assert count_groups(3, None) == 3
    assert count_groups(3, ["a", "b", "a"]) == 2


# ── Pairs ────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_hard_for_both_models_cancels():
    rng = np.random.default_rng(0)
    hard = rng.normal(scale=5.0, size=100)
    a, b = hard + 0.3 + rng.normal(scale=0.1, size=100), hard
    paired = compare("score", a, b)
    assert paired.difference == pytest.approx(0.3, abs=0.05)
    assert paired.interval.low > 0.2
    own = bootstrap_interval(a)
    assert own.high - own.low > 10 * (paired.interval.high - paired.interval.low)


def test_swapping_the_models_turns_the_difference():
    a, b = np.random.default_rng(0).random((2, 40))
    one, other = compare("score", a, b), compare("score", b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert one.interval.low == pytest.approx(-other.interval.high)


def test_pairs_must_be_pairs():
    with pytest.raises(DataError, match="one value an image from both"):
        compare("score", [1.0, 2.0], [1.0])


# ── McNemar ──────────────────────────────────────────────────────────────────────────────────────


def pairs(a_only, b_only, both=10, neither=5):
    """Correctness of two models with so many discordant and concordant images."""
    a = [True] * a_only + [False] * b_only + [True] * both + [False] * neither
    b = [False] * a_only + [True] * b_only + [True] * both + [False] * neither
    return np.array(a), np.array(b)


def test_one_against_seven_is_exact():
    # Two-sided: 2 · (C(8,0) + C(8,1)) / 2⁸ = 18/256.
    result = mcnemar(*pairs(1, 7))
    assert (result.a_only, result.b_only, result.n_discordant) == (1, 7, 8)
    assert result.p_value == 18 / 256
    assert result.test == "mcnemar-exact"


def test_ten_against_thirty_is_chi_square():
    # (|10 − 30| − 1)²/40 = 9.025 on one degree of freedom.
    result = mcnemar(*pairs(10, 30))
    assert result.p_value == pytest.approx(math.erfc(math.sqrt(9.025 / 2)))
    assert result.test == "mcnemar-chi2"


def test_models_that_agree_everywhere_are_not_told_apart():
    assert mcnemar(*pairs(0, 0)).p_value == 1.0
    assert mcnemar(*pairs(20, 20)).p_value == 1.0


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 40))
def test_only_discordant_pairs_count_and_sides_are_alike(a_only, b_only, both):
    result = mcnemar(*pairs(a_only, b_only))
    assert 0 < result.p_value <= 1
    assert result.p_value == mcnemar(*pairs(a_only, b_only, both=both)).p_value
    assert result.p_value == mcnemar(*pairs(b_only, a_only)).p_value


@pytest.mark.parametrize(("a_only", "b_only"), [(0, 1), (3, 9), (12, 12), (5, 19)])
def test_exact_against_scipy(a_only, b_only):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(a_only, a_only + b_only, 0.5).pvalue
    assert mcnemar(*pairs(a_only, b_only)).p_value == pytest.approx(expected)


@pytest.mark.parametrize(("a_only", "b_only"), [(13, 12), (5, 20), (100, 160)])
def test_chi_square_against_scipy(a_only, b_only):
    stats = pytest.importorskip("scipy.stats")
    chi2 = (abs(a_only - b_only) - 1) ** 2 / (a_only + b_only)
    assert mcnemar(*pairs(a_only, b_only)).p_value == pytest.approx(stats.chi2.sf(chi2, 1))


def test_ten_views_of_one_drawing_are_one_vote():
    a, b = np.array([True] * 10 + [False] * 3), np.array([False] * 10 + [True] * 3)
    assert mcnemar(a, b).p_value < 0.1
    voted = mcnemar(a, b, groups=["x"] * 10 + ["y"] * 3)
    assert (voted.a_only, voted.b_only, voted.p_value) == (1, 1, 1.0)
    assert voted.test == "sign-exact"


def test_groups_of_one_make_the_same_test():
    a, b = pairs(2, 9)
    assert mcnemar(a, b, np.arange(len(a))).p_value == mcnemar(a, b).p_value


def test_mcnemar_wants_right_or_wrong():
    with pytest.raises(DataError, match="right or wrong"):
        mcnemar([0.3], [1.0])


# ── Power ────────────────────────────────────────────────────────────────────────────────────────


def test_the_detectable_effect_by_hand():
    # Differences ±1, half each: sd = √(100/99), SE = sd/10; (1.959964 + 0.841621) · SE.
    a, b = np.tile([1.0, 0.0], 50), np.tile([0.0, 1.0], 50)
    expected = 2.801585 * math.sqrt(100 / 99) / 10
    assert minimal_detectable_effect(a, b) == pytest.approx(expected, abs=1e-6)


def test_an_effect_of_that_size_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(500, 100))
    found = 0
    for row in noise:
        effect = minimal_detectable_effect(row, np.zeros(100))
        z = (row.mean() + effect) / (row.std(ddof=1) / 10)
        found += z > 1.959964
    assert 0.75 <= found / 500 <= 0.85


def test_copies_of_an_image_find_nothing_more():
    a, b = np.random.default_rng(0).random((2, 30))
    groups = np.repeat(np.arange(30), 5)
    repeated = minimal_detectable_effect(np.repeat(a, 5), np.repeat(b, 5), groups)
    assert repeated == pytest.approx(minimal_detectable_effect(a, b))


def test_one_drawing_has_no_detectable_effect():
    with pytest.raises(DataError, match="at least 2"):
        minimal_detectable_effect([1.0, 0.0], [0.0, 0.0], ["a", "a"])


def test_without_spread_there_is_no_detectable_effect():
    assert minimal_detectable_effect([0.3, 0.5, 0.9], [0.2, 0.4, 0.8]) is None
    # each drawing differs on one of its three images
    assert minimal_detectable_effect([1, 0, 0] * 5, [0] * 15, np.repeat(range(5), 3)) is None


# ── Seeds ────────────────────────────────────────────────────────────────────────────────────────


def test_the_spread_over_three_seeds():
    spread = seed_spread([0.80, 0.82, 0.84])
    assert spread.n == 3
    assert (spread.mean, spread.sd) == pytest.approx((0.82, 0.02))
    assert (spread.minimum, spread.maximum) == (0.80, 0.84)


def test_one_seed_has_no_spread():
    assert seed_spread([0.8]).sd is None


@pytest.mark.parametrize("values", [[], [float("inf")]])
def test_no_seed_is_refused(values):
    with pytest.raises(DataError):
        seed_spread(values)
