"""W_t read in the basis of V is W_t applied to the features: every number, at every t."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clipalign.errors import DataError
from clipalign.models.linear_map import LinearMap
from clipalign.transforms.probe import ConceptProbe, ProbeFeatures
from clipalign.transforms.spectrum import Powers


def applied(features, matrix, *, normalise=True):
    """Per-image difference of the two similarities, from the definition: one image at a time."""

    def through(vector):
        mapped = matrix @ vector
        return mapped / np.linalg.norm(mapped) if normalise else mapped

    return np.array(
        [
            through(image) @ (through(texts[1]) - through(texts[0]))
            for image, texts in zip(
                features.images, features.value_texts[features.activity], strict=True
            )
        ]
    )


def difference_of_means(features, margins):
    return margins[features.value == 1].mean() - margins[features.value == 0].mean()


def test_t_0_is_the_reference_to_the_last_digits(features, linear):
    reference, powers = features.read(), Powers(features, linear)
    start = powers.at(0.0)
    np.testing.assert_allclose(start.margins, reference.margins, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        start.scores, reference.scores, rtol=0, atol=features.logit_scale * 1e-12
    )


def test_t_1_is_the_trained_map(features, linear):
    reading = Powers(features, linear).at(1.0)
    trained = features.mapped(linear.weight.numpy()).read()
    np.testing.assert_allclose(reading.margins, trained.margins, rtol=0, atol=1e-12)
    np.testing.assert_allclose(reading.scores, trained.scores, rtol=0, atol=1e-11)


@pytest.mark.parametrize("t", [-2.0, -0.3, 0.4, 1.7])
def test_every_t_is_w_t_applied_and_normalised(features, linear, t):
    matrix = linear.power(t).weight.numpy()
    reading = Powers(features, linear).at(t)
    np.testing.assert_allclose(reading.margins, applied(features, matrix), rtol=0, atol=1e-12)
    assert reading.gap == pytest.approx(
        difference_of_means(features, applied(features, matrix)), abs=1e-12
    )


@pytest.mark.parametrize("t", [-2.0, -0.3, 0.0, 0.4, 1.0, 1.7])
def test_the_sum_of_exponentials_is_the_gap_without_normalisation(features, linear, t):
    matrix = linear.power(t).weight.numpy()
    direct = difference_of_means(features, applied(features, matrix, normalise=False))
    assert Powers(features, linear).plain_gap(t) == pytest.approx(direct, rel=1e-11)


def test_with_one_pair_of_captions_the_coefficients_are_products_of_mean_differences(
    make_features, linear
):
    features = make_features(activities=1)
    sigma, v = linear.svd[1].numpy(), linear.svd[2].numpy()
    by_value = [features.images[features.value == number].mean(axis=0) for number in (0, 1)]
    texts = features.value_texts[0]
    products = (v @ (by_value[1] - by_value[0])) * (v @ (texts[1] - texts[0]))
    powers = Powers(features, linear)
    np.testing.assert_allclose(powers.coefficients, products, rtol=0, atol=1e-13)
    assert powers.plain_gap(0.7) == pytest.approx(float(sigma**1.4 @ products), rel=1e-11)


def test_lost_directions_are_clipped_as_the_map_itself_clips_them(features):
    weight = torch.eye(12, dtype=torch.float64)
    weight[3] = 0.0
    singular = LinearMap(weight)
    powers = Powers(features, singular, eps=1e-3)
    assert powers.sigma.min() == 1e-3
    expected = features.mapped(singular.power(-1.0, eps=1e-3).weight.numpy()).read()
    np.testing.assert_allclose(powers.at(-1.0).margins, expected.margins, rtol=0, atol=1e-12)


def test_gender_accuracy_counts_both_values_alike_however_many_images_they_have(features):
    reading = features.read()
    few = np.flatnonzero((features.value == 0) | (np.arange(80) < 20))
    uneven = ProbeFeatures(
        features.probe.only(few.tolist()),
        features.images[few],
        features.value_texts,
        features.neutral_texts,
        features.logit_scale,
    )
    right = reading.value_correct
    expected = (right[features.value == 0].mean() + right[:20][features.value[:20] == 1].mean()) / 2
    assert uneven.read().concept_accuracy == pytest.approx(expected)
    assert "40 images of 'woman' and 10 of 'man'" in uneven.probe.balance
    assert features.probe.balance == ""


def test_captions_that_encode_the_same_are_refused(features):
    same = features.value_texts.copy()
    same[2, 1] = same[2, 0]
    with pytest.raises(DataError, match="'a woman police officer' and 'a man police off"):
        replace(features, value_texts=same)


def test_a_probe_of_one_value_is_refused(features):
    with pytest.raises(DataError, match="None of the 40 images is labelled 'man'"):
        features.probe.only(range(0, 80, 2))


@pytest.mark.parametrize(
    ("pairs", "neutral"), [((), ()), ((("w", "m"), ("w2", "m2")), ("only one",))]
)
def test_texts_that_do_not_fit_together_are_refused(pairs, neutral):
    with pytest.raises(DataError, match="one of each an activity"):
        ConceptProbe("gender", ("w", "m"), pairs, neutral, (), (0, 1), (0, 0))


def test_labels_that_do_not_fit_together_are_refused(features):
    with pytest.raises(DataError, match="do not fit together"):
        replace(features.probe, activity=(9,) * 80)
