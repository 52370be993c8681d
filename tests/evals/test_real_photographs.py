"""The suites on real photographs, through the tables that stand beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PHOTOS = Path(os.environ.get("CLIPALIGN_PHOTOS", Path(__file__).parents[3] / "shared" / "photos"))
pytestmark = pytest.mark.skipif(
    not (PHOTOS / "caltech101" / "index.csv").is_file(),
    reason="no real photographs here; CLIPALIGN_PHOTOS says where they are",
)


def evaluated(folder, **options):
    import clipalign

    return clipalign.evaluate(dataset=PHOTOS / folder / "index.csv", **options)


def test_typographic_on_photographs_with_real_words():
    (result,) = evaluated("typographic_paint")
    assert result.dataset.n == 110
    assert result.options["fonts"] is None  # nothing was drawn
    assert result.metrics["attacked_accuracy"].n == 110
    assert "clean_accuracy" not in result.metrics
    assert not result.warnings


def test_typographic_on_photographs_that_words_are_drawn_on(tmp_path):
    import clipalign

    lines = (PHOTOS / "caltech101" / "index.csv").read_text().splitlines()
    tests = [line for line in lines[1:] if line.endswith(",test")]
    table = tmp_path / "few.csv"
    table.write_text("\n".join([lines[0], *tests[::20]]))
    (result,) = clipalign.evaluate(
        dataset=table, dataset_options={"root": str(PHOTOS / "caltech101")}
    )
    assert result.dataset.n == len(tests[::20]) == 50
    assert result.metrics["clean_accuracy"].n == 50
    assert result.dataset.split == "test"


def test_gender_on_photographs_of_people():
    for folder in ("people_activities", "faces"):
        (result,) = evaluated(folder, suites=["gender"])
        assert 0 <= result.metrics["gender_accuracy"].value <= 1
        assert (
            result.metrics["gender_accuracy"].n == {"people_activities": 233, "faces": 600}[folder]
        )


def test_preferences_that_are_given_for_photographs(tmp_path):
    from clipalign.tasks.prepare import prepare

    rows = ["image,chosen,rejected"]
    for line in (PHOTOS / "typographic_paint" / "index.csv").read_text().splitlines()[1:]:
        image, label, word = line.split(",")[:3]
        rows.append(f"{image},a photo of a {label},a photo of a {word}")
    table = tmp_path / "prefs.csv"
    table.write_text("\n".join(rows))
    made = prepare(
        "preferences",
        table,
        tmp_path / "out",
        dataset_options={"root": str(PHOTOS / "typographic_paint")},
    )
    assert len(made.rows("train")) == 110
    assert not made.quarantined()
