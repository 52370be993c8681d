"""Dominance and the front, worked by hand."""

from __future__ import annotations

import itertools
import random

import pytest

from clipalign.comparison.front import dominates, dominators

# attacked accuracy ↑, clean accuracy ↑, KL ↓
HIGHER = (True, True, False)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0.7, 0.8, 0.1), (0.6, 0.8, 0.1), True),  # better on one, equal on the others
        ((0.7, 0.8, 0.2), (0.6, 0.8, 0.1), False),  # better on one, worse on another
        ((0.7, 0.8, 0.1), (0.7, 0.8, 0.1), False),  # equal
        ((0.7, 0.8, 0.1), (0.7, 0.8, 0.2), True),  # a lower KL is better
        ((0.6, 0.8, 0.1), (0.7, 0.8, 0.1), False),
        ((0.7, 0.9, 0.05), (0.6, 0.8, 0.1), True),  # better on all
    ],
)
def test_dominance_is_no_worse_anywhere_and_better_somewhere(a, b, expected):
    assert dominates(a, b, HIGHER) is expected


def test_the_front_of_five_methods_is_the_one_that_a_hand_finds():
    points = {
        "reference": (0.10, 0.86, 0.00),  # nothing has a lower KL
        "kto": (0.66, 0.85, 0.16),
        "dpo": (0.64, 0.82, 0.28),  # kto is better on all three
        "cross-entropy": (0.69, 0.84, 0.20),  # most robust
        "dull": (0.10, 0.85, 0.16),  # reference and kto both beat it
    }
    assert dominators(points, HIGHER) == {
        "reference": [],
        "kto": [],
        "dpo": ["kto", "cross-entropy"],
        "cross-entropy": [],
        "dull": ["reference", "kto"],
    }


def test_equal_points_share_the_front():
    assert dominators({"a": (1.0, 2.0), "b": (1.0, 2.0)}, (True, True)) == {"a": [], "b": []}


def test_of_one_axis_only_the_best_is_left():
    beaten = dominators({"a": (1.0,), "b": (3.0,), "c": (2.0,)}, (True,))
    assert [name for name, by in beaten.items() if not by] == ["b"]


def test_turning_an_axis_over_is_the_same_as_its_negative():
    rng = random.Random(0)
    points = {str(i): (rng.random(), rng.random(), rng.random()) for i in range(30)}
    negated = {name: (x, y, -z) for name, (x, y, z) in points.items()}
    assert dominators(points, HIGHER) == dominators(negated, (True, True, True))


def test_dominance_is_a_strict_order_and_everything_off_the_front_is_beaten_by_the_front():
    rng = random.Random(1)
    points = {str(i): tuple(rng.randrange(4) for _ in HIGHER) for i in range(40)}
    beaten = dominators(points, HIGHER)
    front = {name for name, by in beaten.items() if not by}
    assert front
    assert all(front & set(by) for name, by in beaten.items() if name not in front)
    for a, b in itertools.permutations(points, 2):
        assert not (dominates(points[a], points[b], HIGHER)) or not dominates(
            points[b], points[a], HIGHER
        )
