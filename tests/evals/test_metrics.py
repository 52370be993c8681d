"""Metrics against cases worked by hand, and what must hold of them whatever the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clipalign.errors import DataError
from clipalign.evals import metrics

APPLE, IPOD, MUG = 0, 1, 2


# ── Right and wrong ──────────────────────────────────────────────────────────────────────────────


class TestSixFruits:
    """Six images. The object, what is written on it, and what the model says of it clean.

    image   object  written  clean
    0       apple   iPod     apple
    1       apple   iPod     apple
    2       apple   mug      mug     it was wrong before
    3       mug     apple    mug
    4       mug     mug      mug     says what it is: no attack
    5       mug     (none)   apple   nothing written
    """

    true = np.array([APPLE, APPLE, APPLE, MUG, MUG, MUG])
    written = np.array([IPOD, IPOD, MUG, APPLE, MUG, -1])
    clean = np.array([APPLE, APPLE, MUG, MUG, MUG, APPLE])

    def test_images_0_to_3_are_attacked(self):
        rows = metrics.attacked_rows(self.written, self.true)
        assert rows.tolist() == [True, True, True, True, False, False]

    def test_of_these_the_model_was_right_on_0_1_and_3(self):
        rows = metrics.attacked_rows(self.written, self.true, self.clean)
        assert rows.tolist() == [True, True, False, True, False, False]

    def test_per_class(self):
        assert metrics.per_class_accuracy(self.clean, self.true, ["apple", "iPod", "mug"]) == {
            "apple": {"accuracy": 2 / 3, "n": 3},
            "mug": {"accuracy": 2 / 3, "n": 3},
        }


def test_the_object_or_the_word():
    log_probs = np.log([[0.5, 0.3, 0.2], [0.3, 0.5, 0.2], [0.3, 0.1, 0.6], [0.4, 0.4, 0.2]])
    true, written = [APPLE] * 4, [IPOD] * 4
    # The third says "mug" and still prefers the object to the word; the fourth is a tie.
    picked = metrics.object_or_word(log_probs, true, written)
    assert picked.tolist() == [True, False, True, False]


def test_nothing_written_is_not_read_as_the_last_candidate():
    with pytest.raises(DataError, match="written holds an index outside the 3 candidate"):
        metrics.object_or_word(np.zeros((1, 3)), [0], [-1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.attacked_rows([0, 1], [0]), r"written \[2\], true \[1\]"),
        (lambda: metrics.attacked_rows([0.9], [1]), "class indices"),
        (lambda: metrics.per_class_accuracy([0], [2], ["a", "b"]), "outside the 2 class names"),
        (lambda: metrics.per_class_accuracy([0], [0], ["a", "a"]), "share a name"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(call, words):
    with pytest.raises(DataError, match=words):
        call()


@given(hnp.arrays(np.int64, (2, 40), elements=st.integers(0, 5)))
def test_per_class_accuracies_weighted_by_n_give_the_accuracy(columns):
    predicted, true = columns
    table = metrics.per_class_accuracy(predicted, true, list("abcdef"))
    total = sum(row["accuracy"] * row["n"] for row in table.values())
    assert sum(row["n"] for row in table.values()) == len(true)
    assert total / len(true) == pytest.approx((predicted == true).mean())


# ── Calibration ──────────────────────────────────────────────────────────────────────────────────


def test_ece_by_hand():
    # Bins of 1/15. 0.95 and 0.96 share the last bin (14/15, 1]: accuracy ½, confidence 0.955.
    # 0.60 closes the bin (8/15, 9/15]: right, off by 0.4. 0 is in the first bin: right, off by 1.
    ece = metrics.expected_calibration_error([0.95, 0.96, 0.60, 0.0], [True, False, True, True])
    assert ece == pytest.approx((2 * abs(0.5 - 0.955) + 0.4 + 1.0) / 4)


def test_ece_of_a_model_that_knows_how_sure_to_be_is_0():
    correct = np.repeat([True, False], [80, 20])
    assert metrics.expected_calibration_error(np.full(100, 0.8), correct) == pytest.approx(0)


def test_no_image_has_no_ece():
    assert math.isnan(metrics.expected_calibration_error([], []))


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_ece_wants_probabilities(confidence):
    with pytest.raises(DataError, match="between 0 and 1"):
        metrics.expected_calibration_error([confidence], [True])


# ── Distance from the reference ──────────────────────────────────────────────────────────────────


def test_kl_by_hand_in_both_directions():
    reference, policy = np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]])
    # ½ log(½/¾) + ½ log(½/¼) = ½ log(4/3), and ¾ log(¾/½) + ¼ log(¼/½) = ¾ log 3 − log 2.
    assert metrics.kl_divergence(reference, policy) == pytest.approx(0.5 * math.log(4 / 3))
    assert metrics.kl_divergence(policy, reference) == pytest.approx(
        0.75 * math.log(3) - math.log(2)
    )


def test_kl_where_a_probability_is_0():
    certain, split = np.array([[0.0, -np.inf]]), np.log([[0.5, 0.5]])
    assert metrics.kl_divergence(certain, split) == pytest.approx(math.log(2))
    assert metrics.kl_divergence(split, certain)[0] == np.inf
    assert metrics.kl_divergence(certain, certain)[0] == 0


def test_the_rounding_of_a_float32_softmax_is_not_a_divergence():
    logits = np.random.default_rng(0).normal(scale=20, size=(200, 100))
    exact = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert metrics.kl_divergence(exact, exact.astype(np.float32)).max() < 1e-9


@pytest.mark.parametrize(
    ("log_p", "words"),
    [
        ([[2.0, 1.0]], "log_p, row 0: probabilities sum to 10.1"),
        ([[0.5, 0.5]], "not logits or probabilities"),
        ([[np.nan, 0.0]], "sum to nan"),
        ([0.0], "two dimensions"),
        ([[-math.log(3)] * 3], "over the same texts"),
    ],
)
def test_what_is_not_a_policy_is_refused(log_p, words):
    with pytest.raises(DataError, match=words):
        metrics.kl_divergence(log_p, np.log([[0.5, 0.5]]))


@st.composite
def policies(draw, many=2):
    """`many` log-policies [N, C] over the same texts."""
    shape = (draw(st.integers(1, 6)), draw(st.integers(2, 6)))
    logits = hnp.arrays(np.float64, shape, elements=st.floats(-30, 30))
    drawn = [draw(logits) for _ in range(many)]
    return [z - np.logaddexp.reduce(z, axis=1, keepdims=True) for z in drawn]


@given(policies())
def test_divergences_are_never_negative(pair):
    p, q = pair
    assert (metrics.kl_divergence(p, q) >= 0).all()


@given(policies())
def test_kl_is_0_exactly_where_the_policies_are_equal(pair):
    p, q = pair
    assert metrics.kl_divergence(p, p) == pytest.approx(0, abs=1e-15)
    # Pinsker: KL ≥ ½ ‖p − q‖₁², so a KL near 0 leaves no room for a difference.
    distance = np.abs(np.exp(p) - np.exp(q)).sum(1)
    assert (metrics.kl_divergence(p, q) >= 0.5 * distance**2 - 1e-12).all()


def test_kl_against_scipy():
    scipy_special = pytest.importorskip("scipy.special")
    p, q = np.random.default_rng(1).dirichlet(np.ones(7), size=(2, 50))
    expected = scipy_special.rel_entr(p, q).sum(1)
    assert metrics.kl_divergence(np.log(p), np.log(q)) == pytest.approx(expected)


def test_cosine_by_hand():
    features = [[3.0, 0.0], [1.0, 1.0], [0.0, 2.0]]
    reference = [[1.0, 0.0], [1.0, 0.0], [0.0, -5.0]]
    cosines = metrics.cosine_similarity(features, reference)
    assert cosines == pytest.approx([1, 1 / math.sqrt(2), -1])


def test_a_feature_without_direction_has_no_cosine():
    features, reference = [[1.0], [0.0], [-1.0]], [[1.0], [1.0], [1.0]]
    assert np.isnan(metrics.cosine_similarity(features, reference)).tolist() == [False, True, False]


def test_a_feature_that_is_not_finite_is_named():
    with pytest.raises(DataError, match="Row 1"):
        metrics.cosine_similarity([[1.0], [math.nan]], [[1.0], [1.0]])
