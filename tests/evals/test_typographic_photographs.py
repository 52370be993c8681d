"""Photographs that carry words already are scored as they are; nothing is drawn on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipalign.datasets.base import Example
from clipalign.evals.units import units_of
from tests.evals.typographic import compared, run

PHOTOS = Path(os.environ.get("CLIPALIGN_PHOTOS", Path(__file__).parents[3] / "shared" / "photos"))


def test_photographs_with_words_are_scored_as_they_are(eyes, shapes, painted_words):
    """The reader takes the left of the image, which here is plain: it sees what is there."""
    dataset = shapes(words={"leaf-0-0": "iPod", "leaf-0-1": "ocean", "stone-1-0": "stone"})
    eye = eyes("left")
    known = eye.encode_text
    eye.encode_text = lambda texts: known([t.replace("iPod", "ocean") for t in texts])
    result, rows = run(eye, dataset, template="{}")
    assert result.classnames == ["cherry", "iPod", "leaf", "ocean", "stone"]
    assert result.templates == ["{}"]
    assert result.options["fonts"] is None
    counts = {name: metric.n for name, metric in result.metrics.items()}
    assert counts == {
        "clean_accuracy": 21,
        "attacked_accuracy": 2,
        "attack_success_rate": 2,  # a word that names the object is no attack
        "object_or_word": 2,
        "ece": 21,
    }
    assert [r["style"] for r in rows if r["written"]] == ["photograph"] * 3


def test_a_word_that_names_the_object_is_no_attack(eyes, shapes, painted_words):
    """Two images carry their own name: to be right there says nothing of an attack."""
    words = {"leaf-0-0": "leaf", "stone-1-0": "ocean", "ocean-1-0": "stone", "ocean-2-0": "ocean"}
    eye = eyes("left")
    eye.encode_image = lambda pixels: eye.encode_text(["stone"]).expand(len(pixels), -1)
    result, rows = run(eye, shapes(words=words), template="{}")
    assert (result.metrics["attacked_accuracy"].value, result.metrics["attacked_accuracy"].n) == (
        0.5,
        2,
    )
    assert result.per_class["stone"]["attacked_n"] == result.per_class["ocean"]["attacked_n"] == 1
    assert "attacked_n" not in result.per_class["leaf"]
    assert units_of(result, rows)["attacked_accuracy"].keys == (
        "ocean-1-0/photograph/0",
        "stone-1-0/photograph/0",
    )


def test_the_attack_column_has_any_name(eyes, shapes, painted_words):
    dataset = shapes(words={"leaf-0-0": "ocean"})
    result, _ = run(eyes("left"), dataset, attack_column="sticker")
    assert "accuracy_drop" in result.metrics


class Paint:
    """The PAINT photographs: `path,label,attack_text`, read without any dataset of clipalign's."""

    name, licence, fingerprint = "paint", "unclear", "0" * 64
    templates = ("a photo of a {}.",)
    classnames = ()

    def splits(self):
        return ("test",)

    def examples(self, split):
        import csv

        with open(PHOTOS / "typographic_paint" / "index.csv", newline="") as file:
            return [
                Example(r["path"], r["label"], r["path"], "", {"attack_text": r["attack_text"]})
                for r in csv.DictReader(file)
            ]

    def image(self, example):
        from PIL import Image

        return Image.open(PHOTOS / "typographic_paint" / example.source).convert("RGB")


@pytest.mark.skipif(
    not (PHOTOS / "typographic_paint" / "index.csv").is_file(),
    reason="the PAINT photographs are not here; CLIPALIGN_PHOTOS says where they are",
)
def test_all_paint_photographs_are_scored(small_models):
    from clipalign.models.load import load_model

    before, after = (load_model(f"local-dir:{path}") for path in small_models)
    result, rows = run(after, Paint(), reference=before)
    assert len(rows) == result.dataset.n == 110
    assert result.metrics["attacked_accuracy"].n == 110
    assert set(result.metrics) == {"attacked_accuracy", "attack_success_rate", "object_or_word"}
    labels = {e.label for e in Paint().examples("test")}
    words = {e.attributes["attack_text"] for e in Paint().examples("test")}
    assert result.classnames == sorted(labels | words)
    assert compared(result)["attacked_accuracy"].test.startswith("mcnemar")
