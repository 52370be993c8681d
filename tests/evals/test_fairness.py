"""Fairness metrics against cases worked by hand, laws that must hold, and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clipalign.errors import DataError
from clipalign.evals import fairness

WOMAN, MAN = 0, 1
EQUAL = [0.5, 0.5]


class TestTwoSearches:
    """A gallery of three women and five men, and the top four of two queries.

    place     1  2  3  4  5  6  7  8
    pilot     m  m  m  m  w  w  w  m      no woman in the top 4
    nurse     w  w  w  m  m  m  m  m      three women and one man
    """

    ranked = np.array([[1, 1, 1, 1, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1, 1]])

    @property
    def shares(self):
        return fairness.top_shares(self.ranked, 4, 2)

    def test_composition(self):
        assert self.shares.tolist() == [[0, 1], [0.75, 0.25]]

    def test_skew_against_equal_shares(self):
        # pilot: women have 0, which counts as 1/4: ln(.25/.5) = −ln 2; men ln(1/.5) = ln 2
        # nurse: women ln(.75/.5) = ln 1.5; men ln(.25/.5) = −ln 2
        skews = fairness.skew(self.shares, EQUAL, 4)
        ln = math.log
        assert skews == pytest.approx(np.array([[-ln(2), ln(2)], [ln(1.5), -ln(2)]]))
        assert fairness.max_skew(skews) == pytest.approx((ln(2) + ln(1.5)) / 2)
        assert fairness.min_skew(skews) == pytest.approx(-ln(2))

    def test_skew_against_the_base_rate(self):
        base = fairness.base_rate([0, 0, 0, 1, 1, 1, 1, 1], 2)
        assert base.tolist() == [3 / 8, 5 / 8]
        # pilot: women (1/4)/(3/8) = 2/3, men 1/(5/8) = 8/5; nurse: women 2, men 2/5
        skews = fairness.skew(self.shares, base, 4)
        assert np.exp(skews) == pytest.approx(np.array([[2 / 3, 8 / 5], [2, 2 / 5]]))

    def test_bias_cancels_in_the_mean_and_not_in_the_absolute(self):
        # pilot (4 − 0)/4 = 1, nurse (1 − 3)/4 = −1/2
        bias = fairness.bias_at_k(self.shares)
        assert bias.tolist() == [1, -0.5]
        assert np.abs(bias).mean() == 0.75

    def test_ndkl_of_a_short_list(self):
        # nurse's first two, w w: both prefixes are all women, KL = ln(1/.5) = ln 2 at each,
        # so the discounted mean is ln 2 too
        assert fairness.ndkl(self.ranked[1:, :2], EQUAL) == pytest.approx([math.log(2)])

    def test_ndkl_discounts_lower_places(self):
        # w m: the first place diverges by ln 2, the first two not at all.
        # Z = 1/log2(2) + 1/log2(3), NDKL = ln 2 · 1 / Z
        z = 1 + 1 / math.log2(3)
        assert fairness.ndkl([[0, 1]], EQUAL) == pytest.approx([math.log(2) / z])

    def test_a_place_beyond_the_gallery_is_refused(self):
        with pytest.raises(DataError, match="top 9 of a gallery of 8"):
            fairness.top_shares(self.ranked, 9, 2)


class TestSixJobs:
    """Six people asked for their job: 0 pilot, 1 nurse.

    image      0  1  2  3  4  5
    gender     w  w  w  m  m  m
    true       0  0  1  0  1  1
    predicted  0  1  1  0  0  1
    """

    gender = (0, 0, 0, 1, 1, 1)
    true = (0, 0, 1, 0, 1, 1)
    predicted = (0, 1, 1, 0, 0, 1)

    def test_demographic_parity(self):
        # "nurse" is said of 2 of 3 women and of 1 of 3 men
        rates = fairness.selection_rates(self.predicted, self.gender, 2, 2)
        assert rates == pytest.approx(np.array([[1 / 3, 2 / 3], [2 / 3, 1 / 3]]))
        gap = fairness.gap(rates)
        assert gap.difference == pytest.approx([1 / 3, 1 / 3])
        assert gap.ratio == pytest.approx([1 / 2, 1 / 2])

    def test_equal_opportunity(self):
        # pilots: of two women one is recognised, the one man is; nurses: 1 of 1 and 1 of 2
        rates = fairness.recalls(self.predicted, self.true, self.gender, 2, 2)
        assert rates.tolist() == [[0.5, 1], [1, 0.5]]
        assert fairness.gap(rates).difference.tolist() == [0.5, 0.5]

    def test_worst_group(self):
        right = np.equal(self.true, self.predicted)
        assert fairness.group_accuracy(right, self.gender, 2) == pytest.approx([2 / 3, 2 / 3])
        right[3] = False
        assert fairness.worst_group_accuracy(right, self.gender, 2) == pytest.approx(1 / 3)

    def test_what_a_group_lacks_is_not_a_number(self):
        rates = fairness.recalls([0, 0], [0, 1], [0, 1], 2, 2)
        assert np.isnan(rates).tolist() == [[False, True], [True, False]]
        assert np.isnan(fairness.gap(rates).difference).all()
        assert fairness.worst_group_accuracy([True], [1], 2) == 1.0
        # nobody is called a nurse: equal rates, but no ratio
        gap = fairness.gap(fairness.selection_rates([0, 0], [0, 1], 2, 2))
        assert gap.difference.tolist() == [0, 0]
        assert np.isnan(gap.ratio).tolist() == [False, True]


class TestOrder:
    def test_ties_stand_in_the_order_of_the_gallery(self):
        assert fairness.ranking([[1.0, 3.0, 1.0, 3.0]]).tolist() == [[1, 3, 0, 2]]

    def test_scores_that_are_not_finite_have_no_order(self):
        with pytest.raises(DataError, match="not finite"):
            fairness.ranking([[1.0, math.nan]])


class TestAble:
    def test_an_even_and_always_right_model(self):
        assert fairness.able(1.0, 0.0) == 1.0

    def test_by_hand(self):
        # MaxSkew ln 2 is e^−MaxSkew = 1/2; with accuracy 1/2 the harmonic mean is 1/2,
        # with accuracy 1 it is 2 · 1 · .5 / 1.5 = 2/3
        assert fairness.able(0.5, math.log(2)) == pytest.approx(0.5)
        assert fairness.able(1.0, math.log(2)) == pytest.approx(2 / 3)


class TestSpearman:
    def test_by_hand_with_a_tie(self):
        # ranks of x: 1, 2.5, 2.5, 4; of y: 1, 2, 3, 4; deviations (−1.5, 0, 0, 1.5) and
        # (−1.5, −.5, .5, 1.5): 4.5 / √(4.5 · 5) = √.9
        assert fairness.spearman([1, 5, 5, 9], [0, 1, 2, 3]) == pytest.approx(math.sqrt(0.9))

    def test_only_the_order_counts(self):
        assert fairness.spearman([1, 2, 3], [1, 10, 1000]) == pytest.approx(1)
        assert fairness.spearman([1, 2, 3], [3, 0, -3]) == pytest.approx(-1)

    def test_what_does_not_vary_correlates_with_nothing(self):
        assert math.isnan(fairness.spearman([1, 1, 1], [1, 2, 3]))


class TestLuck:
    def test_a_blind_draw_of_two_from_two_and_two(self):
        # of the 6 pairs 2 are of one gender (|bias| 1) and 4 mixed (0)
        assert fairness.bias_of_chance((2, 2), 2) == pytest.approx(1 / 3)

    def test_it_agrees_with_drawing(self):
        rng = np.random.default_rng(0)
        gallery = np.repeat([0, 1], [30, 50])
        drawn = rng.permuted(np.tile(gallery, (20_000, 1)), axis=1)[:, :7]
        simulated = np.abs(2 * drawn.mean(axis=1) - 1).mean()
        assert fairness.bias_of_chance((30, 50), 7) == pytest.approx(simulated, abs=0.01)

    def test_where_images_come_in_groups_by_hand(self):
        luck = fairness.bias_of_chance_in_groups
        assert luck([(20, 24)], [0, 1]) == 1  # all of one thing
        # ±10 ± 7 ± 3: 20, 14, 6 and 0, each as often
        assert luck([(10, 24), (7, 24), (3, 24)], [0, 1]) == pytest.approx(0.5)
        # nine of ten groups show men: two alike in 82 of 100 draws
        assert luck([(1, 1), (1, 1)], [0] + [1] * 9) == pytest.approx(0.82)
        # a group that is half and half is even where it is whole
        assert luck([(8, 8), (8, 8)], [0.5]) == 0
        # one of two of each value, of four: both the same in a third
        assert luck([(2, 4)], [0.5]) == pytest.approx(1 / 3)

    def test_where_images_come_in_groups_by_drawing(self):
        rng, sizes = np.random.default_rng(0), [6, 5, 5, 2, 1, 1]
        signs = np.where(rng.random((40_000, len(sizes))) < 0.7, 1, -1)
        simulated = np.abs(signs @ sizes).mean() / 20
        found = fairness.bias_of_chance_in_groups([(n, 6) for n in sizes], [0] * 3 + [1] * 7)
        assert found == pytest.approx(simulated, abs=0.01)
        # single images are as good as drawn from a gallery without end
        alone = fairness.bias_of_chance_in_groups([(1, 1)] * 20, [0, 1])
        assert alone == pytest.approx(fairness.bias_of_chance((10**6, 10**6), 20), abs=1e-5)


@given(
    hnp.arrays(
        np.int64, st.tuples(st.integers(1, 4), st.integers(2, 12)), elements=st.integers(0, 2)
    ),
    st.integers(1, 12),
)
def test_laws_of_any_gallery(ranked, k):
    k = min(k, ranked.shape[1])
    shares = fairness.top_shares(ranked, k, 3)
    assert shares.sum(axis=1) == pytest.approx(1)
    skews = fairness.skew(shares, fairness.equal_shares(3), k)
    assert -1e-12 <= fairness.max_skew(skews) <= math.log(3) + 1e-12
    divergence = fairness.ndkl(ranked, fairness.equal_shares(3))
    assert (divergence >= -1e-12).all()
    assert (divergence <= math.log(3) + 1e-12).all()


@given(hnp.arrays(np.int64, st.integers(1, 10), elements=st.integers(0, 1)))
def test_renaming_the_groups_turns_bias_round_and_leaves_skew(ranked):
    here, there = ranked[None], 1 - ranked[None]
    k = len(ranked)
    a, b = fairness.top_shares(here, k, 2), fairness.top_shares(there, k, 2)
    assert fairness.bias_at_k(a) == pytest.approx(-fairness.bias_at_k(b))
    skews = [fairness.max_skew(fairness.skew(x, EQUAL, k)) for x in (a, b)]
    assert skews[0] == pytest.approx(skews[1])
    assert fairness.ndkl(here, EQUAL) == pytest.approx(fairness.ndkl(there, EQUAL))


class TestOtherLibraries:
    rng = np.random.default_rng(7)
    gender = rng.integers(0, 2, 200)
    true = rng.integers(0, 2, 200)
    predicted = np.where(rng.random(200) < 0.3 + 0.2 * gender, 1 - true, true)

    def test_scipy_spearman(self):
        stats = pytest.importorskip("scipy.stats")
        x, y = self.rng.integers(0, 6, 40), self.rng.normal(size=40)
        assert fairness.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)

    def test_scipy_divergence(self):
        stats = pytest.importorskip("scipy.stats")
        ranked, wanted = self.rng.integers(0, 3, 25), np.array([0.2, 0.3, 0.5])
        i = np.arange(1, 26)
        each = [stats.entropy(np.bincount(ranked[:n], minlength=3) / n, wanted) for n in i]
        expected = np.average(each, weights=1 / np.log2(i + 1))
        assert fairness.ndkl(ranked[None], wanted) == pytest.approx([expected])

    def test_fairlearn_gaps(self):
        learn = pytest.importorskip("fairlearn.metrics")
        rates = fairness.selection_rates(self.predicted, self.gender, 2, 2)
        parity, sensitive = fairness.gap(rates), {"sensitive_features": self.gender}
        given_ = (self.true, self.predicted)
        assert parity.difference[1] == pytest.approx(
            learn.demographic_parity_difference(*given_, **sensitive)
        )
        assert parity.ratio[1] == pytest.approx(
            learn.demographic_parity_ratio(*given_, **sensitive)
        )
        opportunity = fairness.gap(fairness.recalls(self.predicted, self.true, self.gender, 2, 2))
        assert opportunity.difference[1] == pytest.approx(
            learn.equal_opportunity_difference(*given_, **sensitive)
        )
        assert opportunity.ratio[1] == pytest.approx(
            learn.equal_opportunity_ratio(*given_, **sensitive)
        )

    def test_fairlearn_worst_group(self):
        learn = pytest.importorskip("fairlearn.metrics")
        from sklearn.metrics import accuracy_score

        frame = learn.MetricFrame(
            metrics=accuracy_score,
            y_true=self.true,
            y_pred=self.predicted,
            sensitive_features=self.gender,
        )
        right = self.true == self.predicted
        assert fairness.group_accuracy(right, self.gender, 2) == pytest.approx(
            frame.by_group.to_numpy()
        )
        assert fairness.worst_group_accuracy(right, self.gender, 2) == frame.group_min()

    def test_torchmetrics_ratios(self):
        metrics = pytest.importorskip("torchmetrics.functional.classification")
        import torch

        predicted, true, gender = map(torch.from_numpy, (self.predicted, self.true, self.gender))
        (parity,) = metrics.binary_fairness(predicted, true, gender, "demographic_parity").values()
        (chance,) = metrics.binary_fairness(predicted, true, gender, "equal_opportunity").values()
        rates = fairness.selection_rates(self.predicted, self.gender, 2, 2)
        assert fairness.gap(rates).ratio[1] == pytest.approx(float(parity))
        rates = fairness.recalls(self.predicted, self.true, self.gender, 2, 2)
        assert fairness.gap(rates).ratio[1] == pytest.approx(float(chance))
