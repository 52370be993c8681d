"""A concept is flipped in the captions, everything else stays, and photographs are taken as is."""

from __future__ import annotations

import csv
import random
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from clipalign.config import load_config
from clipalign.datasets.base import Example
from clipalign.datasets.emoji import EmojiWorld
from clipalign.datasets.emoji_people import EmojiPeople
from clipalign.errors import DataError, UsageError
from clipalign.options import component
from clipalign.plugins import registry
from clipalign.progress import Silent
from clipalign.tasks.base import COUNTERPART, SHOWS, Task
from clipalign.tasks.concept import GenderTask
from clipalign.tasks.concepts.balance import Reading, balanced
from clipalign.tasks.prepare import prepare

GENDERED = re.compile(r"\b(woman|man|women|men|female|male|girl|boy|she|he|her|his)\b", re.I)
BLANK = Image.new("RGB", (8, 8))


class Heard(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


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


@pytest.fixture(scope="module")
def emoji():
    """The task and the embedded people as it wants them."""
    task = GenderTask()
    return task, task.source(EmojiPeople())


@pytest.fixture
def photographs(tmp_path):
    """Write a table of small images with these columns; returns its path."""

    def write(columns, *rows):
        with (tmp_path / "index.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *columns])
            for i, row in enumerate(rows):
                Image.new("RGB", (20, 16), (9 * i % 256, 80, 200)).save(tmp_path / f"{i}.png")
                writer.writerow([f"{i}.png", *row])
        return tmp_path / "index.csv"

    return write


def concept_file(folder: Path, text: str) -> str:
    path = folder / "concept.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows_of(task, source, split="train", seed=0):
    """The rows of a split, drawn on a blank picture."""
    return [
        (example, row)
        for example in source.examples(split)
        for row in task.rows(
            example, BLANK, source, split, random.Random(f"{seed}/{split}/{example.key}")
        )
    ]


# --- The embedded people ------------------------------------------------------------------------


def test_the_gender_is_flipped_and_the_rest_of_the_sentence_kept(emoji):
    rows = [(e, r) for e, r in rows_of(*emoji) if r.chosen is not None]
    assert len(rows) == len(EmojiPeople().examples("train"))
    for example, row in rows:
        own = example.attributes["gender"]
        other = {"woman": "man", "man": "woman"}[own]
        assert f" {own} " in row.rejected
        assert row.chosen == row.rejected.replace(f" {own} ", f" {other} ")


def test_flipping_twice_gives_the_caption_back(emoji):
    flip = {row.rejected: row.chosen for _, row in rows_of(*emoji) if row.chosen is not None}
    assert set(flip) == set(flip.values())
    assert all(flip[flip[caption]] == caption != flip[caption] for caption in flip)


def test_the_policy_sees_every_activity_with_either_gender(emoji):
    task, source = emoji
    candidates = task.candidates(source, "train")
    used = {text for _, row in rows_of(*emoji) for text in (row.chosen, row.rejected) if text}
    assert used == set(candidates.preference)
    assert len(candidates.preference) == 2 * len(EmojiPeople().classnames)
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
    assert len(held) == len(EmojiPeople().classnames) + len(EmojiWorld().classnames_of("train"))


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
    task = GenderTask(other_activities=share, keep=None)
    source = task.source(EmojiPeople())
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
    source = task.source(EmojiPeople())
    rows = [row for _, row in rows_of(task, source)]
    assert all(row.clean_image is row.image and row.chosen for row in rows)
    assert len(task.candidates(source, "train").regulariser) == len(EmojiPeople().classnames)


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


# --- Photographs --------------------------------------------------------------------------------


def test_a_table_of_photographs_with_activities(photographs, tmp_path):
    rows = [("woman", "running"), ("MAN", "running"), ("female", "judge"), ("male", "judge")]
    made = prepare(
        "gender",
        photographs(("gender", "activity"), *rows),
        tmp_path / "prefs",
        task_options={"other_activities": 0},
        dataset_options={"label_column": None},
    )
    assert [(row.chosen, row.rejected) for row in made.rows("train")] == [
        ("a photo of a man running.", "a photo of a woman running."),
        ("a photo of a woman running.", "a photo of a man running."),
        ("a photo of a man judge.", "a photo of a woman judge."),
        ("a photo of a woman judge.", "a photo of a man judge."),
    ]
    assert made.regulariser_candidates == ("a photo of a judge.", "a photo of a person running.")
    assert not made.manifest.notes


def test_workers_write_the_same_bytes(photographs, photos, tmp_path):
    table = photographs(("gender", "activity"), *[("woman", "running"), ("man", "running")] * 9)
    sets = [
        prepare(
            "gender",
            table,
            tmp_path / str(workers),
            task_options={"keep": str(photos)},
            dataset_options={"label_column": None},
            workers=workers,
        )
        for workers in (0, 2)
    ]
    assert sets[0].content_sha256 == sets[1].content_sha256


def test_without_activities_the_captions_are_plain_and_a_note_says_what_is_lost(
    photographs, tmp_path
):
    heard = Heard()
    made = prepare(
        "gender",
        photographs(("gender",), ("woman",), ("man",)),
        tmp_path / "prefs",
        dataset_options={"label_column": None},
        reporter=heard,
    )
    assert made.candidates == ("a photo of a woman.", "a photo of a man.")
    assert made.regulariser_candidates is None
    assert all(row.clean_image is None for row in made.rows("train"))
    assert any("'activity'" in note for note in heard.notes)
    assert any("Nothing is held still" in note for note in heard.notes)


def test_other_photographs_hold_still_what_has_no_activity(photographs, tmp_path):
    people = photographs(("gender",), ("woman",), ("man",))
    things = tmp_path / "things"
    for name in ("cup", "lamp"):
        (things / name).mkdir(parents=True)
        BLANK.resize((20, 20)).save(things / name / "0.png")
    made = prepare(
        "gender",
        people,
        tmp_path / "prefs",
        task_options={"keep": str(things), "keep_share": 0.9},
        dataset_options={"label_column": None},
    )
    assert made.regulariser_candidates == (
        "a photo of a person.", "a photo of a cup.", "a photo of a lamp."
    )  # fmt: skip
    assert [row.label for row in made.rows("train") if row.chosen is None] == ["cup", "lamp"]


def test_an_activity_that_says_the_gender_is_quarantined():
    task = GenderTask()
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


def test_real_photographs_of_people(real_photos, tmp_path):
    table = real_photos / "people_activities" / "index.csv"
    if not table.is_file():
        pytest.skip(f"no {table} (path,gender,activity,captions)")
    made = prepare("gender", table, tmp_path / "prefs", dataset_options={"label_column": None})
    rows = made.rows("train")
    seen = Counter((row.columns["activity"], row.columns["gender"]) for row in rows)
    assert rows
    assert all(seen[activity, "woman"] == seen[activity, "man"] for activity, _ in seen)
    assert {row.rejected for row in rows} <= set(made.candidates)
    assert not [text for text in made.regulariser_candidates if GENDERED.search(text)]
    assert "unequal groups" in made.manifest.notes[0]


def test_real_photographs_of_faces(real_photos, tmp_path):
    table = real_photos / "faces" / "index.csv"
    if not table.is_file():
        pytest.skip(f"no {table} (path,gender,age)")
    made = prepare(
        "gender",
        table,
        tmp_path / "prefs",
        task_options={"attribute": "label", "keep": "emoji"},
        dataset_options={"label_column": "gender"},
        limit=20,
    )
    judged = [row for row in made.rows("train") if row.chosen is not None]
    assert {row.rejected for row in judged} == {"a photo of a woman.", "a photo of a man."}
    assert all(f" {row.label}." in row.rejected for row in judged)


# --- Concepts of one's own ----------------------------------------------------------------------


PLACES = """
name: place
attribute: where
values:
  indoor: [inside of a house]
  outdoor: [under the open sky]
captions:
  alone: {concept: "{value}"}
"""


def test_any_two_prompts_are_a_concept(photographs, tmp_path):
    spec = concept_file(tmp_path, PLACES)
    table = photographs(("where", "label"), ("indoor", "cat"), ("outdoor", "cat"), ("moon", "cat"))
    made = prepare("concept", table, tmp_path / "prefs", task_options={"concept": spec})
    assert made.candidates == ("inside of a house", "under the open sky")
    assert [row.chosen for row in made.rows("train")] == list(made.candidates)[::-1]
    [refused] = made.quarantined()
    assert refused["reason"] == "its where is 'moon', which is none of indoor, outdoor"
    assert made.manifest.options["concept"] == spec
