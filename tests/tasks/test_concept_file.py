"""A concept file says which values there are and how captions say them; its faults are named."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from clipalign.datasets.folder import Folder
from clipalign.errors import ConfigError
from clipalign.options import component
from clipalign.tasks.concept import ConceptTask
from clipalign.tasks.concepts.file import load_concept
from clipalign.tasks.prepare import prepare

AGES = """
name: age
attribute: label
values:
  old: [an old, ant]
  adult: [an adult, bee]
  young: [a young, cat]
captions:
  alone: {concept: "a photo of {value} person.", neutral: "a photo of a person."}
"""


def concept_file(folder: Path, text: str) -> str:
    path = folder / "concept.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_column_may_use_any_word_in_upper_or_lower_case():
    gender = load_concept("gender")
    means = {text: gender.value_of(text) for text in ("Female", " WOMEN ", "man", "person", "")}
    assert means == {
        "Female": "woman", " WOMEN ": "woman", "man": "man", "person": None, "": None
    }  # fmt: skip


def test_a_word_counts_where_it_stands_whole():
    gender = load_concept("gender")
    assert gender.said_in("talking to a Woman") == "Woman"
    assert gender.said_in("manager of a shepherd") is None


def test_the_class_name_can_be_the_attribute_and_any_other_value_is_preferred(photos, tmp_path):
    task = ConceptTask(concept=concept_file(tmp_path, AGES), balance=False)
    folder = Folder(root=photos)
    [ant, *_] = folder.examples("train")
    assert task.candidates(folder, "train").preference == (
        "a photo of an old person.", "a photo of an adult person.", "a photo of a young person."
    )  # fmt: skip
    preferred: Counter[str] = Counter()
    for seed in range(60):
        [row] = task.rows(ant, Image.new("RGB", (8, 8)), folder, "train", random.Random(seed))
        assert row.rejected == "a photo of an old person."
        preferred[row.chosen] += 1
    assert set(preferred) == {"a photo of an adult person.", "a photo of a young person."}
    assert min(preferred.values()) > 15


def test_another_word_in_the_file_makes_another_set(photos, tmp_path):
    spec = concept_file(tmp_path, AGES)
    before = ConceptTask(concept=spec).fingerprint
    concept_file(tmp_path, AGES.replace("an old", "an elderly"))
    task = ConceptTask(concept=spec)
    assert task.fingerprint != before
    candidates = task.candidates(Folder(root=photos), "train")
    assert candidates.preference[0] == "a photo of an elderly person."


def test_everything_wrong_in_a_concept_file_is_said_at_once(tmp_path):
    spec = concept_file(
        tmp_path,
        """
        nam: x
        attribute: gender
        values: {a: [man], b: []}
        captions:
          alone: {concept: "no place", neutrl: "x"}
          phrase: {concept: "a {value:>10} {activity}", neutral: "a {activity} {activity}"}
        """,
    )
    with pytest.raises(ConfigError) as error:
        load_concept(spec)
    for words in (
        "name: must be given",
        "nam: unknown key. Did you mean 'name'?",
        "values.b: ",
        "captions.alone.concept: 'no place' must have the places {value}",
        "captions.alone.neutrl: unknown key. Did you mean 'neutral'?",
        "captions.phrase.concept: ",
        "captions.phrase.neutral: ",
    ):
        assert words in str(error.value)


def test_captions_that_would_be_equal_are_refused(tmp_path):
    spec = concept_file(
        tmp_path,
        """
        name: x
        attribute: gender
        activity: doing
        values: {a: [man], b: [Man], c: [x, a]}
        captions: {alone: {concept: "{value}", neutral: "the man"}}
        nouns: {activities: [judge]}
        """,
    )
    with pytest.raises(ConfigError) as error:
        load_concept(spec)
    for words in (
        "values.b: it is written 'Man', as a is",
        "values.c: 'a' is also a word of a",
        "captions.alone.neutral: it says 'man'",
        "captions.noun",
        "captions.phrase",
    ):
        assert words in str(error.value)


def test_a_file_that_is_missing_or_no_yaml_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no concept file 'gendr'\. Did you mean 'gender'"):
        load_concept("gendr")
    with pytest.raises(ConfigError, match="line 2"):
        load_concept(concept_file(tmp_path, "name: x\nvalues: *all\n"))
    with pytest.raises(ConfigError) as error:
        component("tasks", "concept", concept="gendr", balancd=True)
    assert "Did you mean 'gender'" in str(error.value)
    assert "Did you mean 'balance'" in str(error.value)


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
