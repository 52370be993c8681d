"""Words on pictures: inside the picture, scaled with it, and of two worlds that share nothing."""

from __future__ import annotations

import random

import pytest
from PIL import Image, ImageChops

from clipalign.tasks.lettering import fonts_with
from clipalign.tasks.rendering import (
    FILLS,
    INKS,
    LABELS,
    STYLES,
    break_lines,
    draw_attack,
    font_files,
)

GREY = Image.new("RGB", (224, 224), (127, 127, 127))


def changed(before, after):
    """The box of the pixels that differ."""
    return ImageChops.difference(before, after).getbbox()


@pytest.mark.parametrize("style", STYLES)
def test_the_same_rng_draws_the_same_pixels(style):
    one, how = draw_attack(GREY, "iPod", random.Random(7), style=style)
    two, again = draw_attack(GREY, "iPod", random.Random(7), style=style)
    other, _ = draw_attack(GREY, "iPod", random.Random(8), style=style)
    assert (one.tobytes(), how) == (two.tobytes(), again)
    assert one.tobytes() != other.tobytes()
    assert GREY.getextrema() == ((127, 127),) * 3  # what is drawn on is a copy


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (640, 480), (300, 900)])
def test_every_changed_pixel_lies_in_the_box_and_the_box_in_the_image(style, size):
    image = Image.new("RGB", size, (127, 127, 127))
    for seed in range(25):
        attacked, attack = draw_attack(image, "polar bear", random.Random(seed), style=style)
        left, top, right, bottom = attack.box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        x0, y0, x1, y1 = changed(image, attacked)
        assert left <= x0 < x1 <= right
        assert top <= y0 < y1 <= bottom


def sizes(side, style):
    image = Image.new("RGB", (side, side))
    return [draw_attack(image, "ox", random.Random(s), style=style)[1].size for s in range(80)]


@pytest.mark.parametrize(("style", "low", "high"), [("outlined", 20, 40), ("note", 30, 50)])
def test_sizes_are_the_protocols_at_224_and_scale_with_the_image(style, low, high):
    at_224, at_896 = sizes(224, style), sizes(896, style)
    assert low <= min(at_224) < low + 4
    assert high - 4 < max(at_224) <= high
    assert [abs(b - 4 * a) <= 2 for a, b in zip(at_224, at_896, strict=True)] == [True] * 80
    assert min(sizes(64, style)) >= 8  # still to be read


@pytest.mark.parametrize("style", STYLES)
def test_a_long_word_is_shrunk_until_it_fits(style):
    image = Image.new("RGB", (96, 96))
    _, long = draw_attack(image, "pneumonoultramicroscopic", random.Random(1), style=style)
    _, short = draw_attack(image, "ox", random.Random(1), style=style)
    assert long.size < short.size
    assert long.box[2] <= 96


@pytest.mark.parametrize(
    ("word", "side", "seed", "font", "size", "box"),
    [
        # a label as wide as for the drawn size
        ("hummingbird", 96, 3, "montserrat", 11, (1, 47, 94, 66)),
        # a label that shrinks, too; and another font than the one drawn, which has no room
        ("hummingbird", 32, 1, "montserrat", 4, (0, 8, 32, 15)),
        ("pneumonoultramicroscopic", 64, 1, "bitter", 4, (0, 16, 59, 23)),
    ],
)
def test_what_does_not_fit_gives_way_in_a_fixed_order(word, side, seed, font, size, box):
    image = Image.new("RGB", (side, side))
    _, attack = draw_attack(image, word, random.Random(seed), style="note")
    assert (attack.font, attack.size, attack.box) == (font, size, box)


def test_a_given_size_is_used():
    assert draw_attack(GREY, "ox", random.Random(0), style="note", size=33)[1].size == 33


@pytest.mark.parametrize("split", ["train", "test"])
def test_letters_and_outline_are_two_colours(split):
    pairs = {
        (attack.fill, attack.around)
        for seed in range(200)
        for style in STYLES
        for attack in [draw_attack(GREY, "ox", random.Random(seed), style=style, split=split)[1]]
    }
    assert all(fill != around for fill, around in pairs)
    assert {fill for fill, _ in pairs} == set(FILLS[split]) | set(INKS[split])
    assert {around for _, around in pairs} == set(FILLS[split]) | set(LABELS[split])


def test_a_note_is_dark_on_light():
    def light(colour):
        red, green, blue = colour
        return 0.299 * red + 0.587 * green + 0.114 * blue

    for split in ("train", "test"):
        assert max(map(light, INKS[split])) + 100 < min(map(light, LABELS[split]))


def test_training_and_test_share_no_font_and_no_colour():
    assert len(FILLS["train"]) == len(FILLS["test"]) == 8
    for colours in (FILLS, LABELS, INKS):
        assert not set(colours["train"]) & set(colours["test"])
    train, test = font_files("train"), font_files("test")
    assert not {path.stem for path in train} & {path.stem for path in test}
    assert not {path.read_bytes() for path in train} & {path.read_bytes() for path in test}
    assert len(train) >= 3
    used = {
        draw_attack(GREY, "ox", random.Random(seed), style="note", split="test")[1].font
        for seed in range(60)
    }
    assert used == {path.stem for path in test}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("ox", "ox"),
        ("polar bear", "polar\nbear"),
        ("great white shark", "great white\nshark"),
        ("a name of five words", "a name of five words"),
    ],
)
def test_names_of_two_and_three_words_stand_on_two_lines(name, lines):
    assert break_lines(name) == lines


def test_fonts_know_what_they_cannot_write():
    fonts = font_files("train")
    assert fonts_with("iPod & Co.", fonts) == fonts
    assert fonts_with("熊", fonts) == ()
    assert fonts_with("ox 熊", fonts) == ()
