"""Preferences about people on photographs: tables with and without activities, real ones too."""

from __future__ import annotations

from collections import Counter

import pytest

from clipalign.tasks.prepare import prepare
from tests.tasks.conftest import BLANK, GENDERED


def test_a_table_of_photographs_with_activities(photographs, tmp_path):
    rows = [("woman", "running"), ("MAN", "running"), ("female", "judge"), ("male", "judge")]
    made = prepare(
        "gender",
        photographs(("gender", "activity"), *rows),
        tmp_path / "prefs",
        task_options={"other_activities": 0, "no_activity": 0},
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
            workers=workers,
        )
        for workers in (0, 2)
    ]
    assert sets[0].content_sha256 == sets[1].content_sha256


def test_without_activities_the_captions_are_plain_and_a_note_says_what_is_lost(
    photographs, tmp_path, notes
):
    made = prepare(
        "gender",
        photographs(("gender",), ("woman",), ("man",)),
        tmp_path / "prefs",
        reporter=notes,
    )
    assert made.candidates == ("a photo of a woman.", "a photo of a man.")
    assert made.regulariser_candidates is None
    assert all(row.clean_image is None for row in made.rows("train"))
    assert any("'activity'" in note for note in notes.lines)
    assert any("Nothing is held still" in note for note in notes.lines)


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
    )
    assert made.regulariser_candidates == (
        "a photo of a person.", "a photo of a cup.", "a photo of a lamp."
    )  # fmt: skip
    assert [row.label for row in made.rows("train") if row.chosen is None] == ["cup", "lamp"]


def test_real_photographs_of_people(real_photos, tmp_path):
    table = real_photos / "people_activities" / "index.csv"
    if not table.is_file():
        pytest.skip(f"no {table} (path,gender,activity,captions)")
    made = prepare("gender", table, tmp_path / "prefs")
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
