"""t* is where it is said to be: the root is a root, and no other t is a better choice."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipalign.errors import UsageError
from clipalign.models.linear_map import LinearMap
from clipalign.transforms.neutral import Neutral, find_neutral, find_root
from clipalign.transforms.spectrum import Powers


@pytest.fixture
def powers(features, linear):
    return Powers(features, linear)


def test_bisection_finds_the_root_of_a_sum_of_exponentials():
    # 4^t · (−1) + 1.5 = 0 at t = log 1.5 / log 4
    root = find_root(lambda t: 1.5 - 4.0**t, np.linspace(0, 1, 11))
    assert root == pytest.approx(math.log(1.5) / math.log(4), abs=1e-11)


def test_of_several_roots_the_smallest_edit_is_taken():
    grid = np.linspace(-1, 1, 41)
    assert find_root(lambda t: (t - 0.72) * (t - 0.31) * (t + 0.55), grid) == pytest.approx(0.31)
    assert find_root(lambda t: t, grid) == 0.0
    assert find_root(lambda t: t * t + 1e-9, grid) is None


def test_the_gap_closes_at_the_root(powers):
    assert powers.gap(0.0) > 0 > powers.gap(1.0)  # training flips the concept
    found = find_neutral(powers, epsilon=1.0)
    assert powers.gap(found.root) == pytest.approx(0, abs=1e-10)
    assert powers.plain_gap(found.plain_root) == pytest.approx(0, abs=1e-10)
    assert found.gap_low == powers.gap(0.0)
    assert found.gap_high == powers.gap(1.0)


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 1.0])
def test_no_t_on_the_grid_is_a_better_choice(powers, epsilon):
    found = find_neutral(powers, epsilon=epsilon)
    start = powers.at(0.0)
    assert found.activity_accuracy >= start.activity_accuracy - epsilon - 1e-12
    for t in np.linspace(0, 1, 101):
        reading = powers.at(t)
        if reading.activity_accuracy >= start.activity_accuracy - epsilon:
            off, best = abs(reading.concept_accuracy - 0.5), abs(found.concept_accuracy - 0.5)
            assert best <= off + 1e-12
            if best == pytest.approx(off, abs=1e-12):
                assert abs(powers.gap(found.t)) <= abs(reading.gap) + 1e-12


def test_at_t_star_the_concept_is_not_told_and_activities_are(powers):
    found = find_neutral(powers, epsilon=0.1)
    assert found.concept_accuracy == pytest.approx(0.5, abs=0.05)
    assert found.concept_accuracy_at_0 > 0.8
    assert found.activity_accuracy >= found.activity_accuracy_at_0 - 0.1


def test_the_activity_accuracy_binds():
    # One map that buys neutrality with the activities: a smaller ε must stop it earlier.
    ts = {}
    for epsilon in (0.0, 1.0):
        powers = _costly()
        ts[epsilon] = find_neutral(powers, epsilon=epsilon)
    assert ts[0.0].t < ts[1.0].t
    assert ts[1.0].activity_accuracy < ts[1.0].activity_accuracy_at_0
    assert ts[0.0].activity_accuracy >= ts[0.0].activity_accuracy_at_0


def _costly():
    """Two dimensions tell activities, one the value; the map shrinks all that is not the third."""
    from clipalign.transforms.probe import ConceptProbe, ProbeFeatures

    rng = np.random.default_rng(0)
    n = 60
    value, activity = np.arange(n) % 2, np.arange(n) // 2 % 2
    noise = rng.normal(size=(n, 4)) * [0.05, 0.05, 0.6, 0.05]
    images = np.stack(
        [activity == 0, activity == 1, np.zeros(n), np.where(value == 1, 0.5, -0.5)], axis=1
    )
    images = images + noise
    texts = np.array([[[1, 0, 0.0, -0.5], [1, 0, 0.3, 0.5]], [[0, 1, 0, -0.5], [0, 1, 0.3, 0.5]]])
    neutral = np.array([[1, 0, 0.1, 0.0], [0, 1, -0.1, 0.0]])
    probe = ConceptProbe(
        "gender",
        ("woman", "man"),
        (("w0", "m0"), ("w1", "m1")),
        ("p0", "p1"),
        (),
        tuple(value.tolist()),
        tuple(activity.tolist()),
    )

    def unit(a):
        return a / np.linalg.norm(a, axis=-1, keepdims=True)

    features = ProbeFeatures(probe, unit(images), unit(texts), unit(neutral), 10.0)
    scale = torch.tensor([0.3, 0.3, 2.0, 0.05], dtype=torch.float64)
    return Powers(features, LinearMap(torch.diag(scale)))


def test_the_interval_holds_t_star_and_is_the_same_every_time(powers):
    first = find_neutral(powers, epsilon=0.2, seed=4)
    assert first.interval.low <= first.t <= first.interval.high
    assert first.interval.low < first.interval.high
    assert find_neutral(powers, epsilon=0.2, seed=4) == first
    assert find_neutral(powers, epsilon=0.2, seed=5).interval != first.interval


def test_groups_are_resampled_as_wholes(make_features, flipping_map):
    grouped = make_features(groups=10)
    powers = Powers(grouped, flipping_map(grouped))
    found = find_neutral(powers, epsilon=0.2)
    assert found.independent == 10
    assert found.interval.method == "cluster-bootstrap-percentile"
    assert "bootstrap over 10 groups of 80 images" in found.statement()


def test_ten_copies_of_every_image_in_its_group_change_nothing(features, linear):
    names = tuple(str(i) for i in range(80))
    one = replace(features, probe=replace(features.probe, groups=names))
    index = np.repeat(np.arange(80), 10)
    many = replace(features, images=features.images[index], probe=one.probe.only(index.tolist()))
    found = [find_neutral(Powers(f, linear), epsilon=0.1) for f in (one, many)]
    assert found[0].t == pytest.approx(found[1].t, abs=1e-9)
    assert found[0].interval.low == pytest.approx(found[1].interval.low, abs=1e-9)
    assert found[0].interval.high == pytest.approx(found[1].interval.high, abs=1e-9)


def test_without_a_root_it_says_so_plainly(features):
    still = Powers(features, LinearMap(torch.eye(12, dtype=torch.float64)))
    found = find_neutral(still)
    assert found.root is None
    assert found.plain_root is None
    words = found.statement()
    assert "The group gap has no root in [0, 1]" in words
    assert "no t there is neutral" in words
    assert "Train longer, or search a wider range" in words


def test_a_wider_range_finds_what_a_narrow_one_does_not(powers):
    root = find_neutral(powers, epsilon=1.0).root
    assert find_neutral(powers, high=root / 2, epsilon=1.0).root is None
    wide = find_neutral(powers, low=-2.0, high=3.0, epsilon=1.0)
    assert wide.root == pytest.approx(root, abs=1e-9)


def test_without_activities_nothing_bounds_it_and_it_says_so(make_features, flipping_map):
    features = make_features(activities=1)
    found = find_neutral(Powers(features, flipping_map(features)))
    assert found.activity_accuracy is None
    assert "nothing bounds what that costs" in found.statement()


def test_a_range_that_keeps_nothing_is_refused():
    with pytest.raises(UsageError, match=r"No t from 2 to 3 keeps the activity accuracy within 0 "):
        find_neutral(_costly(), low=2.0, high=3.0, epsilon=0.0)


def test_an_empty_range_is_refused(powers):
    with pytest.raises(UsageError, match="range 1 to 1 of t is empty"):
        find_neutral(powers, low=1.0, high=1.0)


def test_what_was_found_can_be_written_and_read(powers):
    found = find_neutral(powers, epsilon=0.1)
    assert Neutral.rebuild(found.document()) == found
