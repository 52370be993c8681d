"""The typographic task: what is shown is chosen, what is written is rejected."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image
from pydantic import ValidationError

from clipalign.datasets.base import Example
from clipalign.errors import DataError
from clipalign.tasks.base import Task
from clipalign.tasks.lettering import fonts_with, needs_shaping
from clipalign.tasks.rendering import FILLS, LABELS, font_files
from clipalign.tasks.typographic import Typographic

BITMAP = """STARTFONT 2.1
FONT -t-t-medium-r-normal--20-200-75-75-c-80-iso10646-1
SIZE 20 75 75
FONTBOUNDINGBOX 8 1 0 0
STARTPROPERTIES 2
PIXEL_SIZE 20
FONT_ASCENT 20
ENDPROPERTIES
CHARS 1
STARTCHAR A
ENCODING 65
SWIDTH 500 0
DWIDTH 8 0
BBX 8 1 0 0
BITMAP
FF
ENDCHAR
ENDFONT
"""
PHOTO = Image.new("RGB", (128, 128), (90, 120, 150))


class Shapes:
    """A dataset of names alone."""

    name, licence = "shapes", "none"
    templates = ("a photo of a {}.", "{}")

    def __init__(self, *classnames):
        self.classnames = classnames
        self.fingerprint = " ".join(classnames)

    def examples(self, split):
        return ()


ANIMALS = Shapes("ant", "bee", "cat", "dog", "eel")
CAT = Example("cat/1.png", "cat", None)


def rows(task, example=CAT, dataset=ANIMALS, split="train", seed=0, image=PHOTO):
    return list(task.rows(example, image, dataset, split, random.Random(seed)))


def test_it_is_a_task():
    assert isinstance(Typographic(), Task)


def test_chosen_is_what_is_shown_and_rejected_what_is_written():
    task = Typographic()
    candidates = task.candidates(ANIMALS, "train").preference
    assert candidates == tuple(f"a photo of a {name}." for name in ANIMALS.classnames)
    for seed in range(30):
        (row,) = rows(task, seed=seed)
        assert row.chosen == "a photo of a cat."
        assert row.rejected == f"a photo of a {row.columns['attack_text']}."
        assert row.rejected != row.chosen
        assert {row.chosen, row.rejected} <= set(candidates)
        assert row.clean_image.tobytes() == PHOTO.tobytes()
        assert row.image.tobytes() != PHOTO.tobytes()


def test_the_wrong_class_is_uniform_over_the_others():
    task, n = Typographic(styles=["note"]), 800
    counts = Counter(rows(task, seed=s)[0].columns["attack_text"] for s in range(n))
    assert set(counts) == {"ant", "bee", "dog", "eel"}
    expected = n / 4
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 16.3  # 3 degrees of freedom, p = 0.001


def test_both_styles_are_drawn_about_equally_often():
    styles = Counter(rows(Typographic(), seed=s)[0].columns["style"] for s in range(200))
    assert set(styles) == {"outlined", "note"}
    assert abs(styles["note"] - 100) < 40
    only = {rows(Typographic(styles=["outlined"]), seed=s)[0].columns["style"] for s in range(20)}
    assert only == {"outlined"}


def test_several_attacks_share_the_clean_image_and_begin_alike():
    one, three = rows(Typographic()), rows(Typographic(attacks_per_image=3))
    assert len(three) == 3
    assert three[0].columns == one[0].columns
    assert len({id(row.clean_image) for row in three}) == 1
    assert len({row.image.tobytes() for row in three}) == 3


@pytest.mark.parametrize(
    ("split", "side"),
    [("train", "train"), ("validation", "train"), ("test", "test"), ("test-unseen-style", "test")],
)
def test_test_splits_have_fonts_and_colours_of_their_own(split, side):
    found = [rows(Typographic(), split=split, seed=seed)[0].columns for seed in range(40)]
    assert {c["font"] for c in found} <= {path.stem for path in font_files(side)}
    colours = {"#{:02x}{:02x}{:02x}".format(*c) for c in FILLS[side] + LABELS[side]}
    assert {c["around"] for c in found} <= colours


def test_templates_come_from_the_dataset_unless_given():
    task = Typographic(template="it says {}")
    assert task.candidates(ANIMALS, "train").preference[0] == "it says ant"
    assert rows(task)[0].chosen == "it says cat"


def test_words_can_be_limited_to_some_classes():
    task = Typographic(wrong_classes=["eel", "cat"])
    assert {rows(task, seed=s)[0].columns["attack_text"] for s in range(20)} == {"eel"}
    composed = Shapes("caf\u00e9", "ant")  # as every label is
    assert Typographic(wrong_classes=["cafe\u0301"]).candidates(composed, "train")
    with pytest.raises(DataError, match=r"names 'cats', which is not a class.*Did you mean 'cat'"):
        Typographic(wrong_classes=["cats"]).candidates(ANIMALS, "train")
    with pytest.raises(DataError, match="no wrong name to write on an image of 'cat'"):
        rows(Typographic(wrong_classes=["cat"]))


def test_splits_with_class_names_of_their_own():
    class Split(Shapes):
        def classnames_of(self, split):
            return ("xi", "yo") if split == "test" else self.classnames

    dataset = Split("ant", "bee")
    assert Typographic().candidates(dataset, "test").preference[0] == "a photo of a xi."
    (row,) = rows(Typographic(), Example("1", "xi", None), dataset, "test")
    assert row.rejected == "a photo of a yo."


@pytest.mark.parametrize(("names", "words"), [(["ant"], "one class, 'ant'"), ([], "no classes")])
def test_one_class_is_not_enough(names, words):
    with pytest.raises(DataError, match=words):
        Typographic().candidates(Shapes(*names), "train")


def test_an_image_without_a_usable_label_is_refused():
    with pytest.raises(DataError, match="no label"):
        rows(Typographic(), replace(CAT, label=None))
    with pytest.raises(DataError, match="'owl' is not a class"):
        rows(Typographic(), replace(CAT, label="owl"))


def test_an_image_too_small_for_a_word_is_refused():
    with pytest.raises(DataError, match="6 × 6 pixels are too few to write"):
        rows(Typographic(), image=PHOTO.resize((6, 6)))


def test_names_that_no_font_can_write_are_told_and_never_written():
    bears = Shapes("熊", "bear", "wolf")
    task = Typographic()
    candidates = task.candidates(bears, "train")
    assert len(candidates.preference) == 3
    assert "'熊'" in candidates.notes[0]
    bear = Example("1", "bear", None)
    words = {rows(task, bear, bears, seed=s)[0].columns["attack_text"] for s in range(20)}
    assert words == {"wolf"}
    with pytest.raises(DataError, match="No font draws all characters of '熊', '狼'"):
        task.candidates(Shapes("熊", "狼"), "train")


@pytest.mark.parametrize("name", ["שלום", "مرحبا", "नमस्ते"])
def test_names_whose_letters_join_or_run_from_right_to_left_are_never_written(name):
    task = Typographic()
    note = task.candidates(Shapes(name, "bear", "wolf"), "train").notes[0]
    assert note.startswith(f"No font is enough for {name!r}, whose letters run from right")
    assert needs_shaping(name)
    assert not any(map(needs_shaping, ("polar bear", "Käfer", "東京", "Ёж")))


def test_a_character_without_ink_is_not_written(tmp_path):
    """A colour font has empty outlines, and its pictures elsewhere."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    empty = pen.glyph()
    for move, *point in (("moveTo", 0, 0), ("lineTo", 0, 700), ("lineTo", 700, 0)):
        getattr(pen, move)(tuple(point))
    pen.closePath()
    builder.setupGlyphOrder([".notdef", "a", "cat"])
    builder.setupCharacterMap({ord("a"): "a", ord("🐱"): "cat"})
    triangle = pen.glyph()
    builder.setupGlyf({".notdef": empty, "a": triangle, "cat": empty})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "a": (800, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Cats", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "cats.ttf")
    fonts = [tmp_path / "cats.ttf"]
    assert fonts_with("aa", fonts)
    assert not fonts_with("a🐱", fonts)


def test_a_font_of_one_size_is_refused(tmp_path):
    (tmp_path / "b20.bdf").write_text(BITMAP)
    with pytest.raises(ValidationError, match=r"b20\.bdf has no outlines that scale"):
        Typographic(fonts=[tmp_path / "b20.bdf"])


def test_a_photograph_that_carries_a_word_is_left_out():
    photo = replace(CAT, attributes={"attack_text": "dog"})
    with pytest.raises(DataError, match="'dog' is written on it already"):
        rows(Typographic(), photo)
    assert rows(Typographic(), replace(CAT, attributes={"attack_text": ""}))


def test_options_are_checked(tmp_path):
    (tmp_path / "no.ttf").write_text("not a font")
    for options in (
        {"styles": ["sticker"]},
        {"styles": []},
        {"attacks_per_image": 0},
        {"template": "no place"},
        {"fonts": [tmp_path / "no.ttf"]},
        {"fonts": [tmp_path / "gone.ttf"]},
        {"colour": "red"},
    ):
        with pytest.raises(ValidationError):
            Typographic(**options)


def test_fonts_of_ones_own_are_used_in_every_split_and_change_the_fingerprint():
    fonts = font_files("train")[:1]
    task = Typographic(fonts=fonts)
    for split in ("train", "test"):
        assert rows(task, split=split)[0].columns["font"] == fonts[0].stem
    assert task.fingerprint != Typographic().fingerprint
    assert Typographic().fingerprint == Typographic().fingerprint
