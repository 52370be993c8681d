"""A concept is flipped in the captions of the embedded people, and everything else stays."""

from __future__ import annotations

import random
import re
import statistics
from pathlib import Path

import pytest

from clipalign.config import load_config
from clipalign.datasets.emoji import EmojiWorld
from clipalign.datasets.emoji_people import EmojiPeople
from clipalign.options import component
from clipalign.plugins import registry
from clipalign.tasks.base import COUNTERPART, SHOWS, Task
from clipalign.tasks.concept import GenderTask
from clipalign.tasks.prepare import prepare
from tests.tasks.conftest import BLANK, GENDERED


@pytest.fixture(scope="module")
def emoji():
    """The task and the embedded people as it wants them."""
    task = GenderTask()
    return task, task.source(EmojiPeople(views=1))


def rows_of(task, source, split="train", seed=0):
    """The rows of a split, drawn on a blank picture."""
    return [
        (example, row)
        for example in source.examples(split)
        for row in task.rows(
            example, BLANK, source, split, random.Random(f"{seed}/{split}/{example.key}")
        )
    ]


def test_the_gender_is_flipped_and_the_rest_of_the_sentence_kept(emoji):
    rows = [(e, r) for e, r in rows_of(*emoji) if r.chosen is not None]
    assert len(rows) == len(EmojiPeople(views=1).examples("train"))
    for example, row in rows:
        own = example.attributes["gender"]
        other = {"woman": "man", "man": "woman"}[own]
        assert re.search(rf"\b{own}\b", row.rejected)
        assert row.chosen == re.sub(rf"\b{own}\b", other, row.rejected)


def test_flipping_twice_gives_the_caption_back(emoji):
    flip = {row.rejected: row.chosen for _, row in rows_of(*emoji) if row.chosen is not None}
    assert set(flip) == set(flip.values())
    assert all(flip[flip[caption]] == caption != flip[caption] for caption in flip)


def test_the_policy_sees_every_activity_and_none_with_either_gender(emoji):
    task, source = emoji
    candidates = task.candidates(source, "train")
    used = {text for _, row in rows_of(*emoji) for text in (row.chosen, row.rejected) if text}
    assert used == set(candidates.preference)
    assert len(candidates.preference) == 2 * len(EmojiPeople(views=1).classnames) + 2
    assert candidates == task.candidates(source, "validation")
    assert not candidates.notes  # as many women as men of everything


@pytest.mark.parametrize(
    ("label", "caption", "neutral"),
    [
        ("police officer", "a photo of a woman police officer.", "a photo of a police officer."),
        ("astronaut", "a photo of a woman astronaut.", "a photo of a astronaut."),
        ("frowning", "a photo of a woman frowning.", "a photo of a person frowning."),
        ("in tuxedo", "a photo of a woman in tuxedo.", "a photo of a person in tuxedo."),
        ("gesturing OK", "a photo of a woman gesturing OK.", "a photo of a person gesturing OK."),
    ],
)
def test_occupations_read_as_nouns_and_activities_as_phrases(emoji, label, caption, neutral):
    task, source = emoji
    candidates = task.candidates(source, "train")
    of_label = {row.rejected for e, row in rows_of(*emoji) if e.label == label and row.rejected}
    assert caption in of_label
    assert neutral in candidates.regulariser


def test_what_is_held_still_says_no_gender(emoji):
    task, source = emoji
    held = task.candidates(source, "train").regulariser
    assert not [text for text in held if GENDERED.search(text)]
    people = EmojiPeople(views=1).classnames
    assert len(held) == len(people) + len(EmojiWorld().classnames_of("train"))


def test_everything_else_is_held_still_in_half_of_what_the_regulariser_sees(emoji):
    rows = rows_of(*emoji)
    kept = [(e, r) for e, r in rows if r.chosen is None]
    people = [r for _, r in rows if r.chosen is not None]
    assert all(r.rejected is None and r.clean_image is None for _, r in kept)
    assert {e.label for e, _ in kept} == set(EmojiWorld().classnames_of("train"))
    # a person's own picture is its partner, or a kept picture takes that place
    gives_way = sum(r.clean_image is None for r in people)
    assert all(r.clean_image in (None, r.image) for r in people)
    assert gives_way == pytest.approx(len(people) / 2, rel=0.1)
    assert len(kept) == len(people) / 2
    # and no picture of a concept that alignment must not see
    unseen = set(EmojiWorld().classnames_of("test-unseen-concepts"))
    assert not unseen & {e.label for e, _ in kept}


