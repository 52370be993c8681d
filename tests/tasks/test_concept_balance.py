"""Which images a concept is learned from: those that say a value, as many of each."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from clipalign.datasets.base import Example
from clipalign.errors import DataError, UsageError
from clipalign.tasks.concept import GenderTask
from clipalign.tasks.concepts.balance import Reading, balanced
from tests.tasks.conftest import BLANK


class People:
    """Images known by their attributes alone, in the split train."""

    name, templates, licence, fingerprint = "people", ("a photo of a {}.",), "CC0-1.0", "1"
    classnames = ("a", "b")

    def __init__(self, *rows: tuple[str, ...]) -> None:
        columns = ("gender", "activity", "kind")
        self._examples = [
            Example(f"{i}", None, i, attributes=dict(zip(columns, row, strict=False)))
            for i, row in enumerate(rows)
        ]

    def splits(self):
        return ("train",)

    def examples(self, split):
        return self._examples

    def image(self, example):
        return BLANK


def test_an_activity_that_says_the_gender_is_quarantined():
    task = GenderTask(no_activity=0)
    source = task.source(
        People(
            ("woman", "running"), ("man", "running"), ("man", "walking his dog"), ("robot", ""),
            ("", "running"),
        )
    )  # fmt: skip
    assert task.candidates(source, "train").preference == (
        "a photo of a woman running.", "a photo of a man running."
    )  # fmt: skip
    reasons = []
    for example in source.examples("train")[2:]:
        with pytest.raises(DataError) as error:
            list(task.rows(example, BLANK, source, "train", random.Random(0)))
        reasons.append(str(error.value))
    assert "says 'his'" in reasons[0]
    assert reasons[1] == "its gender is 'robot', which is none of woman, man"
    assert reasons[2] == "its gender is empty"


def test_unequal_groups_are_balanced_within_each_activity_and_a_note_says_so():
    rows = [("man", "standing")] * 6 + [("woman", "standing")] * 2 + [("man", "climbing")] * 3
    rows += [("woman", "")] * 2 + [("man", "")]
    task = GenderTask()
    source = task.source(People(*rows))
    used = Counter(
        (e.attributes["activity"], e.attributes["gender"]) for e in source.examples("train")
    )
    assert used == {
        ("standing", "man"): 2, ("standing", "woman"): 2, ("", "man"): 1, ("", "woman"): 1
    }  # fmt: skip
    [note] = task.candidates(source, "train").notes
    assert "10 'man', 4 'woman'" in note
    assert "3 of each are used" in note
    assert "left out: 1" in note
    off = GenderTask(balance=False)
    assert len(off.source(People(*rows)).examples("train")) == len(rows)
    assert "balance is off" in off.candidates(People(*rows), "train").notes[0]


def test_balancing_spreads_over_the_order_of_the_images_and_keeps_what_cannot_be_read():
    readings = [Reading("", False, "man") for _ in range(9)] + [None]
    readings += [Reading("", False, "woman") for _ in range(3)]
    assert balanced(readings) == [0, 3, 6, 9, 10, 11, 12]


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([("woman", "x")] * 2, {}, "only 'woman'"),
        ([("robot", "x")] * 2, {}, "none of them"),
        ([("woman", "x"), ("man", "y")], {}, "balance=false"),
        ([("woman", "x"), ("man", "x")], {"attribute": "gendr"}, "Did you mean 'gender'"),
        ([("woman", "x"), ("man", "x")], {"activity": "activty"}, "Did you mean 'activity'"),
    ],
)
def test_images_that_cannot_serve_are_refused(rows, options, words):
    with pytest.raises(DataError, match=re.escape(words)):
        GenderTask(**options).candidates(People(*rows), "train")


def test_a_dataset_to_keep_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="Did you mean 'emoji'"):
        GenderTask(keep="emojii").candidates(People(("woman", "x"), ("man", "x")), "train")