@pytest.mark.parametrize(("share", "expected"), [(0, 0.0), (0.5, 0.5), (1, 1.0)])
def test_a_share_of_the_rows_speaks_of_another_activity(share, expected):
    task = GenderTask(other_activities=share, no_activity=0, keep=None)
    source = task.source(EmojiPeople(views=1))
    others = []
    for example, row in rows_of(task, source):
        shown = source.read(example)
        own = task.concept.caption(shown.value, shown.activity, shown.noun)
        others.append(row.rejected != own)
        says = task.concept.caption
        (flipped,) = task.concept.others(shown.value)
        # the two captions say the same activity, whichever it is
        assert any(
            row.chosen == says(flipped, r.activity, r.noun)
            and row.rejected == says(shown.value, r.activity, r.noun)
            for r in source.readings
        )
    # one activity in 66 is drawn again
    assert statistics.mean(others) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize(("share", "expected"), [(0, 0.0), (0.5, 0.5), (1, 1.0)])
def test_a_share_of_the_rows_says_the_value_alone(share, expected):
    task = GenderTask(other_activities=0, no_activity=share, keep=None)
    source = task.source(EmojiPeople(views=1))
    alone = {"woman": "a photo of a woman.", "man": "a photo of a man."}
    said = []
    for example, row in rows_of(task, source):
        value = source.read(example).value
        said.append(row.rejected == alone[value])
        assert (row.chosen in alone.values()) == said[-1]
    assert statistics.mean(said) == pytest.approx(expected, abs=0.04)
    assert (set(alone.values()) <= set(task.candidates(source, "train").preference)) == (share > 0)


def test_an_image_is_to_be_like_those_of_the_same_activity_with_the_value_it_prefers(emoji):
    task, source = emoji
    for example, row in rows_of(task, source):
        if row.chosen is None:
            assert set(row.columns.values()) == {""}
            continue
        shown = source.read(example)
        (other,) = task.concept.others(shown.value)
        assert row.columns[SHOWS] == f"{shown.value} {shown.activity}"
        assert row.columns[COUNTERPART] == f"{other} {shown.activity}"
    for _, row in rows_of(GenderTask(counterparts=False), source):
        assert row.columns[COUNTERPART] == ""


def test_without_kept_images_every_person_is_its_own_partner():
    task = GenderTask(keep=None)
    source = task.source(EmojiPeople(views=1))
    rows = [row for _, row in rows_of(task, source)]
    assert all(row.clean_image is row.image and row.chosen for row in rows)
    assert len(task.candidates(source, "train").regulariser) == len(EmojiPeople(views=1).classnames)


def test_it_is_a_task_and_its_defaults_are_registered():
    assert isinstance(GenderTask(), Task)
    entry = registry("tasks").entry("gender")
    assert entry.metadata["suite"] == "gender"
    assert entry.metadata["dataset"] == "emoji-people"
    assert entry.metadata["trainable"] == registry("tasks").entry("concept").metadata["trainable"]
    assert component("tasks", "gender", balance=False).concept.name == "gender"


def test_the_recipe_is_a_configuration():
    from clipalign import recipes

    path = Path(recipes.__file__).parent / "gender.yaml"
    assert load_config(path, check_options=True).task_options["concept"] == "gender"


def test_the_prepared_set_has_one_table_and_no_picture_twice(tmp_path):
    rows = prepare("gender", "emoji-people", tmp_path / "prefs", limit=24).rows("train")
    assert {row.chosen is None for row in rows} == {True, False}
    for row in rows:  # a partner is the same file, not a copy
        assert row.clean_file_name in (None, row.file_name)
    assert len({frozenset(row.columns) for row in rows}) == 1
